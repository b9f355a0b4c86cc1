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


def open_tokens():
    """What signs and verifies tokens by the settings. Raises SettingError."""
    settings = read_settings(read_environment(current_app.root_path))
    return auth.open_tokens(settings, current_app.instance_path)


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
    described, unused = check.announce(app, url)
    lines = [f"Parley {app.config['VERSION']}", "", *(f"  {name:10} {text}" for name, text in described.items()), ""]
    if unused:
        lines += ["A model server answers on this machine. To use it, put this line into .env:", "", f"  {unused}", ""]
    if not app.tokens.signing:
        lines += [f"Open it: {url}", "", f"  {app.tokens.source}", ""]
    else:
        token = app.tokens.sign(auth.LOCAL_USER, 1)
        curl = f"curl -N {url}sessions -H 'Accept: text/event-stream' -H 'Authorization: Bearer {token}' "
        curl += """-H 'Content-Type: application/json' -d '{"content": "Hello, Parley!"}'"""
        lines += ["Open it; the token in it is a secret, and signs in for a day:", "", f"  {url}#token={token}", ""]
        lines += ["Or try its API:", "", f"  {curl}", ""]
    click.echo("\n".join(lines))


@click.command("token")
@click.argument("subject")
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 36500), help="How long it is valid.")
@click.option("--key", help="A file with a private key in PEM, to sign with instead of the server's own.")
def print_token(subject, days, key):
    """Print a token for SUBJECT, such as https://github.com/username."""
    settings = read_settings(read_environment(current_app.root_path))
    try:
        tokens = auth.signing_with(key, settings) if key else open_tokens()
        token = tokens.sign(subject, days)
    except auth.InvalidToken as error:
        raise click.ClickException(str(error)) from None
    click.echo(token)
    if key and settings["JWT_PUBLIC_KEY"]:
        try:
            open_tokens().verify(token)
        except auth.InvalidToken as error:
            click.echo(f"Warning: this server would refuse it. {error}", err=True)
