"""The gunicorn worker: refusals in the shape of all errors, replies that end before their process does, limits endured."""

import concurrent.futures
import contextlib
import errno
import json
import threading
import time

from gunicorn.http.errors import (
    ExpectationFailed,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
    UnsupportedTransferCoding,
)
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import ThreadWorker

import errors

STORING = 5  # seconds of the grace that are kept for storing what is interrupted

REFUSALS = {
    LimitRequestLine: (414, "Shorten the request line."),
    LimitRequestHeaders: (431, "Shorten the headers."),
    ExpectationFailed: (417, "Leave the header Expect out."),
    UnsupportedTransferCoding: (501, "Send the body plain, or chunked."),
    ParseException: (400, "Send a request as RFC 9112 has it."),
    Exception: (500, "The server failed. Ask again."),
}


class Threads(concurrent.futures.ThreadPoolExecutor):
    """Where the system gives no more threads, a request waits for one that becomes free; else its worker would die."""

    def _adjust_thread_count(self):
        with contextlib.suppress(RuntimeError):
            super()._adjust_thread_count()


class Worker(ThreadWorker):
    """A worker with threads. What it overrides is what gunicorn itself registers or calls."""

    def load_wsgi(self):
        super().load_wsgi()
        self.replies = self.wsgi.replies
        # Of eight threads, two may read requests, five be held by waits and streams: one is left for short requests.
        self.wsgi.held.size = max(1, self.cfg.threads * 5 // 8)
        self.wsgi.register_error_handler(ParseException, errors.on_broken_body)
        self.wsgi = closing(self.wsgi)

    def get_thread_pool(self):
        return Threads(self.cfg.threads)

    def accept(self, listener):
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            time.sleep(0.05)  # the worker would die of it; the client waits until a file is closed

    def handle_exit(self, signum, frame):
        """On SIGTERM, let replies under way end, and interrupt the rest before the worker is killed."""
        super().handle_exit(signum, frame)
        if self.booted:
            grace = max(0, self.cfg.graceful_timeout - STORING)
            threading.Thread(target=self.replies.stop, args=(grace,)).start()

    def handle_quit(self, signum, frame):
        """On SIGINT and SIGQUIT, interrupt all replies, else their followers would hold up the exit."""
        if self.booted:
            self.replies.stop(0)
        super().handle_quit(signum, frame)

    def handle_error(self, req, client, addr, exc):
        """Refuse what is no request. Nothing of it is quoted, here or in the log."""
        status, detail = next(REFUSALS[kind] for kind in REFUSALS if isinstance(exc, kind))
        self.log.warning("request refused: %s", type(exc).__name__, exc_info=exc if status == 500 else None)
        body = json.dumps(errors.document(status, [(detail, None)]))
        head = (
            f"HTTP/1.1 {status} {errors.TITLES[status]}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with contextlib.suppress(OSError):  # the client has gone
            write_nonblock(client, (head + body).encode())


def closing(app):
    """gunicorn drops an application's `Connection` header: have it close where the application says so."""

    def wsgi(environ, start_response):
        def start(status, headers, exc_info=None):
            if ("Connection", "close") in headers:
                start_response.__self__.force_close()
            return start_response(status, headers, exc_info)

        return app(environ, start)

    return wsgi
