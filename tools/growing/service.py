"""A whole service, as its database sees it: the keepers of many processes, and the requests of
their users, in slow motion.

Each process is the product's own `Replies`, with its own statements, in two threads, each with a
connection: one is the keeper, the other makes the requests. Only the providers are missing: words
come by the clock.
"""

import contextlib
import pathlib
import queue
import random
import re
import threading
import time
import uuid
from collections import Counter

import database
import models
from database import connection, db, limit_time, transaction
from limits import Slot
from maintenance.migrations import MIGRATIONS
from models import COMPLETE, Session, Turn, outcome_of
from product import ROOT
from providers.answer import Answer
from replies import Replies, claim, commits, keeper, rescuer
from replies.claim import ReplyRequest
from replies.reply import Reply
from settings import read_settings
from tables.idempotency import IdempotencyKey
from turns import pages_before, read_page

LETTERS = 6  # of each word, with the space after it: so the place of a word in its text is known
# From a real text, since the database compresses random words less well.
WORDS = [
    word[: LETTERS - 1].ljust(LETTERS)
    for word in re.findall("[A-Za-z]+", (ROOT / "README.md").read_text("utf-8"))
]
QUESTION = 50  # words
NEW, ELSEWHERE = (
    0.25,
    0.1,
)  # of the replies: those that begin a session, and those that another process follows
PER_USER = 4  # replies
BUSY = 0.004  # seconds from a commit to the next, without the gathering: tools/benchmark has 60 replies with 100 commits a second
NAP = 0.2  # seconds, after which a thread looks at the clock again
PROMPT = 4000  # bytes of a prompt


def text_of(count):
    return "".join(random.choices(WORDS, k=count))


def new_session():
    return {"title": text_of(8), "model": "m-1", "system": None, "options": {}}


class Clock:
    """The service's time. One of its seconds takes so many of ours."""

    def __init__(self, slower):
        self._pace = (
            0.0,
            time.monotonic(),
            slower,
        )  # its time then, ours, and how slow it has been since

    def now(self):
        then, began, slower = self._pace
        return then + (time.monotonic() - began) / slower

    def set(self, slower):
        self._pace = self.now(), time.monotonic(), slower

    def wait_until(self, moment):
        time.sleep(max(0.0, min(NAP, (moment - self.now()) * self._pace[2])))


class Meter:
    """The processor time of the server's process for this thread's connection, by kind of request."""

    def __init__(self):
        self._stat = pathlib.Path(f"/proc/{db.connection().info.backend_pid}/schedstat")
        self._kind, self._at = None, self._read()
        self.seconds, self.times = Counter(), Counter()

    def _read(self):
        return int(self._stat.read_text().split()[0]) / 1e9

    def begin(self, kind):
        """From now on, requests of this kind are made. The processor time since the last call is
        that of the kind before."""
        at = self._read()
        self.seconds[self._kind] += at - self._at
        self.times[kind] += 1
        self._kind, self._at = kind, at


@transaction
def claim_all(claims):
    """Their drafts. Two of so many may have the same id by chance: then all are made again."""
    return [ReplyRequest.commit.__wrapped__(claim).draft for claim in claims]


