"""Fill a database as years of use would: a user with many sessions, one of which is long.

Run it with the database's URL, the owner, and the number of sessions as its arguments; it prints the id of the long one.
"""

import pathlib
import sys
import uuid

from peewee import chunked

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent.parent))

import models
from database import SECOND, db, open_database
from migrations import MIGRATIONS

TURNS = 200  # of the long session; the others have two
TEXT = "Use a sorted set for each address: drop what is older than the window, count the rest, and answer 429."


def seed(owner, count):
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
    turns = [turn(session, place) for session, length in zip(sessions, lengths) for place in range(length)]
    insert(models.Session, sessions)
    insert(models.Turn, turns)
    return sessions[0]["id"]


def turn(session, place):
    turn = {"session": session["id"], "content": TEXT, "search_text": TEXT.lower(), "created_at": session["created_at"]}
    if place % 2 == 0:
        return turn | {"kind": "user", "model": None, "status": None}
    return turn | {"kind": "assistant", "model": "m-fast", "status": models.COMPLETE}


def insert(table, rows):
    for batch in chunked(rows, 1000):
        with db.write():
            table.insert_many(batch).execute()


if __name__ == "__main__":
    url, owner, count = sys.argv[1:]
    open_database({"DATABASE_URL": url}, None, MIGRATIONS)
    with db.connection_context():
        print(seed(owner, int(count)))
