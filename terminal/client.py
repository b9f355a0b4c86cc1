"""A client of Parley's API for the terminal: calls, and the events of a reply, however often the
connection is lost."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import requests

import wire

TIMEOUT = (5, 40)  # seconds to connect, and of silence: a stream says something every 15 s
PAUSES = (0, 0.5, 1, 2, 4, 8, 8, 8)  # seconds before each try, until a lost connection is given up
STREAM = "text/event-stream"

# What comes of a connection that is lost.
LOST = (*wire.LOST, wire.Fault)
# What comes of an answer of no Parley.
ODD = (requests.RequestException, ValueError, LookupError, TypeError, AttributeError)


class Refused(Exception):
    """The server, or its model, refused; the text says why. `reply_status` is the status of a reply
    that failed, which is stored."""

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


class Event(NamedTuple):
    name: str
    data: dict[str, Any]


class Client:
    """One user of a server, in one session at a time, or in none yet."""

    def __init__(self, url: str, token: str) -> None:
        # A password in it would take the token's place.
        self.url = re.sub("//[^/]*@", "//", url).rstrip("/")
        self.session_id: str | None = None
        self._http = requests.Session()
        # Else ~/.netrc would have its say; what the environment says of the way is in its route.
        self._http.trust_env = False
        bearer = f"Bearer {''.join(token.split())}"
        self._http.headers["Authorization"] = bearer.encode(errors="replace")

    def call(
        self, method: str, path: str, body: dict | None = None, **headers: str
    ) -> requests.Response:
        """The response, its body yet to be read. Raises Refused, one of LOST, or one of ODD."""
        response = self._http.request(
            method,
            self.url + path,
            json=body,
            headers=headers,
            timeout=TIMEOUT,
            allow_redirects=False,
            **wire.route(self.url),
        )
        if response.is_redirect:
            place = response.headers["Location"]
            raise Refused(f"{self.url} redirects to {place}: give --url as it is there.")
        if response.ok:
            return response
        status = response.status_code
        if "json" not in response.headers.get("Content-Type", ""):
            # It is a proxy's, or another program's.
            if status >= 500:
                raise requests.ConnectionError  # the server behind it is away
            problem = f"{self.url} answered with the status {status}, and not as Parley."
            raise Refused(f"{problem} Check --url.")
        error = response.json()["errors"][0]
        meta, source = error.get("meta", {}), error.get("source", {})
        raise Refused(error["detail"], status, meta.get("session_id"), source.get("pointer"))

    def get(self, path: str) -> Any:
        return self.call("GET", path).json()

    def events(
        self, on_lost: Callable[[], None], post: str | None = None, body: dict | None = None
    ) -> Iterator[Event]:
        """The events of the latest reply, or those that are new of it, up to `done`. With `post`, a
        path, it is asked for first, and again where no answer came: under one key the server makes
        one reply. Raises as `call`."""
        # Whole, though it is long: what was lost, the question or the answer, decides what is next.
        headers = {"Accept": STREAM, "Idempotency-Key": os.urandom(16).hex()}
        failures = 0
        while failures < len(PAUSES):
            time.sleep(PAUSES[failures])
            try:
                with self._ask(post, body, headers) as response:
                    post = body = None
                    for event in self._read(response):
                        failures = 0
                        yield event
                        if event.name == "done":
                            return
            except Refused as error:
                if post and error.session_id:  # the answer was lost, but not the question
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
        """The stream of a reply that is asked for, or of the latest one."""
        if post is None:
            response = self.call("GET", f"/sessions/{self.session_id}/events", **headers)
            if response.status_code == 204:  # the answer that would have said why was lost
                raise Refused("Nothing came of it.")
            return response
        response = self.call("POST", post, body, **headers)
        kind = response.headers.get("Content-Type", STREAM).partition(";")[0]
        if kind == STREAM and "Location" not in response.headers:
            # It broke within the head, which the libraries take for a whole one.
            raise requests.ConnectionError
        place = response.headers["Location"].rsplit("/sessions/", 1)[1]
        self.session_id = place.partition("/")[0]
        return response

    def _read(self, response: requests.Response) -> Iterator[Event]:
        for events in wire.parse_sse(wire.arriving(response)):
            for event in events:
                self._http.headers["Last-Event-ID"] = event["id"]
                yield Event(event["event"], json.loads(event["data"]))
