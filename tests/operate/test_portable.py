"""Local work without gunicorn and without the modules that only POSIX systems have, as on
Windows."""

import os
import re
import subprocess
import sys

import pytest

from client import Client
from product import copy_of_the_service
from servers import free_port, wait_until_up

# Python imports a module of this name at its start, from any folder in PYTHONPATH.
WITHOUT_POSIX = """
import os, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("fcntl", "resource", "pwd", "grp", "termios", "gunicorn", "readline"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
for name in ("fcntl", "resource", "pwd", "grp", "termios", "readline"):
    sys.modules.pop(name, None)
del os.O_CLOEXEC, os.fork, os.getuid
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sitecustomize.py").write_text(WITHOUT_POSIX)
    return copy_of_the_service(tmp_path / "laptop")


@pytest.fixture
def start(folder):
    """A function that starts a `flask` command without any of those modules."""
    processes = []

    def start(*words, **more):
        clean = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        environment = clean | {
            "PYTHONPATH": str(folder.parent / "without"),
            "PYTHONUNBUFFERED": "1",
            "USERNAME": "you",
        }
        command = [sys.executable, "-m", "flask", *words]
        pipes = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
        }
        processes.append(subprocess.Popen(command, cwd=folder, env=environment, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_the_modules_are_missing(folder):
    environment = {"PYTHONPATH": str(folder.parent / "without")}
    for name in ("fcntl", "gunicorn.http"):
        command = [sys.executable, "-c", f"import {name}"]
        assert (
            b"No module named"
            in subprocess.run(command, env=environment, capture_output=True).stderr
        )


def test_the_commands_work_without_them(start):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = start("run", "--port", str(port))
    wait_until_up(url, server)
    token = start("token", "https://github.com/you").communicate(timeout=30)[0].strip()
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", token)
    client = Client(url, token)
    session = client.create("Hello")
    assert [turn["content"] for turn in client.turns(session)] == ["Hello", "Hello"]
    chat = start("chat", "--url", url)
    assert "How are you?" in chat.communicate("How are you?\n", timeout=30)[0]
    assert chat.returncode == 0
