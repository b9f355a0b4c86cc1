"""Signing in through the page at an identity provider: npm's certified one. Modules:
`static/page/oidc.js`."""

import json
import re
import uuid

import pytest
import requests
from selenium.webdriver.common.keys import Keys

from browser import Page
from openid import OpenID, come_in, openid, settings_of
from provider import reply
from servers import free_port, running

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both
STORED = "[sessionStorage, localStorage].map((each) => ({ ...each }))"


class Home:
    """A server, its users' identity provider, and their page."""

    def __init__(self, server, provider):
        self.server, self.provider = server, provider
        self.address = server.url + "/"

    def open(self, browser, rest=""):
        page = Page(browser, self.server, self.address + rest)
        page.home = self
        return page

    def enter(self, browser, name):
        """The page of the user of this name, who signs in."""
        page = self.open(browser)
        page.click("Sign in at")
        come_in(page, name)
        page.wait(lambda: page.text("#user") == f"name-of-{name}")
        page.wait_for_text("No chats yet.")
        return page


@pytest.fixture(scope="module")
def home_with(tmp_path_factory, provider_of_all):
    """A function that returns a home with such a provider. Each is made once."""
    homes = {}

    def home_with(prefix="", allowed=None, **options):
        key = json.dumps([prefix, allowed, options])
        if key not in homes:
            homes[key] = make(prefix, allowed, options)
        return homes[key]

    def make(prefix, allowed, options):
        port = free_port()
        provider = OpenID(f"http://127.0.0.1:{port}{prefix}/", **options)
        leaving.append(provider.close)
        settings = {
            "OPENAI_BASE_URL": provider_of_all.url + "/v1",
            "DEFAULT_MODEL": "m-1",
            "SCRIPT_NAME": prefix,
            "ALLOWED_USERS": allowed,
        }
        context = running(
            tmp_path_factory.mktemp("home"), port=port, **settings, **settings_of(provider.issuer)
        )
        server = context.__enter__()
        leaving.append(lambda: context.__exit__(None, None, None))
        return Home(server, provider)

    leaving = []
    home_with.homes = homes
    yield home_with
    for leave in reversed(leaving):
        leave()


@pytest.fixture
def home(home_with):
    return home_with()


@pytest.fixture
def user():
    """A user without chats."""
    return f"user-{uuid.uuid4().hex[:8]}"


@pytest.fixture(autouse=True)
def forgotten(browser, server, home_with):
    """Nobody is signed in at a provider or a home, before and after. A test may end on the
    provider's page, which has a storage of its own."""
    for home in home_with.homes.values():
        browser.get(home.address + "health")
        browser.execute_script("sessionStorage.clear(); localStorage.clear()")
    browser.get(server.url + "/health")  # cookies belong to a host, whatever its port
    browser.delete_all_cookies()
    yield
    browser.delete_all_cookies()
    # The provider's own pages have a field that Chromium complains about, and no icon.
    console = [entry for entry in browser.get_log("browser") if entry["source"] != "network"]
    own = [
        entry for entry in console if not re.search("/interaction/|/session/end", entry["message"])
    ]
    assert own == []


def refused(page):
    page.wait(lambda: page.text("#refusal"))
    return page.text("#refusal")


def grant(page):
    return json.loads(page.run("sessionStorage.grant"))


# Signing in


@pytest.mark.parametrize("prefix", ["", "/chat"])
def test_a_user_who_signs_in_has_their_chats_and_leaves_nothing_in_the_address(
    browser, home_with, provider, user, prefix
):
    home = home_with(prefix)
    page = home.enter(browser, user)
    assert browser.current_url == home.address
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    page.find("#account-button").click()
    page.wait_for_text(f"Signed in as {user}", "#account")
    assert not page.shows("#remembered")
    in_tab, on_device = page.run(STORED)
    assert in_tab["token"].count(".") == 2 and json.loads(in_tab["grant"])["refresh"]
    assert "signing in" not in in_tab
    assert "token" not in on_device and "grant" not in on_device
    browser.refresh()
    page.wait_for_turns("Hello", "The answer.")
    browser.back()
    assert "code=" not in browser.current_url and "state=" not in browser.current_url


