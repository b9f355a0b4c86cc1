"""What looks wrong in the settings, though the service starts: a sentence each, or ""."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import auth
from settings import Proxy, command


def of_start(settings: Mapping[str, Any]) -> Iterator[str]:
    """All warnings of a start."""
    sentences = [
        about_audience(settings),
        about_sign_in(settings),
        about_users(settings),
        about_models(settings),
        about_certificates(),
    ]
    for proxy in settings["TRUSTED_PROXIES"] or ():
        # A private network may have only proxies in it.
        if not isinstance(proxy, str) and not proxy.is_private and proxy.num_addresses > 1:
            sentences.append(about_proxy(proxy))
    return filter(None, sentences)


def about_proxy(proxy: Proxy) -> str:
    """Whether the address of this proxy covers others, too."""
    if isinstance(proxy, str):
        return ""
    others = f"every machine in {proxy}" if proxy.prefixlen else "everybody"
    if proxy.is_loopback:
        others = "every program on this machine"
    elif proxy.num_addresses == 1:
        return ""
    advice = "name the proxy's own address, or unix and a socket that only it may use"
    return f"TRUSTED_PROXIES: {others} can pose as any user; {advice}"


def about_users(settings: Mapping[str, Any]) -> str:
    """Whether the person who runs this server is not among its users."""
    others = ("JWT_PUBLIC_KEY", "JWT_JWKS_URL", "OIDC_CLIENT_ID")
    user = auth.local_user(settings)
    if user == auth.LOCAL_USER or any(settings[name] for name in others):
        return ""
    return (
        f"ALLOWED_USERS lacks {auth.name_of(auth.LOCAL_USER)}, so the link of `{command()} run` "
        f"signs in as {auth.name_of(user)}, the first user who is allowed."
    )


def about_models(settings: Mapping[str, Any]) -> str:
    """Whether MODELS probably has spaces instead of commas."""
    odd = next((name for name in settings["MODELS"] or () if " " in name), None)
    if odd is None:
        return ""
    return f"MODELS: {odd} is one model with spaces in its id. Write {','.join(odd.split())}"


def about_certificates() -> str:
    """Whether the environment names a file of certificates that does not exist."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # requests uses the first that is set
        if path := os.environ.get(name):
            if os.path.exists(path):
                break
            return f"{name}: {path} does not exist. Name a file of certificates, or unset {name}"
    return ""


def about_audience(settings: Mapping[str, Any]) -> str:
    """Whether tokens for other services are accepted."""
    if not settings["JWT_JWKS_URL"] or settings["JWT_AUDIENCE"] or settings["OIDC_CLIENT_ID"]:
        return ""
    return (
        "JWT_AUDIENCE is not set: tokens that the identity provider made for other services "
        "are accepted, too. Write JWT_AUDIENCE=NAME, the aud of the tokens for this one."
    )


def about_sign_in(settings: Mapping[str, Any]) -> str:
    """Whether people whom nobody has allowed can sign in."""
    if not settings["OIDC_CLIENT_ID"] or settings["ALLOWED_USERS"] is not None:
        return ""
    return (
        f"ALLOWED_USERS is not set: everybody with an account at {settings['JWT_ISSUER']} can use "
        "this server. Write ALLOWED_USERS=alice@example.com,bob@example.com, with the e-mails of "
        "your own people."
    )
