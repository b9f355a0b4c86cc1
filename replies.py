"""The life of a reply: started once, written down as it arrives, ended once, and followed by whoever wants to.
A reply is made in a thread of its own. What the model says is committed by the process's keeper, one commit for all that has
arrived meanwhile, and only then shown. Whoever follows a reply reads a feed, whether it is written in this process (the keeper
feeds it with what it commits) or elsewhere (the keeper polls the database). The keepers of all processes take over the replies
whose processes have died, or have handed them over."""

import contextlib
import threading
import time
import weakref

import conversation
from catalog import UnknownModel
from database import Unavailable, Unstorable, db, limit_time, reason, watched
from deletion import sweep
from faults import ModelError
from ledger import MOST_TOKENS, SAID, Usage, estimate
from limits import REPLIES, TITLES, KeptThreads, Overloaded, Room
from llm import RETRY_PAUSES, pause
from logs import log
from models import COMPLETE, FAILED, IN_PROGRESS, INTERRUPTED, RELEASED, Missing, Turn, outcome_of
from search import normalize
from titles import TIMEOUT as TITLE_TIMEOUT
from titles import generate_title
from wire import Call, HungUp

THINKING_INTERVAL = 1  # seconds
POLL_INTERVALS = {False: 0.25, True: 0.1}  # seconds; True: a reply is followed that another process writes
POLLING = 0.001  # seconds from one poll to the next, at least, for each reply that is known here
# A reply is orphaned whose lapsed lease is seen unchanged at so many looks, each a second behind the one before: so what
# holds up all processes, an outage, a pause or a step of the clock, costs none its reply, since it renews the lease first.
LOOK_INTERVAL, LOOKS = 1, 7
# Where nothing has been under way anywhere for so long, a look is as seldom: what begins elsewhere meanwhile lapses later.
IDLE_AFTER, IDLE_INTERVAL = 60, 15
ORPHANS = 100  # that are interrupted in one transaction
PATIENCE = {False: 2, True: 20}  # further looks for which one waits that no process has room for; True: it was handed over
HOLD = 1  # seconds for which the beginning of what goes on is held back, where it may be a repetition
GATHERING, LONGEST_GATHERING = 0.0001, 0.25  # seconds from one commit to the next, for each reply under way here, and at most
IN_VAIN = {None: outcome_of(FAILED, 502, "The model has written nothing more.")}  # what is told of going on in vain, by its error
IN_VAIN[413] = outcome_of(FAILED, 409, "The reply so far does not fit the model's context window. Start a new message.")
SWEEP_INTERVAL = 3600  # seconds
MEMORY = 10  # seconds for which a failover of the database may take back the end of a reply


def count_usage(row, before, answers, over):
    """Set the tokens of a row to those `before`, and what these answers used: what a provider said of them, and what it did not,
    estimated, of those that are over. They are no less than what is counted already, whatever a provider takes back."""
    for name in SAID:
        if said := [answer.usage[name] for answer in answers if name in answer.usage]:
            setattr(row, name, max(min((before[name] or 0) + sum(said), MOST_TOKENS), row.counted[name] or 0))
    estimated = before["estimated_tokens"] + sum(estimate(sum(answer.uncounted())) for answer in over)
    row.estimated_tokens = max(min(estimated, MOST_TOKENS), row.counted["estimated_tokens"] or 0)


