"""The container, built and run: `python tools/container` says what it finds, in three minutes.

Without a registry it builds on a base that debootstrap makes of Debian's packages, as root.
`--base` names an image with Python in it to use instead, and `--engine docker` uses Docker in place
of Podman. Containers use the network of this machine, on loopback. If TEST_DATABASE_URL names a
PostgreSQL on this machine, two containers share a database of it. Nothing is left afterwards;
`--keep PATH` keeps the image, as a file for `podman load` or `docker load`.

What fails is raised. If this machine lacks a tool, or does not let it run a container, it only
prints a sentence that says so.
"""

import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import shutil
import signal
import statistics
import sys
import tempfile
import time
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests" / "support"))

import psycopg
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import compose
from client import SECRET, make_token, wait_until
from engine import BASE, ONCE, SOMEBODY, TRIAL, Container, Engine, Unavailable
from fleet import Models, text_of
from pins import read_pins
from product import ROOT, files_of_the_page, files_of_the_service
from provider import Provider
from readers import Reader
from trouble import read_only

STREAMS = 20
IMAGE = "localhost/parley-test"
POSTGRESQL = os.environ.get("TEST_DATABASE_URL")
STRAY = "what-must-not-be-in-an-image"  # is in each file of a clone that must not get there

# What the service needs of its base: trusted certificates, and the descriptions of terminals.
OF_THE_BASE = """
import curses, os, ssl
assert ssl.create_default_context().get_ca_certs()
curses.setupterm("xterm-256color")
assert os.access("/bin/sh", os.X_OK)
print("it is there")
"""

FILES = """
import pathlib
files = (path for path in pathlib.Path('/app').rglob('*') if '.venv' not in path.parts and path.is_file())
print(*(path.relative_to('/app') for path in files))
"""
INSTALLED = """
import importlib.metadata
print(*(f'{each.name}=={each.version}' for each in importlib.metadata.distributions()))
"""
PROCESSES = """
import pathlib, re
for path in pathlib.Path('/proc').glob('[0-9]*/status'):
    print(*re.findall(r'^(?:Uid|CapEff|NoNewPrivs):\\s+(\\w+)', path.read_text(), re.MULTILINE))
"""
WRITTEN = """
import pathlib, tempfile
assert tempfile.gettempdir() == '/dev/shm', 'Docker lets nothing else be written'
for path in ('/app/stray', '/app/.venv/stray', '/stray'):
    try:
        open(path, 'w')
    except OSError as error:
        assert error.errno in (13, 30), error
    else:
        print(path)
print(*(path for folder in ('/tmp', '/var/tmp', '/dev/shm') for path in pathlib.Path(folder).rglob('*')))
assert any(line.split()[1] == '/' and 'ro' in line.split()[3].split(',') for line in open('/proc/mounts')), 'it is not read-only'
"""
# Needs more than the 64 MB of /dev/shm.
SORT = """
import sqlite3
many = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) SELECT hex(randomblob(500)) AS h FROM n'
sqlite3.connect(':memory:').execute(f'SELECT count(*) FROM ({many} ORDER BY h LIMIT 90000 OFFSET 1)').fetchone()
"""
SIGNAL_WORKERS = """
import os, pathlib
for pid in pathlib.Path('/proc/1/task/1/children').read_text().split():
    os.kill(int(pid), {})
"""


class Streams:
    """Twenty replies, each with a text of its own, whose clients resume with the last id until they
    have all of it."""

    def __init__(self, provider, clients, words, pace):
        self.models = provider.default = Models(pace, words)
        self.readers = [Reader(clients, first=number % len(clients)) for number in range(STREAMS)]
        self._pool = concurrent.futures.ThreadPoolExecutor(STREAMS)
        self._reading = [
            self._pool.submit(reader.ask, f"Text {number}")
            for number, reader in enumerate(self.readers)
        ]
        wait_until(lambda: all(reader.text for reader in self.readers))

    def finish(self):
        """Wait for the ends, and check each reply: it is whole, and was paid for no more often than
        needed.

        Returns how many were continued.
        """
        with self._pool:
            for reading in self._reading:
                reading.result()
        continued, problems = 0, self.models.problems
        for number, reader in enumerate(self.readers):
            text = text_of(number, self.models.words)
            turn = reader.clients[-1].turns(reader.session)[1]
            continued += turn["continued"]
            if (turn["status"], turn["content"], reader.text, reader.end) != (
                "complete",
                text,
                text,
                "done",
            ):
                lengths = f"{len(turn['content'])} characters stored, {len(reader.text)} read of {len(text)}"
                problems.append(f"{number} is {turn['status']}: {lengths}, {reader.end}")
            if turn["continued"] > 1 or len(self.models.calls[number]) != 1 + turn["continued"]:
                problems.append(
                    f"{number}: {len(self.models.calls[number])} calls, continued {turn['continued']} times"
                )
        assert not problems, "\n".join(problems)
        return continued

    def tell(self, moment, continued):
        """Print what the clients noticed of what happened around this moment, when so many replies
        continued elsewhere."""
        assert (found := self.finish()) == continued, (
            f"{found} replies went on elsewhere, not {continued}"
        )
        silences = sorted(reader.silence(moment) for reader in self.readers if reader.returns)
        waited = f"{statistics.median(silences):.1f} s (median), {silences[-1]:.1f} s (worst)"
        texts = f"{STREAMS} texts whole, none twice"
        return f"{texts}; {continued} replies went on elsewhere, {self.models.count()} calls; readers waited {waited}"


