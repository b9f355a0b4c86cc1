"""The files of the service: their places, and copies of them."""

import contextlib
import importlib.util
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).parents[2]


CODE = (".py", ".toml", ".sql")  # the suffixes of the service's files


def copy_of_the_clone(folder):
    """All files that git knows, in this folder."""
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
    for name in listed.rstrip("\0").split("\0"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def copy_of_the_service(folder):
    """A folder with everything needed to start, for a test that changes it, or needs an instance
    folder of its own."""
    folder.mkdir()
    for name in ["Procfile", *files_of_the_service()]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "static", folder / "static")
    copy_bytecode(folder)
    return folder


def copy_bytecode(folder):
    """Copy the bytecode of the modules in this folder; else its first process would compile all of
    them."""
    for name in MODULES:
        made = pathlib.Path(importlib.util.cache_from_source(ROOT / name)).relative_to(ROOT)
        with contextlib.suppress(FileNotFoundError):  # it was never imported
            (folder / made).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / made, folder / made)
            # Python compares a source's time with the one in its compiled file.
            shutil.copystat(ROOT / name, folder / name)


def files_of_the_service() -> set[str]:
    """The code, and the tables next to it: `app.py`, `tables/queries.sql`."""
    inits = [*ROOT.glob("*/__init__.py"), *ROOT.glob("clients/*/__init__.py")]
    wings = [path.parent for path in inits]
    files = [path for room in (ROOT, *wings) for kind in CODE for path in room.glob(f"*{kind}")]
    return {path.relative_to(ROOT).as_posix() for path in files if path.name != "pyproject.toml"}


def files_of_the_page() -> set[str]:
    """What a browser loads, with the licences: `static/page.css`, `static/icons/icon.svg`."""
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "static").rglob("*.*")}
    return files - {"static/page.png"}  # a picture for the README


MODULES = {name for name in files_of_the_service() if name.endswith(".py")}
