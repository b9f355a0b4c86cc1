"""What a process keeps in memory of a reply, and that it is released."""

import itertools
import json
import os

import forked
from models import Turn
from product import ROOT
from provider import cut, fails, reply, status
from replies.feed import Feed
from replies.reply import Registry
from stepped import run_stepped

HELD = """
import gc, json, sys, time
import app
from providers import conversation
from replies import reply

application = app.create_app(json.loads(sys.argv[1]))
client = application.test_client()
headers = {"Authorization": "Bearer " + application.extensions["parley"].tokens.sign("https://github.com/alice", 1)}
gc.disable()  # else it is chance when what holds itself is found
statuses = []
for number in range(int(sys.argv[2])):
    answer = client.post("/sessions", json={"content": f"Message {number}"}, headers=headers)
    statuses.append(answer.status_code)
held, deadline = True, time.monotonic() + 10
while held and time.monotonic() < deadline:
    time.sleep(0.02)
    kinds = reply.Reply, conversation.Prompt
    held = [type(each).__name__ for each in gc.get_objects() if type(each) in kinds]
print(json.dumps([statuses, held]))
"""


def test_a_reply_is_released_from_memory_when_it_is_over(settings, provider):
    """However it ends, and though its connection and its thread are kept."""
    broken = [cut("Half "), reply("and half.")], [cut("Half "), status(413)], [fails("Half ")]
    refused = [status(400)], [status(413)], [status(500)] * 3
    provider.script = [*itertools.chain(*broken, *refused), reply("Whole."), reply("Whole.")]
    run = forked.run(["-c", HELD, json.dumps(settings), "8"], ROOT, {"PATH": os.environ["PATH"]})
    assert run.returncode == 0, run.stderr
    statuses, held = json.loads(run.stdout)
    assert statuses == [201, 502, 502, 502, 413, 502, 201, 201]
    assert held == []


AFTER_ITS_END = """
from models import INTERRUPTED, Turn, outcome_of

with db.connection_context():
    _, feed, _ = begin()
    feed.receive("One ")
    feed.finish(outcome_of(INTERRUPTED))
    feed.receive("two")
    keeper.round(now)
    turn = Turn.get_by_id(feed.id)
    print(json.dumps([feed.text, turn.content, turn.search_text]))
"""


def test_text_after_the_end_is_decided_is_not_stored(new_database):
    """Otherwise it would be neither counted nor searched."""
    told = run_stepped(AFTER_ITS_END, DATABASE_URL=new_database())
    assert told == ["One ", "One ", "one "]


def test_each_end_of_a_continued_reply_has_its_own_feed():
    registry = Registry()
    first, second = (Turn(id=7, fence=fence, status="complete", content="") for fence in (1, 2))
    feed = registry.share(first, Feed(first))
    assert registry.find(first) is feed
    assert registry.find(second) is None
