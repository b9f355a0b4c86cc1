"""What a model thinks: the pieces of one stream add up, and a turn has the right figures."""

from reading import Check

MOST = 2**18  # characters that are streamed of one reply


class Thoughts(Check):
    def __init__(self, book):
        super().__init__(book)
        self._given = {}  # op of a stream → the characters that it got

    def event(self, op, event):
        if event.name != "thinking" or "start" not in event.data:
            return
        start, given = event.data["start"], self._given.get(op.number, 0)
        if start not in (0, given):
            self.report("S-54", f"thinking goes on at {start}, and {given} characters came", op)
        self._given[op.number] = start + len(event.data["delta"])
        if self._given[op.number] > MOST:
            self.report("Thinking", f"{self._given[op.number]} characters came", op)

    def closed(self, op):
        self._given.pop(op.number, None)

    def turn(self, op, turn):
        if turn["kind"] != "assistant" or turn["thinking"] is None:
            return
        figures = turn["thinking"]
        is_so = isinstance(figures, dict) and figures.keys() == {"characters", "seconds"}
        if not is_so or figures["characters"] < 1 or figures["seconds"] < 0:
            self.report("API, A turn", f"thinking of the reply {turn['id']} is {figures!r}", op)
