"""Searches through much text: others are served meanwhile, and every search ends."""

import concurrent.futures
import subprocess
import sys
import threading
import time

import pytest

from client import ALICE, BOB
from product import ROOT
from provider import reply
from together import are_in_time, on_sqlite

pytestmark = pytest.mark.long

FILL = """
import sys
import models
from maintenance.migrations import MIGRATIONS
from database import db, open_database

open_database({"DATABASE_URL": sys.argv[1]}, None, MIGRATIONS)
text = "Use a sorted set for each address: drop what is older than the window, count the rest. " * 450
with db.connection_context():
    for number in range(int(sys.argv[3]) // 100):
        with db.write():
            for number in range(100):
                now = db.now()
                columns = {"title": "Rate limits", "search_title": "rate limits", "model": "m-1", "preview": text[:100]}
                session = models.Session.create(owner=sys.argv[2], created_at=now, updated_at=now, **columns)
                for kind, status in (("user", None), ("assistant", "complete")):
                    row = {"session": session, "kind": kind, "content": "x", "search_text": text.lower(), "created_at": now}
                    models.Turn.create(model="m-1", status=status, **row)
"""


@pytest.fixture
def filled(start, new_database, provider):
    """A server whose user alice has 8,000 turns of 40 kB."""
    url = new_database()
    settings = {
        "DATABASE_URL": url,
        "OPENAI_BASE_URL": provider.url + "/v1",
        "DEFAULT_MODEL": "m-1",
    }
    server = start(**settings)
    subprocess.run([sys.executable, "-c", FILL, url, ALICE, "4000"], cwd=ROOT, check=True)
    return server


@on_sqlite
def test_a_users_searches_do_not_stall_others(filled, provider):
    provider.default = reply("Some ", 0.05, "words.")
    alice, bob, ended = filled.client(), filled.client(BOB), threading.Event()

    def look(number):
        while not ended.is_set():
            answer = alice.get("/sessions?query=nowhere%20to%20be%20found")
            assert answer.status_code in (200, 503), answer.text
            assert answer.status_code == 200 or answer.headers["Retry-After"]

    took = []
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        looking = [pool.submit(look, number) for number in range(32)]
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            began = time.monotonic()
            assert bob.get("/health").status_code == 200
            session = bob.create("Hello")
            assert bob.turns(session)[1]["status"] == "complete"
            assert bob.post(f"/sessions/{session['id']}/cancel").status_code == 409
            took.append(time.monotonic() - began)
        ended.set()
        for search in looking:
            search.result()
    assert are_in_time(took, 2), took
