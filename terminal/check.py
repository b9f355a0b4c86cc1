"""`flask check`: all that is set up is tried, and what to do is said."""

import os
import runpy
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click
from flask import current_app
from werkzeug.http import parse_date

import auth
import database
from database import db
from keys import PublishedKeys
from llm import Catalog, open_catalog, spellings
from logs import one_line
from oidc import IdentityProvider
from providers.answer import Exchange
from providers.faults import ModelError
from providers.protocols import Provider
from settings import SettingError, read_environment, read_settings, unread, whose
from terminal.start import (
    ask,
    audience_warning,
    certificates_warning,
    describe_proxies,
    hide_secrets,
    models_warning,
    proxy_warning,
    sign_in_warning,
    users_warning,
)
from upkeep.migrations import MIGRATIONS
from wire import NOT_UNDERSTOOD, Call, Fault

ANSWER_TIMEOUT = 30  # seconds in which a model answers
ANSWER_TOKENS = 256
LISTED = 9  # models that a warning names

Settings = dict[str, Any]
# The settings that something depends on, and what tries it.
Check = tuple[str, Callable[[], None]]


def show(level: str, sentence: str, err: bool = False) -> None:
    """Print a line. What a provider says in it, or the name of a model, commands no terminal."""
    click.echo(one_line(f"{level:8} {sentence}"), err=err)


def say(level: str, sentence: str) -> None:
    show(level, hide_secrets(sentence))


@click.command("check")
def check_command() -> None:
    """Try all that is set up, and say what to do. The status is 0 where nothing failed. Nothing is
    changed. The default model is asked for one word, which costs a few tokens."""
    environment = read_environment(current_app.root_path)
    try:
        settings = read_settings(environment)
        catalog = open_catalog(settings)
    except SettingError as error:
        problem = str(error).rstrip(".")
        show("FAILED", f"{problem}. All else can be tried when this is right.", err=True)
        sys.exit(1)
    doubts = users_warning(settings), models_warning(settings)
    for sentence in (*unread(environment, settings), *filter(None, doubts)):
        say("warning", sentence)
    folders = current_app.instance_path, current_app.root_path
    results = [is_right(*check) for check in checks(settings, catalog, *folders)]
    sys.exit(not all(results))


def checks(settings: Settings, catalog: Catalog, folder: str, code: str) -> Iterator[Check]:
    yield "DATABASE_URL", lambda: check_database(settings, folder)
    if settings["OIDC_CLIENT_ID"]:
        yield "JWT_ISSUER", lambda: check_sign_in(settings)
    if url := settings["JWT_JWKS_URL"]:
        yield "JWT_JWKS_URL", lambda: check_published_keys(settings, url)
    elif not settings["OIDC_CLIENT_ID"]:
        yield "JWT_PUBLIC_KEY", lambda: check_key(settings, folder)
    yield "TRUSTED_PROXIES", lambda: check_proxies(settings)
    yield "REQUESTS_CA_BUNDLE", check_certificates
    for name, provider in catalog.providers.items():
        place = "PROVIDERS" if provider.prefix else f"{name.upper()}_BASE_URL"
        names = f"{place}, {name.upper()}_API_KEY"
        yield names, lambda provider=provider: check_provider(settings, catalog, provider)
    # Stops, as gunicorn would, where its configuration is not right.
    yield "PORT", lambda: runpy.run_path(os.path.join(code, "gunicorn.conf.py"))


def is_right(setting: str, check: Callable[[], None]) -> bool:
    """Whether nothing failed; what did is said."""
    try:
        check()
        return True
    except SystemExit as error:  # it is a SettingError
        reason = str(error)
    except Exception as error:  # whatever it is, the others are tried, too
        reason = hide_secrets(f"{setting}: {error}")
    reason = reason.partition("\n")[0].replace(" Ask again later.", "")
    show("FAILED", reason.removesuffix(" Tell the person who runs this server."))
    return False


def is_there(path: str, folder: str) -> bool:
    """Whether this file is there; else a start makes it, and its folder. Raises ValueError where it
    cannot."""
    if os.path.exists(path):
        status = os.stat(path)
        if status.st_mode & 0o077 or status.st_uid != os.getuid():
            advice = "only who runs the server should read it (chown, chmod 600)"
            say("warning", f"{whose(path)}; {advice}")
        return True
    parent = os.path.dirname(path)
    while path.startswith(folder) and not os.path.exists(parent):  # a start makes these, too
        parent = os.path.dirname(parent)
    if not os.access(parent, os.W_OK | os.X_OK):
        advice = f"have its folder, {parent}, made for this user to write into"
        raise ValueError(f"{path} cannot be made: {advice}")
    say("ok", f"{path} will be made at the first start")
    return False


