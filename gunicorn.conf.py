"""How gunicorn serves Parley: on 127.0.0.1:8000, or on all interfaces at `$PORT` where that is
set."""

import contextlib
import ctypes
import errno
import gc
import importlib.util
import os
import re
import resource
import shlex
import socket
import sys
import time
from typing import Any

if not all(map(importlib.util.find_spec, ("gunicorn", "marshmallow"))):
    raise SystemExit(
        f"The libraries are not installed for {sys.executable}. Use .venv/bin/python {sys.argv[0]}"
    )

# PYTHONSAFEPATH leaves this folder out.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import limits
import settings

for _name in ("PORT", "WEB_CONCURRENCY"):
    if not os.environ.get(_name, "").strip():
        os.environ.pop(_name, None)
    elif not re.fullmatch("[1-9][0-9]{0,4}", os.environ[_name]) or int(os.environ[_name]) > 65535:
        raise SystemExit(f"{_name}: give a whole number from 1 to 65535")

# Gunicorn itself takes it off a path.
prefix = os.environ["SCRIPT_NAME"] = os.environ.get("SCRIPT_NAME", "").strip().rstrip("/")
if not re.fullmatch(r"(/(?!\.+(/|$))[A-Za-z0-9._~-]+)*", prefix):
    raise SystemExit("SCRIPT_NAME: write it like /chat/v1")

# As the application does, from `.env` too.
_folder = os.path.dirname(os.path.abspath(__file__))
_settings = settings.read_settings(settings.read_environment(_folder))

wsgi_app = "app:create_app()"
worker_class = "serving.worker.Worker"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
# Half of them may be streams, a third replies under way.
worker_connections, why_so_few = limits.fit(_settings["WEB_CONNECTIONS"])
# Each request has one while its answer is made, but no stream; they start when needed.
threads = worker_connections // 4
preload_app = True  # a bad setting is found once, and tables and keys are made once
keepalive = 15  # seconds; a page that polls more often meets no connection that is being closed
# The worker keeps its last five seconds for handing over. What sends SIGTERM must not kill before.
graceful_timeout = _settings["GRACE"] + 5
# gunicorn makes a file there for each worker's heartbeat. The usual folder may be cleaned up; then
# the master would end as it replaces a worker.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
control_socket_disable = True
errorlog = None  # its lines go where all others go
forwarder_headers = ""  # SCRIPT_NAME comes from the environment only, never from a header

# What is freed of large texts goes back to the system at once. glibc by itself raises the threshold
# to the size of what was freed, up to 32 MB, and keeps what is smaller: hundreds of megabytes.
M_MMAP_THRESHOLD = -3
with contextlib.suppress(AttributeError):  # another C library has no such function
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**17)

# Each connection is an open file, and each reply has two of its own.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (max(_soft, 2 * worker_connections), _hard))


def read_arguments() -> dict[str, Any]:
    """What the command line says, else GUNICORN_CMD_ARGS, as gunicorn reads them."""
    from gunicorn.config import Config

    parser = Config().parser()
    parser.error = lambda message: sys.exit(f"GUNICORN_CMD_ARGS, or the command line: {message}")
    texts = [shlex.split(os.environ.get("GUNICORN_CMD_ARGS", ""))]
    # Under `flask check`, the command line is not gunicorn's.
    if __name__ == "__main__" or "gunicorn.app.base" in sys.modules:
        texts.append(sys.argv[1:])
    found: dict[str, Any] = {}
    for text in texts:
        found |= {name: value for name, value in vars(parser.parse_args(text)).items() if value}
    return found


def check_arguments(arguments: dict[str, Any]) -> None:
    """Refuse what gunicorn would answer with a traceback."""
    command = ".venv/bin/python gunicorn.conf.py"
    if "PARLEY_COMMAND" in os.environ:
        command = f"{settings.command()} serve"
    named = arguments.get("args", [])
    others = [name for name in named if name.partition(":")[0] == "app" and name != wsgi_app]
    if str(arguments.get("worker_class")).startswith(("eventlet", "gevent", "tornado")):
        others.append(f"-k {arguments['worker_class']}")
    if others:
        raise SystemExit(
            "Parley chooses its application and its workers itself: leave "
            f"{' and '.join(others)} out. Write: {command}"
        )


def wait_for_port(arguments: dict[str, Any]) -> None:
    """Wait a second for the port, since another server may be ending there; then say in one line
    that it is taken. gunicorn says in ten that it tries again."""
    given = {"GUNICORN_FD", "LISTEN_FDS", "LISTEN_PID"}.intersection(os.environ)  # sockets
    if given or not {"reuse_port", "config"}.isdisjoint(arguments):
        return  # it listens elsewhere, or beside another
    from gunicorn.util import parse_address

    of_all = os.environ.get("PORT")
    for address in arguments.get("bind", [f"0.0.0.0:{of_all}" if of_all else "127.0.0.1:8000"]):
        with contextlib.suppress(RuntimeError):  # gunicorn says that the port is no number
            place = parse_address(address)
            if not isinstance(place, tuple) or not is_taken(*place):
                continue
            host, port = f"[{place[0]}]" if ":" in place[0] else place[0], place[1]
            other = port % 65535 + 1
            advice = f"GUNICORN_CMD_ARGS=--bind={host}:{other}"
            if of_all and "bind" not in arguments:
                advice = f"PORT={other}, which is on all interfaces, too"
            raise SystemExit(
                f"Another program listens on {host}:{port}. Stop it, or choose another port: "
                f"{advice}"
            )


def is_taken(host: str, port: int) -> bool:
    for left in range(10, -1, -1):
        try:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does
                listener.bind((host, port))
                return False
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return False  # gunicorn says what it is
        if left:
            time.sleep(0.1)
    return True


def when_ready(server: Any) -> None:
    """Say once, not in each worker, what the service starts with."""
    import terminal
    from logs import log

    if why_so_few:
        log.warning(
            "each process has room for %d connections only: %s", worker_connections, why_so_few
        )
    terminal.announce(server.app.wsgi(), [str(listener) for listener in server.LISTENERS], prefix)


def pre_fork(server: Any, worker: Any) -> None:
    """Keep the collector off what the workers share, else each of them would get a copy of it."""
    gc.freeze()
    gc.enable()


if __name__ != "__main__":
    check_arguments(read_arguments())
else:
    # As the Procfile has it: gunicorn itself reads the two above first, and answers with a
    # traceback.
    gc.disable()  # until the workers are made: of what a start loads, nothing is to be collected
    wait_for_port(read_arguments())
    from gunicorn.app.wsgiapp import run
    from gunicorn.util import getcwd

    if getcwd() != _folder:  # where gunicorn would look for its configuration
        sys.argv[1:1] = ["--config", os.path.abspath(__file__)]
        # It puts the working folder first in the path, unless it is there: that may have an app.py.
        sys.path.append(getcwd())
    run()
