"""What a start says: what is set up, and how to begin."""

import os
import pathlib
import re
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import click
from flask import Flask
from werkzeug.serving import is_running_from_reloader

import auth
import database
from api.services import services_of
from llm import Catalog
from logs import log, one_line
from providers.base import OLLAMA_LACKS
from providers.protocols import Provider
from settings import UNIX, Proxy, command, home
from upkeep import retention
from well_known import SERVICES, name_at, name_of
from wire import Call, Fault, Wire, join

# Model servers of this machine, which are asked at the start.
NEARBY = [each.url for each in SERVICES if each.name in ("ollama", "llamacpp")]
NEARBY_TIMEOUT = 0.2  # seconds of each, since the start waits
LINK_DAYS = 30  # for which the link holds that a start prints
OPEN_LABEL = f"open, a secret for {LINK_DAYS} days"  # what stands before it


# `flask run`


def is_looking_for_commands() -> bool:
    """Whether this is `flask` itself, which makes the application to see which commands there
    are."""
    context = click.get_current_context(silent=True)
    return context is not None and context.parent is None


def prepare_run(app: Flask) -> None:
    """Under `flask run`, have SIGTERM store what is under way, as Ctrl-C does, and print what is
    set up and how to begin."""
    context = click.get_current_context(silent=True)
    if context is None or context.info_name != "run":
        return
    if not is_running_from_reloader():  # --debug has a second process, anew with each change
        print_banner(app, **context.params)
    services = services_of(app)
    services.replies.start_keeper()
    services.sweeper.start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def print_banner(app: Flask, host: str, port: int, cert: Any, **others: Any) -> None:
    """What a person sees first, once it is true: a line of each, and the link last, behind Flask's
    own line."""
    if listens(host, port):
        raise click.ClickException(
            f"Another program listens on port {port}. Stop it, or: {command()} run -p {port + 1}"
        )
    wish = os.environ.get("PORT", "").strip()
    if wish not in ("", str(port)):
        log.warning(
            "PORT is not read by `%s run`, which listens on port %d. Write: %s run --port %s",
            *(command(), port, command(), wish),
        )
    text = banner(app, f"{'https' if cert else 'http'}://{reachable(host)}:{port}/")
    if "://" in host:  # a socket of the file system: no browser goes there
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
    except (OSError, UnicodeError):  # of a socket's long name, `unix:///…`, IDNA can make nothing
        return False


def banner(app: Flask, url: str) -> str:
    """Six lines: the release, the database, the keys, the providers, a request to try, and the
    page's address."""
    tokens = services_of(app).tokens
    described = describe_start(app)
    described["providers"] += f"; the default model is {described.pop('model')}"
    # `token` makes its token: one for the link is long enough to look at.
    curl = (
        f"curl -N {url}sessions -H 'Accept: text/event-stream' "
        f'-H "Authorization: Bearer $({command()} token {tokens.local_user})" '
        """-H 'Content-Type: application/json' -d '{"content": "Hello, Parley!"}'"""
    )
    rows = [(name, one_line(text)) for name, text in described.items()]
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
    """Log what the service starts with, and who else might be taken for the trusted proxy."""
    described = describe_start(app)
    addresses = [f"{listener}{prefix}" for listener in listeners]
    start = {"version": app.config["VERSION"], "address": ",".join(addresses)}
    log.info("start", start | described)
    for listener in listeners:
        if UNIX in (app.config["TRUSTED_PROXIES"] or ()) and is_open_to_all(listener):
            log.warning(
                "every user of this machine may open %s, and be any user: close its folder to them",
                listener,
            )
    if addresses:  # with --reuse-port, each worker has listeners of its own
        show_link(app, addresses[0])


def is_open_to_all(address: str) -> bool:
    """Whether this is a socket, `unix:/run/parley/parley.sock`, that every user of the machine may
    open: they may write to it, and go into each of its folders."""
    if not address.startswith("unix:"):
        return False
    path = pathlib.Path(address.removeprefix("unix:")).absolute()
    try:
        may_write = bool(path.stat().st_mode & stat.S_IWOTH)
        return may_write and all(each.stat().st_mode & stat.S_IXOTH for each in path.parents)
    except (OSError, ValueError):  # it has no file: there are no modes, then
        return True