def test_the_sign_in_page_offers_the_provider_first_and_then_a_token(browser, home, check):
    page = home.open(browser)
    page.wait_for_text(f"Sign in at 127.0.0.1:{home.provider.port}", "#sign-in-page")
    page.wait(lambda: page.focused == "provider")
    assert not page.shows("#token") and page.text("#source") == ""
    check("the door with a provider")
    page.find("#by-token summary").click()
    page.enter("none")
    assert "The token is incomplete" in refused(page)


def test_an_answer_that_nobody_asked_for_signs_in_nobody(browser, home, user):
    """A link with a code in it would make the user write into the account of the link's sender."""
    before = home.provider.control()["asked"]
    page = home.open(browser, "?code=of-mallory&state=guessed")
    assert "This sign-in was not started in this tab" in refused(page)
    assert browser.current_url == home.address
    assert home.provider.control()["asked"] == before
    page = home.enter(browser, user)
    browser.get(home.address + "?code=of-mallory&state=guessed")
    page.wait_for_text("This sign-in was not started in this tab", "#notice")
    page.wait(lambda: page.text("#user") == f"name-of-{user}")  # the first user is still signed in


def test_a_token_for_another_sign_in_is_refused(browser, home, user):
    home.provider.control(nonce="another")
    try:
        page = home.open(browser)
        page.click("Sign in at")
        come_in(page, user)
        assert "The token belongs to another sign-in" in refused(page)
    finally:
        home.provider.control(nonce=None)
    assert "token" not in page.run(STORED)[0]
    page.click("Sign in at")
    page.wait_for_text("No chats yet.")


def begin(page, state):
    """Make the tab wait for an answer with this state, as if it had begun to sign in."""
    error = requests.get(page.home.address + "me", timeout=5).json()["errors"][0]
    oidc = error["meta"]["sign_in"]["oidc"]
    begun = {"state": state, "nonce": "n", "verifier": "v" * 43, "oidc": oidc}
    page.run("sessionStorage['signing in'] = arguments[0]", json.dumps(begun))


def test_a_code_works_once(browser, home, user):
    page = home.enter(browser, user)
    code = home.provider.control()["codes"][-1]
    begin(page, "again")
    browser.get(f"{home.address}?code={code}&state=again")
    told = refused(page)
    assert told == f"127.0.0.1:{home.provider.port} refused: grant request is invalid"
    assert "token" not in page.run(STORED)[0]


def test_a_user_who_cancels_at_the_provider_is_back_at_the_sign_in_page(browser, home, user):
    page = home.open(browser)
    page.click("Sign in at")
    page.wait(lambda: page.run("Boolean(document.querySelector('[name=login]'))"))
    page.click("[ Cancel ]")
    assert "refused: End-User aborted interaction" in refused(page)
    page.click("Sign in at")
    come_in(page, user)
    page.wait_for_text("No chats yet.")


def test_an_answer_of_another_provider_is_noticed(browser, home, user):
    page = home.open(browser)
    page.wait(lambda: page.shows("#provider"))
    begin(page, "mine")
    browser.get(f"{home.address}?code=any&state=mine&iss=https://evil.example")
    assert "The answer is not from" in refused(page)


@pytest.mark.parametrize("ahead, told", [(120, "is not valid yet."), (-200, "has expired.")])
def test_clocks_that_differ_are_reported(browser, home_with, user, ahead, told):
    home = home_with(ahead=ahead, seconds=60)
    page = home.open(browser)
    page.click("Sign in at")
    come_in(page, user)
    sentence = refused(page)
    host = f"127.0.0.1:{home.provider.port}"
    assert told in sentence
    assert sentence.endswith(f"The clocks of {host} and of this server differ.")


