"""Faults that can be planted, and copies of the product that have one."""

import contextlib
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg

from product import copy_of_the_clone

TABLES = sorted(pathlib.Path(__file__).parent.glob("*faults.toml"))
POSTGRESQL = os.environ.get("TEST_DATABASE_URL")
ENDING = 5  # seconds until a killed process is gone


class NoPlace(Exception):
    """The product has changed: the patch no longer applies."""


class Fault(NamedTuple):
    """A patch of one file of the product, such as a careless person might make."""

    name: str
    sentence: str  # what they did, and what breaks because of it
    promise: str  # the broken one: `S-13` of docs/streams.md, or the document that has it
    file: str
    old: str  # which is in the file once
    new: str
    near: list[str]  # the test files that are run first
    befalls: str = ""  # the soak's fault that shows it; by default any
    harmless: str = ""  # why it is no fault after all, though it looks like one

    def planted_in(self, text):
        """The text of its file with the fault. Raises NoPlace if the patch does not apply."""
        if text.count(self.old) != 1:
            raise NoPlace(f"`old` is {text.count(self.old)} times in {self.file}")
        return text.replace(self.old, self.new)


def read_faults():
    """All faults by their names."""
    return {
        name: Fault(name, **fields)
        for table in TABLES
        for name, fields in tomllib.loads(table.read_text("utf-8")).items()
    }


class Copy:
    """A copy of git's files, in which faults are planted one after the other."""

    def __init__(self, folder, environment):
        self.root = copy_of_the_clone(folder / "copy")
        # Some tests ask git for the files.
        for command in (["init", "-q"], ["add", "-A"]):
            subprocess.run(["git", *command], cwd=self.root, check=True)
        # The libraries are those of the Python that runs this.
        (self.root / ".venv").symlink_to(sys.prefix)
        self.environment = environment

    @contextlib.contextmanager
    def planted(self, fault):
        """The fault is in the copy within this context."""
        path = self.root / fault.file
        before = path.read_text("utf-8") if path.exists() else ""
        path.write_text(fault.planted_in(before), "utf-8")
        try:
            yield
        finally:
            path.write_text(before, "utf-8")

    @contextlib.contextmanager
    def running(self, *arguments):
        """A process of Python in the copy, whose output is a pipe. After the context, nothing of it
        is left."""
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            yield process
        finally:
            kill(process.pid)
            process.wait()
            self.clear()

    def clear(self):
        """Kill the processes that tests have started and left, such as servers and browsers: they
        have sessions of their own."""
        deadline = time.monotonic() + ENDING
        while (left := started_in(self.environment["TMPDIR"])) and time.monotonic() < deadline:
            for pid in left:
                kill(pid)
            time.sleep(0.05)


def kill(pid):
    """With its group, if it leads one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
        os.killpg(pid, signal.SIGKILL)


def started_in(folder):
    """The processes whose TMPDIR is this folder (children inherit it), and those with a path in it
    among their arguments."""
    mark, place = f"TMPDIR={folder}".encode(), f"{folder}/".encode()
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_within = mark in (path / "environ").read_bytes().split(b"\0")
            if is_within or place in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


@contextlib.contextmanager
def new_copy():
    """A copy with a folder for what tests write, and a role of PostgreSQL that owns their
    databases. After the context, nothing of these is left."""
    # A socket's path has at most 107 bytes.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="p-"))
    scratch = folder / "t"
    scratch.mkdir()
    # Some programs that tests start have users of their own.
    folder.chmod(0o711)
    scratch.chmod(0o1777)
    try:
        with own_role() as url:
            yield Copy(folder, environment_of(scratch, url))
    finally:
        unmount(folder)
        shutil.rmtree(folder, ignore_errors=True)


def unmount(folder):
    """Unmount the small disks that a killed soak has left there."""
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        place = line.split()[1]
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", place], check=False)


def environment_of(scratch, url):
    """The environment of this process, without what a pytest around it has set."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    clean |= {"TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"}
    return clean | ({"TEST_DATABASE_URL": url} if url else {})


@contextlib.contextmanager
def own_role():
    """The URL by which a role of this run reaches PostgreSQL, if the tests have one, else None. Its
    databases are dropped with it."""
    if not POSTGRESQL:
        yield None
        return
    name, password = f"plant_{secrets.token_hex(6)}", secrets.token_hex(16)
    with psycopg.connect(POSTGRESQL, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} SUPERUSER LOGIN PASSWORD '{password}'")
    target = urlsplit(POSTGRESQL)
    place = target.netloc.rpartition("@")[2]
    try:
        yield target._replace(netloc=f"{name}:{password}@{place}").geturl()
    finally:
        with psycopg.connect(POSTGRESQL, autocommit=True) as connection:
            owned = "SELECT datname FROM pg_database JOIN pg_roles r ON r.oid = datdba WHERE rolname = %s"
            for (database,) in connection.execute(owned, [name]).fetchall():
                connection.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
            connection.execute(f"DROP ROLE {name}")
