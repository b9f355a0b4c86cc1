"""What the statements of `queries.sql` find and change, and in which rows: there are always other rows, which must stay."""

import pytest

from stepped import run_stepped

ROWS = """
import itertools
import processes
import turns as pages
from models import COMPLETE, FAILED, Missing, Piece, Refused, Session, Thought, Turn, outcome_of
from replies.claim import UnconfirmedClaim
from replies.draft import Draft
from tables import given
from tables.idempotency import IdempotencyKey
from tables.ledger import Entry, Usage
from transfer import exports, forks

ids = itertools.count(1)


def session(owner="alice", title="", **columns):
    times = {"created_at": 1, "updated_at": next(ids)}
    return Session.create(
        owner=owner, title=title, search_title=title, model="m-1", **times | columns
    )


def turn(of=None, content="", kind="assistant", **columns):
    columns = {"status": COMPLETE, "created_at": 1, "fence": 1, "model": "m-1"} | columns
    texts = {"content": content, "search_text": content}
    return Turn.create(id=next(ids), session=of or session(), kind=kind, **texts, **columns)


def under_way(*texts, of=None, **columns):
    made = turn(of, status="in_progress", **HELD | columns)
    for number, text in enumerate(texts):
        Piece.create(turn=made, start=len("".join(texts[:number])), text=text)
    return made


def again(row):
    return type(row).get_by_id(row.id)


def ended(reply, context_start=None, **outcome):
    read = Turn.read(reply.id)
    read.session = again(read.session)
    draft = Draft.of(read, **outcome_of(**outcome), lease_until=None)
    draft.context_start = context_start
    commits.store([], [draft])()


db.connect()
SECOND = 1_000_000
HELD = {"lease_until": db.now() + 60 * SECOND, "writer": "elsewhere/1/1"}
found = {}
for name, script in json.loads(sys.argv[2]).items():
    for table in (IdempotencyKey, Usage, Piece, Thought, Turn, Session):
        table.delete().execute()
    scope = dict(globals())
    exec(script, scope)
    found[name] = scope["told"]
print(json.dumps(found))
"""

