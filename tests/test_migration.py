"""What release 1.0.0 left in a database is kept by this one, and what its processes still do there is understood."""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time
import uuid

import pytest

from client import ALICE, BOB, ROOT, SECRET, parse_time, wait_for_status
from provider import reply, so_far
from raw_tables import tables_of
from test_windows import LLAMA, OPENAI, Model, sent_of, words

SCHEMAS = pathlib.Path(__file__).parent / "release_1_0_0"
SECOND = 1_000_000
LEASE = 20 * SECOND
ENDING = 30  # seconds after which no reply of a dead process is under way any more
CREATE_APP = [sys.executable, "-c", "import app; app.create_app()"]


def now():
    return time.time_ns() // 1000  # the database runs on this host


class Release100:
    """A process of release 1.0.0, which knows the columns of its own release only. Its statements are 1.0.0's."""

    def __init__(self, tables):
        self.tables = tables

    def create(self, content, owner=ALICE, **options):
        """A session, with the reply to its first message under way: returns both their ids."""
        session_id, at = uuid.uuid4(), now()
        self.tables.insert(
            "session",
            id=session_id.hex,
            owner=owner,
            title=content,
            folded_title=content.lower(),
            title_is_users=False,
            model="m-1",
            created_at=at,
            updated_at=at,
        )
        return session_id, self.ask(session_id, content, **options)

    def ask(self, session_id, content, lease=LEASE):
        """A message, and the reply to it, whose lease ends so many microseconds from now; returns the reply's id."""
        at = now()
        self.tables.rows(
            "UPDATE session SET updated_at = ?, preview = NULL WHERE id = ?", at, session_id.hex
        )
        self._insert_turn(session_id, "user", content, at, folded=content.lower())
        return self._begin(session_id, at, lease)

    def retry(self, session_id, replaced, lease=LEASE):
        self.tables.rows("UPDATE turn SET shown = ? WHERE id = ?", False, replaced)
        return self._begin(session_id, now(), lease, replaces=replaced)

    def write(self, turn_id, *pieces):
        """Store these pieces of a reply, behind those that there are."""
        start = self.tables.value(
            "SELECT coalesce(sum(length(text)), 0) FROM piece WHERE turn_id = ?", turn_id
        )
        for text in pieces:
            self.tables.insert("piece", turn_id=turn_id, start=int(start), text=text)
            start += len(text)

    def end(self, turn_id, status="complete", **columns):
        pieces = self.tables.rows(
            "SELECT text FROM piece WHERE turn_id = ? ORDER BY start", turn_id
        )
        content = "".join(text for (text,) in pieces)
        columns |= {
            "status": status,
            "content": content,
            "folded": content.lower(),
            "lease_until": None,
        }
        changes = ", ".join(f"{name} = ?" for name in columns)
        self.tables.rows(f"UPDATE turn SET {changes} WHERE id = ?", *columns.values(), turn_id)
        self.tables.rows("DELETE FROM piece WHERE turn_id = ?", turn_id)
        where = "WHERE id = (SELECT session_id FROM turn WHERE id = ?)"
        self.tables.rows(f"UPDATE session SET preview = ? {where}", content[:100], turn_id)

    def answered(self, content, *pieces, status="complete", **columns):
        """A session whose only reply has ended: returns both their ids."""
        session_id, turn_id = self.create(content)
        self.write(turn_id, *pieces)
        self.end(turn_id, status, **columns)
        return session_id, turn_id

    def _begin(self, session_id, at, lease, **columns):
        columns |= {
            "model": "m-1",
            "status": "in_progress",
            "lease_until": at + lease,
            "folded": "",
        }
        self._insert_turn(session_id, "assistant", "", at, **columns)
        return self.tables.value(
            "SELECT max(id) FROM turn WHERE session_id = ? AND status = 'in_progress'",
            session_id.hex,
        )

    def _insert_turn(self, session_id, kind, content, at, **columns):
        columns |= {
            "session_id": session_id.hex,
            "kind": kind,
            "content": content,
            "created_at": at,
        }
        self.tables.insert("turn", **columns, shown=True, cancelled=False)


