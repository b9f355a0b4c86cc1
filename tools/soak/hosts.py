"""A host of a soak: a server that may be killed, stopped and replaced, with one address."""

import contextlib
import signal
import time

from naming import BEFORE
from needs import APART, lacks_namespaces
from observed import ObservedServer
from servers import Server, children, free_port

LEFT = " outcome=in_progress "  # in the log: of a reply that continues elsewhere
UP = 60  # seconds at most until a server is up, on a busy machine


class Container(Server):
    """A server that sees only its own processes, as in a container. Its pids here are those
    outside."""

    before = APART + BEFORE

    @property
    def pid(self):
        started = children(self.process.pid)  # by the process that made the namespace
        return started[0] if started else self.process.pid


class Host:
    """Each of its servers has a log of its own. `notes` records when nothing listens here, and when
    connections break. `is_apart`: it does not see the processes of other hosts."""

    def __init__(self, folder, settings, notes, is_apart=False):
        self.folder, self.settings, self.notes = folder, settings, notes
        self.kind = Container if is_apart and not lacks_namespaces() else ObservedServer
        self.grace, self.port = settings["GRACE"], free_port()
        self.server, self.logs = None, []

    def begin(self):
        """Start a server, without waiting until it is up."""
        folder = self.folder / f"start-{len(self.logs)}"
        folder.mkdir(parents=True)
        self.server = self.kind(folder, port=self.port, **self.settings)
        self.url = self.server.url
        self.logs.append(self.server.log_file)

    def start(self):
        """Start a server, and wait until it is up."""
        self.begin()
        self.server.wait_until_up(UP)

    @contextlib.contextmanager
    def away(self):
        """Within this context, nothing listens here, at most until another server is up."""
        gap = [self.url, time.monotonic(), float("inf")]
        self.notes.gaps.append(gap)
        yield
        gap[2] = time.monotonic()

    def kill(self):
        """kill -9 of all its processes."""
        with self.breaking():
            self.server.kill()
            self.server.log.close()

    def stop(self, signal_number=signal.SIGTERM):
        """Returns when its server has ended."""
        with self.handing_over(self.grace if signal_number == signal.SIGTERM else 0):
            self.server.stop(self.grace + 20, signal_number)

    @contextlib.contextmanager
    def handing_over(self, grace):
        """Within this context, its server hands over its replies. Connections may break once the
        grace period is over."""
        log, before = self.server.log_file, self.server.output().count(LEFT)
        with self.breaking(grace):
            yield
        self.notes.figures["replies handed over"] += log.read_text().count(LEFT) - before

    @contextlib.contextmanager
    def breaking(self, seconds=0):
        """Connections may break within this context, and for so many seconds from now on."""
        cut = [self.url, time.monotonic() + seconds, float("inf")]
        self.notes.cuts.append(cut)
        yield
        cut[2] = time.monotonic()
