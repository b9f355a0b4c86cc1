"""Signing in by OpenID Connect: the audience of an ID token, the user it names, who may use the server, and the keys."""

import contextlib

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from client import ALICE, Client, make_token, wait_until
from issuer import CLIENT_ID, Issuer
from product import copy_of_the_service
from provider import status
from servers import running
from tokens import ED25519, RSA, jwk, jwks

URL = "https://id.example.com"
EMAIL = "alice@example.com"
FORGER = rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """(an identity provider, a server that trusts it)"""
    with contextlib.closing(Issuer()) as issuer:
        with running(tmp_path_factory.mktemp("home"), **issuer.settings) as server:
            yield issuer, server


def me(server, token):
    return Client(server.url, token).get("/me")


def told(answer):
    return answer.status_code, answer.json()["errors"][0]["detail"]


# ID tokens


def test_an_id_token_names_the_user(home):
    issuer, server = home
    for claims, name in (
        ({"preferred_username": "al", "name": "Alice"}, "al"),
        ({"name": "Alice"}, "Alice"),
        ({"name": 5}, "alice"),
        ({}, "alice"),
    ):
        answer = me(server, issuer.token(**claims))
        assert answer.json() == {"subject": ALICE, "name": name, "by": "token"}
    user = Client(server.url, issuer.token("0c5e-71"))
    assert user.get("/me").json()["name"] == "0c5e-71"
    assert user.turns(user.create("Hello"))[1]["content"] == "Hello"


OTHER_AUDIENCE = (401, "The token is for another audience.")
OTHER_CLIENT = (401, "The token was issued to another client.")
SEVERAL = (401, "The token has several audiences, and no azp that says whose it is.")
NO_ID_TOKEN = (401, "The token is not an ID token.")
PROXYS = (401, "Only a token that this server signed may have proxy:/ in its sub.")
AUDIENCES = [
    ({"azp": CLIENT_ID}, None),
    ({"aud": ["other", CLIENT_ID], "azp": CLIENT_ID}, None),
    ({"aud": ["other", CLIENT_ID]}, SEVERAL),
    ({"aud": [CLIENT_ID]}, None),
    *(
        ({"aud": odd}, OTHER_AUDIENCE)
        for odd in ("other", ["other"], [], "", CLIENT_ID.upper(), [CLIENT_ID, 5], [[CLIENT_ID]])
    ),
    ({"aud": None}, OTHER_AUDIENCE),
    ({"aud": {CLIENT_ID: 1}}, OTHER_AUDIENCE),
    ({"aud": "other", "azp": CLIENT_ID}, OTHER_AUDIENCE),
    *(({"azp": odd}, OTHER_CLIENT) for odd in ("other", "", 5, [CLIENT_ID])),
    ({"client_id": CLIENT_ID}, None),
    ({"client_id": "other"}, OTHER_CLIENT),
    ({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}, NO_ID_TOKEN),
    *(({"typ": typ}, NO_ID_TOKEN) for typ in ("at+jwt", "application/at+jwt", "Logout+JWT")),
    *(({"also": {"typ": typ}}, NO_ID_TOKEN) for typ in ("Bearer", "Refresh", "", 5)),
    ({"also": {"typ": "ID"}}, None),
    ({"iss": URL}, (401, "The token is by another issuer.")),
    ({"exp": 5}, (401, "The token has expired. Get a new one.")),
    ({"sub": "proxy:/alice"}, PROXYS),
]


@pytest.mark.parametrize("claims, refusal", AUDIENCES)
def test_an_id_token_must_be_for_this_client(home, claims, refusal):
    issuer, server = home
    answer = me(server, issuer.token(**claims))
    assert (None if answer.status_code == 200 else told(answer)) == refusal


def test_a_token_signed_with_another_key_is_refused(home):
    issuer, server = home
    named = {"iss": issuer.url, "aud": CLIENT_ID}
    for key, algorithm, kid in (
        (FORGER, "RS256", "1"),
        (RSA, "RS256", "2"),
        ("x" * 40, "HS256", "1"),
    ):
        token = make_token(ALICE, key, algorithm, {"kid": kid}, **named)
        assert "signed with a key" in told(me(server, token))[1]


def test_the_log_names_the_audience_of_a_refused_token(home):
    issuer, server = home
    me(server, issuer.token(aud="other", azp="third"))
    server.wait_for_output('aud \\"other\\", azp \\"third\\"; expected are')
    assert f"expected are iss {issuer.url}, aud {CLIENT_ID}." in server.output()


def test_a_token_for_the_configured_audience_is_still_accepted(issuer, tmp_path):
    with running(tmp_path, **issuer.settings, JWT_AUDIENCE="https://chat") as server:
        for claims in (
            {"aud": "https://chat", "azp": "other"},
            {"aud": ["https://chat"]},
            {"aud": CLIENT_ID},
        ):
            assert me(server, issuer.token(**claims)).status_code == 200
        assert told(me(server, issuer.token(aud="other"))) == OTHER_AUDIENCE
        assert told(me(server, issuer.token(azp="other"))) == OTHER_CLIENT


