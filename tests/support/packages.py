"""The package as a person builds and installs it, and the user who has installed it."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from client import Client
from product import ROOT, copy_of_the_clone
from servers import end, free_port, wait_until_up

UV = pathlib.Path(sys.executable).with_name("uv")
STRAY = {  # what a clone may have, but the package must not
    ".env": "OPENAI_API_KEY=sk-secret",
    "private.pem": "a private key",
    "instance/parley.db": "chats",
    "backup-2026/parley.db": "chats",
    "secrets.toml": "a key",
    "local_secrets.py": "a key",
    "api/dump.sql": "chats",
    "static/private.pem": "a private key",
    "static/x.db": "chats",
    "static/icons/private.pem": "a private key",
}
ME = "https://github.com/you"


def clone_of_a_person(folder):
    """What git knows of this clone, and other things that a person's clone has."""
    copy_of_the_clone(folder)
    for name, text in STRAY.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def build(folder, package="."):
    """The folder with a wheel and a source distribution. Skips the test if there is no network."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    clone = clone_of_a_person(folder / "clone")
    words = [UV, "build", "--quiet", "--out-dir", folder / "dist", clone / package]
    made = subprocess.run(words, capture_output=True, text=True, timeout=300)
    if made.returncode and re.search("Failed to fetch|error sending request", made.stderr):
        pytest.skip("there is no network")
    assert made.returncode == 0, made.stderr
    return folder / "dist"


class Installed:
    """The package in an environment of its own, and a user with an empty home, in a folder that has
    modules of the same names."""

    def __init__(self, folder, environment):
        self.bin = environment / "bin"
        self.home, self.folder = folder / "home", folder / "somewhere"
        self.data = self.home / ".local" / "share" / "parley"
        self.home.mkdir()
        self.folder.mkdir()
        for name in ("app.py", "auth.py", "settings.py", "gunicorn.conf.py"):
            (self.folder / name).write_text("raise SystemExit('a module of somebody else')")
        (self.folder / ".env").write_text("DATABASE_URL=of somebody else")
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def run(self, *words, **settings):
        options = {"cwd": self.folder, "env": self.environment | settings, "timeout": 60}
        done = subprocess.run(
            [self.bin / "parley", *words], capture_output=True, text=True, **options
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def serving(self, *words, **settings):
        """`parley` with these words, once it answers. It is stopped after the context."""
        log = self.home / "log"
        environment = self.environment | {"PYTHONUNBUFFERED": "1"} | settings
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [self.bin / "parley", *words],
                cwd=self.folder,
                env=environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        process.log = log.read_text
        try:
            wait_until_up(self.url, process)
            yield process
        finally:
            end(process)

    def client(self):
        return Client(self.url, self.run("token", ME).strip())


def python_of(version):
    """The command of this release of Python. Skips the test if there is none."""
    known = pathlib.Path.home().glob(f".pyenv/versions/{version}.*/bin/python3")
    for place in (shutil.which(f"python{version}"), sys.executable, *known):
        asks = "import ensurepip, sys; print('%s.%s' % sys.version_info[:2])"
        if place is None:
            continue
        told = subprocess.run([place, "-c", asks], capture_output=True, text=True)
        if told.stdout.strip() == version:
            return place
    pytest.skip(f"Python {version} is not installed")


def install(folder, version, by, file):
    environment = folder / "environment"
    if by == "uv":
        run = {"check": True, "timeout": 300, "env": os.environ | {"UV_CACHE_DIR": str(folder)}}
        subprocess.run([UV, "venv", "--quiet", "-p", python_of(version), environment], **run)
        place = environment / "bin" / "python"
        subprocess.run([UV, "pip", "install", "--quiet", "-p", place, file], **run)
    else:
        subprocess.run([python_of(version), "-m", "venv", environment], check=True, timeout=60)
        # Without this, pip would compile everything; Python compiles what it loads at the first
        # start.
        options = ["install", "--quiet", "--disable-pip-version-check", "--no-compile", file]
        subprocess.run([environment / "bin" / "pip", *options], check=True, timeout=300)
    return environment
