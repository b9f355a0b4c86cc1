"""The measurements, one function for each; all return rows of the table."""

import base64
import concurrent.futures
import functools
import json
import operator
import os
import subprocess
import sys
import time
from statistics import median

from client import make_token
from load import Client, at_once, encoded
from measured import HERE
from pictures import png

ROUNDS = 9
FEW, MANY, FAR = 1000, 100_000, 50_000  # sessions of one user; a far offset
MESSAGES = 5  # in a round, in the long session
WORDS = 1000
PICTURE = 2_000_000  # bytes
ROUND_TRIP = 0.04  # seconds to a far provider and back
CONTENT = "How do I limit the rate of requests to an endpoint?"
MS, MB = 1000, 1 / 2**20


def in_turns(rounds, *measures):
    """The medians of what these functions return, which are called in turns: so a busy moment
    affects them all alike."""
    results = [[measure() for measure in measures] for _ in range(rounds)]
    return [median(column) for column in zip(*results, strict=True)]


def row(what, against, parley, unit, goal="", is_met=None, name="floor", is_difference=False):
    """A row of the table. `against` is the figure to compare with, called `name`: by ratio, or by difference."""
    met = {None: "", True: "yes", False: "no"}[is_met]
    compared = f"{parley - against:+.3g} {unit}" if is_difference else f"{parley / against:.2f} ×"
    return what, f"{against:.4g} {unit} ({name})", f"{parley:.4g} {unit}", compared, goal, met


# What a client sends


def ask(client, model="m-fast", accept="application/json"):
    return client.send("POST", "/sessions", {"content": CONTENT, "model": model}, accept, 201)


def ask_directly(client, model="m-fast", is_stream=True):
    body = {"model": model, "messages": [{"role": "user", "content": CONTENT}], "stream": is_stream}
    return client.send("POST", "/v1/chat/completions", body)


def anew(send):
    """Each request has a connection of its own. A kept connection stays with the worker that took
    it, and one worker may take most."""

    def send_anew(client, *args, **options):
        answer = send(client, *args, **options)
        client.close()
        return answer

    return send_anew


def users(server, count):
    return [Client(server.port, make_token()) for _ in range(count)]


def typical(send, client, count=100, time_of=operator.attrgetter("seconds")):
    """The median of the times of `count` of these requests, one at a time over one connection."""
    times = [time_of(send(client)) for _ in range(count)]
    client.close()
    return median(times)


# Creations


def warm_up(server):
    """Let everything happen that happens once in a thread or a worker."""
    at_once(users(server, 64), 5, ask)


def measure_one_at_a_time(stub, floor, parley):
    direct, (at_floor,), (at_parley,) = Client(stub.port), users(floor, 1), users(parley, 1)
    streaming, whole = anew(ask_directly), anew(functools.partial(ask_directly, is_stream=False))
    model, floor_time, streamed, parley_time = in_turns(
        ROUNDS,
        lambda: typical(whole, direct),
        lambda: typical(ask, at_floor),
        lambda: typical(streaming, direct),
        lambda: typical(ask, at_parley),
    )
    floor_time, parley_time = (floor_time - model) * MS, (parley_time - streamed) * MS
    is_met = parley_time <= 1.8 * floor_time
    return [
        row(
            "a creation, without the model's own time",
            floor_time,
            parley_time,
            "ms",
            "at most 1.8 ×",
            is_met,
        )
    ]


def measure_work(floor, parley):
    at_floor, at_parley = in_turns(5, lambda: processor_time(floor), lambda: processor_time(parley))
    is_met = at_parley <= 2 * at_floor
    return [row("processor time of a creation", at_floor, at_parley, "ms", "at most 2 ×", is_met)]


def measure_many_at_once(floor, parley):
    def rate(server):
        return 32 * 25 / at_once(users(server, 32), 25, anew(ask))

    at_floor, at_parley = in_turns(ROUNDS, lambda: rate(floor), lambda: rate(parley))
    is_met = at_parley >= 0.6 * at_floor
    return [
        row("creations a second, 32 at once", at_floor, at_parley, "/s", "at least 0.60 ×", is_met)
    ]


