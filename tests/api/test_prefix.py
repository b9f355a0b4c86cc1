"""API, page and terminal client under a prefix."""

import os
import subprocess
import sys

import pytest
import requests

from browser import Page, read_through_a_break
from client import Client, make_token
from documents import text_of
from fronts import CADDY, HAPROXY, KEPT, NGINX, NGINX_CONF, proxy_in_front_of
from origins import PREFIX, use
from product import ROOT
from provider import REFUSED, cut, reply
from proxy import Proxy
from raw_http import head, raw
from servers import running

# A service under a prefix


@pytest.fixture
def prefixed(server_with):
    return server_with(SCRIPT_NAME=PREFIX)


def test_the_api_is_whole_under_a_prefix(prefixed, provider):
    use(prefixed.client("https://github.com/plain"), provider)


def of_the_prefix(template):
    """The configuration of a proxy that passes on what begins with the prefix, as it is."""
    return template.replace("location / ", f"location {PREFIX} ").replace(
        "reverse_proxy ", f"reverse_proxy {PREFIX}* "
    )


PROXIES = {"nginx": (NGINX, KEPT), "caddy": (CADDY, ""), "haproxy": (HAPROXY, "")}


@pytest.mark.parametrize("name", PROXIES)
def test_the_api_is_whole_under_a_prefix_behind(prefixed, provider, tmp_path, name):
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
def test_what_is_not_under_the_prefix_is_an_error_as_all_are(prefixed, path):
    answer = raw(prefixed, head("GET", path, Connection="close"))
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/json")
    [error] = answer.json()["errors"]
    assert (error["status"], error["title"]) == ("404", "Not Found")
    assert error["detail"].startswith("There is nothing")
    assert "Traceback" not in prefixed.output()


def test_the_prefix_without_a_slash_leads_to_the_page(prefixed):
    answer = raw(prefixed, head("GET", PREFIX, Connection="close"))
    assert (answer.status_code, answer.headers["Location"]) == (308, f"{PREFIX}/")


def test_the_prefix_may_end_with_a_slash(tmp_path):
    with running(tmp_path, SCRIPT_NAME=f"{PREFIX}/") as server:
        assert requests.get(f"{server.url}/sessions", timeout=20).status_code == 401
        assert f"address={server.url} " in server.output()


@pytest.fixture
def url(prefixed, tmp_path):
    """Where a browser finds the service under its prefix, by the nginx of the documents, without
    the slash at the end."""
    block = (
        text_of("nginx").replace("{", "{{").replace("}", "}}").replace("127.0.0.1:8000", "{server}")
    )
    template = NGINX_CONF % f"server {{{{ listen 127.0.0.1:{{port}}; {block} }}}}"
    with proxy_in_front_of(prefixed, "nginx", template, "", tmp_path) as url:
        yield url + PREFIX


def test_the_page_works_under_a_prefix(browser, prefixed, provider, url):
    page = Page(browser, prefixed, url).enter()
    assert page.run("location.pathname") == f"{PREFIX}/"
    provider.script = [reply("**Good.**"), cut("Half"), REFUSED, reply("Whole.")]
    page.say("One")
    page.wait_for_turns("One", "Good.")
    page.say("Two")
    page.wait_for_turns("One", "Good.", "Two", "Half")
    page.wait_for_text(
        f"The provider 127.0.0.1:{provider.port} broke the connection", "article:last-child"
    )
    page.click("Retry")
    page.wait_for_turns("One", "Good.", "Two", "Whole.")
    page.driver.refresh()
    page.wait_for_turns("One", "Good.", "Two", "Whole.")
    assert page.run("location.pathname") == f"{PREFIX}/"
    page.click("New chat")
    page.wait(lambda: page.turns == [])
    page.click("One")
    page.wait_for_turns("One", "Good.", "Two", "Whole.")
    assert page.text("#notice") == ""
    browser.get(f"{url}#token={page.user.token}")  # as a link has it: a redirect keeps the fragment
    page.wait(lambda: page.titles == ["One"])
    assert page.run("location.href").endswith(f"{PREFIX}/")


def test_the_page_goes_on_under_a_prefix_where_the_connection_breaks(browser, prefixed, provider):
    proxy = Proxy(prefixed.port)
    read_through_a_break(Page(browser, prefixed, proxy.url + PREFIX).enter(), provider, proxy)
    proxy.close()


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
    command = [sys.executable, "-m", "flask", "chat", "--url", proxy.url + PREFIX]
    run = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "timeout": 30}
    told = subprocess.run(command, input="Count\n", **run)
    assert (told.returncode, told.stdout.strip()) == (0, "One two.")
    proxy.close()
