"""How gunicorn serves Parley: on 127.0.0.1:8000, or on all interfaces at `$PORT` where that is set."""

import concurrent.futures
import contextlib
import errno
import gc
import json
import os
import resource
import signal
import threading
import time

from gunicorn.http import errors
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import ThreadWorker

wsgi_app = "app:create_app()"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
threads = 256  # each waiting request and each stream has one; they start when they are needed
preload_app = True  # a bad setting is found once, and tables and keys are made once
graceful_timeout = 25  # a platform that sends SIGTERM kills after 30 s
control_socket_disable = True

# Each reply has two files open, its provider's connection, and each request or stream one.
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (max(_soft, min(_hard, 8192)), _hard))

REFUSALS = {
    errors.LimitRequestLine: (414, "URI Too Long", "Shorten the request line."),
    errors.LimitRequestHeaders: (431, "Request Header Fields Too Large", "Shorten the headers."),
    errors.ExpectationFailed: (417, "Expectation Failed", "Leave the header Expect out."),
    errors.UnsupportedTransferCoding: (501, "Not Implemented", "Send the body plain, or chunked."),
    errors.ParseException: (400, "Bad Request", "Send a request as RFC 9112 has it."),
    Exception: (500, "Internal Server Error", "The server failed. Ask again."),
}

STORING = 5  # seconds of the grace that are kept for storing what is interrupted


class Threads(concurrent.futures.ThreadPoolExecutor):
    """Where the system gives no more threads, a request waits for one that becomes free; else its worker would die."""

    def _adjust_thread_count(self):
        with contextlib.suppress(RuntimeError):
            super()._adjust_thread_count()


class worker_class(ThreadWorker):
    """A worker whose own errors have the shape of all errors, and quote nothing of the request, here or in the log."""

    def get_thread_pool(self):
        return Threads(self.cfg.threads)

    def accept(self, listener):
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            time.sleep(0.05)  # the worker would die of it; the client waits until a file is closed

    def handle_error(self, req, client, addr, exc):
        status, title, detail = next(REFUSALS[kind] for kind in REFUSALS if isinstance(exc, kind))
        self.log.warning("request refused: %s", type(exc).__name__, exc_info=exc if status == 500 else None)
        body = json.dumps({"errors": [{"status": str(status), "title": title, "detail": detail}]})
        head = f"HTTP/1.1 {status} {title}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        try:
            write_nonblock(client, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        except OSError:
            pass  # the client has gone


def pre_fork(server, worker):
    """Keep the collector off what the workers share, else each of them would get a copy of it."""
    gc.freeze()


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
