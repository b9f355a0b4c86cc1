"""A new user's way from top to bottom: each block of commands in the documents is run, in a
fresh clone."""

import itertools
import os
import re
import shutil
import stat
import subprocess
import time

import pytest

from client import wait_until
from documents import BLOCKS, DOCUMENTS, Block, blocks_of
from new_user import NewUser
from product import ROOT

# Blocks with one of these words are only parsed, by `sh -n`, and why. All others are run.
LEFT_OUT = {
    r"\b(apt|systemctl)\b": "they are for root on a machine of its own",
    r"\bheroku\b": "they need an account",
    r"^(umask 077 && )?docker\b": "they need Docker, with which tools/container runs them",
    r"\bexample\.com\b": "they need other hosts",
    r"bin/pytest": "that is what runs here",
    r"^tailscale\b": "they need Tailscale",
    r"/opt/parley|/run/parley": "they are for root, and a server of that place",
    r"^uv\b": "they need uv, and a network",
    r"pip install .*tests/requirements": "that needs a network",
    r"bin/python tools/": "they take minutes",
    r"flask forget": "it would forget whoever has run the others",
}
INSTALLS = "python3 -m venv .venv && .venv/bin/pip install -qr requirements.txt && "  # `.ci/run` does that; it needs a network
SERVES = r"flask run$|gunicorn\.conf\.py$"  # the end of a block's last line if it starts a server
VARIES = {
    r"[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}": "UUID",
    r"\b\d{18}\b": "TURN",
    r"\d{4}-\d\d-\d\dT[\d:]{8}Z": "TIME",
}
VARIES[r"(?m)^ +\d+( +\d+)+"] = "COUNTS"


def is_left_out(block):
    """Whether this block is not run here. One that needs sqlite3 is not, if it is not installed."""
    lacks_sqlite3 = block.text.startswith("sqlite3 ") and not shutil.which("sqlite3")
    return lacks_sqlite3 or any(re.search(words, block.text, re.MULTILINE) for words in LEFT_OUT)


def without_what_varies(text):
    for pattern, name in VARIES.items():
        text = re.sub(pattern, name, text)
    return text.strip()


@pytest.fixture
def new_user(tmp_path):
    for name in ("git", "curl", "openssl"):
        if not shutil.which(name):
            pytest.skip(f"{name} is not installed")
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    new_user = NewUser(tmp_path)
    yield new_user
    new_user.leave()


def is_run(block):
    return block.language == "sh" and not is_left_out(block)


class Walk:
    """A new user who runs the blocks of a document in their order."""

    def __init__(self, new_user):
        self.user, self.serving, self.output = new_user, None, None

    def run(self, blocks):
        for block, following in itertools.pairwise([*blocks, Block(None, None, None, None)]):
            if is_run(block):
                self._run(block)
                if following.language == "text":
                    told, expected = self.output, following.text
                    assert without_what_varies(told) == without_what_varies(expected)

    def _run(self, block):
        text = block.text.replace(INSTALLS, "").strip()
        if re.search(SERVES, text):
            self.serving = text
            self.user.serve(text)
        elif "stop the service" in block.above:
            self.user.stop()
            if "flask restore" in text:
                (self.user.folder / "instance" / "parley.db").unlink()
            self.output = self.user.run(text)
            self.user.serve(self.serving)
        else:
            self.output = self.user.run(text)
        if "flask backup" in text:  # the name of a backup ends with its second
            second = time.time() // 1
            wait_until(lambda: time.time() // 1 > second)
            self.user.run(text)

    def check_database(self, path, token):
        """The server starts on this file, and has the conversation."""
        instance = self.user.folder / "instance" / "parley.db"
        self.user.stop()
        (self.user.folder / path).rename(instance)
        self.user.serve(self.serving)
        # Without -g, curl takes brackets for a pattern.
        sessions = "'http://127.0.0.1:5000/sessions?page[limit]=9'"
        told = self.user.run(f"curl -sfg {sessions} -H 'Authorization: Bearer {token.strip()}'")
        assert "Hello, Parley!" in told

    def check_folder(self):
        """Two backups that only their owner can read. Git ignores all new files in the folder."""
        folder = self.user.folder
        backups = sorted(folder.glob("backup-*"))
        names = [sorted(os.listdir(backup)) for backup in backups]
        assert names == [["jwt_key.pem", "parley.db"]] * 2
        files = [file for backup in backups for file in backup.iterdir()]
        for path in [*folder.glob("private.pem"), *backups, *files]:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        listed = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True)
        assert self.user.run("git init -q && git add . && git ls-files") == listed


def test_a_new_user_can_run_the_blocks_of_the_readme_in_order(new_user):
    walk = Walk(new_user)
    walk.run(blocks_of("README.md"))
    token = new_user.run(".venv/bin/flask token https://github.com/you")
    walk.check_database("instance/parley.db", token)
    walk.check_folder()


OTHERS = [name for name in DOCUMENTS[1:] if any(map(is_run, blocks_of(name)))]


@pytest.mark.parametrize("document", OTHERS)
def test_a_new_user_can_run_the_blocks_of_a_document_in_order(new_user, document):
    """After the README's first two blocks, which start the server and talk to it."""
    walk = Walk(new_user)
    walk.run([block for block in blocks_of("README.md") if is_run(block)][:2])
    walk.run(blocks_of(document))
    if document == "docs/operating.md":
        # The last block printed a token that the server accepts from its next start on.
        token = walk.output
        walk.check_database("instance/parley.db", token)
        if shutil.which("sqlite3"):
            walk.check_database("saved.db", token)
        walk.check_folder()


def test_the_excluded_blocks_exist():
    for words in LEFT_OUT:
        assert any(re.search(words, block.text, re.MULTILINE) for block in BLOCKS), words
