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
import socket
import sys
import time
from typing import Any

if importlib.util.find_spec("gunicorn") is None:  # no library is there, then
    raise SystemExit("gunicorn is not installed for this Python. Is it .venv/bin/python?")

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


def wait_for_port() -> None:
    """Wait for the port as long as gunicorn would, since another server may be ending there; then
    say whose mistake it is in one line, where gunicorn says in ten that it tries again."""
    given = {"GUNICORN_FD", "LISTEN_FDS", "LISTEN_PID"}.intersection(os.environ)  # sockets
    arguments = " ".join([os.environ.get("GUNICORN_CMD_ARGS", ""), *sys.argv[1:]])
    if given or re.search(r"(^|\s)(-b|--bind|--reuse-port|-c|--config)", arguments):
        return  # it listens elsewhere, or beside another
    port = os.environ.get("PORT")
    host, port = ("0.0.0.0", port) if port else ("127.0.0.1", "8000")
    for left in range(5, -1, -1):
        try:
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does
                return listener.bind((host, int(port)))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return  # gunicorn says what it is
        if left:
            time.sleep(1)
    raise SystemExit(f"PORT: another program listens on port {port}. Stop it, or choose another")


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


if __name__ == "__main__":
    # As the Procfile has it: gunicorn itself reads the two above first, and answers with a
    # traceback.
    gc.disable()  # until the workers are made: of what a start loads, nothing is to be collected
    wait_for_port()
    from gunicorn.app.wsgiapp import run
    from gunicorn.util import getcwd

    if getcwd() != _folder:  # where gunicorn would look for its configuration
        sys.argv[1:1] = ["--config", os.path.abspath(__file__)]
        # It puts the working folder first in the path, unless it is there: that may have an app.py.
        sys.path.append(getcwd())
    run()
