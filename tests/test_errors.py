"""Errors: one shape for all of them, the headers that belong to each, and bad input that is refused and never stored."""

import contextlib
import json
import socket
import sqlite3
import threading
import time
import uuid

import psycopg
import pytest
import requests

from client import ALICE, BOB, make_token
from provider import reply

NOBODY = "a1b2c3d4-e5f6-7890-abcd-ef1234567890"
TITLES = {
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    409: "Conflict",
    413: "Request Entity Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    503: "Service Unavailable",
}


def errors_of(response, status):
    """(source, detail) of the errors of a response, which has the one shape of all errors."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    body = response.json()
    assert list(body) == ["errors"]
    assert body["errors"]
    for error in body["errors"]:
        assert set(error) - {"source", "meta"} == {"status", "title", "detail"}
        assert error["status"] == str(status)
        assert error["title"] == TITLES[status]
        assert error["detail"][0].isupper() and error["detail"].endswith((".", "?"))
        assert "Traceback" not in error["detail"]
    return [(error.get("source"), error["detail"]) for error in body["errors"]]


def pointers(response):
    """Where the faults of a body are."""
    return sorted(source["pointer"] for source, _ in errors_of(response, 400))


def send(
    server, method, path, data=None, content_type="application/json", subject=ALICE, **headers
):
    headers = {"Authorization": f"Bearer {make_token(subject)}"} | {
        n.replace("_", "-"): v for n, v in headers.items()
    }
    if content_type:
        headers["Content-Type"] = content_type
    return requests.request(method, server.url + path, data=data, headers=headers, timeout=30)


@pytest.fixture
def newcomer(server, provider):
    """Somebody who has no session, before and after, and for whom no model is asked."""
    subject = f"https://github.com/{uuid.uuid4().hex}"
    yield subject
    assert server.client(subject).get("/sessions").json() == {
        "data": [],
        "meta": {"has_more": False},
    }
    assert provider.requests == []


# Bodies

LONG_NUMBER = b'{"content": "x", "odd": ' + b"1" * 5000 + b"}"
BAD_BODIES = {
    # No JSON, or no object
    "nothing": (b"", [""]),
    "words": (b"odd", [""]),
    "half an object": (b'{"content": "x"', [""]),
    "more than a value": (b'{"content": "x"} {}', [""]),
    "a trailing comma": (b'{"content": "x",}', [""]),
    "single quotes": (b"{'content': 'x'}", [""]),
    "null": (b"null", [""]),
    "a list": (b"[]", [""]),
    "a list with one in it": (b'[{"content": "x"}]', [""]),
    "a text": (b'"content"', [""]),
    "a number": (b"5", [""]),
    "true": (b"true", [""]),
    "no UTF-8": (b'{"content": "\xff"}', [""]),
    "a surrogate in UTF-8": (b'{"content": "\xed\xa0\x80"}', [""]),
    "UTF-16": ('{"content": "x"}'.encode("utf-16"), [""]),
    "a byte order mark": (b'\xef\xbb\xbf{"content": "x"}', [""]),
    "a control character": (b'{"content": "a\0b"}', [""]),
    "a tab": (b'{"content": "a\tb"}', [""]),
    "nested lists": (b"[" * 100_000, [""]),
    "nested lists that end": (b'{"content": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", [""]),
    "nested objects": (b'{"content": ' * 50_000 + b"1" + b"}" * 50_000, [""]),
    "not a number": (b'{"content": NaN}', [""]),
    "not a number in an unknown field": (b'{"content": "x", "odd": -Infinity}', [""]),
    "a long number": (LONG_NUMBER, [""]),
    # Missing, null, of the wrong type, blank
    "nothing in it": (b"{}", ["/content"]),
    "no content": (b'{"model": "m-1"}', ["/content"]),
    **{
        f"content is {value}": (b'{"content": %s}' % value.encode(), ["/content"])
        for value in ("null", "5", "1.5", "true", "[]", "{}", '["x"]')
    },
    **{
        f"model is {value}": (b'{"content": "x", "model": %s}' % value.encode(), ["/model"])
        for value in ("5", "false", "[]", '{"id": "m-1"}')
    },
    **{
        f"system is {value}": (b'{"content": "x", "system": %s}' % value.encode(), ["/system"])
        for value in ("5", "true", '["x"]')
    },
    "content is empty": (b'{"content": ""}', ["/content"]),
    "content is blank": (json.dumps({"content": " \t\n\u3000\u2028"}).encode(), ["/content"]),
    "model is blank": (b'{"content": "x", "model": " "}', ["/model"]),
    "system is empty": (b'{"content": "x", "system": ""}', ["/system"]),
    # What no database holds
    "NUL": (b'{"content": "a\\u0000b"}', ["/content"]),
    "NUL in the model": (b'{"content": "x", "model": "m\\u0000"}', ["/model"]),
    "NUL in the system prompt": (b'{"content": "x", "system": "\\u0000"}', ["/system"]),
    "half a character": (b'{"content": "a\\ud83cb"}', ["/content"]),
    "halves in the wrong order": (b'{"content": "\\udf89\\ud83c"}', ["/content"]),
    "half a character in the model": (b'{"content": "x", "model": "\\udfff"}', ["/model"]),
    # Too long, or unknown
    "a long model": (json.dumps({"content": "x", "model": "m" * 201}).encode(), ["/model"]),
    "a model not served": (b'{"content": "x", "model": "echo"}', ["/model"]),
    "an unknown field": (b'{"content": "x", "odd": 1}', ["/odd"]),
    "a field of the answer": (b'{"content": "x", "title": "x"}', ["/title"]),
    "a field in other letters": (b'{"Content": "x"}', ["/Content", "/content"]),
    "a field with slashes": (b'{"content": "x", "a/b~c": 1, "": 2}', ["/", "/a~1b~0c"]),
    "a field with half a character": (b'{"content": "x", "\\ud800": 1}', ["/\ud800"]),
    "many faults": (
        b'{"content": " ", "model": 5, "system": "\\u0000", "odd": 1}',
        ["/content", "/model", "/odd", "/system"],
    ),
}


@pytest.mark.parametrize("body, faults", BAD_BODIES.values(), ids=BAD_BODIES)
def test_refuses_a_bad_body(server, newcomer, body, faults):
    assert pointers(send(server, "POST", "/sessions", body, subject=newcomer)) == faults


def test_takes_null_for_what_is_left_out(alice, provider):
    session = alice.post("/sessions", {"content": "Hello", "model": None, "system": None}).json()
    assert session["model"] == {"id": "m-1"}
    assert [message["role"] for message in provider.posts[0].body["messages"]] == ["user"]


def test_takes_pairs_of_surrogates_and_odd_characters(alice):
    content = "\U0001f389\ufffe\x01\x7f\u2028\U0010ffff\ufeff"
    assert alice.turns(alice.create(content))[0]["content"] == content


MANY_FAULTS = {
    "a megabyte of unknown names": (
        json.dumps(dict.fromkeys(map(str, range(80_000)), 0)).encode(),
        20,
    ),
    "unknown names before a good one": (
        json.dumps(dict.fromkeys(map(str, range(50)), 0) | {"content": "x"}).encode(),
        20,
    ),
    "unknown names and a fault": (
        json.dumps(dict.fromkeys(map(str, range(50)), 0) | {"content": 5}).encode(),
        20,
    ),
    "long names": (
        json.dumps(dict.fromkeys((f"{number}" + "x" * 50_000 for number in range(20)), 0)).encode(),
        20,
    ),
    "one long name": (json.dumps({"content": "x", "\u4e16" * 100_000: 0}).encode(), 1),
}


@pytest.mark.parametrize("body, count", MANY_FAULTS.values(), ids=MANY_FAULTS)
def test_names_the_first_twenty_faults(server, newcomer, body, count):
    response = send(server, "POST", "/sessions", body, subject=newcomer)
    found = pointers(response)
    assert len(found) == count and len(response.content) < 40_000
    assert ("/content" in found) == (b'"content": "x"' not in body)


@pytest.mark.parametrize(
    "method, path", [("POST", "/messages"), ("POST", "/retry"), ("POST", "/cancel"), ("PATCH", "")]
)
def test_names_the_first_twenty_faults_everywhere(server, alice, method, path):
    session = alice.create()
    body, _ = MANY_FAULTS["a megabyte of unknown names"]
    assert len(pointers(send(server, method, f"/sessions/{session['id']}{path}", body))) == 20


BODIES_OF_A_MESSAGE = {
    "no JSON": (b"odd", [""]),
    "nothing in it": (b"{}", ["/content"]),
    "null": (b'{"content": null}', ["/content"]),
    "blank": (b'{"content": " "}', ["/content"]),
    "NUL": (b'{"content": "\\u0000"}', ["/content"]),
    "a model": (b'{"content": "x", "model": "m-1"}', ["/model"]),
    "two faults": (b'{"content": 5, "system": "x"}', ["/content", "/system"]),
}


@pytest.mark.parametrize("body, faults", BODIES_OF_A_MESSAGE.values(), ids=BODIES_OF_A_MESSAGE)
def test_refuses_a_bad_message(server, alice, body, faults):
    session = alice.create()
    before = alice.get(f"/sessions/{session['id']}").json()
    assert pointers(send(server, "POST", f"/sessions/{session['id']}/messages", body)) == faults
    assert alice.get(f"/sessions/{session['id']}").json() == before


@pytest.mark.parametrize("action", ["retry", "cancel"])
def test_takes_no_body_where_it_has_nothing_to_say(server, alice, action):
    session = alice.create()
    path = f"/sessions/{session['id']}/{action}"
    assert pointers(send(server, "POST", path, b'{"content": " ", "model": "m-2"}')) == [
        "/content",
        "/model",
    ]
    assert pointers(send(server, "POST", path, b"[]")) == [""]
    errors_of(send(server, "POST", path, b"odd", content_type="text/plain"), 415)
    assert len(alice.turns(session)) == 2
    for body, content_type in ((b"", None), (b"{}", "application/json"), (b"", "application/json")):
        response = send(server, "POST", path, body, content_type)
        assert response.status_code == {"retry": 201, "cancel": 409}[action]


# Changing a session

BAD_CHANGES = {
    "title is null": (b'{"title": null}', ["/title"]),
    "model is null": (b'{"model": null}', ["/model"]),
    "both are null": (b'{"model": null, "title": null, "system": null}', ["/model", "/title"]),
    "title is blank": (b'{"title": " "}', ["/title"]),
    "title is long": (json.dumps({"title": "x" * 201}).encode(), ["/title"]),
    "title is a number": (b'{"title": 5}', ["/title"]),
    "title has NUL": (b'{"title": "\\u0000"}', ["/title"]),
    "title has half a character": (b'{"title": "\\ud800"}', ["/title"]),
    "model is long": (json.dumps({"model": "m" * 201}).encode(), ["/model"]),
    "model is not served": (b'{"model": "echo"}', ["/model"]),
    "system is blank": (b'{"system": ""}', ["/system"]),
    "content": (b'{"content": "x"}', ["/content"]),
    "a good and a bad one": (b'{"title": "Good", "id": "x"}', ["/id"]),
    "no object": (b"null", [""]),
    "nothing": (b"", [""]),
}


@pytest.mark.parametrize("body, faults", BAD_CHANGES.values(), ids=BAD_CHANGES)
def test_refuses_a_bad_change(server, alice, body, faults):
    session = alice.create(system="Be brief.")
    before = alice.get(f"/sessions/{session['id']}").json()
    assert pointers(send(server, "PATCH", f"/sessions/{session['id']}", body)) == faults
    assert alice.get(f"/sessions/{session['id']}").json() == before


def test_changes_only_what_is_given(alice):
    session = alice.create(system="Be brief.")
    path = f"/sessions/{session['id']}"
    before = alice.get(path).json()
    del before["turns"], before["meta"]
    assert alice.patch(path, {}).json() == before
    for change, field, shown in [
        ({"title": "👩‍👩‍👧" * 40}, "title", "👩‍👩‍👧" * 40),
        ({"title": "x" * 200}, "title", "x" * 200),
        ({"model": "m" * 200}, "model", {"id": "m" * 200}),
        ({"system": "Be long."}, "system", "Be long."),
        ({"system": None}, "system", None),
    ]:
        before[field] = shown
        response = alice.patch(path, change)
        assert (response.status_code, response.json()) == (200, before)
        assert alice.get(path).json().items() >= before.items()


# Types and sizes

JSON_BODY = b'{"content": "x"}'


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "odd",
    ],
)
def test_refuses_what_is_not_called_json(server, alice, provider, newcomer, content_type):
    session = "/sessions/" + alice.create()["id"]
    provider.reset()
    errors_of(send(server, "POST", "/sessions", JSON_BODY, content_type, subject=newcomer), 415)
    errors_of(send(server, "PATCH", session, b'{"title": "x"}', content_type), 415)
    errors_of(send(server, "POST", session + "/messages", JSON_BODY, content_type), 415)


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "Application/JSON", "application/problem+json"],
)
def test_takes_what_is_called_json(server, provider, content_type):
    assert send(server, "POST", "/sessions", JSON_BODY, content_type).status_code == 201


@pytest.mark.parametrize(
    "accept, status",
    [
        ("application/xml", 406),
        ("text/html", 406),
        ("text/plain, image/*;q=0.5", 406),
        ("application/json;q=0", 406),
        ("*/*;q=0", 406),
        ("*/*", 200),
        ("", 200),
        ("application/*", 200),
        ("text/html, application/json;q=0.1", 200),
        ("text/event-stream", 200),
        ("application/json; charset=utf-8", 200),
        ("application/JSON ;charset=UTF-8;q=0.5, text/html", 200),
        ("application/json;charset=utf-8;q=0", 406),
        ("text/html;level=1", 406),
    ],
)
def test_answers_only_in_what_is_accepted(server, accept, status):
    response = send(server, "GET", "/sessions", Accept=accept)
    if status == 406:
        errors_of(response, 406)
    else:
        assert response.status_code == 200


def test_a_stream_may_be_asked_for_by_its_charset(alice):
    with alice.stream(
        "POST", "/sessions", {"content": "Hello"}, Accept="text/event-stream; charset=utf-8"
    ) as stream:
        assert [event.name for event in stream][-1] == "done"


def test_refuses_an_answer_that_is_not_accepted_before_anything_is_stored(server, newcomer):
    errors_of(
        send(server, "POST", "/sessions", JSON_BODY, subject=newcomer, Accept="image/png"), 406
    )


LIMIT = 1048576


def test_refuses_a_body_that_is_too_large(server, newcomer):
    body = json.dumps({"content": "x" * LIMIT}).encode()
    response = send(server, "POST", "/sessions", body, subject=newcomer)
    errors_of(response, 413)
    assert response.headers["Connection"] == "close"


def test_takes_a_body_as_large_as_it_may_be(alice, server):
    content = "x" * (LIMIT - len('{"content": ""}'))
    response = send(server, "POST", "/sessions", json.dumps({"content": content}).encode())
    assert response.status_code == 201
    assert alice.turns(response.json())[0]["content"] == content


class Answer:
    """What a raw request was answered, with the names of `requests`."""

    def __init__(self, data):
        head, _, self.text = data.decode().partition("\r\n\r\n")
        lines = head.split("\r\n")
        self.status_code = int(lines[0].split()[1])
        self.headers = dict(line.split(": ", 1) for line in lines[1:])

    def json(self):
        return json.loads(self.text)


def raw(server, *parts, timeout=5):
    """What the server says to these bytes until it closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as connection:
        for part in parts:
            connection.sendall(part)
        return read_to_end(connection)


