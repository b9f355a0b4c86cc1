"""An error that was decided before the body was read arrives whole, through what stands in front of a server."""

import contextlib
import os
import shutil
import subprocess

import pytest
import requests

from client import end, free_port, make_token, running, wait_until_up

NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}} {user}
http {{
    access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
    fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
    upstream parley {{ server {server}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 20m;
        location / {{ proxy_pass http://parley; {more} }}
    }}
}}
"""
KEPT = 'proxy_http_version 1.1; proxy_set_header Connection "";'

CADDY = """
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    reverse_proxy {server} {{
        {more}
    }}
}}
"""

HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen parley
    bind 127.0.0.1:{port}
    http-reuse always
    {more}
    server parley {server}
"""

PROXIES = {
    "nginx by HTTP/1.0": ("nginx", NGINX, ""),
    "nginx that keeps connections": ("nginx", NGINX, KEPT),
    "nginx that passes bodies on": ("nginx", NGINX, KEPT + " proxy_request_buffering off;"),
    "Caddy": ("caddy", CADDY, ""),
    "Caddy that buffers bodies": ("caddy", CADDY, "buffer_requests"),
    "HAProxy": ("haproxy", HAPROXY, ""),
    "HAProxy that buffers bodies": ("haproxy", HAPROXY, "option http-buffer-request"),
}
COMMANDS = {
    "nginx": ["-c"],
    "caddy": ["run", "--adapter", "caddyfile", "--config"],
    "haproxy": ["-db", "-f"],
}


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    with running(tmp_path_factory.mktemp("upstream"), WEB_CONCURRENCY="2") as server:
        yield server


@contextlib.contextmanager
def proxy_in_front_of(server, name, template, more, folder):
    """The URL of this proxy, which runs with this configuration."""
    command = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if not command:
        pytest.skip(f"{name} is not installed")
    port = free_port()
    user = "user root;" if os.getuid() == 0 else ""
    configuration = template.format(
        port=port, folder=folder, user=user, more=more, server=f"127.0.0.1:{server.port}"
    )
    (folder / "proxy.conf").write_text(configuration)
    with open(folder / "proxy.log", "wb") as log:
        process = subprocess.Popen(
            [command, *COMMANDS[name], folder / "proxy.conf"],
            env=os.environ
            | {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_up(url, process)
        yield url
    finally:
        end(process)  # Caddy would wait for its clients, however long


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
