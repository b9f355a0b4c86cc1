"""Opening the database of the settings, and bringing it to this release."""

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
from database.failures import DRIVER_ERRORS, Unavailable, reason, sqlstate_of
from database.sqlite import SQLite
from settings import SettingError, command, ensure_folder, home, whose

PATIENCE = 45  # seconds in which a migration must find a moment when nobody reads what it changes
PAUSE = 0.5  # seconds between two tries, in which those go on who have waited behind one
# PostgreSQL's SQLSTATEs: lock_not_available, deadlock_detected.
IN_USE = ("55P03", "40P01")

_MISTAKES = tomllib.loads(pathlib.Path(__file__).with_name("mistakes.toml").read_text("utf-8"))


class SchemaVersion(db.Model):  # type: ignore[name-defined]
    """The one row with what the database says of itself: how many of the migrations it has had, the
    secret of its digests, what `upkeep/retention.py` has to know, and the id of the file from which
    everything is being moved here (`upkeep/moving.py`)."""

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
    """The URL of the database of these settings, by default of a file in the folder. There, a
    relative path begins for the installed command, which may be called anywhere."""
    url = settings["DATABASE_URL"] or f"sqlite:///{folder}/parley.db"
    kind, _, path = url.partition(":///")
    return f"sqlite:///{os.path.join(folder, path)}" if home() and kind == "sqlite" else url


def open_database(
    settings: Mapping[str, Any],
    folder: str,
    migrations: Sequence[Callable[[], None]],
    may_be_half: bool = False,
) -> None:
    """Point all models at the database of these settings, migrated. It has all that was to be moved
    into it, or `may_be_half`. Raises SettingError."""
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
            # Here: the driver takes 8 MB, and 0.1 s.
            from database import postgresql

            engine, options = postgresql.PostgreSQL, postgresql.parse(url)
        db.initialize(engine(**engine.options | options))
        _migrate(migrations, may_be_half)
    except (Unavailable, *DRIVER_ERRORS, OSError) as error:
        problem = _what_to_do(reason(error), options["database"])
        raise SettingError("DATABASE_URL", problem) from None


def _what_to_do(said: str, path: str) -> str:
    """The sentence for what a driver says where it cannot open the database, or the file at this
    path."""
    for pattern, sentence in _MISTAKES["opening"]:
        if match := re.search(pattern, said):
            return str(sentence.format(*match.groups(), path=path, whose=whose(path)))
    return said


def _migrate(migrations: Sequence[Callable[[], None]], may_be_half: bool) -> None:
    """The same as `_try_to_migrate`, and again where others use the tables. Raises SettingError
    where they do so all the time."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return _try_to_migrate(migrations, may_be_half)
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
        time.sleep(PAUSE)


def _try_to_migrate(migrations: Sequence[Callable[[], None]], may_be_half: bool) -> None:
    """Apply the migrations that are missing, once however many processes start together. Raises
    SettingError where it cannot."""
    with db.connection_context(), db.write():
        _check_encoding()
        db.lock("parley migrations")
        db.create_tables([SchemaVersion])
        known = SchemaVersion.id, SchemaVersion.migrations  # the columns of every release
        version = SchemaVersion.select(*known).first() or SchemaVersion(migrations=0)
        if version.migrations > len(migrations):
            problem = "it belongs to a newer release of Parley, or to none; start what made it"
            raise SettingError("DATABASE_URL", problem)
        for step in migrations[version.migrations :]:
            step()
        _check_columns()
        if not may_be_half:
            _check_whole()
        version.migrations = len(migrations)
        version.save()
        lacking = SchemaVersion.secret.is_null()
        SchemaVersion.update(secret=secrets.token_hex()).where(lacking).execute()
        db.discard()  # a process that forks from this one must not share it


def _check_columns() -> None:
    """Raises SettingError where a column is missing, as where a state between two releases made the
    database."""
    for model in db.Model.__subclasses__():
        try:
            model.select().limit(0).execute()
        except DRIVER_ERRORS as error:
            if not _is_lacking(error):
                raise
            problem = "a state of Parley made it that was never released; start with a new one"
            raise SettingError("DATABASE_URL", problem) from None


def _check_whole() -> None:
    """Raises SettingError where the end of what is being moved here is still to come."""
    file_id = SchemaVersion.select(SchemaVersion.moving).scalar()
    if file_id is not None:
        problem = (
            "an import into it has not come to its end; run "
            f"`{command()} import --all FILE` again, with the file whose first line has the id "
            f"{file_id}"
        )
        raise SettingError("DATABASE_URL", problem)


def _is_lacking(error: BaseException) -> bool:
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