@pytest.fixture
def tables(engine, settings):
    """Those of a database of release 1.0.0, which servers with `settings` use."""
    with tables_of(settings["DATABASE_URL"]) as tables:
        tables.run((SCHEMAS / f"{engine}.sql").read_text())
        yield tables


@pytest.fixture
def old(tables):
    return Release100(tables)


def ids(turns):
    """The ids of turns as numbers; in JSON they are strings, since a number would lose its end in a browser."""
    assert all(type(turn["id"]) is str for turn in turns), turns
    return [int(turn["id"]) for turn in turns]


def wait_until(happened, seconds):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


# A database as years of use leave it


SESSIONS, LENGTH = (
    5000,
    20,
)  # the turns of all sessions take turns, so that the ids of one session are no neighbours
BEGAN = 1_750_000_000 * SECOND
FAILED, CANCELLED, RETRIED = (
    3,
    4,
    5,
)  # how the last reply of a session ended, by the last digit of its number
TURN_COLUMNS = (
    *(
        "session_id",
        "kind",
        "content",
        "folded",
        "created_at",
        "shown",
        "cancelled",
        "model",
        "status",
        "replaces",
    ),
    *("input_tokens", "output_tokens", "error_status", "error_message"),
)


def owner_of(number):
    return BOB if number % 2 else ALICE


@functools.cache
def id_of(number):
    return uuid.UUID(f"8b6d0000-0000-4000-8000-{number:012x}")


def turn_id_of(number, place):
    return place * SESSIONS + number + 1


def turn_of(number, place):
    """The columns of a turn, and whether it is shown."""
    turn = dict.fromkeys(TURN_COLUMNS) | {
        "session_id": id_of(number).hex,
        "shown": True,
        "cancelled": False,
    }
    content, kind = f"Grüße {place} needle{number}x{place}", "assistant" if place % 2 else "user"
    if (
        number % 10 == RETRIED and place >= LENGTH - 3
    ):  # three replies to one message, of which the last is shown
        kind, turn["shown"] = "assistant", place == LENGTH - 1
        turn["replaces"] = turn_id_of(number, place - 1) if place > LENGTH - 3 else None
    if kind == "assistant":
        turn |= {
            "model": "m-2",
            "status": "complete",
            "input_tokens": number,
            "output_tokens": place,
        }
    if place == LENGTH - 1 and number % 10 == FAILED:
        turn |= {"status": "failed", "error_status": 502, "error_message": "The model failed."}
    if place == LENGTH - 1 and number % 10 == CANCELLED:
        turn |= {"status": "interrupted", "cancelled": True}
    at = BEGAN + turn_id_of(number, place) * 1000
    return turn | {"kind": kind, "content": content, "folded": content.casefold(), "created_at": at}


def fill(tables):
    sessions = (
        {
            "id": id_of(number).hex,
            "owner": owner_of(number),
            "title": f"Session {number}",
            "folded_title": f"session {number}",
            "title_is_users": number % 3 == 0,
            "model": "m-1",
            "system": "Be brief." if number % 4 == 0 else None,
            "preview": turn_of(number, LENGTH - 1)["content"],
            "created_at": BEGAN + number,
            "updated_at": BEGAN + turn_id_of(number, LENGTH - 1) * 1000,
        }
        for number in range(SESSIONS)
    )
    columns = (
        "id",
        "owner",
        "title",
        "folded_title",
        "title_is_users",
        "model",
        "system",
        "preview",
        "created_at",
        "updated_at",
    )
    tables.fill("session", columns, ([session[name] for name in columns] for session in sessions))
    turns = (turn_of(number, place) for place in range(LENGTH) for number in range(SESSIONS))
    tables.fill("turn", TURN_COLUMNS, ([turn[name] for name in TURN_COLUMNS] for turn in turns))


def remember(tables, path, key, number, place, body):
    """Store an idempotency key of the session's owner, with this reply for its outcome."""
    tables.insert(
        "key",
        owner=owner_of(number),
        path=path,
        key=key,
        body=hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest(),
        session_id=id_of(number).hex,
        turn_id=turn_id_of(number, place),
        created_at=now() - 3600 * SECOND,
    )