def show_link(app: Flask, address: str) -> None:
    """Where gunicorn starts on a terminal, print the page's address; with a token, where this
    server makes its own key. A log, which others read, is not told a token."""
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


# What is set up


def describe_start(app: Flask) -> dict[str, str]:
    """What the service starts with, by name. Where no provider is set, and a model server of this
    machine answers, that is named."""
    others = audience_warning(app.config), sign_in_warning(app.config), users_warning(app.config)
    for sentence in filter(None, (*others, models_warning(app.config), certificates_warning())):
        log.warning(sentence)
    for proxy in app.config["TRUSTED_PROXIES"] or ():
        if not isinstance(proxy, str) and not proxy.is_private and proxy.num_addresses > 1:
            log.warning(proxy_warning(proxy))
    catalog = services_of(app).catalog
    described = describe(app.config, app.instance_path, catalog)
    try:
        if sentence := retention.begin(app.config["RETENTION_DAYS"]):
            described["retention"] = sentence
    except database.Unavailable as error:  # a sweep notes it later
        log.warning("how many sessions are due is not known: %s", database.reason(error))
    if list(catalog.providers) == ["echo"]:
        described["model"] += find_nearby()
    return described


def find_nearby() -> str:
    """What is said of a model server of this machine, if one answers."""
    for url in NEARBY:
        try:
            headers, text = ask(f"{url}/models", seconds=NEARBY_TIMEOUT)
        except Fault:
            continue
        if '"data"' in text:
            name = name_of(headers.get("Server")) or name_at(url)
            advice = f"put OPENAI_BASE_URL={url} into {os.path.join(home() or '', '.env')}"
            if re.search(r'"data":\s*null', text):
                advice = f"{OLLAMA_LACKS}; then {advice}"
            return f"; {name} answers on this machine: {advice}"
    return ""


def describe(settings: Mapping[str, Any], folder: str, catalog: Catalog) -> dict[str, str]:
    """What is set up, by name, without a key or a password. Nothing is asked, opened or made."""
    names = [each.known_as for each in catalog.providers.values()]
    providers = map(describe_provider, catalog.providers.values())
    described = {
        "database": database.url_of(settings, folder),
        "keys": describe_keys(settings) or f"{folder}/{auth.KEY_FILE}",
        "providers": ", ".join(providers),
        "model": catalog.known_default or f"the first that {', else '.join(names)} lists",
    }
    if settings["TRUSTED_USER_HEADER"]:
        described["proxies"] = describe_proxies(settings)
    return {name: hide_secrets(text) for name, text in described.items()}


def describe_provider(provider: Provider) -> str:
    """What it is called, unless that is its place, and where it is."""
    name = provider.known_as
    if name in provider.base_url:
        return provider.base_url
    return f"{name} {provider.base_url}".strip()


def describe_keys(settings: Mapping[str, Any]) -> str:
    """Where the keys for tokens come from; nothing where this server has its own."""
    for name in ("JWT_PUBLIC_KEY", "JWT_SECRET"):
        if settings[name]:
            return name
    if settings["JWT_JWKS_URL"]:
        return settings["JWT_JWKS_URL"]
    return f"those of {settings['JWT_ISSUER']}" if settings["OIDC_CLIENT_ID"] else ""


def describe_proxies(settings: Mapping[str, Any]) -> str:
    """Where the user is named, and by whom: `Remote-User from unix, 10.0.0.7`."""
    proxies = map(show_proxy, settings["TRUSTED_PROXIES"])
    return f"{settings['TRUSTED_USER_HEADER']} from {', '.join(proxies)}"


def show_proxy(proxy: Proxy) -> str:
    """`10.0.0.0/8`, `10.0.0.7` or `unix`."""
    if isinstance(proxy, str):
        return proxy
    return str(proxy) if proxy.num_addresses > 1 else str(proxy.network_address)


