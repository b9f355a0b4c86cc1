"""An ordinary visit leaves nothing red in the browser's developer tools: no error in the console,
and no request that failed, was refused or was cut off. Modules: `static/parley.js`,
`static/page/sign-in.js`, `api/users.py`."""

import json
import threading

import pytest

from browser import Page, start_browser
from provider import reply, status

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

# A deleted chat can be brought back for eight seconds, which take two tenths of one.
FASTER = "void (({ setTimeout: wait }) => { window.setTimeout = (run, time) => wait(run, time === 8000 ? 200 : time) })(window)"


class Console:
    """What the developer tools of this browser show in red."""

    def __init__(self, driver):
        self.driver, self.requests = driver, {}

    def red(self):
        """The entries since the last call, and the requests that failed."""
        found = [
            entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"
        ]
        for line in self.driver.get_log("performance"):
            event = json.loads(line["message"])["message"]
            found += self.failure_of(event["method"], event["params"])
        return found

    def failure_of(self, method, params):
        if method == "Network.requestWillBeSent":
            request = params["request"]
            self.requests[params["requestId"]] = f"{request['method']} {request['url']}"
        elif method == "Network.loadingFailed":
            # Others are the browser's own, from before the page.
            if name := self.requests.get(params["requestId"]):
                return [f"{name}: {params['errorText']}"]
        elif method == "Network.responseReceived" and params["response"]["status"] >= 400:
            return [f"{params['response']['url']}: {params['response']['status']}"]
        return []


@pytest.fixture
def visitor(tmp_path):
    driver = start_browser(tmp_path / "chromium", of_network=True, browser="ALL", performance="ALL")
    yield driver
    driver.quit()


def test_an_ordinary_visit_leaves_nothing_red(visitor, server, provider):
    page, console = Page(visitor, server), Console(visitor)
    page.wait(lambda: page.shows("#token"))
    page.wait_for_text("token", "#source")
    assert console.red() == []

    page.open_link(page.user.token)
    page.click("Sign in as")
    page.wait_for_text("m-1", "#model")
    provider.script = [reply("One ", "two."), reply("Three.")]
    page.say("Count")
    page.wait_for_turns("Count", "One two.")
    page.click("Retry")
    page.wait_for_turns("Count", "Three.")
    assert console.red() == []

    page.driver.refresh()
    page.wait_for_turns("Count", "Three.")
    page.click("New chat")
    page.wait(lambda: page.turns == [])
    page.click("Count")
    page.wait_for_turns("Count", "Three.")
    assert console.red() == []

    gate = threading.Event()
    provider.script = [reply("Four ", gate, "five.")]
    page.say("More")
    page.wait_for_text("Four", "article:last-child")
    assert console.red() == []
    page.driver.refresh()  # which cuts off its stream
    page.wait_for_text("Four", "article:last-child")
    assert [each for each in console.red() if "/messages: net::ERR_ABORTED" not in each] == []
    gate.set()
    page.wait_for_turns("Count", "Three.", "More", "Four five.")
    assert console.red() == []

    gate = threading.Event()
    provider.script = [reply("Six ", gate)]
    page.say("Again")
    page.wait_for_text("Six", "article:last-child")
    page.click("Stop")
    page.wait(lambda: page.is_idle)
    page.wait_for_text("Stopped", "article:last-child")
    gate.set()
    provider.script = [status(400, {"error": {"message": "Not today."}})]
    page.say("And?")
    page.wait_for_text("Not today.", "article:last-child .alarm")
    assert console.red() == []

    page.find("#usage-button").click()
    page.wait(lambda: page.text("#used"))
    page.find("#usage button").click()
    page.run(FASTER)
    page.click("Options of Count")
    page.click("Delete")
    page.wait_for_text("Deleted", "#deleted")
    page.wait(lambda: page.user.get("/sessions").json()["data"] == [])
    page.wait(lambda: page.text("#deleted") == "")
    assert console.red() == []

    page.find("#account-button").click()
    page.click("Sign out")
    page.wait(lambda: page.shows("#token"))
    assert console.red() == []
