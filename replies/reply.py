"""A reply that this process writes, and the registry of all replies that are known here."""

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from database import Unavailable
from limits import Slot
from logs import log
from models import COMPLETE, FAILED, IN_PROGRESS, INTERRUPTED, Turn, outcome_of
from providers.answer import Answer, Exchange, ignore
from providers.conversation import Continuation, Prompt
from replies import commits
from replies.commits import NewPiece, Stored
from replies.draft import Draft
from replies.fault_isolation import contained
from replies.feed import Feed
from replies.thinking import NewThoughts, Thinking, Thoughts
from tables.search import normalize

SHORTEST_WAIT = 2  # seconds; followers are not told of shorter pauses
# Seconds for which the first characters of a continued answer are held back, if they may repeat the
# text so far.
HOLD = 5
USAGE_INTERVAL = 1  # seconds between two commits of the usage of a reply in progress

# How a reply ends after a bug, and what clients are told if a continued reply made no progress.
BROKEN = outcome_of(FAILED, 500, "The server failed. Ask again.")
NOTHING_MORE = outcome_of(FAILED, 502, "The model has written nothing more.")
NO_WINDOW = outcome_of(
    FAILED, 409, "The reply so far does not fit the model's context window. Start a new message."
)


class Pending(NamedTuple):
    """What the next commit is to store of a reply."""

    reply: "Reply"
    text: str
    is_over: bool  # nothing more arrives, and the reply's draft has all columns of its end
    # A copy of the draft, if the reply is in progress and its usage is to be stored.
    usage_draft: Draft | None
    thoughts: NewThoughts | None = None

    @property
    def final_draft(self) -> Draft | None:
        return self.reply.draft if self.is_over else None

    def note_unanswered(self) -> None:
        """Note that the commit was not answered, so the usage may or may not be counted."""
        if given := self.usage_draft or self.final_draft:
            self.reply.draft.account.maybe_counted = given.account.used

    @property
    def piece(self) -> NewPiece | None:
        """The text as a row of its own. None if there is no text, or if the reply has ended: then
        its turn has all of its text."""
        reply = self.reply
        if not self.text or reply.draft.turn.status != IN_PROGRESS:
            return None
        return NewPiece(reply.id, reply.fence, len(reply.text), self.text)


def store_pending(batch: Sequence[Pending]) -> Callable[[], Stored]:
    """Commit the batch by `commits.store`. If that raises Unavailable, the batch may have been
    committed all the same, so each account notes that its usage may be counted."""
    in_progress = [pending.usage_draft for pending in batch if pending.usage_draft]
    finished = [pending.final_draft for pending in batch if pending.final_draft]
    pieces = [piece for pending in batch if (piece := pending.piece)]
    thoughts = [pending.thoughts for pending in batch if pending.thoughts]
    try:
        return commits.store(
            pieces=pieces, finished=finished, in_progress=in_progress, thoughts=thoughts
        )
    except Unavailable:
        for pending in batch:
            pending.note_unanswered()
        raise


