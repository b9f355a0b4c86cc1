"""OpenID Connect: the identity provider's discovery document, the checks of its ID tokens, and the
names in them."""

import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import wire
from keys import InvalidToken, fetch_json
from settings import is_secure_url
from well_known import PORTS, host_in_url

PATH = "/.well-known/openid-configuration"
DISCOVERY_TIMEOUT, DISCOVERY_TTL = 10, 24 * 3600  # seconds
FAILURE_TTL = 5  # seconds until the next attempt, or as many as the failure took
LONGEST_NAME = 255  # characters
# `typ` of tokens that are not ID tokens: access tokens (RFC 9068) and logout tokens (OpenID Connect
# Back-Channel Logout 1.0, section 2.4). The latter have `events`, too.
OTHER_TOKEN_TYPES = ("at+jwt", "application/at+jwt", "logout+jwt", "application/logout+jwt")
OTHER_AUDIENCE = "The token is for another audience."


class Discovered(NamedTuple):
    """What the page and this server need of a discovery document."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    end_session_endpoint: str | None
    lacks: tuple[str, ...]  # a sentence for each feature that the page needs and does not get


class IdentityProvider:
    """The identity provider at JWT_ISSUER. One thread fetches its discovery document (OpenID
    Connect Discovery 1.0, section 4) for all, and it is cached for a day."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.issuer, self.client_id = settings["JWT_ISSUER"], settings["OIDC_CLIENT_ID"]
        self.scope = settings["OIDC_SCOPE"]
        self.url = self.issuer.removesuffix("/") + PATH
        self._wire = wire.HTTPClient(self.url)
        name = f"The discovery document at {self.url}"
        self._discovery = wire.SingleFlight(name, self._fetch, DISCOVERY_TTL, FAILURE_TTL)

    def at_hand(self) -> Discovered | None:
        """The cached discovery document, without waiting. If it is due, it is fetched in the
        background."""
        return self._discovery.at_hand()

    def soon(self) -> Discovered | None:
        """The discovery document, or None if it does not come within ten seconds. Soon after a
        failure, None at once."""
        return self._discovery.soon(time.monotonic() + DISCOVERY_TIMEOUT)

    def discover(self) -> Discovered:
        """The discovery document, within ten seconds. Raises a Fault or one of
        `wire.NOT_UNDERSTOOD`."""
        return self._discovery.get()

    def find_keys(self) -> str:
        """The URL of its keys. Raises ValueError if it is not known within ten seconds."""
        if (found := self.soon()) is None:
            raise ValueError("its discovery document cannot be had")
        return found.jwks_uri

    def _fetch(self) -> Discovered:
        return read_discovery(fetch_json(self._wire, wire.Call(DISCOVERY_TIMEOUT)), self.issuer)

    def describe(self, found: Discovered | None) -> dict[str, str | None]:
        """What the page needs to sign in there. The endpoints are null if they are not known."""
        described = {"issuer": self.issuer, "client_id": self.client_id, "scope": self.scope}
        names = "authorization_endpoint", "token_endpoint", "end_session_endpoint"
        return described | {name: getattr(found, name, None) for name in names}

    def origins(self, found: Discovered | None) -> list[str]:
        """The origins that the page calls to sign in: the token endpoint's, which is mostly the
        issuer's."""
        return [origin_of(found.token_endpoint if found else self.issuer)]


def read_discovery(document: Any, issuer: str) -> Discovered:
    """Check and read the discovery document of this issuer. Raises ValueError, which says what is
    wrong with it."""
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    if (named := document.get("issuer")) != issuer:
        # The keys of another issuer would be trusted for this one (section 4.3).
        raise ValueError(f"its issuer is {json.dumps(named)[:200]}, and JWT_ISSUER is {issuer}")
    urls = []
    for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
        if (url := _url_in(document, name)) is None:
            raise ValueError(f"its {name} is not an https:// URL (http:// only on this machine)")
        urls.append(url)
    if issuer.startswith("https:") and not urls[-1].startswith("https:"):
        # An http URL on this machine would make this server send requests to its own services.
        raise ValueError("its jwks_uri is not an https:// URL, though the issuer is")
    return Discovered(*urls, _url_in(document, "end_session_endpoint"), _missing_features(document))


def _url_in(document: Mapping[str, Any], name: str) -> str | None:
    url = document.get(name)
    return url if isinstance(url, str) and is_secure_url(url) else None


def _missing_features(document: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence for each feature that the page needs, and that the document's lists do not have.
    A list that is missing says nothing."""
    needed = {"response_types_supported": "code", "code_challenge_methods_supported": "S256"}
    supported = {name: document.get(name) for name in needed}
    return tuple(
        f"its {name} lacks {value}, which the page needs to sign in"
        for name, value in needed.items()
        if isinstance(supported[name], list) and value not in supported[name]
    )


def origin_of(url: str) -> str:
    """The origin of a secure URL, as browsers write it: without the default port of its scheme."""
    parts = urlsplit(url)
    host = host_in_url(parts.hostname or "")
    port = f":{parts.port}" if parts.port not in (None, PORTS[parts.scheme]) else ""
    return f"{parts.scheme}://{host}{port}"


# Tokens


def audiences_in(claims: Mapping[str, Any]) -> list[str]:
    """The audiences of a token (RFC 7519, section 4.1.3); none if `aud` is malformed."""
    named = claims.get("aud")
    audiences = named if isinstance(named, list) else [named]
    return audiences if all(isinstance(each, str) for each in audiences) else []


def check_id_token(claims: Mapping[str, Any], header: Mapping[str, Any], client_id: str) -> None:
    """Raises InvalidToken if this is not an ID token for this client (OpenID Connect Core 1.0,
    section 3.1.3.7)."""
    audiences = audiences_in(claims)
    if client_id not in audiences:
        raise InvalidToken(OTHER_AUDIENCE)
    if len(audiences) > 1 and "azp" not in claims:
        raise InvalidToken("The token has several audiences, and no azp that says whose it is.")
    # In an access token, the client is in `client_id` (RFC 9068, section 2.2).
    if any(claims.get(claim, client_id) != client_id for claim in ("azp", "client_id")):
        raise InvalidToken("The token was issued to another client.")
    # Keycloak also has a claim `typ`: ID, Bearer or Refresh.
    is_other = (
        str(header.get("typ", "")).lower() in OTHER_TOKEN_TYPES or claims.get("typ", "ID") != "ID"
    )
    if "events" in claims or is_other:
        raise InvalidToken("The token is not an ID token.")


# Names. Only a verified e-mail is used for authorization: at some providers, people can choose any
# other name themselves.


def name_in(claims: Mapping[str, Any]) -> str | None:
    """The person's name, if the claims have one."""
    names = (claims.get(claim) for claim in ("preferred_username", "name"))
    return next(filter(_is_name, names), None)


def email_in(claims: Mapping[str, Any]) -> str | None:
    """The e-mail that the provider has verified, if there is one."""
    email = claims.get("email")
    is_verified = claims.get("email_verified") is True
    return email if is_verified and _is_name(email) and "@" in email else None


def _is_name(value: Any) -> bool:
    """Whether this is a string that is not blank, not too long, and storable in any database."""
    return (
        isinstance(value, str)
        and bool(value.strip())
        and len(value) <= LONGEST_NAME
        and not wire.UNSTORABLE.search(value)
    )
