"""A process without threads, whose time is a number: writers take steps, and the keeper runs in
rounds.
"""

import json
import os

import forked
from product import ROOT

BEGINNING = """
import json, sys, warnings
warnings.simplefilter("error")
import app
from database import Unavailable, db, open_database
from limits import Slot
from llm import open_catalog
from replies import Replies, ReplyRequest, cancel, commits
from settings import read_settings
from maintenance.deletion import delete_session
from maintenance.migrations import MIGRATIONS


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
    session, feed = replies.start(request, watched=True, memory=Slot(replies.memory_bulkhead, "alice"))
    return session, feed, threads.things[0][1]


settings, threads, now = read_settings(json.loads(sys.argv[1])), Threads(), 1000.0
open_database(settings, None, MIGRATIONS)
replies = Replies(open_catalog(settings), settings, clock=lambda: now, threads=threads)
replies.start_keeper = lambda: None
keeper = replies.keeper
"""


def run_stepped(script, *given, **settings):
    """What a process prints, as JSON, that continues with this script, and gets these values as
    JSON."""
    settings = {"JWT_SECRET": "a" * 32} | settings
    words = ["-c", BEGINNING + script, *map(json.dumps, (settings, *given))]
    run = forked.run(words, ROOT, {"PATH": os.environ["PATH"]})
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)
