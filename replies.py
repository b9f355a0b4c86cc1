"""The life of a reply: asked for once, written down as it arrives, ended once, and followed by whoever wants to.

A reply is made in a thread of its own. What the model says is committed by the process's keeper, one commit for all
that has arrived meanwhile, and only then shown to those who follow, who read one feed whether the reply is written
in this process (the keeper feeds what it commits) or elsewhere (the keeper looks into the database).
"""

import bisect
import logging
import threading
import time

import llm
from models import (
    COMPLETE,
    FAILED,
    IN_PROGRESS,
    INTERRUPTED,
    Piece,
    Session,
    Turn,
    Unavailable,
    Unstorable,
    clock,
    database,
    transaction,
)
from titles import PROMPT, proposed_title

log = logging.getLogger("parley")

LOOK = 0.1  # seconds between two looks at what other processes did
RENEWAL = 5  # seconds between two renewals of the leases
TITLE_TIME = 10  # seconds
TITLE_CHARACTERS = 1000
TITLE_TOKENS = 500  # a model that thinks spends most of them on that
_NO_THREAD = "The server has too much to do. Ask again in a moment."


class Overloaded(Exception):
    """This process can make no more replies at the moment; the text says what to do."""


class Feed:
    """What this process knows of one reply: the text that is stored, and the turn once it has ended."""

    def __init__(self, turn):
        self.id = turn.id
        self.turn = None  # the turn as it ended
        self.gone = False  # its session was deleted
        self.cut = False  # this process stops before its end is known here
        self.title = None  # of the session, as far as it is known to have changed
        self.followers = 0
        self.watched = False  # somebody reads the text here, as it comes
        self.begun = threading.Event()  # somebody has sent the first of it
        self._pieces = []
        self._ends = []  # the position behind each piece, in characters
        self._news = threading.Condition()
        if turn.status != IN_PROGRESS:
            self.end(turn)
        else:
            self.add(turn.content)

    @property
    def length(self):
        return self._ends[-1] if self._ends else 0

    @property
    def over(self):
        return self.turn is not None or self.gone or self.cut

    def has_news_of(self, title):
        return title is not None and self.title not in (None, title)

    def text(self):
        return "".join(self._pieces)

    def add(self, text):
        if not text:
            return
        with self._news:
            self._pieces.append(text)
            self._ends.append(self.length + len(text))
            self._news.notify_all()

    def retitle(self, title):
        with self._news:
            self.title = title
            self._news.notify_all()

    def end(self, turn):
        """`turn` is the reply as it ended, or None where there is none any more."""
        with self._news:
            if turn is not None:
                self.add(turn.content[self.length :])
            self.turn, self.gone = turn, turn is None
            self._news.notify_all()

    def cut_off(self):
        """Send the followers away, who may come back elsewhere."""
        with self._news:
            self.cut = True
            self._news.notify_all()

    def wait(self, seconds):
        """Wait until the reply is over, or cut off; returns whether it is."""
        with self._news:
            return self._news.wait_for(lambda: self.over, seconds)

    def read(self, position, title, silence):
        """Wait for news, for `silence` seconds at most: returns the text beyond the position, and whether it is over.

        Another title than `title` is news, except where that is None.
        """
        if position:
            self.begun.set()
        with self._news:
            self._news.wait_for(lambda: self.over or self.length > position or self.has_news_of(title), silence)
            first = bisect.bisect_right(self._ends, position)
            start = self._ends[first - 1] if first else 0
            return "".join(self._pieces[first:])[position - start :], self.over


class Reply:
    """A reply that is written in this process: what has arrived of it and is not stored yet, and its feed."""

    def __init__(self, session, turn, feed):
        self.session = session
        self.turn = turn
        self.feed = feed
        self.call = llm.Call()
        self.outcome = None  # (status, columns of the turn), once it has ended
        self.unstored = ""
        self.asked_at = time.monotonic()
        self.first_word_after = None  # seconds
        self._lock = threading.Lock()

    def arrive(self, text):
        with self._lock:
            self.unstored += text
        if self.first_word_after is None:
            self.first_word_after = round(time.monotonic() - self.asked_at, 4)

    def stored(self, text):
        """The first part of what had arrived is committed: its followers may have it."""
        with self._lock:
            self.unstored = self.unstored[len(text) :]
        self.feed.add(text)

    def give_up(self):
        """Drop what is not stored, and end it as failed."""
        self.outcome = _failed(500, "The database did not take the reply. Ask again.")
        self.call.hang_up()
        with self._lock:
            self.unstored = ""

    def log(self, turn):
        """One line about how it went; `turn` is None where its session was deleted."""
        line = {
            "session": str(self.session.id),
            "model": self.session.model,
            "outcome": turn.status if turn else "deleted",
            "status": turn and turn.error_status,
            "seconds": round(time.monotonic() - self.asked_at, 4),
            "first_word": self.first_word_after,
            **dict.fromkeys(("input_tokens", "output_tokens", "cached_tokens")),
            **self.call.usage,
            "provider_id": self.call.request_id,
        }
        log.info("reply", line)


