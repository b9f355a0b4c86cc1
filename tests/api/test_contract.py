"""The decorators of a handler: the order of the checks, and how return values are dumped."""

import sys
import threading

import pytest
from flask import Flask, Response
from marshmallow import Schema, fields

from api.contract import EVENTS, Answer, gives, may_fail, operation_of, takes, takes_headers
from app import create_app
from client import SECRET, make_token, wait_until
from provider import reply


class Named(Schema):
    name = fields.String(attribute="title", required=True)


class Numbered(Schema):
    number = fields.Integer(required=True)


RETURNED = {
    "a value": ({"title": "A", "odd": 1}, 200, {"name": "A"}),
    "a value and its status": (({"number": "5"}, 201), 201, {"number": 5}),
    "headers, too": (({"number": 5}, 201, {"X-Odd": "1"}), 201, {"number": 5}),
    "a status that is not named": (({"title": "A"}, 418), 418, {"title": "A"}),
    "a response": (Response('{"title": "A"}', mimetype="application/json"), 200, {"title": "A"}),
    "a response and headers": (
        (Response('{"title": "A"}', mimetype="application/json"), {"X-Odd": "1"}),
        200,
        {"title": "A"},
    ),
}


@pytest.mark.parametrize("returned, status, body", RETURNED.values(), ids=RETURNED)
def test_a_return_value_is_dumped_by_the_schema_of_its_status(returned, status, body):
    app = Flask(__name__)
    handler = gives(200, "A name.", Named)(gives(201, "A number.", Numbered)(lambda: returned))
    app.add_url_rule("/", "show", handler)
    answer = app.test_client().get("/")
    assert (answer.status_code, answer.json) == (status, body)


def test_all_decorators_of_a_handler_are_recorded_on_it():
    @takes_headers("Prefer")
    @takes(Named, example={"name": "A"})
    @gives(200, "A name.", Named, content={EVENTS: {}}, may_have=["Link"])
    @gives(204, "Nothing.")
    @may_fail(409)
    @may_fail(422)
    def handle(body):
        return body

    operation = operation_of(handle)
    assert (operation.headers, operation.errors) == (("Prefer",), {409, 422})
    assert (operation.body.schemas, operation.body.required) == ([Named], True)
    assert operation.answers.keys() == {200, 204}
    assert operation.answers[200] == Answer(
        "A name.", Named, {EVENTS: {}}, (), ["Link"], name=None, links=False
    )


UNKNOWN = "/sessions/a1b2c3d4-e5f6-7890-abcd-ef1234567890"


@pytest.mark.parametrize("path", ["/messages", "/retry", "/continue", "/cancel"])
def test_the_session_is_looked_up_before_the_body_is_checked(alice, path):
    assert alice.post(UNKNOWN + path, {"odd": 1}).status_code == 404
    known = f"/sessions/{alice.create()['id']}"
    assert alice.post(known + path, {"odd": 1}).status_code == 400


def test_the_query_is_checked_before_the_session_is_looked_up(alice):
    assert alice.get(UNKNOWN + "?turns[limit]=many").status_code == 400
    assert alice.get(UNKNOWN).status_code == 404


def is_long(value):
    """Whether this is a long text, or a dict with one."""
    if isinstance(value, dict):
        return any(map(is_long, value.values()))
    return isinstance(value, (str, bytes, bytearray)) and len(value) > 50_000


def long_values_of(thread):
    """The names of the variables in a thread that have a long text."""
    frame, found = sys._current_frames()[thread.ident], []
    while frame and frame.f_code.co_name != "full_dispatch_request":
        found += [name for name, value in frame.f_locals.items() if is_long(value)]
        frame = frame.f_back
    return found


def test_a_request_that_waits_for_its_reply_keeps_neither_text_nor_slot(provider, tmp_path):
    app = create_app(
        {
            "DATABASE_URL": f"sqlite:///{tmp_path}/waiting.db",
            "JWT_SECRET": SECRET,
            "OPENAI_BASE_URL": provider.url + "/v1",
            "DEFAULT_MODEL": "m-1",
        }
    )
    ended, waits = threading.Event(), threading.Event()
    provider.script = [reply("Half ", ended, "whole.")]
    given = {
        "headers": {"Authorization": f"Bearer {make_token()}"},
        "json": {"content": "long " * 20_000},
        "environ_overrides": {
            "parley.release_slot": waits.set
        },  # called when the request gives its slot to another
    }
    request = threading.Thread(target=lambda: app.test_client().post("/sessions", **given))
    request.start()
    try:
        assert waits.wait(10)
        wait_until(lambda: provider.posts)
        wait_until(lambda: long_values_of(request) == [])
    finally:
        ended.set()
        request.join()
        app.extensions["parley"].replies.stop()  # the next test opens another database