def expected_turns(number):
    """What an API of 1.0.0 would say of the turns of a session, and their ids."""
    for place in range(LENGTH):
        turn = turn_of(number, place)
        if not turn["shown"]:
            continue
        seen = {
            "id": str(turn_id_of(number, place)),
            "kind": turn["kind"],
            "content": turn["content"],
        }
        if turn["kind"] == "assistant":
            error = (
                {"status": 502, "message": "The model failed."}
                if turn["status"] == "failed"
                else None
            )
            usage = {
                "input_tokens": turn["input_tokens"],
                "output_tokens": turn["output_tokens"],
                "cached_tokens": None,
            }
            seen |= {
                "model": {"id": "m-2"},
                "status": turn["status"],
                "error": error,
                "usage": usage,
            }
        yield seen, turn["created_at"]


def test_a_database_with_100_000_turns_starts_within_seconds_and_keeps_all_of_it(
    start, settings, tables, provider
):
    """Its sessions, their turns with the ids and the order that they had, the list, the search, the idempotency keys."""
    fill(tables)
    created, message, failed = 10, 20, 1000 + FAILED  # sessions of which there is a key
    remember(tables, "/sessions", "k-created", created, 1, {"content": "Hello"})
    remember(
        tables, f"/sessions/{id_of(message)}/messages", "k-message", message, 5, {"content": "More"}
    )
    remember(
        tables,
        f"/sessions/{id_of(failed)}/messages",
        "k-failed",
        failed,
        LENGTH - 1,
        {"content": "Again"},
    )
    sums = "SELECT count(*), min(id), max(id), sum(id), sum(length(content)), sum(length(folded)) FROM turn"
    before = tables.rows(sums)
    assert before[0][:3] == (SESSIONS * LENGTH, 1, SESSIONS * LENGTH)

    began = time.monotonic()
    server = start(**settings)
    assert time.monotonic() - began < 15
    assert tables.rows("SELECT migrations FROM release") == [(2,)]
    assert tables.rows(sums) == before
    alice, bob = server.client(ALICE), server.client(BOB)

    # The list, and in it the order of all sessions
    listed, more = [], True
    while more:
        page = alice.get(f"/sessions?page[limit]=100&page[offset]={len(listed)}").json()
        listed, more = listed + page["data"], page["meta"]["has_more"]
    own = [number for number in reversed(range(SESSIONS)) if owner_of(number) == ALICE]
    assert [session["id"] for session in listed] == [str(id_of(number)) for number in own]
    assert listed[0]["title"] == f"Session {own[0]}"
    assert listed[0]["last_message_preview"] == turn_of(own[0], LENGTH - 1)["content"]

    # Sessions, their turns, and the search
    for number in [0, 1, FAILED, CANCELLED, RETRIED, 2500, SESSIONS - 1]:
        owner, other = (alice, bob) if owner_of(number) == ALICE else (bob, alice)
        session = owner.get(f"/sessions/{id_of(number)}").json()
        assert (session["title"], session["model"]) == (f"Session {number}", {"id": "m-1"})
        assert session["system"] == ("Be brief." if number % 4 == 0 else None)
        expected = list(expected_turns(number))
        assert len(session["turns"]) == len(expected)
        for turn, (seen, at) in zip(session["turns"], expected, strict=True):
            assert turn | seen == turn
            assert (
                parse_time(turn["created_at"]) - parse_time("1970-01-01T00:00:00Z")
            ).total_seconds() == at // SECOND
        found = owner.get("/sessions", params={"query": f"GRÜSSE Needle{number}X4"}).json()["data"]
        assert [session["id"] for session in found] == [str(id_of(number))]
        assert other.get("/sessions", params={"query": f"needle{number}x4"}).json()["data"] == []
        assert other.get(f"/sessions/{id_of(number)}").status_code == 404

    # The keys: what succeeded is answered again, what failed is asked for again, each in its session
    again = alice.post("/sessions", {"content": "Hello"}, Idempotency_Key="k-created")
    assert (again.status_code, again.json()["id"]) == (201, str(id_of(created)))
    assert (
        alice.post("/sessions", {"content": "Other"}, Idempotency_Key="k-created").status_code
        == 422
    )
    again = alice.post(
        f"/sessions/{id_of(message)}/messages", {"content": "More"}, Idempotency_Key="k-message"
    )
    assert (again.status_code, again.json()["id"]) == (201, str(turn_id_of(message, 5)))
    assert again.json()["content"] == turn_of(message, 5)["content"]
    assert provider.posts == []
    again = bob.post(
        f"/sessions/{id_of(failed)}/messages", {"content": "Again"}, Idempotency_Key="k-failed"
    )
    assert (again.status_code, again.json()["content"]) == (201, "The answer.")
    turns = bob.turns({"id": id_of(failed)})
    assert [turn["content"] for turn in turns[:-1]] == [
        seen["content"] for seen, _ in expected_turns(failed)
    ][:-1]
    assert turns[-1] == again.json()

    # The conversation goes on, behind what there was
    session, old_turns = {"id": str(id_of(2500))}, alice.turns({"id": id_of(2500)})
    path = f"/sessions/{session['id']}"
    first = alice.post(path + "/messages", {"content": "One more"}).json()
    retried = alice.post(path + "/retry").json()
    second = alice.post(path + "/messages", {"content": "And another"}).json()
    turns = alice.turns(session)
    assert turns[:LENGTH] == old_turns
    assert [turn["content"] for turn in turns[LENGTH:]] == [
        "One more",
        "The answer.",
        "And another",
        "The answer.",
    ]
    assert (turns[-3], turns[-1]) == (retried, second)
    assert ids(turns) == sorted(set(ids(turns)))
    assert SESSIONS * LENGTH < int(first["id"]) < int(retried["id"]) < int(second["id"])
    sent = [message["content"] for message in provider.posts[-1].body["messages"]]
    assert sent == ["Be brief.", *(turn["content"] for turn in turns[:-1])]
    assert alice.get("/sessions?page[limit]=1").json()["data"][0]["id"] == session["id"]


