"""`flask move`, run on databases, and their contents before and afterwards."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys

import commands
from client import wait_until
from everything import rows_of
from ledgers import APP
from raw_tables import tables_of

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
UNDO = "`.venv/bin/flask move --undo`"
MOVED = f"everything in it was moved to another database at TIME; name that one, or run {UNDO} to use this one again"
BEGUN = (
    "everything in it is being moved to another database; if that was cut off, run "
    f"`.venv/bin/flask move URL` again, or {UNDO} to use this one"
)
IN_USE = "Error: The database is in use. Stop the service first."


def flask(folder, url, *words):
    return commands.flask(folder, "--app", APP, *words, DATABASE_URL=url)


def move(folder, source, target):
    ended = flask(folder, source, "move", target)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def refused(folder, url, *words):
    """The output of a command that fails: one line."""
    ended = flask(folder, url, *words)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.splitlines()) == 1 and "hush" not in ended.stderr
    return re.sub(TIME, "TIME", ended.stderr.strip())


# What is in them


def rows_at(url):
    with tables_of(url) as tables:
        return rows_of(tables)


def is_empty(url):
    rows = rows_at(url)
    return not any(rows[table] for table in rows if table != "release")


def assert_equal(found, expected):
    """Compare by tables and rows, some of which are long; but for what a database says of itself."""
    assert found.keys() == expected.keys()
    for name in expected.keys() - {"release"}:
        missing = [row for row in expected[name] if row not in found[name]]
        added = [row for row in found[name] if row not in expected[name]]
        assert not missing and not added, (name, _shortened(missing), _shortened(added))
    assert found["release"][0]["secret"] == expected["release"][0]["secret"]


def _shortened(rows):
    return [{name: str(value)[:60] for name, value in row.items()} for row in rows[:5]]


# Half of a move


def lengthened(url, session):
    """Give this session 3,000 turns of 5 kB; returns all rows of the database."""
    with tables_of(url) as tables:
        key = tables.key_of(session)
        columns = "id session_id kind content created_at shown cancelled folded".split()
        rows = (
            (number, key, "user", text, number, True, False, text)
            for number in range(1, 3001)
            for text in [f"{number} " * 1000]
        )
        tables.fill("turn", columns, rows)
    return rows_at(url)


@contextlib.contextmanager
def half_way(folder, source, target):
    """The process of a move, paused while it writes."""
    command = [sys.executable, "-m", "flask", "--app", APP, "move", target]
    options = {
        "cwd": folder,
        "env": {"PATH": os.environ["PATH"], "DATABASE_URL": source},
        # As in a terminal, and not as in a background job.
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    with subprocess.Popen(command, **options) as process:
        try:
            wait_until(lambda: _written(target) > 1_000_000)
            process.send_signal(signal.SIGSTOP)
            yield process
        finally:
            process.kill()


def _written(url):
    """About how many bytes a move has written by now."""
    if url.startswith("sqlite"):
        log = pathlib.Path(url.removeprefix("sqlite:///") + "-wal")
        return log.stat().st_size if log.exists() else 0
    with tables_of(url) as tables:
        progress = "SELECT coalesce(sum(bytes_processed), 0) FROM pg_stat_progress_copy"
        return tables.value(f"{progress} WHERE datname = current_database()")


def end_of(process):
    """Let it continue; returns its exit status and its output."""
    process.send_signal(signal.SIGCONT)
    output, error = process.communicate(timeout=60)
    return process.returncode, output + error
