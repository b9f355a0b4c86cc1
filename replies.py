"""The life of a reply: started once, written down as it arrives, ended once, and followed by whoever wants to.

A reply is made in a thread of its own. What the model says is committed by the process's keeper, one commit for all
that has arrived meanwhile, and only then shown. Whoever follows a reply reads a feed, whether it is written in this
process (the keeper feeds it with what it commits) or elsewhere (the keeper polls the database). The keepers of all
processes end the replies whose processes have died.
"""

import collections
import concurrent.futures
import contextlib
import logging
import threading
import time
import weakref

import conversation
from catalog import UnknownModel
from database import Unavailable, Unstorable, check_writers, db, limit_time
from faults import ModelError
from limits import REPLIES, TITLES, Overloaded, Room
from models import COMPLETE, FAILED, IN_PROGRESS, INTERRUPTED, Missing, Turn
from search import normalize
from titles import generate_title
from wire import Call, HungUp

log = logging.getLogger("parley")

THINKING_INTERVAL = 1  # seconds
POLL_INTERVALS = {False: 0.25, True: 0.1}  # seconds; True: a reply is followed that another process writes
# A reply is orphaned whose lapsed lease is seen unchanged at so many looks, each a second behind the one before: so what
# holds up all processes, an outage, a pause or a step of the clock, costs none its reply, since it renews the lease first.
LOOK_INTERVAL, LOOKS = 1, 7
ORPHANS = 100  # that are ended in one transaction
GATHERING = 0.0001, 0.25  # seconds from one commit to the next, for each reply under way here, and at most
CHECK_TIMEOUT = 7  # seconds
MEMORY = 10  # seconds for which a failover of the database may take back the end of a reply


class Feed:
    """What this process knows of one reply, for all who follow it here: the text that is stored, the turn once it has ended."""

    def __init__(self, turn):
        self.id = turn.id
        self.text = ""
        self.turn = None  # the turn as it ended
        self.over = None  # "ended", "deleted" with its session, or "detached": this process stops before it knows the end
        self.title = None  # of the session, as far as it is known to have changed
        self.thinking = 0  # characters, as long as nothing follows them
        self.watched = False  # somebody reads the text here, as it comes
        self.begun = threading.Event()  # somebody has sent the first of it
        self._news = threading.Condition()
        self.add(turn.content)
        if turn.status != IN_PROGRESS:
            self.end(turn)

    def tell(self, **news):
        """Set these, and wake whoever waits for news."""
        with self._news:
            vars(self).update(news)
            self._news.notify_all()

    def add(self, text):
        if text:
            self.tell(text=self.text + text, thinking=0)

    def end(self, turn):
        """`turn` is the reply as it ended, or None where there is none any more."""
        rest = turn.content[len(self.text) :] if turn else ""
        self.tell(text=self.text + rest, turn=turn, over="ended" if turn else "deleted")

    def wait(self, seconds):
        """Wait until the reply is over, or this process stops following it; returns the turn, if it has ended."""
        with self._news:
            self._news.wait_for(lambda: self.over, seconds)
            return self.turn

    def read(self, position, title, thinking, seconds):
        """Wait for news, so many seconds at most: returns the text behind the position, and whether the reply is over."""
        if position:
            self.begun.set()  # whoever asks for what follows has sent what is before
        with self._news:
            self._news.wait_for(lambda: self._has_news(position, title, thinking), seconds)
            return self.text[position:], self.over

    def _has_news(self, position, title, thinking):
        """Whether there is more than a reader knows; one whose `title` is None does not want to know of another."""
        is_renamed = title is not None and self.title not in (None, title)
        return self.over or len(self.text) > position or is_renamed or self.thinking not in (0, thinking)


