"""The state at one moment: the database, the processes, and what people have been shown."""

from typing import Any, NamedTuple, Self

# The states of a reply. One that is complete by length may be continued.
IN_PROGRESS, COMPLETE, CUT_BY_LENGTH = "in_progress", "complete", "complete by length"
FAILED, INTERRUPTED = "failed", "interrupted"
HANDED_OVER = "handed over"  # how a process that stops leaves it, which is no status
# The lease of its writer. While it is LIVE, no process looks at it.
LIVE, LAPSED, RELEASED, NONE = "live", "lapsed", "released", "none"
# The modes of a process.
RUNS, STOPPING, PAUSED, DEAD = "runs", "stopping", "paused", "dead"

Word = tuple[int, int]  # its place in the reply, and the fence of its writer
Text = tuple[Word, ...]
Piece = tuple[int, Text]  # words before it, and those that it has
# Of writers whose usage is counted, sorted. A negative fence means that the usage was estimated.
Fences = tuple[int, ...]
Operation = tuple[Any, ...]  # the name of a transaction, and its arguments


class Reply(NamedTuple):
    """A row. Its text is in pieces while it is in progress, and in its content afterwards."""

    status: str
    fence: int  # 0: its writer has reported everything
    lease: str
    pieces: tuple[Piece, ...] = ()
    content: Text = ()
    used: Fences = ()
    untold: int = 0  # the fence of a writer whose usage is not counted
    restarts: int = 0  # how often it was resumed automatically
    base: int = 0  # words that it had when a person continued it
    before: str = ""  # its state then
    is_cancelled: bool = False
    is_shown: bool = True
    replaces: int | None = None  # the number of the reply that it replaces on the page

    @property
    def use(self) -> int:
        """How much of its usage is counted."""
        return len(self.used)

    @property
    def text(self) -> Text:
        """The text for a reader: the pieces in the order of their starts, whatever these are."""
        if self.status != IN_PROGRESS:
            return self.content
        return tuple(word for _, words in self.pieces for word in words)


class Database(NamedTuple):
    """One session: its replies, the oldest first, and what the ledger has counted."""

    replies: tuple[Reply, ...] = ()
    ledger: Fences = ()
    is_deleted: bool = False

    @property
    def under_way(self) -> int | None:
        """The number of the reply that is in progress."""
        for number, reply in enumerate(self.replies):
            if reply.status == IN_PROGRESS:
                return number
        return None

    def reply(self, number: int) -> Reply | None:
        """The reply with this number, or None if it is gone."""
        return self.replies[number] if number < len(self.replies) else None

    def written_by(self, draft: "Draft") -> Reply | None:
        """The row that the writer with this draft still writes, or None if another process writes
        it, or it has ended or is gone."""
        reply = self.reply(draft.number)
        is_its = reply and reply.status == IN_PROGRESS and reply.fence == draft.fence
        return reply if is_its else None

    def put(self, number: int, reply: Reply | None, counted: Fences = ()) -> Self:
        """With this reply in place of the one that was there, and these fences counted, too."""
        replies = list(self.replies)
        if reply is None:
            del replies[number]
        else:
            replies[number] = reply
        ledger = tuple(sorted(self.ledger + counted))
        return self._replace(replies=tuple(replies), ledger=ledger)


class Draft(NamedTuple):
    """What a process that writes a reply knows of it."""

    number: int
    fence: int
    known: Text  # that it believes to be stored
    arrived: Text = ()  # after that
    began: int = 0  # words that there were at the last call of the provider
    outcome: str | None = None  # how it ends, once nothing more arrives
    used: Fences = ()  # those that it believes to be counted
    maybe_counted: Fences = ()  # those that may be counted, by a commit whose answer did not come
    carried: Fences = ()  # those of earlier writers, whose usage it has estimated
    base: int = 0
    before: str = ""
    is_fresh: bool = True  # its lease has not lapsed, as far as it knows

    @classmethod
    def of(cls, number: int, row: Reply, fence: int, carried: Fences = ()) -> Self:
        """The draft of a writer that begins with a row as it is."""
        return cls(
            number,
            fence,
            known=row.text,
            began=len(row.text),
            used=row.used,
            carried=carried,
            base=row.base,
            before=row.before,
        )

    @property
    def text(self) -> Text:
        return self.known + self.arrived

    @property
    def all_used(self) -> Fences:
        """What is counted when it has reported everything."""
        return tuple(sorted({*self.used, *self.carried, self.fence}))


class Claim(NamedTuple):
    """A claim that was given up, and may be committed all the same."""

    fence: int
    is_kept: bool  # anything but a new message without a key: its reply is interrupted, not deleted


class Process(NamedTuple):
    mode: str = RUNS
    draft: Draft | None = None
    ended: Draft | None = None  # as it ended here, which a failover may take back
    claim: Claim | None = None
    checks: int = 0  # of the lease of the other process's reply, without a change
    is_cut: bool = False  # its connection broke: it has to read what is stored


class State(NamedTuple):
    database: Database
    processes: tuple[Process, ...]
    shown: tuple[Text, ...] = ()  # for each reply, the longest text that was shown
    late: Operation | None = None  # a transaction that was given up, and may come through
    past: tuple[Database, ...] = ()  # as it was before, which a failover may bring back
    has_failed_over: bool = False  # to a database that lacked the last commits
    was_stepped: bool = False  # the clock, so that a lease lapsed though its writer renews it
    fences: int = 0  # how many have been given
    acts: int = 0  # that people may still do
    faults: int = 0  # that may still come

    def sorted(self) -> Self:
        """Processes have no names: exchanging two of them does not make another state."""
        return self._replace(processes=tuple(sorted(self.processes, key=hash)))
