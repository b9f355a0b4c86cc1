"""OpenID Connect: the identity provider at which people sign in, as it describes itself, and what
its tokens call them."""

import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import wire
from keys import InvalidToken, fetch_json
from settings import is_secure_url
from well_known import PORTS

PATH = "/.well-known/openid-configuration"
DISCOVERY_TIMEOUT, DISCOVERY_TTL = 10, 24 * 3600  # seconds
FAILURE_TTL = 5  # seconds after which it is asked again, or as many as the failure took
LONGEST_NAME = 255  # characters
# What the `typ` of other tokens says: those for access (RFC 9068), and those by which a provider
# signs somebody out (OpenID Connect Back-Channel Logout 1.0, section 2.4), which have `events`.
NO_ID_TOKENS = ("at+jwt", "application/at+jwt", "logout+jwt", "application/logout+jwt")
OTHER_AUDIENCE = "The token is for another audience."


class Discovered(NamedTuple):
    """What the page and this server need of a discovery document. `lacks` are sentences on what the
    page needs, and the identity provider says that it does not have."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    end_session_endpoint: str | None
    lacks: tuple[str, ...]


class IdentityProvider:
    """The one at JWT_ISSUER. Its discovery document (OpenID Connect Discovery 1.0, section 4) is
    fetched by one thread for all, and kept for a day."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.issuer, self.client_id = settings["JWT_ISSUER"], settings["OIDC_CLIENT_ID"]
        self.scope = settings["OIDC_SCOPE"]
        self.url = self.issuer.removesuffix("/") + PATH
        self._wire = wire.Wire(self.url)
        name = f"The discovery document at {self.url}"
        self._discovery = wire.SingleFlight(name, self._fetch, DISCOVERY_TTL, FAILURE_TTL)

    def at_hand(self) -> Discovered | None:
        """What there is, without waiting for it; it is fetched in the background if it is time
        to."""
        return self._discovery.at_hand()

    def soon(self) -> Discovered | None:
        """What there is within ten seconds. A failure is not waited for again at once."""
        return self._discovery.soon(time.monotonic() + DISCOVERY_TIMEOUT)

    def discover(self) -> Discovered:
        """What there is within ten seconds. Raises a Fault or what is in `wire.NOT_UNDERSTOOD`."""
        return self._discovery.get()

    def find_keys(self) -> str:
        """The URL of its keys. Raises ValueError where that is not known within ten seconds."""
        if (found := self.soon()) is None:
            raise ValueError("its discovery document cannot be had")
        return found.jwks_uri

    def _fetch(self) -> Discovered:
        return read_discovery(fetch_json(self._wire, wire.Call(DISCOVERY_TIMEOUT)), self.issuer)

    def describe(self, found: Discovered | None) -> dict[str, str | None]:
        """How a page signs in there. Without its endpoints it cannot."""
        told = {"issuer": self.issuer, "client_id": self.client_id, "scope": self.scope}
        names = "authorization_endpoint", "token_endpoint", "end_session_endpoint"
        return told | {name: getattr(found, name, None) for name in names}

    def origins(self, found: Discovered | None) -> list[str]:
        """Those to which a page that signs in there has to speak: the token endpoint's, which is
        mostly the issuer's."""
        return [origin_of(found.token_endpoint if found else self.issuer)]


def read_discovery(document: Any, issuer: str) -> Discovered:
    """What the discovery document of this issuer says. Raises ValueError, which says what is odd
    about it."""
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    if (named := document.get("issuer")) != issuer:
        # A document of another one would have its keys taken (section 4.3).
        raise ValueError(f"its issuer is {json.dumps(named)[:200]}, and JWT_ISSUER is {issuer}")
    urls = []
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        if (url := _url_in(document, name)) is None:
            raise ValueError(f"its {name} is no https:// URL (http:// on this machine only)")
        urls.append(url)
    if issuer.startswith("https:") and not urls[-1].startswith("https:"):
        # This server would ask a service of its own machine.
        raise ValueError("its jwks_uri is no https:// URL, as the issuer is")
    return Discovered(*urls, _url_in(document, "end_session_endpoint"), _lacking(document))


def _url_in(document: Mapping[str, Any], name: str) -> str | None:
    url = document.get(name)
    return url if isinstance(url, str) and is_secure_url(url) else None


def _lacking(document: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence for each thing that it says it does not have; what it does not tell may be
    there."""
    needed = {"response_types_supported": "code", "code_challenge_methods_supported": "S256"}
    told = {name: document.get(name) for name in needed}
    return tuple(
        f"its {name} lacks {value}, by which the page signs in"
        for name, value in needed.items()
        if isinstance(told[name], list) and value not in told[name]
    )


def origin_of(url: str) -> str:
    """The origin of a secure URL, as browsers write it: without the port that is the scheme's
    own."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = f":{parts.port}" if parts.port not in (None, PORTS[parts.scheme]) else ""
    return f"{parts.scheme}://{host}{port}"


# Tokens


def audiences_in(claims: Mapping[str, Any]) -> list[str]:
    """For whom a token is (RFC 7519, section 4.1.3); nobody where that is odd."""
    named = claims.get("aud")
    audiences = named if isinstance(named, list) else [named]
    return audiences if all(isinstance(each, str) for each in audiences) else []


def check_id_token(claims: Mapping[str, Any], header: Mapping[str, Any], client_id: str) -> None:
    """Raises InvalidToken where this is no ID token of this client (OpenID Connect Core 1.0,
    section 3.1.3.7)."""
    audiences = audiences_in(claims)
    if client_id not in audiences:
        raise InvalidToken(OTHER_AUDIENCE)
    if len(audiences) > 1 and "azp" not in claims:
        raise InvalidToken("The token is for several audiences, and does not say whose it is: azp.")
    # A token for access names its client otherwise (RFC 9068, section 2.2).
    if any(claims.get(claim, client_id) != client_id for claim in ("azp", "client_id")):
        raise InvalidToken("The token was given to another client.")
    # Keycloak says in a claim what a token is: ID, Bearer or Refresh.
    is_other = str(header.get("typ", "")).lower() in NO_ID_TOKENS or claims.get("typ", "ID") != "ID"
    if "events" in claims or is_other:
        raise InvalidToken("The token is no ID token.")


# What a token calls a person. Nothing of it but a verified e-mail decides what that person may do:
# anybody may be able to take any other name.


def name_in(claims: Mapping[str, Any]) -> str | None:
    """What the person is called, where the claims say so."""
    names = (claims.get(claim) for claim in ("preferred_username", "name"))
    return next(filter(_is_name, names), None)


def email_in(claims: Mapping[str, Any]) -> str | None:
    """The e-mail that the provider has verified, if there is one."""
    email = claims.get("email")
    is_verified = claims.get("email_verified") is True
    return email if is_verified and _is_name(email) and "@" in email else None


def _is_name(value: Any) -> bool:
    """Whether it is a text that is not blank, not too long, and that every database holds."""
    return (
        isinstance(value, str)
        and bool(value.strip())
        and len(value) <= LONGEST_NAME
        and not wire.UNSTORABLE.search(value)
    )
