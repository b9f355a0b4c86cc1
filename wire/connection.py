"""Connections to a server: kept alive, and replaced if the server has closed them."""

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator, Mapping
from typing import cast

from wire.call import Call
from wire.faults import RAW_FAULTS, Fault, fault_of
from wire.response import Answer, Response
from wire.routes import Route
from wire.sockets import AnySocket, is_quiet

IDLE_TTL = 180  # seconds; firewalls silently forget a connection after four minutes or more


class ServerConnection(http.client.HTTPConnection):
    """A connection to a server, for one call at a time."""

    response_class = Answer

    def __init__(self, route: Route) -> None:
        super().__init__(route.first.host, route.first.port)
        self.sock: AnySocket | None = None  # http.client closes it after `Connection: close`
        self.route, self.idle_since = route, 0.0

    def ask(
        self, call: Call, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Response:
        """Send the request, and wait for status and headers. If that fails, the connection is
        closed; raises what the libraries raise."""
        call.answered = False
        try:
            if self.sock is None:
                self.sock = self.route.open(call)
            self.sock.serve(call, len(body or b""))
            # A server may respond, and close, before it has read the whole request.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                target = self.route.target + path
                self.request(method, target, body, self.route.headers | dict(headers))
            return Response(cast(Answer, self.getresponse()), call)
        except BaseException:
            call.disconnected()
            self.close()
            raise

    def is_reusable(self) -> bool:
        """Whether it is open, and nothing unexpected has arrived, not even an end."""
        return self.sock is not None and not self.sock.is_followed and is_quiet(self.sock)


class HTTPClient:
    """A client of one server, through the proxies and with the certificates of the environment."""

    def __init__(self, base_url: str) -> None:
        self.base_url, self._lock = base_url, threading.Lock()
        self._route: Route | None = None  # found with the first request
        self._idle: list[ServerConnection] = []  # the last used at the end

    @contextlib.contextmanager
    def request(
        self,
        call: Call,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> Iterator[Response]:
        """Send a request; within the context its Response can be read. Raises HungUp or a Fault.

        The connection is kept alive if the caller has marked the Response as `is_whole`. Nothing in
        HTTP/1.1 ties a response to its request. After any other response, such as an error that a
        gateway made up, the real one may still arrive, and would be taken for the response to the
        next request."""
        call.check()
        try:
            connection, response = self._ask(call, method, path, headers, body)
        except RAW_FAULTS as error:
            raise self._fault(error, call) from None
        del body  # it may be large, and the response may take minutes
        try:
            yield response
        finally:
            call.disconnected()
            response.close()
            if response.is_last() and connection.is_reusable():
                self._keep(connection)
            else:
                connection.close()

    def _ask(
        self, call: Call, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[ServerConnection, Response]:
        """Send the request, on a kept connection if there is one. Its server may close it at that
        very moment: if no byte of a response arrives, send the request again on a new one."""
        if kept := self._take_kept():
            try:
                return kept, kept.ask(call, method, path, headers, body)
            except RAW_FAULTS:
                call.check()
                if call.answered:
                    raise
        with self._lock:
            self._route = self._route or Route(self.base_url)
        fresh = ServerConnection(self._route)
        return fresh, fresh.ask(call, method, path, headers, body)

    def _take_kept(self) -> ServerConnection | None:
        """The idle connection that was used last, if it is still open."""
        with self._lock:
            while self._idle and self._idle[0].idle_since < time.monotonic() - IDLE_TTL:
                self._idle.pop(0).close()
            connection = self._idle.pop() if self._idle else None
        if connection is None or connection.is_reusable():
            return connection
        connection.close()
        return None

    def _keep(self, connection: ServerConnection) -> None:
        connection.idle_since = time.monotonic()
        if connection.sock is not None:
            connection.sock.become_idle()
        with self._lock:
            self._idle.append(connection)

    def _fault(self, error: Exception, call: Call) -> Fault:
        """The Fault to raise for an error of the libraries. Raises HungUp or another Fault if the
        call itself was hung up, or timed out."""
        call.check()
        fault = fault_of(error, call.answered)
        if fault.kind == "unreachable" and self._route:
            fault.detail = f"{self._route.first.address}: {fault.detail}"
            if not self._route.is_direct:
                fault.reason = "proxy"
        return fault
