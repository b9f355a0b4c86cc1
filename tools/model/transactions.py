"""What is committed at once. Each transaction is a function of the database. It returns the
database after it, or None if nothing is changed.
"""

from collections.abc import Callable

from model import rules
from model.states import LAPSED, Database, Fences, Operation, Reply

Transaction = Callable[..., Database | None]


def begin(database: Database, fence: int, replaces: int | None = None) -> Database | None:
    """A message, or a retry, is claimed with an empty reply."""
    reply = None if database.is_deleted else rules.claim(database.replies, fence, replaces)
    return reply and database._replace(replies=(*database.replies, reply))


def retry(database: Database, fence: int) -> Database | None:
    """The last reply is replaced by a new one."""
    if not database.replies or database.under_way is not None:
        return None
    last = len(database.replies) - 1
    hidden = rules.hide(database.replies[last])
    if hidden is None:  # it is not visible: the one that it was to replace has its place
        return None
    return begin(database.put(last, hidden), fence, replaces=last)


def go_on(database: Database, fence: int) -> Database | None:
    """The last visible reply is continued."""
    shown = [number for number, reply in enumerate(database.replies) if reply.is_shown]
    if not shown:
        return None
    before = database.replies[shown[-1]]
    return _put(database, shown[-1], rules.go_on(before, fence, database.replies))


def _put(database: Database, number: int, after: Reply | None) -> Database | None:
    """The database with this row; if the row counts something, it is counted in the ledger, too. If
    an end hides the reply, the one that it was to replace is shown again."""
    if after is None:
        return None
    before = database.replies[number]
    counted = list(after.used)
    for fence in before.used:
        counted.remove(fence)
    database = database.put(number, after, tuple(counted))
    if before.is_shown and not after.is_shown and after.replaces is not None:
        other = database.replies[after.replaces]
        database = database.put(after.replaces, other._replace(is_shown=True))
    return database


def _by(function: Callable[..., Reply | None]) -> Transaction:
    """The transaction that applies this rule to one row."""

    def commit(database: Database, number: int, *values: object) -> Database | None:
        reply = database.reply(number)
        return reply and _put(database, number, function(reply, *values))

    return commit


def undo(database: Database, fence: int, is_kept: bool) -> Database | None:
    """Undo a claim whose client was told that it failed."""
    number = database.under_way
    if number is None or database.replies[number].fence != fence:
        return None
    reply = database.replies[number]
    if is_kept or reply.replaces is not None or reply.base:
        return _put(database, number, rules.undo(reply, fence))
    return database.put(number, None)


def settle(
    database: Database, number: int, fence: int, believed: Fences, all_used: Fences, is_gone: bool
) -> Database | None:
    """Count the usage of a reply that a person cancelled; or deleted, if its row `is_gone` when
    this begins."""
    reply = database.reply(number)
    if is_gone and database.is_deleted:
        missing = tuple(each for each in all_used if each not in believed)
        return database._replace(ledger=tuple(sorted(database.ledger + missing)))
    if is_gone or reply is None:
        return None
    used = tuple(sorted({*reply.used, *all_used}))
    return _put(database, number, rules.settle(reply, fence, used))


def delete(database: Database) -> Database | None:
    """The usage of a lost writer is estimated, as after a cancel."""
    if database.is_deleted or not database.replies:
        return None
    untold = [-reply.untold for reply in database.replies if reply.untold and reply.lease == LAPSED]
    return Database((), tuple(sorted((*database.ledger, *untold))), is_deleted=True)


TRANSACTIONS: dict[str, Transaction] = {
    "message": begin,
    "retry": retry,
    "continue": go_on,
    "grow": _by(rules.grow),
    "renew": _by(rules.renew),
    "count": _by(rules.count),
    "restart": _by(rules.restart),
    "finish": _by(rules.finish),
    "stop": _by(rules.stop),
    "release": _by(rules.release),
    "take over": _by(rules.take_over),
    "give up": _by(rules.give_up),
    "cancel": _by(rules.cancel),
    "settle": settle,
    "undo": undo,
    "delete": delete,
}


def commit(database: Database, operation: Operation) -> Database | None:
    name, *values = operation
    return TRANSACTIONS[name](database, *values)
