"""Two hundred replies that try to harm the page: they run nothing, and load nothing.

`tests/heavy/test_page_heavy.py` measures how long they take.
"""

import html.parser

import pytest

from browser import shown
from hostile_texts import hostile_texts

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

# The elements that a reply may consist of, without those of MathML.
ELEMENTS = set(
    "a blockquote br button code del details div em figcaption figure h1 h2 hr input li ol p pre span strong summary "
    "table tbody td th thead tr ul".split()
)
ATTRIBUTES = set(
    "aria-level checked class dir disabled href open rel start tabindex target title type aria-label".split()
)
MATHML = set(
    "math mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow mspace msqrt mstyle msub msubsup msup "
    "mtable mtd mtext mtr munder munderover".split()
)
OF_MATHML = set(
    "accent class depth display displaystyle fence form height largeop linethickness lspace mathbackground mathvariant "
    "maxsize minsize movablelimits rspace scriptlevel separator stretchy style symmetric voffset width".split()
)
VIOLATIONS = "window.violations = []; document.onsecuritypolicyviolation = (event) => violations.push(event.blockedURI)"
LOADED = "performance.getEntriesByType('resource').map((entry) => entry.name)"


class Parts(html.parser.HTMLParser):
    """The elements of some HTML with their attributes, and the targets of links."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.targets, self.styles = set(), [], []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.elements |= {(tag, name) for name, _ in attributes} | {(tag, None)}
        self.targets += [value for name, value in attributes if name == "href"]
        self.styles += [value for name, value in attributes if name == "style"]


def is_known(tag, attribute):
    if tag in MATHML:
        return attribute is None or attribute in OF_MATHML
    return tag in ELEMENTS and (attribute is None or attribute in ATTRIBUTES)


def test_two_hundred_texts_run_nothing_and_load_nothing(page):
    texts = hostile_texts(2_000)
    assert len(texts) >= 200
    page.driver.execute_script(VIOLATIONS)
    drawn = dict(zip(texts, shown(page, list(texts.values())), strict=True))
    strange = {}
    for name, source in drawn.items():
        parts = Parts(source)
        found = [each for each in parts.elements if not is_known(*each)]
        found += [each for each in parts.targets if not each.startswith(("http://", "https://"))]
        found += [each for each in parts.styles if "url" in each or "position" in each]
        if found:
            strange[name] = found
    assert strange == {}
    assert page.run("window.violations") == [] and page.driver.title == "Parley"
    loaded = page.run(LOADED)
    assert [name for name in loaded if not name.startswith(page.user.url)] == []
    # Some of them are drawn: not all of the known elements are plain text.
    assert sum("<math" in each for each in drawn.values()) > 20
    assert sum('class="token-' in each for each in drawn.values()) > 50
