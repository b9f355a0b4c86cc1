"""The table of a reply's states: from what to what, by whom, under which condition.

Each rule is a function of a row. It returns the row after it, or None if the condition does not
hold. `RULES` has them by name, with the words of the table in docs/streams.md.
"""

from collections.abc import Callable
from typing import NamedTuple

from model.states import (
    COMPLETE,
    CUT_BY_LENGTH,
    IN_PROGRESS,
    INTERRUPTED,
    LAPSED,
    LIVE,
    NONE,
    RELEASED,
    Fences,
    Piece,
    Reply,
    Text,
)


class Rule(NamedTuple):
    before: str
    after: str
    who: str
    condition: str


RULES: dict[str, Rule] = {}


def rule(before: str, after: str, who: str, condition: str) -> Callable[..., Callable[..., Reply]]:
    """A decorator: the function is the rule with these words."""

    def remember(function: Callable[..., Reply]) -> Callable[..., Reply]:
        RULES[function.__name__] = Rule(before, after, who, condition)
        return function

    return remember


WRITER, SAME_FENCE = "the keeper of the writer", "the stored fence is still the writer's"
SAME_USE = "the stored token count is the one that the writer expects"


def is_its(reply: Reply, fence: int) -> bool:
    return reply.status == IN_PROGRESS and reply.fence == fence


@rule(
    "(nothing)",
    "`in_progress`, with a fence and a lease",
    "a request, when it claims the session",
    "the session belongs to the user who asks, and none of its replies is in progress",
)
def claim(others: tuple[Reply, ...], fence: int, replaces: int | None = None) -> Reply | None:
    if any(other.status == IN_PROGRESS for other in others):
        return None
    return Reply(IN_PROGRESS, fence, LIVE, untold=fence, replaces=replaces)


@rule(
    "`in_progress`",
    "the same, with more text",
    WRITER,
    f"{SAME_FENCE}, and no piece of text is stored at that position yet",
)
def grow(reply: Reply, fence: int, piece: Piece) -> Reply | None:
    start, _ = piece
    if not is_its(reply, fence) or any(start == other for other, _ in reply.pieces):
        return None
    return reply._replace(pieces=tuple(sorted((*reply.pieces, piece))))


@rule("`in_progress`", "the same, with a new lease", WRITER, SAME_FENCE)
def renew(reply: Reply, fence: int) -> Reply | None:
    return reply._replace(lease=LIVE) if is_its(reply, fence) else None


@rule("`in_progress`", "the same, with more usage", WRITER, f"{SAME_FENCE}, and {SAME_USE}")
def count(reply: Reply, fence: int, believed: Fences, used: Fences) -> Reply | None:
    if not is_its(reply, fence) or reply.used != believed:
        return None
    return reply._replace(used=used, untold=0)


@rule(
    "`in_progress`",
    "the same, continued after a provider failure",
    "the writer",
    f"{SAME_FENCE}, the limit is not reached, and the failure may be temporary",
)
def restart(reply: Reply, fence: int, limit: int) -> Reply | None:
    if not is_its(reply, fence) or reply.restarts >= limit:
        return None
    return reply._replace(restarts=reply.restarts + 1)


def ended(reply: Reply, status: str, text: Text, used: Fences) -> Reply:
    """True of every end: the reply that this one was to replace is shown again, unless this one is
    complete."""
    is_shown = status in (COMPLETE, CUT_BY_LENGTH) or reply.replaces is None
    return reply._replace(
        status=status, lease=NONE, pieces=(), content=text, used=used, untold=0, is_shown=is_shown
    )


@rule("`in_progress`", "`complete`, `failed`", WRITER, f"{SAME_FENCE}, and {SAME_USE}")
def finish(
    reply: Reply, fence: int, status: str, text: Text, believed: Fences, used: Fences
) -> Reply | None:
    if not is_its(reply, fence) or reply.used != believed:
        return None
    return ended(reply, status, text, used)


@rule(
    "`in_progress`",
    "the same, with the lease 0: released",
    "the keeper of the writer, if its process is shutting down",
    f"{SAME_FENCE}, {SAME_USE}, and `CONTINUE_LIMIT` is not 0",
)
def release(reply: Reply, fence: int, believed: Fences, used: Fences) -> Reply | None:
    if not is_its(reply, fence) or reply.used != believed:
        return None
    return reply._replace(lease=RELEASED, used=used, untold=0)


@rule(
    "`in_progress`",
    "the same, with a new fence: taken over",
    "the keeper of any process that is not shutting down and has room",
    "the reply's lease is the one that this process last read, and one of these is true: (1) the "
    "lease is 0; (2) the limit is not reached, and the lease was found expired at seven checks or "
    "the writer is known to be dead",
)
def take_over(reply: Reply, lease: str, fence: int, limit: int) -> Reply | None:
    restarts = reply.restarts + (lease != RELEASED)
    if reply.status != IN_PROGRESS or reply.lease != lease or restarts > limit:
        return None
    return reply._replace(fence=fence, lease=LIVE, restarts=restarts)