def measure_waiting(floor, parley):
    def wall(server):
        return at_once(users(server, 100), 1, functools.partial(ask, model="m-1s"))

    at_floor, at_parley = in_turns(3, lambda: wall(floor), lambda: wall(parley))
    goal = "at most 1.3 s"
    return [
        row(
            "100 creations at once, of a model that takes 1 s",
            at_floor,
            at_parley,
            "s",
            goal,
            at_parley <= 1.3,
        )
    ]


def measure_bursts(floor, parley):
    """Other users' requests while many sessions are created at one instant. The floor has no list,
    so its health is requested."""

    def times(server, path, count, model):
        """The times of `GET path`, again and again by one client with a pause of 5 ms."""
        (client,), times = users(server, 1), []
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            burst = pool.submit(
                at_once, users(server, count), 1, functools.partial(ask, model=model)
            )
            while not burst.done():
                times.append(client.send("GET", path).seconds * MS)
                client.close()
                time.sleep(0.005)
            burst.result()
        return times

    def slowest(server):
        return max(times(server, "/health", 60, "m-1s"))

    at_floor, at_parley = in_turns(5, lambda: slowest(floor), lambda: slowest(parley))
    what = "the slowest GET /health while 60 are created at once"
    yield row(what, at_floor, at_parley, "ms", "at most 50 ms", at_parley <= 50)
    # With a model that answers at once: with one that thinks, nothing would be created most of the
    # time.
    asked = (floor, "/health"), (parley, "/sessions")
    rounds = [[times(*each, 100, "m-fast") for each in asked] for _ in range(ROUNDS)]
    for name, figure, most in (("the median", median, 5), ("the slowest", max, 50)):
        at_floor, at_parley = (median(map(figure, column)) for column in zip(*rounds, strict=True))
        what = f"{name} GET /sessions, a list of 20, while 100 are created at once"
        yield row(
            what,
            at_floor,
            at_parley,
            "ms",
            f"at most {most} ms",
            at_parley <= most,
            "GET /health of the floor",
        )


# Streams


def measure_streams(stub, floor, parley):
    """The floor passes a stream through as it comes, after it has checked the same token and read
    the same row."""
    direct, (at_floor,), (at_parley,) = Client(stub.port), users(floor, 1), users(parley, 1)
    stream = functools.partial(ask, accept="text/event-stream")

    def first_word(client, model, count):
        send = functools.partial(stream, model=model)
        return typical(send, client, count, operator.attrgetter("first_word")) * MS

    def words_a_second(send, client):
        answer = send(client, f"m-words-{WORDS}")
        client.close()
        if answer.data.count(b"word") < WORDS:
            raise RuntimeError("words were lost")
        return WORDS / answer.seconds

    rows = []
    # The times of a flood scatter widely, since the stub writes it on one of the cores.
    for model, count, name in (
        (f"m-words-{WORDS}", 20, "as fast as they go"),
        ("m-paced-20", 5, "10 ms apart"),
    ):
        floor_time, parley_time = in_turns(
            ROUNDS,
            lambda: first_word(at_floor, model, count),
            lambda: first_word(at_parley, model, count),
        )
        is_met = parley_time <= 2 * floor_time
        rows.append(
            row(
                f"time to the first word, words {name}",
                floor_time,
                parley_time,
                "ms",
                "at most 2 ×",
                is_met,
            )
        )
    rates = in_turns(
        2 * ROUNDS,
        lambda: words_a_second(ask_directly, direct),
        lambda: words_a_second(stream, at_floor),
        lambda: words_a_second(stream, at_parley),
    )
    read, passed, through = rates
    what, goal = f"words a second, of {WORDS:,}", "at least 20,000 /s"
    rows.append(row(what, read, through, "/s", goal, through >= 20_000, "read directly"))
    rows.append(row(what, passed, through, "/s", name="floor"))
    return rows


