"""The rows of a PostgreSQL that is near, and of one whose round trip takes 2 ms: what is sent to
it, and how long it takes.

Parley and the floor have one process each. They reach the server by a relay that counts
(`counting.py`) and, if the server is far, adds the 2 ms. SQLite is measured, too, since what helps
PostgreSQL must not cost it anything.
"""

import contextlib
import functools
import json
import subprocess
import sys
import time
from statistics import median, quantiles
from urllib.parse import urlsplit

from client import make_token
from counting import CountingRelay
from load import Client, at_once
from measured import HERE, Floor, Parley
from measures import MS, anew, ask, ask_directly, in_turns, measure_search, row, typical, users

FAR = 0.002  # seconds to a far server and back
ROUNDS = 5
FEW_ROUNDS = 3  # for what takes seconds
WORDS = 500  # of a reply whose round trips are counted
TOGETHER = 60  # replies in progress
LISTED = 20
SETTLED = 0.2  # seconds without a round trip, after which nothing is left to be stored
SILENT = "m-timed-2-60000"  # a model that says a word, and the next one a minute later


class Place:
    """A floor and a Parley, and the place of their data."""

    def __init__(
        self,
        name,
        floor,
        parley,
        relay=None,
        slowest=None,
        ratio=None,
        fewest=None,
        most_lags=(None, None),
    ):
        self.name, self.floor, self.parley, self.relay = name, floor, parley, relay
        self.slowest, self.ratio, self.fewest, self.most_lags = (
            slowest,
            ratio,
            fewest,
            most_lags,
        )  # the goals


def measure(turns, folder, stub, of_floor, of_near, of_far):
    """The rows, as soon as they are known, of these three empty databases; so many turns are
    searched."""
    with contextlib.ExitStack() as stack:
        near, far = (stack.enter_context(relay_to(of_floor, round_trip)) for round_trip in (0, FAR))

        def place(name, url_of_floor, url, relay=None, **goals):
            floor = Floor(folder, stub, url_of_floor, processes=1)
            parley = Parley(folder, stub, url, WEB_CONCURRENCY="1")
            for server in (floor, parley):
                stack.enter_context(server)
                at_once(users(server, 32), 3, ask)
            return Place(name, floor, parley, relay, **goals)

        counted = place("PostgreSQL near", by(near, of_floor), by(near, of_near), near)
        yield from count_all(counted)
        here = place("PostgreSQL near", of_floor, of_near, ratio=2)
        goals = {"slowest": 20, "fewest": 100, "most_lags": (15, 60)}
        away = place(
            f"PostgreSQL {FAR * MS:.0f} ms away", by(far, of_floor), by(far, of_far), **goals
        )
        file = place("SQLite", None, f"sqlite:///{folder}/one.db")
        yield from measure_creations(stub, (here, away, file))
        yield from measure_rates((here, away, file))
        yield from measure_lags((here, away, file))
        yield from measure_search(here.parley, of_near, turns, ", PostgreSQL near")


@contextlib.contextmanager
def relay_to(url, round_trip):
    server = urlsplit(url)
    with contextlib.closing(
        CountingRelay(server.hostname, server.port or 5432, round_trip / 2)
    ) as relay:
        yield relay


def by(relay, url):
    """The URL of the same database through this relay."""
    server = urlsplit(url)
    user, at, _ = server.netloc.rpartition("@")
    return server._replace(netloc=f"{user}{at}127.0.0.1:{relay.port}").geturl()


# What is sent


def count_all(place):
    """The round trips and the statements of one server that has no other users meanwhile."""
    relay, (floor,), (client,) = place.relay, users(place.floor, 1), users(place.parley, 1)
    create = functools.partial(anew(Client.send), client, "POST", "/sessions")
    began = {"content": "What is sent?", "model": "m-fast"}
    session = json.loads(body_of(create(began, status=201)))["id"]
    stream = functools.partial(create, accept="text/event-stream", status=201)

    def count(act, times=1):
        """What is sent for this call, from its beginning until nothing is left to be stored."""
        settle(relay)
        before = relay.counts()
        for _ in range(times):
            act()
            settle(relay)
        return [(after - then) / times for then, after in zip(before, relay.counts(), strict=False)]

    def defer(path, body, status):
        anew(Client.send)(client, "POST", path, body, status=status, prefer="respond-async")

    of_floor = count(lambda: anew(ask)(floor), 10)
    yield counted("a creation", count(lambda: defer("/sessions", began, 201), 10), 6, of_floor)
    path = f"/sessions/{session}/messages"
    yield counted("a message", count(lambda: defer(path, {"content": "And then?"}, 202), 10))
    timed = began | {"model": f"m-timed-{WORDS}-20"}
    yield counted(
        f"a reply of {WORDS} words that is streamed alone", count(lambda: stream(timed)), 600
    )
    together = count(lambda: follow(place.parley, TOGETHER, WORDS))
    yield counted(
        f"each of {TOGETHER} such replies at once", [total / TOGETHER for total in together], 100
    )
    yield from count_under_way(relay, client)


