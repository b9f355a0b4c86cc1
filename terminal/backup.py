"""`flask backup FOLDER` and `flask restore FOLDER`: a SQLite database and the server's own key.

A backup is a folder with two files, `parley.db` and, where this server makes its own tokens,
`jwt_key.pem`. It is there as a whole or not at all.
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
from settings import whose
from tables.ledger import utc
from terminal.commands import own_settings
from upkeep.migrations import MIGRATIONS

DATABASE = "parley.db"
PART = ".parley-part-"  # what the name of a backup begins with that is not whole yet
USUAL = "On PostgreSQL, pg_dump and pg_restore do it; docs/operating.md has the commands."


class Place(NamedTuple):
    """Where this server has its database and its own key."""

    database: pathlib.Path
    key: pathlib.Path


class Contents(NamedTuple):
    """What a database holds."""

    sessions: int
    last_used: str

    def __str__(self) -> str:
        return f"{self.sessions} sessions, last used {self.last_used}"


@click.command("backup")
@click.argument("folder", type=click.Path(path_type=pathlib.Path))
def backup_command(folder: pathlib.Path) -> None:
    """Save the SQLite database and this server's own key into FOLDER, which is made. The service
    may be running: what is saved is the database of one moment, and no request waits for it."""
    place, folder = find_place(), folder.absolute()
    if folder.exists():
        text = f"{folder} is there already. Name one that is to be made, such as {folder}/today."
        raise click.ClickException(text)
    os.umask(0o077)  # of the database that SQLite makes, too
    with told_as("Nothing was saved", place.database):
        place.database.stat()  # raises FileNotFoundError: SQLite would make it
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_left_overs(folder.parent)
        part = pathlib.Path(tempfile.mkdtemp(prefix=PART, dir=folder.parent))
        try:
            contents = save(place, part)
            part.rename(folder)
            sync(folder.parent)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    key = f" and {auth.KEY_FILE}" if (folder / auth.KEY_FILE).exists() else ""
    click.echo(f"{folder} has {DATABASE}{key}: {contents}. Whoever has it has everything.")


@click.command("restore")
@click.argument("folder", type=click.Path(path_type=pathlib.Path))
@click.option("--yes", is_flag=True, help="Replace what is there without a question.")
def restore_command(folder: pathlib.Path, yes: bool) -> None:
    """Put the database and the key back that `backup` has saved in FOLDER. The service must
    have been stopped. What is there now is replaced."""
    place, saved = find_place(), folder / DATABASE
    contents = examine(saved)
    with told_as("It is not restored", place.database):
        place.database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_owner(place.database.parent)
        if place.database.exists():
            now, state = look_into(place.database)
            if not yes:
                click.confirm(f"Replace {now} by {contents}?", abort=True)
            with held(place.database):
                if state_of(place.database) != state:
                    text = f"{place.database} was written meanwhile. Stop the service first."
                    raise click.ClickException(text)
                put(saved, place.database, begin_retention_anew)
        else:
            put(saved, place.database, begin_retention_anew)
        if (folder / auth.KEY_FILE).exists():
            place.key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            put(folder / auth.KEY_FILE, place.key)
    click.echo(f"{place.database} is restored: {contents}. Start the service.")


@contextlib.contextmanager
def told_as(failure: str, path: pathlib.Path) -> Iterator[None]:
    """Raise a ClickException for what the system or SQLite refuses."""
    try:
        yield
    except FileNotFoundError as error:
        text = f"{failure}: {error.filename} is not there. Has the service been started?"
        raise click.ClickException(text) from None
    except PermissionError as error:
        raise click.ClickException(f"{failure}: {error}. {whose_if_seen(path)}") from None
    except (sqlite3.Error, OSError) as error:
        raise click.ClickException(f"{failure}: {error}.") from None


def whose_if_seen(path: pathlib.Path) -> str:
    try:
        return f"{whose(str(path))}."
    except OSError:  # not even that is shown
        return "Run it as the user who runs the service."


def remove_left_overs(parent: pathlib.Path) -> None:
    """Remove what killed backups have left there: the folders of those that began a day ago."""
    for folder in parent.glob(f"{PART}*"):
        if folder.stat().st_mtime < time.time() - 24 * 3600:
            shutil.rmtree(folder, ignore_errors=True)


def check_owner(folder: pathlib.Path) -> None:
    """Raises ClickException where what this user puts there could not be opened by the service."""
    if os.geteuid() not in (0, folder.stat().st_uid):
        raise click.ClickException(f"Run it as root, or as the owner of {folder}.")


def find_place() -> Place:
    """Where the settings have the database and the key. Raises ClickException on PostgreSQL."""
    settings = own_settings()
    url = database.url_of(settings, current_app.instance_path)
    if not url.startswith("sqlite"):
        raise click.ClickException(USUAL)
    key = pathlib.Path(current_app.instance_path, auth.KEY_FILE)
    # `resolve`: where either is a link, what it leads to is replaced.
    return Place(pathlib.Path(url.removeprefix("sqlite:///")).resolve(), key.resolve())


def save(place: Place, folder: pathlib.Path) -> Contents:
    """Copy both into this folder; returns what is saved. Raises sqlite3.Error or OSError."""
    copy, uri = folder / DATABASE, f"{place.database.as_uri()}?mode=rw"
    with contextlib.closing(sqlite3.connect(uri, timeout=60, uri=True)) as connection:
        connection.execute("VACUUM INTO ?", [str(copy)])
    if place.key.exists():
        shutil.copyfile(place.key, folder / auth.KEY_FILE)
    for file in folder.iterdir():
        sync(file)
    sync(folder)
    return examine(copy)


def examine(path: pathlib.Path) -> Contents:
    """What this database holds, in which nobody writes. Raises ClickException where it is not one
    that this release could start on."""
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        text = f"{log} is there: this is a copy of files in use, and no backup."
        raise click.ClickException(text)
    uri = f"{path.absolute().as_uri()}?immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            (mark,) = connection.execute("PRAGMA application_id").fetchone()
            (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            (steps,) = connection.execute("SELECT migrations FROM release").fetchone()
            contents = contents_of(connection)
    except sqlite3.Error as error:
        raise click.ClickException(f"{path} is no backup of Parley's: {error}.") from None
    if mark not in (APPLICATION_ID, 0) or state != "ok":  # release 1.0.0 has set no mark
        raise click.ClickException(f"{path} is damaged, or no backup of Parley's.")
    if steps > len(MIGRATIONS):
        text = f"{path} belongs to a newer release of Parley, or to none. Install what made it."
        raise click.ClickException(text)
    return contents


def contents_of(connection: sqlite3.Connection) -> Contents:
    statement = "SELECT count(*), max(updated_at) FROM session WHERE owner <> ''"
    count, last = connection.execute(statement).fetchone()
    return Contents(count, utc(last).strftime("%Y-%m-%d %H:%M:%S UTC") if last else "never")


def look_into(path: pathlib.Path) -> tuple[Contents | str, list]:
    """What a database holds that nobody has open, with all that its log has, and its state. Raises
    ClickException where somebody has it open."""
    with held(path):
        pass
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as connection:
            contents = contents_of(connection)
    except sqlite3.DatabaseError:
        contents = "a database that cannot be read"
    return contents, state_of(path)


def state_of(path: pathlib.Path) -> list:
    """What changes where the database is written."""
    files = [path, path.with_name(f"{path.name}-wal")]
    return [(file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.exists()]


@contextlib.contextmanager
def held(path: pathlib.Path) -> Iterator[None]:
    """Let no other process open the database meanwhile, nor SQLite in this one. Raises
    ClickException where somebody has it open."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(sqlite.held(path))
        except BlockingIOError:
            raise click.ClickException(f"{path} is in use. Stop the service first.") from None
        yield


def begin_retention_anew(path: str) -> None:
    """A backup may be old: RETENTION_DAYS deletes nothing of it within a day."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(release)")}
        if "retention_since" in columns:  # release 1.0.0 has none
            connection.execute("UPDATE release SET retention_since = NULL")


def put(
    source: pathlib.Path, target: pathlib.Path, change: Callable[[str], None] = lambda path: None
) -> None:
    """Put a copy, with this change, in the target's place, at once, for the owner of the target's
    folder."""
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
            for ending in ("-wal", "-shm"):  # else what the old file's log has would be written
                pathlib.Path(f"{target}{ending}").unlink(missing_ok=True)
            os.replace(draft.name, target)
        except BaseException:
            os.unlink(draft.name)
            raise
    sync(target.parent)


def sync(path: pathlib.Path) -> None:
    """Have what was written here survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
