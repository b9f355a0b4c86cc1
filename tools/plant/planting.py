"""Faults that can be planted, and copies of the product in which one is."""

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

TABLE = pathlib.Path(__file__).with_name("faults.toml")
POSTGRESQL = os.environ.get("TEST_DATABASE_URL")
ENDING = 5  # seconds in which what was killed is gone


class Fault(NamedTuple):
    """A patch of one file of the product, such as a careless person might make."""

    name: str
    sentence: str  # what they did, and what is lost by it
    promise: str  # that is broken: `S-13` of docs/streams.md, or the document that has it
    file: str
    old: str  # which is in the file once
    new: str
    near: list[str]  # the files of tests that are asked first
    befalls: str = ""  # what befalls the service in a soak that is to show it; by default any

    def planted_in(self, text):
        """The text of its file with the fault. Raises ValueError where there is no place for it."""
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: `old` is {text.count(self.old)} times in {self.file}")
        return text.replace(self.old, self.new)


def read_faults():
    """All faults by their names."""
    with TABLE.open("rb") as file:
        return {name: Fault(name, **fields) for name, fields in tomllib.load(file).items()}


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
        """The fault is in the copy within this."""
        path = self.root / fault.file
        before = path.read_text("utf-8")
        path.write_text(fault.planted_in(before), "utf-8")
        try:
            yield
        finally:
            path.write_text(before, "utf-8")

    @contextlib.contextmanager
    def running(self, *arguments):
        """A process of Python in the copy, whose output is a pipe; nothing of it is left behind
        this."""
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
        """Kill what tests have started and left, as servers and browsers: they have sessions of
        their own."""
        deadline = time.monotonic() + ENDING
        while (left := started_in(self.environment["TMPDIR"])) and time.monotonic() < deadline:
            for pid in left:
                kill(pid)
            time.sleep(0.05)


def kill(pid):
    """With its group, where it leads one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
        os.killpg(pid, signal.SIGKILL)


def started_in(folder):
    """The processes whose TMPDIR is this folder, which is handed down, and those that name a place
    in it as they are started."""
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
    databases; nothing is left of these behind this."""
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
    """The small disks that a soak which was killed has left there."""
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        place = line.split()[1]
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", place], check=False)


def environment_of(scratch, url):
    """That of this process, without what a pytest around it has set."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    clean |= {"TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"}
    return clean | ({"TEST_DATABASE_URL": url} if url else {})


@contextlib.contextmanager
def own_role():
    """The URL by which a role of this run reaches PostgreSQL, where the tests have one, else None.
    Its databases go with it."""
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