def check_database(settings: Settings, folder: str) -> None:
    """Open it as a start does. In the place of a migration that is missing comes an exit, by which
    all is rolled back."""
    url = database.url_of(settings, folder)
    path = os.path.abspath(url[10:])
    if url.startswith("sqlite") and not os.path.isdir(path) and not is_there(path, folder):
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


# Keys


def check_key(settings: Settings, folder: str) -> None:
    """Whether tokens can be verified."""
    is_given = settings["JWT_SECRET"] or settings["JWT_PUBLIC_KEY"]
    if is_given or is_there(f"{folder}/{auth.KEY_FILE}", folder):
        auth.open_tokens(settings, folder)
        say("ok", "there is a key for tokens")


def check_sign_in(settings: Settings) -> None:
    """Whether an identity provider describes itself, has what the page needs to sign people in
    there, and has keys, unless they come from elsewhere."""
    if sentence := sign_in_warning(settings):
        say("warning", sentence)
    provider = IdentityProvider(settings)
    try:
        found = provider.discover()
    except (Fault, *NOT_UNDERSTOOD) as error:
        advice = "is it the issuer's own address, and is it reached from here?"
        raise ValueError(f"{provider.url} cannot be had ({error}); {advice}") from None
    if found.lacks:
        raise ValueError(f"{provider.url} is not fit: {'; '.join(found.lacks)}")
    say("ok", f"people sign in at {provider.issuer}, as the client {provider.client_id}")
    if not settings["JWT_JWKS_URL"]:
        check_published_keys(settings, found.jwks_uri)


def check_published_keys(settings: Settings, url: str) -> None:
    """Whether an identity provider has keys there, and a clock that is this machine's."""
    if sentence := audience_warning(settings):
        say("warning", sentence)
    try:
        keys = PublishedKeys(url).published.get().values()
    except (Fault, ValueError, LookupError, TypeError) as error:
        if "jwks_uri" in str(error):  # it says what to write
            raise
        advice = "is it the address of a JWKS, and is it reached from here?"
        raise ValueError(f"its keys cannot be had ({error}); {advice}") from None
    if not keys:
        raise ValueError("it publishes no key that is taken: every token is refused")
    say("ok", f"{url} publishes {sum(map(len, keys))} keys that are taken")
    headers, _ = ask(url)
    date = parse_date(headers.get("Date"))
    ahead = time.time() - date.timestamp() if date else 0
    if abs(ahead) > auth.LEEWAY:
        text = f"this machine's clock is {ahead:+.0f} s from that of {url}: set it right"
        say("warning", text)


def check_proxies(settings: Settings) -> None:
    """Whose word is taken for a user, and who else might give it."""
    if not settings["TRUSTED_USER_HEADER"]:
        return
    say("ok", f"users may be named by {describe_proxies(settings)}")
    for sentence in filter(None, map(proxy_warning, settings["TRUSTED_PROXIES"])):
        say("warning", sentence)


def check_certificates() -> None:
    """Whether the certificates are there by which other servers are known."""
    if sentence := certificates_warning():
        raise SystemExit(sentence)


# Providers


def check_provider(settings: Settings, catalog: Catalog, provider: Provider) -> None:
    """Whether it answers, and lists the models that are set; whether the default model answers,
    where it is its own."""
    named = named_models(settings, catalog, provider)
    tried = []
    try:
        listed = catalog.fetch(provider)
        say("ok", f"{provider.known_as} answers, and lists {len(listed)} models")
    except ModelError as error:
        if not named:
            raise
        # Some servers have no list: whether a model answers decides.
        listed, tried = named, named[:1]
        say("warning", str(error))
    for model in named:
        if not {*spellings(model)}.intersection(listed):
            others = ", ".join(listed[:LISTED]) or "nothing"
            say("warning", f"{provider.known_as} does not list {model}, but {others}")
    default = catalog.default()
    if catalog.provider_of(default) is provider:
        tried = [default]
    for model in tried:
        check_model(provider, model, settings["MAX_TOKENS"])


def named_models(settings: Settings, catalog: Catalog, provider: Provider) -> list[str]:
    """The models of this provider that are set, each once."""
    named = [catalog.known_default, *(settings["MODELS"] or ()), settings["TITLE_MODEL"]]
    named = dict.fromkeys(filter(None, named))
    return [model for model in named if catalog.provider_of(model) is provider]


def check_model(provider: Provider, model: str, max_tokens: int) -> None:
    """Whether it answers in time."""
    show("waiting", f"for {model}", err=True)  # it may have to be loaded first
    messages = [{"role": "user", "content": "Say ok."}]
    limit, exchange = min(ANSWER_TOKENS, max_tokens), Exchange(Call(ANSWER_TIMEOUT))
    try:
        "".join(provider.stream(exchange, model, "", messages, limit, {}, retries=0))
    except ModelError as error:
        if not error.is_answer:
            raise
    say("ok", f"{model} answers")
