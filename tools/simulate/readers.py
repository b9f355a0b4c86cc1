"""Clients that follow a reply, as docs/streams.md says that they must: a client resumes with its
last id after any frame, at any process.
"""

import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from database import Unavailable, limit_time
from limits import Overloaded
from models import Refused
from simulate.clients import Event, follow, read_events
from simulate.servers import ServerProcess

if TYPE_CHECKING:
    from simulate.world import World

Frames = Callable[[], Iterator[bytes] | None]

FIRST_WAIT, LONGEST_WAIT = 0.25, 10.0  # seconds
SILENCE = 40  # seconds, after which a client hangs up


class Stream:
    """The result of one request for a stream."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        self.events: list[Event] = []
        self.status: int | None = None  # once it is answered
        self.is_over = self.is_left = False  # by the server, and by the client

    def serve(self, open_frames: Frames) -> None:
        """A task of the process."""
        limit_time()
        try:
            frames = open_frames()
            self.status = 200 if frames else 204
            for batch in frames or ():
                self.events += read_events(batch)
                if self.is_left:
                    break
        except Refused as error:
            self.status = error.status
        except (Unavailable, Overloaded):
            self.status = 503
        except Exception as error:
            self.process.machine.tell(f"a bug: {type(error).__name__}: {error}")
            self.status = 500
        finally:
            self.is_over = True

    @property
    def has_ended(self) -> bool:
        return self.is_over or self.process.is_dead

    def has_news(self) -> bool:
        return bool(self.events) or self.has_ended


class Reader:
    """A client that reads one reply, and follows later ones in its session."""

    def __init__(self, world: "World", session_id: uuid.UUID, text: str = "") -> None:
        self.world, self.session_id = world, session_id
        self.turn_id: int | None = None
        self.text = text
        self.last_id: str | None = None
        self.is_over = False
        self._wait = FIRST_WAIT

    def read(self, process: ServerProcess, open_frames: Frames) -> None:
        """A task of no process: from this first stream on, until it has seen an end."""
        while not self.is_over:
            stream = Stream(process)
            self.world.machine.spawn("stream", process, stream.serve, open_frames)
            self._take(stream)
            stream.is_left = True
            del stream
            if self.is_over:
                break
            self.world.machine.wait(self._wait)
            self._wait = min(2 * self._wait, LONGEST_WAIT)
            process = self.world.any_process("reader comes back to")
            open_frames = self.again(process)

    def again(self, process: ServerProcess) -> Frames:
        """Resume after what it has."""
        session_id, last_id = self.session_id, self.last_id
        if last_id is None:
            self.text = ""  # the reply comes from its beginning
        promises = self.world.promises

        def open_frames() -> Iterator[bytes] | None:
            before = promises.latest.get(session_id.hex)
            return follow(
                process,
                session_id,
                last_id,
                lambda turn_id: promises.is_latest(session_id, turn_id, before),
            )

        return open_frames

    def _take(self, stream: Stream) -> None:
        """Read this stream, until it ends, is cut, or is silent for too long."""
        while self.world.machine.wait(SILENCE, stream.has_news):
            while stream.events:
                self._see(stream.events.pop(0))
                if self.is_over:
                    return
                if self.world.chance.choose("a stream is cut", 2, 0.93):
                    return
            if stream.has_ended and not stream.events:
                self._see_status(stream.status)
                return

    def _see_status(self, status: int | None) -> None:
        if status == 500:
            self.world.promises.breaks("a stream is answered with 500")
        elif status == 204:
            self.world.promises.stands_at_the_end(self)
            self.is_over = True
        elif status == 404:
            self.world.promises.is_deleted(self.session_id, "a stream is refused with 404")
            self.is_over = True

    def _see(self, event: Event) -> None:
        self._wait = FIRST_WAIT
        turn_id = int(event.id.split("-")[0])
        if self.turn_id not in (None, turn_id):
            self.text = ""  # another reply was requested meanwhile
        self.turn_id, self.last_id = turn_id, event.id
        promises = self.world.promises
        if event.name == "content_delta":
            self.text += event.data["delta"]
            promises.is_stored(turn_id, self.text)
        elif event.name == "assistant_turn":
            promises.is_the_turn(turn_id, self.text, event.data)
        elif event.name == "done":
            promises.has_ended(turn_id)
            self.is_over = True
        elif event.name == "error":
            promises.has_failed(self.session_id, turn_id, event.data)
            self.is_over = True
        if self.is_over:
            self.world.machine.tell(f"a reader has {event.name} of {turn_id % 10_000}")
