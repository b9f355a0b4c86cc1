"""One kill: a program is started, killed in the middle of a reply, and started again, while its
reader reads.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import NamedTuple

from stub import Stub
from words import Counted, count, numbers_in

KILLED_AFTER = 15  # words that the model has said
PATIENCE = 120  # seconds for a whole run
LOOK = 0.01  # seconds between two looks at what has come


class Seen(NamedTuple):
    """What one kill showed."""

    counted: Counted  # the words in the reader's text, in the end
    seconds: float  # from the kill to the next word that is new to the reader
    sent: int  # how many words of the reply the second call's prompt had


def kill_once(make):
    """Run the program that `make(folder, model_url)` returns; returns its name, and what was seen."""
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stub = stack.enter_context(Stub())
        log = stack.enter_context(open(folder / "log", "w+b"))
        program = make(folder, stub.url)
        deadline = time.monotonic() + PATIENCE

        def start(command, **options):
            process = subprocess.Popen(
                command,
                cwd=program.folder,
                env=environment(program.settings),
                stderr=log,
                start_new_session=True,
                **options,
            )
            stack.callback(kill, process)
            return process

        def wait_until(is_so):
            while not is_so():
                if time.monotonic() > deadline:
                    log.seek(0)
                    sys.exit(f"{program.name} did not finish:\n{log.read().decode()[-3000:]}")
                time.sleep(LOOK)

        server = start(program.start, stdout=log)
        wait_until(lambda: listens(program.port) if program.port else stub.calls)
        reader = start(program.reader, stdout=subprocess.PIPE)
        texts = []  # the reader's, each with the time when it came
        reading = threading.Thread(target=collect, args=(reader.stdout, texts))
        reading.start()
        wait_until(lambda: texts and stub.calls[0].said >= KILLED_AFTER)
        kill(server)
        killed = time.monotonic()
        start(program.restart, stdout=log)
        wait_until(lambda: not reading.is_alive())
        return program.name, what_was_seen(stub.calls, texts, killed)


def environment(settings):
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    return kept | {"PATH": path} | settings


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def kill(process):
    """kill -9 of the program and all its processes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def collect(lines, texts):
    with lines:
        for line in lines:
            texts.append((time.monotonic(), json.loads(line)))


def what_was_seen(calls, texts, killed):
    """What the first call had said is not new, even if it reaches the reader only after the kill."""
    _, second = calls
    old = {number for at, text in texts if at < second.at for number in numbers_in(text)}
    old.update(second.sent)
    new = next(at for at, text in texts if not old.issuperset(numbers_in(text)))
    return Seen(count(texts[-1][1]), new - killed, len(set(second.sent)))