def test_without_a_client_id_these_claims_have_no_effect(identity, tmp_path):
    identity.models = jwks(jwk(RSA.public_key(), "1"))
    claims = {"aud": "other", "azp": "third", "preferred_username": "al"}
    claims |= {"email": EMAIL, "email_verified": True}
    token = make_token(ALICE, RSA, "RS256", {"kid": "1"}, **claims)
    settings = {"JWT_SECRET": "", "JWT_JWKS_URL": identity.url, "BLOCKED_USERS": EMAIL}
    with running(tmp_path, **settings) as server:
        assert me(server, token).json() == {"subject": ALICE, "name": "alice", "by": "token"}


# Allowed and blocked users


def verified(email):
    return {"email": email, "email_verified": True}


LISTED = [  # whether ALLOWED_USERS allows these claims
    ({"sub": "https://id/Alice@example.com"}, False),
    ({"sub": "Alice@example.com"}, False),
    ({"sub": "https://id/Bob"}, True),
    ({"sub": "Bob"}, True),
    ({"sub": "bob"}, False),
    (verified("alice@example.com"), True),
    (verified("ALICE@Example.COM"), True),
    (verified("eve@example.com"), False),
    (verified("\u212aim@example.com"), False),  # its lower case is a k
    (verified("Bob"), False),
    ({"email": "alice@example.com", "email_verified": False}, False),
    ({"email": "alice@example.com", "email_verified": "true"}, False),
    ({"email": "alice@example.com"}, False),
    ({"preferred_username": "Bob"}, False),
    ({"preferred_username": "alice@example.com", "name": "Bob"}, False),
]
LIST = "Bob, Alice@example.com, kim@example.com"


@pytest.fixture(scope="module")
def allowing(tmp_path_factory):
    with contextlib.closing(Issuer()) as issuer:
        settings = issuer.settings | {"ALLOWED_USERS": LIST}
        with running(tmp_path_factory.mktemp("allowing"), **settings) as server:
            yield issuer, server


@pytest.fixture(scope="module")
def blocking(tmp_path_factory):
    with contextlib.closing(Issuer()) as issuer:
        settings = issuer.settings | {"BLOCKED_USERS": LIST}
        with running(tmp_path_factory.mktemp("blocking"), **settings) as server:
            yield issuer, server


@pytest.mark.parametrize("claims, is_listed", LISTED)
def test_a_list_names_users_by_the_end_of_their_subject_or_verified_email(
    allowing, blocking, claims, is_listed
):
    for (issuer, server), expected in ((allowing, is_listed), (blocking, not is_listed)):
        answer = me(server, issuer.token(**{"sub": "0c5e-71"} | claims))
        assert answer.status_code == (200 if expected else 403)


def test_the_log_says_which_name_and_email_were_compared(allowing, blocking):
    issuer, server = allowing
    me(server, issuer.token("x/0c5e", preferred_username="Bob", **verified("Eve@example.com")))
    server.wait_for_output("ALLOWED_USERS lacks the name '0c5e' and the e-mail 'Eve@example.com'.")
    me(server, issuer.token("x/0c5f", email="alice@example.com"))
    server.wait_for_output("ALLOWED_USERS lacks the name '0c5f'.")
    issuer, server = blocking
    me(server, issuer.token("x/0c5e", **verified("alice@example.com")))
    server.wait_for_output("BLOCKED_USERS has the name '0c5e' or the e-mail 'alice@example.com'.")


def test_the_server_warns_if_all_accounts_of_the_provider_are_allowed(home, allowing):
    warning = (
        f"ALLOWED_USERS is not set: everybody with an account at {home[0].url} can use this server."
    )
    assert home[1].wait_for_output(" start ").count(warning) == 1
    assert "ALLOWED_USERS is not set" not in allowing[1].wait_for_output(" start ")


# Keys


def test_keys_come_from_jwt_jwks_url_if_it_is_set(issuer, identity, tmp_path):
    identity.models = jwks(jwk(ED25519.public_key(), "2"))
    with running(tmp_path, **issuer.settings, JWT_JWKS_URL=identity.url) as server:
        named = {"iss": issuer.url, "aud": CLIENT_ID}
        token = make_token(ALICE, ED25519, "EdDSA", {"kid": "2"}, **named)
        assert me(server, token).status_code == 200
        assert "does not publish" in told(me(server, issuer.token()))[1]
        assert issuer.asked("/keys") == 0


def test_keys_are_used_once_the_discovery_document_can_be_fetched(issuer, tmp_path):
    issuer.discovery = status(500)
    with running(tmp_path, **issuer.settings) as server:
        answer = me(server, issuer.token())
        assert told(answer) == (503, "The identity provider does not answer. Ask again later.")
        assert answer.headers["Retry-After"] == "5"
        issuer.discovery = None
        wait_until(lambda: me(server, issuer.token()).status_code == 200, 20)
        assert "Traceback" not in server.output()


def test_the_server_makes_no_key_of_its_own(issuer, tmp_path):
    folder = copy_of_the_service(tmp_path / "parley")
    with running(tmp_path / "server", root=folder, **issuer.settings) as server:
        assert f'keys="those of {issuer.url}"' in server.wait_for_output(" start ")
        assert me(server, issuer.token()).status_code == 200
    assert not (folder / "instance" / "jwt_key.pem").exists()
