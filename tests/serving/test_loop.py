"""The loop, by itself: no call that any thread adds at any moment is late, and bounds hold."""

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
from serving.connection import Connection
from serving.loop import Loop

MEGABYTE = 2**20


@pytest.fixture
def peers():
    """A function that makes a connection; the other ends are its list."""
    opened = []

    def make():
        ours, theirs = socket.socketpair()
        opened.extend([ours, theirs])
        connection = Connection(ours, "", "", MEGABYTE)
        make.others[connection] = theirs
        return connection

    make.others = {}
    yield make
    for each in opened:
        each.close()


class NoSleep:
    """A selector that does not wait. Instead of waiting, something happens, of which it must hear:
    else what was called then would be forgotten until the loop comes round by itself."""

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
        """Whether the system's selector would come back now where there is something to call."""
        return bool(self._selector.select(0)) or not self._loop._calls


def moments_of(function, then, codes):
    """Run a function, and before each line of these codes, that. Returns how many there were."""
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
    """Turns until there is nothing to call; then each of these is called while the loop waits.
    Returns those that were called."""
    called = []
    while loop._calls or loop._selector._selector.select(0):
        loop.turn()
    for connection in connections:
        loop._selector.meanwhile = functools.partial(loop.call, called.append, connection)
        for _ in range(2):
            loop.turn()
    return called


def at_each_moment(run):
    """Run this with 1, 2, 3 … up to the number of steps that it tells."""
    moment, steps = 1, 1
    while moment <= steps:
        steps = run(moment)
        moment += 1
    return steps


@pytest.mark.parametrize("is_called_before", [False, True])
def test_a_call_at_any_moment_of_a_turn_is_not_forgotten(peers, is_called_before):
    functions = Loop.turn, Loop._wake_up, Loop._try, Loop._look, NoSleep.select
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
        steps = moments_of(loop.turn, interrupt, codes)
        assert settled(loop, connection, connection) == [connection, connection]
        assert called.count("second") == 1
        assert called.count("first") == is_called_before
        return steps

    assert at_each_moment(run) >= 15


@pytest.mark.parametrize("is_called_before", [False, True])
def test_a_turn_at_any_moment_of_a_call_forgets_nothing(peers, is_called_before):
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


def test_threads_that_call_all_the_time_are_never_forgotten(peers):
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
        loop.turn()
    done.set()
    assert len(late) == 8 * 400
    # One that was forgotten would wait for half a second, until the loop comes round.
    assert sorted(late)[-8] < loop_module.TICK / 2


def test_a_fault_costs_the_connection_whose_call_it_was(peers, caplog):
    failed, called, loop = [], [], Loop(100, MEGABYTE, lambda connection: failed.append(connection))
    one, two = peers(), peers()
    loop.call(lambda connection: 1 / 0, one)
    loop.call(called.append, two)
    loop.watch(one, selectors.EVENT_READ, lambda connection: {}["not there"], 10, None)
    peers.others[one].send(b"x")
    loop.turn()
    loop.turn()
    assert failed == [one, one] and called == [two]
    assert caplog.text.count("ZeroDivisionError") == 1 and "KeyError" in caplog.text


def test_who_does_not_come_in_time_is_given_up(peers):
    given_up, came, loop = [], [], Loop(100, MEGABYTE, None)
    silent, spoken, kept, stream = peers(), peers(), peers(), peers()
    for each in (silent, spoken):
        loop.watch(
            each, selectors.EVENT_READ, came.append, 0.05, lambda *args: given_up.append(args)
        )
    loop.watch(kept, selectors.EVENT_READ, came.append, 5, None, has_right=True)
    loop.watch(stream, selectors.EVENT_READ, came.append, loop_module.ENDLESS, None)
    time.sleep(0.1)  # this process stood still, and what has come meanwhile came in time
    peers.others[spoken].send(b"x")
    loop.turn()
    loop.turn()
    assert came == [spoken] and [each for each, _ in given_up] == [silent]
    assert isinstance(given_up[0][1], RequestTimeout)


def test_of_too_many_the_first_are_given_up_who_have_no_right_to_stay(peers):
    given_up, loop = [], Loop(4, MEGABYTE, None)
    kept, crowd = peers(), [peers() for _ in range(6)]
    now = time.monotonic()
    for number, each in enumerate([kept, *crowd]):
        each.began = now - 30 + number
        has_right = each is kept
        loop.watch(
            each,
            selectors.EVENT_READ,
            None,
            50,
            lambda *args: given_up.append(args),
            has_right=has_right,
        )
    crowd[5].began = now
    loop.watch(crowd[5], selectors.EVENT_READ, None, 50, lambda *args: given_up.append(args))
    loop._next_look = 0
    loop.call(lambda connection: None, kept)
    loop.turn()
    assert [each for each, _ in given_up] == crowd[:3]
    assert all(isinstance(error, Overloaded) for _, error in given_up)


def test_who_sends_a_byte_now_and_then_was_waited_for_all_the_time(peers):
    given_up, loop = [], Loop(1, MEGABYTE, None)
    dribbler, newcomer = peers(), peers()
    dribbler.began -= 20
    for each in (newcomer, dribbler):  # it has just sent one
        loop.watch(each, selectors.EVENT_READ, None, 50, lambda *args: given_up.append(args))
    loop._next_look = 0
    loop.call(lambda connection: None, newcomer)
    loop.turn()
    assert [each for each, _ in given_up] == [dribbler]


def test_of_too_much_the_largest_is_given_up(peers):
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
    # One that has all come is preferred to those that are still to come, but not to what is small.
    loop.watch(tiny, selectors.EVENT_READ, None, 50, give_up)
    whole, other = peers(), peers()
    whole.received += b"x" * 90_000
    other.received += b"x" * 20_000
    assert loop.hold(whole)
    assert given_up == [large, small, last]
    assert not loop.hold(other)
    assert given_up == [large, small, last]
    loop.release(whole)
    loop.release(other)
    assert loop.hold(other)
