"""What the service says about itself: one line a request and one a reply, as text or as JSON; never
content or tokens."""

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

LINES = 10_000  # that wait at most for the reader of standard error
GATHERING = 0.01  # seconds
FLUSH_TIMEOUT = 1  # seconds at the end of a process
MOST_PARTS = 5  # of a trace, each an exception
FRAMES = 30  # of each exception in a trace, the innermost
log = logging.getLogger("parley")  # of all rooms
WORD = re.compile(r"[\x21\x23-\x7e]+")  # what needs no quotes
# What a terminal obeys: all of C0 but tab and line feed, all of C1, and what turns the direction of
# text around.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    """The same on one line, which commands no terminal: a provider may have said it."""
    return re.sub("[\t\n\u2028\u2029]", " ", CONTROLS.sub(" ", text))


class TextLine(logging.Formatter):
    """`time LEVEL message name=value …`, where a value that is more than a word is quoted, on one
    line. A trace says the kinds of exceptions, and their frames: their texts may quote what a user
    or a model said."""

    converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:
        words = [one_line(super().formatMessage(record))]
        for name, value in self.fields(record).items():
            text = "-" if value is None else str(value)
            words.append(f"{name}={text if WORD.fullmatch(text) else json.dumps(text)}")
        return " ".join(words)

    def formatException(self, exc_info: Any) -> str:
        parts, error = [], exc_info[1]
        while error is not None and len(parts) < MOST_PARTS:
            frames = traceback.format_tb(error.__traceback__, -FRAMES)
            parts.insert(0, "".join([*frames, _kind_of(error)]))
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\n".join(parts)

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """What the line has besides its message; a trace has the request's id, too."""
        fields = record.args if isinstance(record.args, dict) else {}
        if record.exc_info and g:
            return fields | {"id": g.get("id")}
        return fields


def _kind_of(error: BaseException) -> str:
    """As `psycopg.errors.CheckViolation 23514`, where the database gave it the code."""
    code = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None) or ""
    return f"{type(error).__module__}.{type(error).__qualname__} {code}".rstrip()


# By this Python prints the warnings of commands, which set up nothing.
logging.lastResort.setFormatter(TextLine("%(message)s"))


class JSONLine(TextLine):
    """The same as one JSON object a line."""

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
    """Has a thread of its own write to standard error: nobody else waits for its reader. What does
    not fit is counted, and told. logging's QueueListener would be waited for at the end, however
    long."""

    def __init__(self) -> None:
        super().__init__(queue.Queue(LINES))
        self._dropped = 0
        self._thread = threading.Thread()  # not started yet

    def emit(self, record: logging.LogRecord) -> None:
        if not self._thread.is_alive():  # a thread does not live on in a process that is forked
            self.queue, self._dropped = queue.Queue(LINES), 0
            self._thread = threading.Thread(target=self._write, name="log", daemon=True)
            with contextlib.suppress(RuntimeError):
                # The system gives no more threads, and the line is lost.
                self._thread.start()
        super().emit(record)

    def prepare(self, record: logging.LogRecord) -> str:
        return self.format(record)

    def enqueue(self, line: str) -> None:
        if self._dropped and self.queue.qsize() > LINES // 2:
            self._dropped += 1
            return
        try:
            if self._dropped:
                self.queue.put_nowait(self._told_of_dropped())
                self._dropped = 0
            self.queue.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def _told_of_dropped(self) -> str:
        text = f"{self._dropped} lines of the log were dropped"
        return self.format(logging.makeLogRecord({"levelname": "WARNING", "msg": text}))

    def handleError(self, record: logging.LogRecord) -> None:
        """A line that cannot be made is lost. logging would write a trace here and now, with what
        the line was to say."""
        self._dropped += 1

    def flush(self) -> None:
        """What `logging` calls at the end of the process: wait until all is written, but not for
        long."""
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self.queue.put(None, timeout=FLUSH_TIMEOUT)
            self._thread.join(FLUSH_TIMEOUT)

    def _write(self) -> None:
        lines = self.queue
        for line in iter(lines.get, None):
            _write_to_standard_error(line)
            if lines.empty():
                time.sleep(GATHERING)  # who logs meanwhile need not wake this thread
        if self._dropped:
            _write_to_standard_error(self._told_of_dropped())


def _write_to_standard_error(line: str) -> None:
    data = f"{line}\n".encode("utf-8", "backslashreplace")
    while data:
        try:
            # Not by a file object: it would be locked while it waits, and Python's exit would wait
            # for it.
            data = data[os.write(sys.stderr.fileno(), data) :]
        except BlockingIOError:  # another process that shares it has made it so
            time.sleep(0.05)
        except (OSError, ValueError, AttributeError):  # it is full, or closed
            return


def set_up(format: str) -> None:
    """Send all lines to standard error, in this format (`text` or `json`): Parley's, its server's,
    and the libraries'."""
    text = TextLine("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    handler = Background()
    handler.setFormatter(JSONLine() if format == "json" else text)
    logging.getLogger().handlers = [handler]
    log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    threading.excepthook = lambda ended: log.error("a thread died", exc_info=ended[:3])
    # The development server's own lines show queries, which may be what a user looks for;
    # urllib3's, what a provider sent. psycopg's say of a failure that is told by its exception that
    # a pipeline has failed, too.
    for name in ("werkzeug", "urllib3", "psycopg"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # `gunicorn.conf.py` gives it no handler of its own.
    logging.getLogger("gunicorn.error").propagate = True