def clone_with_secrets(folder):
    """An owner's clone: the service, its tests, and what must stay out of an image."""
    clone = folder / "clone"
    leave = shutil.ignore_patterns(
        ".git",
        ".venv",
        "node_modules",
        "instance",
        "__pycache__",
        ".pytest_cache",
        "tests",
        "tools",
        ".env",
    )
    shutil.copytree(ROOT, clone, ignore=leave)
    for name in (
        ".git/config",
        ".env",
        "private.pem",
        "instance/parley.db",
        "tests/test_it.py",
        "tools/it.py",
        "static/.env",
        "sub/app.py",
    ):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(STRAY)
    for path in clone.rglob("*"):  # as with a umask of 077
        path.chmod(0o700 if path.is_dir() else 0o600)
    return clone


def check_build(engine, folder, base):
    """The image has the service and nothing else, and new code does not bring new dependencies.
    Returns the clone."""
    clone = clone_with_secrets(folder)
    say("build", f"{engine.build(clone, base, IMAGE):.0f} s")
    sizes = [engine.inspect(name)["Size"] / 1e6 for name in (base, IMAGE)]
    say(
        "size",
        f"{sizes[1]:.0f} MB; its base has {sizes[0]:.0f}",
    )
    check_libraries(engine)
    assert engine.run(*ONCE, IMAGE, "python", "-c", OF_THE_BASE) == "it is there"
    found = set(engine.run(*ONCE, IMAGE, "python", "-c", FILES).split())
    code = files_of_the_service()
    files = files_of_the_page()
    compiled = {name for name in found if "__pycache__/" in name and name.endswith(".pyc")}
    assert found - compiled == code | files, found - compiled ^ (code | files)
    modules = {name.removesuffix(".py") for name in code if name.endswith(".py")}
    of = {name.replace("__pycache__/", "").rpartition(".cpython")[0] for name in compiled}
    assert of == modules
    assert not engine.run(
        *ONCE, IMAGE, "sh", "-c", "ls .venv/bin | grep pip; command -v cc || true"
    )
    assert STRAY not in engine.run("history", "--no-trunc", IMAGE) + str(engine.inspect(IMAGE))
    layers = engine.inspect(IMAGE)["RootFS"]["Layers"]
    with open(clone / "app.py", "a") as code:
        code.write("# New code.\n")
    seconds = engine.build(clone, base, f"{IMAGE}-changed")
    changed = engine.inspect(f"{IMAGE}-changed")["RootFS"]["Layers"]
    assert changed[:-1] == layers[:-1] and changed[-1] != layers[-1], (layers, changed)
    say("new code", f"{seconds:.0f} s, and no new layer but its own")
    return clone


def check_libraries(engine: Engine) -> None:
    """The image has the pinned libraries, in these versions, and no others."""
    pins = read_pins("requirements.txt")
    found = map(Requirement, engine.run(*ONCE, IMAGE, "python", "-c", INSTALLED).split())
    installed = {canonicalize_name(each.name): str(each.specifier) for each in found}
    installed.pop("setuptools", None)  # `venv` of Python 3.11 installs it
    assert installed.items() <= {name: f"=={pin.version}" for name, pin in pins.items()}.items(), (
        installed
    )
    assert installed.keys() >= {
        name for name, pin in pins.items() if pin.requirement.marker is None
    }, installed


def check_strangers_user(container):
    """It runs as a user that the image does not know, and writes to the volume only."""
    processes = {tuple(line.split()) for line in container.python(PROCESSES).splitlines()}
    assert processes == {(SOMEBODY, "0" * 16, "1")}, processes
    container.python(SORT)
    written = container.python(WRITTEN).split()
    assert not written, written
    assert container.exec("ls", "instance").split() == [
        "jwt_key.pem",
        "parley.db",
        "parley.db-reserve",
        "parley.db-shm",
        "parley.db-wal",
    ]
    say(
        "user",
        f"all processes are {SOMEBODY}'s, without a capability; the volume alone was written to",
    )


def check_health(container, url):
    """The image's health check notices a database that is away, and a server that is stopped."""
    assert container.health() == 0
    with read_only(url):
        wait_until(lambda: container.health() != 0)
    wait_until(lambda: container.health() == 0)
    say(
        "health",
        f"unhealthy without its database, and within {standstill(container):.0f} s where the server stands still",
    )


