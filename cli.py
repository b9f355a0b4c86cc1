"""The command line: what `flask run` prints, and `flask token`."""

import contextlib
import signal
import socket
import sys

import click
from flask import current_app
from werkzeug.serving import is_running_from_reloader

import auth
import check
from settings import read_environment, read_settings


def is_looking_for_commands():
    """Whether this is `flask` itself, which makes the application to see which commands there are."""
    context = click.get_current_context(silent=True)
    return context is not None and context.parent is None


def open_tokens(key=None):
    """What signs tokens by the settings, or with the private key in this file. Raises SettingError, or InvalidToken."""
    settings = read_settings(read_environment(current_app.root_path))
    return auth.signing_with(key, settings) if key else auth.open_tokens(settings, current_app.instance_path)


def prepare_run(app):
    """Under `flask run`, have SIGTERM store what is under way, as Ctrl-C does, and print what is set up and how to begin."""
    context = click.get_current_context(silent=True)
    if context is not None and context.info_name == "run":
        if not is_running_from_reloader():  # --debug has a second process, which begins anew with each change
            print_banner(app, **context.params)
        app.replies.start_keeper()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def print_banner(app, host, port, cert, **others):
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        raise click.ClickException(f"Another program listens on port {port}. Stop it, or: flask run -p {port + 1}")
    url = f"{'https' if cert else 'http'}://{host}:{port}/"
    described = check.announce(app, url)
    unused = described.pop("unused", None)
    rows = "\n".join(f"  {name:10} {text}" for name, text in described.items())
    click.echo(f"Parley {app.config['VERSION']}\n\n{rows}\n")
    if unused:
        click.echo(f"A model server answers on this machine. To use it, put this line into .env:\n\n  {unused}\n")
    if not app.tokens.signing:
        return click.echo(f"Open it: {url}\n\n  {app.tokens.source}\n")
    token = app.tokens.sign(auth.LOCAL_USER, 1)
    click.echo(
        f"Open it; the token in it is a secret, and signs in for a day:\n\n  {url}#token={token}\n\nOr try its API:\n\n"
        f"  curl -N {url}sessions -H 'Accept: text/event-stream' -H 'Authorization: Bearer {token}' "
        """-H 'Content-Type: application/json' -d '{"content": "Hello, Parley!"}'\n"""
    )


@click.command("token")
@click.argument("subject")
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 36500), help="How long it is valid.")
@click.option("--key", help="A file with a private key in PEM, to sign with instead of the server's own.")
def print_token(subject, days, key):
    """Print a token for SUBJECT, such as https://github.com/username."""
    try:
        click.echo(open_tokens(key).sign(subject, days))
    except auth.InvalidToken as error:
        raise click.ClickException(str(error)) from None
