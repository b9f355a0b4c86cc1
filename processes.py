"""Names of processes, stored with the replies and imports that they write, so that other processes
on the same machine can tell whether the writer is still alive."""

import functools
import os
import pathlib

# The states of a process that has ended: zombie, dead (man 5 proc_pid_stat).
ENDED_STATES = ("Z", "X")


@functools.cache
def machine() -> str | None:
    """The boot id of the kernel and the PID namespace, such as a container's: processes with the
    same value see each other under the same PIDs. None if the system does not say."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return None


@functools.cache
def _name(pid: int) -> str | None:
    """`machine/pid/start`. PIDs are reused, but not with the same start time."""
    if machine() is None:
        return None
    try:
        return f"{machine()}/{pid}/{_stat(pid)[1]}"
    except OSError:
        return None


def this_process() -> str | None:
    return _name(os.getpid())


def is_dead(name: str | None) -> bool:
    """Whether the process of this name has surely ended. We cannot tell for another machine."""
    if name is None or machine() is None or not name.startswith(f"{machine()}/"):
        return False
    _, pid, start = name.split("/")
    try:
        os.kill(int(pid), 0)
        state, started = _stat(int(pid))
    except (ProcessLookupError, FileNotFoundError):
        return True
    except OSError:  # another user's process, which this system hides
        return False
    return state in ENDED_STATES or started != start


def _stat(pid: int) -> tuple[str, str]:
    """The state of a process, and its start time in clock ticks after boot (man 5 proc_pid_stat,
    fields 3 and 22)."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], fields[19]
