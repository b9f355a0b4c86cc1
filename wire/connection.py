"""Connections to a server: kept, and replaced where they have ended."""

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


class Connection(http.client.HTTPConnection):
    """A connection to a server, which serves a call at a time."""

    response_class = Answer

    def __init__(self, route: Route) -> None:
        super().__init__(route.first.host, route.first.port)
        self.sock: AnySocket | None = None  # http.client closes it behind an answer that ends so
        self.route, self.idle_since = route, 0.0

    def ask(
        self, call: Call, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Response:
        """Send the request, and wait for status and headers. Raises what the libraries raise; then
        the connection is closed."""
        call.answered = False
        try:
            if self.sock is None:
                self.sock = self.route.open(call)
            self.sock.serve(call, len(body or b""))
            # The other side may have answered before it had all of it.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                target = self.route.target + path
                self.request(method, target, body, self.route.headers | dict(headers))
            return Response(cast(Answer, self.getresponse()), call)
        except BaseException:
            call.disconnected()
            self.close()
            raise

    def is_reusable(self) -> bool:
        """Whether it is there, and nothing has come that nobody asked for, such as its end."""
        return self.sock is not None and not self.sock.is_followed and is_quiet(self.sock)


class Wire:
    """The way to one server, by the proxies and the certificates that the environment names."""

    def __init__(self, base_url: str) -> None:
        self.base_url, self._lock = base_url, threading.Lock()
        self._route: Route | None = None  # is found with the first request
        self._idle: list[Connection] = []  # the last used at the end

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

        The connection is kept where the Response `is_whole`. Nothing in HTTP/1.1 ties an answer to
        its request: behind any other, such as an error that a gateway sends of its own accord, the
        one to this request may still come, and would be taken for the answer to the next."""
        call.check()
        try:
            connection, response = self._ask(call, method, path, headers, body)
        except RAW_FAULTS as error:
            raise self._fault(error, call) from None
        del body  # it may be large, and the answer takes its time
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
    ) -> tuple[Connection, Response]:
        """A kept connection may be closed at the moment in which it is used again: where no byte of
        an answer comes, the request is sent once more, on a fresh one."""
        if kept := self._take_kept():
            try:
                return kept, kept.ask(call, method, path, headers, body)
            except RAW_FAULTS:
                call.check()
                if call.answered:
                    raise
        fresh = Connection(self._find_route())
        return fresh, fresh.ask(call, method, path, headers, body)

    def _find_route(self) -> Route:
        with self._lock:
            self._route = self._route or Route(self.base_url)
            return self._route

    def _take_kept(self) -> Connection | None:
        """The one that was used last, where it is there."""
        with self._lock:
            while self._idle and self._idle[0].idle_since < time.monotonic() - IDLE_TTL:
                self._idle.pop(0).close()
            connection = self._idle.pop() if self._idle else None
        if connection is None or connection.is_reusable():
            return connection
        connection.close()
        return None

    def _keep(self, connection: Connection) -> None:
        connection.idle_since = time.monotonic()
        if connection.sock is not None:
            connection.sock.rest()
        with self._lock:
            self._idle.append(connection)

    def _fault(self, error: Exception, call: Call) -> Fault:
        """What is raised in the place of an error of the libraries. Raises what the call itself has
        to say."""
        call.check()
        fault = fault_of(error, call.answered)
        if fault.kind == "unreachable" and self._route:
            fault.detail = f"{self._route.first.address}: {fault.detail}"
            if not self._route.is_direct:
                fault.reason = "proxy"
        return fault
