"""What a process holds of a reply, and that it lets go of it."""

import itertools
import json
import subprocess
import sys

from product import ROOT
from provider import cut, fails, reply, status

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


def test_what_a_reply_held_is_let_go_of_when_it_is_over(settings, provider):
    """However it ends: its connection is kept, and its thread, which have served it."""
    broken = [cut("Half "), reply("and half.")], [cut("Half "), status(413)], [fails("Half ")]
    refused = [status(400)], [status(413)], [status(500)] * 3
    provider.script = [*itertools.chain(*broken, *refused), reply("Whole."), reply("Whole.")]
    command = [sys.executable, "-c", HELD, json.dumps(settings), "8"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    statuses, held = json.loads(run.stdout)
    assert statuses == [201, 502, 502, 502, 413, 502, 201, 201]
    assert held == []