def test_a_provider_without_cors_is_reported(browser, home, user):
    home.provider.control(cors=False)
    try:
        page = home.open(browser)
        page.click("Sign in at")
        come_in(page, user)
        told = refused(page)
    finally:
        home.provider.control(cors=True)
    place = home.address.rstrip("/")
    assert told == f"127.0.0.1:{home.provider.port} does not let {place} ask it (CORS)."
    assert any("CORS" in entry["message"] for entry in browser.get_log("browser"))
    page.click("Sign in at")
    page.wait_for_text("No chats yet.")


def test_an_unreachable_provider_is_reported_and_asked_again(browser, tmp_path, user):
    port, issuer_port = free_port(), free_port()
    issuer = f"http://127.0.0.1:{issuer_port}"
    with running(tmp_path, port=port, **settings_of(issuer)) as server:
        page = Page(browser, server)
        assert refused(page) == f"127.0.0.1:{issuer_port} cannot be reached. Try again later."
        page.click("Sign in at")
        assert "cannot be reached" in refused(page)
        with openid(server.url + "/", port=issuer_port):
            page.wait(lambda: get_in(page), seconds=30)
            come_in(page, user)
            page.wait_for_text("No chats yet.")


def get_in(page):
    """Click if the page is still there. Returns whether the provider's page is."""
    page.run("document.getElementById('provider')?.click()")
    return page.run("Boolean(document.querySelector('[name=login]'))")


def test_a_user_who_is_not_allowed_can_sign_in_as_another(browser, home_with, user):
    home = home_with(allowed="alice")
    page = home.open(browser)
    page.click("Sign in at")
    come_in(page, user)
    assert "This user is not allowed on this server." in refused(page)
    page.click("Sign in at")
    come_in(page, "alice")  # the provider asks for the name, though it knows the user
    page.wait(lambda: page.text("#user") == "name-of-alice")
    page.driver.refresh()
    page.wait_for_text("No chats yet.")


# Tabs


def test_another_tab_is_signed_in_and_all_are_signed_out(browser, home, user):
    page = home.enter(browser, user)
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(home.address)
    page.wait_for_text("No chats yet.")
    assert "refresh" not in grant(page)  # the provider takes each one only once
    page.find("#account-button").click()
    page.find("#sign-out").click()
    page.wait_for_text("Do you want to sign-out", "body")
    assert "token" not in browser.current_url and "hint" not in browser.current_url
    page.click("Yes, sign me out")
    page.wait(lambda: page.shows("#provider"))
    assert browser.current_url.partition("?")[0] == home.address
    page.click("Sign in at")
    page.wait(lambda: page.run("Boolean(document.querySelector('[name=login]'))"))  # it asks again
    browser.close()
    browser.switch_to.window(first)
    page.wait(lambda: page.shows("#provider"))
    assert page.run(STORED)[0] == {}


def test_signing_out_leaves_nothing_though_the_provider_shows_no_page(browser, home, user):
    page = home.enter(browser, user)
    page.press("A draft")
    home.provider.control(end=True)
    try:
        page.find("#account-button").click()
        page.find("#sign-out").click()
        page.wait(lambda: page.shows("#provider"))
        assert not page.shows("#app")
        assert page.run(STORED)[0] == {} and user not in json.dumps(page.run(STORED))
        assert page.run("document.getElementById('text').value") == ""
    finally:
        home.provider.control(end=False)
    page.click("Sign in at")
    come_in(page, "bob")  # it asks for the name, though it has not heard of the sign-out
    page.wait(lambda: page.text("#user") == "name-of-bob")
    assert page.run("document.getElementById('text').value") == ""


def test_two_tabs_can_sign_in_at_the_same_time(browser, home, user):
    page = home.open(browser)
    first = browser.current_window_handle
    page.click("Sign in at")
    browser.switch_to.new_window("tab")
    browser.get(home.address)
    page.click("Sign in at")
    come_in(page, user)
    page.wait_for_text("No chats yet.")
    browser.close()
    browser.switch_to.window(first)
    come_in(page, user)
    page.wait_for_text("No chats yet.")


# Expiring tokens


