"""The life of a reply: claimed once, written down as it arrives, ended once, followed by anybody.

    claim ─► reply ◄─ arrive ─ writer ◄─ texts of the provider
               │ take
             keeper ─► commits ─► the database; a rescuer looks for orphans
               │ tell
             feed ─► followers

A reply is written by a thread of its own. What the model says is committed by the keeper of the
process, one commit for all that has arrived meanwhile, and only then shown. All who follow a reply
read its feed, whether the reply is written in this process or in another; then the keeper polls the
database. The keepers of all processes take over the replies whose processes have died, or have
handed them over (`orphans`). A bug costs the reply that it is in, and no other (`contained`).
"""

import contextlib
import time
import uuid
from collections.abc import Callable
from typing import Any

from database import Unavailable
from limits import REPLIES, TEXTS, TITLES, Bulkhead, CachedThreads, Overloaded, Slot, memory_of
from llm import Catalog
from logs import log
from models import FAILED, IN_PROGRESS, INTERRUPTED, Session, Turn, outcome_of
from replies import commits, titles
from replies.claim import ReplyRequest
from replies.commits import Orphan, cancel
from replies.doubt import DoubtfulClaim
from replies.feed import COPIES, SLICE, Feed, Told
from replies.keeper import Keeper
from replies.keeping import KeeperThread
from replies.registry import Registry
from replies.reply import Reply
from replies.writer import Writer
from wire import Call

__all__ = ["SLICE", "Feed", "Replies", "ReplyRequest", "Told", "cancel"]

FIRST_WORDS = 0.05  # seconds in which the first words are sent before more is read
HANDING_OVER = 3  # seconds in which what is handed over is stored


