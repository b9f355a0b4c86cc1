"""Commands for the person who runs a server: `flask token`, `usage`, `forget`."""

import contextlib
import datetime
import json
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import click
from flask import current_app

import auth
import database
from database import db
from logs import CONTROLS, one_line
from maintenance.forgetting import forget
from maintenance.migrations import MIGRATIONS
from models import Session
from settings import SettingError, command, read_environment, read_settings
from start.banner import link_for
from tables.ledger import TOKENS, Usage, utc
from terminal.rows import width_of

COUNTS = ("replies", *TOKENS)
NAME = 28  # columns for a user's name, in a table of eighty


def own_settings() -> dict[str, Any]:
    """The settings of the server in this folder. Raises SettingError."""
    return read_settings(read_environment(current_app.root_path))


def days_option(meaning: str) -> Callable[..., Any]:
    return click.option(
        "--days", default=30, show_default=True, type=click.IntRange(1, 36500), help=meaning
    )


def open_tokens(key: str | None = None) -> auth.Tokens:
    """Tokens that are signed by the settings, or with the private key in this file. Raises
    SettingError or InvalidToken."""
    settings = own_settings()
    if key is not None:
        return auth.open_private_key(key, settings)
    return auth.open_tokens(settings, current_app.instance_path)


@click.command("token")
@click.argument("subject")
@days_option("How many days it is valid.")
@click.option(
    "--key", help="A file with a private key in PEM that signs instead of the server's own."
)
@click.option("--url", help="The page's address: print a link that signs in there.")
def print_token(subject: str, days: int, key: str | None, url: str | None) -> None:
    """Print a token for SUBJECT, such as https://github.com/username, or a link with one. Each is a
    secret: anybody who has it is that user."""
    if url is not None and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url):
        raise click.ClickException("--url: write it like https://chat.example.com")
    try:
        tokens = open_tokens(key)
        click.echo(
            tokens.sign(subject, days) if url is None else link_for(tokens, subject, days, url)
        )
    except auth.InvalidToken as error:
        raise click.ClickException(str(error)) from None
    # Only for a hint: the token itself needs no database.
    with contextlib.suppress(SettingError, database.Unavailable, *database.DRIVER_ERRORS):
        if namesakes := find_namesakes(subject):
            click.echo(
                f"This is a token of {one_line(subject)}, who has no chats. {namesakes[0]} has "
                f"some: {command()} token {namesakes[0]}",
                err=True,
            )


def find_namesakes(subject: str) -> list[str]:
    """Other users with the same name who have chats, if this subject has none."""
    name = auth.name_of(subject)
    open_database()
    with db.connection_context():
        owned = Session.owner == subject
        if Session.select(Session.id).where(owned).limit(1).exists():
            return []
        named = Session.owner.endswith(name) if name else owned
        owners = [row.owner for row in Session.select(Session.owner).where(named).distinct()]
        db.discard()
    return [one_line(owner) for owner in owners if auth.name_of(owner) == name]


def open_database(may_be_moved: bool = False) -> None:
    """Open the database of the settings. Ends the command if no start has created and migrated it.
    Raises SettingError."""
    refusal = SettingError(
        "DATABASE_URL", "the service has not been started on this database yet; start it first"
    )
    settings, folder = own_settings(), current_app.instance_path
    url = database.url_of(settings, folder)
    if url.startswith("sqlite") and not os.path.exists(url[10:]):
        raise refusal
    steps = [lambda: sys.exit(str(refusal))] * len(MIGRATIONS)
    database.open_database(settings, folder, steps, may_be_moved)
    database.limit_time()


@click.command("usage")
@days_option("How many days up to today, in UTC.")
@click.option("--json", "is_json", is_flag=True, help="Print JSON, with full names and numbers.")
def usage_command(days: int, is_json: bool) -> None:
    """Print how many tokens each user has used, the heaviest user first."""
    users = read_usage(days)
    if is_json:
        text = json.dumps(users, ensure_ascii=False, indent=2)
        # JSON escapes some control characters, but not all.
        click.echo(CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text))
        return
    click.echo("".join(f"{name.removesuffix('_tokens'):>10}" for name in COUNTS) + "  user")
    for user in users:
        numbers = (user[name] for name in COUNTS)
        short = (str(number) if number < 10**8 else f"{number / 10**6:.0f}M" for number in numbers)
        counts = "".join(f"{each:>10}" for each in short)
        click.echo(f"{counts}  {shown_name(user['user'])}")


def read_usage(days: int) -> list[dict[str, Any]]:
    """The counts of each user over so many days, the heaviest user first."""
    open_database()
    with db.connection_context():
        first = utc(db.now()).date() - datetime.timedelta(days - 1)
        rows = list(Usage.sums(Usage.owner).where(Usage.day >= first.isoformat()))
        db.discard()
    rows.sort(key=lambda row: (-row.tokens, row.owner))
    return [
        {"user": row.owner or "(forgotten)"} | {name: getattr(row, name) for name in COUNTS}
        for row in rows
    ]


def shown_name(name: str) -> str:
    """The end of a name. Control characters and wide ones become question marks."""
    shown = "".join(
        character if character.isprintable() and width_of(character) < 2 else "?"
        for character in name
    )
    return shown if len(shown) <= NAME else "…" + shown[1 - NAME :]


def check_subject(subject: str) -> None:
    """Raises ClickException if this names nobody."""
    if not auth.is_valid_subject(subject):
        raise click.ClickException(f"The subject names nobody. {names_advice()}")


def names_advice() -> str:
    """Advice for a person who gave the wrong name."""
    return f"`{command()} usage --json` has the names of all users."


@click.command("forget")
@click.argument("subject")
@click.option("--yes", is_flag=True, help="Delete without asking.")
def forget_command(subject: str, yes: bool) -> None:
    """Delete all data of SUBJECT, such as https://github.com/username. The usage of all users
    together stays the same, without the name. The server may be running: replies in progress stop.
    """
    check_subject(subject)
    open_database()
    if not yes:
        with db.connection_context():
            count = Session.select().where(Session.owner == subject).count()
            db.discard()
        click.confirm(f"Delete all data of {subject}, including {count} sessions?", abort=True)
        database.limit_time()  # the question may have taken long
    sessions = forget(subject)
    if sessions is None:
        raise click.ClickException(f"Nothing is stored about {subject}. {names_advice()}")
    click.echo(
        f"{subject} is forgotten, with {sessions} session{'s' * (sessions != 1)}. "
        "Backups, logs and providers keep their copies. The database's files keep deleted data "
        "until it is overwritten, or you run VACUUM (on PostgreSQL, VACUUM FULL)."
    )