class Reply(Feed):
    """A reply that is written in this process: a feed, what has arrived for it and is not stored yet, and its call."""

    def __init__(self, session, turn, leaving):
        super().__init__(turn)
        self.session = session
        self.row = turn
        self.leaving = leaving  # its place in this process is, when it is over
        self.call = Call()
        self.call.on_thinking = self._think
        self._thought, self._next_thought = 0, 0.0  # characters; when followers are told of them
        self.prompt = None  # what the model is sent
        self.asked_at = time.monotonic()
        self.first_word_after = None  # seconds
        self._arrived = ""
        self._finished = False
        self._outcome = None  # columns of the turn as it ends, once nothing more arrives

    def arrive(self, text):
        with self._news:
            if not self._finished:
                self._arrived += text
        if self.first_word_after is None:
            self.first_word_after = round(time.monotonic() - self.asked_at, 4)

    def _think(self, characters):
        self._thought += characters
        if time.monotonic() >= self._next_thought:
            self._next_thought = time.monotonic() + THINKING_INTERVAL
            self.tell(thinking=self._thought)

    def finish(self, outcome):
        """Nothing more arrives: the first to say so decides how it ends."""
        with self._news:
            if self._finished:
                return
            self._finished, content = True, self.text + self._arrived
        outcome |= self.call.usage | {"search_text": normalize(content)}
        if self.prompt:
            outcome["turns_left_out"] = self.prompt.left_out
            self.row.trim = self.prompt.trim(self.id, content if self.call.window_is_full else None)
        with self._news:
            self._outcome = outcome

    def take(self):
        """What has arrived and is not stored yet, and the outcome, which is None as long as more may arrive."""
        with self._news:
            return self._arrived, self._outcome

    def stored(self, text):
        """The first part of what has arrived is committed: the followers may have it."""
        with self._news:
            self._arrived = self._arrived[len(text) :]
            self.add(text)

    def give_up(self):
        """The database does not take it: what is not stored is dropped, and it ends as failed."""
        self.call.hang_up()
        outcome = _failed(500, "The database did not take the reply. Ask again.") | {"search_text": normalize(self.text)}
        with self._news:
            self._arrived, self._finished, self._outcome = "", True, outcome

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
    """The replies of one process, of models in the catalog. Its keeper is started where a process begins to serve."""

    def __init__(self, catalog, max_tokens, title_model=None):
        self.catalog = catalog
        self.max_tokens = max_tokens
        self.title_model = title_model
        self.room, self._titles = Room(REPLIES), Room(TITLES)
        self._feeds = weakref.WeakValueDictionary()  # turn id → the feed of a reply under way, until nobody has it any more
        self._written = set()  # of these, the replies that are written here, until they are over
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._keeper = None
        self._checks = collections.deque()  # of those who want to know whether it can do its work
        self._ended = collections.deque()  # (when, turn): how replies ended here, in the last seconds
        self._next_poll = self._next_look = self._stored_at = 0.0
        self._lapsed = {}  # (id, lease) → how often the reply was seen with this lease, which has lapsed
        self.orphans = []  # ids of those whose processes have died, and that could not be ended yet

    # What a request asks for

    def start(self, request, watched):
        """Claim the reply that a ReplyRequest asks for, and begin to make it. Returns (session, feed).

        Where an idempotency key has had its reply already, the feed is that one's. Raises models.Refused or Overloaded,
        and then nothing has changed.
        """
        self.start_keeper()
        with contextlib.ExitStack() as leaving:
            leaving.enter_context(self.room.place(request.owner))
            session, turn, is_new = request.claim()
            if not is_new:
                return session, self.follow(turn, watched)
            reply = Reply(session, turn, leaving.pop_all())
        with self._lock:
            early = self._feeds.get(turn.id)  # of a reader who came between the claim and now
            self._feeds[turn.id] = reply
            self._written.add(reply)
        if early:
            early.tell(over="detached")  # nobody would tell it anything; the reader comes back
        feed = self.follow(turn, watched)
        first = request.content if request.new else None
        if not self._start(self._make, reply, first):
            self._finish(reply, _failed(503, str(Overloaded())))
        if first is not None and self.title_model:
            self._start(self._generate_title, reply, first)
        return session, feed

    def follow(self, turn, watched=False):
        """The feed of this turn. `watched`: its text is read as it comes, so it is stored as soon as it arrives."""
        if turn.status != IN_PROGRESS:
            return Feed(turn)
        self.start_keeper()
        with self._lock:
            feed = self._feeds.setdefault(turn.id, Feed(turn))
            feed.watched |= watched
        self._wake.set()
        return feed

    def poll(self):
        """Look at once at what has become of the replies: this process has cancelled one, or deleted it."""
        self._next_poll = 0.0
        self._wake.set()

    def check(self):
        """Raises one of Unavailable where the keeper cannot do its work now, or a transaction does not end."""
        self.start_keeper()
        check = concurrent.futures.Future()
        self._checks.append(check)
        self._wake.set()
        check.result(CHECK_TIMEOUT)
        check_writers()

    def stop(self, grace):
        """Let the replies under way end for `grace` seconds, interrupt those written here, and wait until these are stored."""
        for feed in self._wait_for_all(grace):
            if isinstance(feed, Reply):
                self._finish(feed, {"status": INTERRUPTED})
        for feed in self._wait_for_all(3):  # another process writes these: whoever follows them comes back there
            feed.tell(over="detached")

    def _wait_for_all(self, seconds):
        """Wait for all replies, those that begin meanwhile among them; returns the feeds of those that are not over."""
        deadline = time.monotonic() + seconds
        while True:
            with self._lock:
                feeds = [feed for feed in self._feeds.values() if not feed.over]
            if not feeds or time.monotonic() >= deadline:
                return feeds
            feeds[0].wait(deadline - time.monotonic())

    def start_keeper(self):
        """Start the keeper, where it does not run. Raises Overloaded where the system gives no thread."""
        with self._lock:
            if self._keeper is None or not self._keeper.is_alive():
                self._keeper = self._start(self._keep)
        if self._keeper is None:
            raise Overloaded

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
        """Read the provider to the end of its answer. `first` is the message of a new session."""
        outcome = _failed(500, "The server failed. Ask again.")
        try:
            for number, text in enumerate(self._answer(reply, first)):
                reply.arrive(text)
                if reply.watched:  # else the keeper's next poll is soon enough, and the end may come before
                    self._wake.set()
                    if number == 0:  # the first words are on their way before this thread reads on
                        reply.begun.wait(0.05)
            outcome = {"status": COMPLETE, "stop_reason": reply.call.stop_reason}
        except (HungUp, Missing):  # the latter: its session was deleted, as the keeper will see
            outcome = {"status": INTERRUPTED}
        except UnknownModel as error:
            outcome = _failed(400, str(error))
        except ModelError as error:
            outcome = _failed(error.status, error.message, error.retry_after)
        except Unavailable:
            outcome = _failed(503, "The database did not answer. Ask again.")
        finally:
            self._finish(reply, outcome)

    def _answer(self, reply, first):
        """The texts of the answer to the conversation. Where the model's window does not hold it, its newest half is sent, again
        and again, until that fits or only the last turn is left."""
        session, call = reply.session, reply.call
        provider = self.catalog.provider_of(session.model)
        options = session.options or {}
        limit = int(min(self.max_tokens, options.get("max_tokens", self.max_tokens)))
        limit_time()
        with db.connection_context() if first is None else contextlib.nullcontext():
            turns = [Turn(kind="user", content=first)] if first is not None else session.turns_before(reply.id)
            prompt = conversation.Prompt(turns, session.model, session.system, session.trim or 0, session.count_before)
        if not prompt.turns:
            raise Missing  # the session was deleted meanwhile
        reply.prompt = prompt
        while True:
            messages = conversation.messages_of(prompt.turns)
            try:
                yield from provider.stream(call, session.model, session.system, messages, limit, options, prompt.tokens)
                return
            except ModelError as error:
                if error.status != 413 or reply.first_word_after is not None or not prompt.shorten():
                    raise

    def _finish(self, reply, outcome):
        reply.finish(outcome)
        self._wake.set()

    def _generate_title(self, reply, message):
        """Where there is no room for it, or the database does not answer, the title stays that was written from the message."""
        with contextlib.suppress(Overloaded, *Unavailable), self._titles.place(reply.session.owner):
            title = generate_title(self.catalog.provider_of(self.title_model), self.title_model, message)
            if title is not None:
                limit_time()
                with db.connection_context():
                    if reply.session.suggest_title(title):
                        reply.tell(title=title)

    # Keeping them

    def _keep(self):
        """Keep the replies, by a connection that is held until it breaks."""
        while True:
            try:
                limit_time()
                with db.connection_context():
                    self._catch_up()
                    while True:
                        self._store_all()
                        if time.monotonic() >= self._next_poll:
                            self._poll()
                        if time.monotonic() >= self._next_look:
                            self._look()
                        self._rest()
            except Exception as error:  # whatever it is: without a keeper, no reply of this process would go on
                # What has arrived stays in memory, unseen, until the database is back.
                if isinstance(error, Unavailable):
                    log.error("the database does not answer: %s", type(error).__name__)
                else:
                    log.error("the keeper failed, and begins again", exc_info=error)
                self._answer_checks(error)
                self._lapsed = {}
                time.sleep(1)

    def _answer_checks(self, error=None):
        while self._checks:
            self._checks.popleft().set_exception(error)

    def _rest(self):
        """Wait for something to do. The more replies are under way, the longer they are gathered for one commit."""
        idle = not self._feeds
        due = self._next_look if idle else min(self._next_look, self._next_poll)
        self._wake.wait(max(0.0, due - time.monotonic()))
        if idle:  # nothing has become yet of what is new
            self._next_poll = time.monotonic() + POLL_INTERVALS[True]
        each, most = GATHERING
        time.sleep(max(0.0, self._stored_at + min(each * len(self._written), most) - time.monotonic()))
        self._wake.clear()

    def _store_all(self):
        limit_time()
        try:
            self._store(list(self._written))
        except Unstorable:
            self._store_one_by_one()
        if self._checks:
            db.check()
            self._answer_checks()

    def _store(self, replies):
        """Commit in one transaction what has arrived of these replies and how they ended; then tell their followers."""
        taken = [(reply, *reply.take()) for reply in replies]
        growing = {reply.id: (reply, text) for reply, text, outcome in taken if text and outcome is None}
        ending = [(reply, reply.text + text, outcome) for reply, text, outcome in taken if outcome is not None]
        if not growing and not ending:
            return
        for reply, content, outcome in ending:
            reply.row.finish(content=content, **outcome)
        stored, ended = Turn.store(
            [(turn_id, reply.row.fence, len(reply.text), text) for turn_id, (reply, text) in growing.items()],
            [reply.row for reply, _, _ in ending],
        )
        self._stored_at, grown = time.monotonic(), {turn_id for (turn_id,) in stored()}
        for turn_id, (reply, text) in growing.items():
            if turn_id in grown:
                reply.stored(text)
            else:
                self._end(reply, Turn.read(turn_id))
        for reply, _, _ in ending:
            if reply.id in ended:
                self._ended.append((time.monotonic(), reply.row))
            self._end(reply, reply.row if reply.id in ended else Turn.read(reply.id))
        while self._ended and self._ended[0][0] < time.monotonic() - MEMORY:
            self._ended.popleft()

    def _store_one_by_one(self):
        """Store what the database takes, and give up those replies of which it does not."""
        for reply in list(self._written):
            try:
                self._store([reply])
            except Unstorable as error:
                log.error("the database does not take a reply: %s", type(error).__name__)
                reply.give_up()

    def _catch_up(self):
        """Store again what is not there, and see what is, after a fault: a commit may have come through all the same, and a
        database that another took the place of may have lost the last ones."""
        for reply in list(self._written):
            limit_time()  # they may be many, and the database far away
            turn = Turn.read(reply.id)
            if turn is not None and turn.status == IN_PROGRESS:  # else the next poll tells what has become of it
                reply.stored(turn.content[len(reply.text) :])
                lost = reply.text[len(turn.content) :]
                if lost:
                    Turn.store([(reply.id, reply.row.fence, len(turn.content), lost)], [])
        Turn.store([], [turn for when, turn in self._ended if when > time.monotonic() - MEMORY])

    def _poll(self):
        """See what other processes, or requests in this one, did to the replies that are known here."""
        with self._lock:
            feeds = dict(self._feeds.items())
        elsewhere = {turn_id: len(feed.text) for turn_id, feed in feeds.items() if not isinstance(feed, Reply)}
        self._next_poll = time.monotonic() + POLL_INTERVALS[bool(elsewhere)]
        if not feeds:
            return
        news, due = Turn.news(dict.fromkeys(feeds) | elsewhere), {}
        for turn_id, feed in feeds.items():
            status, is_due, title, text = news.get(turn_id, (None, False, None, ""))
            if status != IN_PROGRESS:
                self._end(feed, Turn.read(turn_id))
                continue
            if is_due and isinstance(feed, Reply):
                due[turn_id] = feed.row.fence
            feed.add(text)
            if title != feed.title:
                feed.tell(title=title)
        if due:
            Turn.renew(due)

    def _look(self):
        """End the replies whose processes have died."""
        self._next_look = time.monotonic() + LOOK_INTERVAL
        self._lapsed = {lapsed: self._lapsed.get(lapsed, 0) + 1 for lapsed in Turn.lapsed()}
        self.orphans = [turn_id for (turn_id, _), looks in self._lapsed.items() if looks >= LOOKS]
        for number in range(0, len(self.orphans), ORPHANS):
            turns = Turn.readable().where(Turn.id.in_(self.orphans[number : number + ORPHANS]))
            Turn.interrupt(list(turns), orphaned=True)
            time.sleep(0.01)  # a writer who has waited comes first
            self._store_all()

    def _end(self, feed, turn):
        """`turn` is the reply as it ended; None where it is gone."""
        if turn is not None and turn.status == IN_PROGRESS:
            return  # it goes on after all
        if isinstance(feed, Reply) and turn is not feed.row:  # somebody else has ended it
            if turn is not None and turn.fence == feed.row.fence and turn.status != feed.row.status:
                turn.content += feed.text[len(turn.content) :]  # what a failover took back
                if turn.resume(feed.session.owner):
                    return feed.stored(turn.content[len(feed.text) :])
            left_out = {"turns_left_out": feed.prompt.left_out} if feed.prompt and feed.prompt.left_out else {}
            if feed.call.usage or left_out:
                feed.row.trim = feed.prompt.trim(feed.id)
                feed.row.store_usage(feed.call.usage | left_out)
        with self._lock:
            if self._feeds.get(feed.id) is feed:  # else another one has taken its place
                del self._feeds[feed.id]
            self._written.discard(feed)
        feed.end(turn)
        if isinstance(feed, Reply):
            feed.leaving.close()
            feed.call.hang_up()
            feed.log(turn)


def _failed(status, message, retry_after=None):
    """The outcome of a reply that failed."""
    return {"status": FAILED, "error_status": status, "error_message": message, "retry_after": retry_after}