def test_no_word_of_a_reply_is_lost_while_tokens_are_renewed(browser, home_with, provider, user):
    """A reply of sixty seconds, with tokens that expire after ten."""
    home = home_with(seconds=10)
    page = home.enter(browser, user)
    words = [f"word{number} " for number in range(60)]
    provider.script = [reply(*(part for word in words for part in (word, 1)), "end.")]
    refreshes = [grant(page)["refresh"]]
    page.say("Talk")
    page.wait_for_text("word1 ")
    page.wait(lambda: len(noted(refreshes, page)) > 4, seconds=60)
    whole = ["Talk", "".join(words) + "end."]
    page.wait(lambda: page.turns == whole and page.is_idle, seconds=60)
    assert len(provider.posts) == 1
    assert page.text("#connection") == "" and page.text("#notice") == ""
    assert home.provider.control()["asked"].count("refresh_token") >= 6


def noted(refreshes, page):
    """The refresh tokens so far: each replaces the one before."""
    if (refresh := grant(page)["refresh"]) not in refreshes:
        refreshes.append(refresh)
    return refreshes


def test_without_a_refresh_token_the_provider_is_visited_again(browser, home_with, provider, user):
    page = home_with(refreshes=False).enter(browser, user)
    assert "refresh" not in grant(page)
    with_a_draft(page)
    address = browser.current_url
    end_token(page)
    page.press(Keys.ENTER)
    assert_back_with_draft(page, address, provider)


def test_a_refused_refresh_token_leads_to_the_provider(browser, home, provider, user):
    page = home.enter(browser, user)
    with_a_draft(page)
    address = browser.current_url
    home.provider.control(revoke=True)
    end_token(page)
    page.press(Keys.ENTER)
    assert_back_with_draft(page, address, provider)
    assert home.provider.control()["asked"][-2:] == ["refresh_token", "authorization_code"]


HIDDEN = {"status": 400, "text": '{"error": "invalid_grant"}', "cors": False}


@pytest.mark.parametrize(
    "refusals",
    [[{"status": 403, "text": "<p>No.</p>", "cors": True}], [HIDDEN] * 5],
    ids=["no JSON", "not to be read"],
)
def test_a_refusal_that_is_not_understood_leads_to_the_provider(
    browser, home, provider, user, refusals
):
    page = home.enter(browser, user)
    with_a_draft(page)
    address = browser.current_url
    home.provider.control(refusals=refusals)
    end_token(page)
    page.press(Keys.ENTER)
    if len(refusals) > 1:
        page.wait_for_text("does not let http://127.0.0.1:", "#connection")
        assert any("CORS" in entry["message"] for entry in browser.get_log("browser"))
    page.wait(lambda: not page.run("window.isOld"), seconds=30)
    assert_back_with_draft(page, address, provider)
    browser.get_log("browser")


def test_a_failing_provider_is_asked_again(browser, home, provider, user):
    page = home.enter(browser, user)
    with_a_draft(page)
    home.provider.control(refusals=[{"status": 503, "text": "<p>Later.</p>", "cors": True}] * 2)
    end_token(page)
    page.press(Keys.ENTER)
    page.wait_for_turns("Hello", "The answer.", "A draft", "The answer.")
    assert grant(page)["refresh"]


def test_another_user_of_the_device_stays_when_a_token_is_renewed(browser, home, user):
    page = home.enter(browser, user)
    browser.execute_script("localStorage.token = 'of-bob'; localStorage.subject = 'bob'")
    before = grant(page)["refresh"]
    renew = "const done = arguments[0]; import('/static/page/oidc.js').then(({ renew }) => renew()).then(done)"
    browser.execute_async_script(renew)
    assert grant(page)["refresh"] != before
    on_device = page.run(STORED)[1]
    assert (on_device["token"], on_device["subject"]) == ("of-bob", "bob")


