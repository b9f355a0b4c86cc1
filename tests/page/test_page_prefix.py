"""The page under a path prefix, behind a proxy."""

import pytest

from browser import Page, read_through_a_break
from documents import text_of
from fronts import NGINX_CONF, proxy_in_front_of
from origins import PREFIX
from provider import REFUSED, cut, reply
from proxy import Proxy


@pytest.fixture
def prefixed(server_with):
    return server_with(SCRIPT_NAME=PREFIX)


@pytest.fixture
def url(prefixed, tmp_path):
    """The address of the service under its prefix, by the nginx of the documents, without the
    slash at the end."""
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
    browser.get(f"{url}#token={page.user.token}")  # a redirect keeps the fragment
    page.wait(lambda: page.titles == ["One"])
    assert page.run("location.href").endswith(f"{PREFIX}/")


def test_a_reply_is_resumed_under_a_prefix_if_the_connection_breaks(browser, prefixed, provider):
    proxy = Proxy(prefixed.port)
    read_through_a_break(Page(browser, prefixed, proxy.url + PREFIX).enter(), provider, proxy)
    proxy.close()
