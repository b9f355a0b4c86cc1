"""The text of each reply only grows, for all its readers, and an id is one place in it."""

import bisect

from reading import NEVER, OWN_ID, Check

SAME = "kind", "content", "created_at", "model", "status", "error", "stop_reason"
ADDED_LATER = "usage", "turns_left_out", "thinking"  # by the writer of a cancelled reply
IN_VAIN = "usage", "thinking"  # what a continue without any text may change
FIXED = "kind", "created_at", "model"
REASONS = "stop", "length"
UNDER_WAY = "in_progress"
SUFFIXES = {"assistant_turn": "-turn", "done": "-end", "error": "-end"}  # as the document says


class Reply:
    def __init__(self, id, session, line):
        self.id, self.session, self.first = id, session, line
        self.text = ""  # the longest that was shown
        self.places = {}  # id of an event → how much text is before it
        self.names = {}  # id of an event → its name
        self.shown = [(-1, 0)]  # (line, characters), as they grew
        self.end = None  # the turn as it ended, as it was last returned
        self.ended = NEVER  # the first line that showed this end
        self.since = NEVER  # the line of that request, since which it may have ended
        self.cancelled = -1  # the line at which its canceller learned how far it got
        self.usage = -1, {}  # the line that last returned it, and the usage

    def shown_before(self, line):
        """The characters that somebody had seen before this line."""
        return self.shown[bisect.bisect_left(self.shown, (line, 0)) - 1][1]

    def show(self, line, length):
        if length > self.shown[-1][1]:
            self.shown.append((line, length))


class Stream:
    """What one request reads."""

    def __init__(self):
        self.reply = None
        self.start = None  # the characters before it, if that is known
        self.text = ""
        self.pending = []  # events that came before the start was known

    @property
    def position(self):
        return self.start + len(self.text)