def hide_secrets(text: str) -> str:
    """The same with no user and no password in its URLs: either may be a key."""
    text = re.sub(r"//[^?\s]*@", "//***@", text)
    return re.sub(r"([?&][^=&\s]*(?:password|secret|%)[^=&]*=)[^&\s]*", r"\1***", text)


def proxy_warning(proxy: Proxy) -> str:
    """A sentence if others may connect as this proxy does, as far as its address tells; else
    nothing."""
    if isinstance(proxy, str):
        return ""
    others = f"every machine of {proxy}" if proxy.prefixlen else "everybody"
    if proxy.is_loopback:
        others = "every program of this machine"
    elif proxy.num_addresses == 1:
        return ""
    advice = "name the proxy's own address, or unix and a socket that only it may use"
    return f"TRUSTED_PROXIES: {others} may be any user; {advice}"


def users_warning(settings: Mapping[str, Any]) -> str:
    """A sentence if the person who runs this server is no user of it; else nothing."""
    others = ("JWT_PUBLIC_KEY", "JWT_JWKS_URL", "OIDC_CLIENT_ID")
    user = auth.local_user(settings)
    if user == auth.LOCAL_USER or any(settings[name] for name in others):
        return ""
    return (
        f"ALLOWED_USERS lacks {auth.name_of(auth.LOCAL_USER)}, so the link of `{command()} run` "
        f"signs in as {auth.name_of(user)}, the first who is allowed."
    )


def models_warning(settings: Mapping[str, Any]) -> str:
    """A sentence if MODELS is probably several ids that are taken for one; else nothing."""
    odd = next((name for name in settings["MODELS"] or () if " " in name), None)
    if odd is None:
        return ""
    return f"MODELS: {odd} is one model with spaces in its id. Write {','.join(odd.split())}"


def certificates_warning() -> str:
    """A sentence if the environment names certificates that are not there; else nothing."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # requests takes the first that is set
        if path := os.environ.get(name):
            if os.path.exists(path):
                break
            return f"{name}: {path} is not there. Name a file of certificates, or remove {name}"
    return ""


def audience_warning(settings: Mapping[str, Any]) -> str:
    """A sentence where tokens are taken that were made for other services; else nothing."""
    if not settings["JWT_JWKS_URL"] or settings["JWT_AUDIENCE"] or settings["OIDC_CLIENT_ID"]:
        return ""
    return (
        "JWT_AUDIENCE is not set: tokens that the identity provider made for other services "
        "are taken, too. Write JWT_AUDIENCE=NAME, with what the tokens for this one have as aud."
    )


def sign_in_warning(settings: Mapping[str, Any]) -> str:
    """A sentence where strangers may sign in; else nothing."""
    if not settings["OIDC_CLIENT_ID"] or settings["ALLOWED_USERS"] is not None:
        return ""
    return (
        f"ALLOWED_USERS is not set: everybody with an account at {settings['JWT_ISSUER']} is let "
        "in. Write ALLOWED_USERS=alice@example.com,bob@example.com, with the e-mails of your own "
        "people."
    )


# Addresses


def reachable(host: str) -> str:
    """How others name this machine in a URL, where all of its addresses are listened on."""
    if host in ("0.0.0.0", "::"):
        return _own_address()
    return f"[{host}]" if ":" in host else host


def _own_address() -> str:
    try:
        with socket.socket(type=socket.SOCK_DGRAM) as other:
            other.connect(("192.0.2.1", 9))  # of no machine (RFC 5737); nothing is sent
            return other.getsockname()[0]
    except OSError:
        return "127.0.0.1"


def link_for(tokens: auth.Tokens, subject: str, days: int, url: str) -> str:
    """The page's address, by which whoever opens it is this user. Raises InvalidToken."""
    return f"{url.rstrip('/')}/#token={tokens.sign(subject, days)}"


def ask(
    url: str, headers: Mapping[str, str] | None = None, seconds: float = 5
) -> tuple[Mapping[str, str], str]:
    """Headers and text of the answer to a GET, whatever its status. Raises a Fault of the wire."""
    sent = {"Connection": "close"} | dict(headers or {})
    with Wire(url).request(Call(seconds), "GET", "", sent) as response:
        return response.headers, join(response.chunks()).decode("utf-8", "replace")
