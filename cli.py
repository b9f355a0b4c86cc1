"""The command line: what `flask run` prints, and `flask token`."""

import signal
import sys

import click
from flask import current_app

import auth
from settings import read_environment, read_settings


def is_looking_for_commands():
    """Whether this is `flask` itself, which makes the application to see which commands there are."""
    context = click.get_current_context(silent=True)
    return context is not None and context.parent is None


def open_tokens():
    """What signs and verifies tokens by the settings. Raises SettingError."""
    settings = read_settings(read_environment(current_app.root_path))
    return auth.open_tokens(settings, current_app.instance_path)


def prepare_run(app, version):
    """Under `flask run`, have SIGTERM store what is under way, as Ctrl-C does, and print how to begin."""
    context = click.get_current_context(silent=True)
    if context is None or context.info_name != "run":
        return
    app.replies.start_keeper()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    url = f"http://{context.params['host']}:{context.params['port']}/"
    if not app.tokens.signing:
        click.echo(f"Parley {version}. Open it: {url}\n\n  {app.tokens.source}\n")
        return
    token = app.tokens.sign(auth.LOCAL_USER, 1)
    click.echo(
        f"Parley {version}. Open it, signed in for a day:\n\n  {url}#token={token}\n\nOr try its API:\n\n"
        f"  curl -i {url}sessions -H 'Authorization: Bearer {token}' "
        """-H 'Content-Type: application/json' -d '{"content": "Hello, Parley!"}'\n"""
    )


@click.command("token")
@click.argument("subject")
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 36500), help="How long it is valid.")
def print_token(subject, days):
    """Print a token for SUBJECT, such as https://github.com/username."""
    try:
        click.echo(open_tokens().sign(subject, days))
    except auth.InvalidToken as error:
        raise click.ClickException(str(error)) from None