class Reply(Feed):
    """The feed of a reply that this process writes, with its text that is not stored yet, its draft
    and its exchange with the provider."""

    def __init__(
        self,
        draft: Draft,
        stack: contextlib.ExitStack,
        memory: Slot,
        clock: Callable[[], float] = time.monotonic,
        request_id: str | None = None,
        thinking_mode: str = "keep",
    ) -> None:
        """Closing `stack` frees the reply's place among the replies of this process; `memory` is
        the memory reserved for what is sent to the model. `request_id` is for the log.
        `thinking_mode` is the setting THINKING."""
        super().__init__(draft.turn)
        self.draft, self.session = draft, draft.turn.session
        self.memory = memory
        self.stack = stack  # closed when the reply is over
        self.prompt: Prompt | None = None
        self.exchange = Exchange(user=self.session.owner)  # with its provider
        self.exchange.on_thinking = self._think
        self.exchange.on_no_thinking = self._take_thoughts_back
        self.exchange.on_waiting = self._wait
        self.call = self.exchange.call
        self.error: str | None = None  # the error that ended it, for the log
        self.shows_provider_errors = False  # the request came from the server's operator
        self.is_given_up = False  # it could not be stored because of a bug
        self._request_id = request_id
        # If a continuation failed without new text, the row keeps its earlier end. Followers get
        # these columns instead.
        self.failure: dict[str, Any] | None = None
        self._clock = clock
        self.began_at = self.renewed_at = clock()
        self._first_word_after: float | None = None  # seconds
        self._text_before = draft.turn.content  # before the call in progress
        self._next_usage_commit = 0.0  # the time from which its usage may be stored with new text
        # The time from which its usage is stored even without new text. The first word of a reply
        # usually comes before that, and brings a commit anyway.
        self._usage_only_commit_at = self.began_at + USAGE_INTERVAL
        turn = draft.turn
        figures = turn.thinking_characters or 0, turn.thinking_milliseconds or 0
        self.thinking = Thinking(thinking_mode, draft.thoughts, *figures)
        if figures[0]:
            self.update_progress(thinking=self.thinking.tell())
        self._arrived = ""
        self._continuation, self._held_until = Continuation(draft.turn.content), 0.0
        # Another process may go on reading the answer, so it must not be ended.
        self.goes_on_elsewhere = False
        if turn.stream_id is not None:
            self._know_answer(turn.stream_id, turn.stream_start or 0)
        # The values of the row's columns once the reply has ended. None as long as text may arrive;
        # {} while `finish` works them out.
        self._outcome: dict[str, Any] | None = None

    def _know_answer(self, stream_id: str, start: int) -> None:
        """Take the answer that an earlier writer has begun to read, after `start` characters of the
        text. Unless it can be read again, its tokens are estimated, as those of any answer that
        broke off."""
        self.exchange.stream_id, self._text_before = stream_id, self.text[:start]
        size = len(self._text_before.encode())
        answer = Answer(self.exchange, 0, 0, self.draft.turn.unbilled_bytes + size)
        answer.size = len(self.text.encode()) - size

    @property
    def fence(self) -> int:
        return self.draft.fence

    # For its writer

    @property
    def has_all_before_call(self) -> bool:
        """Whether the earlier writer had stored all of the text before its last call."""
        return len(self.text) >= (self.draft.turn.stream_start or 0)

    def attach(self) -> tuple[str, str]:
        """Expect the answer of an earlier writer to be read again. Returns the text before it, and
        what it has added since: these must be dropped from what is read."""
        with self._news:
            self.thinking.start_over()
        self._continuation = Continuation("")
        return self._text_before, self.text[len(self._text_before) :]

    def receive(self, text: str) -> None:
        now = self._clock()
        if self.thinking.is_in_phase:
            self._change_thinking(self.thinking.end_phase, now)
        with self._news:
            if not self._continuation.is_holding:
                self._held_until = now + HOLD
            if self._outcome is None:
                self._arrived += self._continuation.add(text)
        if self._first_word_after is None:
            self._first_word_after = round(now - self.began_at, 4)

    def so_far(self) -> str:
        """All of its text, including what is not stored yet."""
        with self._news:
            return self.text + self._arrived

    def on_call_broken(self) -> None:
        """A call broke off. Have the next commit store its usage, since the next call may take
        long to give its first text."""
        self._next_usage_commit = self._usage_only_commit_at = 0.0

    def expect_next_call(self) -> None:
        """Expect the answer to another call, after one that broke off. Text that is still held back
        is dropped: it seemed to repeat the text so far."""
        self._text_before = self.so_far()
        self._continuation = Continuation(self._text_before)
        with self._news:
            self.thinking.go_on()
        # The usage of the broken call is estimated when the next one begins: store it then.
        self._next_usage_commit = 0.0

    def _think(self, thoughts: str) -> None:
        call = len(self.exchange.answers)
        self._change_thinking(self.thinking.add, thoughts, call, self._clock())

    def _take_thoughts_back(self) -> None:
        self._change_thinking(self.thinking.take_back)

    def _change_thinking(self, change: Callable[..., Thoughts | None], *given: Any) -> None:
        """Call this method of `thinking`, and tell followers what it returns."""
        with self._news:
            is_news = self._tell_thoughts(change(*given))
        if is_news:
            self._wake()

    def _tell_thoughts(self, told: Thoughts | None) -> bool:
        """Set what followers are told of the thinking. The caller holds the lock. If this returns
        True, the caller must release the lock and then call `_wake`."""
        if told is None or told == self.progress.thinking:
            return False
        self._set(progress=self.progress._replace(thinking=told))
        return True

    def _wait(self, seconds: float) -> None:
        if seconds >= SHORTEST_WAIT:
            self.update_progress(waiting=time.monotonic() + seconds)

    @property
    def is_finished(self) -> bool:
        """Whether all columns of its end are known."""
        return bool(self._outcome)

    def finish(self, outcome: dict[str, Any]) -> None:
        """End the reply with this outcome, unless it has one already: the first call decides."""
        # One long method, since text, outcome and usage must be those of the same moment.
        with self._news:
            if self._outcome is not None:
                return
            if outcome["status"] == COMPLETE:
                self._arrived += self._continuation.decide()
            self._outcome, content = {}, self.so_far()
        self._change_thinking(self.thinking.end_phase, self._clock())
        # No text has come since a person continued it. (If a process continued it by itself, base
        # is 0, and it may end without more text.)
        is_as_before = 0 < self.draft.turn.base == len(content)
        no_progress = is_as_before and outcome["status"] != IN_PROGRESS
        if no_progress and outcome["status"] != INTERRUPTED:
            self.failure = _failure_of(outcome)
            self.draft.is_refused = outcome["error_status"] == 400
        if no_progress or (outcome["status"] == FAILED and 0 < len(content) == self.start):
            outcome = self.draft.fallback()
        outcome = outcome | {"search_text": normalize(content)}
        self.goes_on_elsewhere |= outcome["status"] == IN_PROGRESS
        is_kept = outcome["status"] == IN_PROGRESS and self.exchange.stream_id is not None
        self.count_usage(in_progress=is_kept)
        if not is_kept:
            outcome["unbilled_bytes"] = -len(content.encode())
        prompt = self.prompt  # read once: another thread may set it to None
        if prompt and not no_progress:
            outcome["turns_left_out"] = prompt.left_out
            self.draft.context_start = prompt.context_start(
                self.id, content if self.exchange.window_is_full else None
            )
        with self._news:
            if not self.is_given_up:  # another thread may have given it up meanwhile
                self._outcome = outcome

    def give_up(self) -> None:
        """End the reply as failed because of a bug, and drop the text that is not stored."""
        self.is_given_up = True
        self.call.hang_up()
        with contained("could not count what a reply has used"):
            self.count_usage()
        # Elsewhere `normalize` is used, but the bug may be in `normalize`.
        outcome = BROKEN | {"search_text": self.text.casefold()}
        with self._news:
            self._arrived, self._outcome = "", outcome

    # For the keeper

    def pending(self) -> Pending:
        """What the next commit is to store. Nothing is removed: see `show_stored`."""
        usage_draft = None
        now = self._clock()
        with self._news:
            if self._outcome is None:
                if now >= self._held_until and not self._continuation.is_likely:
                    self._arrived += self._continuation.decide()
                usage_draft = self._usage_to_store(now)
            is_over = bool(self._outcome)
            if self._outcome:
                self.draft.has_pieces = bool(self.text)
                content = self.text + self._arrived
                self.draft.set(content=content, lease_until=None, **self._outcome)
                self._set_figures(now)
            thoughts = self.thinking.to_store(self.id, self.fence, now, is_over)
            pending = Pending(self, self._arrived, is_over, usage_draft, thoughts)
            # The latest thoughts may not have been sent yet, because of the interval between
            # events; and if the model pauses or has ended, no others come with which to send them.
            told = self.thinking.remaining() if is_over else self.thinking.news(now)
            is_news = self._tell_thoughts(told)
        if is_news:
            self._wake()
        return pending

    def _set_figures(self, now: float) -> None:
        characters, milliseconds = self.thinking.figures(now)
        self.draft.set(thinking_characters=characters, thinking_milliseconds=milliseconds)

    def thoughts_to_store(self) -> NewThoughts | None:
        """The thoughts that are not stored yet, once nothing more arrives."""
        with self._news:
            return self.thinking.to_store(self.id, self.fence, self._clock(), is_over=True)

    def mark_thoughts_stored(self, thoughts: NewThoughts) -> None:
        with self._news:
            self.thinking.mark_stored(thoughts, self._clock())

    def _usage_to_store(self, now: float) -> Draft | None:
        """A copy of the draft with the usage so far, if that is to be stored now. Some providers
        report usage with each word, and usage alone is not worth a commit each time."""
        is_due = self._arrived or now > self._usage_only_commit_at
        if not (self.exchange.has_used and is_due and now > self._next_usage_commit):
            return None
        self._next_usage_commit = now + USAGE_INTERVAL
        self.exchange.has_used = False
        account, unbilled = self.draft.account, self.draft.turn.unbilled_bytes
        self.count_usage(in_progress=True)
        is_new = account.used != account.counted or self.draft.turn.unbilled_bytes != unbilled
        return self.draft.copy() if is_new else None

    def count_usage(self, in_progress: bool = False) -> None:
        """Set the usage to what all of its calls have used. If the reply is `in_progress`, its last
        call is not over. Two threads may call this at once."""
        account, answers = self.draft.account, list(self.exchange.answers)
        finished = answers[:-1] if in_progress else answers
        is_kept = in_progress and self.exchange.stream_id is not None
        account.add_up(finished if is_kept else answers, finished)
        if in_progress and answers:
            account.note_unbilled(answers[-1], self.so_far(), self._text_before, is_kept)

    def size_to_store(self) -> int:
        """The approximate number of its characters that the next commit stores. The commit of the
        end stores the whole text again, and the text for the search."""
        outcome = self._outcome or {}
        ended = len(self.text) + len(outcome["search_text"]) if "search_text" in outcome else 0
        return len(self._arrived) + ended

    def show_stored(self, text: str) -> None:
        """Show this text, which is committed now: the first part of what has arrived."""
        with self._news:
            self._arrived = self._arrived[len(text) :]
            self._add(text)
        self._wake()

    # After the end

    def let_go(self) -> None:
        """Release what only the writer needed: followers may hold this feed for a long time."""
        self.stack.close()
        self.call.hang_up()
        self.prompt, self._arrived = None, ""
        # Breaks a reference cycle, so that all is freed without a run of the garbage collector.
        self.exchange.on_thinking = self.exchange.on_no_thinking = ignore
        self.exchange.on_waiting = ignore

    @property
    def log_fields(self) -> dict[str, str]:
        """Its session and request, for lines of the log."""
        request = {"id": self._request_id} if self._request_id else {}
        return {"session": str(self.session.id)} | request

    def log(self, turn: Turn | None) -> None:
        """Log one line about it. `turn` is its row as it ended, None if the row was deleted."""
        why = self.error or (turn and turn.error_message)
        line = {
            **self.log_fields,
            "model": self.draft.model,
            "outcome": turn.status if turn else self.state,
            "status": turn and turn.error_status,
            "seconds": round(self._clock() - self.began_at, 4),
            "first_word": self._first_word_after,
            **self.draft.turn.usage,
            **({"why": why} if why else {}),
            "continued": self.draft.turn.continued,
            "provider_id": self.exchange.request_id,
        }
        write = log.warning if why else log.info
        write("reply", line)


