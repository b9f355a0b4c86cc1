"""OpenID Connect: discovery documents, and the claims that give a user's name."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from client import wait_until
from issuer import described
from oidc import IdentityProvider, email_in, name_in, origin_of, read_discovery
from provider import raw, status
from settings import read_settings
from wire import NOT_UNDERSTOOD, Fault

URL = "https://id.example.com"


# Discovery documents


def test_a_document_says_what_the_page_needs():
    found = read_discovery(described(URL), URL)
    assert found == (f"{URL}/authorize", f"{URL}/token", f"{URL}/keys", f"{URL}/logout", ())


ODD = {
    "no object": ([], "not a JSON object"),
    "a text": ("text", "not a JSON object"),
    "no issuer": ({"issuer": None}, "its issuer is null, and JWT_ISSUER is " + URL),
    "another issuer": (
        {"issuer": "https://other"},
        'its issuer is "https://other", and JWT_ISSUER',
    ),
    "a slash more": ({"issuer": URL + "/"}, "its issuer is"),
    "a long issuer": ({"issuer": "x" * 9999}, "^.{0,300}$"),
    "no token endpoint": ({"token_endpoint": None}, "its token_endpoint is not an https"),
    "a number": ({"authorization_endpoint": 5}, "its authorization_endpoint is not an https"),
    "a script": ({"authorization_endpoint": "javascript:alert(1)"}, "its authorization_endpoint"),
    "plain HTTP": ({"token_endpoint": "http://id.example.com/token"}, "its token_endpoint"),
    "a fragment": ({"authorization_endpoint": URL + "/#/sign-in"}, "its authorization_endpoint"),
    "a password": ({"jwks_uri": "https://a:b@id.example.com/keys"}, "its jwks_uri"),
    "more of a policy": ({"token_endpoint": "https://a;script-src *"}, "its token_endpoint"),
    "two sources": ({"token_endpoint": "https://a https://b"}, "its token_endpoint"),
    "keys on this machine": (
        {"jwks_uri": "http://127.0.0.1:9/keys"},
        "its jwks_uri is not an https",
    ),
    "a port that is none": ({"jwks_uri": "https://a:99999/"}, "its jwks_uri"),
}


@pytest.mark.parametrize("change, sentence", ODD.values(), ids=ODD)
def test_an_odd_document_is_reported_and_not_used(change, sentence):
    document = described(URL) | change if isinstance(change, dict) else change
    with pytest.raises(ValueError, match=sentence):
        read_discovery(document, URL)


@pytest.mark.parametrize("url", [None, 5, "http://id.example.com/", "https://a/#b"])
def test_an_odd_end_session_endpoint_is_left_out(url):
    document = described(URL) | {"end_session_endpoint": url}
    assert read_discovery(document, URL).end_session_endpoint is None


def test_an_endpoint_may_have_a_query_and_be_on_this_machine():
    endpoints = {"authorization_endpoint": URL + "/a?b=c", "token_endpoint": "http://[::1]:80/t"}
    found = read_discovery(described(URL) | endpoints, URL)
    assert (found.authorization_endpoint, found.token_endpoint) == tuple(endpoints.values())


LACKING = [
    ({"code_challenge_methods_supported": ["plain"]}, ["code_challenge_methods_supported lacks S"]),
    ({"response_types_supported": ["id_token"]}, ["response_types_supported lacks code"]),
    ({"code_challenge_methods_supported": [], "response_types_supported": []}, ["types", "method"]),
    ({"code_challenge_methods_supported": None, "response_types_supported": "odd"}, []),
]


@pytest.mark.parametrize("change, sentences", LACKING)
def test_what_a_document_says_it_lacks_is_reported(change, sentences):
    lacks = read_discovery(described(URL) | change, URL).lacks
    assert len(lacks) == len(sentences)
    assert all(words in sentence for words, sentence in zip(sentences, lacks, strict=True))


@pytest.mark.parametrize(
    "url, origin",
    [
        ("https://id.example.com", "https://id.example.com"),
        ("HTTPS://ID.example.com:443/realms/home?a=b", "https://id.example.com"),
        ("http://127.0.0.1:80/", "http://127.0.0.1"),
        ("https://id.example.com:80", "https://id.example.com:80"),
        ("http://[::1]:9000/x", "http://[::1]:9000"),
    ],
)
def test_an_origin_is_written_as_browsers_do(url, origin):
    assert origin_of(url) == origin


def provider_at(issuer):
    return IdentityProvider(read_settings(issuer.settings))


def test_the_document_is_requested_below_the_issuer(issuer):
    """Without the slash at the issuer's end, though its name may have one."""
    provider_at(issuer).discover()
    issuer.settings["JWT_ISSUER"] = issuer.document["issuer"] = issuer.url + "/"
    provider_at(issuer).discover()
    assert issuer.asked() == len(issuer.provider.requests) == 2


