"""What people do: they send messages, and repeat a request with its key if no answer came; they
retry, continue, cancel, rename, delete and read; and another user tries to reach what is theirs.
"""

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from replies.rescuer import CHECK_INTERVAL
from simulate.clients import OTHER, PATIENCE, Answer, Wish, answer_to, streamed
from simulate.readers import Reader
from simulate.servers import ServerProcess

if TYPE_CHECKING:
    from simulate.world import World

KINDS = ("message", "cancel", "continue", "retry", "delete", "rename", "follow", "pry")
PRYING = ("message", "cancel", "continue", "retry", "delete", "rename", "list", "key")
PAUSES = (1.0, 0.0, 0.1, 0.3, 3.0, 9.0, 30.0)  # seconds between two acts
TRIES = 4  # of one wish


class Sent:
    """What was sent for one wish, and the answers."""

    def __init__(self, wish: Wish, began: float) -> None:
        self.wish, self.began = wish, began
        self.answers: list[tuple[ServerProcess, Answer]] = []


class Person:
    """A user who acts until nothing more is left to do."""

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
        """Whether they continue a reply before its writer may know that they cancelled it."""
        cancelled = [sent.began for sent in self.sent if sent.wish.kind == "cancel"]
        continued = [sent.began for sent in self.sent if sent.wish.kind == "continue"]
        return any(0 <= late - early < CHECK_INTERVAL for late in continued for early in cancelled)

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
        if kind == "pry":
            self._pry(session_id)
            return
        asks = kind in ("message", "retry", "continue")
        key = self._key() if asks else None
        is_watched = not self.world.chance.choose("streams", 2, 0.7)
        self._send(Wish(kind, session_id, content, key, is_watched))

    def _key(self) -> str | None:
        return f"key {len(self.sent)}" if self.world.chance.choose("has a key", 2, 0.5) else None

    def _send(self, wish: Wish) -> None:
        """With a key, send it again and again until an answer says what has become of it; perhaps
        once more, to be sure."""
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

    def _pry(self, session_id: uuid.UUID) -> None:
        """Another user names this session, or sends the same request with the same key."""
        kind = self.world.chance.pick("pries", PRYING, 0.1)
        wish = Wish(kind, session_id, "pried", is_watched=False, owner=OTHER)
        if kind == "key":
            keys = [sent.wish for sent in self.sent if sent.wish.key and not sent.wish.session_id]
            if not keys:
                return
            wish = Wish("message", None, keys[-1].content, keys[-1].key, False, OTHER)
        process, answer = self.world.any_process("somebody else asks"), Answer()
        machine = self.world.machine
        machine.tell(f"somebody else sends to {process.name}: {wish.told()}")
        task = machine.spawn(wish.kind, process, answer_to, process, wish, answer)
        machine.wait(PATIENCE, lambda: task.dead or process.is_dead)
        answer.feed = None
        named = wish.session_id if kind != "list" else None
        seen = [answer.session_id, *answer.listed]
        if (named and answer.status not in (0, 404, 503)) or any(
            each in seen for each in self.sessions
        ):
            self.world.promises.breaks(f"S-38: a {kind} of another's is answered: {answer.status}")

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
            return streamed(held.pop(), start, session=made)  # a client does not keep the feed

        self.world.machine.spawn("reader", None, reader.read, process, first_stream)

    def _follow(self, session_id: uuid.UUID) -> None:
        """Read from the beginning; or resume after the end, to see whether the reply was continued."""
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
