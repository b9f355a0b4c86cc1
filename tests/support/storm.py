"""A storm: many calls at once of a provider with random errors. No call may see anything of
another.
"""

import collections
import concurrent.futures
import os
import random
import re
import threading
import time
from typing import NamedTuple

import requests

from client import Client
from provider import KEEP, Connection, asked, chunk, events_of, head, openai_events, reply

MODELS = "claude-x", "m-1"
TRIES = 3


def whole_answer(text):
    """An answer from its first byte to its last."""
    data = b"".join(openai_events([text]))
    return head(Content_Length=len(data)) + data


INTRUDER = whole_answer("INTRUDER")


class Try(NamedTuple):
    mood: str
    pieces: list  # of its text
    is_disturbed: bool  # a late byte of the answer before may have come first, and this answer would look the same


class Storm:
    """A provider's answers, drawn by a seeded generator, and the replies that must come of them.

    The message of a call is its number. All text of an answer names its call, and the try.
    """

    def __init__(self, provider, seed):
        self.seed = seed
        self.served = collections.defaultdict(list)  # number of a call → its tries
        self.reuses = 0  # requests on a connection that had one before
        self.outcomes = collections.Counter()
        self.went_on = 0  # replies that have text of more than one answer
        self._last = {}  # connection → the mood of its last answer
        self._lock = threading.Lock()
        provider.default = self.answer

    def random(self, *names):
        return random.Random(f"{self.seed} {names}")

    def is_silent(self, number):
        """Whether the provider says nothing more by itself: this call ends when its client cancels
        it."""
        return self.random("silence", number).random() < 0.06

    # The provider

    def answer(self, request):
        number = int(asked(request))
        with self._lock:
            before = self._last.get(request.connection)
            self.reuses += before is not None
            chance = self.random(number, len(self.served[number]))
            pieces = self._pieces(chance, number)
            mood = self._last[request.connection] = self._mood(chance, number, before is not None)
            self.served[number].append(Try(mood, pieces, before == "with_a_byte_later"))
        return getattr(self, mood)(request, pieces, chance)

    def _pieces(self, chance, number):
        mark = f"<{number}.{len(self.served[number])}> "
        return [
            f"{mark * chance.choice([1, 1, 3, 40, 400])}{index} "
            for index in range(chance.randint(1, 6))
        ]

    def _mood(self, chance, number, is_reused):
        if self.is_silent(number):
            return "silent"
        # On a new connection it would cost a try and a pause each time.
        rude = {"reset_at_once": 6, "closed_at_once": 6} if is_reused else {}
        moods = GOOD | BAD | rude
        return chance.choices(list(moods), moods.values())[0]

    def _whole(self, request, pieces, chance, more=b""):
        """A whole answer, and `more` in the packet that has its end."""
        events = list(events_of(request, pieces))
        if chance.random() < 0.5:
            yield head(Transfer_Encoding="chunked")
            parts, end = [chunk(event) for event in events], chunk(b"")
        else:
            data = b"".join(events)
            yield head(Content_Length=len(data))
            place = chance.randrange(len(data))
            parts, end = [data[:place], data[place:]], b""
        if chance.random() < 0.5:
            parts = [b"".join(parts)]
        yield from parts[:-1]
        yield chance.choice(
            [0, 0.002, 0.02]
        )  # whether the other side has read all of it is left to chance
        yield parts[-1] + end + more

    def well(self, request, pieces, chance):
        yield from self._whole(request, pieces, chance)
        yield KEEP

    def delimited_by_close(self, request, pieces, chance):
        yield head(Connection="close")
        yield from events_of(request, pieces)

    def with_a_byte_more(self, request, pieces, chance):
        yield from self._whole(request, pieces, chance, b"!")
        yield KEEP

    def with_a_byte_later(self, request, pieces, chance):
        yield from self._whole(request, pieces, chance)
        yield chance.uniform(0.001, 0.01)
        yield b"!"
        yield KEEP

    def with_another_answer(self, request, pieces, chance):
        yield from self._whole(request, pieces, chance, INTRUDER * chance.choice([1, 1, 40]))
        yield KEEP

    def shorter_than_it_says(self, request, pieces, chance):
        data = b"".join(events_of(request, pieces))
        yield head(Content_Length=len(data) + chance.choice([1, 100, 100_000])) + data

    def longer_than_it_says(self, request, pieces, chance):
        """What comes after its length is the rest of it, or another answer."""
        data = b"".join(events_of(request, pieces))
        place = chance.randrange(data.index(b"<"), len(data))
        yield head(Content_Length=place)
        yield chance.choice([0, 0.002])
        yield data[:place] + chance.choice([data[place:], INTRUDER, INTRUDER * 40])
        yield KEEP

    def broken(self, request, pieces, chance):
        events = [chunk(event) for event in events_of(request, pieces)]
        data = b"".join(events)
        # A break before any text would cost a try and a pause each time.
        yield (
            head(Transfer_Encoding="chunked")
            + data[: chance.randrange(data.index(b"\n\n", data.index(b"<")) + 4, len(data))]
        )

    def broken_by_reset(self, request, pieces, chance):
        yield from self.broken(request, pieces, chance)
        yield 0.002
        yield Connection.reset

    def reset_at_once(self, request, pieces, chance):
        yield Connection.reset

    def closed_at_once(self, request, pieces, chance):
        yield from ()

    def refused(self, request, pieces, chance):
        data = b'{"error": {"message": "%s"}}' % pieces[0].encode()
        yield (
            head(400, "application/json", Content_Length=len(data))
            + data
            + chance.choice([b"", b"", b"!", INTRUDER])
        )
        yield KEEP

    def refused_at_length(self, request, pieces, chance):
        """So long that nobody needs to read it to its end."""
        yield head(400, "application/json", Content_Length=10**9)
        for _ in range(4):
            yield pieces[0].encode() + b" " * 65536

    def silent(self, request, pieces, chance):
        if chance.random() < 0.5:
            yield head(Transfer_Encoding="chunked")
            for event in list(events_of(request, pieces))[: chance.randint(0, 8)]:
                yield chunk(event)
        yield 60

    # The clients

    def rage(self, server, count, threads=8):
        """So many calls, by so many clients at once; some clients cancel some of theirs."""
        clients = threading.local()

        def call(number):
            if not hasattr(clients, "own"):
                clients.own = KeptClient(server.url, server.client().token)
            self.call(clients.own, number)

        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list(pool.map(call, range(count)))

    def call(self, client, number):
        chance = self.random("client", number)
        way = "cancel" if self.is_silent(number) or chance.random() < 0.15 else None
        if way and chance.random() < 0.2:
            way = "delete"
        body = {"content": str(number), "model": chance.choice(MODELS)}
        response = client.post("/sessions", body, Prefer="respond-async" if way else None)
        fields = response.json()
        path = "/sessions/" + (
            fields["id"] if "id" in fields else fields["errors"][0]["meta"]["session_id"]
        )
        if way:
            time.sleep(chance.choice([0, chance.uniform(0, 0.03)]))
        if way == "delete":
            response = client.delete(path)
            assert response.status_code == 204, response.text
        else:
            if way == "cancel":
                response = client.post(path + "/cancel")
                assert response.status_code in (200, 409), (
                    response.text
                )  # 409 if it has ended meanwhile
            self.check(number, client.get(path).json()["turns"][-1], is_cancelled=way is not None)

    def check(self, number, turn, is_cancelled):
        """The turn of a call that is over has the text of the call's own answers, one after the
        other, and nothing else."""
        with self._lock:
            tries = self.served.get(number, [Try("not asked", [], False)])
        *others, last = tries
        status, text, error = turn["status"], turn["content"], turn.get("error")
        told = f"seed {self.seed}, call {number}: {[each.mood for each in tries]} became {status} {error} {text[:200]!r}"
        self.outcomes[f"{last.mood}: {status}"] += 1
        assert "INTRUDER" not in f"{text} {error}", told
        assert set(re.findall(r"<(\d+)\.", f"{text} {error}")) <= {str(number)}, told
        rest, parts = (
            text,
            [],
        )  # each broken answer has so many pieces in it, perhaps none; the last may have all
        for each in tries:
            before = rest
            for piece in each.pieces:
                if not rest.startswith(piece):
                    break
                rest = rest.removeprefix(piece)
            parts += [before] if rest != before else []
        assert not rest, told
        self.went_on += len(parts) > 1
        for each in others:
            assert each.mood not in GOOD or each.is_disturbed, (
                told
            )  # else another call's data made it try again
        if status == "complete":
            assert text.endswith("".join(last.pieces)), told
        elif status == "interrupted":
            assert is_cancelled, told  # else another call's data made it hang up
        else:
            assert status == "failed" and error["status"] != 500 and number in self.served, told
            assert last.mood not in GOOD or (last.is_disturbed and len(tries) >= TRIES), told


