"""Authentication: the user of a bearer token, or the user whom a trusted proxy names.

If a bearer token is sent, it alone decides, even if it is refused. A browser sends no token by
itself, but the page of any site can make it send a request through the proxy. So a request that
only the proxy vouches for is refused if the browser says that it comes from another site.
"""

import ipaddress
import re
from urllib.parse import urlsplit

from flask import Response, current_app, g, request
from werkzeug import exceptions

import auth
from api import errors, sign_in
from api.services import release_slot, services
from settings import UNIX
from well_known import PORTS, is_loopback

# The scheme of a token. Another one may come before it: several header lines are joined.
BEARER = re.compile(r"(^|,)\s*bearer(?![\w-])", re.IGNORECASE)
# `Sec-Fetch-Site` of a request from this server's own page, and of an address that a person typed
# (Fetch Metadata Request Headers, W3C).
OWN_SITES = ("same-origin", "none")
ORIGIN = re.compile(r"(https?)://([^\s/?#@]+)", re.IGNORECASE)  # RFC 6454, section 6.2
# Paths that any site may request, besides navigations to the page.
PUBLIC_PATHS = ("/health", "/openapi.json")


def is_by_proxy() -> bool:
    """Whether this request has no bearer token, but a trusted proxy's header, with any value."""
    header = current_app.config["TRUSTED_USER_HEADER"]
    return bool(header) and header in request.headers and not _has_token() and _is_trusted()


def refuse_other_sites() -> None:
    """Refuse a request of another site's page through the proxy. Raises Forbidden."""
    if g.is_by_proxy and _is_cross_site() and not _allows_any_site():
        raise exceptions.Forbidden(
            "A page of another site sent this request, and may not use your sign-in here. Open "
            "this server's own page, or send a token."
        )


def authenticate() -> None:
    """Find the user, without the database and the body. Raises Unauthorized, InvalidToken,
    BadRequest, Forbidden or PreconditionFailed."""
    g.identity = identity = _identity_by_proxy() if g.is_by_proxy else _identity_by_token()
    g.user = user = identity.subject
    g.is_operator = _is_operator(user)
    _check_access()
    # Since the page was opened, another person may have signed in at the proxy.
    if request.headers.get("For-Subject", user) != user:
        raise exceptions.PreconditionFailed(
            "Somebody else has signed in since. Load the page again."
        )


def answer_anonymous() -> Response | None:
    """The answer to `GET /me?anonymous` of nobody: how to sign in. The page asks this first, and a
    browser would report a 401 as an error."""
    if request.endpoint != "api.show_me" or "anonymous" not in request.args:
        return None
    if g.is_by_proxy or _has_token():
        return None
    nobody = {"subject": None, "name": None, "by": None}
    advice = {"advice": _advice_without_token(), "sign_in": sign_in.describe()}
    return current_app.json.response(nobody | advice)


def _check_access() -> None:
    config = current_app.config
    allowed, blocked = config["ALLOWED_USERS"], config["BLOCKED_USERS"]
    if allowed is not None and not _is_in(allowed):
        g.why = f"ALLOWED_USERS lacks {' and '.join(_names_to_compare())}."
    elif blocked is not None and _is_in(blocked):
        g.why = f"BLOCKED_USERS has {' or '.join(_names_to_compare())}."
    else:
        return
    raise exceptions.Forbidden(
        "This user is not allowed on this server. Ask the person who runs it."
    )


def _names_to_compare() -> list[str]:
    """The names of this user that are compared with the lists, for the log."""
    email = [f"the e-mail {g.identity.email!r}"] if g.identity.email else []
    return [f"the name {auth.name_of(g.user)!r}", *email]


def _is_in(users: list[str]) -> bool:
    """Whether this list has the user's name, letter for letter, or the user's e-mail, in any case.
    With an identity provider, an entry with `@` is only compared with e-mails: somebody there may
    be able to choose a `sub` that ends like another user's e-mail."""
    email, name = g.identity.email, auth.name_of(g.user)
    has_email = bool(email) and _lower(email) in map(_lower, users)
    has_name = name in users and not ("@" in name and services().tokens.provider)
    return has_name or has_email


def _lower(email: str) -> bytes:
    """The e-mail with ASCII letters in lower case. `str.lower` turns some others into ASCII, such
    as U+212A into k: `bytes.lower` does not."""
    return email.encode("utf-8", "surrogatepass").lower()


# By a token


