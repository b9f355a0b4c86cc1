"""The commands of `flask`, run in a folder of their own."""

import os
import re
import sys

import forked
from servers import free_port


def flask(folder, *arguments, **environment):
    """A command of the checkout in this folder."""
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": f"sqlite:///{folder}/token.db",
    } | environment
    return forked.run(["-m", "flask", *arguments], folder, environment)


FLASK = [sys.executable, "-m", "flask"]


def environment_of(settings):
    clean = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    settings = {"PORT": free_port(), "PYTHONUNBUFFERED": 1} | settings
    return clean | {name: str(value) for name, value in settings.items()}


def check(folder, **settings):
    """(status, levels and sentences) of `flask check` with these settings. It shows no secrets, and
    no source code."""
    ended = forked.run(["-m", "flask", "check"], folder, environment_of(settings))
    assert "hush" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    lines = [
        line
        for line in (ended.stdout + ended.stderr).splitlines()
        if not line.startswith("waiting")
    ]
    return ended.returncode, [(line[:9].strip(), line[9:]) for line in lines]


def of_level(level, found):
    return [sentence for its_level, sentence in found if its_level == level]


# What a terminal would obey, and a line that looks like one of the check's own.
COMMANDS = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\r\u202e\u2066\nok       and forged"


CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def check_that_it_commands_nothing(shown):
    assert not CONTROLS.search(shown), repr(shown)
    assert not re.search("^ok +and forged", shown, re.M)
    assert "owned" in shown
