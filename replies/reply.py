"""A reply that is written in this process."""

import contextlib
import time
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
from replies.contained import contained
from replies.draft import Draft, Tokens
from replies.feed import Feed
from replies.thinking import NewThoughts, Thinking, Thoughts
from tables.ledger import MOST_TOKENS, SAID, estimate
from tables.search import normalize

SHORTEST_WAIT = 2  # seconds that followers are told of
# Seconds for which the first few characters of what goes on are held back, where they may be a
# repetition.
HOLD = 5
COUNT_INTERVAL = 1  # seconds from one time that usage is stored to the next

# What is told of a reply that a bug is in the way of, and of one that was continued in vain.
BROKEN = outcome_of(FAILED, 500, "The server failed. Ask again.")
NOTHING_MORE = outcome_of(FAILED, 502, "The model has written nothing more.")
NO_WINDOW = outcome_of(
    FAILED, 409, "The reply so far does not fit the model's context window. Start a new message."
)


def count_usage(
    draft: Draft, before: Tokens, answers: Sequence[Answer], over: Sequence[Answer]
) -> None:
    """Set the tokens of a draft to those `before`, and what these answers used: what a provider
    said of them, and what it did not, estimated, of those that are `over`. They are no less than
    what is counted already, whatever a provider takes back."""
    for name in SAID:
        said = [answer.usage[name] for answer in answers if name in answer.usage]
        if said:
            count = min((before[name] or 0) + sum(said), MOST_TOKENS)
            draft.set(**{name: max(count, draft.counted[name] or 0)})
    estimated = sum(estimate(sum(answer.uncounted())) for answer in over)
    count = min((before["estimated_tokens"] or 0) + estimated, MOST_TOKENS)
    draft.set(estimated_tokens=max(count, draft.counted["estimated_tokens"] or 0))


class Taken(NamedTuple):
    """What has arrived of a reply and is not stored yet."""

    reply: "Reply"
    text: str
    is_over: bool  # nothing more arrives: its draft is the turn as it ends
    used: Draft | None  # of one that goes on, where it has used more than is stored
    thoughts: NewThoughts | None = None  # that are to be stored

    @property
    def ended(self) -> Draft | None:
        return self.reply.draft if self.is_over else None

    def offer(self) -> None:
        """It is not known whether what it has used is counted now."""
        if given := self.used or self.ended:
            self.reply.draft.offered = given.turn.usage

    @property
    def piece(self) -> NewPiece | None:
        """The text as it is stored, where its end does not have it."""
        reply = self.reply
        if not self.text or reply.draft.turn.status != IN_PROGRESS:
            return None
        return NewPiece(reply.id, reply.fence, len(reply.text), self.text)


def store_taken(batch: Sequence[Taken]) -> Callable[[], Stored]:
    """Commit these in one transaction, as `commits.store` does. Where that raises Unavailable, it
    may be committed all the same, and what the replies have used may be counted."""
    used = [taken.used for taken in batch if taken.used]
    ended = [taken.ended for taken in batch if taken.ended]
    pieces = [taken.piece for taken in batch if taken.piece]
    thoughts = [taken.thoughts for taken in batch if taken.thoughts]
    try:
        return commits.store(pieces=pieces, over=ended, used=used, thoughts=thoughts)
    except Unavailable:
        for taken in batch:
            taken.offer()
        raise


