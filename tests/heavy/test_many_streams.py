"""Five hundred streams that get every word at once; and two thousand, which two workers are
designed for.

`pytest -n 0 -m long tests/heavy/test_many_streams.py` runs these.
"""

import json
import re
import subprocess
import sys
import time

import pytest
import requests

from client import make_token
from product import ROOT
from servers import free_port

pytestmark = pytest.mark.long

WORDS = 30  # a second apart
# The case; streams; how many of them begin in a second (0: all at once); and how late a word may
# be, in seconds.
CASES = [
    ("sqlite", 500, 0, 0.5),
    ("postgresql", 500, 0, 0.5),
    ("sqlite", 2000, 0, 10),
    ("postgresql", 2000, 0, 10),
    ("sqlite", 2000, 100, 10),
    ("postgresql", 2000, 100, 10),
]
ROUNDS = 3  # one of which must be in time: the machine itself stands still now and then
HERE = ROOT / "tools" / "benchmark"


@pytest.fixture
def settings(new_database):
    """With a provider that needs little time, in a process of its own."""
    port = free_port()
    stub = subprocess.Popen([sys.executable, HERE / "stub.py", str(port)])
    yield {"DATABASE_URL": new_database(), "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}
    stub.terminate()
    stub.wait()


@pytest.mark.parametrize("engine, streams, rate, latest", CASES, indirect=["engine"])
def test_all_streams_stay_connected_and_get_each_text_complete_and_in_time(
    start, settings, streams, rate, latest
):
    server = start(**settings)
    few = re.search(
        "has room for ([0-9]+) connections", server.output()
    )  # of which a third may be replies
    count = min(streams, int(few[1]) // 2) if few else streams
    for _ in range(ROUNDS):
        told = the_crowd_tells(server, count, rate)
        refused = told["statuses"].get("503", 0)
        assert told["statuses"]["201"] == count - refused and (
            refused == 0 if rate else refused < count // 2
        )
        if max(told["lags"]) < latest:
            break
    assert max(told["lags"]) < latest
    assert "Traceback" not in server.output() or refused
    assert len(server.workers()) == 2


def the_crowd_tells(server, count, rate):
    """What so many clients in a process of their own have seen, while /health says that all is
    well."""
    command = [sys.executable, HERE / "crowd.py", *map(str, (server.port, count, WORDS, rate))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as crowd:
        crowd.stdin.write(
            "\n".join(make_token(f"https://github.com/user-{number}") for number in range(10))
        )
        crowd.stdin.close()
        assert "standing" in json.loads(crowd.stdout.readline())
        began = time.monotonic()
        assert requests.get(server.url + "/health", timeout=10).status_code == 200
        assert time.monotonic() - began < 2
        told = json.loads(crowd.stdout.read())  # it fails if a text is incomplete
    assert crowd.returncode == 0
    print(told["statuses"], "the latest word after", max(told["lags"]))
    return told
