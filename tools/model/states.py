"""What there is at one moment: the database, the processes, and what people have been shown."""

from typing import Any, NamedTuple, Self

# How a reply stands. What is complete by length may be continued.
IN_PROGRESS, COMPLETE, CUT_BY_LENGTH = "in_progress", "complete", "complete by length"
FAILED, INTERRUPTED = "failed", "interrupted"
HANDED_OVER = "handed over"  # how a process that stops leaves it, which is no status
# The lease of its writer. Where it is LIVE, nobody looks for the writer.
LIVE, LAPSED, RELEASED, NONE = "live", "lapsed", "released", "none"
# Processes.
RUNS, STOPPING, PAUSED, DEAD = "runs", "stopping", "paused", "dead"

Word = tuple[int, int]  # its place in the reply, and the fence of its writer
Text = tuple[Word, ...]
Piece = tuple[int, Text]  # words before it, and those that it has
# Of writers whose use is counted, sorted; minus the fence where it was estimated.
Fences = tuple[int, ...]
Operation = tuple[Any, ...]  # the name of a transaction, and what it is given


class Reply(NamedTuple):
    """A row. Its text stands in pieces while it is in progress, and in its content afterwards."""

    status: str
    fence: int  # 0: its writer has said all
    lease: str
    pieces: tuple[Piece, ...] = ()
    content: Text = ()
    used: Fences = ()
    untold: int = 0  # the fence of a writer whose use is not counted
    restarts: int = 0  # how often it went on by itself
    base: int = 0  # words that it had when a person had it continued
    before: str = ""  # how it stood then
    is_cancelled: bool = False
    is_shown: bool = True
    replaces: int | None = None  # the number of the reply that it is shown in place of

    @property
    def use(self) -> int:
        """How much of it is counted."""
        return len(self.used)

    @property
    def text(self) -> Text:
        """As a reader gets it: the pieces in the order of their starts, whatever these are."""
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
        """That of this number, or None where it is gone."""
        return self.replies[number] if number < len(self.replies) else None

    def written_by(self, draft: "Draft") -> Reply | None:
        """The row that the writer with this draft still writes, or None where it is another's, has
        ended or is gone."""
        reply = self.reply(draft.number)
        is_its = reply and reply.status == IN_PROGRESS and reply.fence == draft.fence
        return reply if is_its else None

    def put(self, number: int, reply: Reply | None, counted: Fences = ()) -> Self:
        """With this reply in place of the one that was there, and these counted besides."""
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
    arrived: Text = ()  # behind that
    began: int = 0  # words that there were when the provider was asked last
    outcome: str | None = None  # how it ends, once nothing more arrives
    used: Fences = ()  # that it believes to be counted
    offered: Fences = ()  # that may be, by a commit whose answer did not come
    carried: Fences = ()  # of writers before it, which it has estimated
    base: int = 0
    before: str = ""
    is_fresh: bool = True  # its lease has not lapsed, as far as it knows

    @classmethod
    def of(cls, number: int, row: Reply, fence: int, carried: Fences = ()) -> Self:
        """That of a writer who begins with a row as it is."""
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
        """What is counted when it has said all."""
        return tuple(sorted({*self.used, *self.carried, self.fence}))


class Claim(NamedTuple):
    """One that was given up, and may be committed all the same."""

    fence: int
    is_kept: bool  # it is no new message without a key: what it has is interrupted, not deleted


class Process(NamedTuple):
    mode: str = RUNS
    draft: Draft | None = None
    ended: Draft | None = None  # as it ended here, which a failover may take back
    claim: Claim | None = None
    looks: int = 0  # at the reply of another, as it stands
    is_cut: bool = False  # its connection broke: it has to see what is stored


class State(NamedTuple):
    database: Database
    processes: tuple[Process, ...]
    shown: tuple[Text, ...] = ()  # of each reply, the longest that anybody was shown
    late: Operation | None = None  # a transaction that was given up, and may come through
    past: tuple[Database, ...] = ()  # as it was before, which a failover may bring back
    has_failed_over: bool = False  # to a database that lacked the last commits
    was_stepped: bool = False  # the clock, so that a lease lapsed though its writer is heard
    fences: int = 0  # how many there were
    acts: int = 0  # that people may do
    faults: int = 0  # that may befall it

    def sorted(self) -> Self:
        """Processes have no names: which of them is which makes no other state."""
        return self._replace(processes=tuple(sorted(self.processes, key=hash)))
