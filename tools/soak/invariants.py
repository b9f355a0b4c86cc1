"""What must hold when a soak is over, besides what tools/audit finds in its history."""

import collections
import time

from askers import Asker, AskersReader
from modelled import not_of_the_model
from observed import observed
from raw_tables import tables_of
from talker import mark_of, new_mark, wrong_words
from users import PATIENCE, USERS

REST = 60  # seconds: an orphan waits for half a minute, and its model talks for as long
SAMPLE = 5  # sessions of each user that we try to continue
BAD_LINES = (
    "Traceback",
    "a thread died",
    "the keeper failed",
    "a stream failed",
    "does not take a reply",
    "WORKER TIMEOUT",
)


def list_titles(client):
    """session → its title, of all that this client sees."""
    titles, more = {}, True
    while more:
        page = client.get(f"/sessions?page[limit]=100&page[offset]={len(titles)}").json()
        titles |= {session["id"]: session["title"] for session in page["data"]}
        more = page["meta"]["has_more"]
    return titles


def turns_at_rest(client, session, deadline):
    """The turns of a session, once no reply is in progress."""
    while (turns := client.turns({"id": session}))[-1]["status"] == "in_progress":
        assert time.monotonic() < deadline, "it is stuck"
        time.sleep(0.2)
    return turns


def in_pairs(turns):
    """Each message, and the reply to it."""
    return zip(turns[::2], turns[1::2], strict=True)


