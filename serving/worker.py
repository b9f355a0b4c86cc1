"""The gunicorn worker: how it starts, runs the loop, and stops."""

import os
import signal
import threading
import time
from typing import Any

from gunicorn.http import errors as http
from gunicorn.sock import ssl_context
from gunicorn.workers import base

from api import errors
from serving.dispatcher import Dispatcher

REQUEST_GRACE = 2  # seconds that clients have to finish their requests once the worker stops
# After GRACE, in this order, in seconds: HANDOVER_TIMEOUT of `replies`, in which replies are handed
# over and streams end; EXIT_AFTER, when the worker exits, whether everything has ended or not; and
# HANDOVER_RESERVE, when gunicorn's master, if it stops too, sends SIGKILL (`graceful_timeout` in
# gunicorn.conf.py).
EXIT_AFTER = 4
HANDOVER_RESERVE = 5


class Worker(base.Worker):
    """A gunicorn worker with one event loop, and a pool of threads that make the answers."""

    def load_wsgi(self) -> None:
        super().load_wsgi()
        services = self.wsgi.extensions["parley"]
        self.replies = services.replies
        self.replies.start_keeper()
        services.sweeper.start()
        services.fit(self.cfg.threads, self.cfg.worker_connections)
        services.prefetch()
        sentence = "The body is broken: its chunks are not framed as RFC 9112 requires."
        broken_body: list[errors.Detail] = [(sentence, None)]
        close = {"Connection": "close"}  # we cannot tell where the next request begins
        self.wsgi.register_error_handler(
            http.ParseException,
            lambda error: errors.error_response(400, broken_body, headers=close),
        )
        tls = ssl_context(self.cfg) if self.cfg.is_ssl else None
        longest_body = self.wsgi.config["MAX_CONTENT_LENGTH"]
        self.dispatcher = Dispatcher(self.cfg, self.wsgi, self.sockets, tls, longest_body)
        signal.set_wakeup_fd(self.dispatcher.loop.wakeup_fd)
        self.grace = max(0, self.cfg.graceful_timeout - HANDOVER_RESERVE)
        self.request_grace = REQUEST_GRACE

    def init_signals(self) -> None:
        super().init_signals()
        # A terminal that is closed sends SIGHUP to the workers, too; the master acts on it.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def handle_quit(self, signum: int, frame: Any) -> None:
        """On SIGINT and SIGQUIT, hand over all replies immediately. This ends their streams."""
        if not self.booted:
            return super().handle_quit(signum, frame)
        self.alive, self.grace, self.request_grace = False, 0, 0
        self.cfg.worker_int(self)

    def run(self) -> None:
        """Serve until told to stop, or until the master has died."""
        while self.alive and os.getppid() == self.ppid:
            self.notify()
            self.dispatcher.run_once()
            if self.dispatcher.served >= self.max_requests:
                break
        self.stop()

    def stop(self) -> None:
        """Finish the requests and replies in progress, even replies that no client follows.

        Replies that are still in progress after the grace period are handed over to another
        process. This ends their streams here. A SIGQUIT that comes meanwhile ends the grace
        period."""
        began, has_handed_over = time.monotonic(), False
        self.replies.stop_taking_over()
        self.dispatcher.stop()
        while self.dispatcher or not self.replies.are_over():
            self.dispatcher.loop.set_read_deadline(began + self.request_grace)
            self.dispatcher.run_once()
            self.notify()
            now = time.monotonic()
            if now >= began + self.grace and not has_handed_over:
                has_handed_over = True
                self.hand_over()
            if now >= began + self.grace + EXIT_AFTER:
                break
        if not has_handed_over:
            self.replies.stop()

    def hand_over(self) -> None:
        """Hand over the replies in a thread, so that the loop can send the ends of their streams.
        If the system has no more threads, hand them over in this one."""
        try:
            threading.Thread(target=self.replies.stop).start()
        except RuntimeError:
            self.replies.stop()
