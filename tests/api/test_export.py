"""`GET /export`, and a session as Markdown. Modules: `api/archive.py`, `transfer/exports.py`,
`turns.py`."""

import socket

import pytest

from client import wait_until
from exports import export_of, imported, pages_of, turns_of
from provider import fails, reply, status
from raw_tables import tables_of
from trouble import copy_as_dead

MEGABYTE = 2**20
LAST_CHUNK = b"\r\n0\r\n\r\n"  # RFC 9112, section 7.1


def test_a_user_without_sessions_exports_nothing(someone):
    response = someone.get("/export")
    assert (response.status_code, response.text) == (200, "")
    assert "Link" not in response.headers


def test_each_line_is_a_session_with_all_that_is_shown(someone, provider):
    options = {"temperature": 0.5, "max_tokens": 100, "reasoning_effort": None}
    session = someone.create("First", system="Be kind.", options=options)
    path = f"/sessions/{session['id']}"
    provider.script = [reply("Replaced"), reply("Cut", stop="length"), fails("Half ")]
    someone.post(path + "/messages", {"content": "Second"})
    someone.post(path + "/retry")
    someone.post(path + "/messages", {"content": "Third"})
    someone.patch(path, {"title": "Mine"})
    shown = someone.get(path).json()
    [line] = export_of(someone)
    assert list(line) == [
        *("id", "title", "title_is_users", "model", "system", "options"),
        *("created_at", "updated_at", "pinned", "turns"),
    ]
    assert (line["title"], line["title_is_users"], line["model"]) == ("Mine", True, "m-1")
    assert line["options"] == {"temperature": 0.5, "max_tokens": 100}
    for name in ("id", "system", "options", "created_at", "updated_at"):
        assert line[name] == shown[name]
    assert len(line["turns"]) == len(shown["turns"]) == 6
    for turn, seen in zip(line["turns"], shown["turns"], strict=True):
        of_user = {name: seen[name] for name in ("id", "kind", "content", "created_at")}
        if seen["kind"] == "user":
            assert turn == of_user | {"files": []}
        else:
            rest = {name: seen[name] for name in ("status", "stop_reason", "usage", "error")}
            assert turn == of_user | {"model": "m-1"} | rest
    assert [turn["content"] for turn in line["turns"][3::2]] == ["Cut", "Half "]
    assert (
        line["turns"][3]["stop_reason"] == "length" and line["turns"][5]["error"]["status"] == 502
    )


def test_a_reply_in_progress_is_exported_as_interrupted(someone, provider):
    session = someone.create("Before")
    path = f"/sessions/{session['id']}/messages"
    provider.script = [reply("So far ", 5, "and no further.")]
    with someone.stream("POST", path, {"content": "Write"}) as stream:
        told = next(event for event in stream if event.name == "content_delta")
        wait_until(lambda: export_of(someone)[0]["turns"][3]["content"])
        [line] = export_of(someone)
        turn = line["turns"][3]
        assert turn["content"].startswith(told.data["delta"])
        assert (turn["status"], turn["stop_reason"], turn["error"]) == ("interrupted", None, None)
        someone.post(f"/sessions/{session['id']}/cancel")


def test_only_the_users_own_sessions_are_exported_oldest_first(someone, bob):
    bob.create("Bob's")
    made = [someone.create(f"Number {number}")["id"] for number in range(5)]
    someone.post(f"/sessions/{made[0]}/messages", {"content": "Later"})
    assert [line["id"] for line in export_of(someone)] == made


def test_a_page_has_whole_lines_of_at_most_eight_megabytes(someone):
    sizes = [1, 1, 1, 7, 9, 1, 1]  # megabytes
    for number, size in enumerate(sizes):
        texts = (f"{number}", *(["x" * MEGABYTE, "go on"] * size))
        imported(someone, title=f"{number}", turns=turns_of(*texts))
    pages = list(pages_of(someone))
    assert [[line["title"] for line in page] for page in pages] == [
        ["0", "1"],
        ["2"],
        ["3"],
        ["4"],
        ["5", "6"],
    ]
    assert all(len(turn["content"]) == MEGABYTE for turn in pages[3][0]["turns"][1::2])


