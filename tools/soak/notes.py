"""What happened in a soak, and what its users were answered."""

import collections
import time

from history import NOWHERE

REFUSED = "Connection refused"


class Notes:
    def __init__(self, history=NOWHERE):
        self.history = history
        self.began = time.monotonic()
        self.done = []  # the faults, as they are printed
        self.figures = collections.Counter()  # what the faults did → how often
        # [the host's URL, since when, until when]: connections break there; nothing listens there
        self.cuts, self.gaps = [], []
        # [when it began, when all were stopped, when it was over, whether it was all of the host,
        # its URL]
        self.pauses = []
        # [since when, until when, the seconds of a commit of SQLite, which cannot be interrupted]
        self.stalls = []
        # (what, when it was sent, when it was answered or lost, the limit, of which host)
        self.slow = []
        # (what, when it was sent, when it was lost, of which host, whether nothing listened there)
        self.lost = []
        self.titles = {}  # session → the title that a user gave it
        self.cancelled = set()  # marks
        self.problems = []

    def since(self, when):
        """This time, as faults are printed."""
        return f"{when - self.began:.0f} s"

    def lose(self, what, began, url, problem):
        """A request to this host is lost."""
        self.lost.append((what, began, time.monotonic(), url, REFUSED in str(problem)))

    def in_time(self, what, began, limit, url):
        """A request has its answer, or is lost. That may be too late."""
        if time.monotonic() > began + limit:
            self.slow.append((what, began, time.monotonic(), limit, url))

    def late(self):
        """Requests that were answered too late. We do not count the time during which a host is
        stopped, or a worker that may have had them; nor a commit that began in time."""
        for what, began, ended, limit, url in self.slow:
            seconds = ended - began
            for since, stood, until, is_whole, where in self.pauses:
                if where == url and (is_whole or began < stood):
                    seconds -= max(0.0, min(ended, until) - max(began, since))
            for since, until, commit in self.stalls:
                seconds -= commit * (began <= until and since <= ended)
            if seconds > limit:
                yield f"{self.since(began)}: {what} took {seconds:.1f} s at {url}"

    def cut_off(self):
        """Requests that lost their connection though no process of their host died, or had ended
        its grace period; or were refused though a server should have been listening there."""
        for what, began, ended, url, is_refused in self.lost:
            if not any(
                where == url and since <= ended + 1 and began - 1 <= until
                for where, since, until in (self.gaps if is_refused else self.cuts)
            ):
                how = "was refused" if is_refused else "was lost"
                yield f"{self.since(began)}: {what} {how} after {ended - began:.1f} s at {url}"
