"""`flask backup FOLDER` and `flask restore FOLDER`: a SQLite database and the server's own key.

A backup is a folder with `parley.db` and, if this server signs its own tokens, `jwt_key.pem`. It
gets its name when it is complete.
"""

import contextlib
import os
import pathlib
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import click
from flask import current_app

import auth
import database
from database import APPLICATION_ID, sqlite
from maintenance.migrations import MIGRATIONS
from settings import whose
from tables.ledger import utc
from terminal.commands import own_settings

DATABASE = "parley.db"
PART = ".parley-part-"  # begins the name of a backup that is not complete yet
USE_PG_DUMP = "On PostgreSQL, use pg_dump and pg_restore; docs/operating.md has the commands."


class Place(NamedTuple):
    """Where this server has its database and its own key."""

    database: pathlib.Path
    key: pathlib.Path


class Contents(NamedTuple):
    """The contents of a database, in a few words."""

    sessions: int
    last_used: str

    def __str__(self) -> str:
        return f"{self.sessions} sessions, last used {self.last_used}"


@click.command("backup")
@click.argument("folder", type=click.Path(path_type=pathlib.Path))
def backup_command(folder: pathlib.Path) -> None:
    """Save the SQLite database and this server's own key into FOLDER, which is created. The service
    may be running: the backup is a snapshot of one moment, and no request waits for it."""
    place, folder = find_place(), folder.absolute()
    if folder.exists():
        text = f"{folder} already exists. Name a new folder, such as {folder}/today."
        raise click.ClickException(text)
    os.umask(0o077)  # for SQLite's file, too
    with raising_click_errors("Nothing was saved", place.database):
        place.database.stat()  # raises FileNotFoundError: SQLite would create an empty database
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f"{PART}*"):  # of backups that were killed
            if left.stat().st_mtime < time.time() - 24 * 3600:
                shutil.rmtree(left, ignore_errors=True)
        part = pathlib.Path(tempfile.mkdtemp(prefix=PART, dir=folder.parent))
        try:
            contents = save(place, part)
            part.rename(folder)
            sync_to_disk(folder.parent)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    key = f" and {auth.KEY_FILE}" if (folder / auth.KEY_FILE).exists() else ""
    click.echo(f"{folder} has {DATABASE}{key}: {contents}. Keep it secret: it has everything.")


@click.command("restore")
@click.argument("folder", type=click.Path(path_type=pathlib.Path))
@click.option("--yes", is_flag=True, help="Replace the current database without asking.")
def restore_command(folder: pathlib.Path, yes: bool) -> None:
    """Restore the database and the key that `backup` has saved in FOLDER. Stop the service first.
    The current ones are replaced."""
    place, saved = find_place(), folder / DATABASE
    contents = examine(saved)
    with raising_click_errors("It was not restored", place.database):
        place.database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        parent = place.database.parent
        if os.geteuid() not in (0, parent.stat().st_uid):  # the service could not open the files
            raise click.ClickException(f"Run it as root, or as the owner of {parent}.")
        if place.database.exists():
            now, state = look_into(place.database)
            if not yes:
                click.confirm(f"Replace {now} with {contents}?", abort=True)
            with exclusive_file(place.database):
                if state_of(place.database) != state:
                    text = f"{place.database} has just been written. Stop the service first."
                    raise click.ClickException(text)
                replace_file(saved, place.database, restart_grace_period)
        else:
            replace_file(saved, place.database, restart_grace_period)
        if (folder / auth.KEY_FILE).exists():
            place.key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(folder / auth.KEY_FILE, place.key)
    click.echo(f"{place.database} is restored: {contents}. Start the service.")


@contextlib.contextmanager
def raising_click_errors(failure: str, path: pathlib.Path) -> Iterator[None]:
    """Raise a ClickException instead of an error of the system or of SQLite."""
    try:
        yield
    except FileNotFoundError as error:
        text = f"{failure}: {error.filename} does not exist. Has the service been started?"
        raise click.ClickException(text) from None
    except PermissionError as error:
        try:
            advice = f"{whose(str(path))}."
        except OSError:  # this user may not even see the file's owner
            advice = "Run it as the user who runs the service."
        raise click.ClickException(f"{failure}: {error}. {advice}") from None
    except (sqlite3.Error, OSError) as error:
        raise click.ClickException(f"{failure}: {error}.") from None


