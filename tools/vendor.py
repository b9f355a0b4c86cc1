"""The libraries of the page, made from npm's packages: `python tools/vendor.py` writes them into
`static/vendor`.

It needs npm, which installs the versions of `tests/support/axe/package.json`, and checks each
package against the hash in `package-lock.json`. `static/vendor/README.md` says what is made from
which package. `tests/page/test_vendor.py` makes them again, and compares.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from servers import npm_folder

FOLDER = ROOT / "static" / "vendor"
# The grammars of Prism: the languages of code in replies, and the grammars that they need.
LANGUAGES = (
    "bash c cpp csharp css dart diff docker elixir go graphql haskell hcl ini java javascript json jsx julia kotlin "
    "latex lua makefile markdown markup matlab nginx perl php powershell protobuf python r ruby rust scala scss sql "
    "swift toml tsx typescript yaml"
).split()
# PHP's grammar needs this only in `Prism.highlight`, which is not used.
LEFT_OUT = {"markup-templating"}
MARKED = """
export { _Lexer as Lexer } from "./Lexer.ts";
export { _Tokenizer as Tokenizer } from "./Tokenizer.ts";
export { _getDefaults as getDefaults } from "./defaults.ts";
"""
# Prism takes what it calls `window` for the browser's, and would begin to look for code there.
PRISM_HEAD = "const window = { Prism: { manual: true } };\n"
PRISM_TAIL = "export const { languages, tokenize } = Prism;\n"


def make(packages):
    """The files of `static/vendor`, from the packages in this folder: name → text."""
    files = {
        "marked.js": make_marked(packages),
        "temml.js": read(packages, "temml", "dist/temml.min.js") + "\nexport default temml;\n",
        "prism.js": make_prism(packages),
    }
    for file, package in (("marked", "marked"), ("temml", "temml"), ("prism", "prismjs")):
        files[f"{file}.LICENSE.md"] = make_licence(packages, file, package)
    return files


def make_marked(packages):
    """marked's lexer, without the part that makes HTML of its tokens, a quarter of the bytes. The
    package has the sources in the map of its module."""
    sources = json.loads(read(packages, "marked", "lib/marked.esm.js.map"))
    with tempfile.TemporaryDirectory() as folder:
        for path, text in zip(sources["sources"], sources["sourcesContent"], strict=True):
            pathlib.Path(folder, pathlib.PurePosixPath(path).name).write_text(text, "utf-8")
        pathlib.Path(folder, "entry.ts").write_text(MARKED, "utf-8")
        bundle = [
            packages / "esbuild/bin/esbuild",
            "entry.ts",
            "--bundle",
            "--format=esm",
            "--minify",
            "--target=es2022",
        ]
        made = subprocess.run(bundle, cwd=folder, capture_output=True, check=True, encoding="utf-8")
    version = json.loads(read(packages, "marked", "package.json"))["version"]
    return f"// marked {version}, its lexer: static/vendor/README.md\n{made.stdout}"


def make_prism(packages):
    """Prism's core and its grammars, as one module without a side effect."""
    known = json.loads(read(packages, "prismjs", "components.json"))["languages"]
    parts = ["core", *in_order(known)]
    code = [read(packages, "prismjs", f"components/prism-{part}.min.js") for part in parts]
    return PRISM_HEAD + "".join(part.rstrip() + "\n" for part in code) + PRISM_TAIL


def in_order(known):
    """The grammars, each after those that it builds on."""
    order = []

    def add(language):
        if language in order or language in LEFT_OUT:
            return
        for key in ("require", "optional", "modify"):
            below = known[language].get(key, [])
            for other in [below] if isinstance(below, str) else below:
                if key == "require" or other in LANGUAGES:
                    add(other)
        order.append(language)

    for language in LANGUAGES:
        add(language)
    return order


def make_licence(packages, file, package):
    version = json.loads(read(packages, package, "package.json"))["version"]
    licence = read(packages, package, "LICENSE")
    return f"{file}.js is made of the npm package {package}, version {version}. Its licence:\n\n{licence}"


def read(packages, package, name):
    return (packages / package / name).read_text("utf-8")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in make(npm_folder("axe") / "node_modules").items():
        (FOLDER / name).write_text(text, "utf-8")
