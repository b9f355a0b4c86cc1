"""The package of npm, `parley-client`: `python tools/npm.py FOLDER` makes that folder, for `npm
publish FOLDER`.

It is `clients/javascript` with `static/parley.js`, the version of `app.py` in npm's spelling, and
types: openapi-typescript makes them from `static/openapi.json`, and tsc from the modules' own
comments. It needs npm, which installs what `tests/support/openapi-client` and
`tests/support/ai-client` pin. `tests/heavy/test_javascript_client.py` uses the package.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from servers import npm_folder

SOURCE = ROOT / "clients" / "javascript"
MODULES = (ROOT / "static" / "parley.js", SOURCE / "ai.js")
OTHERS = (SOURCE / "README.md", ROOT / "LICENSE")
DESCRIPTION = ROOT / "static" / "openapi.json"
TYPES = ["--root-types", "--root-types-no-schema-prefix", "--output", "openapi.d.ts"]


def version():
    """npm writes `2.0.0.dev0` as `2.0.0-dev.0`, and `2.0.0rc1` as `2.0.0-rc.1`."""
    text = (ROOT / "app.py").read_text("utf-8")
    number = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]
    return re.sub(r"\.?(dev|rc)(\d+)$", r"-\1.\2", number)


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def make_types(folder):
    """Make the types of the modules in this folder."""
    tools = npm_folder("openapi-client") / "node_modules" / ".bin"
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "ai").symlink_to(npm_folder("ai-client") / "node_modules" / "ai-7")
    run(tools / "openapi-typescript", DESCRIPTION, *TYPES, cwd=folder)
    shutil.copy(SOURCE / "tsconfig.json", folder)
    run(tools / "tsc", cwd=folder)


def make(folder):
    """The package, in this folder, which must not be there yet."""
    if not shutil.which("npm"):
        raise SystemExit("npm is not here, which makes the package's types.")
    package = json.loads((SOURCE / "package.json").read_text("utf-8")) | {"version": version()}
    folder.mkdir(parents=True)
    for path in (*MODULES, *OTHERS):
        shutil.copy(path, folder)
    (folder / "package.json").write_text(json.dumps(package, indent=2) + "\n", "utf-8")
    with tempfile.TemporaryDirectory() as place:
        for path in (*MODULES, SOURCE / "package.json"):
            shutil.copy(path, place)
        make_types(pathlib.Path(place))
        for path in pathlib.Path(place).glob("*.d.ts"):
            shutil.copy(path, folder)


if __name__ == "__main__":
    make(pathlib.Path(sys.argv[1]).resolve())