def read_to_end(connection):
    """The answer on a connection that is closed behind it."""
    return Answer(b"".join(iter(lambda: connection.recv(65536), b"")))


def head(method="POST", path="/sessions", subject=ALICE, **headers):
    headers = {
        "Host": "x",
        "Authorization": f"Bearer {make_token(subject)}",
        "Content-Type": "application/json",
    } | headers
    lines = [
        f"{method} {path} HTTP/1.1",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_refuses_chunks_that_are_too_large_together(server, newcomer):
    data = b'{"content": "' + b"x" * LIMIT + b'"}'
    chunks = [chunk(data[i : i + 10_000]) for i in range(0, len(data), 10_000)]
    response = raw(
        server, head(subject=newcomer, Transfer_Encoding="chunked"), *chunks, b"0\r\n\r\n"
    )
    errors_of(response, 413)
    assert response.headers["Connection"] == "close"


def test_refuses_at_once_what_says_that_it_is_too_large(server, newcomer):
    response = raw(server, head(subject=newcomer, Content_Length=10**12), b'{"content": "')
    errors_of(response, 413)
    assert response.headers["Connection"] == "close"


def test_takes_a_body_in_chunks(server, provider):
    parts = [chunk(JSON_BODY[i : i + 1]) for i in range(len(JSON_BODY))]
    assert (
        raw(
            server, head(Transfer_Encoding="chunked", Connection="close"), *parts, b"0\r\n\r\n"
        ).status_code
        == 201
    )


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
def test_refuses_a_broken_request_in_the_same_shape(server, status, parts):
    response = raw(server, *parts)
    errors_of(response, status)
    assert response.headers["Cache-Control"] == "no-store"


def test_refuses_a_body_that_ends_too_early(server, newcomer):
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
def test_knows_no_other_paths(server, method, path):
    [(source, _)] = errors_of(send(server, method, path), 404)
    assert source is None


def test_sends_nobody_to_a_host_that_a_client_named(server, alice):
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
def test_says_that_there_are_no_websockets(server, path, connection):
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


def test_lets_nobody_keep_an_answer_or_take_it_for_something_else(server, alice):
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
def test_serves_no_other_files(server, path):
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
def test_says_which_methods_a_path_takes(server, path, methods):
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
def test_shows_no_difference_between_none_and_anothers(server, alice, provider, method, path, body):
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
def test_refuses_a_bad_parameter(server, name, value):
    response = requests.get(
        server.url + "/sessions",
        params={name: value},
        headers={"Authorization": f"Bearer {make_token()}"},
    )
    [(source, _)] = errors_of(response, 400)
    assert source == {"parameter": name}


def test_names_each_bad_parameter(alice):
    response = alice.get("/sessions?page[limit]=odd&page[offset]=-1&query=" + "x" * 201)
    sources = [source["parameter"] for source, _ in errors_of(response, 400)]
    assert sorted(sources) == ["page[limit]", "page[offset]", "query"]


@pytest.mark.parametrize(
    "limit, count", [("-5", 1), ("0", 1), ("1", 1), ("3", 3), ("100", 3), ("101", 3), ("9" * 33, 3)]
)
def test_clamps_the_limit_of_a_page(server, provider, limit, count):
    user = server.client("https://github.com/limited")
    while len(user.get("/sessions").json()["data"]) < 3:
        user.create()
    body = user.get(f"/sessions?page[limit]={limit}").json()
    assert len(body["data"]) == count
    assert body["meta"] == {"has_more": count < 3}


def test_has_no_page_beyond_the_last(alice):
    body = alice.get(f"/sessions?page[offset]={2**53}").json()
    assert body == {"data": [], "meta": {"has_more": False}}


@pytest.mark.parametrize("path", ["/sessions", "/messages", "/retry"])
@pytest.mark.parametrize("key", ["", "x" * 256])
def test_refuses_a_bad_idempotency_key(server, alice, key, path):
    session = alice.create()
    path = path if path == "/sessions" else f"/sessions/{session['id']}{path}"
    body = b"{}" if path.endswith("/retry") else JSON_BODY
    [(source, _)] = errors_of(send(server, "POST", path, body, Idempotency_Key=key), 400)
    assert source == {"header": "Idempotency-Key"}
    assert len(alice.turns(session)) == 2


def test_has_nothing_to_cancel_where_no_reply_is_under_way(alice):
    session = alice.create()
    response = alice.post(f"/sessions/{session['id']}/cancel")
    errors_of(response, 409)
    assert "Retry-After" not in response.headers


def test_makes_one_wait_for_the_reply_under_way(alice, provider):
    gate = threading.Event()
    provider.script = [reply(gate, "Done.")]
    session = alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
    for path, body in (("messages", {"content": "x"}), ("retry", None)):
        response = alice.post(f"/sessions/{session['id']}/{path}", body)
        errors_of(response, 409)
        assert int(response.headers["Retry-After"]) >= 1
    gate.set()
    with alice.events(session) as events:
        assert [event.name for event in events] == ["content_delta", "assistant_turn", "done"]
    assert len(alice.turns(session)) == 2


# A database that goes away


@pytest.fixture
def switch(new_database):
    """A database of PostgreSQL, and a function that lets nobody in, or all again."""
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
)  # SQLite is a file: it does not go away
def test_works_again_after_the_database_was_away(start, switch, provider):
    """Without a restart; and what the model said meanwhile is stored."""
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
        assert (
            requests.get(server.url + "/sessions").status_code == 401
        )  # for which no database is needed

        let_in(True)
        deadline = time.monotonic() + 10
        while alice.get("/sessions").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert [event.name for event in events] == ["content_delta", "assistant_turn", "done"]
    assert alice.turns(during)[-1]["content"] == "Said before, and meanwhile."
    assert requests.get(server.url + "/health").status_code == 200
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
    provider.wait_for_request()  # else the second might get the first one's answer
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
    """Have the database refuse each text of a reply that has the word poison."""
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
