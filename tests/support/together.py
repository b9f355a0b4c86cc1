"""How the heavy tests are kept short: tests that mostly wait run at the same time, each with a
database, a provider and a server of its own. Some run on one engine only, and by hand on the other.
"""

import concurrent.futures
import contextlib

import pytest

from provider import Provider
from servers import running

AT_A_TIME = 5  # of those that `together` marks
TOGETHER, ASIDE = {}, {}  # name → function


def are_in_time(took, seconds):
    """Whether nine of ten took less than this, and none five times as long: a machine with no room
    to spare stands still now and then, and what it delays takes longer."""
    most = sorted(took)[(len(took) - 1) * 9 // 10]
    return most < seconds and max(took) < 5 * seconds


def on(engine, by_hand):
    return pytest.mark.parametrize(
        "engine", [engine, pytest.param(by_hand, marks=pytest.mark.long)], indirect=True
    )


on_sqlite, on_postgresql = on("sqlite", by_hand="postgresql"), on("postgresql", by_hand="sqlite")


def together(function):
    """A test that mostly waits: it begins with the first of its kind, beside others."""
    return _beside(function, TOGETHER)


def aside(function):
    """A test that only waits: it begins with the first of those that run together, and is not
    counted."""
    return _beside(function, ASIDE)


def _beside(function, kind):
    def test(begun):
        if told := begun[function.__name__].result():
            print(told)  # here, since there it would be shown with the first test that waits

    test.__name__, test.__doc__ = function.__name__, function.__doc__
    kind[function.__name__] = function
    return test


@contextlib.contextmanager
def begun_tests(names, new_folder):
    """Begin the tests of these names: name → its result."""
    with contextlib.ExitStack() as stack:
        begun = {}
        for kind, at_a_time in ((ASIDE, len(ASIDE)), (TOGETHER, AT_A_TIME)):
            pool = concurrent.futures.ThreadPoolExecutor(at_a_time or 1)
            stack.callback(pool.shutdown, cancel_futures=True)
            for name in [name for name in kind if name in names]:
                begun[name] = pool.submit(kind[name], new_folder(name[:40]))
        yield begun


@contextlib.contextmanager
def served(folder, url=None, **settings):
    """A server with a provider of its own, by default on a SQLite file of its own: yields both, and the URL of the database."""
    provider, url = Provider(), url or f"sqlite:///{folder}/parley.db"
    settings = {
        "WEB_CONCURRENCY": 2,
        "OPENAI_BASE_URL": provider.url + "/v1",
        "DEFAULT_MODEL": "m-1",
    } | settings
    try:
        with running(folder, DATABASE_URL=url, **settings) as server:
            yield server, provider, url
            assert "Traceback" not in server.output(), server.output()[-3000:]
    finally:
        provider.close()
