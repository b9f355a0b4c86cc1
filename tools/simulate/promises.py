"""What must hold, by docs/streams.md: of each step of a row, of what clients see, of what is paid."""

import dataclasses
import itertools
import math
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from model.states import RELEASED
from model.steps import Step, step_of
from replies.rescuer import IDLE_AFTER
from simulate.clients import Answer
from simulate.databases import microseconds
from simulate.eye import Row, Seen
from simulate.people import Sent
from simulate.readers import Reader
from simulate.scripted import TITLED, origin
from simulate.servers import RENEWING, ServerProcess

if TYPE_CHECKING:
    from simulate.world import World

SOON = 0.1  # seconds within which something that has begun ends
LEAVING = 8.0  # seconds, in which a process without faults hands over its replies
SILENCE = 24.9  # seconds for which a writer may be paused: its lease, six checks, minus a renewal


class Promises:
    """The first broken promise is the `problem` of a run."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.problem: str | None = None
        self.steps: set[Step] = set()
        self.seen = Seen({}, {}, {})
        self.shown: dict[int, str] = {}  # the longest text that a client has got, by turn
        self.changes = 0  # of what is stored, except leases
        self.ends = 0  # of replies, as the ledger counts them
        self.ended_at: dict[int, float] = {}
        self.asked_at: dict[int, float] = {}
        self.released_at: dict[int, float] = {}
        self.grants: dict[int, int] = {}  # how often each reply got a writer
        self.latest: dict[str, int] = {}  # the reply of a session that was requested last
        self.renamed: set[str] = set()  # sessions that have a title of their user

    def breaks(self, promise: str) -> None:
        if self.problem is None:
            self.problem = promise
            self.world.machine.tell(f"BROKEN: {promise}")

    # Each step

    def see(self, seen: Seen, fences: set[int]) -> None:
        """What the database has after a commit whose statements have named these fences."""
        before, self.seen = self.seen, seen
        for number in sorted(before.rows.keys() | seen.rows.keys()):
            was, row = before.rows.get(number), seen.rows.get(number)
            if was is row or was == row:
                continue
            self.steps |= steps_between(was, row, fences)
            self.changes += was is None or row is None or has_changed(was, row)
            for problem in self._of_step(was, row):
                self.breaks(problem)
            is_over = was is not None and row is None and was.status != "in_progress"
            if was is not None and is_over and before.owners.get(was.session_id):
                self.breaks("S-22: a reply is gone that was somebody's")
        under_way = [row.session_id for row in seen.rows.values() if row.status == "in_progress"]
        if len(under_way) != len(set(under_way)):
            self.breaks("S-35: two replies of a session are in progress")
        for name, title in seen.titles.items():
            if name.replace("-", "") in self.renamed and title.startswith(TITLED):
                self.breaks("a model's title takes the place of the user's")

    def _of_step(self, was: Row | None, row: Row | None) -> Iterator[str]:
        if row is None:
            assert was is not None
            if was.status == "in_progress" and self.seen.owners.get(was.session_id) == "":
                self.ends += 1  # else its claim is taken back, and it was none
            return
        if row.lease == RELEASED and (was is None or was.lease != RELEASED):
            self.released_at[row.id] = self.world.machine.now
        yield from self._of_state(was, row)
        yield from self._of_text(was, row)

    def _of_state(self, was: Row | None, row: Row) -> Iterator[str]:
        if was is None or (was.status != "in_progress" and row.status == "in_progress"):
            self.grants[row.id] = self.grants.get(row.id, 0) + 1
            self.asked_at[row.id] = self.world.machine.now
            self.latest[row.session_id.replace("-", "")] = row.id
            if row.restarts:
                yield "S-28: what a person asked for has restarts already"
        elif was.status == "in_progress" and row.status != "in_progress":
            self.ends += 1
            self.ended_at[row.id] = self.world.machine.now
            yield from self._of_end(was, row)
        elif was.status != "in_progress":
            if (was.status, was.text) != (row.status, row.text):
                yield "S-17: an end has changed"
        elif was.fence != row.fence:
            self.grants[row.id] += 1
            yield from self._of_takeover(was, row)
        elif row.restarts > was.restarts:
            self.grants[row.id] += 1
            if row.restarts > was.restarts + 1:
                yield "S-28: one break is counted twice"

    def _of_text(self, was: Row | None, row: Row) -> Iterator[str]:
        if row.has_hole:
            yield "S-12: a piece of the text is lacking"
        if was is not None and row.text[: len(was.text)] != was.text:
            yield "S-11: the text has not only grown"
        is_lost = not row.text.startswith(self.shown.get(row.id, ""))
        if is_lost and not self.world.fate.had_failover:
            yield "S-4: text was shown, and is lost"
        if was is None or was.text != row.text:
            if problem := self.world.provider.problem_with(row.text):
                yield f"S-36: {problem}"
            elif was is not None and self._is_of_another(was, row):
                yield "S-36: text is stored of a writer who has lost the reply"
        if row.restarts > self.world.continue_limit:
            yield "S-28: a reply went on by itself too often"

    def _is_of_another(self, was: Row, row: Row) -> bool:
        """Whether some of the new text was sent to a writer that no longer has the reply."""
        calls = self.world.provider.calls
        new = row.text[len(was.text) :]
        return any(calls[origin(letter)[0]].fence != was.fence for letter in new)

    def _is_held(self, row: Row) -> bool:
        """Whether a living process has it, by its lease."""
        writer = self.world.everybody.get(row.writer or "")
        is_held = isinstance(row.lease, int) and row.lease > microseconds(self.world.fate)
        is_held &= not self.world.fate.had_step  # a lease that is too long counts as lapsed
        is_unconfirmed = self.world.is_unconfirmed(row.id)
        return is_held and not is_unconfirmed and writer is not None and not writer.is_dead

    def _of_end(self, was: Row, row: Row) -> Iterator[str]:
        calls = [call for call in self.world.provider.calls if call.turn_id == row.id]
        if row.status == "complete" and row.stop_reason == "stop":
            if not calls or len(row.text) != calls[-1].length:
                yield "S-23: a reply is complete, and not whole"
        home = self.world.machine.home
        is_others = home is not None and home.name != was.writer
        if is_others and not row.is_cancelled and self._is_held(was):
            yield "S-36: a reply is ended by who does not have it"
        is_orphan = is_others and row.status == "interrupted" and not row.is_cancelled
        if is_orphan and was.lease != RELEASED and row.restarts < self.world.continue_limit:
            if not self.world.is_unconfirmed(row.id):
                yield "S-43: a reply is interrupted that may go on"

    def _of_takeover(self, was: Row, row: Row) -> Iterator[str]:
        if row.restarts != was.restarts + (was.lease != RELEASED):
            yield "S-28: a takeover is not counted, or a handing over is"
        taker = self.world.everybody.get(row.writer or "")
        if taker and taker.is_stopping and taker.stopping_at < self.world.machine.now - SOON:
            yield "S-44: a process that stops takes a reply over"
        writer = self.world.everybody.get(was.writer or "")
        if was.lease == RELEASED or writer is None or writer.is_dead:
            return
        if (was.id, was.fence) not in [(each.id, each.fence) for each in writer.written()]:
            return  # it took the reply over, without knowing that
        now, calm = self.world.machine.now, writer.troubled_at
        if writer.is_paused:
            is_early = writer.was_calm and now - writer.paused_at < SILENCE
            is_early &= not self.world.fate.had_step
        else:
            is_early = now > calm + RENEWING
        if is_early and not self.world.fate.may_lose_text:
            yield "S-36: a living writer has lost its reply"

    # What clients see

    def is_latest(self, session_id: uuid.UUID, turn_id: int, before: int | None) -> None:
        """A stream of this reply begins. `before` is the reply that was the latest when it was
        requested."""
        latest = self.latest.get(session_id.hex)
        is_known = latest in self.seen.rows  # else its claim was taken back
        if is_known and turn_id not in (before, latest) and not self.world.fate.had_failover:
            self.breaks("S-26: a stream is not of the latest reply")

    def is_stored(self, turn_id: int, text: str) -> None:
        row = self.seen.rows.get(turn_id)
        if len(text) > len(self.shown.get(turn_id, "")):
            self.shown[turn_id] = text
        is_lost = row is not None and not row.text.startswith(text)
        if is_lost and not self.world.fate.had_failover:
            self.breaks("S-2: a delta is not what is stored, or not yet")

    def is_the_turn(self, turn_id: int, text: str, turn: dict[str, Any]) -> None:
        row = self.seen.rows.get(turn_id)
        if turn["content"] != text and not self.world.fate.may_lose_text:
            self.breaks("S-12: the deltas are not the content of the turn")
        if row is None or self.world.fate.had_failover:
            return
        if row.status == "in_progress":
            if self.grants[turn_id] < 2:
                self.breaks("S-3: an end is sent that is not stored")
        elif (row.status, row.text) != (turn["status"], turn["content"]):
            if row.text[: len(text)] != text:
                self.breaks("S-17: the turn that was sent is not what is stored")
        if row.status != turn["status"] and self.grants[turn_id] < 2:
            self.breaks("S-17: a turn is sent that has ended otherwise")

    def has_ended(self, turn_id: int) -> None:
        row = self.seen.rows.get(turn_id)
        if row is not None and row.status == "in_progress" and self.grants[turn_id] < 2:
            if not self.world.fate.had_failover:
                self.breaks("S-3: an end is sent that is not stored")

    def has_failed(self, session_id: uuid.UUID, turn_id: int, error: dict[str, Any]) -> None:
        if error["status"] == 404:
            self.is_deleted(session_id, "S-22: a stream ends with 404")
        elif error["status"] == 500:
            self.breaks("a stream ends with 500")

    def stands_at_the_end(self, reader: Reader) -> None:
        """The answer was 204: nothing came after what the reader has. After a failover another text
        may have come in its place, and an id has only the length of the text."""
        row = self.seen.rows.get(reader.turn_id or 0)
        if row is None or not reader.text or row.text == reader.text:
            return
        if not self.world.fate.had_failover or len(row.text) != len(reader.text):
            self.breaks("S-24: 204 is answered, and there is more")

    def is_deleted(self, session_id: uuid.UUID, what: str) -> None:
        name = session_id.hex if session_id.hex in self.seen.owners else str(session_id)
        if self.seen.owners.get(name) and not self.world.fate.had_failover:
            self.breaks(f"{what}, and the session is there")

    def is_answered(self, sent: Sent, process: ServerProcess, answer: Answer) -> None:
        if answer.status == 500:
            self.breaks(f"a {sent.wish.kind} is answered with 500")
        if answer.status == 200 and sent.wish.kind == "rename" and not self.world.fate.had_failover:
            self.renamed.add(sent.wish.session_id.hex)
        if answer.status == 200 and sent.wish.kind == "continue" and len(sent.answers) > 1:
            self._has_gone_on(sent, answer)

    def _has_gone_on(self, sent: Sent, answer: Answer) -> None:
        """A request with the same key was answered with the end of its reply: the model has been
        asked for it again since, or it was cancelled before."""
        row = self.seen.rows.get(answer.turn_id or 0)
        if row is None or row.status == "in_progress" or row.is_cancelled:
            return
        calls = [call for call in self.world.provider.calls if call.turn_id == row.id]
        if all(call.began < sent.began for call in calls) and not self.world.fate.had_failover:
            self.breaks("S-39: a key is answered with an end, behind which nothing was asked")

    def is_begun_anew(self, ended_before: float) -> bool:
        """Whether a reply is in progress that had ended before that time."""
        ends = self.ended_at.items()
        old = [number for number, at in ends if at < ended_before and number in self.seen.rows]
        return any(self.seen.rows[number].status == "in_progress" for number in old)

    def forget_text(self) -> None:
        """A failover may have taken back what was shown, for as long as its writer has not stored
        it again; and titles of users."""
        self.shown.clear()
        self.renamed.clear()
        self.seen = self.world.eye.look()

    # As time moves

    def tick(self) -> None:
        """Another process has a reply, or none has it any more: its writer hangs up in time."""
        now = self.world.machine.now
        for call in self.world.provider.calls:
            if not call.is_open or call.turn_id is None:
                continue
            row = self.seen.rows.get(call.turn_id)
            is_its = row is not None and row.status == "in_progress" and row.fence == call.fence
            if is_its:
                call.lost_at = None
                continue
            call.lost_at = now if call.lost_at is None else call.lost_at
            is_asked = row is None or row.is_cancelled  # by a person
            patience = 1.1 if is_asked and not call.home.troubled_at else 5.1
            calm = call.lost_at
            if call.home.troubled_at > calm:
                calm = call.home.troubled_at + RENEWING
            if now > calm + patience:
                number = "S-42" if is_asked else "S-37"
                self.breaks(f"{number}: a model talks on for a reply that is another's, or over")
        for row in self.seen.rows.values():
            if row.status == "in_progress":
                self._is_rescued(row)

    def _is_rescued(self, row: Row) -> None:
        now, troubled_at = self.world.machine.now, self.world.troubled_at
        helpers = [each for each in self.world.processes if each.takes_requests]
        there = min((each.started_at for each in helpers), default=math.inf)
        if row.lease == RELEASED:
            released = self.released_at[row.id]
            may_idle = all(now > each.started_at + IDLE_AFTER for each in helpers)
            patience = 15.1 if may_idle and released < self.asked_at[row.id] + 15 else 2.1
            if now > max(released, troubled_at + RENEWING, there) + patience:
                self.breaks("S-44: nobody takes a reply that was handed over")
            return
        writer = self.world.everybody.get(row.writer or "")
        if writer is None or not writer.is_dead:
            return
        is_left = writer.has_left.get(row.id) == row.fence
        if is_left and (writer.died_at or 0.0) > writer.troubled_at + LEAVING:
            self.breaks("S-44: a process has stopped, and did not hand its reply over")
        if now > max(writer.died_at or 0.0, troubled_at, there) + 30.1:
            self.breaks("S-43: nobody takes a reply over whose writer has died")


def has_changed(was: Row, row: Row) -> bool:
    return was != dataclasses.replace(row, lease=was.lease)


def steps_between(was: Row | None, row: Row | None, fences: set[int]) -> set[Step]:
    """What one commit did to a row: text is stored by a statement of its own, before all else."""
    between = [was, row]
    if was and row and was.status == row.status == "in_progress":
        between = [was, dataclasses.replace(was, text=row.text), row]
    steps = {step_of(*pair, fences) for pair in itertools.pairwise(between)}
    return {step for step in steps if not step.is_nothing}