# A provider like real ones: far away, and with TLS


def measure_far_first_word(folder, far, parley):
    """A reply's first word is committed before it is shown, so the time of an fsync is measured,
    too."""
    direct, (through,) = Client(far.port, tls=far.tls), users(parley, 1)
    stream = functools.partial(ask, accept="text/event-stream")

    def first_word(send, client):
        send = functools.partial(send, model="m-paced-3")
        send(client)  # connects
        return typical(send, client, 5, operator.attrgetter("first_word")) * MS

    sync, read, passed = in_turns(
        ROUNDS,
        lambda: sync_time(folder) * MS,
        lambda: first_word(ask_directly, direct),
        lambda: first_word(stream, through),
    )
    what = f"time to the first word from a provider {ROUND_TRIP * MS:.0f} ms away (an fsync takes {sync:.2g} ms)"
    name, goal, is_met = "read directly, connection kept", "at most 8 ms more", passed <= read + 8
    return [row(what, read, passed, "ms", goal, is_met, name, is_difference=True)]


def processor_time(server, count=60):
    """The processor time of a creation, in all processes of this server."""
    before = server.processor_seconds()
    typical(ask, *users(server, 1), count)
    return (server.processor_seconds() - before) / count * MS


def measure_tls(plain, over_tls):
    """Both are Parley: the cost of TLS shows best next to the same without it."""
    without, with_tls = in_turns(5, lambda: processor_time(plain), lambda: processor_time(over_tls))
    what = "processor time of a creation, the provider near and behind TLS"
    return [row(what, without, with_tls, "ms", name="without TLS", is_difference=True)]


def sync_time(folder):
    """Seconds until 4 kB are on the disk."""
    times = []
    with open(folder / "written", "wb", buffering=0) as file:
        for _ in range(100):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return median(times)


# Lists


def seed(database_url, owner, count, *what):
    """Returns the id of the owner's long session."""
    command = [sys.executable, HERE / "seed.py", database_url, owner, str(count), *what]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def measure_lists(stub, parley, database_url):
    few, many = "https://github.com/few", "https://github.com/many"
    of_few, of_many = (Client(parley.port, make_token(owner)) for owner in (few, many))
    long_of_few, long_of_many = seed(database_url, few, FEW), seed(database_url, many, MANY)

    def get(client, path):
        return typical(lambda client: client.send("GET", path), client, 40) * MS

    def say(client):
        path = f"/sessions/{long_of_few}/messages"
        return client.send("POST", path, {"content": CONTENT}, status=201)

    direct, far = Client(stub.port), f"/sessions?page[offset]={FAR}"
    model, message, page_few, page_many, page_far, session_few, session_many = in_turns(
        ROUNDS,
        lambda: typical(anew(ask_directly), direct, MESSAGES) * MS,
        lambda: typical(say, of_few, MESSAGES) * MS,
        lambda: get(of_few, "/sessions"),
        lambda: get(of_many, "/sessions"),
        lambda: get(of_many, far),
        lambda: get(of_few, f"/sessions/{long_of_few}"),
        lambda: get(of_many, f"/sessions/{long_of_many}"),
    )
    few, many = f"{FEW:,} sessions", f"{MANY:,} sessions"
    first, is_met = f"the first page of {many}", page_many <= 1.5 * page_few
    return [
        row(first, page_few, page_many, "ms", "at most 1.5 ×", is_met, f"of {few}"),
        row(
            f"the page at offset {FAR:,}",
            page_many,
            page_far,
            "ms",
            "at most 5 ×",
            page_far <= 5 * page_many,
            "at offset 0",
        ),
        row(
            f"a session with 200 turns, of {many}",
            session_few,
            session_many,
            "ms",
            name=f"of {few}",
        ),
        row(
            "a message in a session with 200 turns, without the model's own time",
            model,
            message - model,
            "ms",
            "at most 4 ms",
            message - model <= 4,
            "the model's own",
        ),
    ]


# Pictures


