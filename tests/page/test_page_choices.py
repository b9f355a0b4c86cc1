"""What a new chat begins with: the model and the options that were chosen last, and a system
prompt for all new chats."""

import pytest
from selenium.webdriver.common.keys import Keys

from browser import Page
from client import make_token
from provider import reply, status

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

OPTIONS = "['temperature', 'max_tokens', 'reasoning_effort'].map((name) => document.getElementById(name).value)"
MODEL = "document.getElementById('model').value"
OF_NEW = "#default-prompt"


@pytest.fixture
def ready(page):
    page.wait_for_text("m-1", "#model")
    return page


def pick(page, model):
    page.find("#model").send_keys(model, Keys.TAB)
    page.wait(lambda: page.run(MODEL) == model)


def open_settings(page):
    page.find("#settings-button").click()
    page.wait(
        lambda: page.shows("#settings") and page.run("!!document.querySelector('#default-prompt')")
    )


def save(page):
    page.click("Save")
    page.wait(lambda: not page.shows("#settings"))


def close(page):
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.shows("#settings"))


def go_to_new(page):
    page.click("New chat")
    page.wait(lambda: page.turns == [])


def load_again(page):
    page.driver.refresh()
    page.wait(lambda: page.run("document.querySelectorAll('#model option').length") == 2)


def type_prompt(page, text):
    field = page.find("#system")
    field.click()
    page.press("a", hold=Keys.CONTROL)
    page.press(Keys.BACKSPACE, text)


def fields(page):
    """The system prompt and the options in the panel, which need not be open."""
    return [page.run("document.getElementById('system').textContent"), *page.run(OPTIONS)]


# The model and the options


def test_a_new_chat_takes_the_model_and_the_options_last_chosen(ready, provider):
    page = ready
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    pick(page, "m-2")
    page.wait(lambda: page.user.get("/sessions").json()["data"][0]["model"] == {"id": "m-2"})
    open_settings(page)
    page.press("Be kind.")
    page.find("#temperature").send_keys("0.5")
    save(page)
    go_to_new(page)
    assert page.run(MODEL) == "m-2"
    assert fields(page) == ["", "0.5", "", ""]  # the system prompt is the other chat's own
    load_again(page)
    assert page.run(MODEL) == "m-2" and fields(page) == ["", "0.5", "", ""]
    page.say("More")
    page.wait_for_turns("More", "The answer.")
    assert [post.body["model"] for post in provider.posts] == ["m-1", "m-2"]
    assert provider.posts[1].body["temperature"] == 0.5
    assert [turn["role"] for turn in provider.posts[1].body["messages"]] == ["user"]
    open_settings(page)
    page.find("#temperature").clear()
    save(page)
    go_to_new(page)
    assert fields(page) == ["", "", "", ""]


def test_a_tabs_settings_for_its_new_chat_stay_there(ready, browser):
    page = ready
    pick(page, "m-2")
    open_settings(page)
    page.find("#max_tokens").send_keys("77")
    close(page)
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(page.user.url)
    page.wait(lambda: page.run(MODEL) == "m-2")
    assert fields(page) == ["", "", "", ""]  # text that was only typed was not chosen
    pick(page, "m-1")
    open_settings(page)
    page.find("#max_tokens").send_keys("5")
    save(page)
    browser.close()
    browser.switch_to.window(first)
    load_again(page)
    assert page.run(MODEL) == "m-2" and fields(page) == ["", "", "77", ""]
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    [session] = page.user.get("/sessions").json()["data"]
    assert page.user.get(f"/sessions/{session['id']}").json()["options"] == {"max_tokens": 77}
    assert session["model"] == {"id": "m-2"}
    go_to_new(page)  # the next one takes the chosen ones
    assert page.run(MODEL) == "m-1" and fields(page) == ["", "", "5", ""]


def test_the_default_has_a_group_of_its_own_and_new_chats_with_it_follow_the_server(
    browser, start, settings, provider
):
    server = start(**settings)
    page = Page(browser, server).enter()
    groups = "[...document.querySelectorAll('#model optgroup')].map((e) => [e.label, e.innerText.trim()])"
    page.wait(lambda: page.run(groups) == [["Default", "m-1"], ["Other models", "m-2"]])
    pick(page, "m-2")
    load_again(page)
    assert page.run(MODEL) == "m-2"
    pick(page, "m-1")
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    server.kill()
    start(**settings | {"DEFAULT_MODEL": "m-2"}, port=server.port)
    browser.get(server.url)
    page.wait(lambda: page.run(groups) == [["Default", "m-2"], ["Other models", "m-1"]])
    go_to_new(page)
    assert page.run(MODEL) == "m-2"


