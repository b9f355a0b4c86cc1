"""Opening the database of the settings, and bringing it to this release."""

import contextlib
import os
import pathlib
import re
import secrets
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from peewee import BigIntegerField, IntegerField, TextField

from database.connection import Pool, db
from database.deadline import shorter_deadline
from database.failures import DRIVER_ERRORS, Unavailable, reason, sqlstate_of
from database.sqlite import SQLite
from settings import SettingError, command, ensure_folder, home, whose

MIGRATION_TIMEOUT = 45  # seconds that a start waits for the locks that it needs
RETRY_INTERVAL = 0.5  # seconds between two tries, for the statements that queued after the last one
# PostgreSQL's SQLSTATEs: lock_not_available, deadlock_detected.
IN_USE = ("55P03", "40P01")
BEGUN, MOVED = "begun", "moved"  # what `SchemaVersion.moving` begins with

_MISTAKES = tomllib.loads(pathlib.Path(__file__).with_name("mistakes.toml").read_text("utf-8"))


class SchemaVersion(db.Model):  # type: ignore[name-defined]
    """The only row has the database's state: how many migrations were applied; the secret of its
    digests; what `maintenance/retention.py` remembers; and whether everything is being moved to
    another database ("begun" and a time) or was ("moved" and a time), see `transfer/move.py`."""

    migrations = IntegerField()
    secret = TextField(null=True)
    retention_days = IntegerField(null=True)
    retention_since = BigIntegerField(null=True)
    most_due_since = BigIntegerField(null=True)
    watched_at = BigIntegerField(null=True)
    moving = TextField(null=True)

    class Meta:
        table_name = "release"


def url_of(settings: Mapping[str, Any], folder: str) -> str:
    """The URL of the database of these settings, by default of a file in the folder. For the
    installed command, which may be run anywhere, relative paths start in the folder, too."""
    url = settings["DATABASE_URL"] or f"sqlite:///{folder}/parley.db"
    kind, _, path = url.partition(":///")
    return f"sqlite:///{os.path.join(folder, path)}" if home() and kind == "sqlite" else url


def open_database(
    settings: Mapping[str, Any],
    folder: str,
    migrations: Sequence[Callable[[], None]],
    may_be_moved: bool = False,
) -> None:
    """Open the database of these settings for all models, and migrate it. Raises SettingError; also
    if everything in it was moved to another database, unless it `may_be_moved`. If it is moved
    later, each new connection raises Unavailable."""
    url = url_of(settings, folder)
    try:
        if not settings["DATABASE_URL"]:
            ensure_folder(folder, "DATABASE_URL")
        engine: type[Pool] = SQLite
        options: dict[str, Any] = {"database": url.removeprefix("sqlite:///")}
        if os.path.isdir(options["database"]):
            path = f"{options['database'].rstrip('/')}/parley.db"
            raise SettingError("DATABASE_URL", f"this is a folder; name a file: sqlite:///{path}")
        if not url.startswith("sqlite"):
            # Imported only if needed: the driver takes 8 MB, and 0.1 s.
            from database import postgresql

            engine, options = postgresql.PostgreSQL, postgresql.parse(url)
        db.initialize(engine(**engine.options | options))
        _migrate(migrations, may_be_moved)
        if not may_be_moved:
            db.obj.check_new = _refuse_moved
    except (Unavailable, *DRIVER_ERRORS, OSError) as error:
        problem = _advice_for(reason(error), options["database"])
        raise SettingError("DATABASE_URL", problem) from None


def _advice_for(said: str, path: str) -> str:
    """The advice in `mistakes.toml` for a driver's message about the database at this path."""
    for pattern, sentence in _MISTAKES["opening"]:
        if match := re.search(pattern, said):
            return str(sentence.format(*match.groups(), path=path, whose=whose(path)))
    return said


