"""The commands of a person who runs a server: `flask token`, `usage`, `forget`."""

import contextlib
import datetime
import json
import os
import re
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

import click
from flask import current_app

import auth
import database
from database import db
from logs import CONTROLS, one_line
from models import Session
from settings import SettingError, command, read_environment, read_settings
from tables.ledger import TOKENS, Usage, utc
from terminal.start import link_for
from upkeep.deletion import forget
from upkeep.migrations import MIGRATIONS

COUNTS = ("replies", *TOKENS)
NAME = 28  # columns of a user's, in a table of eighty


def own_settings() -> dict[str, Any]:
    """Those of the server in this folder. Raises SettingError."""
    return read_settings(read_environment(current_app.root_path))


def days_option(meaning: str) -> Callable[..., Any]:
    return click.option(
        "--days", default=30, show_default=True, type=click.IntRange(1, 36500), help=meaning
    )


def open_tokens(key: str | None = None) -> auth.Tokens:
    """What signs tokens by the settings, or with the private key in this file. Raises SettingError,
    or InvalidToken."""
    settings = own_settings()
    if key is not None:
        return auth.signing_with(key, settings)
    return auth.open_tokens(settings, current_app.instance_path)


@click.command("token")
@click.argument("subject")
@days_option("How long it is valid.")
@click.option(
    "--key", help="A file with a private key in PEM, to sign with instead of the server's own."
)
@click.option("--url", help="The page's address: a link is printed that signs in there.")
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
    # A token needs no database.
    with contextlib.suppress(SettingError, database.Unavailable, *database.DRIVER_ERRORS):
        if namesakes := find_namesakes(subject):
            click.echo(
                f"This is a token of {one_line(subject)}, who has no chats. {namesakes[0]} has "
                f"some: {command()} token {namesakes[0]}",
                err=True,
            )


def find_namesakes(subject: str) -> list[str]:
    """Others of this name who have chats, if this subject has none."""
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


def open_database() -> None:
    """Open the database of the settings, which a start has made and migrated; else the command
    ends. Raises SettingError."""
    refusal = SettingError(
        "DATABASE_URL", "the service has not been started on this database yet; start it first"
    )
    settings, folder = own_settings(), current_app.instance_path
    url = database.url_of(settings, folder)
    if url.startswith("sqlite") and not os.path.exists(url[10:]):
        raise refusal
    database.open_database(settings, folder, [lambda: sys.exit(str(refusal))] * len(MIGRATIONS))
    database.limit_time()


@click.command("usage")
@days_option("Up to today, in UTC.")
@click.option("--json", "is_json", is_flag=True, help="As JSON, with whole names and numbers.")
def usage_command(days: int, is_json: bool) -> None:
    """Print what each user has used, who has used most first."""
    users = read_usage(days)
    if is_json:
        text = json.dumps(users, ensure_ascii=False, indent=2)
        # JSON lets some of them stand as they are.
        click.echo(CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text))
        return
    click.echo("".join(f"{name.removesuffix('_tokens'):>10}" for name in COUNTS) + "  user")
    for user in users:
        counts = "".join(f"{short_count(user[name]):>10}" for name in COUNTS)
        click.echo(f"{counts}  {shown_name(user['user'])}")


def read_usage(days: int) -> list[dict[str, Any]]:
    """What each user has used in so many days, by the names of the counts."""
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


def short_count(count: int) -> str:
    return str(count) if count < 10**8 else f"{count / 10**6:.0f}M"


def shown_name(name: str) -> str:
    """The end of a name. What a terminal would obey, or show in two columns, is not its to say."""
    shown = "".join(character if is_plain(character) else "?" for character in name)
    return shown if len(shown) <= NAME else "…" + shown[1 - NAME :]


def is_plain(character: str) -> bool:
    return character.isprintable() and unicodedata.east_asian_width(character) not in "WF"


def check_subject(subject: str) -> None:
    """Raises ClickException where this names nobody."""
    if not auth.names_somebody(subject):
        raise click.ClickException(f"The subject names nobody. {all_names()}")


def all_names() -> str:
    """Where a person looks who has the wrong name."""
    return f"`{command()} usage --json` has the names of all users."


@click.command("forget")
@click.argument("subject")
@click.option("--yes", is_flag=True, help="Delete without a question.")
def forget_command(subject: str, yes: bool) -> None:
    """Delete all that is stored of SUBJECT, such as https://github.com/username. What all have used
    stays as it was, without the name. A server may be running: replies under way stop."""
    check_subject(subject)
    open_database()
    if not yes:
        with db.connection_context():
            count = Session.select().where(Session.owner == subject).count()
            db.discard()
        click.confirm(
            f"Delete all that is stored of {subject}, {count} sessions among it?", abort=True
        )
        database.limit_time()  # a person may think for long
    sessions = forget(subject)
    if sessions is None:
        raise click.ClickException(f"Nothing is stored of {subject}. {all_names()}")
    click.echo(
        f"{subject} is forgotten, with {sessions} session{'s' * (sessions != 1)}. "
        "Backups, logs and providers keep theirs. The database's files keep what was deleted until "
        "it is overwritten, or VACUUM is run (on PostgreSQL, VACUUM FULL)."
    )