class Replies:
    """The replies of one process, of models in the catalog. Its keeper is started where the process
    begins to serve."""

    def __init__(
        self,
        catalog: Catalog,
        settings: dict[str, Any],
        clock: Callable[[], float] = time.monotonic,
        threads: CachedThreads | None = None,
    ) -> None:
        """Time is that of the clock, and what takes long is started on the threads."""
        self.catalog = catalog
        self.max_tokens, self.title_model = settings["MAX_TOKENS"], settings["TITLE_MODEL"]
        self.continue_limit = settings["CONTINUE_LIMIT"]
        self.thinking_mode = settings["THINKING"]
        self.bulkhead, self.memory = Bulkhead(REPLIES), Bulkhead(TEXTS)
        self._titles, self._threads = Bulkhead(TITLES), threads or CachedThreads()
        self._title_calls: set[Call] = set()  # that are under way
        self._clock = clock
        self.registry = Registry()
        self.keeper = Keeper(self.registry, self.continue_limit, self._take_over, clock)
        self._keeping = KeeperThread(self.keeper)
        self._hands_over = False  # at once, what is begun here from now on

    # What a request asks for

    def start(self, request: ReplyRequest, watched: bool, memory: Slot) -> tuple[Session, Feed]:
        """Claim the reply that is asked for, and begin to write it; where an idempotency key has
        had its reply already, that one's session and feed are returned. Raises Refused or
        Overloaded, and then nothing has changed. The request's slot of the `memory` is the reply's
        from here on."""
        self.start_keeper()
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.closing(memory))
            stack.enter_context(self.bulkhead.slot(request.owner))
            texts = [request.content, request.new.get("system")] if request.new else []
            # A continuation has a text from the beginning, for which its request has taken room.
            needed = memory.amount if request.goes_on else COPIES * memory_of(texts)
            if needed > memory.amount and not memory.take(needed):
                raise Overloaded
            claimed = request.claim(self._doubt)
            memory.take(needed)  # the request had more
            turn = claimed.draft.turn
            if not claimed.is_new:
                return turn.session, self.follow(turn, watched)
            reply = Reply(
                claimed.draft,
                stack.pop_all(),
                memory,
                self._clock,
                request.request_id,
                self.thinking_mode,
            )
        reply.watched, reply.tells_reasons = watched, request.tells_reasons
        first = request.content if claimed.begins_session else None
        self.begin(reply, first)
        if first is not None and self.title_model:
            self._start(self._write_title, reply, first[: titles.PROMPT_CHARACTERS])
        return turn.session, reply

    def follow(self, turn: Turn, watched: bool = False) -> Feed:
        """The feed of this turn. `watched`: its text is read as it comes, so it is stored as soon
        as it arrives."""
        feed = Feed(turn)
        feed.slot = Slot(self.memory, turn.session.owner)
        feed = self.registry.share(turn, feed)
        if turn.status == IN_PROGRESS:
            self.start_keeper()
            if watched:
                feed.watched = True
            self._keeping.wake()
        return feed

    def follow_latest(self, session_id: uuid.UUID, make_room: Callable[[int], None]) -> Feed:
        """The feed of the latest reply of a session, to read its text as it comes. If this process
        does not have the text already, `make_room` is called with its bytes before it is read."""
        state = Turn.latest_state(session_id)
        feed = self.registry.find(state)
        if feed is None:
            make_room(state.size)
            turn = Turn.read(state.id)
            if turn is None:  # its claim was undone meanwhile, or all is gone
                return self.follow_latest(session_id, make_room)
            return self.follow(turn, watched=True)
        feed.watched = True
        self._keeping.wake()
        return feed

    def poll(self) -> None:
        """Look at once at what has become of the replies: this process has cancelled one, or
        deleted it."""
        self.keeper.poll_soon()
        self._keeping.wake()

    # The process

    def start_keeper(self) -> None:
        """Start the keeper, where it does not run. Raises Overloaded where the system gives no
        thread."""
        self._keeping.start()

    def stop(self, grace: float) -> None:
        """Let the replies under way end for `grace` seconds, hand over those written here, and wait
        until these are stored."""
        self.stop_taking_over()
        self._wait_for_all(grace)
        self._hands_over = True  # before the look: what is begun behind it sees that
        for reply in self.registry.written():
            self._hand_over(reply)
        self._keeping.wake()
        for call in self._title_calls.copy():
            call.hang_up()
        # Another process writes these: their followers come back there.
        for feed in self._wait_for_all(HANDING_OVER):
            feed.tell(over="detached")
        with self._titles.changed:  # what titles have used is counted
            self._titles.changed.wait_for(lambda: not self._titles.users.total(), HANDING_OVER)

    def _hand_over(self, reply: Reply) -> None:
        try:
            reply.finish(outcome_of(IN_PROGRESS if self.continue_limit else INTERRUPTED))
        except Exception as error:  # a bug of this one costs no other its hand-over
            log.error("a reply is not handed over", reply.names, exc_info=error)
            reply.give_up()

    def stop_taking_over(self) -> None:
        self.keeper.stopping = True

    def are_over(self) -> bool:
        """Whether none is under way here."""
        return not self._wait_for_all(0)

    def _wait_for_all(self, seconds: float) -> list[Feed]:
        """Wait for all replies, those that begin meanwhile among them; returns the feeds of those
        that are not over."""
        deadline = time.monotonic() + seconds
        while True:
            feeds = [feed for feed in self.registry.known() if not feed.over]
            if not feeds or time.monotonic() >= deadline:
                return feeds
            feeds[0].wait(deadline - time.monotonic())

    # What its threads do

    def begin(self, reply: Reply, first: str | None = None) -> None:
        """Begin to write a reply that this process has claimed, or taken over. `first` is the
        message of a new session."""
        self.registry.add(reply)
        writer = Writer(reply, self.catalog, self.max_tokens, self.continue_limit, first)
        is_begun = self._start(self._write, writer)
        if not is_begun:
            reply.finish(outcome_of(FAILED, 503, Overloaded().description))
        if self._hands_over:
            self._hand_over(reply)
        if self.keeper.is_idle or not is_begun:  # else the keeper comes round anyway
            self._keeping.wake()

    def _write(self, writer: Writer) -> None:
        reply, is_first = writer.reply, True
        try:
            while writer.step():
                # Else the keeper's next round is soon enough, and the end may come before.
                if reply.watched:
                    self._keeping.wake()
                    if is_first:  # the first words are on their way before this thread reads on
                        reply.begun.wait(FIRST_WORDS)
                is_first = False
        except Exception as error:
            log.error("a reply failed", reply.names, exc_info=error)
            if not reply.is_finished:
                reply.give_up()
        finally:
            self._keeping.wake()

    def _take_over(self, orphan: Orphan, fence: int) -> bool:
        """Write an orphaned reply on, with this fence; returns False where there is no room for it
        here, or another process was faster."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self.bulkhead.slot(orphan.owner))
            except Overloaded:
                return False
            memory = stack.enter_context(contextlib.closing(Slot(self.memory, orphan.owner)))
            limit = self.continue_limit
            draft = commits.take_over(orphan.turn_id, orphan.lease, limit, fence)
            if draft is None:
                return False
            mode = self.thinking_mode
            self.begin(Reply(draft, stack.pop_all(), memory, self._clock, None, mode))
            return True

    def _write_title(self, reply: Reply, message: str) -> None:
        """Where there is no room for it, or the database does not answer, the title stays that was
        written from the message."""
        model, call = self.title_model, Call(titles.TIMEOUT)
        try:
            with self._titles.slot(reply.session.owner):
                self._title_calls.add(call)
                if self._hands_over:
                    call.hang_up()
                provider = self.catalog.provider_of(model)
                titles.ask_for_title(reply, provider, model, message, call)
        except (Overloaded, Unavailable):
            pass
        except Exception as error:
            log.error("a title failed", reply.names, exc_info=error)
        finally:
            self._title_calls.discard(call)

    def _doubt(self, claim: DoubtfulClaim) -> None:
        self.keeper.doubt(claim)
        self._keeping.wake()

    def _start(self, function: Callable[..., None], *arguments: Any) -> bool:
        """Have a thread do this; returns whether the system gives one."""
        try:
            self._threads.start(function, *arguments)
            return True
        except RuntimeError as error:
            log.error("%s", error)
            return False
