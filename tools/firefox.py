"""The page in Firefox, which is driven without geckodriver: `pip install -r tools/firefox.txt`,
then `python tools/firefox.py`.

It needs `firefox-esr` or `firefox`; `FIREFOX` may name another command. It raises what fails.
"""

import base64
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import time

from marionette_driver import By
from marionette_driver.errors import StaleElementException
from marionette_driver.keys import Keys
from marionette_driver.marionette import Marionette

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests" / "support"))

from browser import PART, SHOW
from client import make_token
from hostile_texts import hostile_texts
from household import NOTHING, RIDE, household
from openid import come_in, openid, settings_of
from other_origin import ALL_OF_IT, ASYNCHRONOUS, READERS, SEEN, START, WITHOUT_LEAVE, Site
from pictures import DRAW, GIVE, exif
from provider import Provider, event, reply, silence
from proxy import Proxy
from raw_tables import lengthen
from servers import free_port, running
from trusted import Peer, name

FIREFOX = os.environ.get("FIREFOX") or shutil.which("firefox-esr") or shutil.which("firefox")
USER = "https://github.com/you"
# The longest time between two frames, and what the content security policy refused.
GAPS = """void (() => {
    let last = performance.now();
    window.longest = 0;
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.blockedURI));
    const frame = (now) => {
        window.longest = Math.max(window.longest, now - last);
        last = now;
        requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
})()"""
MARKDOWN = "# Title\n\n- one\n- **two**\n\n```sh\necho  <b>\n```\n\n<img src=x onerror=alert(1)> [bad](javascript:alert(1))"


