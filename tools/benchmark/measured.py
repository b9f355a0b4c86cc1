"""The servers that we measure, each in processes of its own, on the loopback interface only."""

import os
import pathlib
import runpy
import ssl
import subprocess
import sys
import time

import certifi

from client import SECRET
from load import Client
from product import ROOT
from provider import certificate
from servers import free_port

HERE = pathlib.Path(__file__).parent
SAME = (
    "workers",
    "threads",
    "preload_app",
    "graceful_timeout",
    "control_socket_disable",
)  # as for Parley


class Server:
    """A command that serves HTTP on `port` until the context ends. `seconds` passed from its start to its first answer."""

    tls = None  # the context of its clients, if it has TLS

    def __init__(self, command, folder, log, **environment):
        clean = {
            name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ
        }
        clean["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
        began = time.perf_counter()
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env=clean | environment, stdout=output, stderr=output
            )
        self._wait(log)
        self.seconds = time.perf_counter() - began

    def _wait(self, log):
        for _ in range(10000):
            try:
                client = Client(self.port, tls=self.tls)
                client.send("GET", "/health")
                return client.close()
            except ConnectionError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.002)
        self.stop()
        raise SystemExit("a server did not start: " + pathlib.Path(log).read_text()[-2000:])

    def memory(self):
        """The memory of all its processes in bytes; shared pages count once."""
        return sum(proportional_size(pid) for pid in self._processes())

    def processor_seconds(self):
        """The processor time of all its processes so far, in user mode and in the system."""
        return sum(processor_seconds(pid) for pid in self._processes())

    def _processes(self):
        path = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [self.process.pid, *path.read_text().split()]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


def proportional_size(pid):
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Stub(Server):
    """A provider that is near."""

    def __init__(self, folder):
        self.port = free_port()
        self.settings = {"OPENAI_BASE_URL": f"http://127.0.0.1:{self.port}/v1"}
        super().__init__(
            [sys.executable, HERE / "stub.py", str(self.port)], HERE, folder / "stub.log"
        )


class TLSStub(Server):
    """A provider with TLS. Its certificate is trusted in addition to the usual ones, which take
    their time to be read."""

    def __init__(self, folder):
        self.port = free_port()
        path, _ = certificate(folder)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.load_verify_locations(path)
        bundle = folder / "bundle.pem"
        bundle.write_text(certifi.contents() + path.read_text())
        self.settings = {
            "OPENAI_BASE_URL": f"https://127.0.0.1:{self.port}/v1",
            "REQUESTS_CA_BUNDLE": str(bundle),
        }
        super().__init__(
            [sys.executable, HERE / "stub.py", str(self.port), path], HERE, folder / "stub.log"
        )


class FarStub(Server):
    """The provider with TLS at the other end of a line whose round trip takes so many seconds."""

    def __init__(self, folder, stub, round_trip):
        self.port = free_port()
        self.tls = stub.tls
        self.settings = stub.settings | {"OPENAI_BASE_URL": f"https://127.0.0.1:{self.port}/v1"}
        command = [
            sys.executable,
            HERE / "relay.py",
            str(self.port),
            str(stub.port),
            str(round_trip),
        ]
        super().__init__(command, HERE, folder / "relay.log")


class Parley(Server):
    """Parley as its Procfile starts it, with its default settings except these."""

    def __init__(self, folder, stub, database_url, **environment):
        self.port = free_port()
        command = (ROOT / "Procfile").read_text().partition("web: ")[2].split()
        super().__init__(
            command,
            ROOT,
            folder / "parley.log",
            GUNICORN_CMD_ARGS=f"--bind 127.0.0.1:{self.port}",
            JWT_SECRET=SECRET,
            DATABASE_URL=database_url,
            **stub.settings,
            **environment,
        )


class Floor(Server):
    """The floor, served by gunicorn with the same settings. Its rows go to a SQLite file, or to this PostgreSQL."""

    def __init__(self, folder, stub, database_url=None, processes=None):
        self.port = free_port()
        parley = runpy.run_path(str(ROOT / "gunicorn.conf.py"))
        conf = folder / "floor.conf.py"
        same = {name: parley[name] for name in SAME} | ({"workers": processes} if processes else {})
        conf.write_text(
            "worker_class = 'gthread'\n"
            + "".join(f"{name} = {value!r}\n" for name, value in same.items())
        )
        super().__init__(
            [
                "gunicorn",
                "--config",
                conf,
                "--bind",
                f"127.0.0.1:{self.port}",
                "floor:create_app()",
            ],
            HERE,
            folder / "floor.log",
            JWT_SECRET=SECRET,
            DATABASE=database_url or str(folder / "floor.db"),
            **stub.settings,
        )
