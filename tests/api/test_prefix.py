"""The API and the terminal client under a prefix. `tests/page/test_page_prefix.py` tests the page."""

import os

import pytest
import requests

import forked
from client import Client, make_token
from fronts import CADDY, HAPROXY, KEPT, NGINX, proxy_in_front_of
from origins import PREFIX, use
from product import ROOT
from provider import reply
from proxy import Proxy
from raw_http import head, raw
from servers import running


@pytest.fixture
def prefixed(server_with):
    return server_with(SCRIPT_NAME=PREFIX)


def test_the_whole_api_works_under_a_prefix(prefixed, provider):
    use(prefixed.client("https://github.com/plain"), provider)


def of_the_prefix(template):
    """The configuration of a proxy that forwards all paths under the prefix unchanged."""
    return template.replace("location / ", f"location {PREFIX} ").replace(
        "reverse_proxy ", f"reverse_proxy {PREFIX}* "
    )


PROXIES = {"nginx": (NGINX, KEPT), "caddy": (CADDY, ""), "haproxy": (HAPROXY, "")}


@pytest.mark.parametrize("name", PROXIES)
def test_the_whole_api_works_under_a_prefix_through_a_proxy(prefixed, provider, tmp_path, name):
    template, more = PROXIES[name]
    with proxy_in_front_of(prefixed, name, of_the_prefix(template), more, tmp_path) as url:
        use(Client(url + PREFIX, make_token(f"https://github.com/{name}")), provider)


OUTSIDE = [
    "/",
    "/health",
    "/sessions",
    "/chat",
    "/Chat/v1/health",
    "/chat%2Fv1/health",
    "/x/chat/v1/health",
    "//chat/v1/health",
]


OUTSIDE += [
    PREFIX + path for path in ("health", "/nowhere", "x/health", "//health", "//example.com/health")
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_paths_outside_the_prefix_get_an_error_of_the_usual_shape(prefixed, path):
    answer = raw(prefixed, head("GET", path, Connection="close"))
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/json")
    [error] = answer.json()["errors"]
    assert (error["status"], error["title"]) == ("404", "Not Found")
    assert error["detail"].startswith("There is nothing")
    assert "Traceback" not in prefixed.output()


def test_the_prefix_without_a_slash_redirects_to_the_page(prefixed):
    answer = raw(prefixed, head("GET", PREFIX, Connection="close"))
    assert (answer.status_code, answer.headers["Location"]) == (308, f"{PREFIX}/")


def test_the_prefix_may_end_with_a_slash(tmp_path):
    with running(tmp_path, SCRIPT_NAME=f"{PREFIX}/") as server:
        assert requests.get(f"{server.url}/sessions", timeout=20).status_code == 401
        assert f"address={server.url} " in server.output()


def test_flask_chat_works_under_a_prefix(prefixed, provider, tmp_path):
    proxy = Proxy(prefixed.port)
    proxy.cut_behind = b"delta"
    provider.script = [reply("One ", 0.3, "two."), reply("Three.")]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PARLEY_TOKEN": make_token(),
        "LANG": "C.UTF-8",
    }
    words = ["-m", "flask", "chat", "--url", proxy.url + PREFIX]
    told = forked.run(words, ROOT, environment, "Count\n")
    assert (told.returncode, told.stdout.strip()) == (0, "One two.")
    proxy.close()
