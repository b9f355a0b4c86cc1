"""Tokens: what they must say, which user they name, who is let in, and what a refusal looks like."""

import calendar
import json
import re
import time
import uuid

import pytest
import requests

from auth import name_of
from client import ALICE, SECRET, make_token
from commands import flask
from product import ROOT
from servers import running
from tokens import CHALLENGE, forge, good_claims, in_base64, refused, status_of

# What a token must say


@pytest.mark.parametrize("claim", ["iss", "iat", "exp", "sub"])
@pytest.mark.parametrize("is_null", [False, True], ids=["missing", "null"])
def test_a_token_without_a_required_claim_is_refused(server, claim, is_null):
    claims = good_claims() | {claim: None}
    if not is_null:
        del claims[claim]
    assert refused(server, forge(claims)) == f"The token lacks the claim {claim}."


@pytest.mark.parametrize("issuer", ["fabro-web2", "", "Fabro-web", 5, ["fabro-web"], {}])
def test_a_token_by_another_issuer_is_refused(server, issuer):
    assert refused(server, forge(good_claims(iss=issuer))) in (
        "The token is by another issuer.",
        "The token is malformed.",
    )


@pytest.mark.parametrize(
    "claim, seconds, problem",
    [
        ("exp", -24, None),
        ("exp", -32, "The token has expired. Get a new one."),
        ("nbf", 24, None),
        ("nbf", 36, "The token is not valid yet."),
        ("iat", 24, None),
        ("iat", 36, "The token is not valid yet."),
        ("nbf", -3600, None),
        ("iat", -3600 * 24 * 365, None),
    ],
)
def test_clocks_may_differ_by_half_a_minute(server, claim, seconds, problem):
    token = forge(good_claims(**{claim: int(time.time()) + seconds}))
    if problem is None:
        assert status_of(server, token) == 200
    else:
        assert refused(server, token).startswith(problem)


def test_a_token_that_is_not_valid_yet_names_both_times(server):
    now = int(time.time())
    told = refused(server, forge(good_claims(iat=now + 100, nbf=now + 7200)))
    clock, since = re.fullmatch(
        "The token is not valid yet. This server's clock says (.+) UTC; the token is valid from "
        "(.+) UTC.",
        told,
    ).groups()
    assert since == time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now + 7200))
    assert abs(calendar.timegm(time.strptime(clock, "%Y-%m-%d %H:%M:%S")) - now) < 60


ODD_CLAIMS = [
    *(
        ("exp", value)
        for value in (
            "Infinity",
            "NaN",
            '"9999999999"',
            "true",
            "[]",
            "{}",
            "1" + "0" * 5000,
            "-1",
            "0",
        )
    ),
    *(
        ("iat", value)
        for value in (
            "Infinity",
            "-Infinity",
            "NaN",
            '"1"',
            '"9999999999"',
            "false",
            "[1]",
            "1e30",
            "1e400",
        )
    ),
    *(("nbf", value) for value in ("Infinity", "NaN", '"1"', "true", "{}", "1e30")),
    *(
        ("sub", value)
        for value in (
            "5",
            "true",
            "[]",
            "{}",
            '""',
            r'" \t"',
            r'"a\u0000b"',
            r'"\ud800"',
            '"%s"' % ("x" * 256),
        )
    ),
]


@pytest.mark.parametrize(
    "claim, value", ODD_CLAIMS, ids=[f"{claim} {value[:12]}" for claim, value in ODD_CLAIMS]
)
def test_odd_claims_are_refused(server, claim, value):
    claims = json.dumps(good_claims(**{claim: "odd"})).replace('"odd"', value)
    refused(server, forge(claims.encode()))


@pytest.mark.parametrize(
    "subject", [ALICE, "x" * 255, "Grüße 世界", "https://github.com/", "' OR 1=1 --", "\U0001f389"]
)
def test_any_subject_is_a_user_of_its_own(server, provider, subject):
    user = server.client(subject)
    session = user.create("Hello")
    assert [listed["id"] for listed in user.get("/sessions").json()["data"]][:1] == [session["id"]]
    assert server.client("somebody else").get(f"/sessions/{session['id']}").status_code == 404


