"""Signing in by a link or a token, in one tab or several, and signing out."""

import uuid

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from selenium.webdriver.common.keys import Keys

from browser import Page
from client import make_token
from provider import reply, status
from raw_tables import tables_of
from servers import running

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both


# Signing in


def test_a_link_signs_in_and_leaves_nothing_in_the_address(browser, server, provider):
    page = Page(browser, server)
    page.open_link(page.user.token)
    name = page.subject.rpartition("/")[2]
    page.wait_for_text(f"This link signs in {page.subject}.\nIs that you?", "#by-link")
    assert page.texts("#by-link button") == [f"Sign in as {name}", "Sign in with another token"]
    assert "token" not in browser.current_url
    assert not page.shows("#app") and not page.shows("#token")
    page.press(Keys.ENTER)
    page.wait_for_text(page.subject.rpartition("/")[2], "header")
    assert "token" not in browser.current_url
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    browser.back()
    page.wait(lambda: page.turns == [])
    assert "token" not in browser.current_url


def test_a_badly_copied_link_shows_its_token_to_nobody(page, server):
    for rest in ("", "%20", ")", "&x=1"):  # at once, since it is the same user's
        page.open_link(page.user.token + rest)
        page.wait_for_text("No chats yet.")
        assert "token" not in page.driver.current_url
    assert page.user.token not in server.output()


@pytest.mark.parametrize("in_place", [False, True], ids=["a new page", "in place"])
def test_a_link_signs_in_nobody_without_asking(browser, server, in_place):
    """Without the question, the user would write into the account of the link's sender."""
    page, other = Page(browser, server), "https://github.com/mallory"
    page.wait_for_text("flask token", "#source")
    token = make_token(other)
    page.open_link(token, in_place)
    page.wait_for_text(other, "#by-link")
    assert page.run("sessionStorage.length + localStorage.length") == 0
    page.driver.refresh()
    page.wait_for_text("flask token", "#source")
    page.open_link(token, in_place)
    page.click("Sign in with another token")
    page.wait_for_text("flask token", "#source")
    assert page.focused == "token" and page.find("#token").get_attribute("value") == ""
    assert page.text("#refusal") == "" and not page.shows("#by-link")
    assert page.run("sessionStorage.length + localStorage.length") == 0


@pytest.mark.parametrize(
    "token, why",
    [
        (make_token(exp=1), "The token has expired."),
        (make_token(key="another secret of 32 bytes or more!!"), "not signed with a key"),
    ],
    ids=["expired", "of another server"],
)
def test_a_link_with_a_refused_token_leads_to_the_sign_in_page(token, why, browser, server):
    page = Page(browser, server)
    page.open_link(token)
    page.click("Sign in as")
    page.wait_for_text(why, "#refusal")
    page.wait_for_text("flask token", "#source")
    assert page.focused == "token" and not page.shows("#by-link")
    page.enter()
    page.wait_for_text("No chats yet.")


def test_nothing_of_a_link_is_sent_before_a_yes(browser, server, proxy):
    page, token = Page(browser, server, proxy.url), make_token()
    browser.get("about:blank")
    browser.get(f"{proxy.url}/#token={token}")
    page.wait_for_text("Sign in as alice", "#by-link")
    page.click("Sign in with another token")
    page.wait_for_text("flask token", "#source")
    assert b"GET /me" in proxy.sent and token.encode() not in proxy.sent


def test_a_link_that_is_cut_in_the_middle_asks_nothing(browser, server):
    page = Page(browser, server)
    page.open_link(page.user.token[:60])
    page.wait_for_text("The token in this link is incomplete. Copy the link again.", "#refusal")


def test_the_last_opened_link_signs_in(browser, server):
    page = Page(browser, server)
    page.open_link(make_token("https://github.com/mallory"))
    page.wait_for_text("Sign in as mallory", "#by-link")
    page.open_link(page.user.token, in_place=True)
    page.wait_for_text(page.subject, "#by-link")
    page.press(Keys.ENTER)
    page.wait(lambda: page.text("#user") == page.subject.rpartition("/")[2])


@pytest.mark.parametrize(
    "rest, shown",
    [("eve?x=/alice", "eve"), ("eve#/alice", "eve"), ("a/eve", "eve"), ("", "https://id.example/")],
)
def test_the_shown_name_is_the_last_segment_of_the_path(browser, server, rest, shown):
    # Users of its own: those of another test may have chats.
    page = Page(browser, server).enter(make_token("https://id.example/" + rest))
    page.wait_for_text("No chats yet.")
    page.wait(lambda: page.text("#user") == shown)


