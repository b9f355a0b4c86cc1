"""Many streams at once: how late their words arrive, whether other users are served meanwhile, and
what a stream costs.
"""

import json
import subprocess
import sys
import time
from statistics import median, quantiles

from client import make_token
from load import Client
from measured import HERE, Parley
from measures import MS

STREAMS, USERS, WORDS = 2000, 10, 45
RAMP = 200  # streams that are begun in a second
WINDOW = 10  # seconds during which all of them are open
KB = 1 / 1000


def measure(folder, stub, urls):
    """The rows, as soon as they are known, of each of these empty databases: {name: its URL}."""
    for name, url in urls.items():
        for how, rate in (("one after the other", RAMP), ("at one instant", 0)):
            with Parley(folder, stub, url) as parley:
                time.sleep(1)  # its workers have started by then
                yield from measure_one(f"{STREAMS:,} streams, begun {how}, on {name}", parley, rate)


def measure_one(what, parley, rate):
    before, tokens = (
        parley.memory(),
        [make_token(f"https://github.com/user-{number}") for number in range(USERS)],
    )
    command = [sys.executable, HERE / "crowd.py", *map(str, (parley.port, STREAMS, WORDS, rate))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as crowd:
        crowd.stdin.write("\n".join(tokens))
        crowd.stdin.close()
        standing, processor_time, health = (
            json.loads(crowd.stdout.readline())["standing"],
            parley.processor_seconds(),
            [],
        )
        until = time.monotonic() + WINDOW
        while time.monotonic() < until:
            client = Client(parley.port)
            health.append(client.send("GET", "/health").seconds * MS)
            client.close()
            time.sleep(0.1)
        processor_time, memory = parley.processor_seconds() - processor_time, parley.memory()
        told = json.loads(crowd.stdout.readline())
    lags, begun = [lag * MS for lag in told["lags"]], told["statuses"]["201"]
    figures = f"{STREAMS - begun}; {standing:.3g} s"
    yield plain_row(
        f"{what}: how many were refused; when the others stood", figures, "0", begun == STREAMS
    )
    figures = f"{median(lags):.3g}, {quantiles(lags, n=100)[98]:.3g}, {max(lags):.3g} ms"
    yield plain_row(
        "… lag of a word, median, p99 and the slowest",
        figures,
        "at most 1,000 ms",
        max(lags) <= 1000,
    )
    yield plain_row(
        "… the slowest GET /health meanwhile",
        f"{max(health):.3g} ms",
        "at most 100 ms",
        max(health) <= 100,
    )
    figures = f"{memory / begun * KB:.4g} kB; {(memory - before) / begun * KB:.4g} kB"
    goal, is_met = "at most 150 kB", memory <= 150_000 * begun
    yield plain_row(
        "… memory of all processes, for each stream; what they have more than before",
        figures,
        goal,
        is_met,
    )
    yield plain_row(
        "… processor time of a word", f"{processor_time / (begun * WINDOW) * MS:.3g} ms"
    )


def plain_row(what, figure, goal="", is_met=None):
    return what, "", figure, "", goal, {None: "", True: "yes", False: "no"}[is_met]