def test_fractions_of_seconds_and_audiences_are_accepted(server):
    now = time.time()
    assert (
        status_of(
            server,
            forge(
                good_claims(iat=now, exp=now + 3600.5, nbf=now - 0.5, aud=["any"], more={"a": 1})
            ),
        )
        == 200
    )


BAD_TOKENS = {
    "one part": "odd",
    "two parts": "odd.odd",
    "no parts": "..",
    "four parts": make_token() + ".odd",
    "two tokens": make_token() + " " + make_token(),
    "no base64": "!!!.???.***",
    "not ASCII": "ü.ü.ü",
    "a changed claim": make_token().replace(".", ".A", 1),
    "a header nested deeply": f"{in_base64(b'[' * 5000)}.{in_base64(b'{}')}.",
    "a header of null": f"{in_base64(b'null')}.{in_base64(b'{}')}.",
    "an algorithm that is a list": forge(good_claims(), alg=["HS256"]),
    "an algorithm of null": forge(good_claims(), alg=None),
    "an extension that must be understood": forge(good_claims(), crit=["odd"], odd=1),
    "a payload apart": forge(good_claims(), b64=False, crit=["b64"]),
    "claims that are a list": forge(b"[]"),
    "claims that are a text": forge(b'"odd"'),
    "claims that are no JSON": forge(b"odd"),
    "claims that are no UTF-8": forge(b'{"sub": "\xff"}'),
    "claims nested deeply": forge(b"[" * 4000),
}