def find_place() -> Place:
    """Where the settings have the database and the key. Raises ClickException on PostgreSQL."""
    settings = own_settings()
    url = database.url_of(settings, current_app.instance_path)
    if not url.startswith("sqlite"):
        raise click.ClickException(USE_PG_DUMP)
    key = pathlib.Path(current_app.instance_path, auth.KEY_FILE)
    # If either is a link, `restore` must replace the file that it leads to.
    return Place(pathlib.Path(url.removeprefix("sqlite:///")).resolve(), key.resolve())


def save(place: Place, folder: pathlib.Path) -> Contents:
    """Copy the database and the key into this folder. Returns the contents of the database. Raises
    sqlite3.Error or OSError."""
    copy, uri = folder / DATABASE, f"{place.database.as_uri()}?mode=rw"
    with contextlib.closing(sqlite3.connect(uri, timeout=60, uri=True)) as connection:
        connection.execute("VACUUM INTO ?", [str(copy)])
    if place.key.exists():
        shutil.copyfile(place.key, folder / auth.KEY_FILE)
    for file in folder.iterdir():
        sync_to_disk(file)
    sync_to_disk(folder)
    return examine(copy)


def examine(path: pathlib.Path) -> Contents:
    """The contents of this database, to which nobody writes. Raises ClickException if this release
    could not start on it."""
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        text = f"{log} exists: this is a copy of files that were in use, not a backup."
        raise click.ClickException(text)
    uri = f"{path.absolute().as_uri()}?immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            (mark,) = connection.execute("PRAGMA application_id").fetchone()
            (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            (steps,) = connection.execute("SELECT migrations FROM release").fetchone()
            contents = contents_of(connection)
    except sqlite3.Error as error:
        raise click.ClickException(f"{path} is not a backup of Parley: {error}.") from None
    if mark not in (APPLICATION_ID, 0) or state != "ok":  # release 1.0.0 did not set it
        raise click.ClickException(f"{path} is damaged, or not a backup of Parley.")
    if steps > len(MIGRATIONS):
        text = f"{path} belongs to a newer release of Parley. Install the release that made it."
        raise click.ClickException(text)
    return contents


def contents_of(connection: sqlite3.Connection) -> Contents:
    statement = "SELECT count(*), max(updated_at) FROM session WHERE owner <> ''"
    count, last = connection.execute(statement).fetchone()
    return Contents(count, utc(last).strftime("%Y-%m-%d %H:%M:%S UTC") if last else "never")


def look_into(path: pathlib.Path) -> tuple[Contents | str, list]:
    """The contents of a database with its write-ahead log, and its state. Raises ClickException if
    a process has it open."""
    with exclusive_file(path):
        pass
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as connection:
            contents = contents_of(connection)
    except sqlite3.DatabaseError:
        contents = "a database that cannot be read"
    return contents, state_of(path)


def state_of(path: pathlib.Path) -> list:
    """Times and sizes of the database's files, which change when it is written."""
    files = [path, path.with_name(f"{path.name}-wal")]
    return [(file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.exists()]


@contextlib.contextmanager
def exclusive_file(path: pathlib.Path) -> Iterator[None]:
    """Keep other processes, and SQLite in this one, from opening the database. Raises
    ClickException if a process has it open."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(sqlite.exclusive_file(path))
        except BlockingIOError:
            raise click.ClickException(f"{path} is in use. Stop the service first.") from None
        yield


def restart_grace_period(path: str) -> None:
    """Begin the grace period of RETENTION_DAYS again: an old backup may have only sessions that are
    due."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(release)")}
        if "retention_since" in columns:  # not in a database of release 1.0.0
            connection.execute("UPDATE release SET retention_since = NULL")


def replace_file(
    source: pathlib.Path, target: pathlib.Path, change: Callable[[str], None] = lambda path: None
) -> None:
    """Replace the target by a copy of the source, after this change to the copy, in one step. The
    copy belongs to the owner of the target's folder."""
    owner = target.parent.stat()
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as draft:
        try:
            with source.open("rb") as file:
                shutil.copyfileobj(file, draft)
            draft.flush()
            change(draft.name)
            os.fsync(draft.fileno())
            if os.geteuid() == 0:
                os.fchown(draft.fileno(), owner.st_uid, owner.st_gid)
            for ending in ("-wal", "-shm"):  # SQLite would apply the old file's log to the new one
                pathlib.Path(f"{target}{ending}").unlink(missing_ok=True)
            os.replace(draft.name, target)
        except BaseException:
            os.unlink(draft.name)
            raise
    sync_to_disk(target.parent)


def sync_to_disk(path: pathlib.Path) -> None:
    """Make what was written to this file or folder survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