def count_under_way(relay, client):
    """The same while replies are in progress that get no text: what the keeper sends, and what a
    list adds."""
    began = {"content": "Are you there?", "model": SILENT}
    create = functools.partial(
        anew(Client.send), client, "POST", "/sessions", began, status=201, prefer="respond-async"
    )

    def idle(seconds):
        """What is sent per second."""
        before, began_at = relay.counts(), time.monotonic()
        time.sleep(seconds)
        return [
            (after - then) / (time.monotonic() - began_at)
            for then, after in zip(before, relay.counts(), strict=False)
        ]

    def lists():
        """What is sent for a list, and by the keeper meanwhile."""
        before, began_at = relay.counts(), time.monotonic()
        for _ in range(LISTED):
            answer = anew(Client.send)(client, "GET", "/sessions?page[limit]=20")
        rates = [
            (after - then) / LISTED for then, after in zip(before, relay.counts(), strict=False)
        ]
        if answer.data.count(b"@") < LISTED:
            raise RuntimeError("the list has not what its replies have said")
        return rates, (time.monotonic() - began_at) / LISTED

    sessions = [json.loads(body_of(create()))["id"]]
    time.sleep(1)
    yield counted("the keeper of a reply that says nothing, a second", idle(6), 12)
    sessions += [json.loads(body_of(create()))["id"] for _ in range(LISTED - 1)]
    time.sleep(1)
    rates = idle(2)
    of_lists, seconds = lists()
    counts = [of_list - rate * seconds for of_list, rate in zip(of_lists, rates, strict=False)]
    yield counted(f"a list of {LISTED} sessions whose replies are in progress", counts, 3)
    for session in sessions:  # else the server would wait for their ends
        anew(Client.send)(client, "DELETE", f"/sessions/{session}", status=204)


def counted(what, parley, most=None, floor=None):
    """A row of round trips, and of statements. The goal is for the round trips."""
    goal, met = (
        ("", "")
        if most is None
        else (f"at most {most}", "yes" if round(parley[0], 1) <= most else "no")
    )
    against, compared = (
        (f"{plain(floor)} (floor)", f"{parley[0] / floor[0]:.2f} ×") if floor else ("", "")
    )
    return f"round trips (and statements) of {what}", against, plain(parley), compared, goal, met


def plain(counts):
    return "{:,.1f} ({:,.1f})".format(*counts)


def settle(relay):
    """Wait until nothing passes through the relay any more."""
    counts, since = relay.counts(), time.monotonic()
    while time.monotonic() < since + SETTLED:
        time.sleep(0.02)
        if (now := relay.counts()) != counts:
            counts, since = now, time.monotonic()


def body_of(answer):
    return answer.data.partition(b"\r\n\r\n")[2]


# How long it takes


def measure_creations(stub, places):
    direct = Client(stub.port)
    streaming, whole = anew(ask_directly), anew(functools.partial(ask_directly, is_stream=False))
    creations = [
        functools.partial(typical, ask, *users(server, 1), 20)
        for place in places
        for server in (place.floor, place.parley)
    ]
    model = functools.partial(typical, whole, direct, 50)
    streamed, model, *times = in_turns(
        ROUNDS, functools.partial(typical, streaming, direct, 50), model, *creations
    )
    for number, place in enumerate(places):
        floor, parley = (times[2 * number] - model) * MS, (times[2 * number + 1] - streamed) * MS
        what, most = (
            f"a creation, without the model's own time, on {place.name}",
            place.slowest or (place.ratio or 0) * floor,
        )
        goal = (
            place.slowest
            and f"at most {place.slowest} ms"
            or place.ratio
            and f"at most {place.ratio} ×"
            or ""
        )
        yield row(what, floor, parley, "ms", goal, parley <= most if goal else None)


def measure_rates(places):
    def rate(server):
        return 32 * 5 / at_once(users(server, 32), 5, anew(ask))

    servers = [server for place in places for server in (place.floor, place.parley)]
    rates = in_turns(FEW_ROUNDS, *(functools.partial(rate, server) for server in servers))
    for number, place in enumerate(places):
        floor, parley = rates[2 * number : 2 * number + 2]
        what, goal = f"creations a second of one process, 32 at once, on {place.name}", place.fewest
        yield row(
            what,
            floor,
            parley,
            "/s",
            f"at least {goal} /s" if goal else "",
            goal and parley >= goal,
        )


def measure_lags(places):
    """How late words arrive. The floor does not use the database meanwhile, so one of the floors is
    enough."""
    servers = [places[0].floor, *(place.parley for place in places)]
    rounds = [
        [median_and_p95(follow(server, TOGETHER, 80)) for server in servers]
        for _ in range(FEW_ROUNDS)
    ]
    floor, *of_places = (
        [median(figures) * MS for figures in zip(*server, strict=False)]
        for server in zip(*rounds, strict=False)
    )
    for place, lags in zip(places, of_places, strict=False):
        for name, at_floor, lag, most in zip(
            ("median", "p95"), floor, lags, place.most_lags, strict=False
        ):
            what = (
                f"lag of a word, {TOGETHER} replies of 20 words a second, {name}, on {place.name}"
            )
            yield row(
                what,
                at_floor,
                lag,
                "ms",
                f"at most {most} ms" if most else "",
                most and lag <= most,
            )


def follow(server, count, words):
    """The lags of these words (`followers.py`)."""
    command = [
        sys.executable,
        HERE / "followers.py",
        str(server.port),
        make_token(),
        str(count),
        str(words),
    ]
    lags = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    if len(lags) < count * words / 10:
        raise RuntimeError("the streams were hardly open at the same time")
    return lags


def median_and_p95(lags):
    cuts = quantiles(lags, n=20)
    return cuts[9], cuts[18]