def _failure_of(outcome: dict[str, Any]) -> dict[str, Any]:
    """What clients are told if a continued reply made no progress and had this outcome."""
    if outcome["error_status"] is None:
        return NOTHING_MORE
    if outcome["error_status"] == 413:
        return NO_WINDOW
    return outcome


class Registry:
    """The feeds of one process, and which of them are written here. It has only weak references to
    all others: each is freed with its last follower."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_progress: weakref.WeakValueDictionary[int, Feed] = weakref.WeakValueDictionary()
        # The feeds of replies that have ended, by `_state_of` their turns.
        self._ended: weakref.WeakValueDictionary[tuple[Any, ...], Feed] = (
            weakref.WeakValueDictionary()
        )
        self._written: dict[Reply, None] = {}  # an ordered set, the oldest first

    def add(self, reply: Reply) -> None:
        """Add a reply that is written here from now on. If another process wrote it before, and it
        was followed here, its followers keep the feed that they have."""
        with self._lock:
            self._in_progress.setdefault(reply.id, reply)
            self._written[reply] = None

    def share(self, turn: Turn, feed: Feed) -> Feed:
        """The feed that all followers of this turn share. If there is none yet, it is `feed` from
        now on."""
        with self._lock:
            if turn.status == IN_PROGRESS:
                return self._in_progress.setdefault(turn.id, feed)
            return self._ended.setdefault(_state_of(turn), feed)

    def find(self, turn: Turn) -> Feed | None:
        with self._lock:
            if turn.status == IN_PROGRESS:
                return self._in_progress.get(turn.id)
            return self._ended.get(_state_of(turn))

    def remove(self, feed: Feed) -> None:
        """Forget a feed that is over, so that nobody else gets it."""
        with self._lock:
            if self._in_progress.get(feed.id) is feed:  # otherwise another feed is in its place
                del self._in_progress[feed.id]
            if isinstance(feed, Reply):
                self._written.pop(feed, None)

    def is_written(self, reply: Reply) -> bool:
        with self._lock:
            return reply in self._written

    def known(self) -> list[Feed]:
        with self._lock:
            return list(dict.fromkeys([*self._in_progress.values(), *self._written]))

    def written(self) -> list[Reply]:
        with self._lock:
            return list(self._written)


def _state_of(turn: Turn) -> tuple[Any, ...]:
    """A key for the feed of a turn that has ended. A turn may end more than once: a continuation
    changes its fence, and late usage changes its tokens."""
    return turn.id, turn.fence, turn.status, turn.turns_left_out, *turn.usage.values()