class Reply(Feed):
    """A feed that is written here: what has arrived for it and is not stored yet, and its call."""

    def __init__(
        self,
        draft: Draft,
        stack: contextlib.ExitStack,
        memory: Slot,
        clock: Callable[[], float] = time.monotonic,
        request_id: str | None = None,
        thinking_mode: str = "keep",
    ) -> None:
        """`request_id` is that of the request that has asked for it, for the log, and
        `thinking_mode` the setting THINKING."""
        super().__init__(draft.turn)
        self.draft, self.session = draft, draft.turn.session
        self.memory = memory  # room for what the model is sent; it is left with all else
        self.stack = stack  # its place in this process is, when it is over
        self.prompt: Prompt | None = None  # what the model is sent
        self.exchange = Exchange()  # with its provider
        self.exchange.on_thinking = self._think
        self.exchange.on_no_thinking = self._take_thoughts_back
        self.exchange.on_waiting = self._wait
        self.call = self.exchange.call
        self.error: str | None = None  # by which it ended, for the log
        self.tells_reasons = False  # it was requested by the person who runs the server
        self.is_given_up = False  # a bug has kept it from being stored
        self._request_id = request_id
        # How an attempt to go on failed that changed nothing: the columns that a client is told.
        self.failure: dict[str, Any] | None = None
        self._clock = clock
        self.asked_at = self.renewed_at = clock()
        self._first_word_after: float | None = None  # seconds
        self._used_before = draft.turn.usage  # by processes before this one
        self._text_before = draft.turn.content  # before the call under way
        self._next_count = 0.0  # when what it has used may be stored again
        turn = draft.turn
        figures = turn.thinking_characters or 0, turn.thinking_milliseconds or 0
        self.thinking = Thinking(thinking_mode, draft.thoughts, *figures)
        if figures[0]:
            self.note(thinking=self.thinking.told())
        self._arrived = ""
        self._continuation, self._held_until = Continuation(draft.turn.content), 0.0
        # Columns of the turn as it ends, once nothing more arrives; {} until they are known.
        self._outcome: dict[str, Any] | None = None

    @property
    def fence(self) -> int:
        return self.draft.fence

    # What arrives

    def arrive(self, text: str) -> None:
        now = self._clock()
        if self.thinking.is_going_on:
            self._end_thinking(now)
        with self._news:
            if not self._continuation.is_holding:
                self._held_until = now + HOLD
            if self._outcome is None:
                self._arrived += self._continuation.add(text)
        if self._first_word_after is None:
            self._first_word_after = round(now - self.asked_at, 4)

    def so_far(self) -> str:
        """Its text with all that has arrived."""
        with self._news:
            return self.text + self._arrived

    def go_on(self) -> None:
        """Its provider is asked to go on behind a break. What is held back was about to be
        repeated."""
        self._text_before = self.so_far()
        self._continuation = Continuation(self._text_before)
        self._next_count = 0.0  # what the broken call has used is stored with what comes next

    def _think(self, thoughts: str) -> None:
        with self._news:
            call = len(self.exchange.answers)
            is_news = self._tell_thoughts(self.thinking.add(thoughts, call, self._clock()))
        if is_news:
            self._wake()

    def _end_thinking(self, now: float) -> None:
        with self._news:
            is_news = self._tell_thoughts(self.thinking.end_phase(now))
        if is_news:
            self._wake()

    def _take_thoughts_back(self) -> None:
        with self._news:
            is_news = self._tell_thoughts(self.thinking.take_back())
        if is_news:
            self._wake()

    def _tell_thoughts(self, told: Thoughts | None) -> bool:
        """For the holder of the lock, who wakes the followers afterwards if this returns True."""
        if told is None or told == self.told.thinking:
            return False
        self._set(told=self.told._replace(thinking=told))
        return True

    def _wait(self, seconds: float) -> None:
        if seconds >= SHORTEST_WAIT:
            self.note(waiting=time.monotonic() + seconds)

    @property
    def is_finished(self) -> bool:
        """Whether it is known how it ends."""
        return bool(self._outcome)

    def finish(self, outcome: dict[str, Any]) -> None:
        """Nothing more arrives: the first to say so decides how it ends."""
        # Whole, though it decides much: text, outcome and usage must be of one moment.
        with self._news:
            if self._outcome is not None:
                return
            if outcome["status"] == COMPLETE:
                self._arrived += self._continuation.decide()
            self._outcome, content = {}, self.so_far()
        self._end_thinking(self._clock())
        has_nothing_new = self.draft.base > 0 and self.draft.base == len(content)
        in_vain = has_nothing_new and outcome["status"] != IN_PROGRESS
        if in_vain and outcome["status"] != INTERRUPTED:
            self.failure = _told_of_in_vain(outcome)
            self.draft.is_refused = outcome["error_status"] == 400
        if in_vain or (outcome["status"] == FAILED and 0 < len(content) == self.start):
            outcome = self.draft.fallback()  # nothing has come that was not there before
        outcome = outcome | {"search_text": normalize(content), "uncounted": -len(content.encode())}
        self.take_usage()
        prompt = self.prompt  # another thread may let go of it
        if prompt and not in_vain:
            outcome["turns_left_out"] = prompt.left_out
            self.draft.trim = prompt.trim(
                self.id, content if self.exchange.window_is_full else None
            )
        with self._news:
            if not self.is_given_up:  # meanwhile
                self._outcome = outcome

    def give_up(self) -> None:
        """A bug is in the way of it: what is not stored is dropped, and it ends as failed."""
        self.is_given_up = True
        self.call.hang_up()
        with contained("what a reply has used is not counted"):
            self.take_usage()
        # Not normalized, as any other text is: the bug may be there.
        outcome = BROKEN | {"search_text": self.text.casefold()}
        with self._news:
            self._arrived, self._outcome = "", outcome

    # What is stored

    def take(self) -> Taken:
        used = None
        now = self._clock()
        with self._news:
            if self._outcome is None:
                if now >= self._held_until and not self._continuation.is_likely:
                    self._arrived += self._continuation.decide()
                used = self._take_used(now)
            is_over = bool(self._outcome)
            if self._outcome:
                self.draft.has_pieces = bool(self.text)
                content = self.text + self._arrived
                self.draft.set(content=content, lease_until=None, **self._outcome)
                self._set_figures(now)
            thoughts = self.thinking.to_store(self.id, self.fence, now, is_over)
            taken = Taken(self, self._arrived, is_over, used, thoughts)
            # The model may have paused, or has ended.
            told = self.thinking.rest() if is_over else self.thinking.news(now)
            is_news = self._tell_thoughts(told)
        if is_news:
            self._wake()
        return taken

    def _set_figures(self, now: float) -> None:
        characters, milliseconds = self.thinking.figures(now)
        self.draft.set(thinking_characters=characters, thinking_milliseconds=milliseconds)

    def thoughts_to_store(self) -> NewThoughts | None:
        """What is not stored yet of its thinking, which is over."""
        with self._news:
            return self.thinking.to_store(self.id, self.fence, self._clock(), is_over=True)

    def thoughts_stored(self, thoughts: NewThoughts) -> None:
        with self._news:
            self.thinking.stored(thoughts, self._clock())

    def _take_used(self, now: float) -> Draft | None:
        """What a reply that goes on has used, where it is to be stored: no commit is made for it
        alone at first, and some providers count with each word."""
        is_due = self._arrived or now > self.asked_at + COUNT_INTERVAL
        if not (self.exchange.has_used and is_due and now > self._next_count):
            return None
        self._next_count = now + COUNT_INTERVAL
        self.exchange.has_used = False
        turn, stored = self.draft.turn, (self.draft.counted, self.draft.turn.uncounted)
        self.take_usage(goes_on=True)
        if (turn.usage, turn.uncounted) == stored:
            return None
        copy = Draft.of(turn)  # another thread may go on with the first
        copy.counted = self.draft.counted
        return copy

    def take_usage(self, goes_on: bool = False) -> None:
        """Count what all calls have used, those of processes before this one among them. Two
        threads may do so at any time. Where it goes on, the last call is not over: `uncounted` is
        for the process that has to estimate it when this one has died."""
        answers = list(self.exchange.answers)
        over = answers[:-1] if goes_on else answers
        count_usage(self.draft, self._used_before, answers, over)
        if goes_on and answers:
            is_counted = "output_tokens" in answers[-1].usage
            counted = self.so_far() if is_counted else self._text_before
            self.draft.set(uncounted=answers[-1].uncounted()[0] - len(counted.encode()))

    def size_to_store(self) -> int:
        """About how many characters a commit stores of it: of one that has ended, also all of its
        text, and what is searched."""
        outcome = self._outcome or {}
        ended = len(self.text) + len(outcome["search_text"]) if "search_text" in outcome else 0
        return len(self._arrived) + ended

    def stored(self, text: str) -> None:
        """The first part of what has arrived is committed: the followers may have it."""
        with self._news:
            self._arrived = self._arrived[len(text) :]
            self._add(text)
        self._wake()

    # Its end

    def let_go(self) -> None:
        """It is over: its followers hold nothing that only the making of it needed."""
        self.stack.close()
        self.call.hang_up()
        self.prompt, self._arrived = None, ""
        # Else reply and exchange would hold each other.
        self.exchange.on_thinking = self.exchange.on_no_thinking = ignore
        self.exchange.on_waiting = ignore

    @property
    def names(self) -> dict[str, str]:
        """By what the log knows it."""
        request = {"id": self._request_id} if self._request_id else {}
        return {"session": str(self.session.id)} | request

    def log(self, turn: Turn | None) -> None:
        """One line about how it went; `turn` is None where it is gone."""
        why = self.error or (turn and turn.error_message)
        line = {
            **self.names,
            "model": self.draft.model,
            "outcome": turn.status if turn else self.over,
            "status": turn and turn.error_status,
            "seconds": round(self._clock() - self.asked_at, 4),
            "first_word": self._first_word_after,
            **self.draft.turn.usage,
            **({"why": why} if why else {}),
            "continued": self.draft.turn.continued,
            "provider_id": self.exchange.request_id,
        }
        write = log.warning if why else log.info
        write("reply", line)


def _told_of_in_vain(outcome: dict[str, Any]) -> dict[str, Any]:
    """What a client is told whose reply went on in vain, by how that ended."""
    if outcome["error_status"] is None:
        return NOTHING_MORE
    if outcome["error_status"] == 413:
        return NO_WINDOW
    return outcome
