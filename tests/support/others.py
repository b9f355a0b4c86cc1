"""Others, who use a server while somebody tries its patience. They ask in a process of their own: in the test's, whatever it
and the provider do would hold them up."""

import concurrent.futures
import contextlib
import multiprocessing
import time

import requests

from client import Client


class Asking:
    """What one of them asks, and how it was answered: what, after how many seconds, with which status."""

    def __init__(self, url, token, body, cancels, over):
        self.alice, self.body, self.cancels, self.over = Client(url, token), body, cancels, over
        self.answers = []

    def ask(self, what, path, body=None, **headers):
        """Where the answer says that something is; None where it says nothing of that."""
        began = time.monotonic()
        method = "GET" if what == "health" else "POST"
        try:
            told = self.alice.request(method, path, body, timeout=20, **headers)
            status, place = told.status_code, told.headers.get("Location")
        except requests.RequestException as error:
            status, place = type(error).__name__, None
        self.answers.append((what, time.monotonic() - began, status))
        return place

    def look(self):
        while not self.over.wait(0.1):
            self.ask("health", "/health")

    def create(self):
        while not self.over.wait(0.1):
            place = self.ask("create", "/sessions", self.body, Prefer="respond-async")
            if place and self.cancels:
                self.ask("cancel", place + "/cancel")


def ask_until(begun, over, *asking):
    asking = Asking(*asking, over)
    asking.ask("health", "/health")
    begun.set()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(asking.look), pool.submit(asking.create)]:
            done.result()
    return asking.answers


@contextlib.contextmanager
def others_at_work(client, body, cancels=False):
    """Meanwhile this client asks for /health, and creates sessions with this body. Yields what it was answered, once it is over:
    "health", "create" and "cancel" → seconds; none of them failed."""
    expected, took = {"health": 200, "create": 201, "cancel": 200}, {}
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager, concurrent.futures.ProcessPoolExecutor(1, spawn) as process:
        begun, over = manager.Event(), manager.Event()
        asked = client.url, client.token, body, cancels
        asking = process.submit(ask_until, begun, over, *asked)
        begun.wait(60)
        try:
            yield took
        finally:
            over.set()
        for what, seconds, status in asking.result():
            assert status == expected[what], what
            took.setdefault(what, []).append(seconds)
    for what, each in took.items():
        print(f"{what}: {len(each)}, the slowest after {max(each):.2f} s")