GOOD = {
    "well": 30,
    "delimited_by_close": 4,
    "with_a_byte_more": 6,
    "with_a_byte_later": 4,
    "with_another_answer": 12,
}
BAD = {
    "shorter_than_it_says": 5,
    "longer_than_it_says": 8,
    "broken": 5,
    "broken_by_reset": 5,
    "refused": 8,
    "refused_at_length": 3,
}


class KeptClient(Client):
    """A client that keeps its connection to the server, so that there are more calls per second."""

    def __init__(self, url, token):
        super().__init__(url, token)
        self.session = requests.Session()
        self.session.trust_env = False

    def request(self, method, path, body=None, timeout=60, **headers):
        headers = {"Authorization": f"Bearer {self.token}"} | {
            n.replace("_", "-"): v for n, v in headers.items() if v
        }
        return self.session.request(
            method, self.url + path, json=body, headers=headers, timeout=timeout
        )


def open_sockets(server):
    """How many sockets the server's workers have open."""
    count = 0
    for pid in server.workers():
        folder = f"/proc/{pid}/fd"
        for name in os.listdir(folder):
            try:
                count += os.readlink(f"{folder}/{name}").startswith("socket:")
            except FileNotFoundError:
                pass  # it was closed meanwhile
    return count


def check_a_storm(server, provider, seed, count):
    """Run it. In the end all is well again, nothing is left open, and connections have been reused."""
    before = open_sockets(server)
    storm = Storm(provider, seed)
    storm.rage(server, count)
    provider.default = reply("It is calm.")
    client = server.client()
    for model in MODELS * 4:
        assert client.turns(client.create("Hello", model=model))[-1]["content"] == "It is calm."
    deadline = time.monotonic() + 10
    while (
        open_sockets(server) > before + 40
    ):  # the clients' and the kept ones, and not one for each call
        assert time.monotonic() < deadline, "sockets are left open"
        time.sleep(0.05)
    assert storm.reuses > len(provider.requests) / 10, "connections were hardly kept"
    assert storm.went_on, "no reply went on behind a break"
    return storm