class Feed:
    """What this process knows of one reply, for all who follow it here: the text that is stored, the turn once it has ended."""

    # Of a Reply: the turn that it writes, how an attempt to go on failed that changed nothing, by which error it ended.
    row = failure = error = None

    def __init__(self, turn):
        self.id = turn.id
        self.start = len(turn.content)  # where what comes from now on begins
        self.text = turn.content
        self.turn = None  # the turn as it ended
        self.over = None  # "ended", "deleted" with its session, or "detached": nobody will learn here how it ends
        self.title = None  # of the session, as far as it is known to have changed
        self.thinking = 0  # characters, as long as nothing follows them
        self.watched = False  # somebody reads the text here, as it comes
        self.begun = threading.Event()  # somebody has sent the first of it
        self.followers = []  # functions that are called when there is news, of those that do not wait for it
        self._news = threading.Condition()
        if turn.status != IN_PROGRESS:
            self.end(turn)

    def tell(self, **news):
        """Set these, and wake whoever waits for news."""
        with self._news:
            vars(self).update(news)
            self._news.notify_all()
            for wake in [*self.followers]:
                wake()

    def add(self, text):
        if text:
            self.tell(text=self.text + text, thinking=0)

    def end(self, turn):
        """`turn` is the reply as it ended, or None where there is none any more; in progress it has another writer now."""
        if turn and turn.status == IN_PROGRESS:
            return self.tell(over="detached")
        rest = turn.content[len(self.text) :] if turn else ""
        self.tell(text=self.text + rest, turn=turn, over="ended" if turn else "deleted")

    def wait(self, seconds):
        """Wait until the reply is over, or this process stops following it; returns the turn, if it has ended."""
        with self._news:
            self._news.wait_for(lambda: self.over, seconds)
            return self.turn

    def read(self, position, told, seconds):
        """Wait for text behind the position, or more than was `told`; returns the text, (title, thinking), whether it is over."""
        if position:
            self.begun.set()  # whoever asks for what follows has sent what is before
        with self._news:
            self._news.wait_for(lambda: self.over or len(self.text) > position or told != (self.title, self.thinking), seconds)
            return self.text[position:], (self.title, self.thinking), self.over


