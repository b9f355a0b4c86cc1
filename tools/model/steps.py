"""What a step does to a row, and whether its statement named the row's fence, in a form in which
the steps of the model and of the product can be compared.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple, Protocol

from model.rules import RULES
from model.states import (
    COMPLETE,
    CUT_BY_LENGTH,
    FAILED,
    IN_PROGRESS,
    INTERRUPTED,
    LAPSED,
    LIVE,
    NONE,
    RELEASED,
    Database,
    Text,
)

NOTHING, GONE = "nothing", "gone"
SAME, MORE, NEW, OTHER = "same", "more", "new", "other"


class Step(NamedTuple):
    """A step of one row: its status before and after, and what happens to its columns."""

    before: str  # its status, or NOTHING
    after: str  # its status, or GONE
    text: str = SAME  # or MORE, if the old text is its beginning; or OTHER
    fence: str = SAME  # or NEW, or NONE
    lease: str = SAME  # or NEW, RELEASED, NONE
    use: str = SAME  # or MORE, or OTHER
    restarts: str = SAME  # or MORE, by one; NEW, from 0 on; or OTHER
    was_cancelled: bool = False
    is_cancelled: bool = False
    was_shown: bool = False
    is_shown: bool = False
    was_released: bool = False  # that of the row before, which only its writer and its readers know
    # Whether the statement named the fence of the row before, which only its writer knows, or a
    # process that has read it.
    names_fence: bool = False

    @property
    def is_nothing(self) -> bool:
        """Whether it is no step: the row is as it was."""
        return self == Step(
            self.before,
            self.before,
            was_cancelled=self.was_cancelled,
            is_cancelled=self.was_cancelled,
            was_shown=self.was_shown,
            is_shown=self.was_shown,
            names_fence=self.names_fence,
        )


class Row(Protocol):
    """A row, of the model or of a database. Its fence is 0 if it has none. Its lease is RELEASED,
    NONE, or a value to compare. `use` grows with what is counted."""

    @property
    def status(self) -> str: ...
    @property
    def fence(self) -> int: ...
    @property
    def lease(self) -> str | int: ...
    @property
    def restarts(self) -> int: ...
    @property
    def is_cancelled(self) -> bool: ...
    @property
    def is_shown(self) -> bool: ...
    @property
    def use(self) -> int: ...
    @property
    def text(self) -> str | Text: ...


def lease_of(stored: int | None) -> str | int:
    """A stored lease, as a row has it here."""
    return NONE if stored is None else stored or RELEASED


def steps_of(rows: Iterable[tuple[Database, Database]]) -> set[Step]:
    """All steps of rows in these steps of the database. Whether a step names the fence follows from
    the condition of its rule."""
    found = {step for pair in rows for step in _steps(*pair) if not step.is_nothing}
    return {step._replace(names_fence=named) for step in found for named in _names_fence(step)}


def _names_fence(step: Step) -> set[bool]:
    """Both values if two rules look alike. None of them shows again a reply that another one had
    replaced."""
    rules = [RULES[name] for name, is_its in KINDS.items() if is_its(step)]
    return {"fence" in rule.condition for rule in rules} or {False}


def _steps(before: Database, after: Database) -> Iterator[Step]:
    for number in range(max(len(before.replies), len(after.replies))):
        yield step_of(before.reply(number), after.reply(number))


def step_of(was: Row | None, row: Row | None, fences: Collection[int] = ()) -> Step:
    """`fences` are those that its statement named."""
    if row is None:
        assert was is not None
        return Step(_status(was), GONE, names_fence=was.fence in fences)
    if was is None:
        lease = NEW if row.lease == LIVE or isinstance(row.lease, int) else SAME
        fence = NEW if row.fence else SAME
        return Step(NOTHING, _status(row), fence=fence, lease=lease, is_shown=row.is_shown)
    return Step(
        _status(was),
        _status(row),
        text=_text(was.text, row.text),
        fence=SAME if was.fence == row.fence else NEW if row.fence else NONE,
        lease=_lease(was, row),
        use=SAME if was.use == row.use else MORE if row.use > was.use else OTHER,
        restarts=_restarts(was.restarts, row.restarts),
        was_cancelled=was.is_cancelled,
        is_cancelled=row.is_cancelled,
        was_shown=was.is_shown,
        is_shown=row.is_shown,
        was_released=was.lease == RELEASED and was.fence != row.fence,
        names_fence=was.fence in fences,
    )


def _status(row: Row) -> str:
    """The status as a row has it."""
    return COMPLETE if row.status == CUT_BY_LENGTH else row.status


def _text(was: str | Text, text: str | Text) -> str:
    if text == was:
        return SAME
    return MORE if text[: len(was)] == was else OTHER


def _restarts(was: int, restarts: int) -> str:
    if was == restarts:
        return SAME
    return {0: NEW, was + 1: MORE}.get(restarts, OTHER)


def _lease(was: Row, row: Row) -> str:
    """A lease that lapses is no step: only time has passed. A process that takes a reply over has a
    new lease."""
    if row.lease in (NONE, RELEASED):
        return SAME if was.lease == row.lease else str(row.lease)
    is_same = was.lease == row.lease and was.fence == row.fence
    return SAME if is_same or row.lease == LAPSED else NEW


# Which steps a rule may have taken, as far as a row shows it: `give_up` and `stop` look alike, and
# `undo` looks like a cancel or a deletion.
KINDS: dict[str, Callable[[Step], bool]] = {
    "claim": lambda step: step.before == NOTHING,
    "grow": lambda step: _goes_on(step) and step.text == MORE,
    "renew": lambda step: _goes_on(step) and step.lease == NEW and step.fence == SAME,
    "count": lambda step: _goes_on(step) and step.use == MORE and step.fence == SAME,
    "restart": lambda step: _goes_on(step) and step.restarts == MORE and step.fence == SAME,
    "finish": lambda step: step.before == IN_PROGRESS and step.after in (COMPLETE, FAILED),
    "release": lambda step: step.lease == RELEASED,
    "take_over": lambda step: _goes_on(step) and step.fence == NEW,
    "give_up": lambda step: _is_interrupted(step) and not step.is_cancelled,
    "stop": lambda step: _is_interrupted(step) and not step.is_cancelled,
    "cancel": lambda step: step.before == IN_PROGRESS and step.is_cancelled,
    "settle": lambda step: step.before == step.after != IN_PROGRESS and step.fence == NONE,
    "go_on": lambda step: step.before not in (IN_PROGRESS, NOTHING) and step.after == IN_PROGRESS,
    "undo": lambda step: step.before == IN_PROGRESS and step.after in (GONE, INTERRUPTED),
    "hide": lambda step: step.before == step.after and step.was_shown and not step.is_shown,
    "delete": lambda step: step.after == GONE,
}


def _goes_on(step: Step) -> bool:
    return step.before == step.after == IN_PROGRESS


def _is_interrupted(step: Step) -> bool:
    return step.before == IN_PROGRESS and step.after == INTERRUPTED
