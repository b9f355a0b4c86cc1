"""Reverse proxies: an error response sent before the body was read arrives complete, and a user
name that a client sends is not believed."""

import pytest
import requests

from client import ALICE, make_token
from fronts import CADDY, HAPROXY, KEPT, NGINX, proxy_in_front_of
from servers import running
from trusted import Peer, user_of

PROXIES = {
    "nginx by HTTP/1.0": ("nginx", NGINX, ""),
    "nginx that keeps connections": ("nginx", NGINX, KEPT),
    "nginx that passes bodies on": ("nginx", NGINX, KEPT + " proxy_request_buffering off;"),
    "Caddy": ("caddy", CADDY, ""),
    "Caddy that buffers bodies": ("caddy", CADDY, "buffer_requests"),
    "HAProxy": ("haproxy", HAPROXY, ""),
    "HAProxy that buffers bodies": ("haproxy", HAPROXY, "option http-buffer-request"),
}


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    with running(tmp_path_factory.mktemp("upstream"), WEB_CONCURRENCY="2") as server:
        yield server


TOKEN = {"Authorization": f"Bearer {make_token()}"}
ERRORS = {
    401: ("POST", "/sessions", {}),
    404: ("POST", "/odd", TOKEN),
    405: ("PUT", "/sessions", TOKEN),
    406: ("POST", "/sessions", TOKEN | {"Accept": "image/png"}),
    413: ("POST", "/sessions", TOKEN),
}
SIZES = [100_000, 1_000_000, 8_000_000]


def expect_errors(url, client):
    """Errors of all kinds reach the client (a Session, or `requests` itself), and its next request is answered."""
    for size in SIZES:
        for status, (method, path, headers) in ERRORS.items():
            if status == 413 and size < 2 << 20:
                continue
            for _ in range(5):
                body = b"x" * size
                response = client.request(
                    method, url + path, data=body, headers=headers, timeout=20
                )
                assert response.status_code == status, (size, response.text)
                assert response.headers["Content-Type"] == "application/json"
                assert response.json()["errors"][0]["status"] == str(status)
                assert client.get(url + "/health", timeout=20).json()["status"] == "ok"


@pytest.mark.parametrize("name, template, more", PROXIES.values(), ids=PROXIES)
def test_an_error_sent_before_the_body_arrives_through_a_proxy(
    upstream, tmp_path, name, template, more
):
    with (
        proxy_in_front_of(upstream, name, template, more, tmp_path) as url,
        requests.Session() as session,
    ):
        # Such an nginx says that it keeps the client's connection alive, but closes it if it has not read the body itself.
        closes = "proxy_request_buffering off" in more
        expect_errors(url, requests if closes else session)


def test_an_error_sent_before_the_body_reaches_a_client_with_keep_alive(upstream):
    with requests.Session() as session:
        expect_errors(upstream.url, session)


# Proxies that authenticate users by their network, and name them. The first of each kind only adds the header.

NAMES_ALICE = {
    "nginx": ("nginx", NGINX, 'proxy_set_header Remote-User "alice";'),
    "nginx that passes underscores on": (
        "nginx",
        NGINX.replace("access_log off;", "access_log off; underscores_in_headers on;"),
        'proxy_set_header Remote-User "alice";',
    ),
    "Caddy": ("caddy", CADDY, "header_up Remote-User alice"),
    "HAProxy": ("haproxy", HAPROXY, "http-request set-header Remote-User alice"),
    "HAProxy that takes underscores away": (
        "haproxy",
        HAPROXY,
        "http-request del-header ^remote[-_]user$ -m reg\n"
        "    http-request set-header Remote-User alice",
    ),
}
SPELLINGS = [
    "Remote-User",
    "REMOTE-USER",
    "Remote_User",
    "remote_user",
    "Remote-user",
    "REMOTE_USER",
]


@pytest.fixture(scope="module")
def trusting(tmp_path_factory):
    trusted = {"TRUSTED_USER_HEADER": "Remote-User", "TRUSTED_PROXIES": "127.0.0.1"}
    with running(tmp_path_factory.mktemp("trusting"), **trusted) as server:
        yield server


@pytest.mark.parametrize("name, template, more", NAMES_ALICE.values(), ids=NAMES_ALICE)
def test_the_user_is_the_one_the_proxy_names_whatever_the_client_sends(
    trusting, tmp_path, name, template, more
):
    with proxy_in_front_of(trusting, name, template, more, tmp_path) as url:
        address = url.removeprefix("http://")
        peer = Peer(("127.0.0.1", int(address.partition(":")[2])))
        assert user_of(peer.ask(host=address)) == "proxy:/alice"
        for spelling in SPELLINGS:
            for count in (1, 2):
                for rest in ((), (f"Connection: {spelling}",), ("X-Forwarded-For: 127.0.0.1",)):
                    answer = peer.ask(*[f"{spelling}: mallory"] * count, *rest, host=address)
                    # A proxy that passes on the other spelling sends two headers.
                    if answer.status_code not in (400, 401):
                        assert user_of(answer) == "proxy:/alice"
        by_token = peer.ask(f"Authorization: Bearer {make_token()}", host=address)
        assert user_of(by_token) == ALICE
    assert "proxy:/mallory" not in trusting.output()


@pytest.mark.parametrize("name, template, more", PROXIES.values(), ids=PROXIES)
def test_a_proxy_that_is_not_listed_names_no_user(tmp_path, name, template, more):
    trusted = {"TRUSTED_USER_HEADER": "Remote-User", "TRUSTED_PROXIES": "127.0.0.2,unix"}
    with (
        running(tmp_path / "server", **trusted) as server,
        proxy_in_front_of(server, name, template, more, tmp_path) as url,
    ):
        address = url.removeprefix("http://")
        peer = Peer(("127.0.0.1", int(address.partition(":")[2])))
        claims = ("X-Forwarded-For: 127.0.0.2", "X-Real-IP: 127.0.0.2", "Forwarded: for=127.0.0.2")
        for spelling in SPELLINGS:
            assert peer.ask(f"{spelling}: alice", *claims, host=address).status_code == 401
