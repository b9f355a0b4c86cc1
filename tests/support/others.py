"""Other users, at work while something loads their server.

They run in a process of their own: in the test's, they would wait for what it and the provider do.
"""

import concurrent.futures
import contextlib
import multiprocessing
import time

import requests

from client import Client


class Asking:
    """Their requests, and the answers: what, after how many seconds, with which status."""

    def __init__(self, url, token, pause, over, answers):
        self.client, self.pause, self.over, self.answers = Client(url, token), pause, over, answers

    def ask(self, what, path, body=None, **headers):
        """The path in `Location`; None if the answer has none."""
        began = time.monotonic()
        method = "GET" if what == "health" else "POST"
        try:
            told = self.client.request(method, path, body, timeout=20, **headers)
            status, place = told.status_code, told.headers.get("Location")
        except requests.RequestException as error:
            status, place = type(error).__name__, None
        self.answers.append((what, time.monotonic() - began, status))
        return place

    def again(self, do, *args):
        while not self.over.wait(self.pause):
            do(*args)

    def look(self):
        self.ask("health", "/health")

    def wait_for(self, body):
        self.ask("create", "/sessions", body)

    def defer(self, body):
        return self.ask("create", "/sessions", body, Prefer="respond-async")

    def cancel(self, body):
        if place := self.defer(body):
            self.ask("cancel", place + "/cancel")


def ask_until(begun, bodies, *asking):
    """One asks for /health, and others create sessions, each in one of these ways: its name → the
    body."""
    asking = Asking(*asking)
    asking.look()
    begun.set()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        ways = [(asking.look,), *((getattr(asking, way), body) for way, body in bodies.items())]
        for done in [pool.submit(asking.again, *way) for way in ways]:
            done.result()


class Took(dict):
    """The kind of request → the seconds that each took, once it is over. `count` counts them
    meanwhile."""

    count = None


@contextlib.contextmanager
def others_at_work(client, pause=0.1, **bodies):
    """Meanwhile this client asks for /health, and creates sessions with these bodies.

    `defer` is the body of replies that end by themselves, `cancel` of those that are cancelled at
    once, and `wait_for` of those that the client waits for. Yields the seconds of each "health",
    "create" and "cancel"; none of them failed.
    """
    expected, took = {"health": 200, "create": 201, "cancel": 200}, Took()
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager, concurrent.futures.ProcessPoolExecutor(1, spawn) as process:
        begun, over, answers = manager.Event(), manager.Event(), manager.list()
        asked = client.url, client.token, pause, over, answers
        asking = process.submit(ask_until, begun, bodies, *asked)
        begun.wait(60)
        took.count = answers.__len__
        try:
            yield took
        finally:
            over.set()
        asking.result()
        for what, seconds, status in answers[:]:
            assert status == expected[what], what
            took.setdefault(what, []).append(seconds)
    for what, each in took.items():
        print(f"{what}: {len(each)}, the slowest after {max(each):.2f} s")