def problems_of(turns):
    """What is wrong with the turns of a session at rest."""
    if [turn["kind"] for turn in turns] != ["user", "assistant"] * (len(turns) // 2):
        yield f"its turns are {[turn['kind'] for turn in turns]}"
        return
    for message, reply in in_pairs(turns):
        mark, is_complete = mark_of(message["content"]), reply["status"] == "complete"
        for problem in wrong_words(mark, reply["content"], is_complete):
            yield f"the reply {reply['id']} to {mark}: {problem}"


def counts_of(turns):
    """How replies ended, and how many of them had been continued."""
    counts = collections.Counter()
    for reply in turns[1::2]:
        counts[reply["status"]] += 1
        counts["went on"] += reply["continued"] > 0
        for_want = reply["error"] and "database" in reply["error"]["message"]
        counts["failed for want of the database"] += bool(for_want)
    return counts


class Ending:
    """What there is in the end, as each of the owners sees it."""

    def __init__(self, service, users, chance):
        self.service, self.users, self.chance = service, users, chance
        self.notes, self.talker = service.notes, service.talker
        notes = service.notes
        self.askers = {subject: Asker(service, subject, chance, notes) for subject in USERS}
        self.still_asked = self.talker.wait_until_silent(PATIENCE)
        self.titles = {subject: list_titles(asker) for subject, asker in self.askers.items()}
        self.deleted = set().union(*(user.deleted for user in users))
        self.turns, self.unreadable = {}, []  # session → its turns; sessions without any
        self.counts = collections.Counter()
        self._read(time.monotonic() + REST)

    def _read(self, deadline):
        for subject, session in self.listed():
            try:
                turns = self.turns[session] = turns_at_rest(self.askers[subject], session, deadline)
            except Exception as problem:  # an assertion, or a session that is not shown
                self.unreadable.append(f"{session}: {problem!r}")
            else:
                self.counts += counts_of(turns)

    def listed(self):
        return [(subject, session) for subject, titles in self.titles.items() for session in titles]

    def replies(self):
        """Each mark of a message, and the reply to it."""
        for turns in self.turns.values():
            for message, reply in in_pairs(turns[: len(turns) // 2 * 2]):
                yield mark_of(message["content"]), reply

    def title_of(self, session):
        return next(each[session] for each in self.titles.values() if session in each)


def told_wrongly(ending):
    for user in ending.users:
        yield from (f"{user.subject}, {problem}" for problem in user.problems)
    yield from ending.notes.problems


def at_no_rest(ending):
    return [*ending.unreadable, *(f"the model is asked: {call}" for call in ending.still_asked)]


def interrupted(ending):
    for mark, reply in ending.replies():
        if reply["status"] == "interrupted" and mark not in ending.notes.cancelled:
            yield f"the reply {reply['id']} to {mark}"


def failed(ending):
    for _, reply in ending.replies():
        if reply["status"] == "failed" and reply["error"]["status"] not in (502, 503, 504):
            yield f"the reply {reply['id']}: {reply['error']}"


def retitled(ending):
    """A title is the last that a user gave, or else begins as the first message does."""
    for session, turns in ending.turns.items():
        title, given = ending.title_of(session), ending.notes.titles.get(session)
        is_own = title == given if given else title.startswith(mark_of(turns[0]["content"]))
        if not is_own:
            yield f"{session} has the title {title!r}, and was given {given!r}"


OWNED = "FROM turn JOIN session ON session.id = turn.session_id WHERE owner = ?"
REPLIES = f"SELECT count(*) {OWNED} AND kind = 'assistant'"
COUNTED = "SELECT sum(replies) FROM usage WHERE owner = ?"


def miscounted(ending):
    """Replies of the first owner, who deletes none: each counts once, and once more for each time
    it was continued."""
    askers = [user.client for user in ending.users if user.subject == USERS[0]]
    with tables_of(ending.service.url) as tables:
        made, used = tables.value(REPLIES, USERS[0]), tables.value(COUNTED, USERS[0]) or 0
    asked_for = made + sum(asker.continued for asker in askers)
    if not asked_for <= used <= asked_for + sum(asker.unsure for asker in askers):
        yield f"{made} replies were asked for {asked_for} times, and {used} are counted"


def unknown_steps(ending):
    """Steps that replies took in the database, and that no rule of tools/model takes."""
    steps = [step for _, step in observed(ending.service.url)]
    ending.notes.figures["steps of replies"] = len(steps)
    return not_of_the_model(steps)


def late(ending):
    return ending.notes.late()


def cut_off(ending):
    return ending.notes.cut_off()


def bad_lines(ending):
    for path in ending.service.logs:
        log = path.read_text()
        yield from (f"{line} in {path.name}" for line in BAD_LINES if line in log)


def none_went_on(ending):
    return [] if ending.counts["went on"] else [f"of {sum(ending.counts.values())}"]


def stuck(ending):
    """Each session takes a message, and the stream of its reply is what is stored."""
    ending.talker.is_well = True
    for subject, asker in ending.askers.items():
        sessions = sorted(ending.titles[subject])
        for session in ending.chance.sample(sessions, min(SAMPLE, len(sessions))):
            yield from (f"{session}: {problem}" for problem in goes_on(asker, session))


def goes_on(asker, session):
    body = {"content": f"{new_mark(asker.chance)} And now?"}
    response = asker.post(f"/sessions/{session}/messages", body)
    if response.status_code not in (201, 202):
        yield f"it takes no message: {response.status_code} {response.text[:200]}"
        return
    text = AskersReader(asker, {"id": session}).follow(PATIENCE).text
    last = asker.turns({"id": session})[-1]
    if (last["status"], last["content"]) != ("complete", text):
        yield f"its last reply is {last['status']}, or not what was read of it"


INVARIANTS = {  # what must hold → a function of the ending that returns what does not hold
    "no user was told what is wrong": told_wrongly,
    "every session comes to rest": at_no_rest,
    "no reply was interrupted that nobody cancelled": interrupted,
    "no reply failed but by its provider, or for want of the database": failed,
    "titles are those that users gave, and stay": retitled,
    "the ledger counts each reply once": miscounted,
    "each step of a reply is one of the table of its states": unknown_steps,
    "every request was answered in time": late,
    "nobody lost his connection but to a process that died or had ended its grace": cut_off,
    "no log has anything bad": bad_lines,
    "some replies went on behind a break": none_went_on,
    "every session goes on": stuck,
}


def problems(ending):
    """What does not hold, in the order of the table: the last one sends requests of its own."""
    for what, check in INVARIANTS.items():
        try:
            yield from (f"{what}: {each}" for each in check(ending))
        except Exception as problem:  # it cannot be looked at
            yield f"{what}: {problem!r}"
