"""A database that has everything there can be, and what clients and its tables show of a database."""

import threading
import uuid

from client import ALICE, BOB, wait_until
from commands import flask
from ledgers import APP, METRICS, metrics_of, use
from pictures import png
from provider import cut, fails, reply, status
from raw_tables import SQLITE_TABLES
from releases import Release100

CAROL = "https://github.com/carol"
FOLLOWED = "https://github.com/дора/🦉"
USERS = ALICE, BOB, FOLLOWED
SETTINGS = {
    "METRICS_TOKEN": METRICS,
    "RATE_LIMIT": "1000/day",
    "RETENTION_DAYS": 3000,
    "MAX_CONTENT_LENGTH": 4 * 2**20,
    "WEB_CONCURRENCY": 1,
}
OVERFLOW = status(400, {"error": {"message": "Too long", "code": "context_length_exceeded"}})
STRANGE = "Grüße 👩‍🚀\u202e שלום \ufffd \ufdfa \x01\x7f\x85\u2028 \"\\' ½ ﷽"
IMPORTED = {
    "turns": [
        {"kind": "user", "content": "Long ago", "created_at": "2023-01-02T03:04:05Z"},
        {"kind": "assistant", "content": "", "status": "interrupted", "model": "gpt-3"},
    ],
    "origin": "chatgpt:🦉",
}


def fill(server, provider, tables, folder, url):
    """Have users do all that they can do. In the end the server is killed while replies are in
    progress."""
    users = alice, bob, dora = [server.client(user) for user in USERS]
    for user in users:
        talk(user, provider)
    end_otherwise(alice, provider)
    long_texts(bob, provider)
    carol = server.client(CAROL)
    carol.create("Of one who is forgotten")
    ended = flask(folder, "--app", APP, "forget", "--yes", CAROL, DATABASE_URL=url)
    assert ended.returncode == 0, ended.stderr
    use(tables, ALICE, 2, replies=3, tokens=(2**40, 1, 2, 3))
    use(tables, "", 400, model="m-2", replies=9)
    old = Release100(tables)
    old.answered("Of 1.0.0", "An old ", "answer.")
    begin(alice, provider)
    begin(dora, provider)
    server.kill()
    _, turn_id = old.create("Under way since 1.0.0", lease=1)
    old.write(turn_id, "Half ", "of it")
    withdrawn, _ = old.create("Of a session that is being deleted")
    tables.rows("UPDATE session SET owner = '' WHERE id = ?", key_of(tables, withdrawn))
    half, _ = old.answered("Of a session that is being imported", "Half.")
    tables.rows(
        "UPDATE session SET owner = '', writer = 'gone', imported_at = 1, origin = 'chatgpt:1' WHERE id = ?",
        key_of(tables, half),
    )


def key_of(tables, session_id):
    session_id = uuid.UUID(str(session_id))
    return session_id.hex if tables.is_sqlite else session_id


def talk(user, provider):
    """Settings, titles, retries, a fork, an import, keys."""
    created = user.post(
        "/sessions",
        {"content": STRANGE, "system": "Be brief. 🦉", "options": {"temperature": 0.5}},
        Idempotency_Key="k-1",
    )
    path = created.headers["Location"]
    assert user.patch(path, {"title": "Hers: ﷺ", "options": {"max_tokens": 7}}).ok
    provider.default = reply(STRANGE, stop="length")
    assert user.post(f"{path}/messages", {"content": "More"}, Idempotency_Key="k-2").ok
    files = [user.uploaded(png(64, 48)), user.uploaded(png(600, 400, 600_000))]
    assert user.post(f"{path}/messages", {"content": "", "files": files}).ok
    provider.default = reply("The answer.")
    assert user.post(f"{path}/retry").ok
    assert user.post(f"{path}/retry", {"content": "Changed"}).ok
    provider.script = [OVERFLOW, reply("Of less.")]
    assert user.post(f"{path}/messages", {"content": "And?"}).json()["turns_left_out"]
    forked = user.post(f"{path}/fork")
    assert user.patch(forked.headers["Location"], {"title": "A fork"}).ok
    assert user.post("/sessions/import", IMPORTED).status_code == 201
    deleted = user.post("/sessions", {"content": "Deleted"}, Idempotency_Key="k-3")
    assert user.delete(deleted.headers["Location"]).ok