def _has_token() -> bool:
    return BEARER.search(request.headers.get("Authorization", "")) is not None


def _identity_by_token() -> auth.Identity:
    if _has_token():
        authorization = request.authorization
        is_alone = authorization is not None and authorization.type == "bearer"
        token = authorization.token or "" if is_alone else request.headers["Authorization"]
        g.token = token
        return services().tokens.verify(token, release_slot)
    detail = f"Send a token: Authorization: Bearer <token>. {_advice_without_token()}"
    raise exceptions.Unauthorized(detail, www_authenticate=[errors.CHALLENGE])


def _advice_without_token() -> str:
    """What to do without a token. Notes for the log what the proxy did, if there is one."""
    advice = services().tokens.source
    if header := current_app.config["TRUSTED_USER_HEADER"]:
        advice += " Or come through this server's proxy, which signs its users in."
        problem = f"and sent no {header}" if _is_trusted() else "but is none of TRUSTED_PROXIES"
        g.why = f"The peer, {_peer()}, sent no token, {problem}."
    return advice


# By a trusted proxy


def _is_trusted() -> bool:
    """Whether the direct peer is one of `TRUSTED_PROXIES`, whatever its headers say."""
    peer, proxies = _peer(), current_app.config["TRUSTED_PROXIES"]
    if peer == UNIX:
        return UNIX in proxies
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:  # the peer is not known
        return False
    address = getattr(address, "ipv4_mapped", None) or address  # `::ffff:10.0.0.7` is `10.0.0.7`
    return any(address in network for network in proxies if network != UNIX)


def _peer() -> str:
    """The address of the connection's other end, or UNIX; "" if that is not known. REMOTE_ADDR
    would not do: it may be what a header or the PROXY protocol claims."""
    environ = request.environ
    if "werkzeug.socket" in environ:  # `flask run`
        try:
            address = environ["werkzeug.socket"].getpeername()
        except OSError:  # the client has gone
            return ""
        return address[0] if isinstance(address, tuple) else UNIX
    return environ.get("parley.peer", "")


def _is_operator(user: str) -> bool:
    """Whether this is the person who runs the server: the user of the link that `flask run` prints,
    from this machine, and not through a proxy."""
    if user != services().tokens.local_user:
        return False
    is_forwarded = "X-Forwarded-For" in request.headers or "Forwarded" in request.headers
    return is_loopback(_peer()) and not is_forwarded


def _identity_by_proxy() -> auth.Identity:
    header = current_app.config["TRUSTED_USER_HEADER"]
    subject = auth.proxy_subject(request.headers[header])
    if subject is None or not _is_sent_once(header):
        raise exceptions.BadRequest(
            f"The proxy must send {header} once, with a name. {auth.PROXY_NAME_ADVICE}"
        )
    return auth.Identity(subject, auth.name_of(subject))


def _is_sent_once(header: str) -> bool:
    """Whether this header came exactly once, and not also in a spelling with `_`: a proxy that sets
    `Remote-User` may pass on a client's own `Remote_User`, and in WSGI both have the same key.
    `flask run` drops the latter itself."""
    if "parley.head" not in request.environ:
        return True
    lines = request.environ["parley.head"]().split(b"\r\n")
    names = [line.partition(b":")[0].rstrip().lower() for line in lines]
    wanted = header.lower().encode()
    return [name for name in names if name.replace(b"_", b"-") == wanted] == [wanted]


def _is_cross_site() -> bool:
    """Whether the browser says that another site's page sent this. Over plain HTTP it sends no
    `Sec-Fetch-Site`, but does send `Origin` with any request that may change something."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        return site not in OWN_SITES
    return origin is not None and not _is_same_host(origin)


def _is_same_host(origin: str) -> bool:
    """Whether this is the origin of the request's `Host`, with any scheme: the proxy may have ended
    TLS."""
    found, host = ORIGIN.fullmatch(origin), request.headers.get("Host", "")
    if found is None:
        return False
    try:
        page, asked = urlsplit(f"//{found[2]}"), urlsplit(f"//{host}")
        ports = [PORTS[found[1].lower()] if url.port is None else url.port for url in (page, asked)]
    except ValueError:  # not a host, or not a port
        return False
    return page.hostname == asked.hostname and ports[0] == ports[1]


def _allows_any_site() -> bool:
    if request.path == "/":
        return request.headers.get("Sec-Fetch-Mode") == "navigate"
    return request.path in PUBLIC_PATHS or request.path.startswith("/static/")
