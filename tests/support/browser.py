"""A browser for the tests, and the page as one user has it open in that browser."""

import contextlib
import re
import shutil
import threading
import time
import uuid

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

from provider import reply, status
from servers import npm_folder

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


CHROMEDRIVER = shutil.which("chromedriver")


FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1280,800"
)


class Page:
    """The page, as one user has it open. Each instance is a new user."""

    def __init__(self, driver, server, url=None):
        self.driver = driver
        self.subject = f"https://github.com/{uuid.uuid4().hex}"
        self.user = server.client(self.subject)
        address = url or server.url + "/"
        if "#" in address:  # else only the fragment might change, without a new page
            driver.get("about:blank")
        driver.get(address)

    def enter(self, token=None):
        """Sign in. The token is not typed: that would be a key press for each of its letters."""
        self.wait(lambda: self.shows("#token"))
        self.run("document.getElementById('token').value = arguments[0]", token or self.user.token)
        self.find("#token").send_keys(Keys.ENTER)
        return self

    def open_link(self, token, in_place=False):
        """Open the page by a link with a token; in place, only the fragment of the address changes."""
        if not in_place:
            self.driver.get("about:blank")
        self.driver.get(f"{self.user.url}/#token={token}")

    def answer(self, is_yes):
        """Answer the page's dialog; returns its question."""
        self.wait(lambda: self.text("#question"), "nothing is asked")
        question = self.text("#question")
        self.find("dialog [value=yes]" if is_yes else "dialog [autofocus]").click()
        self.wait(lambda: not self.text("#question"), "the dialog stays")
        return question

    def retitle(self, title):
        """Type another title for a chat; returns what its field had."""
        self.wait(lambda: self.run("document.activeElement.ariaLabel") == "Title")
        before = self.run("document.activeElement.value")
        self.press(title, Keys.ENTER)
        return before

    @property
    def gap(self):
        """The pixels between the visible part of the conversation and its end."""
        return self.run(
            "((thread) => thread.scrollHeight - thread.scrollTop - thread.clientHeight)(document.getElementById('thread'))"
        )

    def run(self, script, *arguments):
        return self.driver.execute_script("return " + script, *arguments)

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def shows(self, selector):
        """Whether this is visible. WebDriver's own check takes the browser three times as long."""
        script = "Boolean(document.querySelector(arguments[0])?.checkVisibility({ visibilityProperty: true }))"
        return self.run(script, selector)

    def text(self, selector):
        """The visible text of this element; nothing if there is no such element."""
        return self.run("document.querySelector(arguments[0])?.innerText", selector) or ""

    def texts(self, selector):
        return self.run(
            "[...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector
        )

    def names(self, selector):
        """The names of these buttons: an icon has one for screen readers."""
        script = (
            "[...document.querySelectorAll(arguments[0])].map((e) => e.ariaLabel ?? e.innerText)"
        )
        return self.run(script, selector)

    @property
    def turns(self):
        return self.texts("article > .text")

    @property
    def titles(self):
        return self.texts("#list strong")

    def scroll_to_more(self):
        """Scroll to the end of the list of chats, so that the page loads more, unless it has loaded
        all of them already: near the end it does so by itself."""
        self.driver.execute_script("document.querySelector('#list > button')?.scrollIntoView()")

    @property
    def focused(self):
        return self.run("document.activeElement.id")

    @property
    def is_idle(self):
        return self.shows("#send")

    def wait(self, condition, message="it did not come to that", seconds=20):
        """Wait until this function returns a true value. Each call costs the browser some
        milliseconds, so the pauses between calls grow."""
        deadline, pause = time.monotonic() + seconds, 0.02
        while True:
            with contextlib.suppress(NoSuchElementException):  # it may come
                if condition():
                    return
            assert time.monotonic() < deadline, message
            time.sleep(pause)
            pause = min(pause * 1.2, 0.2)

    def wait_for_text(self, text, selector="#app"):
        self.wait(lambda: text in self.text(selector), f"{text!r} did not come")

    def wait_for_turns(self, *turns):
        """Wait until these are all turns, and no reply is in progress."""
        self.wait(lambda: self.turns == list(turns) and self.is_idle, f"{turns} did not come")

    def click(self, name):
        """Click the button or link with this name, once it is there. If it is drawn anew meanwhile,
        click the new one."""
        script = """[...document.querySelectorAll("button, a")]
            .find((e) => e.checkVisibility() && (e.ariaLabel ?? e.innerText).startsWith(arguments[0]))"""

        def is_clicked():
            with contextlib.suppress(StaleElementReferenceException):
                if node := self.run(script, name):
                    node.click()
                    return True

        self.wait(is_clicked, f"there is no {name} to click")

    def press(self, *keys, hold=None):
        """Press keys in the element that has the focus."""
        chain = ActionChains(self.driver)
        if hold:
            chain.key_down(hold).send_keys(*keys).key_up(hold).perform()
        else:
            chain.send_keys(*keys).perform()

    def say(self, text):
        """Send a message. It is entered at once, as an input method does: typing would be a key
        press for each letter."""
        self.wait(lambda: self.shows("#text"))
        self.run("document.getElementById('text').focus()")
        self.driver.execute_cdp_cmd("Input.insertText", {"text": text})
        self.press(Keys.ENTER)


