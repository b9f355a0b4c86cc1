"""What a soak may need of the machine, and what the machine lacks."""

import contextlib
import functools
import os
import pathlib
import subprocess
import tempfile

import pytest

import trouble
from client import wait_until
from cluster import find_binaries

SQLITE, POSTGRESQL = ENGINES = "sqlite", "postgresql"
CLOCK, DISK = "a clock of its own", "a small disk"
STANDBY, STRACE = "a standby", "strace"
# Starts a program as a container does: it sees only its own processes.
APART = "unshare --pid --fork --mount-proc "


def lacks_disk():
    mount = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", tempfile.gettempdir()]
    is_had = os.getuid() == 0 and not subprocess.run(mount, capture_output=True).returncode
    return None if is_had else "only root mounts a small file system, where that is allowed"


def lacks_clock():
    return None if trouble.find_libfaketime() else "libfaketime is not installed"


def lacks_postgresql():
    try:
        find_binaries()
    except pytest.skip.Exception as problem:
        return str(problem)


@functools.cache
def lacks_strace():
    """We try strace on a process, since a system may not allow attaching to others."""
    with contextlib.ExitStack() as stack:
        asleep = stack.enter_context(subprocess.Popen(["sleep", "60"]))
        stack.callback(asleep.kill)
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(asleep.pid)]
        try:
            tracer = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        except FileNotFoundError:
            return "strace is not installed"
        stack.callback(tracer.kill)
        wait_until(lambda: tracer.poll() is not None or is_traced(asleep.pid))
        return "strace may not attach to processes" if tracer.poll() is not None else None


def is_traced(pid):
    """Whether each thread of a process is traced; one that is gone counts as traced."""
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if "TracerPid:\t0\n" in path.read_text():
                return False
    return True


@functools.cache
def lacks_namespaces():
    try:
        is_had = not subprocess.run([*APART.split(), "true"], capture_output=True).returncode
    except FileNotFoundError:
        is_had = False
    return None if is_had else "only root makes namespaces of processes, where that is allowed"


# What a soak may need → a function that says what is missing, or None.
NEEDS = {
    SQLITE: lambda: None,
    POSTGRESQL: lacks_postgresql,
    CLOCK: lacks_clock,
    DISK: lacks_disk,
    STANDBY: lacks_postgresql,
    STRACE: lacks_strace,
}