NO_DOCUMENTS = {
    "nothing": raw(),
    "an error": status(500),
    "elsewhere": status(302, {}, Location="/keys"),
    "a page": status(200, "<html></html>"),
    "too large": status(200, {"filling": "x" * 2**20}),
    "too deep": status(200, "[" * 50_000),
    "another issuer": status(200, described("https://other.example.com")),
}


@pytest.mark.parametrize("answer", NO_DOCUMENTS.values(), ids=NO_DOCUMENTS)
def test_a_failure_is_kept_for_a_while_and_logged_once(issuer, caplog, answer):
    provider, issuer.discovery = provider_at(issuer), answer
    for _ in range(3):
        with pytest.raises((Fault, *NOT_UNDERSTOOD)):
            provider.discover()
        assert provider.soon() is None
    assert issuer.asked() == 1
    [line] = caplog.messages
    assert (
        line.startswith(f"The discovery document at {issuer.url}/.well-known/") and len(line) < 500
    )


def test_many_callers_ask_once_and_the_answer_is_kept(issuer):
    gate, provider = threading.Event(), provider_at(issuer)
    issuer.discovery = lambda request: (yield from (gate, *status(200, issuer.document)(request)))
    with ThreadPoolExecutor(20) as pool:
        found = [pool.submit(provider.soon) for _ in range(20)]
        wait_until(lambda: issuer.asked() == 1)
        assert provider.at_hand() is None
        gate.set()
        assert {each.result().token_endpoint for each in found} == {
            issuer.document["token_endpoint"]
        }
    issuer.discovery = raw()
    assert provider.soon() and provider.at_hand() and issuer.asked() == 1


# A user's name

LONG, LONGEST = "x" * 256, "x" * 255
NAMES = [
    ({"preferred_username": "alice", "name": "Alice Ä."}, "alice"),
    ({"name": "Alice Ä."}, "Alice Ä."),
    ({"preferred_username": LONGEST}, LONGEST),
    *(
        ({"preferred_username": odd, "name": "Alice"}, "Alice")
        for odd in ("", " \n", LONG, "a\0b", "\ud800", None, 5, True, ["alice"], {"a": 1})
    ),
    ({"preferred_username": 5, "name": ""}, None),
    ({"email": "alice@example.com", "email_verified": True, "nickname": "al"}, None),
    ({}, None),
]


@pytest.mark.parametrize("claims, name", NAMES)
def test_a_users_name_is_the_first_suitable_claim(claims, name):
    assert name_in(claims) == name


EMAIL = "alice@example.com"
EMAILS = [
    ({"email": EMAIL, "email_verified": True}, EMAIL),
    *(({"email": EMAIL, "email_verified": odd}, None) for odd in (False, None, "true", 1, [True])),
    ({"email": EMAIL}, None),
    *(
        ({"email": odd, "email_verified": True}, None)
        for odd in ("", "alice", " ", f"{LONG}@a", "a@b\0", None, 5, [EMAIL])
    ),
]


@pytest.mark.parametrize("claims, email", EMAILS)
def test_an_email_counts_if_the_provider_has_verified_it(claims, email):
    assert email_in(claims) == email
