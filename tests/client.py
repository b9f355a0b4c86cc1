"""A client of Parley that knows only HTTP, and a server as the Procfile starts it."""

import concurrent.futures
import contextlib
import datetime
import fcntl
import http.client
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import jwt
import pytest
import requests

ROOT = pathlib.Path(__file__).parent.parent
CODE = (".py", ".toml", ".sql")  # what files of the service are called by
QUIET = 120  # seconds without an event, behind which a stream has stopped, whatever comments it has
SECRET = "a secret for the tests, of 32 bytes or more"
ALICE, BOB = "https://github.com/alice", "https://github.com/bob"


def make_token(subject=ALICE, key=SECRET, algorithm="HS256", headers=None, **claims):
    """A token; a claim of None is left out."""
    now = int(time.time())
    claims = {"iss": "fabro-web", "iat": now, "exp": now + 3600, "sub": subject} | claims
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm, headers)


def ports():
    """Ports below those that the system gives to whoever connects: else one of these might have it before it is listened to,
    or while its server is away. No two of four workers of pytest have one in common, and none is given twice in a row."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
    return itertools.cycle(
        random.SystemRandom().sample(
            range(10_000 + worker * 5500, 10_000 + worker * 5500 + 5500), 5500
        )
    )


PORTS = ports()


def free_port():
    """A port where nobody listens."""
    for port in PORTS:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Event:
    def __init__(self, id, name, data):
        self.id, self.name, self.data = id, name, data

    def __repr__(self):
        return f"<{self.id} {self.name} {self.data}>"


class Stream:
    """An event stream that is being read, frame by frame."""

    def __init__(self, connection, response):
        self.connection = connection
        self.response = response
        self.status = response.status
        self.headers = response.headers
        self.comments = 0

    def __iter__(self):
        fields, heard = {}, time.monotonic()
        while line := self.response.readline():
            line = line.decode().rstrip("\n")
            if line.startswith(":"):
                self.comments += 1
                assert time.monotonic() - heard < QUIET, "comments, and no event"
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                yield Event(fields["id"], fields["event"], json.loads(fields["data"]))
                fields, heard = {}, time.monotonic()

    def close(self):
        # The response holds the socket too: both must let go before the other side sees an end.
        self.response.close()
        self.connection.close()


class Client:
    """One user of one server."""

    def __init__(self, url, token):
        self.url = url
        self.token = token

    def request(self, method, path, body=None, timeout=60, params=None, **headers):
        headers = {"Authorization": f"Bearer {self.token}"} | {
            n.replace("_", "-"): v for n, v in headers.items()
        }
        headers = {name: value for name, value in headers.items() if value is not None}
        return requests.request(
            method, self.url + path, json=body, params=params, headers=headers, timeout=timeout
        )

    def get(self, path, **headers):
        return self.request("GET", path, **headers)

    def post(self, path, body=None, **headers):
        return self.request("POST", path, body, **headers)

    def patch(self, path, body, **headers):
        return self.request("PATCH", path, body, **headers)

    def delete(self, path, **headers):
        return self.request("DELETE", path, **headers)

    def create(self, content="Hello", **fields):
        """A new session that was answered with 201."""
        response = self.post("/sessions", {"content": content} | fields)
        assert response.status_code == 201, response.text
        return response.json()

    def turns(self, session):
        return self.get(f"/sessions/{session['id']}").json()["turns"]

    @contextlib.contextmanager
    def stream(self, method, path, body=None, timeout=60, **headers):
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=timeout)
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "text/event-stream"} | {
            name.replace("_", "-"): value for name, value in headers.items() if value is not None
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        with contextlib.closing(connection):
            connection.request(
                method, place.path + path, json.dumps(body) if body is not None else None, headers
            )
            with contextlib.closing(Stream(connection, connection.getresponse())) as stream:
                yield stream

    def events(self, session, last_id=None, **options):
        return self.stream(
            "GET", f"/sessions/{session['id']}/events", Last_Event_ID=last_id, **options
        )


class Server:
    """Parley as its Procfile starts it, in processes of its own. `log` is where it writes, in place of a file, and `root` where
    its code is."""

    def __init__(self, folder, log=None, root=None, port=None, **environment):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}{environment.get('SCRIPT_NAME', '').rstrip('/')}"
        self.count = int(environment.get("WEB_CONCURRENCY") or 2)
        self.log_file = folder / f"server-{self.port}.log"
        command = ((root or ROOT) / "Procfile").read_text().partition("web: ")[2].strip()
        clean = {
            name: os.environ[name]
            for name in ("PATH", "HOME", "LANG", "TMPDIR")
            if name in os.environ
        }
        clean["PATH"] = os.path.dirname(sys.executable) + os.pathsep + clean["PATH"]
        environment = {name: str(value) for name, value in environment.items() if value is not None}
        if "FILES" in environment:  # so many may be open in a process
            command = f"ulimit -n {environment.pop('FILES')}; exec {command}"
        else:
            command = f"exec {command}"
        options = f"--bind 127.0.0.1:{self.port} " + environment.pop("GUNICORN_CMD_ARGS", "")
        defaults = {"PORT": str(self.port), "JWT_SECRET": SECRET, "GUNICORN_CMD_ARGS": options}
        self.log = log or open(self.log_file, "wb")
        self.process = subprocess.Popen(
            ["sh", "-c", command],
            cwd=root or ROOT,
            env=clean | defaults | environment,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def wait_until_up(self, seconds=20):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(
                requests.ConnectionError, requests.Timeout
            ):  # several that start at once take their time
                is_up = requests.get(self.url + "/health", timeout=5).status_code == 200
                if (
                    is_up
                    and len(self.workers()) == self.count
                    and all(map(listens_to_signals, self.workers()))
                ):
                    return self
            assert self.process.poll() is None, self.output()
            time.sleep(0.02)
        raise AssertionError("the server did not start: " + self.output())

    def client(self, subject=ALICE, **claims):
        return Client(self.url, make_token(subject, **claims))

    def workers(self):
        return children(self.process.pid)

    def output(self):
        return self.log_file.read_text()

    def wait_for_output(self, text, count=1, seconds=10):
        """The log, once it has this text so often: a line is written behind its response."""
        deadline = time.monotonic() + seconds
        while self.output().count(text) < count:
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.02)
        return self.output()

    def kill(self):
        """kill -9 of every process."""
        for pid in [self.process.pid, *self.workers()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, seconds=40):
        """SIGTERM, as a platform would; returns how many seconds it took."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.kill()
            self.log.close()
        return time.monotonic() - began


