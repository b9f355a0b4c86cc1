"""Request bodies: which are refused, with each error named, and which are accepted."""

import json

import pytest
from marshmallow import fields

import schemas
import turns
from models import Turn
from provider import fails, reply
from raw_http import errors_of, send


def pointers(response):
    """Where the errors in a body are."""
    return sorted(source["pointer"] for source, _ in errors_of(response, 400))


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
    # What no database can store
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
def test_a_bad_body_is_refused(server, newcomer, body, faults):
    assert pointers(send(server, "POST", "/sessions", body, subject=newcomer)) == faults


def test_null_is_the_same_as_a_missing_value(alice, provider):
    session = alice.post("/sessions", {"content": "Hello", "model": None, "system": None}).json()
    assert session["model"] == {"id": "m-1"}
    assert [message["role"] for message in provider.posts[0].body["messages"]] == ["user"]


def test_surrogate_pairs_and_odd_characters_are_accepted(alice):
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
def test_a_refusal_names_the_first_twenty_errors(server, newcomer, body, count):
    response = send(server, "POST", "/sessions", body, subject=newcomer)
    found = pointers(response)
    assert len(found) == count and len(response.content) < 40_000
    assert ("/content" in found) == (b'"content": "x"' not in body)


@pytest.mark.parametrize(
    "method, path", [("POST", "/messages"), ("POST", "/retry"), ("POST", "/cancel"), ("PATCH", "")]
)
def test_every_operation_names_the_first_twenty_errors(server, alice, method, path):
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
def test_a_bad_message_is_refused(server, alice, body, faults):
    session = alice.create()
    before = alice.get(f"/sessions/{session['id']}").json()
    assert pointers(send(server, "POST", f"/sessions/{session['id']}/messages", body)) == faults
    assert alice.get(f"/sessions/{session['id']}").json() == before


@pytest.mark.parametrize("action", ["retry", "cancel"])
def test_retry_and_cancel_need_no_body_and_refuse_a_bad_one(server, alice, action):
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
def test_a_bad_change_is_refused(server, alice, body, faults):
    session = alice.create(system="Be brief.")
    before = alice.get(f"/sessions/{session['id']}").json()
    assert pointers(send(server, "PATCH", f"/sessions/{session['id']}", body)) == faults
    assert alice.get(f"/sessions/{session['id']}").json() == before


def test_a_change_affects_only_the_given_values(alice):
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


# Responses


def names_of(schema):
    """The JSON names that a schema describes; those of nested schemas as `usage.input_tokens`."""
    return [
        f"{name}.{key}" if key else name
        for name, field in schema.fields.items()
        for key in (field.schema.fields if isinstance(field, fields.Nested) else [""])
    ]


def test_the_schemas_describe_all_that_a_turn_has():
    described = names_of(schemas.AssistantTurnSchema())
    of_replies = [name for name in turns.SHOWN.columns if name != "files"]
    assert [name for name in described if name != "error.reason"] == of_replies
    of_messages = ["id", "kind", "content", "created_at", "files"]
    assert names_of(schemas.UserTurnSchema()) == of_messages
    assert list(turns.SHOWN.dump(Turn(id=1, kind="user", created_at=0))) == of_messages


def test_a_reply_in_progress_shows_no_earlier_end(alice, provider):
    provider.script = [fails("Half "), reply("So far", 5)]
    failed = alice.post("/sessions", {"content": "Hello"})
    path = failed.headers["Location"]
    with alice.stream("POST", path + "/continue") as stream:
        assert next(event for event in stream if event.name == "content_delta")
        turn = alice.get(path).json()["turns"][1]
        assert (turn["status"], turn["error"], turn["stop_reason"]) == ("in_progress", None, None)
        alice.post(path + "/cancel")