def end_otherwise(user, provider):
    """Failed, cancelled, continued, and changed to another model."""
    provider.script = [fails("Half"), fails("Half again")]
    failed = user.post("/sessions", {"content": "Fails"}, Idempotency_Key="k-4")
    assert failed.status_code == 502
    session = ask(user, provider, "Cancelled", reply("Half ", threading.Event()))
    assert user.post(f"/sessions/{session}/cancel").ok
    provider.default = reply("and half.")
    assert user.post(f"/sessions/{session}/continue").ok
    assert user.patch(f"/sessions/{session}", {"model": "m-2", "system": None}).ok
    provider.default = reply("The answer.")


def long_texts(user, provider):
    provider.default = reply(*["word " * 1_000] * 10)
    session = user.create("a" * 1_000_000)
    user.post(f"/sessions/{session['id']}/messages", {"content": "\ufdfa👩" * 100_000})
    provider.default = reply("The answer.")


def ask(user, provider, content, answer, path=None, wanted="Half", **fields):
    """The id of a session whose reply in progress has this text."""
    provider.script, asked = [answer], len(provider.posts)
    body = None if content is None else {"content": content} | fields
    response = user.post(path or "/sessions", body, Prefer="respond-async")
    assert response.ok, response.text
    session = response.headers["Location"].split("/")[2]
    wait_until(lambda: len(provider.posts) > asked)
    wait_until(lambda: wanted in user.turns({"id": session})[-1]["content"])
    return session


def begin(user, provider):
    """Replies in progress: one, one without text yet, the first of a model, one that replaces
    another, and two that were continued, one of them with more text."""
    never = threading.Event()
    ask(user, provider, "Under way", reply("Half ", STRANGE, never), wanted="﷽")
    ask(user, provider, "Without text", reply(never), wanted="")
    ask(user, provider, "Of another model", reply("Half ", never), model="m-2")
    session = user.create("Asked again")
    path = f"/sessions/{session['id']}"
    ask(user, provider, None, reply("Half ", never), f"{path}/retry")
    for answer, wanted in ((reply(never), "Half"), (reply("and more", never), "and more")):
        provider.script = [cut("Half "), cut("-"), cut("+")]
        failed = user.post("/sessions", {"content": "Broken"})
        session = failed.json()["errors"][0]["meta"]["session_id"]
        ask(user, provider, None, answer, f"/sessions/{session}/continue", wanted)


# What clients and tables show


def seen_of(server):
    """All that clients see of what is stored."""
    seen = {"metrics": metrics_of(server)}
    for name in USERS:
        user = server.client(name)
        sessions, more = [], True
        while more:
            page = user.get(f"/sessions?page[limit]=5&page[offset]={len(sessions)}").json()
            sessions, more = sessions + page["data"], page["meta"]["has_more"]
        whole = [user.get(f"/sessions/{session['id']}") for session in sessions]
        assert all(answer.ok for answer in whole)
        found = user.get("/sessions?query=half").json()
        usage = user.get("/usage").json()
        first_sent = [answer.headers.get("First-Turn-Sent") for answer in whole]
        seen[name] = sessions, [answer.json() for answer in whole], first_sent, found, usage
    return seen


def rows_of(tables):
    """All rows, by their tables: equal for equal databases, on both engines."""
    if tables.is_sqlite:
        names = [name for (name,) in tables.rows(SQLITE_TABLES)]
    else:
        names = {table for table, *_ in tables.columns()}
    return {name: sorted(_rows(tables, name), key=str) for name in names}


def _rows(tables, name):
    columns = sorted(column for table, column, *_ in tables.columns() if table == name)
    for row in tables.rows(f'SELECT {", ".join(columns)} FROM "{name}"'):
        yield {column: plain(value) for column, value in zip(columns, row, strict=True)}


def plain(value):
    """The value as SQLite stores it."""
    if isinstance(value, uuid.UUID):
        return value.hex
    return int(value) if isinstance(value, bool) else value