def test_a_page_has_at_most_five_hundred_lines(someone, server):
    session = imported(someone, turns=turns_of("Hello"))
    copies = copy_as_dead(server.database, session, 500)
    first, second = pages_of(someone)
    assert (len(first), len(second)) == (500, 1)
    assert {line["id"] for line in first + second} == {session["id"], *map(str, copies)}
    assert all(line["turns"][0]["content"] == "Hello" for line in first + second)


def test_all_turns_of_a_long_session_are_exported(someone):
    """They are read in several steps."""
    texts = [f"Turn {number}" for number in range(140)]
    imported(someone, turns=turns_of(*texts))
    [line] = export_of(someone)
    assert [turn["content"] for turn in line["turns"]] == texts


@pytest.mark.parametrize(
    "cursor", ["", "x", "1", "1-2", "-1-" + "0" * 32, "9" * 19 + "-" + "0" * 32, "٣-" + "0" * 32]
)
def test_an_invalid_cursor_is_refused(alice, cursor):
    response = alice.request("GET", "/export", params={"page[after]": cursor})
    [error] = response.json()["errors"]
    assert (response.status_code, error["source"]) == (400, {"parameter": "page[after]"})


def test_sessions_deleted_or_created_meanwhile_disturb_no_page(someone):
    made = [someone.create(f"Number {number}")["id"] for number in range(3)]
    middle = someone.request("GET", "/export").text.splitlines()
    assert len(middle) == 3
    someone.delete(f"/sessions/{made[1]}")
    late = someone.create("Late")["id"]
    assert [line["id"] for line in export_of(someone)] == [made[0], made[2], late]


# Markdown


def markdown(client, session, accept="text/markdown"):
    return client.get(f"/sessions/{session['id']}", Accept=accept)


def test_a_session_can_be_had_as_markdown(someone, provider):
    provider.script = [reply("# A heading\n\n```py\nprint('x')\n```")]
    session = someone.create("A *question*")
    someone.patch(f"/sessions/{session['id']}", {"title": "A title\nof two lines"})
    response = markdown(someone, session)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/markdown; charset=utf-8"
    first, second = someone.turns(session)
    assert response.content.decode() == (
        "# A title of two lines\n"
        f"\n## User, {first['created_at']}\n\nA *question*\n"
        f"\n## m-1, {second['created_at']}\n\n# A heading\n\n```py\nprint('x')\n```\n"
    )


@pytest.mark.parametrize(
    "accept, kind",
    [
        ("text/markdown;q=0.9, application/json;q=0.5", "text/markdown; charset=utf-8"),
        ("application/json, text/markdown;q=0.5", "application/json"),
        ("*/*", "application/json"),
        ("text/*", "text/markdown; charset=utf-8"),
    ],
)
def test_the_client_chooses_between_json_and_markdown(alice, accept, kind):
    response = markdown(alice, alice.create(), accept)
    assert (response.status_code, response.headers["Content-Type"]) == (200, kind)
    assert "Accept" in response.headers["Vary"]


def test_other_paths_have_no_markdown_and_other_users_sessions_are_404(alice, bob):
    assert alice.get("/sessions", Accept="text/markdown").status_code == 406
    assert alice.get("/export", Accept="text/markdown").status_code == 406
    assert markdown(bob, alice.create()).status_code == 404


