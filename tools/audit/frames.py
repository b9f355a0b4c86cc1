"""The form of streams: heads, frames, their order and ids; and that no stream is silent."""

from book import LATE
from reading import NEVER, OWN_ID, Check

LONGEST_ID, LONGEST_DELTA = 40, 16_384  # characters
HEAD = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}
SILENCE = 15  # seconds, as the protocol says


class _Seen:
    """What came of a stream."""

    def __init__(self, at):
        self.names, self.ids, self.last_id, self.title = [], set(), None, None
        self.heard, self.has_begun, self.is_over = at, False, False


class Frames(Check):
    def __init__(self, book, texts):
        super().__init__(book)
        self._texts, self._seen = texts, {}

    def answered(self, op):
        if not op.is_stream:
            return
        self._seen[op.number] = _Seen(self.book.at)
        for name, value in HEAD.items():
            if op.headers.get(name) != value:
                self.report("Requests", f"{name} of a stream is {op.headers.get(name)}", op)
        expected = 201 if op.kind == "create" else 200
        if op.status != expected:
            self.report("Requests", f"a stream has the status {op.status}", op)
        if op.method == "POST" and not op.headers.get("Location"):
            self.report("Requests", "a stream has no Location", op)

    def comment(self, op):
        self._hear(op)

    def event(self, op, event):
        seen = self._hear(op, is_event=True)
        if seen.is_over:
            self.report("S-19", f"{event.name} comes behind the end", op)
        self._check_session(op, seen, event)
        self._check_order(op, seen, event)
        self._check_id(op, seen, event)
        self._check_delta(op, event)
        seen.names.append(event.name)
        seen.last_id, seen.is_over = event.id, event.name in ("done", "error")

    def closed(self, op):
        seen = self._hear(op, is_event=True)
        is_cut = op.how != "left" and not seen.is_over
        names = self.book.names_of_faults()
        if is_cut and not self.book.is_faulty(op.at, self.book.at, names):
            self.report("S-20", "a stream ends without an end, and no process was stopped", op)
        del self._seen[op.number]

    def finish(self):
        """Streams are still open if the history is cut short."""
        if self.book.rest < NEVER:
            for number in self._seen:
                self.report("S-41", "nobody knows how a stream ended", f"op {number}")

    def _hear(self, op, is_event=False):
        seen = self._seen[op.number]
        gap = self.book.at - seen.heard
        if gap > SILENCE + LATE and not self._is_excused(seen.heard):
            self.report("S-41", f"nothing came for {gap:.1f} s", op)
        if is_event and not seen.has_begun and op.kind != "create" and op.how is None:
            self.report("Frames", "a stream begins without a comment", op)
        seen.heard, seen.has_begun = self.book.at, True
        return seen

    def _is_excused(self, since):
        """A process that was killed stays silent: its clients have lost their connections."""
        names = self.book.names_of_faults() - {"worker-killed"}
        return self.book.is_faulty(since, self.book.at, names, LATE)

    def _check_session(self, op, seen, event):
        is_session = event.name == "session"
        if not seen.names and is_session != (op.kind == "create"):
            self.report("S-7", f"{event.name} comes first", op)
        elif is_session and op.kind != "create":
            self.report("S-7", "session is in a stream that creates none", op)
        elif is_session and event.data["title"] == seen.title:
            self.report("S-7", "session comes again with the same title", op)
        if is_session:
            seen.title = event.data["title"]

    def _check_order(self, op, seen, event):
        before = seen.names[-1] if seen.names else self._name_of(op, event)
        if seen.names and before == "assistant_turn" and event.name != "done":
            self.report("S-8", f"{event.name} comes behind assistant_turn", op)
        if event.name == "done" and before != "assistant_turn":
            promise = "S-8" if seen.names or not before else "S-25"
            self.report(promise, f"done comes behind {before}", op)

    def _name_of(self, op, event):
        """The name of the event that this first one follows, or None."""
        reply = self._texts.replies.get(event.turn)
        return reply and op.last_id and reply.names.get(op.last_id)

    def _check_id(self, op, seen, event):
        if len(event.id) > LONGEST_ID or not event.id.isascii():
            self.report("S-51", f"an id is {event.id!r}", op)
        if event.name in OWN_ID:
            if event.id in seen.ids:
                self.report("S-9", f"the id {event.id} comes twice", op)
            seen.ids.add(event.id)
        elif seen.last_id not in (None, event.id):
            self.report("S-10", f"{event.name} has the id {event.id} behind {seen.last_id}", op)

    def _check_delta(self, op, event):
        if event.name != "content_delta":
            return
        delta = event.data["delta"]
        if not 1 <= len(delta) <= LONGEST_DELTA:
            self.report("S-16", f"a delta has {len(delta)} characters", op)
        if any("\ud800" <= character <= "\udfff" for character in delta):
            self.report("S-16", "a delta is cut within a character", op)
