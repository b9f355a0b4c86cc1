"""axe, for the page; a chat; and the page, loaded once, for tests of its modules."""

import pytest

from browser import Page
from provider import reply

# For everyone


@pytest.fixture
def check(browser, npm):
    """A function that asserts that axe finds nothing on the page as it is now, by all its rules
    or by these."""
    axe = (npm / "axe-core" / "axe.min.js").read_text()

    def check(place, *rules):
        if not browser.execute_script("return Boolean(window.axe)"):
            browser.execute_script(axe)
        found = browser.execute_async_script(
            """
            const [rules, say] = arguments;
            axe.run(rules.length ? { runOnly: rules } : {})
                .then(({ violations }) => say(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)])));
            """,
            rules,
        )
        assert found == [], f"{place}, {found}"

    return check


@pytest.fixture
def talk(page, provider):
    """A function that sends two messages, which get replies, and returns the page; the chat is its
    `original`."""

    def talk():
        provider.script = [reply("One."), reply("Two.")]
        page.say("First")
        page.wait_for_turns("First", "One.")
        page.say("Second")
        page.wait_for_turns("First", "One.", "Second", "Two.")
        page.original = page.user.get("/sessions").json()["data"][0]
        return page

    return talk


# For the tests of modules


@pytest.fixture(scope="module")
def page_of_all(driver, server):
    """The page without a user. A test that runs a module in it leaves it as it was."""
    return Page(driver, server)


@pytest.fixture
def script(page_of_all, browser):
    """A function that runs a script in it. The script calls its last argument with the result."""
    return browser.execute_async_script
