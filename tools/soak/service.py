"""The service of a soak: its hosts, their provider, their database, and what its faults need."""

import contextlib
import shutil
import subprocess

import trouble
from cluster import folder_of_somebody
from hosts import UP, Host
from needs import CLOCK, DISK, POSTGRESQL, SQLITE, STANDBY, lacks_namespaces
from observed import observe
from pair import Pair
from provider import Provider

REPLY_WAIT = 2  # seconds that a request waits for a reply
CONTINUE_LIMIT = 1000  # more than any reply needs here
GRACE = 2  # seconds, so that most replies outlast it
HOSTS = {SQLITE: 1, POSTGRESQL: 2}


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


@contextlib.contextmanager
def a_clock():
    """In a folder that the user of PostgreSQL can read."""
    folder = folder_of_somebody("parley-clock-")
    try:
        yield trouble.Clock(folder)
    finally:
        shutil.rmtree(folder)


class Service:
    """Runs within this context. `url` names an empty database, in place of one of its own.

    On PostgreSQL it has two hosts, neither of which sees the other's processes.
    """

    def __init__(self, folder, engine, talker, notes, needs=(), url=None):
        self.folder, self.engine, self.url = folder, engine, url
        self.talker, self.notes, self.needs = talker, notes, needs
        self.pair = self.clock = self.disk = None
        self.hosts = []
        self._leaving = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.provider = stack.enter_context(contextlib.closing(Provider()))
            self.provider.default = self.talker
            if DISK in self.needs:
                self.disk = stack.enter_context(small_disk(self.folder))
            if CLOCK in self.needs:  # the database next to the service has the same clock
                self.clock = stack.enter_context(a_clock())
            self.settings = self.clock.settings if self.clock else {}
            if self.engine == POSTGRESQL and not self.url:
                self._start_pair(stack)
            file = (self.disk or self.folder) / "soak.db"
            self.url = self.url or (self.pair.url() if self.pair else f"sqlite:///{file}")
            self._start_hosts(stack)
            self._leaving = stack.pop_all()
        return self

    def _start_pair(self, stack):
        environment = {name: str(value) for name, value in self.settings.items()}
        self.pair = stack.enter_context(
            contextlib.closing(Pair(STANDBY in self.needs, environment))
        )
        self.pair.start()

    def _start_hosts(self, stack):
        settings = self.settings | {
            "DATABASE_URL": self.url,
            "OPENAI_BASE_URL": self.provider.url + "/v1",
            "DEFAULT_MODEL": "m-1",
            "REPLY_WAIT": REPLY_WAIT,
            "GRACE": GRACE,
            "CONTINUE_LIMIT": CONTINUE_LIMIT,
        }
        count = HOSTS[self.engine]
        if count > 1 and (lacks := lacks_namespaces()):
            print(f"{self.engine}, the hosts see each other's processes: {lacks}", flush=True)
        for number in range(count):
            folder = self.folder / f"host-{number}"
            self.hosts.append(Host(folder, settings, self.notes, is_apart=count > 1))
            self.hosts[-1].begin()
            stack.callback(lambda host=self.hosts[-1]: host.server.stop())
        for server in self.servers:
            server.wait_until_up(UP)
        observe(self.url)

    def __exit__(self, *exception):
        self._leaving.close()

    @property
    def servers(self):
        """Each host's current server."""
        return [host.server for host in self.hosts]

    @property
    def server(self):
        """The first host's current server."""
        return self.hosts[0].server

    @property
    def urls(self):
        """The URL of each host."""
        return [host.url for host in self.hosts]

    @property
    def logs(self):
        """The logs of all servers that there were."""
        return [log for host in self.hosts for log in host.logs]

    @property
    def cluster(self):
        """The primary PostgreSQL."""
        return self.pair.primary

    @property
    def path(self):
        """The path of its SQLite file, or None."""
        return self.url.removeprefix("sqlite:///") if self.engine == SQLITE else None

    def client(self, subject):
        return self.server.client(subject)

    def workers(self):
        return [server.workers() for server in self.servers]
