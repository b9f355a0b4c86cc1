"""The command line: what `flask run` prints, `flask token`, `usage`, `forget`, `check`; what a start says of what is set up."""

import contextlib
import datetime
import json
import os
import re
import runpy
import signal
import socket
import sys
import time
import unicodedata

import click
from flask import current_app
from werkzeug.http import parse_date
from werkzeug.serving import is_running_from_reloader

import auth
import database
from catalog import open_catalog, spellings
from database import db
from deletion import forget
from faults import ModelError
from ledger import TOKENS, Usage, utc
from logs import log
from migrations import MIGRATIONS
from protocols import OpenAI
from settings import MISTAKES, SettingError, misspelt, read_environment, read_settings, whose
from wire import Call, Fault, Wire, join

NEARBY = ("http://127.0.0.1:11434/v1", "http://127.0.0.1:8080/v1")  # where Ollama and llama.cpp's server usually are
NAME = 28  # columns of a user's, in a table of eighty
LEAST_PROMPT = 4096  # tokens that a context window should have besides those of a reply


def is_looking_for_commands():
    """Whether this is `flask` itself, which makes the application to see which commands there are."""
    context = click.get_current_context(silent=True)
    return context is not None and context.parent is None


def open_tokens(key=None):
    """What signs tokens by the settings, or with the private key in this file. Raises SettingError, or InvalidToken."""
    settings = read_settings(read_environment(current_app.root_path))
    return auth.open_tokens(settings, current_app.instance_path) if key is None else auth.signing_with(key, settings)


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
    url = f"{'https' if cert else 'http'}://{f'[{host}]' if ':' in host else host}:{port}/"
    described = announce(app, url)
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


def open_database():
    """Open the database of the settings, which a start has made and migrated; else the command ends. Raises SettingError."""
    refusal = SettingError("DATABASE_URL", "the service has not been started on this database yet; start it first")
    settings, folder = read_settings(read_environment(current_app.root_path)), current_app.instance_path
    url = database.url_of(settings, folder)
    if url.startswith("sqlite") and not os.path.exists(url[10:]):
        raise refusal
    database.open_database(settings, folder, [lambda: sys.exit(str(refusal))] * len(MIGRATIONS))
    database.limit_time()


@click.command("usage")
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 36500), help="Up to today, in UTC.")
@click.option("--json", "is_json", is_flag=True, help="As JSON, with whole names and numbers.")
def usage_command(days, is_json):
    """Print what each user has used, who has used most first."""
    open_database()
    with db.connection_context():
        first = utc(db.now()).date() - datetime.timedelta(days - 1)
        rows = sorted(Usage.sums(Usage.owner).where(Usage.day >= first.isoformat()), key=lambda row: (-row.tokens, row.owner))
        db.discard()
    names = ("replies", *TOKENS)
    users = [{"user": row.owner or "(forgotten)"} | {name: getattr(row, name) for name in names} for row in rows]
    if is_json:
        return click.echo(json.dumps(users, ensure_ascii=False, indent=2))
    click.echo("".join(f"{name.removesuffix('_tokens'):>10}" for name in names) + "  user")
    for user in users:
        # What a terminal would obey, or show in two columns, is not a name's to say.
        shown = [each if each.isprintable() and unicodedata.east_asian_width(each) not in "WF" else "?" for each in user["user"]]
        counts = [str(user[name]) if user[name] < 10**8 else f"{user[name] / 10**6:.0f}M" for name in names]
        name = "".join(shown if len(shown) <= NAME else ["…", *shown[1 - NAME :]])
        click.echo("".join(f"{count:>10}" for count in counts) + "  " + name)


@click.command("forget")
@click.argument("subject")
def forget_command(subject):
    """Delete all that is stored of SUBJECT, such as https://github.com/username. What all have used stays as it was, without the
    name. A server may be running: replies under way stop."""
    if not auth.names_somebody(subject):
        raise click.ClickException("The subject names nobody. `flask usage --json` has the names of all users.")
    open_database()
    sessions = forget(subject)
    if sessions is None:
        raise click.ClickException(f"Nothing is stored of {subject}. `flask usage --json` has the names of all users.")
    click.echo(
        f"{subject} is forgotten, with {sessions} session{'s' * (sessions != 1)}. Backups, logs and providers keep theirs. "
        "The database's files keep what was deleted until it is overwritten, or VACUUM is run (on PostgreSQL, VACUUM FULL)."
    )