@rule(
    "`in_progress`",
    "`interrupted`",
    "the keeper of any process",
    "the reply's fence and lease are those that this process last read, and one of these is true: "
    "(1) the limit is reached, and the lease was found expired at seven checks or the writer is "
    "known to be dead; (2) no process had room at nine checks (27 if the reply was released)",
)
def give_up(reply: Reply, fence: int, lease: str) -> Reply | None:
    if not is_its(reply, fence) or reply.lease != lease:
        return None
    return ended(reply, *_fallback(reply), estimated(reply))


@rule(
    "`in_progress`",
    "`interrupted`, because the writer's process is shutting down",
    WRITER,
    f"{SAME_FENCE}, {SAME_USE}, and `CONTINUE_LIMIT` is 0",
)
def stop(reply: Reply, fence: int, text: Text, believed: Fences, used: Fences) -> Reply | None:
    return finish(reply, fence, INTERRUPTED, text, believed, used)


@rule(
    "`in_progress`",
    "`interrupted`, cancelled",
    "a request of the owner, in any process",
    "the reply's fence has not changed since the request read the reply; otherwise the request "
    "reads the reply again",
)
def cancel(reply: Reply, fence: int) -> Reply | None:
    """If the writer is lost, its usage is estimated; otherwise the writer will report it."""
    if not is_its(reply, fence):
        return None
    is_lost = reply.lease == LAPSED
    over = ended(reply, *_fallback(reply), estimated(reply) if is_lost else reply.used)
    return over._replace(is_cancelled=True, untold=0 if is_lost else reply.untold)


@rule(
    "`interrupted`, cancelled",
    "the same, with its usage",
    WRITER,
    f"{SAME_FENCE} (this step removes the fence), the writer has renewed the lease within 20 "
    "seconds, and the cancel request has not estimated the usage itself",
)
def settle(reply: Reply, fence: int, used: Fences) -> Reply | None:
    if not reply.is_cancelled or reply.fence != fence or -fence in reply.used:
        return None
    return reply._replace(fence=0, used=used, untold=0)


@rule(
    "`interrupted`; `failed`; or `complete`, if the stop reason is `length`",
    "`in_progress`, with a new fence",
    "a request of the owner: a `continue`",
    "the reply is the last turn that the session shows, the reply has text, and no reply of the "
    "session is in progress",
)
def go_on(reply: Reply, fence: int, others: tuple[Reply, ...]) -> Reply | None:
    is_busy = any(other.status == IN_PROGRESS for other in others)
    if is_busy or reply.status == COMPLETE or not reply.is_shown or not reply.text:
        return None
    return Reply(
        IN_PROGRESS,
        fence,
        LIVE,
        pieces=((0, reply.text),),
        content=reply.content,
        used=estimated(reply) if reply.is_cancelled else reply.used,
        untold=fence,
        base=len(reply.text),
        before=reply.status,
    )


@rule(
    "`in_progress`",
    "deleted; or `interrupted`, if the request had an idempotency key, or was a `retry` or a "
    "`continue`",
    "the keeper of the process that claimed the session",
    "the stored fence is still that of the claim, and the client was told that the claim had failed",
)
def undo(reply: Reply, fence: int) -> Reply | None:
    """No model was asked, so nothing is counted."""
    if not is_its(reply, fence):
        return None
    return ended(reply, *_fallback(reply), reply.used)


@rule(
    "a reply that is shown",
    "the same, hidden",
    "a request of the owner: a `retry`, when it claims the session",
    "the reply is the last turn that the session shows, and no reply of the session is in progress. "
    "If the `retry` had no `content`, the hidden reply is shown again if the new reply ends without "
    "being `complete`",
)
def hide(reply: Reply) -> Reply | None:
    return reply._replace(is_shown=False) if reply.is_shown else None


@rule(
    "any",
    "deleted",
    "a request of the owner that deletes the session; `flask forget`; retention, if no reply of the "
    "session is in progress",
    "",
)
def delete(reply: Reply) -> None:
    """Its row goes; the ledger keeps what it has counted."""


def estimated(reply: Reply) -> Fences:
    """What is counted once the usage of its writer, which is gone, is estimated: minus its fence."""
    return tuple(sorted({*reply.used, *[-reply.untold] * bool(reply.untold)}))


def _fallback(reply: Reply) -> tuple[str, Text]:
    """How it ends if nothing more comes: as it did before, if nothing has come since it was
    continued."""
    no_progress = reply.base and reply.base == len(reply.text)
    return (reply.before if no_progress else INTERRUPTED), reply.text
