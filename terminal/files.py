"""`flask export` and `flask import`: a user's sessions, to and from a file."""

import contextlib
import datetime
import functools
import json
import os
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import click
from flask import current_app

import database
import limits
from database import db
from formats import archives
from formats.json_reader import BadFile
from llm import open_catalog
from logs import one_line
from models import Missing, Session
from providers.faults import ModelError
from terminal.commands import check_subject, names_advice, open_database, own_settings
from terminal.import_run import ImportRun, file_name, say
from transfer import exports
from transfer.exports import FORMAT

STANDARD_OUTPUT = "-"


class Stopped(Exception):
    """A command could not go on. The message is a clause that says why."""


@click.command("export")
@click.argument("subject", required=False)
@click.argument("file", required=False)
def export_command(subject: str | None, file: str | None) -> None:
    """Write all sessions of SUBJECT, such as https://github.com/username, into FILE, which is
    created: by default `parley-` and the day. `-` is standard output."""
    owner = checked_subject(subject)
    open_database()
    if not has_session(owner):
        raise click.ClickException(one_line(f"{owner} has no session. {names_advice()}"))
    now = datetime.datetime.now(datetime.UTC)
    path = file or f"parley-{now:%Y-%m-%d}.ndjson"
    is_output = path == STANDARD_OUTPUT
    name = "What was written" if is_output else file_name(path)
    try:
        with raising_stopped(), open_output(path) as output:
            count = write_export(output, owner, now, limits.import_size(own_settings()))
    except Stopped as reason:
        text = f"{name} is not whole: {reason}. Remove it, and export again."
        raise click.ClickException(one_line(text)) from None
    tell = functools.partial(click.echo, err=True) if is_output else say
    tell(f"{name} has {count} session{'s' * (count != 1)} of {one_line(owner)}.")


@click.command("import")
@click.argument("file", required=False)
@click.argument("subject", required=False)
def import_command(file: str | None, subject: str | None) -> None:
    """Read the conversations of FILE, and store them as sessions of SUBJECT. FILE comes from
    `export`, from ChatGPT's or Claude's data export (its ZIP, or `conversations.json`), or from
    Open WebUI's export of chats. Conversations that were imported before are left as they are."""
    if file is None:
        raise click.UsageError("Name the file, and the user.")
    owner = checked_subject(subject)
    open_database()
    settings = own_settings()
    current_app.config.update(settings)  # import_schema reads its limits there
    images = archives.Images()
    run = ImportRun(file, owner, open_catalog(settings), settings, images)
    limit = limits.import_size(settings)
    problem = import_all(run, file, limit, limits.file_line_size(settings), images)
    run.print_result(problem)
    sys.exit(bool(problem or run.refused))


def checked_subject(subject: str | None) -> str:
    """The subject. Raises ClickException if it is missing or no possible name."""
    if subject is None:
        raise click.UsageError("Name the user: https://github.com/username")
    check_subject(subject)
    return subject


@contextlib.contextmanager
def raising_stopped() -> Iterator[None]:
    """Raise Stopped instead of exceptions that are no bug."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped("it was stopped") from None
    except Missing:
        raise Stopped("a session was deleted while it was read") from None
    except ModelError as error:
        raise Stopped(str(error).rstrip(".")) from None
    except (database.Unavailable, *database.DRIVER_ERRORS) as error:
        if not isinstance(error, database.Unavailable) and not database.is_outage(error):
            raise
        raise Stopped(f"the database does not answer ({database.reason(error)})") from None


# Export


def has_session(owner: str) -> bool:
    """Whether this user has a session. Raises ClickException if the database does not answer."""
    try:
        with raising_stopped(), db.connection_context():
            is_there = Session.select().where(Session.owner == owner).exists()
            db.discard()
    except Stopped as reason:
        raise click.ClickException(one_line(f"Nothing was written: {reason}.")) from None
    return bool(is_there)


def write_export(output: BinaryIO, owner: str, now: datetime.datetime, longest: int) -> int:
    """Write all sessions of this user, and their files, between a first and a last line, by which
    an import knows that the file is complete. Returns how many sessions there are. Raises
    Missing, as `exports.lines_of`."""
    exported_at = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    output.write(line({"parley": FORMAT, "subject": owner, "exported_at": exported_at}))
    count = 0
    for part in exports.lines_of(owner, longest):
        output.write(part.data)
        count += bool(part.data) and part.ends_line
    output.write(line({"end": True, "sessions": count}))
    return count


def line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


@contextlib.contextmanager
def open_output(path: str) -> Iterator[BinaryIO]:
    """A new file that only its owner may read, which is synced to the disk at the end; or standard
    output. Raises ClickException if the file cannot be created, and Stopped if writing fails."""
    if path == STANDARD_OUTPUT and sys.stdout is None:  # Python's value for a closed one
        raise click.ClickException("Standard output is closed. Name a file.")
    descriptor = sys.stdout.fileno() if path == STANDARD_OUTPUT else create_file(path)
    try:
        with open(descriptor, "wb", closefd=path != STANDARD_OUTPUT) as output:
            yield output
            output.flush()
            if path != STANDARD_OUTPUT:  # a pipe cannot be synced
                os.fsync(descriptor)
    except OSError as error:
        raise Stopped(error.strerror or str(error)) from None


def create_file(path: str) -> int:
    """The descriptor of a new file. Raises ClickException."""
    name = file_name(path)
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise click.ClickException(f"{name} already exists. Name another file.") from None
    except OSError as error:
        raise click.ClickException(f"{name} cannot be created: {error.strerror}.") from None


# Import


def import_all(
    run: ImportRun, path: str, limit: int, file_limit: int, images: archives.Images
) -> str:
    """Import the conversations of this file. Returns a sentence if something is wrong with the
    file, or the import stopped before its end, else ""."""
    try:
        with raising_stopped():
            for read in archives.read(path, limit, file_limit, images):
                run.add(read)
            with database.connected():
                # SQLite removes its extra files (-wal, -shm) when the last connection closes.
                db.discard()
            run.check_end()
    except BadFile as error:
        return str(error)
    except Stopped as reason:
        return f"Not all of {path} was read: {reason}. Run it again for the rest."
    return ""