class Texts(Check):
    """Puts texts together. Other checks use its replies and streams."""

    def __init__(self, book):
        super().__init__(book)
        self.replies, self.streams = {}, {}
        self._fixed = {}  # id of a turn → what stays the same from the beginning

    def reply(self, id, session):
        if id not in self.replies:
            self.replies[id] = Reply(id, session, self.book.line)
            self.book.counts["replies"] += 1
        return self.replies[id]

    # Streams

    def answered(self, op):
        if op.is_stream:
            self.streams[op.number] = Stream()

    def event(self, op, event):
        stream = self.streams[op.number]
        if stream.reply is None:
            self._begin(op, stream, event)
        elif event.turn != stream.reply.id:
            self.report("Terms", "a stream has events of another turn", op)
            return
        if stream.start is None and event.name == "assistant_turn":
            self._find_start(op, stream, event.data["content"])
        if stream.start is None:
            if event.name == "content_delta":
                stream.text += event.data["delta"]
            stream.pending.append((event, len(stream.text)))
            return
        if event.name == "content_delta":
            self._grow(op, stream, event.data["delta"])
        elif event.name == "assistant_turn":
            self._compare(op, stream, event.data["content"])
        self._place(op, stream.reply, event, stream.position)

    def closed(self, op):
        stream = self.streams.pop(op.number)
        self.book.counts["streams of which it is not known where they began"] += bool(
            stream.start is None and stream.text
        )

    def _begin(self, op, stream, event):
        stream.reply = self.reply(event.turn, op.session)
        stream.start = self._start(op, stream.reply, event)

    def _start(self, op, reply, event):
        """The characters before a stream, or None if only its end will show them."""
        if op.kind == "continue":
            told = reply.ended < op.sent and event.name == "content_delta"
            return len(reply.end["content"]) if told and self._is_sole(op) else None
        if op.kind == "events" and op.last_id and op.last_id.partition("-")[0] == event.turn:
            return reply.places.get(op.last_id)
        return 0

    def _is_sole(self, op):
        """Whether no other request to continue may have come between."""
        others = [
            other
            for other in self.book.session(op.session).of("continue")
            if other is not op and not other.is_refused
        ]
        return not any(other.got > op.sent for other in others)

    def _find_start(self, op, stream, content):
        """If a stream's start was unknown, its end shows where it began."""
        if not content.endswith(stream.text):
            self.report("S-13", "the deltas are not what the turn ends with", op)
            return
        stream.start, text = len(content) - len(stream.text), stream.text
        for event, length in stream.pending:
            self._place(op, stream.reply, event, stream.start + length)
        stream.text = ""
        self._grow_to(op, stream.reply, content)
        stream.text = text

    def _grow(self, op, stream, delta):
        reply, position = stream.reply, stream.position
        known = reply.text[position : position + len(delta)]
        if not delta.startswith(known):
            promise = "S-13" if stream.start else "S-15"
            self.report(promise, f"{delta!r} comes where another was shown {known!r}", op)
        elif position <= len(reply.text):
            self._check_is_open(op, reply, position + len(delta))
            reply.text += delta[len(known) :]
        stream.text += delta
        reply.show(self.book.line, stream.position)

    def _compare(self, op, stream, content):
        text = stream.reply.text[: stream.start] + stream.text
        if text != content:
            promise = "S-31" if op.kind == "continue" else "S-13" if stream.start else "S-12"
            where = next(
                (
                    at
                    for at, pair in enumerate(zip(text, content, strict=False))
                    if len({*pair}) > 1
                ),
                min(len(text), len(content)),
            )
            self.report(promise, f"the deltas and the turn part at character {where}", op)

    def _place(self, op, reply, event, position):
        suffix = SUFFIXES.get(event.name, "")
        if event.id != f"{reply.id}-{position}{suffix}":
            self.report("Ids", f"{event.id} is behind {position} characters", op)
        known = reply.places.setdefault(event.id, position)
        if known != position:
            sentence = f"{event.id} is behind {position} characters, and was behind {known}"
            self.report("S-14", sentence, op)
        if event.name in OWN_ID:
            reply.names[event.id] = event.name

    # Turns

    def turn(self, op, turn):
        self._check_fixed(op, turn)
        if turn["kind"] != "assistant":
            return
        self._check_reason(op, turn)
        reply = self.reply(turn["id"], op.session)
        self._grow_to(op, reply, turn["content"])
        self._check_usage(op, reply, turn["usage"] or {})
        if turn["status"] == UNDER_WAY:
            self._see_under_way(op, reply)
        else:
            self._see_end(op, reply, turn)

    def _check_fixed(self, op, turn):
        """What stays the same from the beginning, whatever becomes of the turn."""
        fixed = {name: turn.get(name) for name in FIXED}
        if fixed != self._fixed.setdefault(turn["id"], fixed):
            sentence = f"the turn {turn['id']} was {self._fixed[turn['id']]}, is {fixed}"
            self.report("API, A turn", sentence, op)

    def _check_reason(self, op, turn):
        """A complete reply has one; another may have the one from before it was continued."""
        reason, session = turn["stop_reason"], self.book.session(op.session)
        is_complete = turn["status"] == "complete"
        expected = REASONS if is_complete else (None,)
        if not is_complete and session.goes_on_by(self.book.line):
            expected = (None, *REASONS)
        if reason not in expected:
            sentence = f"the reply {turn['id']} is {turn['status']}, its stop_reason {reason!r}"
            self.report("API, A turn", sentence, op)

    def _grow_to(self, op, reply, text):
        if not (text.startswith(reply.text) or reply.text.startswith(text)):
            self.report("S-11", f"the text of the reply {reply.id} is not what was shown of it", op)
            return
        if len(text) < (before := reply.shown_before(op.sent)):
            sentence = f"the reply {reply.id} has {len(text)} characters, and {before} were shown"
            self.report("S-4", sentence, op)
        if len(text) > len(reply.text):
            self._check_is_open(op, reply, len(text))
            reply.text = text
        reply.show(self.book.line, len(text))

    def _check_is_open(self, op, reply, length):
        """A reply that has ended gets no more text, unless somebody continues it."""
        if reply.end is None or length <= len(reply.end["content"]):
            return
        if not self._may_go_on(reply):
            promise = "S-34" if reply.cancelled >= 0 else "S-17"
            self.report(promise, f"the reply {reply.id} goes on behind its end", op)

    def _may_go_on(self, reply):
        """Whether somebody may have continued it after its end."""
        is_whole = reply.end["status"] == "complete" and reply.end["stop_reason"] != "length"
        session = self.book.session(reply.session)
        return not is_whole and session.goes_on_by(self.book.line, reply.since, reply.first)

    def _check_usage(self, op, reply, usage):
        """A count never decreases."""
        line, before = reply.usage
        for name, count in before.items():
            if line < op.sent and (count or 0) > (usage.get(name) or 0):
                self.report("API, A turn", f"{name} of the reply {reply.id} are fewer", op)
        reply.usage = self.book.line, usage

    def _see_under_way(self, op, reply):
        if reply.ended < op.sent and not self._may_go_on(reply):
            self.report("S-17", f"the reply {reply.id} had ended, and is in progress again", op)

    def _see_end(self, op, reply, turn):
        before = reply.end
        if before is None or turn["continued"] > before["continued"]:
            if before is not None and not self._may_go_on(reply):
                self.report("S-17", f"the reply {reply.id} went on behind its end", op)
            reply.end, reply.ended, reply.since = turn, self.book.line, op.sent
        elif turn["continued"] == before["continued"]:
            self._check_is_same(op, reply, before, turn)
        elif reply.ended < op.sent:
            self.report("S-17", f"the reply {reply.id} is as it was before it was continued", op)
        if op.kind == "cancel":
            reply.cancelled = self.book.line

    def _check_is_same(self, op, reply, before, turn):
        names = list(SAME)
        if turn["status"] != "interrupted" or not self._is_cancelled(reply):
            may_change = IN_VAIN if self._may_go_on(reply) else ()
            names += [name for name in ADDED_LATER if name not in may_change]
        for name in names:
            if turn[name] != before[name]:
                sentence = f"{name} of the reply {reply.id} was {before[name]!r}, is {turn[name]!r}"
                self.report("S-17", sentence[:300], op)

    def _is_cancelled(self, reply):
        """Whether somebody may have cancelled it."""
        return any(not op.is_refused for op in self.book.session(reply.session).of("cancel"))