def hide_secrets(text):
    """The same with no user and no password in its URLs: either may be a key."""
    return re.sub(r"([?&][^=&\s]*(?:password|secret|%)[^=&]*=)[^&\s]*", r"\1***", re.sub(r"//[^?\s]*@", "//***@", text))


def describe(settings, folder, catalog):
    """What is set up, by name, without a key or a password. Nothing is asked, opened or made."""
    keys = [name for name in ("JWT_PUBLIC_KEY", "JWT_SECRET") if settings[name]] or [settings["JWT_JWKS_URL"]]
    described = {
        "database": database.url_of(settings, folder),
        "keys": keys[0] or f"{folder}/{auth.KEY_FILE}",
        "providers": ", ".join(f"{name} {each.base_url}".strip() for name, each in catalog.providers.items()),
        "model": catalog.known_default or f"the first that {', else '.join(catalog.providers)} lists",
    }
    return {name: hide_secrets(text) for name, text in described.items()}


def announce(app, address):
    """Log what the service starts with, and return it. Where no provider is set, `unused` names one of this machine."""
    described = describe(app.config, app.instance_path, app.catalog)
    for url in NEARBY if list(app.catalog.providers) == ["echo"] else ():
        with contextlib.suppress(Fault):  # each has a fifth of a second, since the start waits
            if '"data"' in ask(f"{url}/models", seconds=0.2)[1]:
                described["unused"] = f"OPENAI_BASE_URL={url}"
                break
    log.info("start", {"version": app.config["VERSION"], "address": address} | described)
    return described


def ask(url, headers={}, seconds=5):
    """(headers, text) of the answer to a GET, whatever its status. Raises a Fault of the wire."""
    with Wire(url).request(Call(seconds), "GET", "", {"Connection": "close"} | headers) as response:
        return response.headers, join(response.chunks()).decode("utf-8", "replace")


def say(level, sentence):
    click.echo(f"{level:8} {hide_secrets(sentence)}")


@click.command("check")
def check_command():
    """Try all that is set up, and say what to do. The status is 0 where nothing failed. Nothing is changed. The default model is
    asked for one word, which costs a few tokens."""
    environment, folder, has_failed = read_environment(current_app.root_path), current_app.instance_path, False
    try:
        settings = read_settings(environment)
        catalog = open_catalog(settings)
    except SettingError as error:
        sys.exit(f"FAILED   {str(error).rstrip('.')}. All else can be tried when this is right.")
    for sentence in misspelt(environment, settings):
        say("warning", sentence)
    checks = [("DATABASE_URL", check_database, settings, folder), ("JWT_JWKS_URL", check_keys, settings, folder)]
    for name, provider in catalog.providers.items():
        place = "PROVIDERS" if provider.prefix else f"{name.upper()}_BASE_URL"
        checks.append((f"{place}, {name.upper()}_API_KEY", check_provider, settings, catalog, provider))
    checks.append(("PORT", check_ports, current_app.root_path))
    for setting, check, *arguments in checks:
        try:
            check(*arguments)
        except (Exception, SystemExit) as error:  # whatever it is, the others are tried, too; the latter is a SettingError
            reason = str(error) if isinstance(error, SystemExit) else hide_secrets(f"{setting}: {error}")
            click.echo("FAILED   " + reason.partition("\n")[0].removesuffix(" Tell whoever runs this server."))
            has_failed = True
    sys.exit(has_failed)


def is_there(path, folder):
    """Whether this file is there; else a start makes it, and its folder. Raises ValueError where it cannot."""
    if os.path.exists(path):
        if os.stat(path).st_mode & 0o077 or os.stat(path).st_uid != os.getuid():
            say("warning", f"{whose(path)}; only who runs the server should read it (chown, chmod 600)")
        return True
    parent = os.path.dirname(folder if path.startswith(folder) and not os.path.exists(folder) else path)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(f"{path} cannot be made: have its folder, {parent}, made for this user to write into")
    say("ok", f"{path} will be made at the first start")


def check_database(settings, folder):
    """Open it as a start does. In the place of a migration that is missing comes an exit, by which all is rolled back."""
    url = database.url_of(settings, folder)
    if url.startswith("sqlite") and not is_there(os.path.abspath(url[10:]), folder):
        return
    database.limit_time()
    try:
        database.open_database(settings, folder, [sys.exit] * len(MIGRATIONS))
    except SystemExit as error:
        if error.code:  # it is a SettingError
            raise
    with db.connection_context():
        db.check()
        db.discard()  # closed, it leaves nothing beside its file
    say("ok", f"{url} can be read and written")


