"""`flask check`: try all that is set up, and say what to do."""

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
from maintenance.migrations import MIGRATIONS
from oidc import IdentityProvider
from providers.answer import Exchange
from providers.base import HTTPProvider
from providers.faults import ModelError
from providers.nearby import ask
from providers.protocols import Provider
from settings import SettingError, read_environment, read_settings, unknown_settings, whose
from start import warnings
from start.summary import describe_proxies, hide_secrets
from wire import NOT_UNDERSTOOD, Call, Fault

ANSWER_TIMEOUT = 30  # seconds for a model to answer
ANSWER_TOKENS = 256
LISTED = 9  # models that a warning names

Settings = dict[str, Any]
# The settings that are checked, as a failure names them, and the function that checks them.
Check = tuple[str, Callable[[], None]]


def show(level: str, sentence: str, err: bool = False) -> None:
    """Print one line, without control characters that a provider's words may have."""
    click.echo(one_line(f"{level:8} {sentence}"), err=err)


def say(level: str, sentence: str) -> None:
    show(level, hide_secrets(sentence))


@click.command("check")
def check_command() -> None:
    """Try all that is set up, and say what to do. The status is 0 if nothing failed. Changes
    nothing. Asks the default model for one word, and one of each provider for which a ..._BODY is
    set; this costs a few tokens."""
    environment = read_environment(current_app.root_path)
    try:
        settings = read_settings(environment)
        catalog = open_catalog(settings)
    except SettingError as error:
        problem = str(error).rstrip(".")
        show("FAILED", f"{problem}. Correct this first, to try the rest.", err=True)
        sys.exit(1)
    doubts = warnings.about_users(settings), warnings.about_models(settings)
    for sentence in (*unknown_settings(environment, settings), *filter(None, doubts)):
        say("warning", sentence)
    folders = current_app.instance_path, current_app.root_path
    results = [passes(*check) for check in checks(settings, catalog, *folders)]
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
        if settings.get(f"{name.upper()}_BODY"):
            names += f", {name.upper()}_BODY"
        yield names, lambda provider=provider: check_provider(settings, catalog, provider)
    # gunicorn's configuration checks itself, and raises SystemExit.
    yield "PORT", lambda: runpy.run_path(os.path.join(code, "gunicorn.conf.py"))


def passes(setting: str, check: Callable[[], None]) -> bool:
    """Whether this check passed; if not, print why."""
    try:
        check()
        return True
    except SystemExit as error:  # a SettingError
        reason = str(error)
    except Exception as error:  # of any kind: the other checks must run
        reason = hide_secrets(f"{setting}: {error}")
    reason = reason.partition("\n")[0].replace(" Ask again later.", "")
    show("FAILED", reason.removesuffix(" Tell the person who runs this server."))
    return False


def check_file(path: str, folder: str) -> bool:
    """Whether this file exists. If not, a start will create it, with its folder; raises ValueError
    if it could not."""
    if os.path.exists(path):
        status = os.stat(path)
        if status.st_mode & 0o077 or status.st_uid != os.getuid():
            advice = "only the server's user should be able to read it (chown, chmod 600)"
            say("warning", f"{whose(path)}; {advice}")
        return True
    parent = os.path.dirname(path)
    while path.startswith(folder) and not os.path.exists(parent):  # a start creates these, too
        parent = os.path.dirname(parent)
    if not os.access(parent, os.W_OK | os.X_OK):
        advice = f"create its folder, {parent}, writable for this user"
        raise ValueError(f"{path} cannot be created: {advice}")
    say("ok", f"{path} will be created at the first start")
    return False


def check_database(settings: Settings, folder: str) -> None:
    """Open the database as a start does. Each missing migration is replaced by an exit, which rolls
    everything back."""
    url = database.url_of(settings, folder)
    path = os.path.abspath(url[10:])
    if url.startswith("sqlite") and not os.path.isdir(path) and not check_file(path, folder):
        return
    database.limit_time()
    try:
        database.open_database(settings, folder, [sys.exit] * len(MIGRATIONS))
    except SystemExit as error:
        if error.code:  # a SettingError
            raise
    with db.connection_context():
        db.check()
        db.discard()  # SQLite removes its extra files (-wal, -shm) when the last connection closes
    say("ok", f"{url} can be read and written")


# Keys


def check_key(settings: Settings, folder: str) -> None:
    """Check that there is a key that verifies tokens."""
    is_given = settings["JWT_SECRET"] or settings["JWT_PUBLIC_KEY"]
    if is_given or check_file(f"{folder}/{auth.KEY_FILE}", folder):
        auth.open_tokens(settings, folder)
        say("ok", "there is a key for tokens")


