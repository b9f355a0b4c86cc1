"""A disk that takes seconds to confirm what is written to it."""

import contextlib
import signal
import subprocess
import time

import trouble
from client import wait_until
from needs import is_traced

CALLS = "fsync,fdatasync"
MOST = 4  # seconds that each such call of a program takes, at most
# Calls in a commit of SQLite, at most: the log, and both files if it writes the log back.
OF_A_COMMIT = 3


@contextlib.contextmanager
def disk_stalls(service, chance):
    """The disk with the database: for the service on SQLite, and else for PostgreSQL."""
    seconds = chance.uniform(0.2, MOST)
    log = service.folder / "strace"
    stall = [time.monotonic(), float("inf"), OF_A_COMMIT * seconds * bool(service.path)]
    service.notes.stalls.append(stall)
    with stalled(lambda: pids_of(service), seconds, log):
        yield
    stall[1] = time.monotonic()
    count = log.read_text().count("(DELAYED)")
    service.notes.figures["calls that the disk held up"] += count
    service.notes.figures["seconds of these"] += round(count * seconds)


def pids_of(service):
    """The processes that write to the database."""
    if service.path:
        return [pid for server in service.servers for pid in trouble.pids_of(server)]
    return service.cluster.pids()


@contextlib.contextmanager
def stalled(find_pids, seconds, log):
    """Each call of these processes, and of those that they start, takes so long. A call that is in
    progress when this is over continues at once, and no process stays stopped."""
    pids = find_pids()
    command = ["strace", "-f", "-qq", "-o", log, "-e", f"trace={CALLS}"]
    command += ["-e", f"inject={CALLS}:delay_enter={round(seconds * 1e6)}"]
    command += [part for pid in pids for part in ("-p", str(pid))]
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: all(map(is_traced, pids)))
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        try:
            tracer.wait(10)
        except subprocess.TimeoutExpired:  # the traced process continues without it
            tracer.kill()
            tracer.wait()
        trouble.send_all(find_pids(), signal.SIGCONT)
