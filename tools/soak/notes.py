"""What happened in a soak, and what its users were told."""

import time


class Notes:
    def __init__(self):
        self.began = time.monotonic()
        self.done = []  # the faults, as they are told
        self.kills = []  # when a worker was
        # [when it began, when all stood still, when it was over, whether it was the whole service]
        self.pauses = []
        self.slow = []  # (what, when it was asked, when it was answered or lost, the limit)
        self.lost = []  # (what, when it was asked, when it was lost)
        self.kept = {}  # mark → the session in which it is, as somebody was told
        self.turns = {}  # id → a reply, as it was told at its end
        self.titles = {}  # session → the title that a user gave it
        self.cancelled = set()  # marks
        self.problems = []

    def since(self, when):
        """When this was, as the faults are told."""
        return f"{when - self.began:.0f} s"

    def in_time(self, what, began, limit):
        """A request has its answer, or is lost, which may be too late."""
        if time.monotonic() > began + limit:
            self.slow.append((what, began, time.monotonic(), limit))

    def late(self):
        """Requests that were answered too late. What a service stands still is not counted, nor what
        a worker does in which they may have been."""
        for what, began, ended, limit in self.slow:
            seconds = ended - began
            for since, stood, until, is_whole in self.pauses:
                if is_whole or began < stood:
                    seconds -= max(0.0, min(ended, until) - max(began, since))
            if seconds > limit:
                yield f"{self.since(began)}: {what} took {seconds:.1f} s"

    def cut_off(self):
        """Requests that lost their connection though no worker was killed meanwhile."""
        for what, began, ended in self.lost:
            if not any(began - 1 <= when <= ended + 1 for when in self.kills):
                yield f"{self.since(began)}: {what} was lost after {ended - began:.1f} s"
