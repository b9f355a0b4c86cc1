"""What happens to the processes of a host in a soak: they are paused, die, stop and are replaced."""

import contextlib
import os
import signal
import time

import trouble
from client import wait_until
from hosts import UP
from servers import listens_to_signals

# How a host is stopped, mostly as a platform does it.
STOPS = signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT


def worker_stands(service, chance):
    host = chance.choice(service.hosts)
    pids = [chance.choice(host.server.workers())]
    return noted(service, host, trouble.stopped(pids, chance.choice([None, service.path])), False)


def host_stands(service, chance):
    host, path = chance.choice(service.hosts), chance.choice([None, service.path])
    return noted(service, host, trouble.service_stopped(host.server, path), True)


@contextlib.contextmanager
def noted(service, host, context, is_whole):
    """Note when it began, when all were stopped, and when it was over."""
    pause = [time.monotonic(), float("inf"), float("inf"), is_whole, host.url]
    service.notes.pauses.append(pause)
    with context:
        pause[1] = time.monotonic()
        yield
    pause[2] = time.monotonic()


@contextlib.contextmanager
def worker_killed(service, chance):
    """Afterwards, there is another worker in its place."""
    host = chance.choice(service.hosts)
    before = host.server.workers()
    with host.breaking():
        os.kill(chance.choice(before), signal.SIGKILL)
    yield
    wait_until(lambda: is_full(host.server) and set(host.server.workers()) != set(before))


def is_full(server):
    """Whether it has all its workers, and each would end when it is told to."""
    workers = server.workers()
    return len(workers) == server.count and all(map(listens_to_signals, workers))


@contextlib.contextmanager
def host_killed(service, chance):
    host = chance.choice(service.hosts)
    with host.away():
        host.kill()
        yield
        host.start()


@contextlib.contextmanager
def host_stopped(service, chance):
    host = chance.choice(service.hosts)
    with host.away():
        host.stop(chance.choice(STOPS))
        yield
        host.start()


@contextlib.contextmanager
def deployed(service, chance):
    """One host after the other is replaced. If there is only one, it may be started while the old
    one ends."""
    for host in chance.sample(service.hosts, len(service.hosts)):
        with host.away():
            if len(service.hosts) == 1 and chance.random() < 0.5:
                replace_at_once(host)
            else:
                host.stop()
                host.start()
    yield


def replace_at_once(host):
    old = host.server
    with host.handing_over(host.grace):
        os.kill(old.pid, signal.SIGTERM)
        host.begin()
        old.stop(host.grace + 20)  # signals once more, and closes its log
    host.server.wait_until_up(UP)


@contextlib.contextmanager
def reloaded(service, chance):
    """SIGHUP: there are new workers, and the old ones end."""
    host = chance.choice(service.hosts)
    before = set(host.server.workers())
    with host.handing_over(host.grace):
        os.kill(host.server.pid, signal.SIGHUP)
        wait_until(lambda: is_full(host.server) and not before & set(host.server.workers()))
    yield
