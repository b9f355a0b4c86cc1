"""The libraries of the page are npm's, and nothing else. Modules: `tools/vendor.py`."""

import json

import vendor
from product import ROOT

README = (ROOT / "static" / "vendor" / "README.md").read_text("utf-8")


def test_the_libraries_are_made_from_npms_packages(npm):
    """npm has checked each package against the hash in package-lock.json."""
    made = vendor.make(npm)
    stored = {path.name: path.read_text("utf-8") for path in vendor.FOLDER.iterdir()}
    assert stored.keys() - made.keys() == {"README.md"}
    assert [name for name in made if stored[name] != made[name]] == []


def test_the_table_has_their_versions(npm):
    for package in ("marked", "prismjs", "temml"):
        facts = json.loads((npm / package / "package.json").read_text("utf-8"))
        row = next(line for line in README.splitlines() if f"| {package} " in line)
        assert f" {facts['version']} " in row and f" {facts['license']} " in row


def test_no_library_touches_the_document_when_it_is_loaded(page):
    """Prism's own file would colour the page by itself, and define a global name."""
    script = """
        const [done] = arguments;
        const seen = [];
        const watch = (name, holder) => {
            const value = holder[name];
            holder[name] = (...rest) => (seen.push(name), value.apply(holder, rest));
        };
        for (const name of ["querySelectorAll", "getElementsByTagName", "addEventListener"]) watch(name, document);
        watch("addEventListener", window);
        const before = Object.keys(window);
        const names = ["marked", "prism", "temml"];
        Promise.all(names.map((name) => import(`/static/vendor/${name}.js`))).then(() =>
            done([seen, Object.keys(window).filter((name) => !before.includes(name))]));
    """
    assert page.driver.execute_async_script(script) == [[], []]
