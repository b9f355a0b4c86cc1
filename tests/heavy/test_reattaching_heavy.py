"""Fifty replies of llama.cpp's own server, while processes die, are paused and replaced, and
connections break: each is computed once. `-s` shows what happened.
"""

import concurrent.futures
import contextlib
import re
import signal
import time

import pytest
import requests

from client import wait_until
from connections import on_linux
from fleet import kill_worker
from late_writers import paused
from llama import PROTOCOLS, llama_server
from meanwhile import all_the_while
from proxy import Proxy
from raw_tables import tables_of
from readers import Reader
from together import on_postgresql

REPLIES, SLOT = 50, 2048
WORDS = 500  # of the shortest reply; each of the others has one more
COUNTS = "prompt_tokens_total", "prompt_tokens_cached_total", "tokens_predicted_total"


def slowed(process):
    """The process runs for less than half of the time."""

    def brake(over):
        over.wait(0.04)
        process.send_signal(signal.SIGSTOP)
        over.wait(0.06)
        process.send_signal(signal.SIGCONT)

    return all_the_while(brake)


def cut_every(seconds, proxy):
    return all_the_while(lambda over: over.wait(seconds) or proxy.cut())


def counts_of(url):
    """What the server has counted: tokens of prompts that it read, and that it had read before; and
    tokens that it wrote."""
    text = requests.get(url + "/metrics", timeout=30).text
    return [int(re.search(rf"^llamacpp:{name} (\d+)", text, re.MULTILINE)[1]) for name in COUNTS]


def is_idle(url):
    slots = requests.get(url + "/slots", timeout=30).json()
    return not any(slot["is_processing"] for slot in slots)


@on_linux
@on_postgresql
def test_fifty_replies_are_computed_once(start, new_database, tmp_path):
    pytest.importorskip("xllamacpp", exc_type=ImportError)
    database = new_database()
    with (
        llama_server(tmp_path, "tiny", REPLIES * SLOT, slots=REPLIES) as (process, url),
        contextlib.closing(Proxy(int(url.rpartition(":")[2]))) as proxy,
    ):
        settings = {base: proxy.url + path for base, path, _ in PROTOCOLS.values()}
        settings |= {
            "DATABASE_URL": database,
            "WEB_CONCURRENCY": 2,
            "CONTINUE_LIMIT": 1,
            "GRACE": 2,
        }
        hosts = [start(**settings), start(**settings)]
        models = [model for _, _, model in PROTOCOLS.values()]
        for host in hosts:  # each learns who the server is
            host.client().create("Hello", model=models[0])
        before = counts_of(url)

        def ask(number):
            body = {
                "content": f"Text {number:02}!",
                "model": models[number % 2],
                "options": {"max_tokens": WORDS + number},
            }
            clients = [host.client() for host in hosts]
            reader = Reader(clients, first=number)
            reader.key, reader.asks, reader.timeout = f"reply {number}", ("/sessions", body), 40
            readers.append(reader)
            return reader.follow(400)

        readers = []
        began = time.monotonic()
        with (
            concurrent.futures.ThreadPoolExecutor(REPLIES) as pool,
            slowed(process),
            cut_every(5, proxy),
        ):
            replies = [pool.submit(ask, number) for number in range(REPLIES)]
            wait_until(lambda: len(readers) == REPLIES and all(each.text for each in readers), 60)
            for host in (*hosts, *hosts):
                kill_worker(host)
                time.sleep(2)
            with paused(hosts[1], database):
                kill_worker(hosts[0])
                time.sleep(30)  # longer than the lease, and the checks after it
            new = start(**settings)
            for reader in readers:
                reader.clients.append(new.client())
            hosts[0].process.terminate()
            hosts[0].process.wait(60)
            kill_worker(new)
            still = sum(each.end is None for each in readers)
            replies = [reply.result() for reply in replies]
        took = time.monotonic() - began
        wait_until(lambda: is_idle(url), 2)
        after = counts_of(url)

    for number, reader in enumerate(replies):
        turn = reader.turn
        assert reader.text == turn["content"] == ("On" + " and on" * WORDS)[: len(reader.text)]
        assert len(re.findall(r"\w+", reader.text)) == WORDS + number
        assert (turn["stop_reason"], turn["continued"]) == ("length", 0)
        assert turn["usage"]["output_tokens"] == WORDS + number
    read, cached, written = (now - then for now, then in zip(after, before, strict=True))
    usage = [reader.turn["usage"] for reader in replies]
    assert written == sum(each["output_tokens"] for each in usage)
    assert read + cached == sum(each["input_tokens"] for each in usage)
    with tables_of(database) as tables:
        left = "SELECT sum(restarts), sum(estimated_tokens), count(stream_id) FROM turn"
        assert tables.rows(left) == [(0, 0, 0)]
    posts = proxy.sent.count(b"POST /v1/")
    returns = proxy.sent.count(b"GET /v1/stream")
    print(
        f"{REPLIES} replies in {took:.0f} s; {still} were in progress after the last death;"
        f" {posts} requests, {returns} times read again; the server has read {read} tokens"
        f" of prompts ({cached} more were cached), and written {written}"
    )
