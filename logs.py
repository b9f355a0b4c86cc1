"""The log: one line per request and one per reply, as text or JSON; never content or tokens."""

import contextlib
import json
import logging
import logging.handlers
import os
import queue
import re
import sys
import threading
import time
import traceback
from typing import Any

from flask import g

QUEUE_SIZE = 10_000  # that may wait to be written
BATCH_INTERVAL = 0.01  # seconds in which lines gather before the thread wakes again
FLUSH_TIMEOUT = 1  # seconds at the end of a process
EXCEPTIONS_MAX = 5  # exceptions in a traceback
FRAMES_MAX = 30  # of each exception in a traceback, the innermost
log = logging.getLogger("parley")  # of all modules
WORD = re.compile(r"[\x21\x23-\x7e]+")  # a value that needs no quotes
# Characters that control a terminal: C0 without tab and line feed, C1, and those that change the
# direction of text.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    """The text on one line, without control characters: a provider may have sent it."""
    return re.sub("[\t\n\u2028\u2029]", " ", CONTROLS.sub(" ", text))


class TextLine(logging.Formatter):
    """`time LEVEL message name=value …` on one line; a value that is more than a word is quoted.
    Tracebacks have the classes of exceptions and their frames, but no messages, which may quote a
    user or a model."""

    converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:
        words = [one_line(super().formatMessage(record))]
        for name, value in self.fields(record).items():
            text = "-" if value is None else str(value)
            words.append(f"{name}={text if WORD.fullmatch(text) else json.dumps(text)}")
        return " ".join(words)

    def formatException(self, exc_info: Any) -> str:
        parts, error = [], exc_info[1]
        while error is not None and len(parts) < EXCEPTIONS_MAX:
            frames = traceback.format_tb(error.__traceback__, -FRAMES_MAX)
            parts.insert(0, "".join([*frames, _kind_of(error)]))
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\n".join(parts)

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """The line's fields besides its message; with a traceback, also the request's id."""
        fields = record.args if isinstance(record.args, dict) else {}
        if record.exc_info and g:
            return fields | {"id": g.get("id")}
        return fields


def _kind_of(error: BaseException) -> str:
    """The class of an exception, and the database's code if it has one, as in
    `psycopg.errors.CheckViolation 23514`."""
    code = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None) or ""
    return f"{type(error).__module__}.{type(error).__qualname__} {code}".rstrip()


# Python prints warnings with this handler in commands, which do not call `set_up`.
logging.lastResort.setFormatter(TextLine("%(message)s"))


class JSONLine(TextLine):
    """The same as one JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": round(record.created, 3),
            "level": record.levelname,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line | self.fields(record), default=str)


class Background(logging.handlers.QueueHandler):
    """Writes to standard error in a thread of its own, so that nothing else blocks if the reader of
    that is slow. Lines that do not fit the queue are dropped, and their number is logged. logging's
    QueueListener would block at the end of the process, however long."""

    def __init__(self) -> None:
        super().__init__(queue.Queue(QUEUE_SIZE))
        self._dropped = 0
        self._thread = threading.Thread()  # not started yet

    def emit(self, record: logging.LogRecord) -> None:
        if not self._thread.is_alive():  # the first line, or this process was forked
            self.queue, self._dropped = queue.Queue(QUEUE_SIZE), 0
            self._thread = threading.Thread(target=self._write, name="log", daemon=True)
            with contextlib.suppress(RuntimeError):
                # A RuntimeError: the system has no more threads, and the line is lost.
                self._thread.start()
        super().emit(record)

    def prepare(self, record: logging.LogRecord) -> str:
        return self.format(record)

    def enqueue(self, line: str) -> None:
        if self._dropped and self.queue.qsize() > QUEUE_SIZE // 2:
            self._dropped += 1
            return
        try:
            if self._dropped:
                self.queue.put_nowait(self._line_about_dropped())
                self._dropped = 0
            self.queue.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def _line_about_dropped(self) -> str:
        text = f"{self._dropped} lines of the log were dropped"
        return self.format(logging.makeLogRecord({"levelname": "WARNING", "msg": text}))

    def handleError(self, record: logging.LogRecord) -> None:
        """Count a line that cannot be formatted. logging would print a traceback, with the line's
        arguments."""
        self._dropped += 1

    def flush(self) -> None:
        """`logging` calls this at the end of the process: wait briefly until all is written."""
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self.queue.put(None, timeout=FLUSH_TIMEOUT)
            self._thread.join(FLUSH_TIMEOUT)

    def _write(self) -> None:
        lines = self.queue
        for line in iter(lines.get, None):
            _write_to_standard_error(line)
            if lines.empty():
                time.sleep(BATCH_INTERVAL)  # lines logged meanwhile need not wake this thread
        if self._dropped:
            _write_to_standard_error(self._line_about_dropped())


def _write_to_standard_error(line: str) -> None:
    data = f"{line}\n".encode("utf-8", "backslashreplace")
    while data:
        try:
            # Not `sys.stderr.write`: a file object stays locked while the write blocks, and Python
            # waits for that lock when it exits.
            data = data[os.write(sys.stderr.fileno(), data) :]
        except BlockingIOError:  # another process has made the shared file non-blocking
            time.sleep(0.05)
        except (OSError, ValueError, AttributeError):  # the disk is full, or the file closed
            return


def set_up(format: str) -> None:
    """Send all log lines to standard error, in this format (`text` or `json`): those of Parley, its
    server and the libraries."""
    text = TextLine("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    handler = Background()
    handler.setFormatter(JSONLine() if format == "json" else text)
    logging.getLogger().handlers = [handler]
    log.setLevel(logging.INFO)
    # What no line contains need not be found out
    # (docs.python.org/3/howto/logging.html#optimization).
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.logAsyncioTasks = False
    logging.captureWarnings(True)
    threading.excepthook = lambda ended: log.error("a thread died", exc_info=ended[:3])
    # werkzeug logs query strings, which may be what a user searches for; urllib3, what a provider
    # sent; psycopg, a warning about a failed pipeline in addition to its exception.
    for name in ("werkzeug", "urllib3", "psycopg"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # `gunicorn.conf.py` gives it no handler of its own.
    logging.getLogger("gunicorn.error").propagate = True
