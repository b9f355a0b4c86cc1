"""gunicorn's configuration: it serves Parley on 127.0.0.1:8000, or on all interfaces at `$PORT` if
that is set."""

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

# With PYTHONSAFEPATH, Python does not add this folder itself.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import limits
import settings
from well_known import host_in_url

for _name in ("PORT", "WEB_CONCURRENCY"):
    if not os.environ.get(_name, "").strip():
        os.environ.pop(_name, None)
    elif not re.fullmatch("[1-9][0-9]{0,4}", os.environ[_name]) or int(os.environ[_name]) > 65535:
        raise SystemExit(f"{_name}: give a whole number from 1 to 65535")

# gunicorn itself removes SCRIPT_NAME from paths.
prefix = os.environ["SCRIPT_NAME"] = os.environ.get("SCRIPT_NAME", "").strip().rstrip("/")
if not re.fullmatch(r"(/(?!\.+(/|$))[A-Za-z0-9._~-]+)*", prefix):
    raise SystemExit("SCRIPT_NAME: write it like /chat/v1")

# Read as the application reads them, from `.env`, too.
_folder = os.path.dirname(os.path.abspath(__file__))
_settings = settings.read_settings(settings.read_environment(_folder))

wsgi_app = "app:create_app()"
worker_class = "serving.worker.Worker"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
# At most half of the connections may be streams, and a third replies in progress.
worker_connections, why_so_few = limits.fit(_settings["WEB_CONNECTIONS"])
# A request needs one while its answer is made, a stream needs none. They start when needed.
threads = worker_connections // 4
preload_app = True  # settings are checked, tables and keys made, once instead of per worker
keepalive = 15  # seconds; a page that polls more often never meets a connection being closed
# The worker needs the last five seconds to hand over replies and to exit (`serving/worker.py`).
# Whatever sends SIGTERM (systemd, Docker) must wait at least this long before SIGKILL.
graceful_timeout = _settings["GRACE"] + 5
# gunicorn makes a file here for each worker's heartbeat. Its default, the folder for temporary
# files, may be removed by a clean-up; then the master would fail when it replaces a worker.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
control_socket_disable = True
errorlog = None  # its lines go through `logs.py`, like all others
forwarder_headers = ""  # SCRIPT_NAME comes from the environment only, never from a header

# Have glibc return the memory of large texts to the system at once. By default it raises the mmap
# threshold to the size of whatever was freed, up to 32 MB, and keeps hundreds of megabytes.
M_MMAP_THRESHOLD = -3
with contextlib.suppress(AttributeError):  # another C library has no such function
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**17)

# Each connection is an open file, and each reply has two of its own.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (max(_soft, 2 * worker_connections), _hard))


def read_arguments() -> dict[str, Any]:
    """gunicorn's options, from GUNICORN_CMD_ARGS and from the command line, which wins."""
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
    """Refuse arguments for which gunicorn would print a traceback."""
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
    """Wait a second for the port, since another server may just be ending. If it stays taken, exit
    with one line; gunicorn would print ten about its retries."""
    given = {"GUNICORN_FD", "LISTEN_FDS", "LISTEN_PID"}.intersection(os.environ)  # open sockets
    if given or not {"reuse_port", "config"}.isdisjoint(arguments):
        return  # it listens elsewhere, or next to another server
    from gunicorn.util import parse_address

    of_all = os.environ.get("PORT")
    for address in arguments.get("bind", [f"0.0.0.0:{of_all}" if of_all else "127.0.0.1:8000"]):
        with contextlib.suppress(RuntimeError):  # the port is no number, as gunicorn will say
            place = parse_address(address)
            if not isinstance(place, tuple) or not is_taken(*place):
                continue
            host, port = host_in_url(place[0]), place[1]
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
                return False  # gunicorn will say what is wrong
        if left:
            time.sleep(0.1)
    return True


def when_ready(server: Any) -> None:
    """Announce what the service starts with: once, not in each worker."""
    import start
    from logs import log

    if why_so_few:
        log.warning(
            "each process has room for %d connections only: %s", worker_connections, why_so_few
        )
    start.announce(server.app.wsgi(), [str(listener) for listener in server.LISTENERS], prefix)


def pre_fork(server: Any, worker: Any) -> None:
    """Move all objects out of the garbage collector's reach: it would write to the memory pages
    that the workers share, and each worker would get its own copy."""
    gc.freeze()
    gc.enable()


if __name__ != "__main__":
    check_arguments(read_arguments())
else:
    # Started as a program, as in the Procfile: so mistakes in GUNICORN_CMD_ARGS or on the command
    # line are found here. gunicorn's own command would find them first, and print a traceback.
    gc.disable()  # until the workers are forked: what a start loads stays anyway
    wait_for_port(read_arguments())
    from gunicorn.app.wsgiapp import run
    from gunicorn.util import getcwd

    if getcwd() != _folder:  # gunicorn looks for its configuration in the working folder
        sys.argv[1:1] = ["--config", os.path.abspath(__file__)]
        # gunicorn puts the working folder first in sys.path, unless it is in there. The folder may
        # have an app.py of its own, so we put it last.
        sys.path.append(getcwd())
    run()