def test_another_user_of_the_device_stays_if_a_tab_has_forgotten_its_user(browser, home, user):
    page = home.enter(browser, user)
    browser.execute_script("localStorage.token = 'of-bob'; localStorage.subject = 'bob'")
    browser.execute_script("sessionStorage.removeItem('subject')")  # so it could be anybody's
    browser.refresh()
    page.wait(lambda: page.text("#user") == f"name-of-{user}")
    on_device = page.run(STORED)[1]
    assert (on_device["token"], on_device["subject"]) == ("of-bob", "bob")
    assert grant(page)["refresh"]


def test_a_token_without_times_is_not_renewed_for_ever(browser, home, user):
    home.enter(browser, user)
    script = """
        const done = arguments[0];
        sessionStorage.token = `e30.${btoa(JSON.stringify({ sub: sessionStorage.subject, exp: 2e9 }))}.x`;
        import("/static/page/oidc.js").then(({ planRenewal }) => {
            planRenewal();
            setTimeout(done, 500);
        });
    """
    browser.execute_async_script(script)
    assert "refresh_token" not in home.provider.control()["asked"][-1:]


def test_a_refused_token_is_renewed_and_the_message_sent(browser, home, provider, user):
    page = home.enter(browser, user)
    with_a_draft(page)
    before = grant(page)["refresh"]
    end_token(page)
    page.press(Keys.ENTER)
    page.wait_for_turns("Hello", "The answer.", "A draft", "The answer.")
    assert grant(page)["refresh"] != before
    assert len(provider.posts) == 2


def test_a_page_that_is_loaded_with_an_old_token_renews_it(browser, home, user):
    page = home.enter(browser, user)
    page.run("sessionStorage.token = sessionStorage.token.slice(0, -9) + 'AAAAAAAAA'")
    browser.refresh()
    page.wait(lambda: page.text("#user") == f"name-of-{user}")
    page.wait_for_text("No chats yet.")


def test_another_user_finds_nothing_of_the_first(browser, home_with, provider, user):
    home = home_with(refreshes=False)
    page = home.enter(browser, user)
    with_a_draft(page)
    browser.delete_all_cookies()  # the provider's, so that it asks for the name
    end_token(page)
    page.press(Keys.ENTER)
    come_in(page, "bob")
    page.wait(lambda: page.text("#user") == "name-of-bob")
    page.wait_for_text("No chats yet.")
    assert page.turns == [] and page.run("document.getElementById('text').value") == ""
    assert "draft" not in json.dumps(page.run(STORED)) and user not in json.dumps(page.run(STORED))


def test_a_new_token_that_is_refused_is_not_asked_for_again(browser, home, user):
    page = home.enter(browser, user)
    end_token(page, seconds_ago=0, refresh=None)
    page.press("Hello", Keys.ENTER)
    assert "was not signed with a key" in refused(page)
    page.click("Sign in at")
    page.wait(lambda: page.run("document.getElementById('text').value") == "Hello")


def with_a_draft(page):
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    page.press("A draft")


def end_token(page, seconds_ago=3600, **changes):
    """Give the page a token that its server refuses, and that was issued so many seconds ago."""
    script = """
        const [ago, changes, done] = arguments;
        window.isOld = true;
        const grant = { ...JSON.parse(sessionStorage.grant), at: Date.now() - ago * 1000, ...changes };
        sessionStorage.grant = JSON.stringify(grant);
        sessionStorage.token = sessionStorage.token.slice(0, -9) + "AAAAAAAAA";
        import(new URL("static/page/api.js", location)).then(({ useToken }) => {
            useToken(sessionStorage.token);
            done();
        });
    """
    page.driver.execute_async_script(script, seconds_ago, changes)


def assert_back_with_draft(page, address, provider):
    draft = "document.getElementById('text').value"
    page.wait(lambda: not page.run("window.isOld") and page.run(draft) == "A draft")
    page.wait_for_turns("Hello", "The answer.")
    assert page.driver.current_url == address
    assert len(provider.posts) == 1
    page.find("#text").send_keys(Keys.ENTER)
    page.wait_for_turns("Hello", "The answer.", "A draft", "The answer.")