class Page:
    def __init__(self, firefox):
        self.firefox = firefox

    def run(self, script, *arguments):
        return self.firefox.execute_script("return " + script, script_args=arguments, sandbox=None)

    def find(self, selector):
        return self.firefox.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.run("document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def wait(self, condition, what="it did not come to that", seconds=15):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.05)

    def click(self, selector):
        """Click this; the next one if the page draws it anew meanwhile."""
        try:
            self.find(selector).click()
        except StaleElementException:
            self.find(selector).click()

    def say(self, text):
        self.find("#text").send_keys(text + Keys.ENTER)

    def wait_for_end(self, count):
        """Wait until there are so many turns, the last with its buttons."""
        script = """[document.querySelectorAll("article").length,
            Boolean(document.querySelector("article:last-child footer button"))]"""
        self.wait(lambda: self.run(script) == [count, True], f"{count} turns")


def check(page, server, provider, database):
    page.firefox.navigate(f"{server.url}/#token={make_token(USER)}")
    page.wait(lambda: USER in page.text("#by-link"), "asked by the link")
    page.find("#sign-in-by-link").send_keys(Keys.ENTER)
    page.wait(lambda: page.text("#user") == "you", "signed in by the link")
    assert "token" not in page.firefox.get_url()

    provider.script = [reply(*MARKDOWN)]
    page.say("Show markdown")
    page.wait_for_end(2)
    assert (
        page.text("article:last-child .text h1") == "Title"
        and page.text("article:last-child pre") == "echo  <b>"
    )
    assert page.run("document.querySelectorAll('article :is(img, a)').length") == 0
    page.find("figcaption button").click()
    page.wait(lambda: page.text("figcaption button") == "Copied", "copied")

    turns = 2
    for rate in (8, 50, 100, 500):
        step = max(1, rate // 50)
        pieces = [
            part
            for _ in range(0, 2 * rate, step)
            for part in ("word " * step + "\n\n", step / rate)
        ]
        provider.script = [reply("word\n\n" * 40, *pieces)]
        page.say("Talk")
        turns += 2
        page.wait_for_end(turns)
        time.sleep(0.2)  # a frame or two
        gap = page.run(
            "((log) => log.scrollHeight - log.scrollTop - log.clientHeight)(document.getElementById('thread'))"
        )
        assert gap < 2, f"at {rate} words a second the view is {gap} pixels behind"

    page.find("#settings-button").click()
    page.find("#system").send_keys("Be kind." + Keys.ENTER + "Be short.")
    page.find("#settings .main").click()
    page.wait(lambda: not page.find("#settings").is_displayed(), "saved")
    page.say("Hello")
    page.wait_for_end(turns + 2)
    assert provider.posts[-1].body["messages"][0]["content"] == "Be kind.\nBe short."

    page.find("#settings-button").click()
    page.find("#temperature").send_keys("0.5")
    page.find("#settings .main").click()
    page.wait(lambda: not page.find("#settings").is_displayed(), "saved, with an option")
    page.find(".user:nth-last-child(2) .edit").click()
    page.find("article textarea").send_keys(", edited" + Keys.ENTER)
    page.wait(lambda: page.text(".user:nth-last-child(2) .text") == "Hello, edited", "edited")
    page.wait_for_end(turns + 2)
    asked = provider.posts[-1].body
    assert (asked["messages"][-1]["content"], asked["temperature"]) == ("Hello, edited", 0.5)

    page.find("#usage-button").click()
    page.wait(lambda: page.text("summary small").startswith("7 replies, "), "the usage")
    assert page.text("summary bdi") == "m-1" and page.run("document.activeElement.id") == "usage"
    page.find("#usage").send_keys(Keys.ESCAPE)
    page.wait(lambda: not page.find("#usage").is_displayed(), "left by Escape")
    assert page.run("document.activeElement.id") == "usage-button"

    thoughts = event({"choices": [{"index": 0, "delta": {"reasoning_content": "x" * 1234}}]})
    provider.script = [reply(thoughts, threading.Event())]
    page.say("Think")
    page.wait(lambda: "Thinking…" in page.text(".thinking summary"), "thinking")
    page.find(".thinking summary").send_keys(Keys.ENTER)
    page.wait(lambda: page.text(".thinking .text") == "x" * 1234, "what it thinks")
    page.find("#stop-reply").click()
    page.wait(lambda: "Stopped" in page.text("article:last-child footer"), "thinking is stopped")

    provider.script = [silence(30)]
    asked = len(provider.posts)
    page.say("Think")
    page.wait(
        lambda: page.run("document.querySelector('.dots')?.getAnimations().length"),
        "something moves",
    )
    page.wait(lambda: len(provider.posts) > asked, "the model is asked")
    page.find("#stop-reply").click()
    page.wait(lambda: "Stopped" in page.text("article:last-child footer"), "stopped")

    page.click("#list li button")
    page.wait(lambda: page.find("#rename").is_displayed(), "the menu")
    page.find("#rename").click()
    page.wait(lambda: page.run("document.activeElement.ariaLabel") == "Title", "the field")
    page.find("#list input").send_keys(Keys.CONTROL + "a")
    page.find("#list input").send_keys("Renamed" + Keys.ENTER)
    page.wait(lambda: page.text("#list strong") == "Renamed", "renamed")

    page.click("#list li button")
    page.wait(lambda: page.find("#delete").is_displayed(), "the menu")
    page.find("#delete").click()
    page.wait(lambda: page.text("#title") == "New chat", "deleted")
    page.find("#undo").click()
    page.wait(lambda: page.text("#title") == "Renamed", "undone")
    page.wait_for_end(turns + 6)

    [session] = server.client(USER).get("/sessions").json()["data"]
    lengthen(database, session, 100)
    page.firefox.refresh()
    count = "document.querySelectorAll('article').length"
    page.wait(lambda: page.run(count) == 50, "the last fifty turns")
    for more in (100, 100 + turns + 6):
        page.run("document.getElementById('thread').scrollTo(0, 5)")
        page.wait(lambda: page.run(count) == more, f"{more} turns")
        assert page.run("document.getElementById('thread').scrollTop") > 1000, (
            "it jumped to the older turns"
        )


def check_texts(page):
    """Formulas, colours and details are drawn, and two hundred hostile texts stop nothing and run
    nothing."""
    page.firefox.timeout.script = 240
    texts = hostile_texts(19_000)

    def show(texts):
        script = "(async () => {" + SHOW + "})()"
        return page.firefox.execute_async_script(script, script_args=(texts,), sandbox=None)

    [part] = show([PART])
    assert part.count("<math") == 6 and part.count("token-keyword") >= 4 and "<details" in part
    page.run(GAPS)
    title = page.run("document.title")
    assert len(show(list(texts.values()))) == len(texts)
    longest = page.run("window.longest")
    print(f"The longest wait for a frame, in {len(texts)} hostile texts: {longest:.0f} ms.")
    assert page.run("document.title") == title and page.run("window.violations.length") == 0


def check_pictures(page, provider):
    """A phone's photo is sent upright and without its place, and a WebP as a JPEG."""
    page.find("#new").click()
    page.wait(lambda: page.run("document.querySelectorAll('article').length") == 0)
    page.firefox.timeout.script = 60
    made = [
        base64.b64decode(
            page.firefox.execute_async_script(DRAW, script_args=[*size, kind, True], sandbox=None)
        )
        for size, kind in (((400, 300), "image/jpeg"), ((2000, 1000), "image/webp"))
    ]
    files = [
        ["photo.jpg", "image/jpeg", exif(made[0], 6)],
        ["b.webp", "image/webp", made[1]],
    ]
    encoded = [[name, kind, base64.b64encode(data).decode()] for name, kind, data in files]
    page.firefox.execute_script(GIVE, script_args=["#thread", encoded, ""], sandbox=None)
    sizes = (
        "[...document.querySelectorAll(arguments[0])].map((e) => [e.naturalWidth, e.naturalHeight])"
    )
    upright = [[300, 400], [1568, 784]]
    page.wait(lambda: page.run(sizes, "#composer img") == upright, "thumbnails")
    page.say("What are these?")
    page.wait_for_end(2)
    page.wait(lambda: page.run(sizes, "article img") == upright, "the pictures of the turn")
    *images, _ = provider.posts[-1].body["messages"][0]["content"]
    sent = [base64.b64decode(each["image_url"]["url"].partition(",")[2]) for each in images]
    assert [data[:3] for data in sent] == [b"\xff\xd8\xff"] * 2
    assert not any(b"GPS 52.5" in data for data in sent)
    page.find("article .picture").click()
    page.wait(lambda: page.run(sizes, "dialog img") == [[300, 400]], "the viewer")
    page.find("dialog").send_keys(Keys.ARROW_RIGHT)
    page.wait(lambda: page.run(sizes, "dialog img") == [[1568, 784]], "the next picture")
    page.find("dialog").send_keys(Keys.ESCAPE)
    assert page.run("window.violations ?? []") == []


def check_other_origins(page, server, provider, site):
    firefox, token = page.firefox, make_token("https://github.com/another")
    firefox.timeout.script = 60

    def run(script):
        return firefox.execute_async_script(
            ASYNCHRONOUS % script, script_args=(server.url, token), sandbox=None
        )

    firefox.navigate(f"http://127.0.0.1:{site.port}/")
    asked = len(provider.posts)
    assert run(WITHOUT_LEAVE) == ["rejected TypeError"] * 9 and len(provider.posts) == asked
    firefox.navigate(f"http://localhost:{site.port}/")
    provider.script = [silence(30)]
    assert run(ALL_OF_IT) == SEEN

    read, comes_back, proxy = threading.Event(), threading.Event(), Proxy(server.port)
    provider.script = [reply("One ", read, "twö ", comes_back, "🎉.")]
    firefox.execute_script(
        START % READERS["the client of the server"], script_args=(proxy.url, token), sandbox=None
    )
    page.wait(lambda: page.run("seen.text") == "One ", "the first word")
    proxy.cut_behind = "ö".encode()[:1]  # not before: the client itself is loaded through the proxy
    read.set()
    page.wait(lambda: b"last-event-id: " in proxy.sent.lower(), "back again")
    comes_back.set()
    page.wait(lambda: page.run("seen.over"), "done")
    assert page.run("seen.text") == "One twö 🎉."
    proxy.close()


def check_behind_a_proxy(page, site, way, folder):
    """Users of the proxy need no token, and another site's page can do nothing with the proxy's
    authority."""
    firefox = page.firefox
    with household(folder, ALLOWED_ORIGINS="*") as home:
        alice, url = Peer(str(folder / "parley.sock")), getattr(home, way)
        created = alice.ask(name("alice"), method="POST", path="/sessions", content="Mine")
        path = created.headers["Location"]
        firefox.navigate(f"http://evil.test:{site.port}/")
        script = ASYNCHRONOUS % RIDE
        seen = firefox.execute_async_script(script, script_args=(url, path), sandbox=None)
        assert seen == NOTHING, seen
        assert home.asked("/sessions").count(("POST", "201")) == 1
        firefox.navigate(url + "/")
        page.wait(lambda: page.text("#user") == "alice", "signed in by the proxy")
        page.say("Hello")
        page.wait_for_end(2)
        assert home.asked("/sessions").count(("POST", "201")) == 2


def check_at_an_identity_provider(page, provider, folder):
    """People sign in there, and a token of ten seconds is renewed in the middle of a reply."""
    port = free_port()
    settings = {"OPENAI_BASE_URL": provider.url + "/v1", "DEFAULT_MODEL": "m-1"}
    with openid(f"http://127.0.0.1:{port}/", seconds=10) as home:
        with running(folder, port=port, **settings, **settings_of(home.issuer)) as server:
            page.firefox.navigate(server.url + "/")
            page.wait(lambda: page.text("#provider").startswith("Sign in at"), "the provider")
            page.find("#provider").click()
            come_in(page, "alice")
            page.wait(lambda: page.text("#user") == "name-of-alice", "signed in at the provider")
            assert page.firefox.get_url() == server.url + "/"
            words = [f"word{number} " for number in range(15)]
            provider.script = [reply(*(part for word in words for part in (word, 1)), "end.")]
            page.say("Talk")
            page.wait(
                lambda: "".join(words) + "end." in page.text("article:last-child"), "all of it", 30
            )
            assert "refresh_token" in home.control()["asked"]
            page.find("#account-button").click()
            page.find("#sign-out").click()
            page.wait(lambda: "Do you want to sign-out" in page.text("body"), "the way out")
            assert page.firefox.get_url().startswith(home.issuer)


def main():
    provider, site = Provider(), Site()
    names = {"network.dns.localDomains": "chat.test,evil.test"}
    firefox = Marionette(bin=FIREFOX, port=free_port(), headless=True, prefs=names)
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:///{folder}/parley.db"
        environment = {
            "DATABASE_URL": database,
            "OPENAI_BASE_URL": provider.url + "/v1",
            "DEFAULT_MODEL": "m-1",
        }
        environment |= {
            "ALLOWED_ORIGINS": f"http://localhost:{site.port}",
            "MAX_CONTENT_LENGTH": "100000",
        }
        with running(pathlib.Path(folder), **environment) as server:
            firefox.start_session({"acceptInsecureCerts": True})
            try:
                check(Page(firefox), server, provider, database)
                check_pictures(Page(firefox), provider)
                check_texts(Page(firefox))
                check_other_origins(Page(firefox), server, provider, site)
                for way in ("plain", "secure"):
                    (place := pathlib.Path(folder) / way).mkdir()
                    check_behind_a_proxy(Page(firefox), site, way, place)
                (place := pathlib.Path(folder) / "openid").mkdir()
                check_at_an_identity_provider(Page(firefox), provider, place)
                print("Firefox", firefox.session_capabilities["browserVersion"], "does all of it.")
            finally:
                firefox.quit()
    provider.close()
    site.close()


if __name__ == "__main__":
    sys.exit(main())
