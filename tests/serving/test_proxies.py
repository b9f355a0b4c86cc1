"""An error that was decided before the body was read arrives whole, through what stands in front of a server."""

import pytest
import requests

from client import make_token
from fronts import CADDY, HAPROXY, KEPT, NGINX, proxy_in_front_of
from servers import running

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
    """Errors of all kinds arrive at a client, a Session or `requests` itself, and its next request is answered."""
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
def test_an_error_before_the_body_arrives_through(upstream, tmp_path, name, template, more):
    with (
        proxy_in_front_of(upstream, name, template, more, tmp_path) as url,
        requests.Session() as session,
    ):
        # Such an nginx says that it keeps a client's connection, and closes it where it has not read the body itself.
        closes = "proxy_request_buffering off" in more
        expect_errors(url, requests if closes else session)


def test_an_error_before_the_body_arrives_at_a_client_that_keeps_connections(upstream):
    with requests.Session() as session:
        expect_errors(upstream.url, session)
