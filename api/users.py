"""Who asks: the user of a bearer token, or the one whom a trusted proxy names.

Where a bearer token is sent, it decides, also where it is refused. A browser sends none by itself;
but any page can have it ask by way of the proxy. So a request that is known by the proxy's word
alone is refused where the browser says that another site's page asks.
"""

import ipaddress
from urllib.parse import urlsplit

from flask import current_app, g, request
from flask.typing import ResponseReturnValue
from werkzeug import exceptions

import auth
from api import errors
from api.services import services
from settings import UNIX

LOCAL = "<local>"  # what werkzeug's own server calls a peer by a socket of the file system
# What `Sec-Fetch-Site` says of this server's own pages, and of an address that a person typed
# (Fetch Metadata Request Headers, W3C).
OWN_SITES = ("same-origin", "none")
DEFAULT_PORTS = {"http": 80, "https": 443}
# What anybody may see, whichever page leads there: besides these, navigations to the page.
FREE = ("/health", "/openapi.json")


def show_me() -> ResponseReturnValue:
    """Tell who you are to this server."""
    return {"subject": g.user, "name": auth.name_of(g.user), "by": g.by}


def has_word() -> bool:
    """Whether this request has no bearer token, but the header of a trusted proxy, whatever that
    says."""
    header = current_app.config["TRUSTED_USER_HEADER"]
    return bool(header) and header in request.headers and not _has_token() and _is_trusted()


def refuse_other_sites() -> None:
    """Refuse what another site's page asks by way of the proxy. Raises Forbidden."""
    if g.by == "proxy" and _is_of_another_site() and not _is_free():
        raise exceptions.Forbidden(
            "Another site's page asks, which may not use your sign-in here. Open this server's own "
            "page, or send a token."
        )


def authenticate() -> None:
    """Know the user, without the database and the body. Raises Unauthorized, InvalidToken,
    BadRequest or Forbidden."""
    g.user = _named_by_proxy() if g.by == "proxy" else _named_by_token()
    allowed, blocked = current_app.config["ALLOWED_USERS"], current_app.config["BLOCKED_USERS"]
    name = auth.name_of(g.user)
    if allowed is not None and name not in allowed:
        g.why = f"ALLOWED_USERS lacks the name {name!r}."
    elif blocked is not None and name in blocked:
        g.why = f"BLOCKED_USERS has the name {name!r}."
    else:
        return
    raise exceptions.Forbidden(
        "This user is not allowed on this server. Ask the person who runs it."
    )


# By a token


def _has_token() -> bool:
    return request.authorization is not None and request.authorization.type == "bearer"


def _named_by_token() -> str:
    tokens = services().tokens
    if _has_token():
        return tokens.verify(request.authorization.token or "")
    detail = f"Send a token: Authorization: Bearer <token>. {tokens.source}"
    if header := current_app.config["TRUSTED_USER_HEADER"]:
        detail += " Or come by the proxy of this server, which names its users."
        said = f"and sent no {header}" if _is_trusted() else "but is none of TRUSTED_PROXIES"
        g.why = f"The peer, {_peer()}, sent no token, {said}."
    raise exceptions.Unauthorized(detail, www_authenticate=[errors.CHALLENGE])


# By a trusted proxy


def _is_trusted() -> bool:
    """Whether the direct peer is one of `TRUSTED_PROXIES`, whatever its headers say."""
    peer, proxies = _peer(), current_app.config["TRUSTED_PROXIES"]
    if peer == UNIX:
        return UNIX in proxies
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:  # another server calls it so
        return False
    address = getattr(address, "ipv4_mapped", None) or address  # `::ffff:10.0.0.7` is `10.0.0.7`
    return any(address in network for network in proxies if network != UNIX)


def _peer() -> str:
    """The address of who has connected, or UNIX."""
    environ = request.environ
    peer = environ.get("parley.peer") or environ["REMOTE_ADDR"]  # werkzeug's server has the latter
    return UNIX if peer == LOCAL else peer


def _named_by_proxy() -> str:
    header = current_app.config["TRUSTED_USER_HEADER"]
    subject = auth.proxy_subject(request.headers[header])
    if subject is None or _times_sent(header) > 1:
        raise exceptions.BadRequest(
            f"The proxy must send {header} once, with a name. {auth.PROXY_NAME_ADVICE}"
        )
    return subject


def _times_sent(header: str) -> int:
    """How often a header came, `_` in the place of `-` too: a proxy that sets `Remote-User` may
    pass on a client's own `Remote_User`."""
    head = request.environ.get("parley.head", bytes)()
    names = (line.partition(b":")[0].rstrip().lower() for line in head.split(b"\r\n"))
    wanted = header.lower().encode()
    return sum(name.replace(b"_", b"-") == wanted for name in names)


def _is_of_another_site() -> bool:
    """Whether a browser says so. One that sends no `Sec-Fetch-Site`, as over plain HTTP, sends
    `Origin` with what may change something."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        return site not in OWN_SITES
    return origin is not None and not _is_own(origin)


def _is_own(origin: str) -> bool:
    """Whether this is the origin of the host that was asked, over whatever scheme: the proxy may
    have taken TLS off."""
    try:
        page, asked = urlsplit(origin), urlsplit(f"//{request.headers.get('Host', '')}")
        port = DEFAULT_PORTS.get(page.scheme)
        hosts = [(url.hostname, url.port or port) for url in (page, asked)]
    except ValueError:  # it is no URL
        return False
    return page.hostname is not None and hosts[0] == hosts[1]


def _is_free() -> bool:
    if request.path == "/":
        return request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
    return request.path in FREE or request.path.startswith("/static/")
