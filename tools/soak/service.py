"""The service of a soak: a server with its provider and its database, and what its faults need."""

import contextlib
import os
import subprocess
import tempfile

import pytest

import trouble
from cluster import Cluster, find_binaries
from provider import Provider
from servers import Server

SQLITE, POSTGRESQL = ENGINES = "sqlite", "postgresql"
CLOCK, DISK = "a clock of its own", "a small disk"
REPLY_WAIT = 2  # seconds that a waiting request is held


@contextlib.contextmanager
def small_disk(folder):
    """A small file system in this folder."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128m", "none", str(disk)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def lacks_disk():
    mount = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", tempfile.gettempdir()]
    is_had = os.getuid() == 0 and not subprocess.run(mount, capture_output=True).returncode
    return None if is_had else "only root mounts a small file system, where that is allowed"


def lacks_clock():
    return None if trouble.find_libfaketime() else "libfaketime is not installed"


def lacks_postgresql():
    try:
        find_binaries()
    except pytest.skip.Exception as problem:
        return str(problem)


# What a soak may need → a function that says what is missing, or None.
NEEDS = {
    SQLITE: lambda: None,
    POSTGRESQL: lacks_postgresql,
    CLOCK: lacks_clock,
    DISK: lacks_disk,
}


class Service:
    """It is there within this context. `url` names an empty database, in place of one of its own."""

    def __init__(self, folder, engine, talker, notes, needs=(), url=None):
        self.folder, self.engine, self.url = folder, engine, url
        self.talker, self.notes, self.needs = talker, notes, needs
        self.cluster = self.clock = self.disk = None
        self._leaving = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.provider = stack.enter_context(contextlib.closing(Provider()))
            self.provider.default = self.talker
            if DISK in self.needs:
                self.disk = stack.enter_context(small_disk(self.folder))
            if self.engine == POSTGRESQL and not self.url:
                self.cluster = stack.enter_context(contextlib.closing(Cluster()))
            self._start(stack)
            self._leaving = stack.pop_all()
        return self

    def _start(self, stack):
        settings = {}
        if CLOCK in self.needs:  # the database beside the service has the same
            self.clock = trouble.Clock(self.cluster.folder if self.cluster else self.folder)
            settings = self.clock.settings
        if self.cluster:
            self.cluster.environment |= {name: str(value) for name, value in settings.items()}
            self.cluster.initialize()
            self.cluster.start()
        file = (self.disk or self.folder) / "soak.db"
        own = self.cluster.url() if self.cluster else f"sqlite:///{file}"
        self.url = self.url or own
        settings = settings | {
            "DATABASE_URL": self.url,
            "OPENAI_BASE_URL": self.provider.url + "/v1",
            "DEFAULT_MODEL": "m-1",
            "REPLY_WAIT": REPLY_WAIT,
            "CONTINUE_LIMIT": 1000,  # whatever befalls a reply
        }
        self.server = Server(self.folder, **settings)
        stack.callback(self.server.stop)
        self.server.wait_until_up()

    def __exit__(self, *exception):
        self._leaving.close()

    @property
    def path(self):
        """Of its SQLite file, or None."""
        return self.url.removeprefix("sqlite:///") if self.engine == SQLITE else None
