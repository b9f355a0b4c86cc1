"""How gunicorn serves Parley: on 127.0.0.1:8000, or on all interfaces at `$PORT` where that is set."""

import gc
import os
import resource

# The files that a process may have open: as many as it is allowed, up to 8192.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
_files = max(_soft, min(_hard, 8192))
resource.setrlimit(resource.RLIMIT_NOFILE, (_files, _hard))

wsgi_app = "app:create_app()"
worker_class = "worker.Worker"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
worker_connections = max(16, min(4096, _files // 2))  # each is an open file, and a reply has two of its own
threads = worker_connections // 4  # each waiting request and each stream has one; they start when they are needed
preload_app = True  # a bad setting is found once, and tables and keys are made once
graceful_timeout = 25  # a platform that sends SIGTERM kills after 30 s
control_socket_disable = True
errorlog = None  # its lines go where all others go
forwarder_headers = ""  # SCRIPT_NAME comes from the environment only, never from a header


def pre_fork(server, worker):
    """Keep the collector off what the workers share, else each of them would get a copy of it."""
    gc.freeze()
