"""Each answer has a status that docs/api.md gives it, and what belongs to that status."""

from reading import Check

ALWAYS = {400, 401, 403, 404, 406, 408, 412, 414, 415, 431, 503}  # what any request may get
ASKING = {409, 413, 422, 429, 502, 504}
DONE = {  # what a request is for → the status if it succeeds
    "create": {201},
    "message": {201, 202},
    "retry": {201, 202},
    "continue": {201, 202},
    "cancel": {200},
    "delete": {204},
    "change": {200},
    "events": {200, 204},
    "show": {200},
    "sessions": {200},
    "usage": {200},
    "export": {200},
}


class Statuses(Check):
    def answered(self, op):
        if op.kind in DONE and op.status not in self._expected(op):
            self.report("API, Errors", f"the answer is {op.status}", op)
        is_full = op.status == 429 or (op.status == 503 and "Location" not in op.headers)
        if is_full and not op.headers.get("Retry-After"):
            self.report("API, Errors", f"a {op.status} has no Retry-After", op)
        if op.kind == "show" and op.status == 200 and isinstance(op.answer, dict):
            if op.turns is None:
                self.report("API, A session", "it is shown without its turns", op)
        if not op.is_stream and op.kind in DONE and not self._has_body(op):
            self.report("API, Operations", f"the body of a {op.status} is {op.answer}"[:300], op)
        if op.status == 202 and not op.headers.get("Location"):
            self.report("API, Ways to receive a reply", "a deferred answer has no Location", op)
        if not op.is_stream and op.headers.get("Cache-Control") != "no-store":
            self.report("API, Headers", "an answer may be stored on its way", op)

    def _has_body(self, op):
        """Whether the body fits the status."""
        if op.status == 204:
            return not op.answer
        if op.status >= 400:
            return isinstance(op.answer, dict) and bool(op.answer.get("errors"))
        if op.status == 202:
            return op.answer == {"accepted": True}
        if op.kind in ("message", "retry", "continue", "cancel"):
            return isinstance(op.answer, dict) and op.answer.get("kind") == "assistant"
        return op.kind != "create" or op.answer.get("id") == op.session

    def _expected(self, op):
        if op.is_stream:
            return {200, 201}  # another check looks at those of streams
        if op.kind == "cancel":
            return DONE["cancel"] | ALWAYS | {409}
        return DONE[op.kind] | ALWAYS | (ASKING if op.asks else set())