class Reply(Feed):
    """A reply that is written in this process: a feed, what has arrived for it and is not stored yet, and its call."""

    def __init__(self, turn, leaving):
        super().__init__(turn)
        self.session, self.row = turn.session, turn
        self._next_count = 0.0  # when what it has used may be stored again
        self._used, self._begun = turn.usage, turn.content  # by processes before this one; before the call under way
        self.leaving = leaving  # its place in this process is, when it is over
        self.call = Call()
        self.call.on_thinking = self._think
        self._thought, self._next_thought = 0, 0.0  # characters; when followers are told of them
        self.prompt = None  # what the model is sent
        self.asked_at = time.monotonic()
        self.first_word_after = None  # seconds
        self._arrived = ""
        self._continuation, self._held_until = conversation.Continuation(turn.content), 0.0
        self._outcome = None  # columns of the turn as it ends, once nothing more arrives; {} until they are known

    def arrive(self, text):
        with self._news:
            if not self._continuation.held:
                self._held_until = time.monotonic() + HOLD
            if self._outcome is None:
                self._arrived += self._continuation.add(text)
        if self.first_word_after is None:
            self.first_word_after = round(time.monotonic() - self.asked_at, 4)

    def so_far(self):
        """Its text with all that has arrived."""
        with self._news:
            return self.text + self._arrived

    def take_usage(self, goes_on=False):
        """Count what all calls have used, those of processes before this one among them. Two threads may do so at any time. Where
        it goes on, the last call is not over: `uncounted` is for whoever has to estimate it when this process has died."""
        answers = list(self.call.answers)
        count_usage(self.row, self._used, answers, answers[:-1] if goes_on else answers)
        if goes_on and answers:
            counted = self.so_far() if "output_tokens" in answers[-1].usage else self._begun
            self.row.uncounted = answers[-1].uncounted()[0] - len(counted.encode())

    def go_on(self):
        """Its provider is asked to go on behind a break. What is held back was about to be repeated."""
        self._begun = self.so_far()
        self._continuation = conversation.Continuation(self._begun)

    def _think(self, characters):
        self._thought += characters
        if time.monotonic() >= self._next_thought:
            self._next_thought = time.monotonic() + THINKING_INTERVAL
            self.tell(thinking=self._thought)

    def finish(self, outcome):
        """Nothing more arrives: the first to say so decides how it ends."""
        with self._news:
            if self._outcome is not None:
                return
            if outcome["status"] == COMPLETE:
                self._arrived += self._continuation.decide()
            self._outcome, content = {}, self.so_far()
        in_vain = 0 < self.row.base == len(content) and outcome["status"] != IN_PROGRESS  # a person had it continued
        if in_vain or (outcome["status"] == FAILED and 0 < self.start == len(content)):
            if in_vain and outcome["status"] != INTERRUPTED:
                self.failure = IN_VAIN.get(outcome["error_status"], outcome)
            outcome = self.row.fallback()
        outcome |= {"search_text": normalize(content), "uncounted": -len(content.encode())}
        self.take_usage()
        if self.prompt and not in_vain:
            outcome["turns_left_out"] = self.prompt.left_out
            self.row.trim = self.prompt.trim(self.id, content if self.call.window_is_full else None)
        with self._news:
            self._outcome = outcome

    def take(self):
        """What has arrived and is not stored yet; whether nothing more arrives: then `row` is the turn as it ends; else a copy of
        that, where it has used more than is stored."""
        used = None
        with self._news:
            if self._outcome is None and time.monotonic() >= self._held_until:
                self._arrived += self._continuation.decide()
            # No commit is made for it before; and some providers count with each word.
            is_due = time.monotonic() > self._next_count and (self._arrived or time.monotonic() > self.asked_at + LOOK_INTERVAL)
            if self._outcome is None and self.call.has_used and is_due:
                self._next_count = time.monotonic() + LOOK_INTERVAL
                self.call.has_used, stored = False, (self.row.counted, self.row.uncounted)
                self.take_usage(goes_on=True)
                if (self.row.usage, self.row.uncounted) != stored:
                    used = Turn(**self.row.__data__ | {"session": self.session}, counted=self.row.counted)
            if self._outcome:
                self.row.has_pieces = bool(self.text)
                self.row.__data__ |= {"content": self.text + self._arrived, "lease_until": None} | self._outcome
            return self._arrived, bool(self._outcome), used

    def stored(self, text):
        """The first part of what has arrived is committed: the followers may have it."""
        with self._news:
            self._arrived = self._arrived[len(text) :]
            self.add(text)

    def give_up(self):
        """The database does not take it: what is not stored is dropped, and it ends as failed."""
        self.call.hang_up()
        self.take_usage()
        outcome = outcome_of(FAILED, 500, "The database did not take the reply. Ask again.")
        with self._news:
            self._arrived, self._outcome = "", outcome | {"search_text": normalize(self.text)}

    def log(self, turn):
        """One line about how it went; `turn` is None where its session was deleted."""
        outcome = {"outcome": turn.status if turn else "deleted", "status": turn and turn.error_status}
        times = {"seconds": round(time.monotonic() - self.asked_at, 4), "first_word": self.first_word_after}
        line = {"session": str(self.session.id), "model": self.row.model} | outcome | times | self.row.usage
        why = str(self.error) if self.error else turn and turn.error_message
        line |= {"why": why} if why else {}
        (log.warning if why else log.info)("reply", line | {"continued": self.row.continued, "provider_id": self.call.request_id})


