"""The page with much text: it is shown whatever it is, and the browser stays responsive while it streams."""

import time

import pytest

from browser import written
from provider import reply

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

BLOCKS = """## Part

Use a **sorted set** for each `address`: drop what is older than the window, [count](https://example.com) the rest.

- one
- two
  - three

| a | b |
|---|---|
| 1 | 2 |

```python
print(1)
```

"""
TEXTS = {
    "an answer of all kinds of blocks": BLOCKS * (200_000 // len(BLOCKS)),
    "one block of code": "```\n" + "a line of code that is not too long\n" * 5500 + "```\n",
    "one list": "- an item of a list that goes on and on\n" * 5000,
    "one paragraph": "word " * 40_000,
}


def test_two_hundred_thousand_characters_are_shown_whatever_they_are(page):
    parts = [
        "a**b",
        "[",
        "> ",
        "1. ",
        "*a_ ",
        "|a",
        "- 1\n",
        "`` ` ",
        "<b>",
        "\n",
        "\u202e$",
        "x\u0301",
        "# a\n",
    ]
    page.driver.set_script_timeout(60)
    assert len(written(page, [part * (200_000 // len(part)) for part in parts])) == len(parts)


@pytest.mark.parametrize(
    "name",
    [name if name == "one list" else pytest.param(name, marks=pytest.mark.long) for name in TEXTS],
)
def test_two_hundred_kilobytes_stream_smoothly(name, page, provider):
    text = TEXTS[name]
    pieces = [
        part for at in range(0, len(text), 1000) for part in (text[at : at + 1000], 0.05)
    ]  # 20 kB a second
    provider.script = [reply(*pieces)]
    page.driver.execute_script("""
        window.gaps = [];
        let last = performance.now();
        const frame = (now) => { window.gaps.push(now - last); last = now; requestAnimationFrame(frame); };
        requestAnimationFrame(frame);
    """)
    began = time.monotonic()
    page.say("Much")
    while "tokens read" not in page.text("article:last-child footer"):
        assert time.monotonic() - began < 120
        time.sleep(1)  # to ask more often would take the browser's time
    gaps = sorted(page.run("window.gaps.slice(2)"))
    print(
        f"{name}: {time.monotonic() - began:.0f} s, {len(gaps)} frames, {gaps[len(gaps) * 99 // 100]:.0f} ms at the "
        f"99th percentile, {gaps[-1]:.0f} ms at most"
    )
    assert page.gap < 2
    # Half of the time or more goes into frames that come in time, and no frame lets anybody wait for long.
    assert sum(gap for gap in gaps if gap < 100) > sum(gaps) / 2 and gaps[-1] < 1500
