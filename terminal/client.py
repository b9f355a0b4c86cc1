"""A client of Parley's API for the terminal: calls, and the events of a reply, which it resumes
after a lost connection."""

import io
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import requests

import wire

TIMEOUT = (5, 40)  # seconds to connect, and to read: a stream sends something every 15 s
PAUSES = (0, 0.5, 1, 2, 4, 8, 8, 8)  # seconds before each attempt, until we give up
STREAM = "text/event-stream"

# Exceptions after a lost connection.
LOST = (*wire.LOST, wire.Fault)
# Exceptions after an answer that is not Parley's.
NOT_PARLEY = (requests.RequestException, ValueError, LookupError, TypeError, AttributeError)


class Refused(Exception):
    """The server or its model refused; the message says why. `reply_status` is set for a reply that
    failed and is stored: the status in its error."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        session_id: str | None = None,
        pointer: str | None = None,
        reply_status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.session_id, self.pointer = status, session_id, pointer
        self.reply_status = reply_status


def with_reason(sentence: str, error: dict[str, Any]) -> str:
    """The sentence about a failure, with the provider's reason, which the server tells only its
    operator."""
    return f"{sentence} {error.get('reason', '')}".rstrip()


class Event(NamedTuple):
    name: str
    data: dict[str, Any]


class Client:
    """The requests of one user, in one session at a time; `session_id` is None before the first."""

    def __init__(self, url: str, token: str) -> None:
        # requests would send a user and password in the URL in place of the token.
        self.url = re.sub("//[^/]*@", "//", url).rstrip("/")
        self.session_id: str | None = None
        self._http = requests.Session()
        # Ignores ~/.netrc. Proxies and certificates of the environment come from `wire.route`.
        self._http.trust_env = False
        bearer = f"Bearer {''.join(token.split())}"
        self._http.headers["Authorization"] = bearer.encode(errors="replace")

    def call(
        self, method: str, path: str, body: dict | None = None, data: bytes = b"", **headers: str
    ) -> requests.Response:
        """The response to a request with this body, or with these bytes; its body may not have
        arrived. Raises Refused, one of LOST, or one of NOT_PARLEY."""
        response = self._http.request(
            method,
            self.url + path,
            json=body,
            # The timeout to connect is also that of each piece that is sent. Bytes would be one
            # piece; a file is read in pieces of 16 KiB.
            data=io.BytesIO(data) if data else None,
            headers=headers,
            timeout=TIMEOUT,
            allow_redirects=False,
            **wire.route(self.url),
        )
        if response.is_redirect:
            place = response.headers["Location"]
            raise Refused(f"{self.url} redirects to {place}: change --url to that address.")
        if response.ok:
            return response
        status = response.status_code
        if "json" not in response.headers.get("Content-Type", ""):
            # From a proxy, or from another program.
            if status >= 500:
                raise requests.ConnectionError  # the server behind the proxy does not answer
            problem = f"{self.url} answered with status {status}, and is not Parley."
            raise Refused(f"{problem} Check --url.")
        error = response.json()["errors"][0]
        meta, source = error.get("meta", {}), error.get("source", {})
        detail = with_reason(error["detail"], meta)
        raise Refused(detail, status, meta.get("session_id"), source.get("pointer"))

    def get(self, path: str) -> Any:
        return self.call("GET", path).json()

    def upload(self, data: bytes, on_lost: Callable[[], None]) -> dict[str, Any]:
        """Upload an image; returns what the server says about it. Tries again after a lost
        connection, and after a 503: the server takes two uploads of a user at a time. Calls
        `on_lost` if the connection of the first attempt is lost. Raises what `call` raises."""
        for number, pause in enumerate(PAUSES[1:]):
            try:
                return self.call("POST", "/files", data=data).json()
            except Refused as error:
                if error.status != 503:
                    raise
            except requests.RequestException:  # of all kinds, if it breaks within the answer
                if number == 0:
                    on_lost()
            time.sleep(pause)
        return self.call("POST", "/files", data=data).json()

    def events(
        self, on_lost: Callable[[], None], post: str | None = None, body: dict | None = None
    ) -> Iterator[Event]:
        """The events of the latest reply that are new, up to `done`. `post` is a path that asks for
        a reply first. If its answer is lost, it is asked again with the same idempotency key, which
        makes one reply. Calls `on_lost` at the first loss of a connection in a row. Raises what
        `call` raises."""
        # One long function: the next step depends on whether the question or the answer was lost.
        headers = {"Accept": STREAM, "Idempotency-Key": os.urandom(16).hex()}
        failures = 0
        while failures < len(PAUSES):
            time.sleep(PAUSES[failures])
            try:
                with self._ask(post, body, headers) as response:
                    post = body = None
                    for event in self._parse(response):
                        failures = 0
                        yield event
                        if event.name == "done":
                            return
            except Refused as error:
                if post and error.session_id:  # an earlier attempt has reached the server
                    self.session_id, post, body = error.session_id, None, None
                elif post or error.status < 500:
                    raise
            except LOST:
                pass
            failures += 1
            if failures == 1:
                on_lost()
        raise requests.ConnectionError

    def _ask(
        self, post: str | None, body: dict | None, headers: dict[str, str]
    ) -> requests.Response:
        """The stream of the reply that `post` asks for, or of the latest reply."""
        if post is None:
            response = self.call("GET", f"/sessions/{self.session_id}/events", **headers)
            if response.status_code == 204:  # the answer that said why was lost
                raise Refused("There is no reply.")
            return response
        response = self.call("POST", post, body, **headers)
        kind = response.headers.get("Content-Type", STREAM).partition(";")[0]
        if kind == STREAM and "Location" not in response.headers:
            # The connection broke within the headers, which http.client takes for complete ones.
            raise requests.ConnectionError
        place = response.headers["Location"].rsplit("/sessions/", 1)[1]
        self.session_id = place.partition("/")[0]
        return response

    def _parse(self, response: requests.Response) -> Iterator[Event]:
        for events in wire.parse_sse(wire.arriving(response)):
            for event in events:
                self._http.headers["Last-Event-ID"] = event["id"]
                yield Event(event["event"], json.loads(event["data"]))