def test_a_model_that_is_no_longer_served_gives_way_to_the_default(
    browser, start, settings, provider
):
    server = start(**settings)
    page = Page(browser, server).enter()
    page.wait(lambda: "m-2" in page.text("#model"))
    pick(page, "m-2")
    server.kill()
    provider.models = ["m-1"]
    server = start(**settings, port=server.port)
    browser.get(server.url)
    page.wait(lambda: page.texts("#model option") == ["m-1"])
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    assert page.text("#notice") == "" and provider.posts[0].body["model"] == "m-1"


def test_a_message_sent_before_the_models_are_known_goes_to_the_chosen_one(ready, provider):
    page = ready
    pick(page, "m-2")
    go_to_new(page)
    script = """
        const ask = fetch;
        window.fetch = (path, options) => path === "models" ? new Promise(() => {}) : ask(path, options);
    """
    added = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        page.driver.refresh()
        page.say("Hello")
        page.wait_for_turns("Hello", "The answer.")
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    assert provider.posts[0].body["model"] == "m-2"


def test_a_users_choices_are_not_anothers_and_go_with_the_sign_out(ready, browser, server):
    page = ready
    mine = page.user.token
    pick(page, "m-2")
    open_settings(page)
    page.press("Be kind.")
    page.click("Use for new chats")
    page.find("#temperature").send_keys("0.5")
    save(page)
    page.open_link(make_token("https://github.com/other"))
    page.answer(True)
    page.wait(
        lambda: (
            page.run("document.getElementById('subject').textContent") == "https://github.com/other"
        )
    )
    page.wait(lambda: page.run(MODEL) == "m-1")
    assert fields(page) == ["", "", "", ""]
    page.open_link(mine)
    page.answer(True)
    page.wait(lambda: page.run(MODEL) == "m-2")
    assert fields(page) == ["Be kind.", "0.5", "", ""]
    page.find("#account-button").click()
    page.click("Sign out")
    page.enter(mine)
    page.wait(lambda: page.run(MODEL) == "m-1")
    assert fields(page) == ["", "", "", ""]


# No model yet


# How often the page has asked for the models.
ASKED = (
    "performance.getEntriesByType('resource').filter(({ name }) => name.endsWith('/models')).length"
)
FRESH = status(200, {"object": "list", "data": None})  # Ollama's answer until a model is pulled


@pytest.fixture
def fresh(browser, start, new_database, provider):
    """The page of a server with an Ollama that has no model yet."""
    provider.models = FRESH
    server = start(DATABASE_URL=new_database(), OPENAI_BASE_URL=provider.url + "/v1")
    page = Page(browser, server).enter()
    page.wait_for_text("No model yet", "#model")
    return page


def test_an_ollama_without_models_says_what_to_do_and_its_first_model_appears_at_once(
    fresh, provider
):
    page = fresh
    assert page.text("#hint").strip() == "Ollama has no model yet: ollama pull llama3.2"
    assert page.text("#hint code") == "ollama pull llama3.2"
    assert not page.find("#model").is_enabled() and page.text("#notice") == ""
    page.driver.execute_script("getSelection().selectAllChildren(document.getElementById('hint'))")
    asked = page.run(ASKED)
    page.wait(lambda: page.run(ASKED) > asked)  # without any action of the user
    page.driver.execute_script("dispatchEvent(new Event('focus'))")
    page.wait(lambda: page.run(ASKED) > asked + 1)  # the earlier answers are shown
    assert "ollama pull" in page.run("String(getSelection())")  # it can be copied meanwhile
    provider.models = ["llama3.2:latest"]
    page.wait(lambda: page.run(MODEL) == "llama3.2:latest")
    assert page.find("#model").is_enabled() and not page.shows("#hint")
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")


def test_the_first_model_appears_when_the_user_looks_at_the_page_again(fresh, provider):
    page = fresh
    script = {"source": "window.setInterval = () => {}"}
    added = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
    try:
        page.driver.refresh()
        page.wait_for_text("No model yet", "#model")
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    provider.models = ["llama3.2:latest"]

    def is_there():
        page.driver.execute_script("dispatchEvent(new Event('focus'))")
        return page.run(MODEL) == "llama3.2:latest"

    page.wait(is_there)


def test_a_chosen_model_that_is_gone_is_not_shown_if_there_are_no_models(
    browser, start, settings, provider
):
    server = start(**settings | {"DEFAULT_MODEL": None})
    page = Page(browser, server).enter()
    page.wait(lambda: "m-2" in page.text("#model"))
    pick(page, "m-2")
    server.kill()
    provider.models = FRESH
    start(**settings | {"DEFAULT_MODEL": None}, port=server.port)
    browser.get(server.url)
    page.wait(lambda: page.texts("#model option") == ["No model yet"])


# The system prompt


