"""`flask move`: everything into another database."""

import signal
from typing import Any

import click
from flask import current_app

import database
from database import db
from logs import one_line
from maintenance.migrations import MIGRATIONS
from settings import SettingError, command, read_settings
from terminal.commands import open_database, own_settings
from transfer.move import NotMoved, move, undo


@click.command("move")
@click.argument("url", required=False)
@click.option("--undo", "is_undone", is_flag=True, help="Use the old database again.")
def move_command(url: str | None, is_undone: bool) -> None:
    """Copy everything, of all users, from the service's database into the empty one at URL. Stop
    the service first, and start it with DATABASE_URL=URL afterwards. The old database keeps
    everything, but no service starts on it, unless you --undo the move."""
    if is_undone == (url is not None):
        raise click.UsageError("Name the other database by its URL, or give --undo.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the command like Ctrl-C
    open_database(may_be_moved=True)
    source = db.obj
    try:
        if url is None:
            return click.echo(tell_undone(undo(source)))
        open_other(url)
        counts = move(source, db.obj)
    except NotMoved as error:
        raise click.ClickException(one_line(str(error))) from None
    sessions, turns = several(counts["session"], "session"), several(counts["turn"], "turn")
    click.echo(
        f"Everything is there: {sessions}, {turns}. Set DATABASE_URL to that URL, and start the "
        f"service. To use this database again instead, run `{command()} move --undo`."
    )
    return None


def several(count: int, name: str) -> str:
    return f"{count} {name}{'s' * (count != 1)}"


def open_other(url: str) -> None:
    """Bind all models to the database of this URL. Raises ClickException."""
    try:
        other: dict[str, Any] = {
            "DATABASE_URL": read_settings({"DATABASE_URL": url})["DATABASE_URL"]
        }
        settings = own_settings() | other
        database.open_database(settings, current_app.instance_path, MIGRATIONS, may_be_moved=True)
    except SettingError as error:
        raise click.ClickException(f"The other database: {str(error).partition(': ')[2]}") from None


def tell_undone(was_moved: bool) -> str:
    if not was_moved:
        return "Nothing was moved from this database. You can start the service on it."
    return (
        "You can start the service on this database again. Anything that was written to the other "
        "one since then stays there."
    )
