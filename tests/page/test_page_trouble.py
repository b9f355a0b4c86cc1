"""What the page says if a provider fails, and where: an error, or a provider that cannot be
asked. Modules: `static/dom.js`, `static/page/turns.js`, `static/page/settings.js`."""

import pytest

from browser import Page
from provider import Provider, status
from servers import free_port

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both
# The error of the last reply, its code, and whether it comes before the buttons.
FAILURE = """((failure) => failure && [
    failure.innerText,
    [...failure.querySelectorAll("code")].map((code) => code.textContent),
    [...failure.closest("footer").querySelectorAll("button:not([hidden])")].every((button) =>
        failure.compareDocumentPosition(button) & Node.DOCUMENT_POSITION_FOLLOWING &&
        failure.getBoundingClientRect().bottom <= button.getBoundingClientRect().top),
])(document.querySelector("article:last-child .alarm"))"""


@pytest.fixture
def visit(browser, start, new_database):
    """A function that starts a server with these settings, and opens its page."""

    def visit(**settings):
        page = Page(browser, start(DATABASE_URL=new_database(), **settings)).enter()
        page.wait(lambda: page.shows("#text"))
        return page

    return visit


def test_an_error_stands_above_the_buttons_and_shows_code_as_code(visit, provider):
    page = visit(OPENAI_BASE_URL=provider.url + "/v1", MODELS="m-1")
    failed = "It is `<b>bold</b>` & <i>not</i>, an odd ` too"
    provider.default = status(400, {"error": {"message": failed}})
    page.say("Hello")
    page.wait(lambda: page.run(FAILURE) and page.is_idle)
    words = f"127.0.0.1:{provider.port} refused the request: It is <b>bold</b> & <i>not</i>, an odd ` too"
    assert page.run(FAILURE) == [f"The provider {words}", ["<b>bold</b>"], True]
    page.driver.refresh()
    page.wait(lambda: page.run(FAILURE))
    assert page.run(FAILURE)[1:] == [["<b>bold</b>"], True]


def test_a_provider_that_cannot_be_asked_is_named_until_it_answers_again(visit, provider):
    """Others have models meanwhile."""
    other = Provider()
    other.models = status(401, {"error": {"message": "Bad key"}})
    both = {"OPENAI_BASE_URL": provider.url + "/v1", "PROVIDERS": f"work={other.url}/v1"}
    page = visit(**both, WORK_API_KEY="of-work", WEB_CONCURRENCY=1)
    page.wait_for_text("The provider work refused this server's own key.", "#hint.faint")
    assert page.text("#model optgroup") and page.text("#notice") == ""
    page.say("Hello")
    page.wait_for_turns("Hello", "The answer.")
    other.models = ["m-9"]
    page.wait(lambda: not page.shows("#hint"))
    assert "work/m-9" in page.text("#model")
    other.close()


def test_whoever_runs_the_server_reads_what_to_start(visit):
    port = free_port()
    page = visit(OPENAI_BASE_URL=f"http://127.0.0.1:{port}/v1")
    page.wait_for_text(f"Nothing listens at 127.0.0.1:{port}. Start it there.", "#hint")
    assert page.text("#model") == "No model yet" and not page.shows("#set-up")
