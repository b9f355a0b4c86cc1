"""Who asks: the user of a bearer token, or the one whom a trusted proxy names.

Where a bearer token is sent, it decides, also where it is refused. A browser sends none by itself;
but any page can have it ask by way of the proxy. So a request that is known by the proxy's word
alone is refused where the browser says that another site's page asks.
"""

import ipaddress
import re
from urllib.parse import urlsplit

from flask import current_app, g, request
from flask.typing import ResponseReturnValue
from werkzeug import exceptions

import auth
from api import errors
from api.services import services, step_aside
from settings import UNIX
from well_known import PORTS, is_loopback

# A scheme that has a token, which may stand behind another one: several lines become one.
BEARER = re.compile(r"(^|,)\s*bearer(?![\w-])", re.IGNORECASE)
# What `Sec-Fetch-Site` says of this server's own pages, and of an address that a person typed
# (Fetch Metadata Request Headers, W3C).
OWN_SITES = ("same-origin", "none")
ORIGIN = re.compile(r"(https?)://([^\s/?#@]+)", re.IGNORECASE)  # RFC 6454, section 6.2
# What anybody may see, whichever page leads there; besides these, navigations to the page.
PUBLIC_PATHS = ("/health", "/openapi.json")


def show_me() -> ResponseReturnValue:
    """Tell who you are to this server."""
    by = "proxy" if g.is_by_proxy else "token"
    return {"subject": g.user, "name": g.identity.name, "by": by}


def is_by_proxy() -> bool:
    """Whether this request has no bearer token, but the header of a trusted proxy, whatever that
    says."""
    header = current_app.config["TRUSTED_USER_HEADER"]
    return bool(header) and header in request.headers and not _has_token() and _is_trusted()


def refuse_other_sites() -> None:
    """Refuse what another site's page asks by way of the proxy. Raises Forbidden."""
    if g.is_by_proxy and _is_of_another_site() and not _may_any_site_ask():
        raise exceptions.Forbidden(
            "Another site's page asks, which may not use your sign-in here. Open this server's own "
            "page, or send a token."
        )


def authenticate() -> None:
    """Know the user, without the database and the body. Raises Unauthorized, InvalidToken,
    BadRequest, Forbidden or PreconditionFailed."""
    g.identity = _named_by_proxy() if g.is_by_proxy else _named_by_token()
    g.user = g.identity.subject
    g.is_operator = _is_operator()
    _check_access()
    # The proxy may name somebody else by now than who has the page open.
    if request.headers.get("For-Subject", g.user) != g.user:
        raise exceptions.PreconditionFailed(
            "Somebody else has signed in meanwhile. Load the page again."
        )


def _check_access() -> None:
    allowed, blocked = current_app.config["ALLOWED_USERS"], current_app.config["BLOCKED_USERS"]
    if allowed is not None and not _is_in(allowed):
        g.why = f"ALLOWED_USERS lacks {' and '.join(_compared())}."
    elif blocked is not None and _is_in(blocked):
        g.why = f"BLOCKED_USERS has {' or '.join(_compared())}."
    else:
        return
    raise exceptions.Forbidden(
        "This user is not allowed on this server. Ask the person who runs it."
    )


def _compared() -> list[str]:
    """What is looked for in these lists, for the log."""
    email = [f"the e-mail {g.identity.email!r}"] if g.identity.email else []
    return [f"the name {auth.name_of(g.user)!r}", *email]


def _is_in(users: list[str]) -> bool:
    """Whether this list has the user's name, letter for letter, or the e-mail, in any case. If an
    identity provider signs people in, an entry with `@` is an e-mail only: anybody there may be
    able to have a `sub` that ends like somebody's e-mail."""
    email, name = g.identity.email, auth.name_of(g.user)
    has_email = bool(email) and _folded(email) in map(_folded, users)
    has_name = name in users and not ("@" in name and services().tokens.provider)
    return has_name or has_email


def _folded(email: str) -> bytes:
    """The same in lower case. Of letters that are not ASCII some would become such: U+212A a k."""
    return email.encode("utf-8", "surrogatepass").lower()


# By a token


def _has_token() -> bool:
    return BEARER.search(request.headers.get("Authorization", "")) is not None


def _named_by_token() -> auth.Identity:
    tokens, authorization = services().tokens, request.authorization
    if _has_token():
        is_alone = authorization is not None and authorization.type == "bearer"
        g.token = authorization.token or "" if is_alone else request.headers["Authorization"]
        return tokens.verify(g.token, step_aside)
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
    except ValueError:  # it is not known
        return False
    address = getattr(address, "ipv4_mapped", None) or address  # `::ffff:10.0.0.7` is `10.0.0.7`
    return any(address in network for network in proxies if network != UNIX)


def _peer() -> str:
    """The address of who has connected, or UNIX; nothing where that is not known. REMOTE_ADDR may
    be what a header or the PROXY protocol claims."""
    environ = request.environ
    if "werkzeug.socket" in environ:  # of `flask run`
        try:
            address = environ["werkzeug.socket"].getpeername()
        except OSError:  # the client has gone
            return ""
        return address[0] if isinstance(address, tuple) else UNIX
    return environ.get("parley.peer", "")


def _is_operator() -> bool:
    """Whether this is the person who runs the server: the user of `flask run`'s own link, from this
    machine, and not through a proxy."""
    is_forwarded = "X-Forwarded-For" in request.headers or "Forwarded" in request.headers
    return g.user == services().tokens.local_user and is_loopback(_peer()) and not is_forwarded


def _named_by_proxy() -> auth.Identity:
    header = current_app.config["TRUSTED_USER_HEADER"]
    subject = auth.proxy_subject(request.headers[header])
    if subject is None or not _is_sent_once(header):
        raise exceptions.BadRequest(
            f"The proxy must send {header} once, with a name. {auth.PROXY_NAME_ADVICE}"
        )
    return auth.Identity(subject, auth.name_of(subject))


def _is_sent_once(header: str) -> bool:
    """Whether this header came once, and in no spelling with `_`: a proxy that sets `Remote-User`
    may pass on a client's own `Remote_User`. `flask run` drops those itself."""
    if "parley.head" not in request.environ:
        return True
    lines = request.environ["parley.head"]().split(b"\r\n")
    names = [line.partition(b":")[0].rstrip().lower() for line in lines]
    wanted = header.lower().encode()
    return [name for name in names if name.replace(b"_", b"-") == wanted] == [wanted]


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
    found, host = ORIGIN.fullmatch(origin), request.headers.get("Host", "")
    if found is None:
        return False
    try:
        page, asked = urlsplit(f"//{found[2]}"), urlsplit(f"//{host}")
        ports = [PORTS[found[1].lower()] if url.port is None else url.port for url in (page, asked)]
    except ValueError:  # it is no host, or no port
        return False
    return page.hostname == asked.hostname and ports[0] == ports[1]


def _may_any_site_ask() -> bool:
    if request.path == "/":
        return request.headers.get("Sec-Fetch-Mode") == "navigate"
    return request.path in PUBLIC_PATHS or request.path.startswith("/static/")
