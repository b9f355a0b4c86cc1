"""How gunicorn serves Parley: on 127.0.0.1:8000, or on all interfaces at `$PORT` where that is set."""

import gc
import os
import resource

wsgi_app = "app:create_app()"
worker_class = "worker.Worker"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
threads = 256  # each waiting request and each stream has one; they start when they are needed
preload_app = True  # a bad setting is found once, and tables and keys are made once
graceful_timeout = 25  # a platform that sends SIGTERM kills after 30 s
control_socket_disable = True

# Each reply has two files open for its provider's connection, and each request or stream one.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (max(_soft, min(_hard, 8192)), _hard))


def pre_fork(server, worker):
    """Keep the collector off what the workers share, else each of them would get a copy of it."""
    gc.freeze()