class Process(Replies):
    """One process. Its threads are those of this class: the keeper's steps are done by the clock,
    and no provider is read."""

    def __init__(self, service):
        super().__init__(None, read_settings({}))
        self.service, self.clock = service, service.clock
        self.questions = queue.SimpleQueue()  # (owner, session or None) of a reply to be requested
        self.texts = {}  # reply in progress → (when its first word comes, its text)
        self.read_here = []  # feeds of another process's replies
        self.words = 0  # that have been stored

    def start_keeper(self):
        pass

    def _run_in_thread(self, target, *args):
        return True

    def answer(self, meter):
        """The requests of its users."""
        while not self.service.over.is_set():
            with contextlib.suppress(queue.Empty):
                owner, session = self.questions.get(timeout=NAP)
                limit_time()
                meter.begin("a question: the claim of its reply, the turns for the model")
                reply = self.ask(owner, session)
                list(pages_before(reply.session.key, reply.id))
                meter.begin("a page of sessions and one of turns, for each question")
                Session.page(owner, 20, 0, [])
                read_page(reply.session, 50)

    def ask_at_once(self, owners):
        """A reply for each, in one transaction: one by one, this would take longer than all that is
        measured."""
        claims = [
            ReplyRequest(owner=owner, content=text_of(QUESTION), new=new_session())
            for owner in owners
        ]
        for draft in claim_all(claims):
            memory = Slot(self.memory_bulkhead, draft.turn.session.owner)
            reply = Reply(draft, contextlib.ExitStack(), memory)
            self.start_writing(reply)
            self._call(reply)

    def ask(self, owner, session):
        key = IdempotencyKey(
            owner=owner,
            path=f"/sessions/{session}",
            key=uuid.uuid4().hex,
            fingerprint=uuid.uuid4().hex * 2,
        )
        key.is_known()
        if session:
            Session.get_owned(owner, session)
        new = None if session else new_session()
        asked = ReplyRequest(
            owner=owner, content=text_of(QUESTION), new=new, session_id=session, key=key
        )
        _, reply = self.start(asked, watched=True, memory=Slot(self.memory_bulkhead, owner))
        self._call(reply)
        return reply

    def _call(self, reply):
        """Its provider begins to answer."""
        Answer(reply.exchange, 600, self.max_tokens, PROMPT)
        self.texts[reply] = self.clock.now(), text_of(self.service.length)

    def keep(self, meter):
        """The keeper's work, when it is due."""
        pauses = (
            BUSY,
            keeper.POLL_INTERVAL_ELSEWHERE,
            rescuer.CHECK_INTERVAL,
        )  # no two processes begin at the same moment
        store, poll, look = (self.clock.now() + random.random() * pause for pause in pauses)
        while not self.service.over.is_set():
            self.clock.wait_until(min(store, poll, look))
            now = self.clock.now()
            limit_time()
            if now >= store:
                self._write(now, meter)
                gathering = min(
                    keeper.COMMIT_INTERVAL_PER_REPLY * len(self.registry.written()),
                    keeper.MAX_COMMIT_INTERVAL,
                )
                store = now + gathering + BUSY
            if now >= poll:
                self._read_elsewhere(meter)
                meter.begin("news of replies, and words of those that another process writes")
                self.keeper.poll()
                poll = now + (
                    keeper.POLL_INTERVAL_ELSEWHERE if self.read_here else keeper.POLL_INTERVAL
                )
            if now >= look:
                meter.begin("leases: renewed, and looked for")
                self.keeper.check()
                look = now + rescuer.CHECK_INTERVAL

    def _write(self, now, meter):
        """Store the words that have come."""
        growing, ending = [], []
        for reply, (begun, text) in list(self.texts.items()):
            have, due = (
                len(reply.text),
                min(len(text), int((now - begun) * self.service.pace) * LETTERS),
            )
            if due > have:
                reply.receive(text[have:due])
                self.words += (due - have) // LETTERS
                (ending if due == len(text) else growing).append(reply)
        if growing:
            meter.begin("words stored, of all replies of a process")
            self.keeper.store(growing)
        for reply in ending:
            meter.begin("the end of a reply")
            self.finish([reply])
            self.questions.put(
                (reply.session.owner, None if random.random() < NEW else reply.session.id)
            )

    def finish(self, ending):
        for reply in ending:
            reply.exchange.answers[-1].usage = {
                "input_tokens": PROMPT // 4,
                "output_tokens": self.service.length,
            }
            reply.finish(outcome_of(COMPLETE, stop_reason="stop"))
            del self.texts[reply]
        self.keeper.store(ending)

    def _read_elsewhere(self, meter):
        self.read_here = [feed for feed in self.read_here if feed.state is None]
        while len(self.read_here) < ELSEWHERE * len(self.texts):
            others = list(random.choice(self.service.processes).texts)
            meter.begin("a reader who comes to another process")
            if (turn := Turn.read(random.choice(others).id)) is not None:
                self.read_here.append(self.follow(turn, watched=True))


class Service:
    """So many processes on the database of this URL, each with so many replies in progress, of
    `length` words, `pace` a second."""

    def __init__(self, url, processes, each, length, pace, slower):
        connection.CONNECTIONS = 2 * processes + 2  # of all of them together
        database.open_database({"DATABASE_URL": url}, None, MIGRATIONS)
        for module in (models, claim, commits, keeper):
            module.LEASE = int(models.LEASE * slower) if module is models else models.LEASE
        self.clock, self.each, self.length, self.pace = Clock(slower), each, length, pace
        self.over, self.meters, self.threads, self.failures = threading.Event(), [], [], []
        self.processes = [Process(self) for _ in range(processes)]

    def begin(self):
        """Request every reply, and put it somewhere in its text."""
        with db.connection_context():
            for number, process in enumerate(self.processes):
                first = number * self.each
                process.ask_at_once(
                    f"user-{place // PER_USER}" for place in range(first, first + self.each)
                )
            written = [
                (process, reply, random.randrange(self.length))
                for process in self.processes
                for reply in process.texts
            ]
            rows = ", ".join(f"({reply.id}, {words})" for _, reply, words in written)
            # Words that came at one time are next to each other, as they are when all replies are
            # stored together.
            reply = f"(VALUES {rows}) AS reply (id, words), generate_series(0, words - 1) AS word ORDER BY words - word DESC"
            db.execute_sql(
                f"INSERT INTO piece (turn_id, start, text) SELECT id, word * {LETTERS}, 'words ' FROM {reply}"
            )
        for process, reply, words in written:
            _, text = process.texts[reply]
            process.texts[reply] = self.clock.now() - words / self.pace, text
            reply.update(text=text[: words * LETTERS])
        for process in self.processes:
            self._run(process.answer)
            self._run(process.keep)

    def _run(self, function):
        def run():
            try:
                with db.connection_context():
                    self.meters.append(meter := Meter())
                    function(meter)
            except Exception as error:
                self.failures.append(error)
                raise

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.threads.append(thread)

    def end(self):
        """Stop all requests and writes; every reply ends."""
        self.over.set()
        for thread in self.threads:
            thread.join()
        with db.connection_context():
            for process in self.processes:
                process.finish(list(process.texts))

    def asked(self):
        """The server's load so far: (kind → seconds of processor time), (kind → how often), how
        many words were stored."""
        if self.failures:
            raise self.failures[0]
        meters = list(self.meters)
        seconds, times = (
            sum((getattr(meter, name).copy() for meter in meters), Counter())
            for name in ("seconds", "times")
        )
        return seconds, times, sum(process.words for process in self.processes)