def check_keys(settings, folder):
    """Whether tokens can be verified, by a clock that is that of whoever signs them."""
    url = settings["JWT_JWKS_URL"]
    if not (url or settings["JWT_SECRET"] or settings["JWT_PUBLIC_KEY"] or is_there(f"{folder}/{auth.KEY_FILE}", folder)):
        return
    if not url:
        auth.open_tokens(settings, folder)
        return say("ok", "there is a key for tokens")
    try:
        keys = auth.PublishedKeys(url).published.get().values()
    except (Fault, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"its keys cannot be had ({error}); is it the address of a JWKS, and is it reached from here?") from None
    say("ok", f"{url} publishes {sum(map(len, keys))} keys that are taken")
    date = parse_date(ask(url)[0].get("Date"))
    if date and abs(time.time() - date.timestamp()) > auth.LEEWAY:
        say("warning", f"this machine's clock is {time.time() - date.timestamp():+.0f} s from that of {url}: set it right")


def check_provider(settings, catalog, provider):
    """Whether it answers, and lists the models that are set; whether the default model answers, where it is its own."""
    named = filter(None, [catalog.known_default, *(settings["MODELS"] or ()), settings["TITLE_MODEL"]])
    named = [model for model in dict.fromkeys(named) if catalog.provider_of(model) is provider]
    tried = []
    try:
        listed = catalog.fetch(provider)
        say("ok", f"{provider.name} answers, and lists {len(listed)} models")
    except ModelError as error:
        if not named:
            raise
        listed, tried = named, named[:1]  # some servers have no list: whether a model answers decides
        say("warning", str(error))
    for model in named:
        if not {*spellings(model)}.intersection(listed):
            say("warning", f"{provider.name} does not list {model}, but {', '.join(listed[:9]) or 'nothing'}")
    default = catalog.default()
    for model in [default] if catalog.provider_of(default) is provider else tried:
        check_model(provider, model, settings["MAX_TOKENS"])


def check_model(provider, model, max_tokens):
    """Whether it answers within half a minute, and has a context window that is large enough."""
    click.echo(f"waiting  for {model}", err=True)  # it may have to be loaded first
    try:
        "".join(provider.stream(Call(30), model, "", [{"role": "user", "content": "Say ok."}], min(256, max_tokens), retries=0))
    except ModelError as error:
        if not error.message.startswith("The model "):  # it is there: it declined, or thought for too long
            raise
    say("ok", f"{model} answers")
    for path, name, cure in MISTAKES["windows"] if isinstance(provider, OpenAI) else ():
        with contextlib.suppress(Fault, TypeError):  # it does not say
            text = ask(provider.wire.base_url.removesuffix("/v1") + path, provider.headers())[1]
            place = re.search("|".join(re.escape(f'"{each}"') for each in spellings(model.removeprefix(provider.prefix))), text)
            find = re.compile(rf'"{name}": ?([0-9]+)').search
            window = int((find(text, place.end() if place else 0) or find(text))[1])  # of this model, rather than the first
            if window < max_tokens + LEAST_PROMPT:
                advice = f"start its server by {cure.format(max_tokens + LEAST_PROMPT)}"
                advice += f", or set MAX_TOKENS={window - LEAST_PROMPT}" if window > LEAST_PROMPT else ""
                say("warning", f"the window of {model}, {window} tokens, has no room for MAX_TOKENS and a conversation: {advice}")


def check_ports(folder):
    """Who listens on the port of `flask run`, and on gunicorn's; whether the latter's configuration is right."""
    check_port("5000")
    prefix = runpy.run_path(os.path.join(folder, "gunicorn.conf.py"))["prefix"]  # stops, as gunicorn would, where it is not
    check_port(os.environ.get("PORT") or "8000", prefix)


def check_port(port, prefix=""):
    """Who listens there, if anybody does."""
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", int(port)), 1):
        with contextlib.suppress(Fault):
            if '"version"' in ask(f"http://127.0.0.1:{port}{prefix}/health")[1]:
                return say("ok", f"Parley is running on port {port}")
        say("warning", f"another program listens on port {port}: stop it, or choose another port (PORT=…, flask run -p …)")
