"""The page behind a proxy that signs users in, and what pages of other sites cannot do then."""

import uuid

import pytest
from selenium.webdriver.common.keys import Keys

from browser import Page
from client import make_token, wait_until
from household import NOTHING, RIDE, household
from other_origin import ASYNCHRONOUS, Site
from provider import reply
from trusted import Peer, name


@pytest.fixture(scope="module")
def home(tmp_path_factory, provider_of_all):
    settings = {"OPENAI_BASE_URL": provider_of_all.url + "/v1", "DEFAULT_MODEL": "m-1"}
    with household(tmp_path_factory.mktemp("household"), **settings) as home:
        yield home


@pytest.fixture(scope="module")
def site():
    site = Site()
    yield site
    site.close()


@pytest.fixture
def at_home(browser, home):
    """A function that opens the page of a user who has signed in at the portal."""

    def open_page(user):
        home.come_in(browser, user)
        page = Page(browser, home.server, home.house + "/")
        page.wait(lambda: page.text("#user") == user)
        return page

    yield open_page
    browser.get(home.house + "/health")  # a page of that host, which can see its cookies
    browser.delete_all_cookies()


@pytest.fixture
def user():
    return f"user-{uuid.uuid4().hex[:8]}"


# Signed in by the proxy


@pytest.mark.parametrize("way", ["plain", "secure"])
def test_a_user_whom_the_proxy_knows_needs_no_token(browser, home, provider, way):
    page = Page(browser, home.server, getattr(home, way) + "/")
    page.wait(lambda: page.text("#user") == "alice")
    page.say(f"Hello, {way}")
    page.wait_for_turns(f"Hello, {way}", "The answer.")
    page.click(f"Options of Hello, {way}")
    page.click("Rename")
    page.retitle(f"Renamed, {way}")
    page.wait(lambda: f"Renamed, {way}" in page.titles)
    page.click(f"Options of Renamed, {way}")
    page.click("Delete")
    page.wait(lambda: f"Renamed, {way}" not in page.titles)
    page.driver.refresh()
    page.wait_for_text("m-1", "#model")
    assert f"Renamed, {way}" not in page.titles
    page.find("#account-button").click()
    page.wait_for_text("Signed in as proxy:/alice", "#account")
    assert not page.shows("#sign-out") and not page.shows("#remembered")
    assert page.run("localStorage.length") == 0


def test_a_reply_is_resumed_if_its_page_is_reloaded(at_home, provider, user):
    page = at_home(user)
    provider.script = [reply("One ", 0.5, "two ", 0.5, "three.")]
    page.say("Count")
    page.wait_for_text("One")
    page.driver.refresh()
    page.wait_for_turns("Count", "One two three.")
    assert len(provider.posts) == 1


@pytest.mark.parametrize("asks_as", ["a message", "a chat"])
@pytest.mark.parametrize("ends", ["302", "401", "403", "200"])
def test_an_expired_sign_in_is_reported_and_a_new_one_keeps_the_draft(
    at_home, home, provider, user, asks_as, ends
):
    """The proxy redirects requests to its own page on another host, which a page's requests may
    not follow; or it answers them itself."""
    page = at_home(user)
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    page.press("A draft")
    address = page.driver.current_url
    page.driver.delete_all_cookies()
    page.driver.add_cookie({"name": "ends", "value": ends})
    if asks_as == "a message":
        page.press(Keys.ENTER)
    else:
        page.driver.execute_script("window.dispatchEvent(new HashChangeEvent('hashchange'))")
    page.wait(lambda: page.shows("#ended"))
    assert "Your sign-in has ended. Your message is kept." in page.text("#ended")
    assert page.focused == "again" and page.text("#connection") == ""
    page.driver.delete_all_cookies()
    page.click("Sign in again")
    page.wait(lambda: page.driver.title == "Portal")
    home.come_in(page.driver, user)
    page.wait_for_turns("Hello", "The answer.")
    assert page.driver.current_url == address
    assert page.run("document.getElementById('text').value") == "A draft"
    assert len(provider.posts) == 1


def test_a_sign_in_that_was_renewed_in_another_tab_is_noticed(at_home, home, user):
    page = at_home(user)
    page.press("A draft")
    page.driver.delete_all_cookies()
    page.press(Keys.ENTER)
    page.wait(lambda: page.shows("#ended"))
    in_another_tab(page, home, user)
    look_again(page)
    page.wait(lambda: page.text("#user") == user and page.shows("#app"))
    assert page.run("document.getElementById('text').value") == "A draft"