def _migrate(migrations: Sequence[Callable[[], None]], may_be_moved: bool) -> None:
    """`_try_to_migrate`, again and again while others use the tables. Raises SettingError if they
    never stop."""
    until = time.monotonic() + MIGRATION_TIMEOUT
    while True:
        try:
            return _try_to_migrate(migrations, may_be_moved)
        except Unavailable as error:
            is_in_use = sqlstate_of(error.__cause__) in IN_USE
            if not is_in_use and not db.give_up_reserve():
                raise
        if time.monotonic() >= until:
            problem = (
                "it is to be migrated, but something reads it all the time, such as pg_dump; "
                "start again when that has ended"
            )
            raise SettingError("DATABASE_URL", problem)
        time.sleep(RETRY_INTERVAL)


def _try_to_migrate(migrations: Sequence[Callable[[], None]], may_be_moved: bool) -> None:
    """Apply the missing migrations, once even if several processes start together. Raises
    SettingError if that is impossible."""
    with db.connection_context(), contextlib.ExitStack() as transaction:
        with shorter_deadline(MIGRATION_TIMEOUT):  # a migration itself may take longer
            transaction.enter_context(db.write())
        _check_encoding()
        db.lock("parley migrations")
        db.create_tables([SchemaVersion])
        known = SchemaVersion.id, SchemaVersion.migrations  # every release has these columns
        version = SchemaVersion.select(*known).first() or SchemaVersion(migrations=0)
        if version.migrations > len(migrations):
            problem = "it belongs to a newer release of Parley, or to none; start what made it"
            raise SettingError("DATABASE_URL", problem)
        for step in migrations[version.migrations :]:
            step()
        _check_columns()
        if not may_be_moved and (sentence := _problem_if_moved(db.connection())):
            raise SettingError("DATABASE_URL", sentence)
        version.migrations = len(migrations)
        version.save()
        without_one = SchemaVersion.secret.is_null()
        SchemaVersion.update(secret=secrets.token_hex()).where(without_one).execute()
        db.discard()  # a forked process must not share it


def _check_columns() -> None:
    """Raises SettingError if a column is missing: an unreleased version of Parley, between two
    releases, made the database."""
    for model in db.Model.__subclasses__():
        try:
            model.select().limit(0).execute()
        except DRIVER_ERRORS as error:
            if not _is_undefined(error):
                raise
            problem = "a state of Parley made it that was never released; start with a new one"
            raise SettingError("DATABASE_URL", problem) from None


def _refuse_moved(connection: Any) -> None:
    """Raises Unavailable if everything was moved to another database. A process may open its next
    connection days after that, and nobody would ever see what it writes."""
    if sentence := _problem_if_moved(connection):
        raise Unavailable(sentence)


def _problem_if_moved(connection: Any) -> str:
    """A sentence if everything in this database was moved to another one, or is being moved; else
    an empty text."""
    row = connection.execute("SELECT moving FROM release").fetchone()
    if row is None or row[0] is None:
        return ""
    state, _, at = row[0].partition(" ")
    if state == MOVED:
        return (
            f"everything in it was moved to another database at {at}; name that one, or run "
            f"`{command()} move --undo` to use this one again"
        )
    return (
        "everything in it is being moved to another database; if that was cut off, run "
        f"`{command()} move URL` again, or `{command()} move --undo` to use this one"
    )


def _is_undefined(error: BaseException) -> bool:
    """Whether the database has no such table, or no such column."""
    # PostgreSQL's undefined_table and undefined_column; SQLite has no code for these.
    code, cause = sqlstate_of(error), getattr(error, "orig", error)
    return code in ("42P01", "42703") or (code is None and str(cause).startswith("no such "))


def _check_encoding() -> None:
    if isinstance(db.obj, SQLite):
        return
    (encoding,) = db.execute_sql("SHOW server_encoding").fetchone()
    if encoding != "UTF8":
        problem = "the encoding of this database is not UTF8; make one with ENCODING 'UTF8'"
        raise SettingError("DATABASE_URL", problem)
