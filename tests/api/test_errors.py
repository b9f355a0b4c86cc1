"""Errors: all have the same shape, and the right headers; and bad parameters."""

import contextlib
import socket
import sqlite3
import threading
import time

import psycopg
import pytest
import requests

from client import BOB, make_token, wait_until
from provider import reply
from raw_http import JSON_BODY, LIMIT, Answer, errors_of, head, raw, send

NOBODY = "a1b2c3d4-e5f6-7890-abcd-ef1234567890"


BROKEN_REQUESTS = {
    "no request": (400, [b"odd\r\n\r\n"]),
    "no version": (400, [b"GET /sessions\r\n\r\n"]),
    "a bad header": (400, [b"GET /sessions HTTP/1.1\r\nHost: x\r\nodd\r\n\r\n"]),
    "a long path": (414, [b"GET /" + b"x" * 8000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"]),
    "a long header": (
        431,
        [b"GET /sessions HTTP/1.1\r\nHost: x\r\nX-Odd: " + b"x" * 20_000 + b"\r\n\r\n"],
    ),
    "many headers": (
        431,
        [b"GET /sessions HTTP/1.1\r\nHost: x\r\n" + b"X-Odd: x\r\n" * 200 + b"\r\n"],
    ),
    "two lengths": (
        400,
        [head(Content_Length=5).replace(b"\r\n\r\n", b"\r\nContent-Length: 6\r\n\r\n"), b"{}    "],
    ),
    "a negative length": (400, [head(Content_Length=-1)]),
    "a length in words": (400, [head(Content_Length="odd")]),
    "a length and chunks": (
        400,
        [head(Content_Length=5, Transfer_Encoding="chunked"), b"0\r\n\r\n"],
    ),
    "chunks without a length": (400, [head(Transfer_Encoding="chunked"), b"odd\r\n"]),
    "an unknown coding": (501, [head(Transfer_Encoding="odd, chunked")]),
    "an unknown expectation": (417, [head(Expect="odd", Content_Length=2)]),
}


@pytest.mark.parametrize("status, parts", BROKEN_REQUESTS.values(), ids=BROKEN_REQUESTS)
def test_a_broken_request_gets_an_error_of_the_same_shape(server, status, parts):
    response = raw(server, *parts)
    errors_of(response, status)
    assert response.headers["Cache-Control"] == "no-store"


def test_a_body_that_ends_too_early_is_refused(server, newcomer):
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(head(subject=newcomer, Content_Length=100) + JSON_BODY)
        connection.shutdown(socket.SHUT_WR)
        data = b""
        while more := connection.recv(65536):
            data += more
    errors_of(Answer(data), 400)


# Paths and methods


NO_PATHS = [
    "/odd",
    "/favicon.ico",
    "/static",
    "/sessions/",
    "/sessions/odd",
    "/sessions/1",
    "/sessions/odd/messages",
    "/sessions/..%2f",
    "/sessions/%00",
    "/sessions/%ff",
    f"/session/{NOBODY}",
    f"/sessions/{NOBODY}x",
    f"/sessions/{NOBODY[:-1]}",
    f"/sessions/{NOBODY}/odd",
    "/sessions//",
    f"/sessions//{NOBODY}",
    f"/sessions//{NOBODY}/messages",
    f"/sessions/{NOBODY}//messages",
    f"/sessions/{NOBODY}/messages/",
    "/static//page.css",
]


@pytest.mark.parametrize("path", NO_PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_paths_are_404(server, method, path):
    [(source, _)] = errors_of(send(server, method, path), 404)
    assert source is None


def test_no_client_is_redirected_to_a_host_from_its_request(server, alice):
    session = alice.create()
    paths = [
        "//",
        "//sessions",
        "///sessions",
        "//evil.example/sessions",
        "//static/page.css",
        "/%2fsessions",
        "/sessions/",
    ]
    for path in (
        *paths,
        "//..//sessions",
        f"/sessions//{session['id']}",
        "/static//page.css",
        "http://evil.example//sessions",
    ):
        answer = raw(server, head("GET", path, Host="evil.example", Connection="close"))
        errors_of(answer, 404)
        assert "Location" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/", "/health", "/sessions", f"/sessions/{NOBODY}/events", "/static/page.css", "/odd"]
)
@pytest.mark.parametrize("connection", ["Upgrade", "keep-alive, Upgrade"])
def test_an_upgrade_to_a_websocket_is_refused_with_an_explanation(server, path, connection):
    key = {"Sec_WebSocket_Version": "13", "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    response = send(
        server, "GET", path, content_type=None, Connection=connection, Upgrade="websocket", **key
    )
    [(_, detail)] = errors_of(response, 400)
    assert "no WebSocket" in detail and "text/event-stream" in detail


PRIVATE_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def test_answers_are_neither_cached_nor_sniffed(server, alice):
    session = alice.create()
    path = f"/sessions/{session['id']}"
    answers = [
        *(
            alice.get(path)
            for path in (
                "/",
                "/health",
                "/openapi.json",
                "/models",
                "/sessions",
                path,
                "/odd",
                "/static/odd",
            )
        ),
        alice.get("/", Accept="text/html"),
        alice.get("/sessions", Authorization=None),
        alice.get("/sessions", Accept="image/png"),
        alice.get("/sessions?page[limit]=odd"),
        alice.get(path + "/events", Last_Event_ID="odd"),
        alice.get("/static/page.css"),
        alice.post("/sessions", {"content": "Hello"}),
        alice.post("/sessions", {}),
        alice.post(path + "/messages", {"content": "Hello"}, Prefer="respond-async"),
        alice.patch(path, {"title": "Mine"}),
        alice.delete(path),
        send(server, "POST", "/sessions", b"x" * (LIMIT + 1)),
        send(server, "PUT", "/sessions"),
    ]
    for answer in answers:
        found = {name: answer.headers[name] for name in PRIVATE_HEADERS}
        if answer.headers.get("Content-Type", "").startswith("text/event-stream"):
            assert found.pop("Cache-Control") == "no-cache, no-transform"
        elif answer.url.endswith("/static/page.css"):
            assert found.pop("Cache-Control") != "no-store"
        assert found.items() <= PRIVATE_HEADERS.items()


@pytest.mark.parametrize("path", ["/static/x", "/static/..%2fapp.py", "/static/%00", "/static/%ff"])
def test_no_other_files_are_served(server, path):
    errors_of(send(server, "GET", path), 404)


METHODS = {
    "/": "GET",
    "/health": "GET",
    "/openapi.json": "GET",
    "/models": "GET",
    "/static/x": "GET",
    "/sessions": "GET POST",
    f"/sessions/{NOBODY}": "GET PATCH DELETE",
    f"/sessions/{NOBODY}/messages": "POST",
    f"/sessions/{NOBODY}/retry": "POST",
    f"/sessions/{NOBODY}/cancel": "POST",
    f"/sessions/{NOBODY}/events": "GET",
}


@pytest.mark.parametrize("path, methods", METHODS.items(), ids=METHODS)
def test_a_405_says_which_methods_are_allowed(server, path, methods):
    methods = set(methods.split())
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "PROPFIND"} - methods:
        response = send(server, method, path)
        errors_of(response, 405)
        allowed = set(response.headers["Allow"].replace(" ", "").split(","))
        assert allowed - {"HEAD", "OPTIONS"} == methods


OPERATIONS = [
    ("GET", "", None),
    ("PATCH", "", b'{"title": "Mine"}'),
    ("PATCH", "", b"odd"),
    ("DELETE", "", None),
    ("POST", "/messages", JSON_BODY),
    ("POST", "/retry", b"{}"),
    ("POST", "/cancel", b"{}"),
    ("GET", "/events", None),
]


@pytest.mark.parametrize("method, path, body", OPERATIONS)
def test_another_users_session_looks_like_a_missing_one(
    server, alice, provider, method, path, body
):
    session = alice.create("A secret")
    before = alice.get(f"/sessions/{session['id']}").json()
    asked = len(provider.posts)
    missing = send(server, method, f"/sessions/{NOBODY}{path}", body, subject=BOB)
    anothers = send(server, method, f"/sessions/{session['id']}{path}", body, subject=BOB)
    assert errors_of(anothers, 404) == errors_of(missing, 404)
    assert set(anothers.headers) == set(missing.headers)
    assert alice.get(f"/sessions/{session['id']}").json() == before
    assert len(provider.posts) == asked


# Queries and headers

BAD_QUERIES = [
    *(("page[limit]", value) for value in ("odd", "", "1.5", "1e3", "0x10", " ", "null", "1,2")),
    *(("page[offset]", value) for value in ("odd", "", "-1", "1.5", str(2**53 + 1), "9" * 30)),
    *(("query", value) for value in ("x" * 201, "a\0b")),
]


@pytest.mark.parametrize(
    "name, value", BAD_QUERIES, ids=[f"{name} {value[:12]!r}" for name, value in BAD_QUERIES]
)
def test_a_bad_parameter_is_refused(server, name, value):
    response = requests.get(
        server.url + "/sessions",
        params={name: value},
        headers={"Authorization": f"Bearer {make_token()}"},
    )
    [(source, _)] = errors_of(response, 400)
    assert source == {"parameter": name}


def test_each_bad_parameter_is_named(alice):
    response = alice.get("/sessions?page[limit]=odd&page[offset]=-1&query=" + "x" * 201)
    sources = [source["parameter"] for source, _ in errors_of(response, 400)]
    assert sorted(sources) == ["page[limit]", "page[offset]", "query"]


@pytest.mark.parametrize(
    "limit, count", [("-5", 1), ("0", 1), ("1", 1), ("3", 3), ("100", 3), ("101", 3), ("9" * 33, 3)]
)
def test_the_limit_of_a_page_is_clamped(server, provider, limit, count):
    user = server.client("https://github.com/limited")
    while len(user.get("/sessions").json()["data"]) < 3:
        user.create()
    body = user.get(f"/sessions?page[limit]={limit}").json()
    assert len(body["data"]) == count
    assert body["meta"] == {"has_more": count < 3}


def test_there_is_no_page_after_the_last(alice):
    body = alice.get(f"/sessions?page[offset]={2**53}").json()
    assert body == {"data": [], "meta": {"has_more": False}}


@pytest.mark.parametrize("path", ["/sessions", "/messages", "/retry"])
@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_bad_idempotency_key_is_refused(server, alice, key, path):
    session = alice.create()
    path = path if path == "/sessions" else f"/sessions/{session['id']}{path}"
    body = b"{}" if path.endswith("/retry") else JSON_BODY
    [(source, _)] = errors_of(send(server, "POST", path, body, Idempotency_Key=key), 400)
    assert source == {"header": "Idempotency-Key"}
    assert len(alice.turns(session)) == 2


# When the database is away


@pytest.fixture
def switch(new_database):
    """A database of PostgreSQL, and a function that stops or allows connections to it."""
    url = new_database()
    server, _, name = url.rpartition("/")

    def let_in(everybody):
        with psycopg.connect(server + "/postgres", autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {everybody}")
            if not everybody:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    (name,),
                )

    yield url, let_in
    let_in(True)


@pytest.mark.parametrize(
    "engine", ["postgresql"], indirect=True
)  # SQLite is a file that does not go away
def test_the_service_recovers_after_the_database_was_away(start, switch, provider):
    """Without a restart; text that the model wrote meanwhile is stored."""
    url, let_in = switch
    server = start(DATABASE_URL=url, OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL="m-1")
    alice = server.client()
    before = alice.create("Before")
    gate = threading.Event()
    provider.script = [reply("Said before", gate, ", and meanwhile.")]
    with alice.stream("POST", "/sessions", {"content": "Hello"}) as events:
        events = iter(events)
        during = next(events).data
        assert next(events).data == {"delta": "Said before"}

        let_in(False)
        gate.set()
        operations = [("GET", "/sessions", None), ("POST", "/sessions", JSON_BODY)]
        operations += [
            (method, f"/sessions/{before['id']}{path}", body) for method, path, body in OPERATIONS
        ]
        for method, path, body in operations:
            response = send(server, method, path, body)
            [(_, detail)] = errors_of(response, 503)
            assert "database" in detail
            assert int(response.headers["Retry-After"]) >= 1
        errors_of(requests.get(server.url + "/health"), 503)
        assert requests.get(server.url + "/sessions").status_code == 401  # needs no database

        let_in(True)
        deadline = time.monotonic() + 10
        while alice.get("/sessions").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert [event.name for event in events] == ["content_delta", "assistant_turn", "done"]
    assert alice.turns(during)[-1]["content"] == "Said before, and meanwhile."
    # Each process reports it once its own keeper has reconnected.
    wait_until(lambda: requests.get(server.url + "/health").status_code == 200, 10)
    assert {session["id"] for session in alice.get("/sessions").json()["data"]} == {
        before["id"],
        during["id"],
    }
    assert alice.create("After")


def test_a_reply_that_the_database_refuses_fails_alone(start, new_database, provider):
    url = new_database()
    alice = start(
        DATABASE_URL=url,
        OPENAI_BASE_URL=provider.url + "/v1",
        DEFAULT_MODEL="m-1",
        WEB_CONCURRENCY=1,
    ).client()
    refuse_poison(url)
    provider.script = [reply("Fine. ", 0.3, "poison"), reply("All ", 0.6, "well.")]
    session = alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
    provider.wait_for_request()  # otherwise the second request might get the first one's answer
    with (
        alice.stream("POST", "/sessions", {"content": "Hello"}) as other,
        alice.events(session) as events,
    ):
        end = list(events)[-1]
        assert (end.name, end.data["status"]) == ("error", 500)
        assert (
            "".join(event.data["delta"] for event in other if event.name == "content_delta")
            == "All well."
        )
    turn = alice.turns(session)[1]
    assert (turn["status"], turn["content"], turn["error"]) == ("failed", "Fine. ", end.data)
    provider.script = [reply("Poisonless.")]
    assert alice.post(f"/sessions/{session['id']}/retry").json()["content"] == "Poisonless."


def refuse_poison(url):
    """Have the database refuse any text of a reply with the word poison."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            for table, moment, column in (
                ("piece", "INSERT", "text"),
                ("turn", "UPDATE", "content"),
            ):
                connection.execute(
                    f"CREATE TRIGGER poison_{table} BEFORE {moment} ON {table} WHEN NEW.{column} GLOB '*poison*' "
                    "BEGIN SELECT RAISE(ABORT, 'poison'); END"
                )
    else:
        with psycopg.connect(url) as connection:
            connection.execute("ALTER TABLE piece ADD CHECK (text NOT LIKE '%poison%')")
            connection.execute("ALTER TABLE turn ADD CHECK (content NOT LIKE '%poison%')")
