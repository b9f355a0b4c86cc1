"""Who writes a reply, or an import: the name of a process, by which others on its machine know
whether it is still there."""

import functools
import os
import pathlib

# Of a process that is dead, though nobody has asked how it ended (man 5 proc_pid_stat).
ENDED = (
    "Z",
    "X",
)


@functools.cache
def machine() -> str | None:
    """What is equal for all processes that see each other by their numbers: this start of a kernel,
    and a namespace of processes, such as a container's. None where the system does not tell."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return None


@functools.cache
def _name(pid: int) -> str | None:
    """`machine/number/start`: a number is given to another process later, but not with this
    start."""
    if machine() is None:
        return None
    try:
        return f"{machine()}/{pid}/{_stat(pid)[1]}"
    except OSError:
        return None


def this_process() -> str | None:
    return _name(os.getpid())


def is_dead(name: str | None) -> bool:
    """Whether the process of this name is surely gone. One of another machine may live."""
    if name is None or machine() is None or not name.startswith(f"{machine()}/"):
        return False
    _, pid, start = name.split("/")
    try:
        os.kill(int(pid), 0)
        state, started = _stat(int(pid))
    except (ProcessLookupError, FileNotFoundError):
        return True
    except OSError:  # it is another user's, and this system shows them to nobody else
        return False
    return state in ENDED or started != start


def _stat(pid: int) -> tuple[str, str]:
    """The state of a process, and when it was started, in ticks since the machine was (man 5
    proc_pid_stat, fields 3 and 22)."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], fields[19]
