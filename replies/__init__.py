"""The life of a reply: it is claimed once, stored as it arrives, and ended once. Any number of
clients may follow it.

    claim ─► reply ◄─ receive ─ writer ◄─ texts of the provider
               │ pending
             keeper ─► commits ─► the database
               │  └─► rescuer: leases, and the replies of processes that died
               │ update
             feed ─► followers

Each reply is written by a thread of its own. The keeper, one thread of each process, commits the
new text of all its replies together, and only then shows it (thoughts are shown before they are
stored). All followers of a reply read its feed. If another process writes the reply, the keeper
polls the database for it. The keepers of all processes take over replies whose processes have died
or have handed them over (`rescuer`). Each reply has an `account` of the tokens that it has used and
of those that the ledger has counted. A bug in one reply makes only that reply fail
(`fault_isolation`).
"""

import contextlib
import time
import uuid
from collections.abc import Callable
from typing import Any

from database import Unavailable
from limits import REPLIES, TEXTS, TITLES, Bulkhead, CachedThreads, Overloaded, Slot, memory_of
from llm import Catalog, UnknownModel
from logs import log
from models import FAILED, IN_PROGRESS, INTERRUPTED, Session, Turn, outcome_of
from providers.base import HTTPProvider
from replies import commits, titles
from replies.claim import ReplyRequest, UnconfirmedClaim
from replies.commits import Orphan, cancel
from replies.feed import SLICE, Feed, Progress
from replies.keeper import Keeper, KeeperThread
from replies.reply import Registry, Reply
from replies.writer import Writer
from wire import Call

__all__ = ["SLICE", "Feed", "Progress", "Replies", "ReplyRequest", "cancel"]

FIRST_TEXT_TIMEOUT = 0.05  # a writer waits at most this many seconds for its first text to be sent
HANDOVER_TIMEOUT = 3  # `stop` waits at most this many seconds for the hand-overs to be stored


