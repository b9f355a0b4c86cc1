"""Parley as its Procfile starts it, and other programs that serve."""

import contextlib
import fcntl
import itertools
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import requests

import forked
from client import ALICE, SECRET, Client, make_token
from product import ROOT


def ports():
    """Ports below those that the system gives to clients: else a client might get one before the
    server listens, or while it is away. No two of pytest's eight workers share one, and none is
    given twice in a row. None is Ollama's, since Parley calls what is there by its name."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    first = 10_000 + worker * 2750
    own = [port for port in range(first, first + 2750) if port != 11434]
    return itertools.cycle(random.SystemRandom().sample(own, len(own)))


PORTS = ports()


def free_port():
    """A port where nothing listens."""
    for port in PORTS:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Server:
    """Parley as its Procfile starts it, in processes of its own. `log` is where it writes, in place
    of a file, and `root` is the folder of its code."""

    before = ""  # put before its command, which it then runs
    is_forked = True  # without a `before`, it is forked, so that no library is loaded again

    def __init__(self, folder, log=None, root=None, port=None, **environment):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}{environment.get('SCRIPT_NAME', '').rstrip('/')}"
        self.count = int(environment.get("WEB_CONCURRENCY") or 2)
        self.database = environment.get("DATABASE_URL")
        self.log_file = folder / f"server-{self.port}.log"
        command = ((root or ROOT) / "Procfile").read_text().partition("web: ")[2].strip()
        clean = {
            name: os.environ[name]
            for name in ("PATH", "HOME", "LANG", "TMPDIR")
            if name in os.environ
        }
        clean["PATH"] = os.path.dirname(sys.executable) + os.pathsep + clean["PATH"]
        environment = {name: str(value) for name, value in environment.items() if value is not None}
        files = environment.pop("FILES", None)  # how many files a process may open
        options = f"--bind 127.0.0.1:{self.port} " + environment.pop("GUNICORN_CMD_ARGS", "")
        defaults = {"PORT": str(self.port), "JWT_SECRET": SECRET, "GUNICORN_CMD_ARGS": options}
        self.log = log or open(self.log_file, "wb")
        how = {"cwd": root or ROOT, "env": clean | defaults | environment}
        how |= {"stdout": self.log, "stderr": self.log, "start_new_session": True}
        if self.is_forked and not self.before and not files:
            self.process = forked.Process(shlex.split(command)[1:], **how)
        else:
            limit = f"ulimit -n {files}; " if files else ""
            words = ["sh", "-c", f"{limit}exec {self.before}{command}"]
            self.process = subprocess.Popen(words, **how)

    def wait_until_up(self, seconds=20):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(
                requests.ConnectionError, requests.Timeout
            ):  # several that start at the same time need longer
                is_up = requests.get(self.url + "/health", timeout=5).status_code == 200
                if (
                    is_up
                    and len(self.workers()) == self.count
                    and all(map(listens_to_signals, self.workers()))
                ):
                    return self
            assert self.process.poll() is None, self.output()
            time.sleep(0.04)
        raise AssertionError("the server did not start: " + self.output())

    def client(self, subject=ALICE, **claims):
        return Client(self.url, make_token(subject, **claims))

    @property
    def pid(self):
        """gunicorn's master."""
        return self.process.pid

    def workers(self):
        return children(self.pid)

    def output(self):
        return self.log_file.read_text()

    def wait_for_output(self, text, count=1, seconds=10):
        """The log, once it has this text so many times: a line is written after its response."""
        deadline = time.monotonic() + seconds
        while self.output().count(text) < count:
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)
        return self.output()

    def kill(self):
        """kill -9 of every process."""
        for pid in [self.pid, *self.workers()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, seconds=40, signal_number=signal.SIGTERM):
        """SIGTERM, as a platform would, or another signal; returns how many seconds it took."""
        began = time.monotonic()
        if self.process.poll() is None:
            os.kill(self.pid, signal_number)
        try:
            self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.kill()
            self.log.close()
        return time.monotonic() - began


def children(pid):
    """The living processes that this one has started; none if it has ended."""
    path = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


class Host:
    """One server after the other, at one port, with the same settings."""

    def __init__(self, folder, port=None, **settings):
        self.folder, self.settings = folder, settings | {"port": port or free_port()}
        self.server = None
        self.start()

    def start(self):
        """Start another process, if the one before has ended or is about to."""
        if self.server:
            self.server.stop()  # which also closes its log
        self.server = Server(self.folder, **self.settings).wait_until_up()

    def end(self):
        self.server.kill()
        self.server.stop()


def npm_folder(name):
    """This folder of the tests, with the packages of its lock file. Skips the test if there is no
    npm."""
    folder = pathlib.Path(__file__).parent / name
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    with open(folder / "package-lock.json") as lock:
        fcntl.flock(
            lock, fcntl.LOCK_EX
        )  # a second process waits until the first has installed them
        # npm writes this file last. If it is older than the lock file, it is of other packages.
        installed = folder / "node_modules" / ".package-lock.json"
        if not installed.exists() or installed.stat().st_mtime < os.fstat(lock.fileno()).st_mtime:
            subprocess.run(
                ["npm", "ci", "--no-audit", "--no-fund"],
                cwd=folder,
                check=True,
                capture_output=True,
                timeout=240,
            )
    return folder


def wait_until_up(url, process, seconds=60):
    """Wait until this process, which may be a proxy, answers there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            return requests.get(url + "/health", timeout=5)
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.02)
    raise AssertionError(f"nothing answers at {url}")


def end(process, seconds=30):
    """SIGTERM, as a platform would, and a kill if that is not enough; returns the output that was
    not read yet."""
    process.terminate()
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


def listens_to_signals(pid):
    """Whether a worker has set its own handlers: before, it has its parent's, and would lose a
    SIGTERM."""
    caught = re.search(r"SigCgt:\s*(\w+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]
    return not int(caught, 16) >> (signal.SIGHUP - 1) & 1


@contextlib.contextmanager
def running(folder, **environment):
    """A server of one worker on a SQLite file of its own, for tests that do not depend on the
    engine."""
    folder.mkdir(parents=True, exist_ok=True)
    server = Server(
        folder,
        **{"DATABASE_URL": f"sqlite:///{folder}/parley.db", "WEB_CONCURRENCY": 1} | environment,
    )
    try:
        yield server.wait_until_up()
    finally:
        server.kill()
        server.stop()  # closes its log
