"""The loop by itself: a call that a thread adds at any moment is never late, and limits hold."""

import functools
import selectors
import socket
import sys
import threading
import time

import pytest
from werkzeug.exceptions import RequestTimeout

from limits import Overloaded
from serving import loop as loop_module
from serving.connection import ClientConnection
from serving.loop import Loop

MEGABYTE = 2**20


@pytest.fixture
def peers():
    """A function that makes a connection; `others` has the other end of each."""
    opened = []

    def make():
        ours, theirs = socket.socketpair()
        opened.extend([ours, theirs])
        connection = ClientConnection(ours, "", "", MEGABYTE)
        make.others[connection] = theirs
        return connection

    make.others = {}
    yield make
    for each in opened:
        each.close()


class NoSleep:
    """A selector that does not wait. Instead, something happens that must wake it up: otherwise
    the call would be forgotten until the loop's next regular turn."""

    def __init__(self, loop):
        self._loop, self._selector, self.meanwhile = loop, loop._selector, lambda: None
        loop._selector = self

    def __getattr__(self, name):
        return getattr(self._selector, name)

    def select(self, seconds):
        ready = self._selector.select(0)
        return ready or self.wait(seconds)

    def wait(self, seconds):
        if not seconds:
            return []
        self.meanwhile()
        self.meanwhile = lambda: None
        assert self.hears(), "a call is forgotten until the loop comes round by itself"
        return self._selector.select(0)

    def hears(self):
        """Whether the system's selector would return now, if there is something to call."""
        return bool(self._selector.select(0)) or not self._loop._callbacks


def moments_of(function, then, codes):
    """Run a function, with `then` before each line of these codes. Returns the number of lines."""
    count = 0

    def step(frame, event, argument):
        nonlocal count
        if event == "line":
            count += 1
            then(count)
        return step

    def enter(frame, event, argument):
        return step if frame.f_code in codes else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


def settled(loop, *connections):
    """Run the loop until there is nothing to call; then call each of these while the loop waits.
    Returns those that were called."""
    called = []
    while loop._callbacks or loop._selector._selector.select(0):
        loop.run_once()
    for connection in connections:
        loop._selector.meanwhile = functools.partial(loop.call, called.append, connection)
        for _ in range(2):
            loop.run_once()
    return called


def at_each_moment(run):
    """Run this with 1, 2, 3 … up to the number of steps that it returns."""
    moment, steps = 1, 1
    while moment <= steps:
        steps = run(moment)
        moment += 1
    return steps


@pytest.mark.parametrize("is_called_before", [False, True])
def test_a_call_added_at_any_moment_of_a_turn_is_not_forgotten(peers, is_called_before):
    functions = Loop.run_once, Loop._wake_up, Loop._run_callback, Loop._check_waits, NoSleep.select
    codes = {each.__code__ for each in functions}
    connection = peers()

    def run(moment):
        called, loop = [], Loop(100, MEGABYTE, None)
        NoSleep(loop)

        def second(connection):
            called.append("second")

        def interrupt(step):
            if step == moment:
                loop.call(second, connection)

        if is_called_before:
            loop.call(lambda connection: called.append("first"), connection)
        steps = moments_of(loop.run_once, interrupt, codes)
        assert settled(loop, connection, connection) == [connection, connection]
        assert called.count("second") == 1
        assert called.count("first") == is_called_before
        return steps

    assert at_each_moment(run) >= 15


@pytest.mark.parametrize("is_called_before", [False, True])
def test_a_turn_at_any_moment_of_adding_a_call_forgets_nothing(peers, is_called_before):
    one, other = peers(), peers()

    def run(moment):
        called, loop = [], Loop(100, MEGABYTE, None)
        selector = NoSleep(loop)
        if is_called_before:
            loop.call(called.append, other)

        def interrupt(step):
            if step == moment:
                settled(loop)

        steps = moments_of(lambda: loop.call(called.append, one), interrupt, {Loop.call.__code__})
        assert selector.hears()
        assert settled(loop, one) == [one]
        assert called.count(one) == 1 and called.count(other) == is_called_before
        return steps

    assert at_each_moment(run) >= (2 if is_called_before else 5)


def test_calls_of_busy_threads_are_never_forgotten(peers):
    loop, connections = Loop(100, MEGABYTE, None), [peers() for _ in range(8)]
    late, done = [], threading.Event()

    def called(connection):
        late.append(time.monotonic() - connection.asked)
        connection.answered.set()

    def ask(connection):
        for _ in range(400):
            connection.answered = threading.Event()
            connection.asked = time.monotonic()
            loop.call(called, connection)
            assert connection.answered.wait(loop_module.TICK * 20)

    threads = [threading.Thread(target=ask, args=(each,)) for each in connections]
    [each.start() for each in threads]
    while any(each.is_alive() for each in threads):
        loop.run_once()
    done.set()
    assert len(late) == 8 * 400
    # A forgotten call would wait half a second for the loop's next regular turn.
    assert sorted(late)[-8] < loop_module.TICK / 2


