"""Event streams: delivered at once, resumed after any frame in any process, and exact wherever they are cut.

Modules: `replies/feed.py`.
"""

import concurrent.futures
import itertools
import json
import shutil
import subprocess
import threading

import pytest

from client import make_token
from exports import imported, turns_of
from provider import REFUSED, cut, reply
from raw_tables import tables_of
from servers import end, free_port, npm_folder, wait_until_up

PIECES = ["Grü", "ße ", "世", "界 ", "👩‍👩‍👧", "‍👦 ", "e", "\u0301", "\u2028", "x\ny\r\nz ", "end."]


def text_of(events):
    return "".join(event.data["delta"] for event in events if event.name == "content_delta")


def test_a_stream_resumes_after_every_frame_in_every_worker(start, provider):
    """The stream is cut after 0, 1, 2, … frames while the reply is written. A new worker continues it each time."""
    server = start(OPENAI_BASE_URL=provider.url + "/v1", DEFAULT_MODEL="m-1", WEB_CONCURRENCY="3")
    alice = server.client()
    parts = list(itertools.chain(*((piece, 0.01) for piece in PIECES * 2)))
    expected = "".join(PIECES * 2)

    def read_with_cuts(every):
        """Read the reply, and reconnect after every `every` frames."""
        events = []
        with alice.stream("POST", "/sessions", {"content": "Hello"}) as stream:
            session = next(iter(stream)).data
            events += itertools.islice(stream, every)
        while not events or events[-1].name != "done":
            with alice.events(session, events[-1].id if events else None) as stream:
                assert stream.status == 200
                events += itertools.islice(stream, every)
        with alice.events(session, events[-1].id) as stream:
            assert stream.status == 204
        turn = alice.turns(session)[1]
        assert text_of(events) == turn["content"] == expected
        assert [event.name for event in events][-2:] == ["assistant_turn", "done"]
        assert [event.data for event in events if event.name == "assistant_turn"] == [turn]
        return session, events

    provider.default = reply(*parts)
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        results = list(pool.map(read_with_cuts, range(1, 25)))
    session, events = results[0]
    for number, event in enumerate(events[:-1]):  # and after the end of the reply, from each frame
        with alice.events(session, event.id) as stream:
            rest = list(stream)
        assert text_of(events[: number + 1]) + text_of(rest) == expected
        assert [event.name for event in rest if event.name != "content_delta"] == (
            ["done"] if event.name == "assistant_turn" else ["assistant_turn", "done"]
        )


LONG = "".join(f"wörd-{number} 👩‍👩‍👧 e\u0301 " for number in range(4000))  # 75,000 characters


def exactly(events, text):
    """Whether these are the events of a complete reply with this text, each with its own id."""
    *deltas, turn, done = events
    assert {event.name for event in deltas} == {"content_delta"}
    assert (turn.name, done.name) == ("assistant_turn", "done")
    assert len({event.id for event in events}) == len(events)
    return text_of(deltas) == turn.data["content"] == text


def test_two_streams_begun_at_different_times_get_all_of_a_long_reply(alice, provider):
    """One of them began before the reply was continued in the same turn."""
    provider.script = [cut(LONG), REFUSED, reply(" And so on.")]
    session = alice.post("/sessions", {"content": "Hello"}).headers["Location"]
    session = {"id": session.rsplit("/", 1)[1]}
    with alice.events(session) as before:
        early = iter(before)
        began = [next(early)]
        assert alice.post(f"/sessions/{session['id']}/continue").status_code == 201
        with alice.events(session) as after:
            assert exactly(list(after), LONG + " And so on.")
        began += early
    assert [event.name for event in began][-1] == "error" and text_of(began) == LONG


def test_a_reply_of_eight_megabytes_can_be_followed(alice):
    """With the emoji it takes four times as much memory."""
    text = "👩" + "a" * (2**23 - 4)
    session = imported(alice, turns=turns_of("Hello", text))
    for _ in range(2):
        with alice.events(session) as stream:
            events = list(stream)
        assert text_of(events) == text and events[-1].name == "done"


def test_a_stream_continues_when_its_process_takes_over_a_lost_reply(start, new_database, provider):
    """The client was connected to the process that takes over, and reads on in the same stream."""
    url = new_database()
    settings = {
        "DATABASE_URL": url,
        "OPENAI_BASE_URL": provider.url + "/v1",
        "DEFAULT_MODEL": "m-1",
    }
    lost, kept = start(**settings), start(**settings)
    never = threading.Event()
    provider.script = [reply("Half ", never), reply("and half.")]
    with lost.client().stream("POST", "/sessions", {"content": "Hello"}) as stream:
        events = iter(stream)
        session = next(events).data
        next(events)
        alice = kept.client()
        with alice.events(session, timeout=40) as followed:
            following = iter(followed)
            events = [next(following)]
            assert events[0].data == {"delta": "Half "}
            lost.kill()
            assert alice.turns(session)[1]["status"] == "in_progress"
            with tables_of(
                url
            ) as tables:  # like a process that stops; tests/heavy waits until the lease expires
                tables.rows("UPDATE turn SET lease_until = 0 WHERE status = 'in_progress'")
            events += following
    assert [event.name for event in events][1:] == ["content_delta", "assistant_turn", "done"]
    turn = events[2].data
    assert events[1].data == {"delta": "and half."}
    assert (turn["status"], turn["content"], turn["continued"]) == ("complete", "Half and half.", 1)
    assert len(provider.posts) == 2


def test_the_eventsource_package_reads_to_the_end_and_then_stops(alice, server, provider):
    folder = npm_folder("eventsource-client")
    provider.script = [reply(*itertools.chain(*((piece, 0.02) for piece in PIECES)))]
    session = alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
    command = ["node", "read.mjs", f"{server.url}/sessions/{session['id']}/events", make_token()]
    output = subprocess.run(
        command, cwd=folder, check=True, capture_output=True, timeout=30, text=True
    ).stdout
    assert json.loads(output) == {
        "text": "".join(PIECES),
        "turn": alice.turns(session)[1],
        "connections": 2,
    }


def test_words_come_through_nginx_as_they_are_written(alice, server, provider, tmp_path):
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not nginx or not shutil.which("curl"):
        pytest.skip("nginx and curl are not installed")
    port = free_port()
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {tmp_path}; proxy_temp_path {tmp_path};"
        f" fastcgi_temp_path {tmp_path}; uwsgi_temp_path {tmp_path}; scgi_temp_path {tmp_path};\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {server.url}; }} }} }}\n"
    )
    process = subprocess.Popen([nginx, "-c", f"{tmp_path}/nginx.conf"], stderr=subprocess.DEVNULL)
    try:
        more = threading.Event()
        provider.script = [reply("Before ", more, "after.")]
        session = alice.post("/sessions", {"content": "Hello"}, Prefer="respond-async").json()
        wait_until_up(f"http://127.0.0.1:{port}", process)
        url = f"http://127.0.0.1:{port}/sessions/{session['id']}/events"
        curl = subprocess.Popen(
            ["curl", "-sN", url, "-H", f"Authorization: Bearer {alice.token}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        lines = iter(curl.stdout.readline, "")
        assert any("Before" in line for line in lines)
        more.set()
        rest = "".join(lines)
        assert "after." in rest and "event: done" in rest
        curl.wait(10)
        curl.stdout.close()
    finally:
        end(process)
