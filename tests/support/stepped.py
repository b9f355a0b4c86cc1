"""A process without threads, whose time is a number: writers are steps, its keeper is a round."""

import json
import subprocess
import sys

from product import ROOT

BEGINNING = """
import json, sys
import app
from database import Unavailable, db, open_database
from limits import Slot
from llm import open_catalog
from replies import Replies, ReplyRequest, cancel, commits
from settings import read_settings
from upkeep.deletion import delete_session
from upkeep.migrations import MIGRATIONS


class Threads:
    def __init__(self):
        self.things = []

    def start(self, *thing):
        self.things.append(thing)


def begin():
    \"""One reply is asked for, of which nothing is read yet: its session, its feed, its writer.\"""
    model = settings["DEFAULT_MODEL"] or "echo"
    provider = "echo" if model == "echo" else "openai"
    new = {"title": "Title", "model": model, "provider": provider, "system": None, "options": {}}
    request = ReplyRequest(owner="alice", content="One two three", new=new)
    session, feed = replies.start(request, watched=True, memory=Slot(replies.memory, "alice"))
    return session, feed, threads.things[0][1]


settings, threads, now = read_settings(json.loads(sys.argv[1])), Threads(), 1000.0
open_database(settings, None, MIGRATIONS)
replies = Replies(open_catalog(settings), settings, clock=lambda: now, threads=threads)
replies.start_keeper = lambda: None
keeper = replies.keeper
"""


def run_stepped(script, **settings):
    """What a process prints, as JSON, that goes on with this."""
    settings = {"JWT_SECRET": "a" * 32} | settings
    command = [sys.executable, "-W", "error", "-c", BEGINNING + script, json.dumps(settings)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)
