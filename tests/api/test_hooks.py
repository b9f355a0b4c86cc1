"""Checks before any handler: the body's type and size, and the `Accept` header."""

import json

import pytest

from raw_http import JSON_BODY, LIMIT, chunk, errors_of, head, raw, send


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
def test_a_body_whose_type_is_not_json_is_refused(server, alice, provider, newcomer, content_type):
    session = "/sessions/" + alice.create()["id"]
    provider.reset()
    errors_of(send(server, "POST", "/sessions", JSON_BODY, content_type, subject=newcomer), 415)
    errors_of(send(server, "PATCH", session, b'{"title": "x"}', content_type), 415)
    errors_of(send(server, "POST", session + "/messages", JSON_BODY, content_type), 415)


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "Application/JSON", "application/problem+json"],
)
def test_a_body_whose_type_is_json_is_accepted(server, provider, content_type):
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
def test_an_answer_has_a_type_that_the_client_accepts(server, accept, status):
    response = send(server, "GET", "/sessions", Accept=accept)
    if status == 406:
        errors_of(response, 406)
    else:
        assert response.status_code == 200


def test_a_stream_may_be_requested_with_its_charset(alice):
    with alice.stream(
        "POST", "/sessions", {"content": "Hello"}, Accept="text/event-stream; charset=utf-8"
    ) as stream:
        assert [event.name for event in stream][-1] == "done"


def test_a_406_comes_before_anything_is_stored(server, newcomer):
    errors_of(
        send(server, "POST", "/sessions", JSON_BODY, subject=newcomer, Accept="image/png"), 406
    )


def test_a_body_that_is_too_large_is_refused(server, newcomer):
    body = json.dumps({"content": "x" * LIMIT}).encode()
    response = send(server, "POST", "/sessions", body, subject=newcomer)
    errors_of(response, 413)
    assert response.headers["Connection"] == "close"


def test_a_body_of_exactly_the_largest_size_is_accepted(alice, server):
    content = "x" * (LIMIT - len('{"content": ""}'))
    response = send(server, "POST", "/sessions", json.dumps({"content": content}).encode())
    assert response.status_code == 201
    assert alice.turns(response.json())[0]["content"] == content


def test_chunks_that_are_too_large_in_all_are_refused(server, newcomer):
    data = b'{"content": "' + b"x" * LIMIT + b'"}'
    chunks = [chunk(data[i : i + 10_000]) for i in range(0, len(data), 10_000)]
    response = raw(
        server, head(subject=newcomer, Transfer_Encoding="chunked"), *chunks, b"0\r\n\r\n"
    )
    errors_of(response, 413)
    assert response.headers["Connection"] == "close"


def test_a_content_length_that_is_too_large_is_refused_at_once(server, newcomer):
    response = raw(server, head(subject=newcomer, Content_Length=10**12), b'{"content": "')
    errors_of(response, 413)
    assert response.headers["Connection"] == "close"


def test_a_body_in_chunks_is_accepted(server, provider):
    parts = [chunk(JSON_BODY[i : i + 1]) for i in range(len(JSON_BODY))]
    assert (
        raw(
            server, head(Transfer_Encoding="chunked", Connection="close"), *parts, b"0\r\n\r\n"
        ).status_code
        == 201
    )