def check_sign_in(settings: Settings) -> None:
    """Check the identity provider's discovery document, that it supports what the page needs to
    sign people in, and its keys, unless JWT_JWKS_URL has them."""
    if sentence := warnings.about_sign_in(settings):
        say("warning", sentence)
    provider = IdentityProvider(settings)
    try:
        found = provider.discover()
    except (Fault, *NOT_UNDERSTOOD) as error:
        advice = "is it the issuer's own address, and can it be reached from here?"
        raise ValueError(f"{provider.url} cannot be had ({error}); {advice}") from None
    if found.lacks:
        raise ValueError(f"{provider.url} does not fit: {'; '.join(found.lacks)}")
    say("ok", f"people sign in at {provider.issuer}, as the client {provider.client_id}")
    if not settings["JWT_JWKS_URL"]:
        check_published_keys(settings, found.jwks_uri)


def check_published_keys(settings: Settings, url: str) -> None:
    """Check that an identity provider has keys there, and that its clock agrees with this one."""
    if sentence := warnings.about_audience(settings):
        say("warning", sentence)
    try:
        keys = PublishedKeys(url).published.get().values()
    except (Fault, ValueError, LookupError, TypeError) as error:
        if "jwks_uri" in str(error):  # the error says what to write
            raise
        advice = "is it the address of a JWKS, and can it be reached from here?"
        raise ValueError(f"its keys cannot be had ({error}); {advice}") from None
    if not keys:
        raise ValueError("it publishes no usable key: every token is refused")
    say("ok", f"{url} publishes {sum(map(len, keys))} usable keys")
    headers, _ = ask(url)
    date = parse_date(headers.get("Date"))
    ahead = time.time() - date.timestamp() if date else 0
    if abs(ahead) > auth.LEEWAY:
        text = f"this machine's clock is {ahead:+.0f} s from that of {url}: correct it"
        say("warning", text)


def check_proxies(settings: Settings) -> None:
    """Say which proxies name the user, and warn if others could pass for one."""
    if not settings["TRUSTED_USER_HEADER"]:
        return
    say("ok", f"users may be named by {describe_proxies(settings)}")
    for sentence in filter(None, map(warnings.about_proxy, settings["TRUSTED_PROXIES"])):
        say("warning", sentence)


def check_certificates() -> None:
    """Check that the file of certificates exists that the environment names."""
    if sentence := warnings.about_certificates():
        raise SystemExit(sentence)


# Providers


def check_provider(settings: Settings, catalog: Catalog, provider: Provider) -> None:
    """Check that the provider answers and lists the models that are set, and that the default model
    answers if this provider has it."""
    models = [catalog.known_default, *(settings["MODELS"] or ()), settings["TITLE_MODEL"]]
    named = [
        model
        for model in dict.fromkeys(filter(None, models))
        if catalog.provider_of(model) is provider
    ]
    tried = []
    try:
        listed = [*catalog.fetch(provider)]
        say("ok", f"{provider.known_as} answers, and lists {len(listed)} models")
    except ModelError as error:
        if not named:
            raise
        # Some servers have no list of models: then we only try whether a model answers.
        listed, tried = named, named[:1]
        say("warning", str(error))
    if isinstance(provider, HTTPProvider) and provider.keeps_answers:
        check_kept_answers(provider)
    for model in named:
        if not {*spellings(model)}.intersection(listed):
            others = ", ".join(listed[:LISTED]) or "nothing"
            say("warning", f"{provider.known_as} does not list {model}; it lists {others}")
    default = catalog.default()
    if catalog.provider_of(default) is provider:
        tried = [default]
    elif isinstance(provider, HTTPProvider) and provider.extra:
        tried = [*named, *listed][:1]
    for model in tried:
        check_model(provider, model, settings["MAX_TOKENS"])


def check_kept_answers(provider: HTTPProvider) -> None:
    """Say whether this llama.cpp keeps answers, so that a reply can go on with the same one."""
    name = provider.known_as
    if provider.can_keep_answers():
        say("ok", f"{name} keeps answers: after a crash, nothing is computed twice")
    else:
        advice = "is it of mid-2026 or later, and does a proxy pass on /v1/stream and /v1/streams?"
        say("warning", f"{name} keeps no answers, so after a crash it computes again: {advice}")


def check_model(provider: Provider, model: str, max_tokens: int) -> None:
    """Check that this model answers in time."""
    show("waiting", f"for {model}", err=True)  # a local server may have to load it first
    messages = [{"role": "user", "content": "Say ok."}]
    limit, exchange = min(ANSWER_TOKENS, max_tokens), Exchange(Call(ANSWER_TIMEOUT))
    try:
        "".join(provider.stream(exchange, model, "", messages, limit, {}, retries=0))
    except ModelError as error:
        if not error.is_answer:
            raise
    say("ok", f"{model} answers")