class Replies:
    """The replies of one process, of models in the catalog. Its keeper is started where a process begins to serve."""

    def __init__(self, catalog, settings):
        self.catalog = catalog
        self.max_tokens, self.title_model = settings["MAX_TOKENS"], settings["TITLE_MODEL"]
        self.continue_limit, self.retention = settings["CONTINUE_LIMIT"], settings["RETENTION_DAYS"]
        self.stopping = False  # this process takes over nothing any more
        self.room, self._titles, self._threads = Room(REPLIES), Room(TITLES), KeptThreads()
        self._feeds = weakref.WeakValueDictionary()  # turn id → the feed of a reply under way, until nobody has it any more
        self._written = set()  # the replies that are written here, until they are over
        self._lock, self._wake, self._keeper = threading.Lock(), threading.Event(), None
        self._ended = []  # (when, turn): how replies ended here, in the last seconds
        self._next_poll = self._next_look = self._next_sweep = self._stored_at = 0.0
        self._idle = False  # the keeper may rest for long
        self._busy_at = time.monotonic()  # when a reply was under way, here or elsewhere
        self._lapsed = {}  # (id, lease, …) → how often the reply was seen with this lease, which has lapsed

    # What a request asks for

    def start(self, request, watched):
        """Claim the reply that a ReplyRequest asks for, and begin to make it. Returns (session, feed); where an idempotency key
        has had its reply already, that one's. Raises models.Refused or Overloaded, and then nothing has changed."""
        self.start_keeper()
        with contextlib.ExitStack() as leaving:
            leaving.enter_context(self.room.place(request.owner))
            turn, is_new = request.claim()
            if not is_new:
                return turn.session, self.follow(turn, watched)
            reply = Reply(turn, leaving.pop_all())
        reply.watched = watched
        first = request.content if request.new else None
        self._begin(reply, first)
        if first is not None and self.title_model:
            self._start(self._generate_title, reply, first)
        return turn.session, reply

    def _begin(self, reply, first=None):
        """Begin to make a reply that this process has claimed, or taken over. `first` is the message of a new session."""
        with self._lock:
            self._feeds.setdefault(reply.id, reply)  # who followed it here before, when another process wrote it, goes on so
            self._written.add(reply)
        is_begun = self._start(self._make, reply, first)
        if not is_begun:
            reply.finish(outcome_of(FAILED, 503, Overloaded().description))
        if self._idle or not is_begun:  # else the keeper comes round anyway
            self._wake.set()

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

    def stop(self, grace):
        """Let the replies under way end for `grace` seconds, hand over those written here, and wait until these are stored."""
        self.stopping = True
        self._wait_for_all(grace)
        for reply in list(self._written):
            reply.finish(outcome_of(IN_PROGRESS if self.continue_limit else INTERRUPTED))
        self._wake.set()
        for feed in self._wait_for_all(3):  # another process writes these: whoever follows them comes back there
            feed.tell(over="detached")

    def _wait_for_all(self, seconds):
        """Wait for all replies, those that begin meanwhile among them; returns the feeds of those that are not over."""
        deadline = time.monotonic() + seconds
        while (feeds := [feed for feed in self._all() if not feed.over]) and time.monotonic() < deadline:
            feeds[0].wait(deadline - time.monotonic())
        return feeds

    def _all(self):
        with self._lock:
            return {*self._feeds.values(), *self._written}

    def start_keeper(self):
        """Start the keeper, where it does not run. Raises Overloaded where the system gives no thread."""
        with self._lock:
            if self._keeper is None or not self._keeper.is_alive():
                self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
                try:
                    self._keeper.start()
                except RuntimeError as error:
                    log.error("%s", error)
                    raise Overloaded from None

    def _start(self, function, *arguments):
        """Have a thread do this; returns whether the system gives one."""
        try:
            self._threads.start(function, *arguments)
            return True
        except RuntimeError as error:
            log.error("%s", error)
            return False

    # Making a reply

    def _make(self, reply, first):
        """Read the provider to the end of its answer. `first` is the message of a new session."""
        outcome = outcome_of(FAILED, 500, "The server failed. Ask again.")
        try:
            for number, text in enumerate(self._answer(reply, first)):
                reply.arrive(text)
                if reply.watched:  # else the keeper's next poll is soon enough, and the end may come before
                    self._wake.set()
                    if number == 0:  # the first words are on their way before this thread reads on
                        reply.begun.wait(0.05)
            outcome = outcome_of(COMPLETE, stop_reason=reply.call.stop_reason)
        except (HungUp, Missing):  # the latter: its session was deleted, as the keeper will see
            outcome = outcome_of(INTERRUPTED)
        except UnknownModel as error:
            outcome, reply.error = outcome_of(FAILED, 400, str(error)), error
        except ModelError as error:
            outcome, reply.error = outcome_of(FAILED, error.status, error.message, error.retry_after), error
        except Unavailable:
            outcome = outcome_of(FAILED, 503, "The database did not answer. Ask again.")
        finally:
            reply.finish(outcome)
            self._wake.set()

    def _answer(self, reply, first):
        """The texts of the answer to the conversation. Where the model's window does not hold it, its newest half is sent, again
        and again, until that fits or only the last turn is left. Behind a break the answer goes on, if it may."""
        session, call, model = reply.session, reply.call, reply.row.model
        provider = self.catalog.allow(model, session.provider if model == session.model else None)
        limit = int(min(self.max_tokens, session.options.get("max_tokens", self.max_tokens)))
        limit_time()
        with db.connection_context() if first is None else contextlib.nullcontext():
            turns = [Turn(kind="user", content=first)] if first is not None else session.turns_before(reply.id)
            prompt = conversation.Prompt(turns, model, session.system, session.trim or 0, session.count_before)
        if not prompt.turns:
            raise Missing  # the session was deleted meanwhile
        reply.prompt = prompt
        broken = None  # by this error, the last time
        while True:
            so_far, has_begun = reply.so_far(), False
            messages, tokens = conversation.messages_of(prompt.turns, so_far), prompt.tokens + len(so_far.encode()) // 4
            try:
                for text in provider.stream(call, model, session.system, messages, limit, session.options, tokens):
                    has_begun = True
                    yield text
                return
            except ModelError as error:
                if has_begun:
                    self._go_on(reply, error)
                    broken = error
                elif error.status != 413 or not prompt.shorten():
                    raise broken or error

    def _go_on(self, reply, error):
        """Have a reply go on behind this error of its provider, once that is stored; else raises the error."""
        while reply.row.restarts < self.continue_limit and pause(reply.call, error, RETRY_PAUSES[0]):
            with contextlib.suppress(*Unavailable):
                limit_time()
                with db.connection_context():
                    if not reply.row.go_on():
                        raise HungUp  # another process has taken it over, or it was cancelled
                return reply.go_on()
        raise error

    def _generate_title(self, reply, message):
        """Where there is no room for it, or the database does not answer, the title stays that was written from the message."""
        call, row = Call(TITLE_TIMEOUT), Turn(id=reply.id, session=reply.session, model=self.title_model, content="")
        with contextlib.suppress(Overloaded, *Unavailable), self._titles.place(reply.session.owner):
            title = generate_title(call, self.catalog.provider_of(self.title_model), self.title_model, message)
            count_usage(row, row.usage, call.answers, call.answers)
            limit_time()
            with db.connection_context():
                if any(row.usage.values()):
                    Usage.add_late(row)
                if title and reply.session.suggest_title(title):
                    reply.tell(title=title)

    # Keeping them

    def _keep(self):
        """Keep the replies, by a connection that is held until it breaks."""
        lost_at = None  # when the database was found not to answer
        while True:
            try:
                limit_time()
                with db.connection_context():
                    with watched():
                        self._catch_up()
                    while True:
                        with watched():
                            self._store_all()
                            if time.monotonic() >= self._next_poll:
                                self._poll()
                        if time.monotonic() >= self._next_look:
                            self._look()
                        if lost_at is not None:
                            log.warning("the database answers again after %.0f s", time.monotonic() - lost_at)
                            lost_at = None
                        self._rest()
            except Unavailable as error:  # what has arrived stays in memory, unseen, until the database is back
                if lost_at is None:
                    lost_at = time.monotonic()
                    log.error("the database does not answer: %s", reason(error))
            except Exception as error:  # whatever it is: without a keeper, no reply of this process would go on
                log.error("the keeper failed, and begins again", exc_info=error)
            self._lapsed = {}
            time.sleep(1)

    def _rest(self):
        """Wait for something to do. The more replies are under way, the longer they are gathered for one commit."""
        self._idle = True  # before the look: who begins a reply behind it wakes the keeper
        self._idle = not self._all() and time.monotonic() > self._stored_at + LOOK_INTERVAL
        due = self._next_look if self._idle else min(self._next_look, self._next_poll)
        self._wake.wait(max(0.0, due - time.monotonic()))
        self._next_look = min(self._next_look, time.monotonic() + LOOK_INTERVAL)  # it was far, where nothing was under way
        if self._idle:  # nothing has become yet of what is new
            self._next_poll = time.monotonic() + POLL_INTERVALS[True]
        gathering = min(GATHERING * len(self._written), LONGEST_GATHERING)
        if (pause := self._stored_at + gathering - time.monotonic()) > 0:
            time.sleep(pause)
        self._wake.clear()

    def _store_all(self):
        """Store what there is; where the database does not take it, all that it takes, and give up the replies of the rest."""
        limit_time()
        try:
            newest = {reply.id: reply for reply in sorted(self._written, key=lambda reply: reply.asked_at)}
            self._store(list(newest.values()))  # an older one of the same turn is lost, as the next poll will see
        except Unstorable:
            for reply in list(self._written):
                try:
                    self._store([reply])
                except Unstorable as error:
                    log.error("the database does not take a reply: %s", type(error).__name__)
                    reply.give_up()

    def _store(self, replies):
        """Commit in one transaction what has arrived of these replies and how they ended; then tell their followers."""
        taken = [(reply, *reply.take()) for reply in replies]
        changed = [(reply, text, is_over) for reply, text, is_over, _ in taken if text or is_over]
        used = {reply: row for reply, _, _, row in taken if row}
        if not changed and not used:
            return
        growing = [(reply, text) for reply, text, _ in changed if text and reply.row.status == IN_PROGRESS]
        pieces = [(reply.id, reply.row.fence, len(reply.text), text) for reply, text in growing]
        stored = Turn.store(pieces, [reply.row for reply, _, is_over in changed if is_over], list(used.values()))
        self._stored_at, ids = time.monotonic(), stored()
        for reply, row in used.items():
            if reply.id in ids:
                reply.row.counted = row.usage
        for reply, text, is_over in changed:
            is_stored = reply.id in ids
            if is_stored and reply.row.status != IN_PROGRESS:
                self._ended.append((time.monotonic(), reply.row))
            elif is_stored:
                reply.stored(text)
            if is_over or not is_stored:
                self._end(reply, reply.row if is_stored else Turn.read(reply.id))

    def _catch_up(self):
        """Store again what is not there, and see what is, after a fault: a commit may have come through all the same, and a
        database that another took the place of may have lost the last ones."""
        for reply in list(self._written):
            limit_time()  # they may be many, and the database far away
            turn = Turn.read(reply.id)
            if turn is not None and turn.status == IN_PROGRESS and turn.fence == reply.row.fence:  # else the next poll tells
                reply.row.counted, reply.row.uncounted, reply.call.has_used = turn.usage, turn.uncounted, True
                reply.stored(turn.content[len(reply.text) :])
                if lost := reply.text[len(turn.content) :]:
                    Turn.store([(reply.id, reply.row.fence, len(turn.content), lost)], [])
        Turn.store([], [turn for _, turn in self._ended])

    def _poll(self):
        """See what other processes, or requests in this one, did to the replies that are known here."""
        self._ended = [(when, turn) for when, turn in self._ended if when > time.monotonic() - MEMORY]
        feeds = self._all()
        elsewhere = {feed.id: len(feed.text) for feed in feeds if not feed.row}
        self._next_poll = time.monotonic() + max(POLL_INTERVALS[bool(elsewhere)], len(feeds) * POLLING)
        if not feeds:
            return
        news = Turn.news({feed.id: None for feed in feeds} | elsewhere)
        for feed in feeds:
            status, fence, title, text = news.get(feed.id, (None, None, None, ""))
            if status != IN_PROGRESS or (feed.row and fence != feed.row.fence):
                self._end(feed, Turn.read(feed.id))
                continue
            if not feed.row:
                feed.add(text)
            if title != feed.title:
                feed.tell(title=title)

    def _look(self):
        """Renew the leases of what is written here; take over, or end, what dead processes have left and others handed over."""
        last_look, self._next_look = time.monotonic() - LOOK_INTERVAL, time.monotonic() + LOOK_INTERVAL
        if leases := {reply.id: reply.row.fence for reply in list(self._written) if reply.asked_at < last_look}:
            Turn.renew(leases)
        if self.stopping:
            return
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + SWEEP_INTERVAL
            self._start(self._sweep)
        if not self._all() and not Turn.is_any_under_way():
            if time.monotonic() > self._busy_at + IDLE_AFTER:
                self._next_look = time.monotonic() + IDLE_INTERVAL
            return
        self._busy_at = time.monotonic()
        self._lapsed = {orphan: self._lapsed.get(orphan, 0) + 1 for orphan in Turn.lapsed()}
        lost = {}  # id → lease
        for (turn_id, lease, restarts, owner), looks in self._lapsed.items():
            may_go_on = self.continue_limit and (lease == RELEASED or restarts < self.continue_limit)
            if may_go_on and looks < LOOKS + PATIENCE[lease == RELEASED]:
                if (looks >= LOOKS or lease == RELEASED) and time.monotonic() < self._next_look + 1:  # for two seconds a look
                    self._take_over(turn_id, lease, owner)
            elif looks >= LOOKS:
                lost[turn_id] = lease
        for number in range(0, len(lost), ORPHANS):
            turns = Turn.readable().where(Turn.id.in_(list(lost)[number : number + ORPHANS]))
            if turns := [turn for turn in turns if turn.lease_until == lost[turn.id]]:  # else another process was faster
                Turn.interrupt(turns, [normalize(turn.content) for turn in turns], cancelled=False)
            self._store_all()  # a writer who has waited comes first

    def _sweep(self):
        """Delete the sessions that are due. What the database does not take is left to the next sweep."""
        with contextlib.suppress(*Unavailable):
            sweep(self.retention)

    def _take_over(self, turn_id, lease, owner):
        """Write an orphaned reply on, unless there is no room for it here, or another process was faster."""
        with contextlib.suppress(Overloaded), contextlib.ExitStack() as leaving:
            leaving.enter_context(self.room.place(owner))
            if (turn := Turn.take_over(turn_id, lease, self.continue_limit)) is not None:
                self._begin(Reply(turn, leaving.pop_all()))
                self._store_all()  # a writer who has waited comes first

    def _end(self, feed, turn):
        """`turn` is the reply as it ended; None where it is gone. In progress it has been handed over, or another writes it."""
        row = feed.row
        if turn is not None and turn.status == IN_PROGRESS and turn is not row and (row is None or turn.fence == row.fence):
            return  # it goes on after all
        if row is not None and turn is not row:
            feed.take_usage()
            if feed.prompt:
                row.trim, row.turns_left_out = feed.prompt.trim(feed.id), feed.prompt.left_out
            if turn is None or row.turns_left_out or row.usage != row.counted:
                row.store_usage()
        with self._lock:
            if self._feeds.get(feed.id) is feed:  # else another one has taken its place
                del self._feeds[feed.id]
            self._written.discard(feed)
        feed.end(Turn(**turn.__data__ | feed.failure) if feed.failure and turn is row else turn)
        if row is not None:
            feed.leaving.close()
            feed.call.hang_up()
            feed.log(turn)