class Replies:
    """The replies of one process. Models from the catalog write them. The keeper is started later,
    when the process begins to serve."""

    def __init__(
        self,
        catalog: Catalog,
        settings: dict[str, Any],
        clock: Callable[[], float] = time.monotonic,
        threads: CachedThreads | None = None,
    ) -> None:
        """Replies and titles are written by `threads`; leases and polls are timed by `clock`."""
        self.catalog = catalog
        self.max_tokens, self.title_model = settings["MAX_TOKENS"], settings["TITLE_MODEL"]
        self.continue_limit = settings["CONTINUE_LIMIT"]
        self.thinking_mode = settings["THINKING"]
        self.reply_bulkhead, self.memory_bulkhead = Bulkhead(REPLIES), Bulkhead(TEXTS)
        self._title_bulkhead, self._threads = Bulkhead(TITLES), threads or CachedThreads()
        self._title_calls: set[Call] = set()  # in progress
        self._clock = clock
        self.registry = Registry()
        self.keeper = Keeper(
            self.registry, self.continue_limit, self._take_over, self._end_answer, clock
        )
        self._keeper_thread = KeeperThread(self.keeper)
        self._hands_over = False  # if so, a reply that begins is handed over at once
        self._has_asked_names = False  # of the model servers

    # For requests

    def start(self, request: ReplyRequest, watched: bool, memory: Slot) -> tuple[Session, Feed]:
        """Claim a reply and begin to write it. If the request's idempotency key has a reply
        already, no reply is claimed. Returns the session and feed of the reply. Raises Refused or
        Overloaded, and then nothing has changed. `memory` is the memory reserved for the request;
        from here on it belongs to the reply."""
        self.start_keeper()
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.closing(memory))
            stack.enter_context(self.reply_bulkhead.slot(request.owner))
            texts = [request.content, request.new.get("system")] if request.new else []
            # A continuation has a text from the start; its request has reserved memory for it.
            needed = memory.amount if request.continues_last else memory_of(texts)
            if needed > memory.amount and not memory.take(needed):
                raise Overloaded
            claimed = request.claim(self._undo_if_committed)
            memory.take(needed)  # may be less than the request had
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
        reply.watched, reply.shows_provider_errors = watched, request.shows_provider_errors
        first = claimed.first_message
        self.start_writing(reply, first)
        if first is not None and self.title_model and first.content.strip():
            message = first.content[: titles.PROMPT_CHARACTERS]
            self._run_in_thread(self._write_title, reply, message)
        return turn.session, reply

    def follow(self, turn: Turn, watched: bool = False) -> Feed:
        """The feed of this turn. If it is `watched`, a client waits for each word, so the keeper
        stores text as soon as it arrives."""
        feed = Feed(turn)
        feed.slot = Slot(self.memory_bulkhead, turn.session.owner)
        feed = self.registry.share(turn, feed)
        if turn.status == IN_PROGRESS:
            self.start_keeper()
            if watched:
                feed.watched = True
            self._keeper_thread.wake()
        return feed

    def follow_latest(self, session_id: uuid.UUID, make_room: Callable[[int], float]) -> Feed:
        """The feed of a session's latest reply, watched. If this process does not have its text
        yet, `make_room` is called with the size of the text, in bytes, before the text is read."""
        state = Turn.latest_state(session_id)
        feed = self.registry.find(state)
        if feed is None:
            make_room(state.size)
            turn = Turn.read(state.id)
            if turn is None:  # its claim was undone meanwhile, or its session was deleted
                return self.follow_latest(session_id, make_room)
            return self.follow(turn, watched=True)
        feed.watched = True
        self._keeper_thread.wake()
        return feed

    def on_ended(self, turn: Turn | None) -> None:
        """Do what follows after a request of this process has cancelled or deleted this reply. The
        keeper polls at once, so that the reply's writer learns of it soon. The writer may be dead,
        so if the model's server keeps the answer, it is ended from here."""
        self.keeper.poll_soon()
        self._keeper_thread.wake()
        if turn is not None:
            self._end_answer(turn)

    def _end_answer(self, turn: Turn) -> None:
        """End the answer to the last call of a reply that has ended."""
        if turn.ended_stream is not None:
            self._run_in_thread(self._end_stream, turn)

    def _end_stream(self, turn: Turn) -> None:
        with contextlib.suppress(UnknownModel):
            provider = self.catalog.provider_of(str(turn.model))
            if isinstance(provider, HTTPProvider):
                provider.end_stream(str(turn.ended_stream))

    # The process

    def start_keeper(self) -> None:
        """Start the keeper if it does not run. Raises Overloaded if no thread can be started."""
        self._keeper_thread.start()
        if not self._has_asked_names:
            self._has_asked_names = True
            for provider in self.catalog.providers.values():
                if isinstance(provider, HTTPProvider):
                    self._run_in_thread(provider.ask_for_name)

    def stop(self) -> None:
        """Hand over the replies that are written here, and wait until that is stored."""
        self.stop_taking_over()
        # Set before the replies are listed: one that begins after that hands itself over.
        self._hands_over = True
        for reply in self.registry.written():
            self._hand_over(reply)
        self._keeper_thread.wake()
        for call in self._title_calls.copy():
            call.hang_up()
        until = time.monotonic() + HANDOVER_TIMEOUT
        # Other processes will write the rest; their followers can resume there.
        for feed in self._wait_for_all(HANDOVER_TIMEOUT):
            feed.update(state="detached")
        # A call for a title counts its usage last, so we wait until all such calls have ended.
        with self._title_bulkhead.changed:
            left = until - time.monotonic()
            self._title_bulkhead.changed.wait_for(
                lambda: not self._title_bulkhead.users.total(), left
            )

    def _hand_over(self, reply: Reply) -> None:
        try:
            reply.finish(outcome_of(IN_PROGRESS if self.continue_limit else INTERRUPTED))
        except Exception as error:  # a bug: the other replies are handed over all the same
            log.error("could not hand over a reply", reply.log_fields, exc_info=error)
            reply.give_up()

    def stop_taking_over(self) -> None:
        self.keeper.stopping = True

    def are_over(self) -> bool:
        """Whether no reply that is known here is in progress."""
        return not self._wait_for_all(0)

    def _wait_for_all(self, seconds: float) -> list[Feed]:
        """Wait until all replies are over, also those that begin meanwhile. Returns the feeds of
        those that are not over."""
        deadline = time.monotonic() + seconds
        while True:
            feeds = [feed for feed in self.registry.known() if feed.state is None]
            if not feeds or time.monotonic() >= deadline:
                return feeds
            feeds[0].wait(deadline - time.monotonic())

    # Threads

    def start_writing(self, reply: Reply, first_message: Turn | None = None) -> None:
        """Begin to write a reply that this process has claimed or taken over. `first_message` is
        the message of a new session."""
        self.registry.add(reply)
        writer = Writer(reply, self.catalog, self.max_tokens, self.continue_limit, first_message)
        is_begun = self._run_in_thread(self._write, writer)
        if not is_begun:
            reply.finish(outcome_of(FAILED, 503, Overloaded().description))
        if self._hands_over:
            self._hand_over(reply)
        if self.keeper.is_idle or not is_begun:  # otherwise the next round comes soon anyway
            self._keeper_thread.wake()

    def _write(self, writer: Writer) -> None:
        reply, is_first = writer.reply, True
        try:
            while writer.step():
                # If nobody watches it, the next round is soon enough.
                if reply.watched:
                    self._keeper_thread.wake()
                    if is_first:  # send the first text before this thread reads on
                        reply.first_text_sent.wait(FIRST_TEXT_TIMEOUT)
                is_first = False
        except Exception as error:
            log.error("a reply failed", reply.log_fields, exc_info=error)
            if not reply.is_finished:
                reply.give_up()
        finally:
            self._keeper_thread.wake()
            writer.close()

    def _take_over(self, orphan: Orphan, fence: int) -> bool:
        """Take over an orphan with this fence, and begin to write it. Returns False if there is no
        room for it here, or if another process was faster."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self.reply_bulkhead.slot(orphan.owner))
            except Overloaded:
                return False
            memory = stack.enter_context(
                contextlib.closing(Slot(self.memory_bulkhead, orphan.owner))
            )
            draft = commits.take_over(orphan.turn_id, orphan.lease, self.continue_limit, fence)
            if draft is None:
                return False
            places = stack.pop_all()
            reply = Reply(draft, places, memory, self._clock, thinking_mode=self.thinking_mode)
            self.start_writing(reply)
            return True

    def _write_title(self, reply: Reply, message: str) -> None:
        """Ask the title model for a title. If there is no room for the call, or the database does
        not answer, the session keeps the title that was made from the message."""
        model, call = self.title_model, Call(titles.TIMEOUT)
        try:
            with self._title_bulkhead.slot(reply.session.owner):
                self._title_calls.add(call)
                if self._hands_over:
                    call.hang_up()
                provider = self.catalog.provider_of(model)
                titles.ask_for_title(reply, provider, model, message, call)
        except (Overloaded, Unavailable):
            pass
        except Exception as error:
            log.error("a title failed", reply.log_fields, exc_info=error)
        finally:
            self._title_calls.discard(call)

    def _undo_if_committed(self, claim: UnconfirmedClaim) -> None:
        self.keeper.undo_if_committed(claim)
        self._keeper_thread.wake()

    def _run_in_thread(self, function: Callable[..., None], *arguments: Any) -> bool:
        """Call the function in a thread. Returns False if no thread can be started."""
        try:
            self._threads.start(function, *arguments)
            return True
        except RuntimeError as error:
            log.error("%s", error)
            return False
