"""Mistakes in requests, and the sentence for each, in the answer and in the log."""

import json
import re
import time
import uuid

import pytest
import requests

from client import make_token
from mistakes import KEY, WORDS, bearer
from servers import running


def is_taken(**named):
    said = "; expected are iss fabro-web, aud parley."
    return (
        "It has " + ", ".join(f"{name} {json.dumps(value)}" for name, value in named.items()) + said
    )


ALL = {"alg": "HS256", "kid": None, "iss": "fabro-web", "aud": "parley"}


TOKENS = [  # what is wrong, the headers, what the client is told, and what the log says as well
    ("no token", {"Authorization": None}, r"Send a token: Authorization: Bearer <token>\. .+", ""),
    (
        "another scheme",
        {"Authorization": f"Token {make_token()}"},
        r"Send a token: Authorization: Bearer <token>\. .+",
        "",
    ),
    (
        "no scheme",
        {"Authorization": make_token()},
        r"Send a token: Authorization: Bearer <token>\. .+",
        "",
    ),
    (
        "quotes",
        {"Authorization": f'Bearer "{make_token()}"'},
        r"The token is in quotes\. Send .+",
        "",
    ),
    (
        "Bearer twice",
        {"Authorization": f"Bearer Bearer {make_token()}"},
        r"The token is malformed\.",
        "",
    ),
    (
        "<token> left in",
        {"Authorization": "Bearer <token>"},
        "Send a token in the place of <token>.",
        "",
    ),
    (
        "cut off",
        {"Authorization": f"Bearer {make_token()[:40]}"},
        "The token is incomplete: .+",
        "",
    ),
    (
        "another secret",
        bearer(key="x" * 32),
        r"The token was not signed with a key and algorithm of this server\. On the server, .+ prints one\.",
        is_taken(**ALL),
    ),
    (
        "another algorithm",
        bearer(key=KEY, algorithm="EdDSA"),
        "The token was not .+",
        is_taken(**ALL | {"alg": "EdDSA"}),
    ),
    (
        "another issuer",
        bearer(iss="https://x/"),
        r"The token is by another issuer\.",
        is_taken(**ALL | {"iss": "https://x/"}),
    ),
    (
        "another audience",
        bearer(aud=["x"]),
        r"The token is for another audience\.",
        is_taken(**ALL | {"aud": ["x"]}),
    ),
    (
        "no audience",
        bearer(aud=None),
        r"The token lacks the claim aud\.",
        is_taken(**ALL | {"aud": None}),
    ),
    ("a long issuer", bearer(iss="x\n" * 200), r"The token is by another issuer\.", "x\\nx\\n"),
    (
        "expired",
        bearer(exp=int(time.time()) - 7200),
        r"The token has expired\. Get a new one\.",
        ", and expired [0-9]{4,5} s ago;",
    ),
]


@pytest.mark.parametrize("name, headers, told, said", TOKENS, ids=[row[0] for row in TOKENS])
def test_the_log_says_why_a_token_is_refused(asker, name, headers, told, said):
    status, detail, reason = asker.ask(**headers)
    assert status == 401 and re.fullmatch(told, detail), detail
    assert reason.startswith(detail) and (
        re.search(said, reason) if "[0-9]" in said else said in reason
    ), reason
    assert len(reason) < 400 and (said or reason == detail)
    token = (headers["Authorization"] or "").rpartition(" ")[2].strip('"')
    for part in filter(lambda part: len(part) > 8, [token, *token.split(".")]):
        assert part not in asker.server.output()


@pytest.mark.parametrize("name, code", [("eve", 403), ("Eve", 201), ("eves", 201)])
def test_only_a_blocked_user_is_told_that_they_are_blocked(tmp_path, name, code):
    with running(tmp_path, BLOCKED_USERS="mallory, eve", WEB_CONCURRENCY=1) as server:
        token = bearer(f"https://github.com/{name}")
        answer = requests.post(
            f"{server.url}/sessions", json={"content": "Hello"}, headers=token, timeout=30
        )
        assert answer.status_code == code
        if code == 403:
            assert (
                answer.json()["errors"][0]["detail"]
                == "This user is not allowed on this server. Ask the person who runs it."
            )
            assert "BLOCKED_USERS has the name 'eve'." in server.wait_for_output("status=403")


def test_a_user_who_is_both_allowed_and_blocked_is_blocked(tmp_path):
    with running(
        tmp_path, ALLOWED_USERS="eve,bob", BLOCKED_USERS="eve", WEB_CONCURRENCY=1
    ) as server:
        for name, code in (("eve", 403), ("bob", 200), ("alice", 403)):
            token = bearer(f"https://github.com/{name}")
            assert (
                requests.get(f"{server.url}/sessions", headers=token, timeout=30).status_code
                == code
            )


def test_the_log_names_a_user_who_is_not_on_the_list(asker):
    status, detail, reason = asker.ask(**bearer("https://github.com/bob"))
    assert (status, detail) == (
        403,
        "This user is not allowed on this server. Ask the person who runs it.",
    )
    assert reason == "ALLOWED_USERS lacks the name 'bob'."


