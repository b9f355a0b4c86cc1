"""What is set up, in a few words, for the banner and the log."""

import os
import re
from collections.abc import Mapping
from typing import Any

from flask import Flask

import auth
import database
from api.services import services_of
from llm import Catalog
from logs import log
from maintenance import retention
from providers import nearby
from providers.protocols import Provider
from settings import home
from start import warnings


def summarize(app: Flask) -> dict[str, str]:
    """What is set up, by name. Logs warnings. If no provider is set up, mentions a model server
    that answers on this machine."""
    for sentence in warnings.of_start(app.config):
        log.warning(sentence)
    catalog = services_of(app).catalog
    summary = describe(app.config, app.instance_path, catalog)
    try:
        if retained := retention.note_setting(app.config["RETENTION_DAYS"]):
            summary["retention"] = retained
    except database.Unavailable as error:  # a later sweep does it
        log.warning("cannot count the sessions to delete: %s", database.reason(error))
    if list(catalog.providers) == ["echo"]:
        summary["model"] += find_nearby()
    return summary


def find_nearby() -> str:
    """A clause about a model server of this machine, if one answers."""
    found = nearby.find()
    return f"; {found.advice(os.path.join(home() or '', '.env'))}" if found else ""


def describe(settings: Mapping[str, Any], folder: str, catalog: Catalog) -> dict[str, str]:
    """What the settings set up, by name, without keys and passwords. Uses no network and no
    database."""
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
    """The provider's name, unless its address contains that, and its address."""
    name = provider.known_as
    if name in provider.base_url:
        return provider.base_url
    return f"{name} {provider.base_url}".strip()


def describe_keys(settings: Mapping[str, Any]) -> str:
    """Where the keys of tokens come from; "" if this server has its own."""
    for name in ("JWT_PUBLIC_KEY", "JWT_SECRET"):
        if settings[name]:
            return name
    if settings["JWT_JWKS_URL"]:
        return settings["JWT_JWKS_URL"]
    return f"those of {settings['JWT_ISSUER']}" if settings["OIDC_CLIENT_ID"] else ""


def describe_proxies(settings: Mapping[str, Any]) -> str:
    """The header that names the user, and the proxies that may send it: `Remote-User from unix,
    10.0.0.7, 10.1.0.0/16`."""
    shown = [
        proxy if isinstance(proxy, str) or proxy.num_addresses > 1 else proxy.network_address
        for proxy in settings["TRUSTED_PROXIES"]
    ]
    return f"{settings['TRUSTED_USER_HEADER']} from {', '.join(map(str, shown))}"


def hide_secrets(text: str) -> str:
    """The text without user and password in its URLs: either may be a key."""
    text = re.sub(r"//[^?\s]*@", "//***@", text)
    return re.sub(r"([?&][^=&\s]*(?:password|secret|%)[^=&]*=)[^&\s]*", r"\1***", text)