def measure_message_with_picture(stub, parley):
    data = png(1000, 800, PICTURE)
    (client,), direct = users(parley, 1), Client(stub.port)
    stored = client.send("POST", "/files", data, status=201)
    file = json.loads(stored.data.partition(b"\r\n\r\n")[2])
    client.close()
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": CONTENT}]

    def time_of_model(content):
        messages = [{"role": "user", "content": content}]
        body = encoded({"model": "m-fast", "messages": messages, "stream": True})
        send = anew(lambda client: client.send("POST", "/v1/chat/completions", body))
        return typical(send, direct, 20) * MS

    def time_of_message(**files):
        body = encoded({"content": CONTENT, "model": "m-fast"} | files)
        create = functools.partial(Client.send, method="POST", path="/sessions", body=body)
        return typical(functools.partial(create, status=201), client, 20) * MS

    model, without, model_with, with_one = in_turns(
        ROUNDS,
        lambda: time_of_model(CONTENT),
        time_of_message,
        lambda: time_of_model(parts),
        lambda: time_of_message(files=[file["id"]]),
    )
    what = f"a creation with a picture of {PICTURE // 10**6} MB, without the model's own time"
    return [row(what, without - model, with_one - model_with, "ms", name="without one")]


def measure_turns_with_pictures(parley, database_url):
    def get(owner, *what):
        """A function that returns the time of reading this owner's long session."""
        path = f"/sessions/{seed(database_url, owner, FEW, *what)}"
        client = Client(parley.port, make_token(owner))
        return lambda: typical(lambda client: client.send("GET", path), client, 40) * MS

    plain, pictured = in_turns(
        2 * ROUNDS,
        get("https://github.com/plain"),
        get("https://github.com/pictured", "pictures"),
    )
    what, is_met = "a session with 200 turns, 50 of which have a picture", pictured <= 1.1 * plain
    return [row(what, plain, pictured, "ms", "at most 1.1 ×", is_met, "without pictures")]


def measure_search(parley, database_url, turns, where=""):
    """An owner with much text, among as many turns of others. A search gives up after five seconds:
    then it fails here."""
    owner = "https://github.com/searching"
    seed(database_url, owner, turns, "turns")
    client = Client(parley.port, make_token(owner))

    def get(query, count):
        return typical(lambda client: client.send("GET", "/sessions" + query), client, count) * MS

    listed, everywhere, nowhere = in_turns(
        5,
        lambda: get("", 20),
        lambda: get("?query=the", 20),
        lambda: get("?query=nowhere-at-all", 1),
    )
    most = turns // 1000
    what, name = f"in {turns:,} turns of 200 to 4,000 characters{where}", "a list"
    yield row(
        f"a search for a word that occurs everywhere {what}", listed, everywhere, "ms", name=name
    )
    is_met = nowhere <= most
    yield row(
        f"a search for a word that occurs nowhere {what}",
        listed,
        nowhere,
        "ms",
        f"at most {most:,} ms",
        is_met,
        name,
    )


# Memory and start


def measure_start(start_floor, start_parley):
    """Start and end them in turns. Memory is measured when all workers have had the time to start."""
    memory = {start_floor: [], start_parley: []}

    def seconds(start):
        with start() as server:
            time.sleep(0.5)
            memory[start].append(server.memory())
            return server.seconds

    at_floor, at_parley = in_turns(3, lambda: seconds(start_floor), lambda: seconds(start_parley))
    start = row(
        "from the start to the first answer",
        at_floor,
        at_parley,
        "s",
        "at most 1 s",
        at_parley <= 1,
    )
    return [
        start,
        memory_row("at the start", median(memory[start_floor]), median(memory[start_parley])),
    ]


def measure_memory(floor, parley):
    return [memory_row("after all of this", floor.memory(), parley.memory())]


def memory_row(when, at_floor, at_parley):
    is_met = at_parley <= 1.3 * at_floor
    return row(
        f"memory (PSS of all processes) {when}",
        at_floor * MB,
        at_parley * MB,
        "MB",
        "at most 1.3 ×",
        is_met,
    )
