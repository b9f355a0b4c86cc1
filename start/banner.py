"""The banner that `flask run` prints, and the line that a start of gunicorn logs."""

import os
import pathlib
import signal
import socket
import stat
import sys
import threading
import time
from typing import Any

import click
from flask import Flask
from werkzeug.serving import is_running_from_reloader

import auth
from api.services import services_of
from logs import log, one_line
from settings import UNIX, command, home
from start.summary import summarize
from well_known import host_in_url

LINK_DAYS = 30  # for which the printed link signs in
OPEN_LABEL = f"open, a secret for {LINK_DAYS} days"


# `flask run`


def is_looking_for_commands() -> bool:
    """Whether `flask` creates the application only to find its commands."""
    context = click.get_current_context(silent=True)
    return context is not None and context.parent is None


def prepare_run(app: Flask) -> None:
    """Under `flask run`, print the banner, start the threads, and make SIGTERM end the process like
    Ctrl-C, which stores the replies in progress."""
    context = click.get_current_context(silent=True)
    if context is None or context.info_name != "run":
        return
    if not is_running_from_reloader():  # --debug starts a second process, again at each change
        print_banner(app, **context.params)
    services = services_of(app)
    services.replies.start_keeper()
    services.sweeper.start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def print_banner(app: Flask, host: str, port: int, cert: Any, **others: Any) -> None:
    """Print the banner when the server listens: then the link works, and it is the last line, after
    Flask's own. Raises ClickException if the port is taken."""
    if listens(host, port):
        raise click.ClickException(
            f"Another program listens on port {port}. Stop it, or: {command()} run -p {port + 1}"
        )
    wish = os.environ.get("PORT", "").strip()
    if wish not in ("", str(port)):
        log.warning(
            "PORT does not apply to `%s run`, which listens on port %d. Write: %s run --port %s",
            *(command(), port, command(), wish),
        )
    text = banner(app, f"{'https' if cert else 'http'}://{reachable(host)}:{port}/")
    if "://" in host:  # a socket in the file system, which no browser can open: no link
        click.echo(text.rpartition("\n")[0])
        return

    def print_when_it_listens() -> None:
        for _ in range(1000):
            if listens(host, port):
                click.echo(text)
                return
            time.sleep(0.02)

    threading.Thread(target=print_when_it_listens, daemon=True).start()


def listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), 1):
            return True
    except (OSError, UnicodeError):  # IDNA refuses long host names such as `unix:///…`
        return False


def banner(app: Flask, url: str) -> str:
    """Six lines: the release, the database, the keys, the providers, a request to try, and the
    page's address."""
    tokens = services_of(app).tokens
    summary = summarize(app)
    summary["providers"] += f"; the default model is {summary.pop('model')}"
    # curl gets its token from the command `token`: one long token on the screen is enough.
    curl = (
        f"curl -N {url}sessions -H 'Accept: text/event-stream' "
        f'-H "Authorization: Bearer $({command()} token {tokens.local_user})" '
        """-H 'Content-Type: application/json' -d '{"content": "Hello, Parley!"}'"""
    )
    rows = [(name, one_line(text)) for name, text in summary.items()]
    if tokens.signing:
        link = link_for(tokens, tokens.local_user, LINK_DAYS, url)
        rows += [("try", curl), (OPEN_LABEL, link)]
    else:
        rows += [("tokens", tokens.source), ("open", url)]
    lines = [f"{name}: {text}" for name, text in rows]
    where = f", with its data in {home()}" if home() else ""
    return "\n".join([f"Parley {app.config['VERSION']}{where}", *lines])


# gunicorn


def announce(app: Flask, listeners: list[str], prefix: str) -> None:
    """Log what is set up, and a warning if other users could pass for the trusted proxy."""
    summary = summarize(app)
    addresses = [f"{listener}{prefix}" for listener in listeners]
    start = {"version": app.config["VERSION"], "address": ",".join(addresses)}
    log.info("start", start | summary)
    for listener in listeners:
        if UNIX in (app.config["TRUSTED_PROXIES"] or ()) and is_open_to_all(listener):
            log.warning(
                "every user of this machine can connect to %s and pose as any user: close its "
                "folder to them",
                listener,
            )
    if addresses:  # with --reuse-port, each worker has listeners of its own
        show_link(app, addresses[0])


def is_open_to_all(address: str) -> bool:
    """Whether this is a socket, such as `unix:/run/parley/parley.sock`, to which every user of the
    machine can connect: all may write to it, and enter each of its folders."""
    if not address.startswith("unix:"):
        return False
    path = pathlib.Path(address.removeprefix("unix:")).absolute()
    try:
        may_write = bool(path.stat().st_mode & stat.S_IWOTH)
        return may_write and all(each.stat().st_mode & stat.S_IXOTH for each in path.parents)
    except (OSError, ValueError):  # an abstract socket has no file, and so no modes
        return True


def show_link(app: Flask, address: str) -> None:
    """If gunicorn starts on a terminal, print the page's address, with a token if this server has
    its own key. Not in the log, which others may read."""
    if not (sys.stdout and sys.stdout.isatty() and address.startswith("http")):
        return
    scheme, _, rest = address.partition("://")
    host, _, rest = rest.rpartition(":")
    url = f"{scheme}://{reachable(host.strip('[]'))}:{rest}/"
    tokens = services_of(app).tokens
    if tokens.has_own_key:
        click.echo(f"{OPEN_LABEL}: {link_for(tokens, tokens.local_user, LINK_DAYS, url)}")
    else:
        click.echo(f"open: {url}")


# Addresses


def reachable(host: str) -> str:
    """The host for the URL of a server that listens on this host. For all interfaces, this
    machine's address in its network."""
    if host not in ("0.0.0.0", "::"):
        return host_in_url(host)
    try:
        with socket.socket(type=socket.SOCK_DGRAM) as other:
            # UDP sends nothing here, but chooses the interface; RFC 5737 reserves this address.
            other.connect(("192.0.2.1", 9))
            return other.getsockname()[0]
    except OSError:
        return "127.0.0.1"


def link_for(tokens: auth.Tokens, subject: str, days: int, url: str) -> str:
    """The page's address with a token, which signs whoever opens it in as this user. Raises
    InvalidToken."""
    return f"{url.rstrip('/')}/#token={tokens.sign(subject, days)}"