BODIES = [  # what is wrong, the body, what the client is told
    ("nothing", b"", "Send a JSON value: the body is empty."),
    (
        "a trailing comma",
        b'{\n"content": "x",\n}',
        r"Send one valid JSON value in UTF-8. At line [23], column \d+: (Exp|Ill).+\.",
    ),
    (
        "single quotes",
        b"{'content': 'private words'}",
        "Send one valid JSON value in UTF-8. At line 1, column 2: Expecting .+",
    ),
    (
        "an open text",
        b'{"content": "private words',
        "Send one valid JSON value in UTF-8. At line 1, column 13: Unterminated string.+",
    ),
    (
        "two values",
        b'{"content": "x"} {}',
        "Send one valid JSON value in UTF-8. At line 1, column 18: Extra data.",
    ),
    (
        "a control character",
        b'{"content": "private words\x01"}',
        "Send one .+ At line 1, column 27: Invalid control character.",
    ),
    ("NaN", b'{"content": NaN}', "Send one valid JSON value in UTF-8: NaN is not JSON."),
    (
        "infinity",
        b'{"content": -Infinity}',
        "Send one valid JSON value in UTF-8: -Infinity is not JSON.",
    ),
    (
        "Latin-1",
        b'{"content": "caf\xe9"}',
        r"Send one valid JSON value in UTF-8: byte 16 of the body, counted from 0, is not .+\(0xe9\).",
    ),
    (
        "too deep",
        b"[" * 100_000,
        "Send one valid JSON value in UTF-8: this one is nested too deeply.",
    ),
    (
        "a long number",
        b'{"content": ' + b"1" * 5000 + b"}",
        "Send one .+, with numbers of at most 4300 digits.",
    ),
    (
        "message for content",
        b'{"message": "private words"}',
        "The field content is missing. This field is not known here. Leave it out.",
    ),
    (
        "OpenAI's fields",
        b'{"messages": [{"role": "user", "content": "private words"}]}',
        "The field content is missing. Send content, one message: Parley keeps the conversation.",
    ),
    (
        "OpenAI's stream",
        b'{"content": "x", "stream": true}',
        "Send the header Accept: text/event-stream for a stream.",
    ),
    ("an option", b'{"content": "x", "temperature": 1}', "Put this into options."),
    ("a number", b'{"content": 7}', "Give a string for content."),
    ("a list", b'["private words"]', "Send a JSON object."),
]


@pytest.mark.parametrize("name, body, told", BODIES, ids=[row[0] for row in BODIES])
def test_an_invalid_body_is_explained_to_the_client_and_in_the_log(asker, name, body, told):
    status, detail, reason = asker.ask(body=body, **bearer())
    assert status == 400 and re.fullmatch(told, detail), detail
    assert reason == detail and WORDS not in asker.server.output()


OTHERS = [  # what is wrong, and what the client is told
    (
        "form data",
        {"body": "content=x", "Content-Type": "application/x-www-form-urlencoded"},
        415,
        "Send JSON, with Content-Type: .+",
    ),
    (
        "a slash too many",
        {"path": "/sessions/"},
        404,
        "Leave out the slash at the end of this path.",
    ),
    (
        "another path",
        {"path": "/chats"},
        404,
        "There is nothing at this path. GET / names the places to begin.",
    ),
    (
        "an id that is none",
        {"path": "/sessions/7/messages", "body": {}},
        404,
        "The id of a session is a UUID, as in the answer to POST /sessions or GET /sessions.",
    ),
    (
        "the documents of FastAPI",
        {"path": "/docs"},
        404,
        "GET /openapi.json describes the API. GET / is the page, in a browser.",
    ),
    (
        "OpenAI's path",
        {"path": "/v1/chat/completions", "body": {}},
        404,
        "Parley has its own API: POST /sessions starts a chat. GET /openapi.json describes it.",
    ),
    (
        "another method",
        {"method": "PUT"},
        405,
        "This path does not take PUT. Use GET or POST.",
    ),
    (
        "another form",
        {"Accept": "application/xml"},
        406,
        "Accept application/json or text/event-stream.",
    ),
    (
        "no session",
        {"path": f"/sessions/{uuid.uuid4()}"},
        404,
        "There is no such session. Look it up in GET /sessions.",
    ),
    (
        "a bad page",
        {"path": "/sessions?page[limit]=ten"},
        400,
        "Give a whole number from 1 to 100.",
    ),
    ("a short name", {"path": "/sessions?limit=1"}, 400, r"Use page\[limit\]\."),
    (
        "a short name of another path",
        {"path": f"/sessions/{uuid.uuid4()}?limit=1"},
        400,
        r"Use turns\[limit\]\.",
    ),
    (
        "no model of ours",
        {"body": {"content": "x", "model": "claude-x"}},
        400,
        "GET /models lists .+ set ANTHROPIC_API_KEY on it.",
    ),
]


@pytest.mark.parametrize("name, request_, status, told", OTHERS, ids=[row[0] for row in OTHERS])
def test_the_log_says_why_a_request_is_refused(asker, name, request_, status, told):
    found, detail, reason = asker.ask(**bearer() | request_)
    assert found == status and re.fullmatch(told, detail), detail
    assert reason == detail
