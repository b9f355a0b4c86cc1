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
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError("a URL is not understood")
        self.speaks_tls = parts.scheme == "https"
        self.host, self.port = parts.hostname, parts.port or _PORTS[parts.scheme]
        shown = f"[{self.host}]" if ":" in self.host else self.host
        self.address = f"{shown}:{self.port}"
        self.name = shown if self.port == _PORTS[parts.scheme] else self.address  # for `Host`
        self.credentials = ""
        if parts.username:
            pair = urllib.parse.unquote(f"{parts.username}:{parts.password or ''}")
            self.credentials = "Basic " + base64.b64encode(pair.encode("latin-1")).decode()


class Route:
    """How the server at this URL is connected to, and what every request to it has in common.

    requests reads the URL and the environment, and sends nothing: it would follow redirects, with
    key and conversation, and put ~/.netrc in the key's place. Raises ValueError or OSError."""

    def __init__(self, url: str) -> None:
        try:
            request = requests.Request("GET", url).prepare()
        except requests.RequestException:  # its text may show a password
            raise ValueError("a URL is not understood") from None
        found = route(url)
        self._server = server = Place(request.url or "")
        self._proxy = proxy = _proxy_of(found["proxies"], server)
        self.first = proxy or server  # what is connected to
        self.is_direct = proxy is None
        # One for all connections: each takes milliseconds to make.
        speaks_tls = server.speaks_tls or self.first.speaks_tls
        self._context = _context(found["verify"]) if speaks_tls else None

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
        """A new connection to the server, for this call, in ten seconds at most. Raises OSError, or
        an HTTPException where a proxy's answer is none."""
        deadline = call.deadline
        call.hurry(CONNECT_TIMEOUT)
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
        finally:
            call.deadline = deadline

    def _encrypt(self, sock: AnySocket, place: Place, call: Call) -> AnySocket:
        """Speak TLS to this place from here on."""
        name, context = place.host.rstrip("."), cast(ssl.SSLContext, self._context)
        if isinstance(sock, TLSSocket):
            return TLSWithinTLS(sock, context, name)
        sock.limit()
        plain = cast(socket.socket, sock)
        tls = cast(TLSSocket, context.wrap_socket(plain, server_hostname=name))
        tls.serve(call)
        return tls


def _proxy_of(proxies: dict[str, str], server: Place) -> Place | None:
    url = proxies.get("https" if server.speaks_tls else "http") or proxies.get("all")
    return Place(url if "://" in url else f"http://{url}") if url else None


def _proxy_headers(proxy: Place) -> dict[str, str]:
    return {"Proxy-Authorization": proxy.credentials} if proxy.credentials else {}


def _context(verify: str | bool) -> ssl.SSLContext:
    """What judges certificates: by this file or folder, or by the system's and requests' own."""
    if isinstance(verify, str):
        file, folder = (None, verify) if os.path.isdir(verify) else (verify, None)
        context = ssl.create_default_context(cafile=file, capath=folder)
    else:
        context = ssl.create_default_context()
        context.load_verify_locations(certs.where())  # type: ignore[attr-defined]
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = TLSSocket
    return context


def _connect(place: Place, call: Call) -> CallSocket:
    plain = socket.create_connection((place.host, place.port), max(0.001, call.remaining()))
    sock = CallSocket(fileno=plain.detach())
    sock.watch_network()
    sock.serve(call)
    return sock


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
