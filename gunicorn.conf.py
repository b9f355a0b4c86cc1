"""How gunicorn serves Parley: on 127.0.0.1:8000, or on all interfaces at `$PORT` where that is set."""

import gc
import os
import re
import resource

import limits

for _name in ("PORT", "WEB_CONCURRENCY"):
    if not os.environ.get(_name, "").strip():
        os.environ.pop(_name, None)
    elif not re.fullmatch("[1-9][0-9]{0,4}", os.environ[_name]) or int(os.environ[_name]) > 65535:
        raise SystemExit(f"{_name}: give a whole number from 1 to 65535")

prefix = os.environ["SCRIPT_NAME"] = os.environ.get("SCRIPT_NAME", "").strip().rstrip("/")  # gunicorn itself takes it off a path
if not re.fullmatch(r"(/(?!\.+(/|$))[A-Za-z0-9._~-]+)*", prefix):
    raise SystemExit("SCRIPT_NAME: write it like /chat/v1")

wsgi_app = "app:create_app()"
worker_class = "worker.Worker"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
worker_connections, why_so_few = limits.fit(workers)  # half of them may be streams, a third replies under way
threads = worker_connections // 4  # each request has one while it is read and answered, but no stream; they start when needed
preload_app = True  # a bad setting is found once, and tables and keys are made once
graceful_timeout = 25  # a platform that sends SIGTERM kills after 30 s
control_socket_disable = True
errorlog = None  # its lines go where all others go
forwarder_headers = ""  # SCRIPT_NAME comes from the environment only, never from a header

# Each connection is an open file, and each reply has two of its own.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (max(_soft, 2 * worker_connections), _hard))


def when_ready(server):
    """Say once, not in each worker, what the service starts with."""
    import cli

    if why_so_few:
        cli.log.warning("each process has room for %d connections only: %s", worker_connections, why_so_few)
    cli.announce(server.app.wsgi(), ",".join(f"{listener}{prefix}" for listener in server.LISTENERS))


def pre_fork(server, worker):
    """Keep the collector off what the workers share, else each of them would get a copy of it."""
    gc.freeze()
    gc.enable()


if __name__ == "__main__":  # as the Procfile has it: gunicorn itself reads the two above first, and answers with a traceback
    gc.disable()  # until the workers are made: it would look through all that a start loads, and find nothing to collect
    from gunicorn.app.wsgiapp import run

    run()
