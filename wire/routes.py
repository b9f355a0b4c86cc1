"""The route to a server: proxies, TLS and certificates, as the environment has them."""

import base64
import http.client
import os
import socket
import ssl
import urllib.parse
from typing import cast

import requests
from requests import certs

from well_known import PORTS, host_in_url
from wire.call import Call
from wire.environment import route
from wire.faults import TunnelRefused
from wire.sockets import AnySocket, CallSocket, TLSSocket, TLSWithinTLS

CONNECT_TIMEOUT = 10  # seconds


class Endpoint:
    """A server or a proxy, parsed from its URL. Raises ValueError."""

    def __init__(self, url: str) -> None:
        parts = _parts_of(url)
        if parts is None or parts.scheme not in PORTS or not parts.hostname:
            raise ValueError("a URL is not understood")
        self.speaks_tls = parts.scheme == "https"
        self.host, self.port = parts.hostname, parts.port or PORTS[parts.scheme]
        host = host_in_url(self.host)
        self.address = f"{host}:{self.port}"
        self.name = host if self.port == PORTS[parts.scheme] else self.address  # for `Host`
        self.credentials = ""
        if parts.username or parts.password:
            pair = urllib.parse.unquote(f"{parts.username}:{parts.password or ''}")
            self.credentials = "Basic " + base64.b64encode(pair.encode("latin-1")).decode()


def _parts_of(url: str) -> urllib.parse.SplitResult | None:
    """The parts of a URL, or None if it is invalid: the library's message may show a password."""
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port  # is parsed now, and may raise ValueError
    except ValueError:
        return None
    return parts


def _prepared(url: str) -> requests.PreparedRequest:
    """A request of this URL, which requests has normalized. Raises ValueError."""
    if _parts_of(url) is None:
        raise ValueError("a URL is not understood")
    try:
        return requests.Request("GET", url).prepare()
    except requests.RequestException:  # its message may show a password, too
        raise ValueError("a URL is not understood") from None


class Route:
    """How to connect to the server at this URL, and the headers that every request to it has.

    The library requests only parses the URL and the environment, and sends nothing: it would follow
    redirects, with our key and the conversation, and replace the key by one from ~/.netrc. Raises
    ValueError or OSError."""

    def __init__(self, url: str) -> None:
        request = _prepared(url)
        found = route(url)
        self._server = server = Endpoint(request.url or "")
        self._proxy = proxy = _proxy_of(found["proxies"], server)
        self.first = proxy or server  # the other end of our TCP connection
        self.is_direct = proxy is None
        # One for all connections, since each takes milliseconds to make. If `verify` names a file
        # of certificates, for the server, a proxy is trusted by the system's, too.
        verify = found["verify"]
        self._contexts: dict[Endpoint, ssl.SSLContext] = {}
        if server.speaks_tls:
            self._contexts[server] = _context(verify, has_systems=verify is True)
        if proxy and proxy.speaks_tls:
            self._contexts[proxy] = _context(verify, has_systems=True)

        self.headers = {"Host": server.name, "User-Agent": "parley", "Accept-Encoding": "identity"}
        if server.credentials:
            self.headers["Authorization"] = server.credentials
        self.target = request.path_url
        if not url.endswith("/"):
            self.target = self.target.removesuffix("/")  # which requests adds if there is no path
        if proxy and not server.speaks_tls:  # it makes the request (RFC 9112, section 3.2.2)
            self.target = f"http://{server.name}{self.target}"
            self.headers |= _proxy_headers(proxy)

    def open(self, call: Call) -> AnySocket:
        """A new connection to the server, for this call, within ten seconds; the system's DNS
        lookup may take longer. Raises OSError, or HTTPException if a proxy's response is
        invalid."""
        deadline = call.deadline
        call.limit_timeout(CONNECT_TIMEOUT)
        try:
            return self._open(call)
        finally:
            call.deadline = deadline

    def _open(self, call: Call) -> AnySocket:
        sock: AnySocket = _connect(self.first, call)
        try:
            if self.first.speaks_tls:
                sock = self._encrypt(sock, self.first, call)
            if self._proxy and self._server.speaks_tls:
                _open_tunnel(sock, self._proxy, self._server)
                sock = self._encrypt(sock, self._server, call)
            return sock
        except BaseException:
            sock.close()
            raise

    def _encrypt(self, sock: AnySocket, endpoint: Endpoint, call: Call) -> AnySocket:
        """Speak TLS to this server or proxy from here on."""
        name, context = endpoint.host.rstrip("."), self._contexts[endpoint]
        if isinstance(sock, TLSSocket):
            return TLSWithinTLS(sock, context, name)
        plain = cast(CallSocket, sock)
        plain.limit()
        tls = cast(TLSSocket, context.wrap_socket(plain, server_hostname=name))
        tls.call = call
        return tls


def _proxy_of(proxies: dict[str, str], server: Endpoint) -> Endpoint | None:
    url = proxies.get("https" if server.speaks_tls else "http") or proxies.get("all")
    return Endpoint(url if "://" in url else f"http://{url}") if url else None


def _proxy_headers(proxy: Endpoint) -> dict[str, str]:
    return {"Proxy-Authorization": proxy.credentials} if proxy.credentials else {}


def _context(verify: str | bool, has_systems: bool) -> ssl.SSLContext:
    """A TLS context that trusts the certificates in this file or folder (`verify`), else those of
    requests; with `has_systems`, the system's, too."""
    path: str = verify if isinstance(verify, str) else certs.where()  # type: ignore[attr-defined]
    file, folder = (None, path) if os.path.isdir(path) else (path, None)
    context = ssl.create_default_context(cafile=file, capath=folder)
    if has_systems:
        context.load_default_certs()
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = TLSSocket
    return context


def _connect(endpoint: Endpoint, call: Call) -> CallSocket:
    """Connect to the first of its addresses that accepts."""
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        socket.socket().close()  # raises EMFILE if that is the reason, which gaierror does not say
        raise
    failure = OSError("the host has no address")
    for *kind, _, address in found:
        sock = CallSocket(*kind)
        try:
            sock.reach(address, call)
            return sock
        except OSError as error:
            failure = error
            sock.close()
            call.disconnected()
            call.pause(0)  # raises HungUp
    raise failure


def _open_tunnel(sock: AnySocket, proxy: Endpoint, server: Endpoint) -> None:
    """Have the proxy open a tunnel to the server, by CONNECT (RFC 9110, section 9.3.6)."""
    headers = {"Host": server.address} | _proxy_headers(proxy)
    lines = [f"CONNECT {server.address} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    answer = http.client.HTTPResponse(cast(socket.socket, sock), method="CONNECT")
    try:
        answer.begin()
    finally:
        answer.close()
    if answer.status // 100 != 2:
        raise TunnelRefused(answer.status)