def test_new_chats_begin_with_the_system_prompt_that_is_saved_for_them(ready, provider):
    page = ready
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    old = page.user.get("/sessions").json()["data"][0]["id"]
    open_settings(page)
    assert not page.shows("#use-for-new")  # it is empty
    type_prompt(page, "Be kind.")
    page.click("Use for new chats")
    assert page.text(OF_NEW) == "New chats begin with this."
    assert page.focused == "stop-using"
    page.press(Keys.ESCAPE)
    go_to_new(page)
    open_settings(page)
    assert fields(page) == ["Be kind.", "", "", ""]
    assert page.text(OF_NEW) == "New chats begin with this."
    assert "set" in page.find("#settings-button").get_attribute("class")
    close(page)
    page.say("More")
    page.wait_for_turns("More", "The answer.")
    assert provider.posts[1].body["messages"][0] == {"role": "system", "content": "Be kind."}
    assert page.user.get(f"/sessions/{old}").json()["system"] is None  # it was not saved there
    load_again(page)
    open_settings(page)  # a chat that is changed has its own
    type_prompt(page, "Be short.")
    assert page.text(OF_NEW) == "New chats begin with another one."
    save(page)
    go_to_new(page)
    assert fields(page)[0] == "Be kind."
    open_settings(page)
    page.click("Stop using it")
    assert page.focused == "use-for-new" and page.text(OF_NEW) == ""
    close(page)
    page.say("Last")  # this one still has it
    page.wait_for_turns("Last", "The answer.")
    assert provider.posts[2].body["messages"][0]["content"] == "Be kind."
    go_to_new(page)
    assert fields(page)[0] == ""


def test_a_new_chat_may_begin_with_another_system_prompt_or_none(ready, provider):
    page = ready
    open_settings(page)
    page.press("Be kind.")
    page.click("Use for new chats")
    for prompt in ("Be short.", ""):
        type_prompt(page, prompt)
        close(page)
        load_again(page)
        assert fields(page)[0] == prompt
        page.say("Hello")
        page.wait_for_turns("Hello", "The answer.")
        assert [turn["content"] for turn in provider.posts[-1].body["messages"]] == [
            prompt,
            "Hello",
        ][not prompt :]
        go_to_new(page)
        assert fields(page)[0] == "Be kind."
        open_settings(page)


def test_a_prompt_that_was_typed_and_deleted_does_not_keep_the_saved_one_away(ready):
    page = ready
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    go_to_new(page)
    open_settings(page)
    page.press("Be", Keys.BACKSPACE, Keys.BACKSPACE)
    close(page)
    page.click("Hello")
    page.wait_for_turns("Hello", "The answer.")
    open_settings(page)
    page.press("Be kind.")
    page.click("Use for new chats")
    close(page)
    go_to_new(page)
    assert fields(page)[0] == "Be kind."


def test_a_chat_like_an_old_one_has_its_prompt_and_not_the_saved_one(ready, provider):
    page = ready
    provider.script = [reply("One."), reply("Two.")]
    page.say("First")
    page.wait_for_turns("First", "One.")
    page.say("Second")
    page.wait_for_turns("First", "One.", "Second", "Two.")
    open_settings(page)
    page.press("Be kind.")
    page.click("Use for new chats")
    close(page)
    pick(page, "m-2")
    page.wait(lambda: page.user.get("/sessions").json()["data"][0]["model"] == {"id": "m-2"})
    go_to_new(page)
    pick(page, "m-1")
    page.driver.back()
    page.wait_for_turns("First", "One.", "Second", "Two.")
    page.find("article:first-child .edit").click()
    page.press("!", Keys.ENTER)
    page.wait_for_turns("First!", "The answer.")
    assert page.text("article:last-child h2 bdi") == "m-2"
    assert provider.posts[-1].body["model"] == "m-2"
    assert provider.posts[-1].body["messages"] == [{"role": "user", "content": "First!"}]
    go_to_new(page)
    assert page.run(MODEL) == "m-1" and fields(page)[0] == "Be kind."


def test_a_system_prompt_that_is_too_long_for_the_browser_says_so(ready):
    page = ready
    open_settings(page)
    page.driver.execute_script("""
        const field = document.getElementById("system");
        field.textContent = "x".repeat(6e6);
        field.dispatchEvent(new Event("input", { bubbles: true }));
    """)
    page.click("Use for new chats")
    assert page.text(OF_NEW) == "It is too long for this browser to keep."
    assert page.shows("#use-for-new")
    type_prompt(page, "Be kind.")
    page.click("Use for new chats")
    assert page.text(OF_NEW) == "New chats begin with this."


def test_the_panel_is_accessible(ready, check):
    page = ready
    open_settings(page)
    check("nothing chosen")
    page.press("Be kind.")
    check("typed")
    page.press(Keys.TAB)
    assert page.focused == "use-for-new"
    page.press(Keys.ENTER)
    check("chosen")
    page.press(Keys.ENTER)
    assert page.focused == "use-for-new" and page.text(OF_NEW) == ""
