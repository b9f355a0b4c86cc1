"""The page's modules import only modules below them, as docs/architecture.md lists them, and are
fetched at once."""

import functools
import posixpath
import re

import pytest

from product import ROOT

ROW = re.compile(r"^\| \[`([\w/.-]+\.js)`\]", re.MULTILINE)
IMPORT = re.compile(r'^(?:import|export)\b[^"]*"(\.[^"]+)";', re.MULTILINE)
LATER = re.compile(r'\bimport\(\s*"(\.[^"]+)"')
# From the top down. Only the page's own modules know the libraries.
MODULES = ROW.findall((ROOT / "docs" / "architecture.md").read_text("utf-8"))
START = "page/main.js"


@functools.cache
def text_of(module):
    return (ROOT / "static" / module).read_text("utf-8")


def imported(module, pattern):
    """The modules that one imports, by their paths in `static/`."""
    folder = posixpath.dirname(module)
    return [
        posixpath.normpath(posixpath.join(folder, path))
        for path in pattern.findall(text_of(module))
    ]


def fetched_with(module, seen):
    """All modules that a browser fetches before it runs this one."""
    if module not in seen:
        seen.append(module)
        for each in imported(module, IMPORT):
            fetched_with(each, seen)
    return seen


def test_each_module_of_the_page_has_its_row():
    own = [
        path.relative_to(ROOT / "static").as_posix()
        for path in (ROOT / "static").rglob("*.js")
        if path.parent.name != "vendor"
    ]
    assert sorted(MODULES) == sorted(own)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_those_below_it(module):
    below = MODULES[MODULES.index(module) + 1 :]
    above = [
        each for each in imported(module, IMPORT) if each not in below and "vendor/" not in each
    ]
    assert above == []


def test_lazy_modules_are_not_fetched_before_they_are_used():
    at_once = fetched_with(START, [])
    later = {each for module in MODULES for each in imported(module, LATER)}
    assert later and not later & set(at_once)


def test_the_browser_learns_of_all_modules_at_once():
    """Otherwise it would find them one after the other, and wait for the server each time."""
    page = text_of("index.html")
    told = re.findall(r'<link rel="modulepreload" href="static/([^"]+)">', page)
    assert sorted(told) == sorted(fetched_with(START, [])[1:])
