"""What people do: they ask, and send a key again where no answer came; they retry, continue,
cancel, rename and delete, and read."""

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from replies.keeper import LOOK_INTERVAL
from simulate.clients import PATIENCE, Answer, Wish, answer_to, streamed
from simulate.readers import Reader
from simulate.servers import ServerProcess

if TYPE_CHECKING:
    from simulate.world import World

KINDS = ("message", "cancel", "continue", "retry", "delete", "rename", "follow")
PAUSES = (1.0, 0.0, 0.1, 0.3, 3.0, 9.0, 30.0)  # seconds between two acts
TRIES = 4  # of one wish


class Sent:
    """What was sent under one wish, and what came of it."""

    def __init__(self, wish: Wish, began: float) -> None:
        self.wish, self.began = wish, began
        self.answers: list[tuple[ServerProcess, Answer]] = []


class Person:
    """One who acts until nothing more is left to do."""

    def __init__(self, world: "World", acts: int) -> None:
        self.world, self.acts = world, acts
        self.sessions: list[uuid.UUID] = []
        self.sent: list[Sent] = []
        self.readers: list[Reader] = []
        self.is_done = False
        self._kinds = world.chance.some("acts", KINDS) or ["message"]

    def has_asked(self, *kinds: str) -> bool:
        return any(sent.wish.kind in kinds for sent in self.sent)

    def continues_in_a_hurry(self) -> bool:
        """Whether they go on with a reply before its writer may have heard of their cancel."""
        cancelled = [sent.began for sent in self.sent if sent.wish.kind == "cancel"]
        continued = [sent.began for sent in self.sent if sent.wish.kind == "continue"]
        return any(0 <= late - early < LOOK_INTERVAL for late in continued for early in cancelled)

    def act(self) -> None:
        """A task of no process."""
        self._send(Wish("message", content="q0", key=self._key()))
        for number in range(1, self.acts):
            self.world.machine.wait(self.world.chance.pick("person waits", PAUSES, 0.3))
            self._act(number)
        self.is_done = True

    def _act(self, number: int) -> None:
        kind = self.world.chance.pick("person wants", self._kinds, 0.2)
        content = f"q{number}" if kind in ("message", "rename") else None
        is_new = kind == "message" and self.world.chance.choose("in a session", 2, 0.6)
        if is_new or not self.sessions:
            self._send(Wish("message", content=f"q{number}", key=self._key()))
            return
        place = self.world.chance.choose("of session", len(self.sessions), 0.7)
        session_id = self.sessions[-1 - place]
        if kind == "follow":
            self._follow(session_id)
            return
        asks = kind in ("message", "retry", "continue")
        key = self._key() if asks else None
        is_watched = not self.world.chance.choose("streams", 2, 0.7)
        self._send(Wish(kind, session_id, content, key, is_watched))

    def _key(self) -> str | None:
        return f"key {len(self.sent)}" if self.world.chance.choose("has a key", 2, 0.5) else None

    def _send(self, wish: Wish) -> None:
        """With a key, again and again, until the answer tells what has become of it; perhaps once
        more, to be sure."""
        sent = Sent(wish, self.world.machine.now)
        self.sent.append(sent)
        for _ in range(TRIES):
            answer = self._try(sent)
            is_settled = answer.status not in (0, 503)
            again = self.world.chance.choose("sends a key again", 2, 0.85)
            if not wish.key or (is_settled and not again):
                break
            self.world.machine.wait(1)

    def _try(self, sent: Sent) -> Answer:
        process, answer = self.world.any_process("person asks"), Answer()
        machine = self.world.machine
        machine.tell(f"a person sends to {process.name}: {sent.wish.told()}")
        task = machine.spawn(sent.wish.kind, process, answer_to, process, sent.wish, answer)
        machine.wait(PATIENCE, lambda: task.dead or process.is_dead)
        sent.answers.append((process, answer))
        machine.tell(f"a person is told {answer.status}")
        self.world.promises.is_answered(sent, process, answer)
        self._keep(sent.wish, process, answer)
        return answer

    def _keep(self, wish: Wish, process: ServerProcess, answer: Answer) -> None:
        if answer.session_id is None:
            return
        if answer.session_id not in self.sessions:
            self.sessions.append(answer.session_id)
        feed, answer.feed = answer.feed, None
        if feed is None or not wish.is_watched:
            return
        text = feed.text[: answer.start]
        reader = Reader(self.world, answer.session_id, text)
        reader.turn_id = feed.id
        self.readers.append(reader)
        start, made, held = answer.start, answer.made, [feed]
        del feed

        def first_stream() -> Iterator[bytes]:
            return streamed(held.pop(), start, session=made)  # a client does not hold the feed

        self.world.machine.spawn("reader", None, reader.read, process, first_stream)

    def _follow(self, session_id: uuid.UUID) -> None:
        """From the beginning; or somebody who has read to the end comes back, to see whether the
        reply went on."""
        process = self.world.any_process("person follows")
        reader = Reader(self.world, session_id)
        been_here = [each for each in self.readers if each.session_id == session_id]
        known = [each for each in been_here if each.is_over and each.last_id]
        if known and self.world.chance.choose("comes back", 2, 0.5):
            reader.turn_id, reader.text = known[-1].turn_id, known[-1].text
            reader.last_id = known[-1].last_id
        self.readers.append(reader)
        frames = reader.again(process)
        self.world.machine.spawn("reader", None, reader.read, process, frames)