def unread(server, client, path, accept):
    """A connection with this request, whose answer is unread so far."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    connection.connect(("127.0.0.1", server.port))
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.token}\r\n"
    connection.sendall(f"{head}Accept: {accept}\r\nConnection: close\r\n\r\n".encode())
    return connection


def long_session(client):
    return imported(client, turns=turns_of("Begin", *(["x" * MEGABYTE, "go on"] * 9)))


def test_one_long_document_per_user_and_two_in_all_are_sent_at_a_time(start, settings):
    server = start(**settings, WEB_CONCURRENCY=1)
    alice, bob = server.client(), server.client("https://github.com/bob")
    carol = server.client("https://github.com/carol")
    session, bobs, carols = (long_session(user) for user in (alice, bob, carol))
    path = f"/sessions/{session['id']}"
    with unread(server, alice, path, "text/markdown") as reader:
        assert reader.recv(12) == b"HTTP/1.1 200"
        refused = markdown(alice, session)
        assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
        assert alice.get("/export").status_code == 503  # the export is one long line
        assert len(markdown(bob, bobs).content) > 9 * MEGABYTE
        assert alice.get("/sessions").status_code == 200
        with unread(server, bob, f"/sessions/{bobs['id']}", "text/markdown") as another:
            assert another.recv(12) == b"HTTP/1.1 200"
            assert markdown(carol, carols).status_code == 503
            assert carol.get(f"/sessions/{carols['id']}?turns[limit]=1").status_code == 200
    wait_until(lambda: markdown(alice, session).status_code == 200)


def test_a_long_line_whose_session_is_deleted_meanwhile_is_complete_or_cut(start, settings):
    """Either the JSON is complete, or the client sees that it was cut."""
    server = start(**settings, WEB_CONCURRENCY=1)
    alice = server.client()
    session = long_session(alice)
    with unread(server, alice, "/export", "application/x-ndjson") as reader:
        assert reader.recv(12) == b"HTTP/1.1 200"
        assert alice.delete(f"/sessions/{session['id']}").status_code == 204
        data = b"".join(iter(lambda: reader.recv(65536), b""))
    is_whole = data.endswith(LAST_CHUNK)
    assert not is_whole or data.count(b'"kind":"assistant"') == 9
    assert alice.get("/export").text == ""


def test_a_document_whose_session_is_deleted_meanwhile_is_cut(start, settings):
    server = start(**settings, WEB_CONCURRENCY=1)
    alice = server.client()
    path = f"/sessions/{long_session(alice)['id']}"
    with unread(server, alice, path, "text/markdown") as reader:
        assert reader.recv(12) == b"HTTP/1.1 200"
        assert alice.delete(path).status_code == 204
        data = b"".join(iter(lambda: reader.recv(65536), b""))
    assert not data.endswith(LAST_CHUNK)


def test_a_database_failure_in_the_middle_cuts_the_answer(start, settings):
    server = start(**settings, WEB_CONCURRENCY=1)
    alice = server.client()
    long_session(alice)
    with unread(server, alice, "/export", "application/x-ndjson") as reader:
        assert reader.recv(12) == b"HTTP/1.1 200"
        with tables_of(settings["DATABASE_URL"]) as tables:
            tables.rows("ALTER TABLE turn RENAME TO gone")
        data = b"".join(iter(lambda: reader.recv(65536), b""))
        with tables_of(settings["DATABASE_URL"]) as tables:
            tables.rows("ALTER TABLE gone RENAME TO turn")
    assert data and not data.endswith(LAST_CHUNK)


def test_a_database_failure_before_a_document_begins_is_a_500(start, settings, tables):
    alice = start(**settings, WEB_CONCURRENCY=1).client()
    session = alice.create()
    tables.rows("ALTER TABLE turn RENAME TO gone")
    response = markdown(alice, session)
    tables.rows("ALTER TABLE gone RENAME TO turn")
    assert response.status_code == 500 and response.headers["X-Request-ID"]
    assert response.json()["errors"][0]["status"] == "500"


def test_a_refused_message_is_exported_with_its_error(someone, provider):
    provider.script = [status(413, {"error": {"message": "too long"}})]
    failed = someone.post("/sessions", {"content": "Too long"})
    assert failed.status_code == 413
    [line] = export_of(someone)
    assert line["turns"][1]["status"] == "failed" and line["turns"][1]["error"]["status"] == 413
