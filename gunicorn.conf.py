"""How gunicorn serves Parley: on 127.0.0.1:8000, or on all interfaces at `$PORT` where that is set."""

import os
import signal
import threading

wsgi_app = "app:create_app()"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
worker_class = "gthread"
threads = 256  # each waiting request and each stream has one; they start when they are needed
preload_app = True  # a bad setting is found once, and tables and keys are made once
graceful_timeout = 25  # a platform that sends SIGTERM kills after 30 s
control_socket_disable = True

STORING = 5  # seconds of the grace that are kept for storing what is interrupted


def post_worker_init(worker):
    """Let replies under way end after SIGTERM, and interrupt the rest before the worker is killed."""
    app = worker.wsgi
    stop_accepting = worker.handle_exit

    def stop(signum, frame):
        stop_accepting(signum, frame)
        grace = max(0, worker.cfg.graceful_timeout - STORING)
        threading.Thread(target=app.replies.stop, args=(grace,)).start()

    signal.signal(signal.SIGTERM, stop)
    worker.wsgi = closing(app)


def worker_int(worker):
    """Interrupt all replies on SIGINT and SIGQUIT, else their followers would hold up the exit."""
    worker.wsgi.app.replies.stop(0)


def closing(app):
    """gunicorn drops an application's `Connection` header: have it close where the application says so."""

    def wsgi(environ, start_response):
        def start(status, headers, exc_info=None):
            if ("Connection", "close") in headers:
                start_response.__self__.force_close()
            return start_response(status, headers, exc_info)

        return app(environ, start)

    wsgi.app = app
    return wsgi
