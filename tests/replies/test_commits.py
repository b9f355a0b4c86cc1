"""Commits of a reply whose row another process has changed: they change nothing if it matters."""

import pytest

from stepped import run_stepped

# What may have happened to a row before a commit. `LEFT_UNDONE_BY` has, for each commit, what stops it.
HAPPENINGS = {
    "nothing": "fence = fence",
    "another writer": "fence = 7",
    "its end": "status = 'complete'",
    "a cancel": "status = 'interrupted', cancelled = TRUE",
    "another lease": "lease_until = 5",
    "more tokens": "output_tokens = 9",
    "restarts": "restarts = 3",
}
OVER = {"another writer", "its end", "a cancel"}
LEFT_UNDONE_BY = {
    "text": OVER,
    "thoughts": OVER - {"a cancel"},
    "count of thoughts": OVER - {"a cancel"},
    "thoughts anew": OVER - {"a cancel"},
    "tokens": OVER | {"more tokens"},
    "handing over": OVER | {"more tokens"},
    "end": OVER | {"more tokens"},
    "cancel": OVER | {"more tokens"},
    "end of an orphan": OVER | {"more tokens", "another lease"},
    "late usage": {
        "nothing",
        "another writer",
        "its end",
        "another lease",
        "more tokens",
        "restarts",
    },
    "restart": OVER | {"restarts"},
    "takeover": {"its end", "a cancel", "another lease", "restarts"},
    "lease": OVER,
    "undoing": OVER,
    "taking back": OVER,
}
LATE = """
from models import COMPLETE, Turn, outcome_of
from replies.claim import UnconfirmedClaim
from replies.commits import NewPiece
from replies.draft import Draft
from replies.thinking import NewThoughts

TABLES = {"turn": "id", "piece": "turn_id", "thought": "turn_id"}


def rows_of(feed):
    statements = (f"SELECT * FROM {table} WHERE {TABLES[table]} = {feed.id}" for table in TABLES)
    return [db.execute_sql(statement).fetchall() for statement in statements]


def is_whole(pieces, over):
    return bool(commits.store(pieces, over)().stored_whole)


def tokens(turn):
    draft = Draft.of(turn)
    draft.set(input_tokens=5)
    return bool(commits.store([], [], [draft])().counted)


def end(turn):
    draft = Draft.of(turn, **outcome_of(COMPLETE), content="All", search_text="all", lease_until=None)
    return is_whole([], [draft])


def think(turn, text="", replaces_stored=False, characters=None):
    new = NewThoughts(turn.id, turn.fence, 0, text, replaces_stored, characters, None)
    commits.store([], [], thoughts=[new])


def late_usage(turn):
    draft = Draft.of(turn)
    draft.set(input_tokens=5)
    commits.store_late_usage(draft)


def claim_of(turn, has_key):
    message = Turn.select(Turn.id).where(Turn.session == turn.session_id, Turn.kind == "user").scalar()
    return UnconfirmedClaim(turn.id, turn.fence, turn.session_id, message, False, has_key, None)


COMMITS = {
    "text": lambda turn: is_whole([NewPiece(turn.id, turn.fence, 9, "text")], []),
    "thoughts": lambda turn: think(turn, "Hm."),
    "count of thoughts": lambda turn: think(turn, characters=3),
    "thoughts anew": lambda turn: think(turn, replaces_stored=True),
    "tokens": tokens,
    "handing over": lambda turn: is_whole([], [Draft.of(turn)]),
    "end": end,
    "cancel": lambda turn: bool(commits.interrupt([turn], [""], cancelled=True)),
    "end of an orphan": lambda turn: bool(commits.interrupt([turn], [""], cancelled=False)),
    "late usage": late_usage,
    "restart": commits.count_restart,
    "takeover": lambda turn: bool(commits.take_over(turn.id, turn.lease_until, 3, 99)),
    "lease": lambda turn: bool(commits.renew({turn.id: turn.fence})()),
    "undoing": lambda turn: claim_of(turn, True).undo(),
    "taking back": lambda turn: claim_of(turn, False)._take_back(),
}
# The lease afterwards, and whether the fence is the same.
HELD = {"tokens": (1, True), "handing over": (0, True), "late usage": (1, False)}
left_undone = {name: [] for name in COMMITS}
with db.connection_context():
    other = begin()[1]
    db.execute_sql(f"INSERT INTO thought (turn_id, start, text) VALUES ({other.id}, 0, 'So.')")
    for name, commit in COMMITS.items():
        for happening, change in json.loads(sys.argv[2]).items():
            feed = begin()[1]
            db.execute_sql(f"INSERT INTO thought (turn_id, start, text) VALUES ({feed.id}, 5, 'Hm.')")
            db.execute_sql(f"UPDATE turn SET lease_until = 1 WHERE id = {feed.id}")
            turn = Turn.read(feed.id)
            # Chance may give a fence twice.
            db.execute_sql(f"UPDATE turn SET fence = {turn.fence}, lease_until = 1 WHERE id = {other.id}")
            db.execute_sql(f"UPDATE turn SET {change} WHERE id = {feed.id}")
            before, others = rows_of(feed), rows_of(other)
            told = commit(turn)
            is_done = rows_of(feed) != before
            assert told in (None, is_done), (name, happening, told)
            assert rows_of(other) == others, (name, happening)
            if not is_done:
                left_undone[name].append(happening)
            elif name in HELD and happening in ("nothing", "a cancel"):
                row = Turn.get_by_id(feed.id)
                assert (row.lease_until, row.fence == turn.fence) == HELD[name]
print(json.dumps(left_undone))
"""


@pytest.fixture(scope="module")
def left_undone(new_database):
    return run_stepped(LATE, HAPPENINGS, DATABASE_URL=new_database())


@pytest.mark.parametrize("commit", LEFT_UNDONE_BY)
def test_a_commit_does_nothing_if_its_row_has_changed(left_undone, commit):
    assert set(left_undone[commit]) == LEFT_UNDONE_BY[commit]


HELD_ELSEWHERE = """
import psycopg
from database import limit_time
from models import COMPLETE, Turn, outcome_of
from replies.draft import Draft

with db.connection_context():
    feeds = [begin()[1] for _ in range(3)]
    drafts = [Draft.of(Turn.read(feed.id), **outcome_of(COMPLETE), lease_until=None) for feed in feeds]
    for draft in drafts:
        draft.set(content="All", search_text="all")
    with psycopg.connect(sys.argv[2]) as other:
        for table, row in (("session", drafts[0].turn.session_id), ("turn", drafts[0].turn.id)):
            other.execute(f"SELECT id FROM {table} WHERE id = '{row}' FOR UPDATE")
        limit_time(3)
        print(json.dumps(len(commits.store([], drafts[1:])().stored_whole)))
"""


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)  # SQLite has no rows to lock
def test_a_commit_waits_only_for_its_own_rows(new_database):
    url = new_database()
    assert run_stepped(HELD_ELSEWHERE.replace("sys.argv[2]", repr(url)), DATABASE_URL=url) == 2