@pytest.mark.parametrize("token", BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_an_invalid_token_is_refused(server, token):
    before, name = server.output(), uuid.uuid4().hex
    headers = {"Authorization": f"Bearer {token}".encode(), "X-Request-ID": name}
    response = requests.get(server.url + "/sessions", headers=headers)
    assert response.status_code == 401, response.text
    assert response.headers["WWW-Authenticate"].startswith(
        CHALLENGE + ', error="invalid_token", error_description="'
    )
    # Only in the new part of the log: the path of an earlier request may read like one of these tokens.
    assert token not in server.wait_for_output(name).removeprefix(before)


# What a refusal looks like


NO_BEARERS = {
    "no header": None,
    "an empty header": "",
    "a password": "Basic YWxpY2U6cGFzcw==",
    "a token alone": make_token(),
    "another scheme": "Token odd",
    "no space": "Bearertoken",
}


@pytest.mark.parametrize("header", NO_BEARERS.values(), ids=NO_BEARERS)
@pytest.mark.parametrize(
    "method, path",
    [("GET", "/sessions"), ("POST", "/sessions"), ("GET", "/models"), ("PATCH", "/sessions/odd")],
)
def test_a_request_without_a_token_gets_a_bare_challenge(server, header, method, path):
    if path == "/sessions/odd":
        path = "/sessions/a1b2c3d4-e5f6-7890-abcd-ef1234567890"
    headers = {"Authorization": header} if header is not None else {}
    response = requests.request(method, server.url + path, headers=headers, data=b"odd")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == CHALLENGE
    assert response.headers["Content-Type"] == "application/json"
    [error] = response.json()["errors"]
    assert (error["status"], error["title"]) == ("401", "Unauthorized")
    assert "Authorization: Bearer" in error["detail"]


def test_an_empty_token_is_refused(server):
    response = requests.get(server.url + "/sessions", headers={"Authorization": "Bearer "})
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith(CHALLENGE)


def test_a_token_in_the_url_is_ignored(server):
    response = requests.get(f"{server.url}/sessions?access_token={make_token()}")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == CHALLENGE


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
def test_the_scheme_may_have_any_case(server, scheme):
    response = requests.get(
        server.url + "/sessions", headers={"Authorization": f"{scheme} {make_token()}"}
    )
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/", "/health"])
def test_public_pages_need_no_token(server, path):
    assert requests.get(server.url + path).status_code == 200
    assert (
        requests.get(server.url + path, headers={"Authorization": "Bearer odd"}).status_code == 200
    )


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    settings = {
        "JWT_ISSUER": "somebody",
        "JWT_AUDIENCE": "parley",
        "ALLOWED_USERS": " alice, bob ,",
    }
    with running(tmp_path_factory.mktemp("strict"), **settings) as server:
        yield server


@pytest.mark.parametrize(
    "claims, problem",
    [
        ({"aud": "parley"}, None),
        ({"aud": ["other", "parley"]}, None),
        ({"aud": "other"}, "The token is for another audience."),
        ({"aud": ["other"]}, "The token is for another audience."),
        ({"aud": "parley2"}, "The token is for another audience."),
        ({"aud": [5]}, "The token is for another audience."),
        ({"aud": {"parley": 1}}, "The token is for another audience."),
        ({}, "The token lacks the claim aud."),
        ({"aud": "parley", "iss": "fabro-web"}, "The token is by another issuer."),
    ],
)
def test_issuer_and_audience_must_match_the_settings(strict, claims, problem):
    token = forge(good_claims(iss="somebody") | claims)
    if problem is None:
        assert status_of(strict, token) == 200
    else:
        assert refused(strict, token) == problem


@pytest.mark.parametrize(
    "subject, is_allowed",
    [
        ("https://github.com/alice", True),
        ("https://github.com/alice?x=/carol#/carol", True),
        ("https://github.com/carol?x=/alice", False),
        ("https://github.com/carol#/alice", False),
        ("https://github.com?/alice", False),
        ("https://alice", False),
        ("https://github.com/bob", True),
        ("https://github.com/bob/", False),
        ("https://github.com/bob//", False),
        ("alice/", False),
        ("alice", True),
        ("https://github.com/carol", False),
        ("https://github.com/alice2", False),
        ("https://github.com/alice/carol", False),
        ("https://github.com/", False),
        ("carol, bob", False),
        ("/", False),
    ],
)
def test_only_users_on_the_list_are_let_in(strict, subject, is_allowed):
    response = strict.client(subject, iss="somebody", aud="parley").get("/sessions")
    if is_allowed:
        assert response.status_code == 200
    else:
        assert response.status_code == 403
        [error] = response.json()["errors"]
        assert (error["status"], error["title"]) == ("403", "Forbidden")
        assert "not allowed" in error["detail"]
        assert "bob" not in response.text


@pytest.mark.parametrize(
    "subject, name",
    [
        ("https://github.com/eve?x=/alice", "eve"),
        ("https://github.com/eve#/alice", "eve"),
        ("https://github.com/eve/?/alice", ""),
        ("https://eve:/alice@github.com/eve", "eve"),
        ("https://github.com/a/b;c=d%2Fe", "b;c=d%2Fe"),
        ("https://github.com/alice\n", "alice\n"),
        ("HTTPS://github.com//alice", "alice"),
        ("https:///alice", "alice"),
        ("https://", ""),
        ("team/alice", "alice"),
        ("team/eve?x=/alice", "alice"),
        ("auth0|alice", "auth0|alice"),
        ("urn:user:alice", "urn:user:alice"),
    ],
)
def test_a_users_name_is_the_last_segment_of_a_urls_path(subject, name):
    assert name_of(subject) == name


def test_the_server_accepts_the_tokens_that_it_makes(tmp_path, strict):
    settings = {"JWT_SECRET": SECRET, "JWT_ISSUER": "somebody", "JWT_AUDIENCE": "parley"}
    command = flask(ROOT, "token", "alice", **settings, DATABASE_URL=f"sqlite:///{tmp_path}/a.db")
    assert status_of(strict, command.stdout.strip()) == 200
