"""Processes of Python that are forked from one that has the libraries, and most of what is Parley's own: to load those is
most of what a start takes.

What reads the environment as it is loaded, and the code of another folder, each of them loads for itself.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import weakref

from product import ROOT

# Without gunicorn, which takes the folder where it is loaded for the one to serve from.
LIBRARIES = """
    argparse click cryptography.hazmat.primitives.asymmetric.ed25519 dotenv flask.cli gzip http.server jwt
    logging.handlers marshmallow peewee psycopg pygments.formatters pygments.lexers pygments.styles regex requests
    shlex sqlite3 tomllib uuid werkzeug.serving
""".split()

OURS = """
    api.archive api.errors api.events api.hooks api.metrics api.receive api.static_files api.usage auth llm models replies
    schemas tables.search tables.shown upkeep.deletion upkeep.migrations upkeep.retention
""".split()


class Process:
    """A process that has these words for a command line of Python, like one of `subprocess.Popen`."""

    def __init__(self, words, cwd, env, stdout, stderr, stdin=None, start_new_session=False):
        self.args, self.returncode = [sys.executable, *words], None
        self._told, told = os.pipe()
        asked = {"words": words, "cwd": str(cwd), "env": env, "leads": start_new_session}
        with open(os.devnull) as nothing, open(told, "wb"):
            streams = [stream.fileno() for stream in (stdin or nothing, stdout, stderr)]
            source = _source(*(LIBRARIES if has_code_of_its_own(cwd) else LIBRARIES + OURS))
            socket.send_fds(source, [json.dumps(asked).encode()], [*streams, told])
        (self.pid,) = struct.unpack("i", os.read(self._told, 4))
        self._lock = threading.Lock()
        weakref.finalize(self, os.close, self._told)  # two threads may wait

    def wait(self, timeout=None):
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            with self._lock:
                if self.returncode is None:
                    (self.returncode,) = struct.unpack("i", os.read(self._told, 4))
        return self.returncode

    def poll(self):
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def run(words, cwd, env, text="", timeout=60):
    """What has become of a process with these words, this text for its standard input, and nothing else."""
    with (
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        stdin.write(text.encode())
        stdin.seek(0)
        process = Process(words, cwd, env, stdout, stderr, stdin)
        try:
            process.wait(timeout)
        finally:
            process.kill()
            process.wait()
        stdout.seek(0)
        stderr.seek(0)
        written = stdout.read().decode(), stderr.read().decode()
    return subprocess.CompletedProcess(process.args, process.returncode, *written)


def has_code_of_its_own(folder):
    path = os.path.join(folder, "app.py")
    return os.path.exists(path) and not os.path.samefile(folder, ROOT)


@functools.cache
def _source(*modules):
    """The way to the process that has these."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        streams = {"stdin": theirs, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(
            [sys.executable, __file__, *modules], **streams, start_new_session=True
        )
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


# In that process


def serve(modules):
    """Load these, and fork for each that is asked for, until nobody can ask any more; returns in the forked one, with what it is to do."""
    sys.path.insert(0, str(ROOT))
    for name in modules:
        importlib.import_module(name)
    sys.path.remove(str(ROOT))
    gc.freeze()
    asking = socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGCHLD, reap)
    while True:
        data, descriptors, _, _ = socket.recv_fds(asking, 2**20, 4)
        if not data:
            os._exit(0)
        if not os.fork():
            asking.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return fork_and_tell(json.loads(data), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def fork_and_tell(asked, stdin, stdout, stderr, told):
    """Returns in the process that was asked for, with what it is to do; tells its id, and how it has ended."""
    pid = os.fork()
    streams = stdin, stdout, stderr
    if pid:
        for descriptor in (0, 1, 2, *streams):
            os.close(descriptor)
        os.write(told, struct.pack("i", pid))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(told, struct.pack("i", status))
        os._exit(0)
    os.close(told)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    return asked


def begin(words, cwd, env, leads):
    """Be what `python` with these words is."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also below a job in the background
    if leads:
        os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    open_streams(bool(env.get("PYTHONUNBUFFERED")))
    kind, *others = words
    if kind == "-m":
        sys.path[0], sys.argv[:] = cwd, others
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.path[0], sys.argv[:] = "", [kind, *others[1:]]
        exec(others[0], {"__name__": "__main__"})
    else:
        sys.path[0], sys.argv[:] = os.path.dirname(os.path.abspath(kind)), words
        runpy.run_path(kind, run_name="__main__")


def open_streams(is_unbuffered):
    """As Python does where the language is C.UTF-8, or none: what these are is not what they were before."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        errors = "backslashreplace" if name == "stderr" else "surrogateescape"
        how = {"encoding": "utf-8", "errors": errors, "newline": "\n", "closefd": False}
        stream = open(number, "w" if number else "r", **how)
        if number:
            is_shown = name == "stderr" or stream.isatty()
            stream.reconfigure(line_buffering=is_shown, write_through=is_unbuffered)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


if __name__ == "__main__":
    begin(**serve(sys.argv[1:]))
