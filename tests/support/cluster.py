"""A PostgreSQL of the tests' own, with standbys. It can be stopped, killed and replaced.

Each server listens on a free port of the loopback interface, and trusts every client. Its process
is ours, and its files are in a folder that is removed with it.
"""

import contextlib
import glob
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

import psycopg
import pytest

from counting import CountingRelay
from servers import children, free_port

NEEDED = ("initdb", "postgres", "pg_basebackup")
# Neither PostgreSQL nor PgBouncer runs as root.
AS_SOMEBODY = (
    {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
)
ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "32MB",
    "dynamic_shared_memory_type": "mmap",  # in its folder, so that nothing is left of it after a kill
    "max_wal_senders": "4",
    "wal_receiver_status_interval": "1s",
    "checkpoint_timeout": "1h",
}


def find_binaries():
    """The folder of the newest PostgreSQL's commands, which Debian keeps out of PATH. Skips the
    test if there is none."""
    paths = glob.glob("/usr/lib/postgresql/*/bin")
    paths.sort(key=lambda path: -int(re.sub(r"\D", "", path)))
    paths += os.get_exec_path()
    found = [
        pathlib.Path(path)
        for path in paths
        if all(os.access(os.path.join(path, name), os.X_OK) for name in NEEDED)
    ]
    if not found:
        pytest.skip("the server of PostgreSQL is not installed")
    return found[0]


def folder_of_somebody(prefix):
    """A temporary folder that belongs to the user the servers run as: pytest's own is closed to
    other users."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix=prefix))
    if AS_SOMEBODY:
        shutil.chown(folder, AS_SOMEBODY["user"], AS_SOMEBODY["group"])
    return folder


@contextlib.contextmanager
def new_cluster(**settings):
    """A running PostgreSQL with an empty database `parley`; it ends with all its standbys."""
    cluster = Cluster(**settings)
    try:
        cluster.initialize()
        yield cluster.start()
    finally:
        cluster.close()


class Cluster:
    """One server with its data. `settings` go into its configuration."""

    def __init__(self, **settings):
        self.binaries = find_binaries()
        self.folder = folder_of_somebody("parley-pg-")
        self.data = self.folder / "data"
        self.port = free_port()
        self.settings = SETTINGS | settings
        self.environment = dict(ENVIRONMENT)
        self.process = None
        self.standbys, self.relays = [], []

    @property
    def place(self):
        return f"127.0.0.1:{self.port}"

    def url(self, database="parley"):
        return f"postgresql://postgres@{self.place}/{database}"

    def initialize(self):
        self.run(
            "initdb",
            "--pgdata",
            self.data,
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-sync",
        )

    def run(self, command, *arguments):
        subprocess.run(
            [self.binaries / command, *arguments],
            cwd=self.folder,
            env=ENVIRONMENT,
            check=True,
            capture_output=True,
            timeout=60,
            **AS_SOMEBODY,
        )

    def start(self, seconds=30):
        """Start it, and wait until it answers."""
        options = {"port": self.port, "unix_socket_directories": self.folder} | self.settings
        command = [self.binaries / "postgres", "-D", self.data]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **AS_SOMEBODY,
            )
        self.wait_for("SELECT true", seconds)
        if not (self.data / "standby.signal").exists():
            if not self.ask("SELECT 1 FROM pg_database WHERE datname = 'parley'"):
                self.ask("CREATE DATABASE parley")
        return self

    def ask(self, statement, database="postgres"):
        """The rows that this statement returns."""
        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else None

    def wait_for(self, statement, seconds=30, database="postgres"):
        """Wait until this statement's first value is true."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(psycopg.OperationalError):  # it is not up yet
                rows = self.ask(statement, database)
                if rows and rows[0][0]:
                    return
            assert self.process.poll() is None and time.monotonic() < deadline, (
                self.folder / "log"
            ).read_text()
            time.sleep(0.02)

    def standby(self, delay_ms=0, synchronous=False, port=None):
        """A copy that follows this server, and is up to date.

        What this server writes arrives there `delay_ms` later, and is lost if the server is killed
        before. With `synchronous`, no commit is answered before the standby shows it.
        """
        relay = CountingRelay("127.0.0.1", self.port, delay_ms / 1000)
        self.relays.append(relay)
        standby = Cluster(**self.settings)
        standby.port, standby.environment = port or standby.port, self.environment
        self.standbys.append(standby)
        standby.run(
            "pg_basebackup",
            "--pgdata",
            standby.data,
            "--dbname",
            self.url("postgres"),
            "--checkpoint=fast",
            "--no-sync",
        )
        (standby.data / "standby.signal").touch()
        standby.settings |= {
            "primary_conninfo": f"host=127.0.0.1 port={relay.port} user=postgres application_name=standby",
            "wal_retrieve_retry_interval": "200ms",
        }
        standby.start()
        if synchronous:
            self.ask("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
            self.ask("ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
            self.ask("SELECT pg_reload_conf()")
        wanted = "state = 'streaming'" + " AND sync_state = 'sync'" * synchronous
        self.wait_for(
            f"SELECT {wanted} FROM pg_stat_replication WHERE application_name = 'standby'"
        )
        return standby

    def lose_touch(self):
        """From now on nothing arrives at the standbys. Commits do not wait for them unless they are
        synchronous."""
        for relay in self.relays:
            relay.hold()

    def promote(self):
        """Make this standby the primary."""
        self.ask("SELECT pg_promote(true, 60)")
        self.wait_for("SELECT NOT pg_is_in_recovery()")

    def stop(self, immediate=False, seconds=30):
        """Stop it: it closes its connections, and writes everything to disk; or at once, so that it
        recovers at its next start."""
        self.process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
        self.process.wait(seconds)

    def pids(self):
        """Its processes, first the one that starts the others."""
        return [self.process.pid, *children(self.process.pid)]

    def kill(self):
        """kill -9 of all its processes; what is on its way to a standby is lost."""
        for relay in self.relays:
            relay.close()
        self.relays.clear()
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def close(self):
        """End the server and its standbys, whatever state they are in, and remove their files."""
        for standby in self.standbys:
            standby.close()
        for relay in self.relays:
            relay.close()
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop(immediate=True)
            except subprocess.TimeoutExpired:
                self.kill()
        self.remove_shared_memory()
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_shared_memory(self):
        """The segment by which a server knows that it is alone; a killed server leaves it."""
        with contextlib.suppress(OSError, IndexError):
            segment = (self.data / "postmaster.pid").read_text().splitlines()[6].split()[1]
            subprocess.run(["ipcrm", "-m", segment], capture_output=True)
