"""The way to a server, by the proxies and the certificates that the environment names."""

import base64
import http.client
import os
import socket
import ssl
import urllib.parse
from typing import cast

import requests
from requests import certs

from wire.call import Call
from wire.environment import route
from wire.faults import TunnelRefused
from wire.sockets import AnySocket, CallSocket, TLSSocket, TLSWithinTLS

CONNECT_TIMEOUT = 10  # seconds
_PORTS = {"http": 80, "https": 443}


class Place:
    """A server, or a proxy, by its URL. Raises ValueError."""

    def __init__(self, url: str) -> None:
        parts = _parts_of(url)
        if parts is None or parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError("a URL is not understood")
        self.speaks_tls = parts.scheme == "https"
        self.host, self.port = parts.hostname, parts.port or _PORTS[parts.scheme]
        shown = f"[{self.host}]" if ":" in self.host else self.host
        self.address = f"{shown}:{self.port}"
        self.name = shown if self.port == _PORTS[parts.scheme] else self.address  # for `Host`
        self.credentials = ""
        if parts.username or parts.password:
            pair = urllib.parse.unquote(f"{parts.username}:{parts.password or ''}")
            self.credentials = "Basic " + base64.b64encode(pair.encode("latin-1")).decode()


def _parts_of(url: str) -> urllib.parse.SplitResult | None:
    """Of a URL; None where it is none, since what the library says of that may show a password."""
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port  # which is read now
    except ValueError:
        return None
    return parts


def _prepared(url: str) -> requests.PreparedRequest:
    """With the URL as it is sent. Raises ValueError."""
    if _parts_of(url) is None:
        raise ValueError("a URL is not understood")
    try:
        return requests.Request("GET", url).prepare()
    except requests.RequestException:  # its text may show a password, too
        raise ValueError("a URL is not understood") from None


class Route:
    """How the server at this URL is connected to, and what every request to it has in common.

    requests reads the URL and the environment, and sends nothing: it would follow redirects, with
    key and conversation, and put ~/.netrc in the key's place. Raises ValueError or OSError."""

    def __init__(self, url: str) -> None:
        request = _prepared(url)
        found = route(url)
        self._server = server = Place(request.url or "")
        self._proxy = proxy = _proxy_of(found["proxies"], server)
        self.first = proxy or server  # what is connected to
        self.is_direct = proxy is None
        # One for all connections: each takes milliseconds to make. A proxy may be known by the
        # system's certificates, too, where the server is known by a file of its own.
        verify = found["verify"]
        self._contexts: dict[Place, ssl.SSLContext] = {}
        if server.speaks_tls:
            self._contexts[server] = _context(verify, has_systems=verify is True)
        if proxy and proxy.speaks_tls:
            self._contexts[proxy] = _context(verify, has_systems=True)

        self.headers = {"Host": server.name, "User-Agent": "parley", "Accept-Encoding": "identity"}
        if server.credentials:
            self.headers["Authorization"] = server.credentials
        self.target = request.path_url
        if not url.endswith("/"):
            self.target = self.target.removesuffix("/")  # of a URL without a path
        if proxy and not server.speaks_tls:  # it asks itself (RFC 9112, section 3.2.2)
            self.target = f"http://{server.name}{self.target}"
            self.headers |= _proxy_headers(proxy)

    def open(self, call: Call) -> AnySocket:
        """A new connection to the server, for this call, in ten seconds at most, but for what the
        system takes to find its addresses. Raises OSError, or an HTTPException where a proxy's
        answer is none."""
        deadline = call.deadline
        call.hurry(CONNECT_TIMEOUT)
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
                _dig(sock, self._proxy, self._server)
                sock = self._encrypt(sock, self._server, call)
            return sock
        except BaseException:
            sock.close()
            raise

    def _encrypt(self, sock: AnySocket, place: Place, call: Call) -> AnySocket:
        """Speak TLS to this place from here on."""
        name, context = place.host.rstrip("."), self._contexts[place]
        if isinstance(sock, TLSSocket):
            return TLSWithinTLS(sock, context, name)
        plain = cast(CallSocket, sock)
        plain.limit()
        tls = cast(TLSSocket, context.wrap_socket(plain, server_hostname=name))
        tls.call = call
        return tls


def _proxy_of(proxies: dict[str, str], server: Place) -> Place | None:
    url = proxies.get("https" if server.speaks_tls else "http") or proxies.get("all")
    return Place(url if "://" in url else f"http://{url}") if url else None


def _proxy_headers(proxy: Place) -> dict[str, str]:
    return {"Proxy-Authorization": proxy.credentials} if proxy.credentials else {}


def _context(verify: str | bool, has_systems: bool) -> ssl.SSLContext:
    """What judges certificates, by this file or folder, or requests' own, and by the system's."""
    path: str = verify if isinstance(verify, str) else certs.where()  # type: ignore[attr-defined]
    file, folder = (None, path) if os.path.isdir(path) else (path, None)
    context = ssl.create_default_context(cafile=file, capath=folder)
    if has_systems:
        context.load_default_certs()
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = TLSSocket
    return context


def _connect(place: Place, call: Call) -> CallSocket:
    """By the first of its addresses that takes it."""
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        socket.socket().close()  # where no file is left, this says so, and that did not
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


def _dig(sock: AnySocket, proxy: Place, server: Place) -> None:
    """Have the proxy connect to the server (RFC 9110, section 9.3.6)."""
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
