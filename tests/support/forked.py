"""Python processes that are forked from one that has loaded the libraries and most of Parley's own
modules, since loading those takes most of a start.

Modules that read the environment when they are loaded, and code of another folder that differs, or
may be changed while it runs, are loaded by each process itself.
"""

import atexit
import filecmp
import functools
import gc
import gzip
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

from product import ROOT, files_of_the_service

# Without gunicorn: the folder in which it is loaded would be the one that it serves from.
LIBRARIES = """
    argparse click cryptography.hazmat.primitives.asymmetric.ed25519 dotenv flask.cli gzip http.server jwt
    logging.handlers marshmallow peewee psycopg pygments.formatters pygments.lexers pygments.styles regex requests
    shlex sqlite3 tomllib uuid werkzeug.serving
""".split()

OURS = """
    api.archive api.errors api.events api.hooks api.metrics api.receive api.static_files api.usage auth llm models replies
    schemas tables.search turns maintenance.deletion maintenance.migrations maintenance.retention
""".split()


class Process:
    """A process with these words as Python's command line, like one of `subprocess.Popen`.
    `is_fixed` means that the code of its folder does not change."""

    def __init__(
        self, words, cwd, env, stdout, stderr, stdin=None, start_new_session=False, is_fixed=False
    ):
        self.args, self.returncode = [sys.executable, *words], None
        self._told, told = os.pipe()
        asked = {"words": words, "cwd": str(cwd), "env": env, "leads": start_new_session}
        with open(os.devnull) as nothing, open(told, "wb"):
            streams = [stream.fileno() for stream in (stdin or nothing, stdout, stderr)]
            is_ours = not has_code_of_its_own(cwd) or (is_fixed and has_the_same_code(cwd))
            source = _source(*(LIBRARIES + OURS if is_ours else LIBRARIES))
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
    """The result of a process with these words, this text as its standard input, and nothing else."""
    with (
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        stdin.write(text.encode())
        stdin.seek(0)
        process = Process(words, cwd, env, stdout, stderr, stdin, is_fixed=True)
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


def has_the_same_code(folder):
    return all(
        os.path.exists(os.path.join(folder, name))
        and filecmp.cmp(os.path.join(folder, name), ROOT / name)
        for name in files_of_the_service()
    )


@functools.cache
def _source(*modules):
    """The socket of the process that has loaded these modules."""
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
    """Load these modules, and fork for each request, until no more can come. Returns in the forked
    process, with what it is to do."""
    sys.path.insert(0, str(ROOT))
    for name in modules:
        importlib.import_module(name)
    sys.path.remove(str(ROOT))
    if (
        "api.static_files" in modules
    ):  # the files of the page are compressed here once, not in each process
        gzip.compress = functools.cache(gzip.compress)
        sys.modules["api.static_files"].StaticFiles(str(ROOT / "static"))
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
    """Returns in the new process, with what it is to do; sends the process's id, and how it has
    ended."""
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
    """Become what `python` with these words is."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also in a background job
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
    """As Python opens them if the language is C.UTF-8, or none. These are not the files that the
    process had at its start."""
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