def test_a_link_in_a_new_tab_asks_too(page):
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    page.open_link(make_token("https://github.com/mallory"))
    assert page.subject in page.answer(False)
    page.wait_for_text("No chats yet.")  # as the first user
    page.wait(lambda: page.text("#user") == page.subject.rpartition("/")[2])
    page.driver.close()
    page.driver.switch_to.window(first)


def test_a_new_tab_is_signed_in_as_the_first_and_a_new_browser_is_not(page):
    page.find("#account-button").click()
    first, address = page.driver.current_window_handle, page.driver.current_url
    page.driver.switch_to.new_window("tab")
    page.driver.get(address)
    page.wait_for_text("No chats yet.")
    page.wait(lambda: page.text("#user") == page.subject.rpartition("/")[2])
    assert page.run("localStorage.token") is None  # it was not asked to remember it
    for window in page.driver.window_handles:
        if window != first:
            page.driver.close()
    page.driver.switch_to.window(first)
    page.run("sessionStorage.clear()")
    page.driver.get("about:blank")  # no tab is left that could answer
    page.driver.get(address)
    page.wait(lambda: page.shows("#sign-in-page"))


@pytest.mark.parametrize(
    "host, is_own", [("127.0.0.1", True), ("localhost", True), ("parley.test", False)]
)
@pytest.mark.parametrize("is_changed", [False, True], ids=["as it is", "changed"])
def test_a_link_offers_to_remember_and_does_so_unasked_on_the_users_own_machine(
    host, is_own, is_changed, browser, server
):
    page = Page(browser, server, f"http://{host}:{server.port}/")
    browser.get(f"http://{host}:{server.port}/#token={page.user.token}")
    page.wait(lambda: page.shows("#by-link"))
    assert page.find("#remember-link").is_selected() == is_own
    if is_changed:
        page.find("#remember-link").click()
    page.click("Sign in as")
    page.wait_for_text("No chats yet.")
    is_kept = page.run("localStorage.token") == page.user.token
    assert is_kept == (is_own != is_changed)
    page.driver.execute_script("sessionStorage.clear(); localStorage.clear()")


@pytest.fixture
def moved_on(door, server, provider):
    """The page of a user with a chat with echo, a model that the server no longer serves."""
    provider.script = [reply("Hello")]
    session = door.user.create("Hello")
    with tables_of(server.database) as tables:
        key = session["id"].replace("-", "")
        tables.rows("UPDATE session SET model = 'echo' WHERE id = ?", key)
        tables.rows("UPDATE turn SET model = 'echo' WHERE session_id = ?", key)
    provider.reset()
    door.enter()
    door.click("Hello")
    door.wait_for_turns("Hello", "Hello")
    return door


@pytest.mark.parametrize("action", ["a message", "Retry", "Edit"])
def test_a_chat_whose_model_is_gone_continues_with_the_default(moved_on, provider, action):
    page = moved_on
    if action == "a message":
        page.say("More")
        page.wait_for_turns("Hello", "Hello", "More", "The answer.")
    elif action == "Retry":
        page.click("Retry")
        page.wait_for_turns("Hello", "The answer.")
    else:
        page.click("Edit")
        page.press("!", Keys.ENTER)
        page.wait_for_turns("Hello!", "The answer.")
    assert page.text("#notice") == "echo is not served any more: m-1 answers from here on."
    assert page.run("document.getElementById('model').value") == "m-1"
    assert len(provider.posts) == 1
    page.say("And now?")
    page.wait(lambda: page.turns[-2:] == ["And now?", "The answer."] and page.is_idle)
    assert page.text("#notice") == ""


def test_a_chat_whose_provider_has_lost_its_model_continues_with_the_default(page, provider):
    """The provider says so, and the reply fails; then the model is no longer listed."""
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    session = page.run("location.hash.slice(1)")
    page.user.patch(f"/sessions/{session}", {"model": "m-9"})
    page.driver.refresh()
    page.wait_for_turns("Hello", "The answer.")
    unknown = {"error": {"message": "The model `m-9` does not exist", "code": "model_not_found"}}
    provider.models = ["m-1", "m-2"]
    provider.script = [status(404, unknown)]
    page.say("More")
    page.wait_for_turns("Hello", "The answer.", "More", "The answer.")
    assert page.text("#notice") == "m-9 is not served any more: m-1 answers from here on."
    assert [post.body["model"] for post in provider.posts] == ["m-1", "m-9", "m-1"]


