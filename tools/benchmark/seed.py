"""Fills a database as years of use would: with a user with many sessions, one of which is long; or
with one with many long turns.

Run it with the database's URL, the owner, and the number of sessions as its arguments; it prints
the id of the long session. With `turns` as a fourth argument, the number is that of turns, in
sessions of two to fifty turns, of 200 to 4,000 characters each, one in five in Chinese, among as
many of other users. With `pictures`, every other message of the long session has a picture, which
is not stored.
"""

import itertools
import pathlib
import random
import sys
import uuid

from peewee import chunked

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import models
from database import SECOND, db, open_database
from files import File, column_of
from maintenance.migrations import MIGRATIONS
from raw_tables import tables_of
from tables.search import normalize

SESSION_COLUMNS = "id owner title folded_title title_is_users model preview created_at updated_at"
TURN_COLUMNS = "id session_id content folded created_at shown cancelled kind model status"
TURNS = 200  # of the long session; the others have two
TEXT = "Use a sorted set for each address: drop what is older than the window, count the rest, and answer 429."
PICTURE = File("9f86d081884c7d65" * 4, "image/jpeg", 1512, 2016, 1_834_021)


def seed(owner, count, pictures=False):
    now = db.now()
    sessions = [
        {
            "id": uuid.uuid4(),
            "owner": owner,
            "title": f"Rate limits, part {number}",
            "search_title": f"rate limits, part {number}",
            "model": "m-fast",
            "preview": TEXT[: models.PREVIEW],
            "created_at": now - number * SECOND,
            "updated_at": now - number * SECOND,
        }
        for number in range(count)
    ]
    lengths = [TURNS] + [2] * (count - 1)
    turns = [
        turn(session, place)
        for session, length in zip(sessions, lengths, strict=True)
        for place in range(length)
    ]
    if pictures:
        for message in turns[:TURNS:4]:
            message["files"] = column_of([PICTURE])
    insert(models.Session, sessions)
    insert(models.Turn, turns)
    return sessions[0]["id"]


def turn(session, place):
    turn = {
        "session": session["id"],
        "content": TEXT,
        "search_text": TEXT.lower(),
        "created_at": session["created_at"],
        "files": None,
    }
    if place % 2 == 0:
        return turn | {"kind": "user", "model": None, "status": None}
    return turn | {"kind": "assistant", "model": "m-fast", "status": models.COMPLETE}


def insert(table, rows):
    for batch in chunked(rows, 1000):
        with db.write():
            table.insert_many(batch).execute()


def seed_turns(url, owner, count):
    """By SQL alone. The turns come in the order of their times, as they do when people write."""
    chance, now = random.Random(1), 1_760_000_000 * SECOND
    latin = "".join(
        (ROOT / name).read_text("utf-8")
        for name in ("docs/operating.md", "docs/growing.md", "CHANGELOG.md", "models.py")
    )
    chinese = "".join(chr(0x4E00 + int(chance.expovariate(1 / 400))) for _ in range(len(latin)))
    folded, ids = {text: normalize(text) for text in (latin, chinese)}, itertools.count(2**60)
    with tables_of(url) as tables:
        while count > 0:
            sessions, times = [], []
            for number in range(200):
                key, now = uuid.UUID(int=chance.getrandbits(128), version=4).hex, now + SECOND
                size, whose = chance.choice((2, 2, 4, 4, 6, 10, 20, 50)), f"{owner}-{number}"
                if number % 2:
                    size, whose = min(size, count), owner
                    count -= size
                sessions.append(
                    (
                        key,
                        whose,
                        "Rate limits",
                        "rate limits",
                        False,
                        "m-fast",
                        TEXT[: models.PREVIEW],
                        now,
                        now,
                    )
                )
                times += [(now + place * 60 * SECOND, key, place % 2) for place in range(size)]
            turns = []
            for time, key, is_reply in sorted(times):
                text, length = (
                    chance.choice((latin,) * 4 + (chinese,)),
                    int(200 * 20 ** chance.random()),
                )
                start = chance.randrange(len(text) - length)
                texts = text[start : start + length], folded[text][start : start + length]
                says = (
                    ("assistant", "m-fast", models.COMPLETE) if is_reply else ("user", None, None)
                )
                turns.append((next(ids), key, *texts, time, True, False, *says))
            tables.fill("session", SESSION_COLUMNS.split(), sessions)
            tables.fill("turn", TURN_COLUMNS.split(), turns)


if __name__ == "__main__":
    url, owner, count, *what = sys.argv[1:]
    open_database({"DATABASE_URL": url}, None, MIGRATIONS)
    if what == ["turns"]:
        seed_turns(url, owner, int(count))
    else:
        with db.connection_context():
            print(seed(owner, int(count), "pictures" in what))