TEN = "x" * 10
ENDING = """
here, elsewhere = session(preview="Before"), session(preview="Elsewhere")
replaced = turn(here, "Old", visible=False)
retry = under_way("New", of=here, replaces=replaced.id)
hidden = turn(elsewhere, "Hidden", visible=False)
turn(elsewhere, "Failed", visible=False, replaces=hidden.id)
turn(elsewhere, "Shown")
other = under_way("Other", of=elsewhere)
at_rest = session(preview="At rest")
turn(at_rest, "Its only turn")
ended(retry, **{})
is_visible = [again(row).visible for row in (replaced, retry, hidden, other)]
pieces = [piece.turn_id == other.id for piece in Piece.select()]
told = [is_visible, pieces, [again(each).preview for each in (here, elsewhere, at_rest)]]
"""
CASES = {
    "what was thought is read from a position on": (
        """
one, other = turn(), turn()
for start, text in ((4, "two "), (0, "One ")):
    Thought.create(turn=one, start=start, text=text)
Thought.create(turn=other, start=0, text="Other")
read = [commits.read_thoughts({one.id: start, other.id: 1}) for start in (0, 2, 4, 6, 8)]
told = [[each[one.id], each[other.id]] for each in read]
""",
        [[text, "ther"] for text in ("One two ", "e two ", "two ", "o ", "")],
    ),
    "what was thought is copied of these turns alone": (
        """
one, other, copy = turn(), turn(), turn()
Thought.create(turn=one, start=0, text="One")
Thought.create(turn=other, start=5, text="Other")
db.execute(given("copy_thoughts", [(one.id, copy.id)]))
told = Thought.text_of(copy.id)
""",
        "One",
    ),
    "the text of a reply in progress is read from a position on": (
        """
first = under_way("One ", "two ", "three", of=session(title="First"))
second = under_way("Another", " text", of=session(title="Second"))
under_way("nobody", "asks")
told = []
for start in (0, 2, 4, 6, 8, 13, None):
    news = commits.read_news({first.id: start, second.id: 7})
    assert set(news) == {first.id, second.id}
    told.append([f"{news[each.id].title}: {news[each.id].text}" for each in (first, second)])
""",
        [
            [f"First: {text}", "Second:  text"]
            for text in ("One two three", "e two three", "two three", "o three", "three", "", "")
        ],
    ),
    "replies in progress are found among others": (
        """
ended = turn(content="Ended")
told = [Turn.is_any_in_progress()]
reply = under_way("Text")
under_way("nobody", "asks")
told += [Turn.is_any_in_progress()]
told += [each.content for each in Turn.read_in_progress([ended.id, reply.id])]
""",
        [False, True, "Text"],
    ),
    # Not one that has ended, is being deleted, or whose process may be alive.
    "orphans are replies in progress whose lease or process is gone": (
        """
machine, number, start = processes.this_process().split("/")
rows = {
    "held elsewhere": under_way(),
    "released": under_way(lease_until=0),
    "lapsed": under_way(lease_until=5),
    "of the future": under_way(lease_until=db.now() + 3600 * SECOND),
    "ended": turn(lease_until=0),
    "being deleted": under_way(lease_until=0, of=session(owner="")),
    "held here": under_way(writer=processes.this_process()),
    "of a dead process": under_way(writer=f"{machine}/{number}/{int(start) - 1}"),
    "lapsed, of 1.0.0": under_way(writer=None, lease_until=5),
}
names = {row.id: name for name, row in rows.items()}
Turn.update(lease_until=db.now() + 10 * SECOND).where(Turn.lease_until == HELD["lease_until"]).execute()
alive = {rows["of a dead process"].writer}
for _ in range(2):
    told = sorted(names[orphan.turn_id] for orphan in commits.find_orphans(alive))
""",
        ["lapsed", "lapsed, of 1.0.0", "of a dead process", "of the future", "released"],
    ),
    "a retry that is complete takes the place of a reply": (
        ENDING.format({"status": "complete"}),
        [[False, True, False, True], [True], ["New", "Elsewhere", "At rest"]],
    ),
    "a retry that has failed gives way to it": (
        ENDING.format({"status": "failed", "error_status": 502}),
        [[True, False, False, True], [True], ["Old", "Elsewhere", "At rest"]],
    ),
    # Not for a message that was refused as too long, and not for another model.
    "where a model's memory begins is stored with the reply": (
        """
told = []
for status, model in ((None, "m-1"), (None, "m-2"), (413, "m-1"), (502, "m-1")):
    reply = under_way("Text")
    Session.update(model=model).where(Session.id == reply.session_id).execute()
    ended(reply, 7, status=FAILED if status else COMPLETE, error_status=status)
    told.append([again(reply.session).context_start, again(reply).visible])
""",
        [[7, True], [None, True], [None, True], [7, True]],
    ),
    "a search finds sessions of its owner by title and by what is shown": (
        """
turn(session(title="apple"))
turn(session(title="pear"), "apple pie")
turn(session(title="fig"), "apple", visible=False)
under_way("One ", "two", of=session(title="plum", preview="Before"))
turn(session("bob", "apple"))
under_way("Bob's", of=session("bob"))
pages_of_words = [
    Session.page("alice", 9, 0, words)[0] for words in (["apple"], ["apple", "pie"], ["kiwi"], [])
]
told = [[f"{each.title} {each.preview}".strip() for each in page] for page in pages_of_words]
""",
        [["pear", "apple"], ["pear"], [], ["plum One two", "fig", "pear", "apple"]],
    ),
    "a claim that is taken back leaves the preview of what is shown": (
        """
of = session(preview="Sent")
turn(of, "Shown")
turn(of, "Hidden", visible=False)
sent, reply = turn(of, "Sent", kind="user"), under_way(of=of)
taken_back = UnconfirmedClaim(reply.id, 1, of.id, sent.id, False, False, None)._take_back()
told = [taken_back, again(of).preview]
""",
        [True, "Shown"],
    ),
    # A failed retry comes after the reply that it did not replace.
    "a retry replaces what is shown, and that is continued, by its owner alone": (
        """
def of(owner="alice", **given):
    here = session()
    rows = [turn(here, "Hi", kind="user"), turn(here, "Shown", stop_reason="length")]
    rows.append(turn(here, "Hidden", visible=False))
    try:
        draft = ReplyRequest(owner=owner, session_id=here.id, **given).commit().draft
    except Missing:
        return "missing"
    found = draft.turn.replaces if "retry" in given else draft.turn.id
    return [row.id for row in rows].index(found)


told = [of(retry=True), of(continues_last=True), of("bob", retry=True)]
""",
        [1, 1, "missing"],
    ),
    "a key that is forgotten is its owner's alone": (
        """
for owner in ("alice", "bob"):
    key = IdempotencyKey(owner=owner, path="/sessions", key="key", fingerprint="")
    key.remember(session().id, 1, 1)
key.forget()
told = [key.owner for key in IdempotencyKey.select()]
""",
        ["alice"],
    ),
    # The process that wrote the reply can no longer say it.
    "what a reply has used is estimated once its process is gone": (
        """
told, later = [], HELD["lease_until"]
machine, number, start = processes.this_process().split("/")
dead, alive = f"{machine}/{number}/{int(start) - 1}", HELD["writer"]
for is_cancelled, lease, writer in (
    (False, later, alive), (True, later, alive), (True, 5, alive), (True, later, dead)
):
    reply = under_way("Half", lease_until=lease, writer=writer, unbilled_bytes=396)
    commits.interrupt([Turn.read(reply.id)], ["half"], is_cancelled)
    told.append(again(reply).estimated_tokens)
for is_cancelled, fence in ((True, 1), (False, 1), (True, None)):
    here = session()
    turn(here, "Hi", kind="user")
    reply = turn(
        here, "Half", status="interrupted", cancelled=is_cancelled, fence=fence, unbilled_bytes=396
    )
    ReplyRequest(owner="alice", session_id=here.id, continues_last=True).commit()
    told.append(again(reply).estimated_tokens)
""",
        [100, 0, 100, 100, 100, 0, 0],
    ),
    "a continue that was handed over before a word counts once": (
        """
told = []
for lease in (0, 5):
    reply = under_way("Half", content="Half", lease_until=lease)
    told.append(commits.take_over(reply.id, lease, 3, 9).turn.continued)
""",
        [0, 1],
    ),
    "a session that is deleted meanwhile is neither exported nor forked": (
        """
told = []
for owner in ("alice", ""):
    original = session()
    turn(original, "Text")
    cursors = exports._cursors("alice", None)
    db.connect(reuse_if_open=True)
    Session.update(owner=owner).execute()
    lines = b"".join(part.data for part in exports._lines("alice", cursors, 1_000_000))
    told.append(str(original.id) in lines.decode())
    db.connect(reuse_if_open=True)
    try:
        with db.write():
            forks._lock_original(original)
        told.append("held")
    except Refused:
        told.append("refused")
""",
        [True, "held", False, "refused"],
    ),
    "usage is named as long as its turn or other usage names the owner": (
        """
session("carol")
turns_of = {"its turn": turn().id, "another one's": turn(session("bob")).id, "none": 0, "usage": 0}
owners = {"its turn": "alice", "another one's": "carol", "none": "bob", "usage": "dave"}
Usage.create(owner="dave", day="1970-01-01", model="old")
for model, turn_id in turns_of.items():
    Usage.add([Entry(turn_id, owners[model], 1, model, [1, 1, 1, 1])])
told = {row.model: row.owner for row in Usage.select()}
""",
        {"old": "dave", "its turn": "alice", "another one's": "", "none": "", "usage": "dave"},
    ),
    # 1.0.0 does not store which one that is: it was asked for when the session last changed.
    "the latest reply is the one last asked for": (
        """
def latest(*turns, is_noted=True, updated_at=5):
    of = session(updated_at=updated_at)
    rows = [turn(of, **{"created_at": 5, "fence": None, "content": "text"} | each) for each in turns]
    if is_noted:
        Session.update(latest_reply=rows[1].id).where(Session.id == of.id).execute()
    turn(content="of another session", fence=None, created_at=5)
    state = Turn.latest_state(of.id)
    return [row.id for row in rows].index(state.id), state.size


user, old = {"kind": "user"}, {"created_at": 2}
under_way("elsewhere")
told = {
    "noted": latest(user, old, old | {"fence": 3}),
    "asked for by 1.0.0": latest(old, old, {}),
    "with a fence": latest(old, old, {"fence": 3}),
    "at another time": latest(old, old, {"created_at": 4}),
    "a message": latest(old, old, user),
    "before the one noted": latest({}, old),
    "none noted": latest(old, old, user, is_noted=False, updated_at=9),
    "in progress": latest({"status": "in_progress", "content": ""}, old, old),
}
""",
        {
            "noted": [1, 4],
            "asked for by 1.0.0": [2, 4],
            "with a fence": [1, 4],
            "at another time": [1, 4],
            "a message": [1, 4],
            "before the one noted": [1, 4],
            "none noted": [1, 4],
            "in progress": [0, 0],
        },
    ),
    "a page has the visible turns of its session within its limits": (
        """
here = session()
turn(content="before, in another session")
rows = [turn(here, "x" * 10) for _ in range(3)]
turn(here, "hidden", visible=False)
rows += [under_way("One ", "two", of=here)]
under_way("Another")
turn(here, "the longest, hidden", visible=False)
empty = turn().session
turn(content="the newest, in another session")
names = {row.id: number for number, row in enumerate(rows)}


def page(**limits):
    read = pages.read_page(here, **limits)
    return [[names[each.id], each.content] for each in read.turns], read.has_more


told = {
    "all": page(),
    "bytes": pages.read_page(here).size_of_all - 4 * pages.read_page(empty).size_of_all,
    "two": page(limit=2),
    "before": page(before=rows[2].id),
    "few bytes": page(most=1),
    "more bytes": page(most=900),
    "a long one": page(most_of_one=1, limit=1),
    "in pieces": [names[each.id] for some in pages.pages_of(here.key) for each in some],
    "newest, sum, number": [
        pages.size_of_newest(here.key),
        pages.size_of_all(here.key),
        pages.count_before(here.key, rows[3].id),
    ],
}
""",
        {
            "all": [[[0, TEN], [1, TEN], [2, TEN], [3, "One two"]], False],
            "bytes": 3 * 10 + len("One two") + len("in_progress") - len("complete"),
            "two": [[[2, TEN], [3, "One two"]], True],
            "before": [[[0, TEN], [1, TEN]], False],
            "few bytes": [[[3, "One two"]], True],
            "more bytes": [[[2, TEN], [3, "One two"]], True],
            "a long one": [[[3, None]], True],
            "in pieces": [0, 1, 2, 3],
            "newest, sum, number": [0, 4 * 400 + 3 * 10, 3],
        },
    ),
}


@pytest.fixture(scope="module")
def found(new_database):
    scripts = {name: script for name, (script, _) in CASES.items()}
    return run_stepped(ROWS, scripts, DATABASE_URL=new_database())


@pytest.mark.parametrize("name", CASES)
def test_a_statement_touches_only_its_rows(found, name):
    assert found[name] == CASES[name][1]