def paste(page, text):
    """Paste a text into the element that has the focus."""
    page.driver.execute_script(
        """
        const [text] = arguments;
        const fill = (event) => { event.preventDefault(); event.clipboardData.setData("text/plain", text); };
        document.addEventListener("copy", fill, { once: true });
        document.execCommand("copy");
        """,
        text,
    )
    page.press("v", hold=Keys.CONTROL)


def read_through_a_break(page, provider, proxy):
    """Break the connection in the middle of a reply: the page resumes it, and the model is asked
    once."""
    gate = threading.Event()
    provider.script = [reply("One ", "two ", gate, "three ", 0.3, "four.")]
    page.say("Count")
    page.wait_for_text("One two")
    proxy.passes.clear()  # else it may be found again before anybody looks
    proxy.cut()
    page.wait_for_text("The connection is lost", "#connection")
    proxy.passes.set()
    gate.set()
    page.wait_for_turns("Count", "One two three four.")
    assert page.text("#connection") == ""
    assert b"Last-Event-ID" in proxy.sent
    assert len(provider.posts) == 1


def start_browser(folder, of_network=False, **logs):
    """A browser with this folder for its profile; `logs` are the kinds of entries that it keeps,
    with their levels. Those of `performance` are of its work, or of its requests."""
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("no chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS.split():
        options.add_argument(flag)
    # Hosts that are not "localhost", since browsers trust that over plain HTTP, too; and
    # certificates that nobody signed.
    options.add_argument("--host-resolver-rules=MAP *.test 127.0.0.1")
    options.add_argument("--ignore-certificate-errors")
    options.add_argument(f"--user-data-dir={folder}")
    options.set_capability("goog:loggingPrefs", logs)
    if "performance" in logs:
        traced = {"enableNetwork": of_network, "enablePage": False}
        if not of_network:
            traced["traceCategories"] = "toplevel"
        options.add_experimental_option("perfLoggingPrefs", traced)
    options.set_capability("unhandledPromptBehavior", "ignore")
    return webdriver.Chrome(options, webdriver.ChromeService(CHROMEDRIVER))


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    driver = start_browser(tmp_path_factory.mktemp("chromium"), browser="ALL")
    yield driver
    driver.quit()


# They are deleted as soon as the page is left.
FORGET_DATABASES = "indexedDB?.databases().then((all) => all.forEach(({ name }) => indexedDB.deleteDatabase(name)))"


def failed_request(entry):
    """Chromium loads a manifest's icon when it is idle, which may be after the server has ended;
    it tells this failed request as a warning of its own."""
    return entry["source"] == "network" or "icon from the Manifest" in entry["message"]


@pytest.fixture
def browser(driver):
    """The browser. Whatever the page does, its console has no messages except failed requests."""
    yield driver
    driver.execute_script("sessionStorage.clear(); localStorage.clear()")
    driver.execute_script(FORGET_DATABASES)
    console = driver.get_log("browser")
    told = [entry for entry in console if not failed_request(entry)]
    assert told == [], told  # else pytest shows only that they differ


@pytest.fixture
def door(browser, server, provider):
    """The page before a user has signed in."""
    return Page(browser, server)


@pytest.fixture
def page(door):
    door.enter()
    door.wait(lambda: door.shows("#text"))
    return door


@pytest.fixture(scope="session")
def npm():
    """The packages of npm that the page is compared with."""
    return npm_folder("axe") / "node_modules"


WRITE = """
    const [texts, step, done] = arguments;
    import("/static/markdown/markdown.js").then(({ Markdown, write }) => done(texts.map((text) => {
        const target = document.createElement("div");
        if (!step) {
            write(target, text);
            return target.innerHTML;
        }
        const markdown = new Markdown(target);
        for (let at = 0; at < text.length; at += step) {
            markdown.tail += text.slice(at, at + step);
            markdown.draw();
        }
        markdown.draw(true);
        return target.innerHTML;
    })));
"""


def written(page, texts, step=0):
    page.driver.set_script_timeout(60)
    return page.driver.execute_async_script(WRITE, texts, step)


SHOW = """
    const [texts, done] = arguments;
    const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
    const { write } = await import("/static/markdown/markdown.js");

    /** Shows a text, until nothing of it has changed for some frames. */
    const show = async (text, isThere = () => true) => {
        const place = Object.assign(document.createElement("div"), { className: "text" });
        let still = 0;
        new MutationObserver(() => (still = 0)).observe(place, { subtree: true, childList: true });
        document.getElementById("turns").append(place);
        write(place, text);
        while (still++ < 4 || !isThere(place)) await frame();
        place.remove();
        return place.innerHTML;
    };

    const hasBoth = (place) => place.querySelector("math") && place.querySelector("span[class^=token]");
    await show("$x$\\n\\n```js\\nlet x;\\n```", hasBoth); // what has to be loaded is loaded
    const shown = [];
    for (const text of texts) shown.push(await show(text));
    done(shown);
"""


def shown(page, texts):
    """The HTML of texts, with all formulas and colours; the page is signed in."""
    page.driver.set_script_timeout(280)
    return page.driver.execute_async_script("(async () => {" + SHOW + "})()", texts)


EVERYTHING = """
### Headings

> quotes, **strong**, *emphasis*, ~~struck~~ and `code`, [links](https://example.com) and <https://example.com>

1. one
2. two
   - [x] three
   - [ ] four

| left | right |
|:-----|------:|
| 1    | 2     |

```python
@cached  # a comment
def shown(line: str = "a line that is so long that it does not fit into the column, and has to be scrolled") -> bool:
    return line * 1_000
```

```diff
- old
+ new
```

```css
.text { color: #123 }
```

# Back to the top

The root of $x^2$ is $\\color{red}{x}$, and

$$ x = x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x + x $$

<details open>
<summary>Why</summary>

So it *is*.

</details>
"""


# A part of a long answer: formulas, code of several languages, tables and details, a hundred words
# of them.
PART = r"""
## Part {number}

The sum $\sum_{i=0}^n i = \frac{n(n+1)}{2}$ is **known**, and so is $\sqrt{x^2 + y^2}$ in `code`:

$$ \begin{pmatrix} a & b \\ c & d \end{pmatrix}^{-1} = \frac{1}{ad - bc} \begin{pmatrix} d & -b \\ -c & a \end{pmatrix} $$

```python
def mean(values: list[float]) -> float:
    # The mean.
    return sum(values) / len(values)  # of what is there
```

| name | is |
|------|----|
| $\alpha$ | one |
| $\beta$ | two |

<details>
<summary>Why</summary>

Because $a^2 + b^2 = c^2$.

```sql
SELECT count(*) FROM triangles WHERE a = 3 -- and so on
```

</details>

"""


def fast_pieces(count):
    """So many pieces, for a provider that writes 500 words a second."""
    text = "".join(PART.replace("{number}", str(number)) for number in range(count))
    words = re.findall(r"\S+\s+", text)
    batches = ["".join(words[at : at + 10]) for at in range(0, len(words), 10)]
    return [part for batch in batches for part in (batch, 0.02)]


WORDS = [word for number in range(60) for word in (f"word{number} ", 0.1)]  # 6 s of talk


# The page's own waits take a tenth of the time.
FASTER = "const wait = setTimeout; window.setTimeout = (run, time) => wait(run, time / 10)"


# Long sessions

HOLD = """
    window.held = [];
    window.count = 0;
    const ask = fetch;
    window.fetch = async (path, options) => {
        if (path.includes(arguments[0])) {
            window.count++;
            await new Promise((resolve) => window.held.push(resolve));
        }
        return ask(path, options);
    };
"""


# Requests arrive, and their answers are lost.
LOSE_ANSWERS = """
    const ask = fetch;
    window.fetch = async (path, options) => {
        const response = await ask(path, options);
        if (options.method === "POST") throw new TypeError("lost");
        return response;
    };
"""


RELEASE = "window.held.splice(0).forEach((resolve) => resolve())"


def window(words):
    """A provider whose model reads at most so many words."""

    def answer(request):
        read = sum(len(message["content"].split()) for message in request.body["messages"])
        whole = {
            "error": {
                "message": f"This model's maximum context length is {words} tokens. However, your messages "
                f"resulted in {read} tokens.",
                "code": "context_length_exceeded",
            }
        }
        yield from (reply("Good.") if read <= words else status(400, whole))(request)

    return answer
