"""`flask export` and `flask import`: what a user has, as a file, and back; or everything that all
have."""

import contextlib
import datetime
import functools
import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import click
from flask import current_app

import database
import limits
from database import db
from llm import open_catalog
from logs import one_line
from models import Missing, Session
from providers.faults import ModelError
from terminal.commands import all_names, check_subject, open_database, own_settings
from terminal.taking import Taking, file_name, say
from upkeep import archives, exports, moving
from upkeep.everything import FORMAT
from upkeep.migrations import MIGRATIONS
from upkeep.values import BadFile

STANDARD_OUTPUT = "-"


class Stopped(Exception):
    """Why a command could not go on. The text is a clause."""


@click.command("export")
@click.argument("subject", required=False)
@click.argument("file", required=False)
@click.option("--all", "everything", metavar="FILE", help="Write everything of all users there.")
def export_command(subject: str | None, file: str | None, everything: str | None) -> None:
    """Write all sessions of SUBJECT, such as https://github.com/username, into FILE, which is made:
    by default `parley-` and the day. `-` is standard output."""
    if everything is not None:
        _refuse_beside_all(subject, file)
        return export_everything(everything)
    owner = named(subject)
    open_database()
    if not has_session(owner):
        raise click.ClickException(one_line(f"{owner} has no session. {all_names()}"))
    now = datetime.datetime.now(datetime.UTC)
    path = file or f"parley-{now:%Y-%m-%d}.ndjson"
    is_output = path == STANDARD_OUTPUT
    name = "What was written" if is_output else file_name(path)
    try:
        with reasons(), opened(path) as output:
            count = write_export(output, owner, now, limits.import_size(own_settings()))
    except Stopped as reason:
        text = f"{name} is not whole: {reason}. Remove it, and export again."
        raise click.ClickException(one_line(text)) from None
    tell = functools.partial(click.echo, err=True) if is_output else say
    tell(f"{name} has {count} session{'s' * (count != 1)} of {one_line(owner)}.")


@click.command("import")
@click.argument("file", required=False)
@click.argument("subject", required=False)
@click.option("--all", "everything", metavar="FILE", help="Read everything of all users from it.")
def import_command(file: str | None, subject: str | None, everything: str | None) -> None:
    """Read the conversations of FILE, and store them as sessions of SUBJECT. FILE is what `export`
    wrote, or the data export of ChatGPT or Claude: its ZIP, or `conversations.json`. What was
    imported before is left as it is."""
    if everything is not None:
        _refuse_beside_all(file, subject)
        return import_everything(everything)
    if file is None:
        raise click.UsageError("Name the file, and the user.")
    owner = named(subject)
    open_database()
    settings = own_settings()
    current_app.config.update(settings)  # import_schema finds its bounds there
    taking = Taking(file, owner, open_catalog(settings), settings["STORAGE_LIMIT"])
    problem = take_all(taking, file, limits.import_size(settings))
    taking.tell(problem)
    sys.exit(bool(problem or taking.refused))


def named(subject: str | None) -> str:
    """The user of this name. Raises ClickException where it names nobody."""
    if subject is None:
        raise click.UsageError("Name the user: https://github.com/username")
    check_subject(subject)
    return subject


def _refuse_beside_all(*others: str | None) -> None:
    if any(other is not None for other in others):
        raise click.UsageError("--all takes its file only, and everything of all users.")


@contextlib.contextmanager
def reasons() -> Iterator[None]:
    """Raise Stopped for what ends a command that was well."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped("it was stopped") from None
    except Missing:
        raise Stopped("a session was deleted meanwhile") from None
    except ModelError as error:
        raise Stopped(str(error).rstrip(".")) from None
    except (database.Unavailable, *database.DRIVER_ERRORS) as error:
        if not isinstance(error, database.Unavailable) and not database.is_outage(error):
            raise
        raise Stopped(f"the database does not answer ({database.reason(error)})") from None


# Export


def has_session(owner: str) -> bool:
    """Raises ClickException where the database does not tell."""
    try:
        with reasons(), db.connection_context():
            is_there = Session.select().where(Session.owner == owner).exists()
            db.discard()
    except Stopped as reason:
        raise click.ClickException(one_line(f"Nothing was written: {reason}.")) from None
    return bool(is_there)


def write_export(output: BinaryIO, owner: str, now: datetime.datetime, longest: int) -> int:
    """Write what this user has, between the lines that make it whole, as `exports.lines_of`;
    returns how many sessions there are."""
    exported_at = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    output.write(line({"parley": FORMAT, "subject": owner, "exported_at": exported_at}))
    count = 0
    for piece in exports.lines_of(owner, longest):
        output.write(piece)
        count += piece.count(b"\n")
    output.write(line({"end": True, "sessions": count}))
    return count


def line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """A new file that only its owner may read, and that is on the disk behind this; or standard
    output. Raises ClickException where it cannot be made, and Stopped where it takes no more."""
    if path == STANDARD_OUTPUT and sys.stdout is None:  # as Python has it where that is closed
        raise click.ClickException("Standard output is closed. Name a file.")
    descriptor = sys.stdout.fileno() if path == STANDARD_OUTPUT else make(path)
    try:
        with open(descriptor, "wb", closefd=path != STANDARD_OUTPUT) as output:
            yield output
            output.flush()
            if path != STANDARD_OUTPUT:  # which may be a pipe
                os.fsync(descriptor)
    except OSError as error:
        raise Stopped(error.strerror or str(error)) from None


def make(path: str) -> int:
    """The descriptor of a new file. Raises ClickException."""
    name = file_name(path)
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise click.ClickException(f"{name} is there already. Name another file.") from None
    except OSError as error:
        raise click.ClickException(f"{name} cannot be made: {error.strerror}.") from None


# Import


def take_all(taking: Taking, path: str, limit: int) -> str:
    """Import what this file has. Returns a sentence where that ended before the file's end, or the
    file is not right; else nothing."""
    try:
        with reasons():
            for read in archives.read(path, limit):
                taking.take(read)
            with database.connected():
                db.discard()  # on SQLite, the last who closes it leaves no files beside it
            taking.end()
    except BadFile as error:
        return str(error)
    except Stopped as reason:
        return f"Not all of {path} was read: {reason}. Run it again for the rest."
    return ""


# Everything


def export_everything(path: str) -> None:
    if path == STANDARD_OUTPUT:
        raise click.UsageError(
            "--all writes a file, since half of one must not be taken for whole."
        )
    open_database()
    with moved_or_told():
        moved = moving.write_everything(path)
    say(f"{file_name(path)} has everything: {moved}.")


def import_everything(path: str) -> None:
    database.open_database(own_settings(), current_app.instance_path, MIGRATIONS, may_be_half=True)
    with moved_or_told():
        moved = moving.read_everything(path)
    say(f"Everything is there: {moved}.")


@contextlib.contextmanager
def moved_or_told() -> Iterator[None]:
    """Tell why everything was not moved. SIGTERM ends it as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except moving.NotMoved as error:
        raise click.ClickException(one_line(str(error))) from None
