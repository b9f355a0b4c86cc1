"""For the other checks: what was requested of each session, and used by each user."""

from reading import Check

CHANGES = "create", "message", "retry", "continue", "cancel", "delete", "change"


class Sessions(Check):
    """This check comes before all others."""

    def sent(self, op):
        self.book.users.add(op.user)
        if op.session and op.kind in CHANGES:
            self.book.session(op.session).ops.append(op)

    def answered(self, op):
        if op.kind == "create" and op.session and op.is_kept:
            self.book.own(op.session, op.user).ops.append(op)
        if op.kind == "usage" and op.status == 200 and op.sent > self.book.rest:
            self.book.usage[op.user] = op
