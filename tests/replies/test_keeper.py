"""A process without threads, whose time is a number: its writers are steps, its keeper is a round.

Modules: `replies/keeping.py`.
"""

import json
import subprocess
import sys

from product import ROOT

STEPPED = """
import json, sys
import app
from database import db, open_database
from limits import Slot
from llm import open_catalog
from replies import Replies, ReplyRequest
from settings import read_settings
from upkeep.migrations import MIGRATIONS


class Threads:
    def __init__(self):
        self.things = []

    def start(self, *thing):
        self.things.append(thing)


settings, threads, now = read_settings(json.loads(sys.argv[1])), Threads(), 1000.0
open_database(settings, None, MIGRATIONS)
replies = Replies(open_catalog(settings), settings, clock=lambda: now, threads=threads)
replies.start_keeper = lambda: None
new = {"title": "Three words", "model": "echo", "provider": "echo", "system": None, "options": {}}
request = ReplyRequest(owner="alice", content="One two three", new=new)
with db.connection_context():
    _, feed = replies.start(request, watched=True, memory=Slot(replies.memory, "alice"))
    [(_, writer)] = threads.things
    told = [[feed.text, feed.over]]
    has_more = True
    while has_more:
        has_more = writer.step()
        told.append([feed.text, feed.over])  # nothing is shown before it is stored
        now += 1
        replies.keeper.round(now)
        told.append([feed.text, feed.over])
    print(json.dumps([told, feed.turn.status, threads.things[1:] != []]))
"""


def test_a_reply_is_written_step_by_step_and_shown_round_by_round(new_database):
    settings = {"DATABASE_URL": new_database(), "JWT_SECRET": "a" * 32}
    command = [sys.executable, "-W", "error", "-c", STEPPED, json.dumps(settings)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    told, status, has_swept = json.loads(run.stdout)
    texts = ["", "One ", "One two ", "One two three"]
    stored = [[text, None] for text in texts for _ in range(2)]
    assert told == [*stored, ["One two three", "ended"]]
    assert (status, has_swept) == ("complete", True)