def in_another_tab(page, home, user):
    """A user signs in at the portal in a new tab, which is closed again."""
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    home.come_in(page.driver, user)
    page.wait(lambda: page.text("#user") == user)
    page.driver.close()
    page.driver.switch_to.window(first)


def look_again(page):
    page.driver.execute_script(
        "document.dispatchEvent(new Event('visibilitychange', { bubbles: true }))"
    )


def test_one_users_draft_is_not_shown_to_the_next(at_home, home, provider, user):
    page = at_home(user)
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    page.press("A draft")
    page.driver.delete_all_cookies()
    page.press(Keys.ENTER)
    page.click("Sign in again")
    page.wait(lambda: page.driver.title == "Portal")
    home.come_in(page.driver, f"other-{user}")
    page.wait(lambda: page.text("#user") == f"other-{user}")
    page.wait_for_text("No chats yet.")
    assert page.run("document.getElementById('text').value") == "" and page.turns == []
    assert "#" not in page.driver.current_url


def test_the_page_notices_that_another_user_has_signed_in_meanwhile(at_home, home, user):
    page = at_home(user)
    page.press("A draft")
    in_another_tab(page, home, f"other-{user}")
    look_again(page)
    page.wait(lambda: page.text("#user") == f"other-{user}")
    assert page.run("document.getElementById('text').value") == ""


def test_a_message_is_not_sent_as_another_user_who_has_signed_in_meanwhile(
    at_home, home, provider, user
):
    """If the window was in view all the time, no event tells the page of the other user."""
    page = at_home(user)
    page.driver.execute_script(
        "window.addEventListener('visibilitychange', (e) => e.stopImmediatePropagation(), true)"
    )
    in_another_tab(page, home, f"other-{user}")
    page.say("For nobody else")
    page.wait(lambda: page.text("#user") == f"other-{user}")
    page.wait_for_text("No chats yet.")
    assert page.run("document.getElementById('text').value") == "" and provider.posts == []


def test_a_notice_stays_if_the_user_looks_at_the_page_again(at_home, user):
    page = at_home(user)
    page.driver.execute_script("document.getElementById('notice').textContent = 'A notice'")
    asked = page.run("performance.getEntriesByType('resource').length")
    look_again(page)
    page.wait(lambda: page.run("performance.getEntriesByType('resource').length") > asked)
    assert page.text("#notice") == "A notice"


def test_a_user_who_is_not_allowed_is_told_so(browser, tmp_path):
    with household(tmp_path, BLOCKED_USERS="alice") as home:
        page = Page(browser, home.server, home.plain + "/")
        page.wait_for_text("This user is not allowed on this server.", "#refusal")


# With tokens


def test_a_link_with_a_token_asks_first_and_signing_out_leads_back_to_the_proxy(
    at_home, home, user
):
    page = at_home(user)
    token, other = make_token(f"https://github.com/{user}"), f"https://github.com/{user}"
    page.driver.get(f"{home.house}/#token={token}")  # in its place
    question = page.answer(True)
    assert f"proxy:/{user}" in question and other in question
    page.wait(lambda: page.run("document.getElementById('subject').textContent") == other)
    page.find("#account-button").click()
    page.click("Sign out")
    page.wait(
        lambda: page.run("document.getElementById('subject').textContent") == f"proxy:/{user}"
    )
    assert page.run("sessionStorage.token") is None


def test_a_refused_token_does_not_fall_back_to_the_proxy(at_home, user):
    page = at_home(user)
    page.press("A draft")
    page.run("sessionStorage.setItem('token', 'none')")
    page.driver.refresh()
    page.wait_for_text("The token is incomplete", "#refusal")
    assert not page.shows("#app")
    page.wait(lambda: page.texts("#source button") == [f"Continue as {user}"])
    page.click(f"Continue as {user}")
    page.wait(lambda: page.text("#user") == user)
    assert page.run("sessionStorage.token") is None
    assert page.run("document.getElementById('text').value") == "A draft"