def test_a_fault_closes_only_the_connection_of_that_call(peers, caplog):
    failed, called, loop = [], [], Loop(100, MEGABYTE, lambda connection: failed.append(connection))
    one, two = peers(), peers()
    loop.call(lambda connection: 1 / 0, one)
    loop.call(called.append, two)
    loop.watch(one, selectors.EVENT_READ, lambda connection: {}["not there"], 10, None)
    peers.others[one].send(b"x")
    loop.run_once()
    loop.run_once()
    assert failed == [one, one] and called == [two]
    assert caplog.text.count("ZeroDivisionError") == 1 and "KeyError" in caplog.text


def test_a_connection_that_times_out_is_dropped(peers):
    given_up, came, loop = [], [], Loop(100, MEGABYTE, None)
    silent, spoken, kept, stream = peers(), peers(), peers(), peers()
    for each in (silent, spoken):
        loop.watch(
            each, selectors.EVENT_READ, came.append, 0.05, lambda *args: given_up.append(args)
        )
    loop.watch(kept, selectors.EVENT_READ, came.append, 5, None, is_protected=True)
    loop.watch(stream, selectors.EVENT_READ, came.append, loop_module.ENDLESS, None)
    time.sleep(0.1)  # as if the process had been stopped: data that arrived meanwhile is in time
    peers.others[spoken].send(b"x")
    loop.run_once()
    loop.run_once()
    assert came == [spoken] and [each for each, _ in given_up] == [silent]
    assert isinstance(given_up[0][1], RequestTimeout)


def test_of_too_many_connections_the_oldest_unprotected_ones_are_dropped(peers):
    given_up, loop = [], Loop(4, MEGABYTE, None)
    kept, crowd = peers(), [peers() for _ in range(6)]
    now = time.monotonic()
    for number, each in enumerate([kept, *crowd]):
        each.first_byte_at = now - 30 + number
        is_protected = each is kept
        loop.watch(
            each,
            selectors.EVENT_READ,
            None,
            50,
            lambda *args: given_up.append(args),
            is_protected=is_protected,
        )
    crowd[5].first_byte_at = now
    loop.watch(crowd[5], selectors.EVENT_READ, None, 50, lambda *args: given_up.append(args))
    loop._next_look = 0
    loop.call(lambda connection: None, kept)
    loop.run_once()
    assert [each for each, _ in given_up] == crowd[:3]
    assert all(isinstance(error, Overloaded) for _, error in given_up)


def test_a_client_that_drips_bytes_counts_as_waited_for_since_its_first(peers):
    given_up, loop = [], Loop(1, MEGABYTE, None)
    dribbler, newcomer = peers(), peers()
    dribbler.first_byte_at -= 20
    for each in (newcomer, dribbler):  # the dribbler has just sent a byte
        loop.watch(each, selectors.EVENT_READ, None, 50, lambda *args: given_up.append(args))
    loop._next_look = 0
    loop.call(lambda connection: None, newcomer)
    loop.run_once()
    assert [each for each, _ in given_up] == [dribbler]


def test_the_largest_connection_is_dropped_if_memory_runs_out(peers):
    given_up, loop = [], Loop(100, 100_000, None)
    small, large, last, tiny = peers(), peers(), peers(), peers()
    small.received += b"x" * 30_000
    large.unsent += b"x" * 50_000
    last.received += b"x" * 25_000

    def give_up(connection, error):
        given_up.append(connection)
        assert isinstance(error, Overloaded)

    loop.watch(small, selectors.EVENT_READ, None, 50, give_up)
    loop.watch(large, selectors.EVENT_WRITE, None, 50, give_up, is_counted=False)
    assert not given_up
    loop.watch(last, selectors.EVENT_READ, None, 50, give_up)
    assert given_up == [large]
    loop.unwatch(last)
    loop.watch(last, selectors.EVENT_READ, None, 50, give_up)
    assert given_up == [large]
    # A complete request is preferred to incomplete ones, but not to a tiny one.
    loop.watch(tiny, selectors.EVENT_READ, None, 50, give_up)
    whole, other = peers(), peers()
    whole.received += b"x" * 90_000
    other.received += b"x" * 20_000
    assert loop.reserve_memory(whole)
    assert given_up == [large, small, last]
    assert not loop.reserve_memory(other)
    assert given_up == [large, small, last]
    loop.release_memory(whole)
    loop.release_memory(other)
    assert loop.reserve_memory(other)