def test_signing_out_signs_out_all_tabs(browser, server):
    page = Page(browser, server)
    page.wait(lambda: page.shows("#remember"))
    page.find("#remember").click()
    page.enter()
    page.wait_for_text("No chats yet.")
    page.press("A draft")
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(page.user.url)
    page.find("#account-button").click()
    page.click("Sign out")
    page.wait(lambda: page.shows("#sign-in-page"))
    browser.close()
    browser.switch_to.window(first)
    page.wait(lambda: page.shows("#sign-in-page"))
    assert page.run("sessionStorage.length + localStorage.length") == 0
    page.enter(make_token(f"https://github.com/{uuid.uuid4().hex}"))
    page.wait_for_text("No chats yet.")
    assert page.run("document.getElementById('text').value") == ""


def test_a_link_of_another_user_asks_first(browser, server, provider):
    page = Page(browser, server).enter()
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    mine, other = page.subject, "https://github.com/" + "x" * 20
    for in_place in (True, False):
        page.open_link(make_token(other), in_place)
        page.wait_for_text("You are signed in as", "#question")
        assert page.run("document.activeElement.innerText") == "No"
        question = page.answer(False)
        assert mine in question and other in question
        page.wait(lambda: page.titles == ["Hello"])
        assert "token" not in browser.current_url
    for key in (Keys.ESCAPE, Keys.ENTER):  # neither is meant for the question
        page.open_link(make_token(other), in_place=True)
        page.wait_for_text("You are signed in as", "#question")
        page.press(key)
        page.wait(lambda: not page.texts("dialog"))
        assert page.titles == ["Hello"]
    page.open_link(make_token("https://github.com/eve"), in_place=True)
    page.wait_for_text("eve", "#question")
    page.open_link(make_token(other), in_place=True)  # which takes its place
    assert other in page.answer(False) and not page.texts("dialog")
    page.open_link(make_token(other, key="another secret of 32 bytes or more!!"))
    page.answer(True)
    page.wait_for_text("not signed with a key", "#notice")
    page.wait(lambda: page.titles == ["Hello"])
    page.open_link(make_token(other))
    page.answer(True)
    page.wait_for_text("No chats yet.")
    page.wait(lambda: page.text("#user") == "x" * 20)


def test_a_sign_in_is_remembered_if_the_user_wants_it(browser, server):
    page = Page(browser, server)
    page.wait(lambda: page.shows("#remember"))
    page.find("#remember").click()
    page.enter()
    page.wait_for_text("No chats yet.")
    browser.switch_to.new_window("tab")
    browser.get(page.user.url)
    page.wait_for_text("No chats yet.")
    page.find("#account-button").click()
    assert page.find("#remembered").is_selected()
    page.find("#remembered").click()
    assert page.run("localStorage.token") is None
    browser.close()
    browser.switch_to.window(browser.window_handles[0])


def test_the_page_says_where_tokens_come_from_and_that_echo_is_no_model(browser, server, tmp_path):
    page = Page(browser, server)
    page.wait_for_text(".venv/bin/flask token https://github.com/you", "#source code")
    key = ed25519.Ed25519PrivateKey.generate()
    pem = (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    with running(
        tmp_path, JWT_SECRET="", JWT_PUBLIC_KEY=pem, JWT_ISSUER="https://id.example.com"
    ) as other:
        page = Page(browser, other)
        page.wait_for_text("Tokens for this server come from https://id.example.com.", "#source")
        page.enter(make_token(key=key, algorithm="EdDSA", iss="https://id.example.com"))
        page.wait_for_text("OPENAI_BASE_URL=http://127.0.0.1:11434/v1", "#set-up")
        page.say("Hello")
        page.wait_for_turns("Hello", "Hello")


def test_a_redirect_by_a_proxy_in_front_is_waited_out(page, provider):
    """As during maintenance: the user keeps the token, and a message that has arrived is not
    sent twice."""
    page.driver.execute_script("""
        const ask = fetch;
        const elsewhere = { type: "opaqueredirect", ok: false, status: 0, headers: new Headers(), json: () => Promise.reject() };
        window.isAway = true;
        window.fetch = async (...request) => {
            const response = await ask(...request);
            return window.isAway ? elsewhere : response;
        };
    """)
    page.say("Hello there")
    page.wait_for_text("The connection is lost", "#connection")
    page.driver.execute_script("window.isAway = false; dispatchEvent(new Event('online'))")
    page.wait_for_turns("Hello there", "The answer.")
    assert len(provider.posts) == 1


def test_the_name_is_shown_before_the_server_sends_it(page):
    """Also if the server does not answer, for example because it is too busy."""
    name = page.subject.rpartition("/")[2]
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": [page.user.url + "/me"]})
    try:
        page.driver.refresh()
        page.wait(lambda: page.text("#user") == name)
        label = page.run("document.getElementById('account-button').ariaLabel")
        assert label == f"Signed in as {name}"
    finally:
        page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
