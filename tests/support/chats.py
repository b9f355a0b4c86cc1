"""`flask chat` on a terminal, and what it writes there."""

import subprocess

PIPES = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)


def first_session(client):
    return client.get("/sessions").json()["data"][0]


TURN = {"kind": "assistant", "content": "text", "status": "complete"}


SESSION = "a1b2c3d4-e5f6-7890-abcd-ef1234567890"


PLACE = {"id": SESSION, "title": "T", "model": {"id": "m"}}