def children(pid):
    """The processes that this one has started and that are there; none where it has stopped."""
    path = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def npm_folder(name):
    """This folder of the tests, with the packages that its lock file names; skips the test where there is no npm."""
    folder = pathlib.Path(__file__).parent / name
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    with open(folder / "package-lock.json") as lock:
        fcntl.flock(
            lock, fcntl.LOCK_EX
        )  # whoever comes while another installs waits for the end of it
        if not (folder / "node_modules" / ".package-lock.json").exists():  # which npm writes last
            subprocess.run(
                ["npm", "ci", "--no-audit", "--no-fund"],
                cwd=folder,
                check=True,
                capture_output=True,
                timeout=240,
            )
    return folder


def copy_of_the_service(folder):
    """A folder with all that is needed to start, to be changed, or for an instance folder of its own."""
    folder.mkdir()
    for name in ["Procfile", *files_of_the_service()]:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "static", folder / "static")
    return folder


def files_of_the_service() -> set[str]:
    """The code, and the tables that stand beside it: `app.py`, `tables/queries.sql`."""
    wings = [path.parent for path in ROOT.glob("*/__init__.py")]
    files = [path for room in (ROOT, *wings) for kind in CODE for path in room.glob(f"*{kind}")]
    return {path.relative_to(ROOT).as_posix() for path in files} - {"pyproject.toml"}


def wait_until_up(url, process, seconds=60):
    """Wait until this process answers there, which may be a proxy."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(url + "/health", timeout=5)
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.02)
    raise AssertionError(f"nothing answers at {url}")


def end(process, seconds=30):
    """SIGTERM, as a platform would, and a kill where that does not do; returns what it has written and was not read."""
    process.terminate()
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


def read_until(client, text, came=b""):
    """What comes on this connection, behind this, until it has this text."""
    deadline = time.monotonic() + QUIET
    while text not in came:
        assert time.monotonic() < deadline, came
        data = client.recv(65536)
        assert data, came
        came += data
    return came


def wait_until(is_so, seconds=30):
    """Wait until this function returns what is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (result := is_so()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return result


def wait_for_status(client, session, wanted, seconds=10):
    """The last turn, once it has this status."""
    deadline = time.monotonic() + seconds
    while (turn := client.turns(session)[-1])["status"] != wanted:
        assert time.monotonic() < deadline, turn
        time.sleep(0.05)
    return turn


def at_once(count, function):
    """Call it so often at the same instant; returns the results."""
    barrier = threading.Barrier(count)

    def call(number):
        barrier.wait(30)
        return function(number)

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


def listens_to_signals(pid):
    """Whether a worker has set its own handlers: before, it has its parent's, and would lose a SIGTERM."""
    caught = re.search(r"SigCgt:\s*(\w+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]
    return not int(caught, 16) >> (signal.SIGHUP - 1) & 1


def parse_time(text):
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")


@contextlib.contextmanager
def running(folder, **environment):
    """A server of one worker on a SQLite file of its own, for what has nothing to do with the kind of database."""
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
