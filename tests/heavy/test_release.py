"""`tools/release`: what it refuses, and that its builds are reproducible."""

import hashlib
import os
import re
import subprocess
import sys

import pytest

from product import ROOT, copy_of_the_clone

WHO = {
    f"GIT_{who}_{what}": "somebody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}


class Clone:
    def __init__(self, folder):
        self.folder = copy_of_the_clone(folder)
        self.change("app.py", r'__version__ = ".*"', '__version__ = "9.8.7"')
        self.change("CHANGELOG.md", "## .+", "## 9.8.7, 2026-12-01")
        self.git("init", "-q")
        self.commit()

    def change(self, name, pattern, text):
        path = self.folder / name
        path.write_text(re.sub(pattern, text, path.read_text("utf-8"), count=1), "utf-8")

    def git(self, *words):
        subprocess.run(["git", *words], cwd=self.folder, check=True, env=os.environ | WHO)

    def commit(self):
        self.git("add", ".")
        self.git("commit", "-qm", "A release")
        self.git("tag", "-f", "v9.8.7")

    def release(self, version="9.8.7", *options):
        words = [sys.executable, "tools/release", version, "--image", "none", *options]
        return subprocess.run(words, cwd=self.folder, capture_output=True, text=True, timeout=300)


@pytest.fixture
def clone(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    return Clone(tmp_path / "clone")


def test_builds_are_reproducible(clone):
    told = clone.release()
    if "Failed to fetch" in told.stderr:
        pytest.skip("there is no network")
    assert told.returncode == 0, told.stderr
    dist = clone.folder / "dist"
    names = [
        "SHA256SUMS",
        "parley-client-9.8.7.tgz",
        "parley_chat-9.8.7-py3-none-any.whl",
        "parley_chat-9.8.7.tar.gz",
        "parley_client-9.8.7-py3-none-any.whl",
        "parley_client-9.8.7.tar.gz",
    ]
    assert sorted(path.name for path in dist.iterdir()) == names
    sums = (dist / "SHA256SUMS").read_text()
    assert sums == told.stdout
    for line in sums.splitlines():
        digest, name = line.split()
        assert hashlib.sha256((dist / name).read_bytes()).hexdigest() == digest
    assert "dist has " in clone.release().stderr
    umask = os.umask(0o077)
    try:
        assert clone.release("9.8.7", "--dist", "a/b").stdout == sums
    finally:
        os.umask(umask)


def test_inconsistencies_are_refused_in_one_line(clone):
    def refused(version="9.8.7"):
        told = clone.release(version, "--check")
        assert told.returncode == 1 and told.stderr.count("\n") == 1
        return told.stderr

    assert clone.release("9.8.7", "--check").returncode == 0
    assert "no version" in refused("9.8")
    assert "does not have the tag v9.8.8" in refused("9.8.8")
    (clone.folder / "new.py").touch()
    assert "Not all is committed: ?? new.py" in refused()
    (clone.folder / "new.py").unlink()
    clone.change("CHANGELOG.md", "## 9.8.7, 2026-12-01", "## Unreleased")
    clone.commit()
    assert "CHANGELOG.md begins with 'Unreleased'" in refused()
    clone.change("app.py", '__version__ = ".*"', '__version__ = "9.8.8.dev0"')
    clone.commit()
    assert "app.py says that this is 9.8.8.dev0" in refused()