def test_a_migrated_database_has_the_columns_of_a_new_one(
    start, settings, tables, new_database, engine
):
    """And the file of SQLite says whose it is."""
    url = new_database()
    start(**settings)
    start(**settings | {"DATABASE_URL": url})
    with tables_of(url) as fresh:
        assert tables.columns() == fresh.columns()
        assert {"usage"} == {table for table, *_ in fresh.columns() if table == "usage"}
        if engine == "sqlite":
            assert (
                tables.value("PRAGMA application_id") == fresh.value("PRAGMA application_id") != 0
            )


def test_of_processes_that_start_together_one_migrates(settings, tables):
    old_id = Release100(tables).answered("Hello", "Good day.")[1]
    environment = os.environ | settings | {"JWT_SECRET": SECRET}
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    CREATE_APP, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
                )
            )
            for _ in range(3)
        ]
        ended = [(process.communicate(timeout=30)[1], process.returncode) for process in processes]
    assert ended == [("", 0)] * 3
    assert tables.rows("SELECT migrations FROM release") == [(2,)]
    assert tables.rows("SELECT max(id) FROM turn") == [(old_id,)]


def test_a_database_of_a_newer_release_is_refused_in_one_line_and_not_touched(settings, tables):
    tables.rows("UPDATE release SET migrations = 99")
    before = tables.columns()
    environment = os.environ | settings | {"JWT_SECRET": SECRET}
    refused = subprocess.run(CREATE_APP, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("DATABASE_URL: ") and refused.stderr.count("\n") == 1
    assert "newer release" in refused.stderr
    assert tables.columns() == before
    assert tables.rows("SELECT migrations FROM release") == [(99,)]


@pytest.mark.parametrize("migrations", [8, 2])
def test_a_database_of_a_state_that_was_never_released_is_refused_in_one_line(
    settings, tables, migrations
):
    tables.rows("UPDATE release SET migrations = ?", migrations)
    before = tables.columns()
    environment = os.environ | settings | {"JWT_SECRET": SECRET}
    refused = subprocess.run(CREATE_APP, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("DATABASE_URL: ") and refused.stderr.count("\n") == 1
    assert "never released" in refused.stderr or "or to none" in refused.stderr
    assert tables.columns() == before


# Replies that were under way


def test_replies_that_were_under_way_when_release_1_0_0_was_killed_go_on_behind_their_text(
    start, settings, tables, old, provider
):
    """Though nobody asks for them; then their sessions take messages."""
    lapsed = -5 * SECOND
    half, half_id = old.create("Half", lease=lapsed)
    old.write(half_id, "As far ", "as thís")
    nothing, _ = old.create("Nothing", lease=lapsed)
    retried, first_id = old.answered("Retried", "The first.")
    old.write(old.retry(retried, first_id, lease=lapsed), "The sec")
    provider.default = reply("… and on.")
    server = start(**settings)
    # By SQL: a request could be what ends them.
    under_way = "SELECT count(*) FROM turn WHERE status = 'in_progress'"
    wait_until(lambda: tables.value(under_way) == 0, ENDING)
    assert tables.value("SELECT count(*) FROM piece") == 0
    alice = server.client()
    for session_id, content in [
        (half, "As far as thís… and on."),
        (nothing, "… and on."),
        (retried, "The sec… and on."),
    ]:
        session = {"id": session_id}
        [turn] = alice.turns(session)[1:]
        assert (turn["status"], turn["content"], turn["error"]) == ("complete", content, None)
        assert (
            alice.post(f"/sessions/{session_id}/messages", {"content": "Go on"}).status_code == 201
        )
        turns = alice.turns(session)
        assert [turn["content"] for turn in turns][1:] == [content, "Go on", "… and on."]
        assert ids(turns) == sorted(ids(turns))
    found = alice.get("/sessions", params={"query": "thís"}).json()["data"]
    assert [session["id"] for session in found] == [str(half)]


def test_a_reply_of_a_1_0_0_that_may_still_live_is_not_taken_over_before_its_lease_lapses(
    start, settings, tables, old, provider
):
    session_id, turn_id = old.create("Hello", lease=60 * SECOND)
    old.write(turn_id, "Half ")
    alice = start(**settings).client()
    with alice.events({"id": session_id}, f"{turn_id}-2") as stream:
        events = iter(stream)
        assert next(events).data == {"delta": "lf "}
        assert (
            alice.post(f"/sessions/{session_id}/messages", {"content": "More"}).status_code == 409
        )
        lapses = now() + 3 * SECOND
        tables.rows(
            "UPDATE turn SET lease_until = ? WHERE id = ?", lapses, turn_id
        )  # its last heartbeat
        old.write(turn_id, "and half")
        assert next(events).data == {"delta": "and half"}
        asked = provider.wait_for_request(seconds=ENDING)
        assert now() > lapses
        assert so_far(asked) == "Half and half"
    assert (
        wait_for_status(alice, {"id": session_id}, "complete")["content"]
        == "Half and halfThe answer."
    )
    assert alice.post(f"/sessions/{session_id}/messages", {"content": "More"}).status_code == 201


# Clients of release 1.0.0


GREETING = "Grüße, 世界 👋!"  # of 12 characters


@pytest.mark.parametrize("status", ["complete", "interrupted", "failed"])
def test_an_event_id_of_release_1_0_0_means_what_it_meant(start, settings, old, status):
    """7-12 is turn 7 behind its 12th character. Where these are all, 7-13 is behind assistant_turn, and 7-14 the end."""
    error = (
        {"error_status": 502, "error_message": "The model failed."} if status == "failed" else {}
    )
    before = old.answered("Before", "Another")[1]
    session_id, turn_id = old.answered("Hello", GREETING[:3], GREETING[3:], status=status, **error)
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    session = {"id": session_id}

    def follow(last_id):
        with alice.events(session, last_id) as stream:
            assert stream.status == 200, last_id
            events = list(stream)
        text = "".join(event.data["delta"] for event in events if event.name == "content_delta")
        return text, [event.name for event in events if event.name != "content_delta"]

    ending = ["error"] if status == "failed" else ["assistant_turn", "done"]
    for position in (0, 1, 5, 11, 12):
        assert follow(f"{turn_id}-{position}") == (GREETING[position:], ending), position
    assert follow(f"{turn_id}-13") == ("", ending[-1:])
    with alice.events(session, f"{turn_id}-14") as stream:
        assert stream.status == 204
    strange = [
        None,
        "x",
        "-",
        "1e3-5",
        "-5",
        f"{turn_id}",
        f"{turn_id}-",
        f"{turn_id}-15",
        f"{turn_id}-999999999999",
    ]
    strange += [
        f"{turn_id}--1",
        f"{turn_id}-+5",
        f"{turn_id}-5-",
        f"{turn_id}-5-5",
        f"{turn_id}-x-end",
        f"{turn_id}-end",
    ]
    strange += [
        f"{before}-3",
        f"{before}-9",
        f"{turn_id + 1}-14",
        f"{'9' * 30}-5",
        f"{turn_id}-{'9' * 30}",
    ]
    for last_id in strange:
        assert follow(last_id) == (GREETING, ending), last_id


def test_event_ids_begin_with_the_turns_id_and_name_the_two_frames_behind_its_text(
    start, settings, old
):
    """Of old turns and new ones; from behind each frame a client gets just the rest."""
    session_id, _ = old.answered("Hello", GREETING)
    server = start(**settings)
    alice = server.client()
    for turn in (None, alice.create("New")):
        session = turn or {"id": session_id}
        turn = alice.turns(session)[-1]
        length = len(turn["content"])
        with alice.events(session) as stream:
            events = list(stream)
        assert [event.id for event in events] == [
            f"{turn['id']}-{length}",
            f"{turn['id']}-{length}-turn",
            f"{turn['id']}-{length}-end",
        ]
        assert [event.name for event in events] == ["content_delta", "assistant_turn", "done"]
        assert events[1].data == turn
        for number in (0, 1):
            with alice.events(session, events[number].id) as stream:
                assert [event.name for event in stream] == [
                    "content_delta",
                    "assistant_turn",
                    "done",
                ][number + 1 :]
        with alice.events(session, events[2].id) as stream:
            assert stream.status == 204


# Release 1.0.0 beside this one


@pytest.mark.parametrize(
    "engine", ["postgresql"], indirect=True
)  # SQLite's columns take every type
def test_an_old_process_serves_on_when_a_newer_release_has_widened_a_column(
    engine, start, new_database
):
    url = new_database()
    client = start(DATABASE_URL=url, WEB_CONCURRENCY="1").client()
    session = client.create("Hello")

    def ask():
        path = f"/sessions/{session['id']}"
        return client.get(path).status_code, client.post(
            f"{path}/messages", {"content": "Again"}
        ).status_code

    assert {ask() for _ in range(10)} == {(200, 201)}  # by now the statements are prepared
    with tables_of(url) as tables:
        tables.rows("ALTER TABLE turn ALTER COLUMN input_tokens TYPE bigint")
    for _ in range(10):  # each connection may find out by itself
        ask()
    assert {ask() for _ in range(10)} == {(200, 201)}


@pytest.mark.parametrize(
    "engine", ["postgresql"], indirect=True
)  # on SQLite the old processes stop first: it is one machine
def test_release_1_0_0_goes_on_beside_this_one(start, settings, tables, old, provider):
    """While a service is deployed, the old processes still write: their turns and the new ones are in order."""
    session_id, _ = old.answered("One", "First.")
    alice = start(**settings).client()
    session, path = {"id": session_id}, f"/sessions/{session_id}"
    contents = ["One", "First."]

    def check():
        turns = alice.turns(session)
        assert [turn["content"] for turn in turns] == contents
        assert ids(turns) == sorted(set(ids(turns)))
        with alice.events(session) as stream:
            [last] = [event.data for event in stream if event.name == "assistant_turn"]
        assert last == turns[-1]

    for number in range(3):
        assert alice.post(path + "/messages", {"content": f"New {number}"}).status_code == 201
        contents += [f"New {number}", "The answer."]
        check()
        turn_id = old.ask(session_id, f"Old {number}")
        old.write(turn_id, "Half ")
        with alice.events(session) as stream:
            events = iter(stream)
            assert next(events).data == {"delta": "Half "}
            assert alice.post(path + "/messages", {"content": "Too early"}).status_code == 409
            old.write(turn_id, f"and half {number}.")
            old.end(turn_id)
            assert [event.name for event in events] == ["content_delta", "assistant_turn", "done"]
        contents += [f"Old {number}", f"Half and half {number}."]
        check()
    assert alice.post(path + "/messages", {"content": "Last"}).status_code == 201
    assert [message["content"] for message in provider.posts[-1].body["messages"]] == [
        *contents,
        "Last",
    ]

    # It inserts a message and the reply to it within one millisecond.
    for number in range(40):
        made, _ = old.answered(f"Question {number}", "Answer.")
        turns = alice.turns({"id": made})
        assert [turn["content"] for turn in turns] == [f"Question {number}", "Answer."]
    assert alice.get("/sessions?page[limit]=1").json()["data"][0]["id"] == str(made)


@pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # which gives one more than the greatest id there was
def test_on_sqlite_a_turn_without_an_id_comes_behind_all_others(start, settings, tables, old):
    """So whoever writes to the file as release 1.0.0 does, such as a process that was overlooked, disturbs no order."""
    session_id, _ = old.answered("One", "First.")
    alice = start(**settings).client()
    path, contents = f"/sessions/{session_id}", ["One", "First."]
    for number in range(3):
        assert alice.post(path + "/messages", {"content": f"New {number}"}).status_code == 201
        turn_id = old.ask(session_id, f"Old {number}")
        old.write(turn_id, "Old answer.")
        old.end(turn_id)
        contents += [f"New {number}", "The answer.", f"Old {number}", "Old answer."]
        turns = alice.turns({"id": session_id})
        assert [turn["content"] for turn in turns] == contents
        assert ids(turns) == sorted(set(ids(turns)))


# A conversation that release 1.0.0 had ended


def ended_by_100(old, count=12, size=30):
    """A session of so many messages of which the last two were too long for release 1.0.0, and both replies' ids."""
    session_id, turn_id = old.answered(words(size, "Message 1:"), words(size, "Answer 1:"))
    for number in range(2, count - 1):
        turn_id = old.ask(session_id, words(size, f"Message {number}:"))
        old.write(turn_id, words(size, f"Answer {number}:"))
        old.end(turn_id)
    for number in (count - 1, count):
        turn_id = old.ask(session_id, words(size, f"Message {number}:"))
        message = (
            "The conversation is too long for the model's context window. Start a new session."
        )
        old.end(turn_id, "failed", error_status=413, error_message=message)
    return session_id


@pytest.mark.parametrize(
    "operation, content", [("messages", "Go on."), ("retry", None), ("retry", "Go on.")]
)
def test_a_session_that_release_1_0_0_had_ended_goes_on(
    start, settings, old, provider, operation, content
):
    session_id = ended_by_100(old)
    provider.default = model = Model(400, LLAMA, OPENAI)
    model.name = "m-1"  # of 1.0.0's sessions
    alice, path = start(**settings).client(), f"/sessions/{session_id}"
    before = alice.get(path)
    assert "First-Turn-Sent" not in before.headers
    response = alice.post(f"{path}/{operation}", content and {"content": content})
    assert response.status_code == 201, response.text
    assert response.json()["turns_left_out"] > 0
    assert sent_of(model.accepted[-1])[-1] == (content or words(30, "Message 12:"))
    after = alice.get(path)
    turns = after.json()["turns"]
    assert turns[:22] == before.json()["turns"][:22], "all that there was is still shown"
    assert turns[-1] == response.json()
    assert after.headers["First-Turn-Sent"] in {
        turn["id"] for turn in turns if turn["kind"] == "user"
    }
    for number in range(13, 30):
        response = alice.post(path + "/messages", {"content": words(30, f"Message {number}:")})
        assert response.status_code == 201
    assert model.share > 0.6


def test_replies_of_release_1_0_0_say_nothing_of_their_end(start, settings, old, provider):
    session_id = ended_by_100(old, 4)
    alice = start(**settings).client()
    replies = alice.turns({"id": session_id})[1::2]
    assert [
        (turn["status"], turn["stop_reason"], turn["continued"], turn["turns_left_out"])
        for turn in replies
    ] == [
        *[("complete", None, 0, 0)] * 2,
        *[("failed", None, 0, 0)] * 2,
    ]
    whole = alice.get(f"/sessions/{session_id}").json()
    assert (whole["options"], whole["meta"]) == ({}, {"has_more": False})
    assert alice.patch(f"/sessions/{session_id}", {"options": {"temperature": 1}}).json()[
        "options"
    ] == {"temperature": 1}
    assert (
        alice.post(f"/sessions/{session_id}/messages", {"content": "Go on."}).json()["stop_reason"]
        == "stop"
    )
    assert provider.posts[-1].body["temperature"] == 1