def standstill(container):
    """How long the health check takes while all workers are stopped."""
    container.python(SIGNAL_WORKERS.format(int(signal.SIGSTOP)))
    try:
        began = time.monotonic()
        assert container.health() != 0
        return time.monotonic() - began
    finally:
        container.python(SIGNAL_WORKERS.format(int(signal.SIGCONT)))
        wait_until(lambda: container.health() == 0)


class House:
    """Starts containers, and removes each of them in the end."""

    def __init__(self, engine, provider):
        self.engine, self.provider = engine, provider
        self.settings = {"OPENAI_BASE_URL": provider.url + "/v1", "DEFAULT_MODEL": "m-1"}
        self.volume = f"parley-test-{uuid.uuid4().hex[:8]}"
        self.containers = []

    def start(self, **options):
        container = Container(self.engine, IMAGE, **options, **self.settings)
        self.containers.append(container)
        return container

    def start_on_volume(self, port=None):
        return self.start(volume=self.volume, user=SOMEBODY, port=port).wait_until_up()

    def close(self):
        for container in self.containers:
            container.remove()
        self.engine.call("volume", "rm", "--force", self.volume)


def check_one_container(house):
    """A container that is stopped or killed with twenty streams, and replaced by another on its
    volume."""
    container = house.start_on_volume()
    client = container.client()
    check_strangers_user(container)

    streams = Streams(house.provider, [client], words=15, pace=0.2)
    status, took = container.stop()
    container = house.start_on_volume(container.port)
    ends = status, streams.finish(), sum(reader.returns for reader in streams.readers)
    assert ends == (0, 0, 0), ends
    say("short", f"{STREAMS} replies of 3 s: the stop waits for them, {took:.1f} s, status 0")

    streams = Streams(house.provider, [client], words=50, pace=0.5)
    began = time.monotonic()
    status, took = container.stop()
    assert status == 0, container.log()
    replacement = house.start_on_volume(container.port)
    out = time.monotonic() - began
    say(
        "stop",
        f"{took:.1f} s, status 0; {streams.tell(began + took, STREAMS)}; nobody new was let in for {out:.1f} s",
    )

    streams = Streams(house.provider, [client], words=50, pace=0.2)
    replacement.kill()
    killed = time.monotonic()
    house.start_on_volume(container.port)
    out = time.monotonic() - killed
    say("kill", f"{streams.tell(killed, STREAMS)}; nobody new was let in for {out:.1f} s")
    assert all("Traceback" not in each.log() for each in house.containers)


def check_two_containers(house):
    """Two on one PostgreSQL, as the image's own user: one is replaced while the other takes over."""
    if not POSTGRESQL:
        return say("two", "left out: TEST_DATABASE_URL is not set")
    name = f"parley_{uuid.uuid4().hex}"
    url = POSTGRESQL.rpartition("/")[0] + "/" + name
    with psycopg.connect(POSTGRESQL, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            settings = {
                "DATABASE_URL": url,
                "JWT_SECRET": SECRET,
                "grace": 7,
            }  # two seconds for replies, five to hand over
            first, second = (house.start(**settings) for _ in range(2))
            clients = [each.wait_until_up().client(make_token()) for each in (first, second)]
            check_health(second, url)
            streams = Streams(house.provider, clients, words=60, pace=0.2)
            status, took = first.stop()
            stopped = time.monotonic()
            house.start(port=first.port, **settings).wait_until_up()
            assert status == 0, first.log()
            say(
                "two",
                f"one is stopped, {took:.1f} s, status 0; {streams.tell(stopped, STREAMS // 2)}",
            )
        finally:
            house.close()
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def say(name, text):
    print(f"{name:9} {text}", flush=True)


def main():
    parser = argparse.ArgumentParser(
        prog="python tools/container", description=__doc__.partition(":")[0]
    )
    parser.add_argument("--engine", choices=("podman", "docker"), default="podman")
    parser.add_argument("--base", help="an image with Python in it, which is here or can be had")
    parser.add_argument("--keep", metavar="PATH", help="save the image in this file")
    options = parser.parse_args()
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="parley-", ignore_cleanup_errors=True)
            )
        )
        try:
            engine = Engine(options.engine, folder)
            stack.callback(engine.clean, [IMAGE, f"{IMAGE}-changed", BASE, TRIAL])
            base = engine.take(options.base) if options.base else engine.make_base(folder)
            engine.try_out(base)
        except Unavailable as problem:
            return say("left out", problem)
        say("base", f"{base}, {time.monotonic() - began:.0f} s")
        compose.check(engine, check_build(engine, folder, base), base, IMAGE, say)
        provider = stack.enter_context(contextlib.closing(Provider()))
        house = stack.enter_context(contextlib.closing(House(engine, provider)))
        check_two_containers(house)
        check_one_container(house)
        if options.keep:
            engine.run("save", "--output", options.keep, IMAGE)
    say("all well", f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