def test_a_link_that_is_opened_again_asks_first_too(at_home, home, user):
    page = at_home(user)
    page.press("A draft")
    page.driver.get("about:blank")
    page.driver.get(f"{home.house}/#token={make_token('https://github.com/' + user)}")
    assert f"proxy:/{user}" in page.answer(False)
    page.wait(lambda: page.text("#user") == user)
    assert page.run("document.getElementById('text').value") == "A draft"
    page.driver.get("about:blank")
    page.driver.get(f"{home.house}/#token={make_token('https://github.com/' + user)}")
    page.answer(True)
    page.wait(
        lambda: (
            page.run("document.getElementById('subject').textContent")
            == f"https://github.com/{user}"
        )
    )
    assert page.run("document.getElementById('text').value") == ""


def test_a_token_in_the_same_tab_shows_nothing_of_the_proxys_user(at_home, home, user):
    page = at_home(user)
    page.press("A draft")
    page.click("Settings")
    page.press("Be kind.", Keys.ESCAPE)
    assert "Be kind." in page.run("JSON.stringify(sessionStorage)")
    other = make_token(f"https://github.com/{user}")
    page.run("sessionStorage.setItem('token', arguments[0])", other)
    page.driver.refresh()
    page.wait(
        lambda: page.run("document.getElementById('subject').textContent").startswith("https:")
    )
    assert page.run("document.getElementById('text').value") == ""
    assert page.run("document.getElementById('system').textContent") == ""


def test_a_user_who_is_not_allowed_can_still_use_a_link_with_a_token(browser, tmp_path):
    with household(tmp_path, BLOCKED_USERS="alice") as home:
        page = Page(
            browser, home.server, f"{home.plain}/#token={make_token('https://github.com/bob')}"
        )
        page.wait_for_text("This link signs in https://github.com/bob.", "#by-link")
        page.press(Keys.ENTER)
        page.wait(lambda: page.text("#user") == "bob")


def test_a_proxy_that_names_two_users_does_not_reload_the_page_for_ever(at_home, home, user):
    """By a rule for some paths, for example."""
    page = at_home(user)
    page.driver.execute_script("""
        window.fetch = ((ask) => (path, options) => {
            if (path === "sessions" || path.startsWith("sessions?")) options.headers["For-Subject"] = "proxy:/somebody-else";
            return ask(path, options);
        })(window.fetch);
        sessionStorage.setItem("changed", String(Date.now()));
    """)
    page.find("#search").send_keys("x")
    page.wait(lambda: page.shows("#ended"))


# Pages of other sites


@pytest.fixture
def elsewhere(driver, site):
    """The browser on another site's page. It may log refused requests in its console."""
    driver.set_script_timeout(60)
    driver.get(f"http://evil.test:{site.port}/")
    yield driver
    driver.get("about:blank")
    driver.get_log("browser")


@pytest.mark.parametrize("way", ["plain", "secure"])
def test_another_sites_page_cannot_use_the_proxys_sign_in(elsewhere, tmp_path, way):
    """Over plain HTTP, browsers send no `Sec-Fetch-Site`, and no `Origin` with requests that
    only read. The server's CORS allows every origin."""
    with household(tmp_path) as home:
        alice = Peer(str(tmp_path / "parley.sock"))
        created = alice.ask(name("alice"), method="POST", path="/sessions", content="Mine")
        path = created.headers["Location"]
        seen = elsewhere.execute_async_script(ASYNCHRONOUS % RIDE, getattr(home, way), path)
        assert seen == NOTHING
        # Two requests that a script may send without permission, three that need it, a beacon, and
        # two forms.
        wait_until(
            lambda: len([method for method, _ in home.asked("/sessions") if method != "GET"]) == 9
        )
        first, *others = home.asked("/sessions")
        assert first == ("POST", "201")
        assert {status for method, status in others if method != "GET" or way == "secure"} == {
            "403"
        }
        assert ("GET", "403") in others
        [session] = alice.ask(name("alice"), path="/sessions").json()["data"]
        assert (session["title"], session["id"]) == ("Mine", created.json()["id"])


@pytest.mark.parametrize("way, status", [("plain", 200), ("secure", 403)])
def test_a_link_on_another_site_leads_to_the_page_and_nowhere_else(elsewhere, home, way, status):
    follow, away = "location.href = arguments[0]", elsewhere.current_url
    page = Page(elsewhere, home.server, away)
    elsewhere.execute_script(follow, getattr(home, way) + "/")
    page.wait(lambda: page.text("#user") == "alice")
    elsewhere.get(away)
    elsewhere.execute_script(follow, getattr(home, way) + "/sessions")
    page.wait(lambda: page.text("body").startswith("{"))
    assert ("A page of another site" in page.text("body")) == (status == 403)