class Replies:
    """The replies of one process. `models` are the llm.Models to ask; threads start with the first reply."""

    def __init__(self, models, max_tokens, title_model=None):
        self.models = models
        self.max_tokens = max_tokens
        self.title_model = title_model
        self._replies = {}  # turn id → Reply, of those that are written here
        self._feeds = {}  # turn id → Feed, of these and of those that are followed here
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._keeper = None
        self._next_look = self._next_renewal = 0.0
        self._unsure = False

    # What a request asks for

    def ask(self, ask, watched):
        """Claim a reply and begin to make it. Returns (session, feed).

        The feed is to be given back with `leave`. Where an idempotency key has had its reply already, it is that one's.
        Raises models.Refused or Overloaded, and then nothing changed.
        """
        self._start_keeper()
        session, turn, is_new = ask.claim()
        feed = self.follow(turn, watched)
        if is_new:
            reply = Reply(session, turn, self.follow(turn))
            with self._lock:
                self._replies[turn.id] = reply
            first = ask.content if ask.new else None
            if not self._start(self._make, reply, first):
                self._finish(reply, *_failed(503, _NO_THREAD))
            if first is not None and self.title_model:
                self._start(self._entitle, reply, first)
        return session, feed

    def follow(self, turn, watched=False):
        """The feed of this turn, which is to be given back with `leave`.

        `watched`: its text is read as it comes, so it is stored as soon as it arrives.
        """
        if turn.status != IN_PROGRESS:
            return Feed(turn)
        self._start_keeper()
        with self._lock:
            feed = self._feeds.get(turn.id)
            if feed is None:
                feed = self._feeds[turn.id] = Feed(turn)
                self._wake.set()
            feed.followers += 1
            if watched and not feed.watched:
                feed.watched = True
                self._wake.set()
        return feed

    def leave(self, feed):
        with self._lock:
            feed.followers -= 1
            if not feed.followers:
                self._feeds.pop(feed.id, None)

    def look(self):
        """Look at once at what has become of the replies: this process has cancelled one, or deleted it."""
        self._next_look = 0.0
        self._wake.set()

    def stop(self, grace):
        """Let the replies under way end for `grace` seconds, then interrupt those that are written here.

        Returns when these are stored, after three seconds more at the latest.
        """
        self._wait_for_all(grace)
        for reply in self._written_here():
            self._finish(reply, INTERRUPTED)
        for feed in self._wait_for_all(3):  # another process goes on with these: whoever follows them comes back there
            feed.cut_off()

    def _wait_for_all(self, seconds):
        """The feeds of those replies that are not over by then."""
        deadline = time.monotonic() + seconds
        with self._lock:
            feeds = list(self._feeds.values())
        return [feed for feed in feeds if not feed.wait(max(0.0, deadline - time.monotonic()))]

    def _written_here(self):
        with self._lock:
            return list(self._replies.values())

    def _start_keeper(self):
        with self._lock:
            if self._keeper is None or not self._keeper.is_alive():
                self._keeper = self._start(self._keep)
        if self._keeper is None:
            raise Overloaded(_NO_THREAD)

    @staticmethod
    def _start(target, *args):
        """The thread that does this, or None where the system gives no more threads."""
        thread = threading.Thread(target=target, args=args, name=target.__name__, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            log.error("%s", error)
            return None
        return thread

    # Making a reply

    def _make(self, reply, first):
        session, outcome = reply.session, _failed(500, "The server failed. Ask again.")
        try:
            provider = self.models.provider_of(session.model)
            turns = [("user", first)] if first is not None else self._history(reply)
            messages = llm.conversation(turns)
            half = ""
            texts = provider.ask(reply.call, session.model, session.system, messages, self.max_tokens)
            for number, text in enumerate(texts):
                text, half = _storable(half + text)
                reply.arrive(text)
                if reply.feed.watched:  # else the keeper's next look is soon enough, and the end may come before
                    self._wake.set()
                    if number == 0:  # the first words are on their way before this thread reads on
                        reply.feed.begun.wait(0.05)
            reply.arrive("\ufffd" if half else "")
            outcome = COMPLETE, {}
        except llm.HungUp:
            outcome = INTERRUPTED, {}
        except llm.UnknownModel as error:
            outcome = _failed(400, str(error))
        except llm.ModelError as error:
            outcome = _failed(error.status, error.message, error.retry_after)
        except Unavailable:
            outcome = _failed(503, "The database did not answer. Ask again.")
        finally:
            self._finish(reply, *outcome)

    def _history(self, reply):
        with database.connection_context():
            return reply.session.history(reply.turn.id)

    def _finish(self, reply, status, columns=None):
        if reply.outcome is None:
            reply.outcome = status, {**(columns or {}), **reply.call.usage}
            self._wake.set()

    def _entitle(self, reply, message):
        call = llm.Call()
        too_late = threading.Timer(TITLE_TIME, call.hang_up)
        too_late.daemon = True
        too_late.start()
        messages = [{"role": "user", "content": message[:TITLE_CHARACTERS]}]
        try:
            provider = self.models.provider_of(self.title_model, is_ours=True)
            answer, _ = _storable("".join(provider.ask(call, self.title_model, PROMPT, messages, TITLE_TOKENS)))
            title = proposed_title(answer)
            if title and not call.hung_up:
                with database.connection_context():
                    if Session.suggest_title(reply.session.id, title):
                        reply.feed.retitle(title)
        except (llm.ModelError, llm.HungUp, llm.UnknownModel, *Unavailable):
            pass  # the title that was written from the message stays
        finally:
            too_late.cancel()

    # Keeping them

    def _keep(self):
        while True:
            self._wake.wait(max(0.0, self._next_look - time.monotonic()) if self._feeds else None)
            self._wake.clear()
            try:
                with database.connection_context():
                    try:
                        self._store(self._written_here())
                    except Unstorable:
                        self._store_one_by_one()
                    if time.monotonic() >= self._next_look:
                        self._next_look = time.monotonic() + LOOK
                        self._look()
            except Unavailable as error:
                # What has arrived stays in memory, unseen, until the database is back.
                log.error("the database does not answer: %s", type(error).__name__)
                self._unsure = True
                time.sleep(1)
                self._wake.set()

    def _store(self, replies):
        """Commit in one transaction what has arrived of these replies and how they ended; then tell their followers."""
        if self._unsure:
            self._catch_up()
        # The outcome is read before the text, which is complete by the time that the outcome is set.
        batch = [(reply, reply.outcome, reply.unstored) for reply in replies]
        growing = {reply.turn.id: (reply, text) for reply, outcome, text in batch if text and outcome is None}
        ending = [(reply, outcome, reply.feed.text() + text) for reply, outcome, text in batch if outcome is not None]
        if not growing and not ending:
            return
        with transaction():
            if growing:
                growing = {turn_id: growing[turn_id] for turn_id in Turn.hold(list(growing))}
                Piece.add([(turn_id, reply.feed.length, text) for turn_id, (reply, text) in growing.items()])
            ended = [
                (reply, reply.turn.end(status, content, **columns)) for reply, (status, columns), content in ending
            ]
        for reply, text in growing.values():
            reply.stored(text)
        for reply, turn in ended:
            self._end(reply.feed, turn or Turn.read(reply.turn.id))

    def _store_one_by_one(self):
        """Store what the database takes, and give up those replies of which it does not."""
        for reply in self._written_here():
            try:
                self._store([reply])
            except Unstorable as error:
                log.error("the database does not take a reply: %s", type(error).__name__)
                reply.give_up()

    def _catch_up(self):
        """After a fault, see whether the last commit came through after all."""
        for reply in self._written_here():
            text = Piece.text_of(reply.turn.id, reply.feed.length)
            if text:
                reply.stored(text)
        self._unsure = False

    def _look(self):
        """See what other processes, or requests in this one, did to the replies that are known here."""
        with self._lock:
            feeds, written_here = dict(self._feeds), set(self._replies)
        if not feeds:
            return
        if written_here and time.monotonic() >= self._next_renewal:
            self._next_renewal = time.monotonic() + RENEWAL
            with transaction():
                Turn.renew(list(written_here))
        now = clock()
        states = Turn.states(list(feeds))
        for turn_id, feed in feeds.items():
            status, lease_until, title = states.get(turn_id, (None, None, None))
            if status == IN_PROGRESS and (turn_id in written_here or lease_until >= now):
                if turn_id not in written_here:
                    feed.add(Piece.text_of(turn_id, feed.length))
                if title != feed.title:
                    feed.retitle(title)
            else:
                turn = Turn.read(turn_id)
                self._end(feed, turn and turn.give_up_if_dead())

    def _end(self, feed, turn):
        if turn is not None and turn.status == IN_PROGRESS:
            return  # its lease was renewed in time after all
        with self._lock:
            self._feeds.pop(feed.id, None)
            reply = self._replies.pop(feed.id, None)
        feed.end(turn)
        if reply is not None:
            reply.call.hang_up()
            reply.log(turn)


def _failed(status, message, retry_after=None):
    return FAILED, {"error_status": status, "error_message": _storable(message)[0], "retry_after": retry_after}


def _storable(text):
    """Text as a database can hold it, and the half of a character with which it ends, for the text that follows."""
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    whole = text[: len(text) - len(half)]
    if not whole.isascii() or "\0" in whole:
        whole = whole.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
    return whole, half
