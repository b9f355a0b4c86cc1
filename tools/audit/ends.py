"""A stream ends as its reply does."""

from reading import NEVER, Check


class Ends(Check):
    def __init__(self, book, texts):
        super().__init__(book)
        self._texts = texts
        self._errors = []  # (op, reply, at, data, the characters that came)

    def event(self, op, event):
        reply = self._texts.replies.get(event.turn)
        if event.name == "assistant_turn":
            if event.data["status"] not in ("complete", "interrupted"):
                self.report("S-20", f"assistant_turn is {event.data['status']}", op)
            if event.data["id"] != event.turn:
                self.report("S-17", f"assistant_turn has another id than {event.turn}", op)
        elif event.name == "error" and reply:
            self._take_error(op, reply, event)

    def turn(self, op, turn):
        if op.kind == "cancel" and turn["status"] == "in_progress":
            self.report("API, Retry, continue, cancel", "a cancelled reply is in progress", op)

    def answered(self, op):
        if op.kind == "events" and op.last_id and op.status in (200, 204):
            self._check_rest(op)

    def finish(self):
        self._check_errors()
        if not self.book.faults:
            for reply in self._texts.replies.values():
                self._check_interruption(reply)

    def _check_interruption(self, reply):
        """If there was no fault, somebody has cancelled what is interrupted."""
        cancels = self.book.session(reply.session).of("cancel")
        is_interrupted = reply.end is not None and reply.end["status"] == "interrupted"
        if is_interrupted and all(op.is_refused for op in cancels):
            sentence = f"the reply {reply.id} is interrupted, and nobody cancelled it"
            self.report("States", sentence, f"session {reply.session}")

    def _check_errors(self):
        for op, reply, at, data, position in self._errors:
            end, session = reply.end, self.book.session(reply.session)
            goes_on = session.goes_on_by(NEVER, reply.first, reply.first)
            if end is None or op.kind == "continue" or goes_on:
                continue
            if position is not None and position != len(end["content"]):
                sentence = f"{position} characters of {reply.id} came before its error"
                self.report("S-13", f"{sentence}, and it has {len(end['content'])}", op, at)
            if end["status"] != "failed":
                self.report(
                    "S-21", f"error ends the reply {reply.id}, which is {end['status']}", op, at
                )
            elif (end["error"]["status"], end["error"]["message"]) != (
                data["status"],
                data["message"],
            ):
                self.report(
                    "S-21", f"{data} ends the reply {reply.id}, which is {end['error']}", op, at
                )

    def _take_error(self, op, reply, event):
        if event.data["status"] == 404:
            if not self.book.session(op.session).is_deleted_by(self.book.line):
                self.report("S-22", "an error is 404, and nobody deleted the session", op)
        elif event.data["status"] == 500:
            self.report("How a stream ends", "an error is 500, a fault of the server itself", op)
        else:
            stream = self._texts.streams[op.number]
            position = None if stream.start is None else stream.position
            self._errors.append((op, reply, self.book.at, event.data, position))

    def _check_rest(self, op):
        """204 is the answer to the id of an end after which nothing came, and to no other."""
        reply = self._texts.replies.get(op.last_id.partition("-")[0])
        name = reply.names.get(op.last_id) if reply else None
        is_end = name in ("done", "error")
        session = self.book.session(op.session)
        if op.status == 204 and not is_end:
            self.report("S-24", f"204 answers the id of {name or 'nothing'}", op)
        elif op.status == 200 and is_end and not self._is_followed(op, session, reply):
            self.report("S-24", "a stream answers the id of an end behind which nothing came", op)

    def _is_followed(self, op, session, reply):
        """Whether it may have been continued, or another may have been requested."""
        return any(
            other.sent < op.got and other.got > reply.first and not other.is_refused
            for other in session.ops
            if other.asks
        )
