"""The gunicorn worker: its start, its end, and between them the turns of its loop."""

import os
import signal
import threading
import time
from typing import Any

from gunicorn.http import errors as http
from gunicorn.sock import ssl_context
from gunicorn.workers import base

from api import errors
from serving.clients import Clients

LINGER = 2  # seconds for which a worker that stops waits for what clients are to send
STORING = 5  # seconds of gunicorn's grace that are kept for handing over what has not ended
CLOSING = 4  # of these, after which nobody is waited for: then gunicorn's master would kill


class Worker(base.Worker):
    """A worker whose clients are served by one loop, and by threads that make the answers."""

    def load_wsgi(self) -> None:
        super().load_wsgi()
        services = self.wsgi.extensions["parley"]
        self.replies = services.replies
        self.replies.start_keeper()
        services.sweeper.start()
        services.fit(self.cfg.threads, self.cfg.worker_connections)
        services.begin()
        sentence = "The body is broken: its chunks are not framed as RFC 9112 has it."
        broken_body: list[errors.Detail] = [(sentence, None)]
        close = {"Connection": "close"}  # nobody knows where the next request begins
        self.wsgi.register_error_handler(
            http.ParseException,
            lambda error: errors.error_response(400, broken_body, headers=close),
        )
        tls = ssl_context(self.cfg) if self.cfg.is_ssl else None
        longest_body = self.wsgi.config["MAX_CONTENT_LENGTH"]
        self.clients = Clients(self.cfg, self.wsgi, self.sockets, tls, longest_body)
        signal.set_wakeup_fd(self.clients.loop.bell)
        self.grace = max(0, self.cfg.graceful_timeout - STORING)
        self.linger = LINGER

    def init_signals(self) -> None:
        super().init_signals()
        # Of a terminal that is closed; gunicorn's master gets it, too.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def handle_quit(self, signum: int, frame: Any) -> None:
        """On SIGINT and SIGQUIT, all replies are handed over at once, which ends their streams."""
        if not self.booted:
            return super().handle_quit(signum, frame)
        self.alive, self.grace, self.linger = False, 0, 0
        self.cfg.worker_int(self)

    def run(self) -> None:
        """Serve until told to stop, or until the master has died."""
        while self.alive and os.getppid() == self.ppid:
            self.notify()
            self.clients.turn()
            if self.clients.served >= self.max_requests:
                break
        self.stop()

    def stop(self) -> None:
        """Let what is under way end, replies that nobody follows, too. Those that outlast the grace
        are handed over, which ends their streams. SIGQUIT may shorten it meanwhile."""
        began, has_handed_over = time.monotonic(), False
        self.replies.stop_taking_over()
        self.clients.stop()
        while self.clients or not self.replies.are_over():
            self.clients.loop.hurry(began + self.linger)
            self.clients.turn()
            self.notify()
            now = time.monotonic()
            if now >= began + self.grace and not has_handed_over:
                has_handed_over = True
                self.hand_over()
            if now >= began + self.grace + CLOSING:
                break
        if not has_handed_over:
            self.replies.stop(0)

    def hand_over(self) -> None:
        """The loop sends the ends of the streams meanwhile, where there is a thread to be had."""
        try:
            threading.Thread(target=self.replies.stop, args=(0,)).start()
        except RuntimeError:
            self.replies.stop(0)
