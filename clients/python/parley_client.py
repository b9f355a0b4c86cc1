"""A client for Parley, a chat-session service.

    from parley_client import Parley

    parley = Parley("https://chat.example.com", token="…")
    for text in parley.send("Hello!"):
        print(text, end="", flush=True)

You get each piece of a reply exactly once, even if connections break or servers restart: the client
sends a request again until the server has it, and comes back to a reply until it has ended. It
needs requests, and nothing else of Parley.
"""

import contextlib
import datetime
import io
import itertools
import json
import os
import pathlib
import sys
import time
import urllib.parse
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import IO, Any, NamedTuple, Self, TypeAlias

import requests
import urllib3

__all__ = ["Event", "File", "Json", "Parley", "ParleyError", "Reply"]

DEFAULT_URL = "http://127.0.0.1:5000"  # `flask run`
STREAM = "text/event-stream"
CHUNK = 65536  # bytes
MAX_PAUSE = 10.0  # seconds between two attempts, unless the server asks for more
PAGE = 100  # sessions
# Of a proxy whose server is away; Cloudflare has some of its own.
AWAY = {502, 503, 504, *range(520, 531)}

Json: TypeAlias = dict[str, Any]
# A JPEG or PNG: its path, its bytes, an open file, or what `upload` has returned.
File: TypeAlias = str | os.PathLike[str] | bytes | IO[bytes] | Json

Day: TypeAlias = str | datetime.date  # "2026-11-30"


class ParleyError(Exception):
    """The server refused, a reply failed, or there was no answer.

    `status` is the HTTP status of Parley's answer or, if the reply failed, of the reply; None if
    Parley did not answer, but nobody did, or another program. `detail` is a sentence for people.
    `pointer` names the part of the request that is at fault, such as `/options/temperature`. If
    `retry_after` is not None, the same request may succeed later: after so many seconds, if it is
    not 0. `session` is the id of the session that the server names, if any: it is kept although the
    request failed."""

    def __init__(
        self,
        status: int | None,
        detail: str,
        pointer: str | None = None,
        retry_after: float | None = None,
        session: str | None = None,
    ) -> None:
        super().__init__(status, detail, pointer, retry_after, session)
        self.status, self.detail, self.pointer = status, detail, pointer
        self.retry_after, self.session = retry_after, session

    def __str__(self) -> str:
        return f"{self.status}: {self.detail}" if self.status else self.detail


class Event(NamedTuple):
    """An event of a reply, as docs/streams.md describes it: its name, its data, and its id."""

    event: str
    data: Json
    id: str


class Parley:
    """A server, and one of its users.

    `url` and `token` come from the environment by default: `PARLEY_URL`, or else
    http://127.0.0.1:5000, and `PARLEY_TOKEN`. Without a token, a proxy in front of the server has
    to name the user. `timeout` is in seconds, as in requests: one number, or one to connect and one
    to read. The one to read has to be over 15, since a stream may be silent for so long.

    If a connection is lost, or the server asks to wait, the request is sent again, until there was
    no answer for `give_up_after` seconds. `on_lost` is called once each time that this begins, with
    the error.

    Threads may share a `Parley`. Read each reply in one thread; any thread may cancel it."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout: float | tuple[float, float] = (10, 40),
        give_up_after: float = 150,
        on_lost: Callable[[ParleyError], None] | None = None,
    ) -> None:
        url = url or os.environ.get("PARLEY_URL") or DEFAULT_URL
        parts = _parts_of(url)
        token = token if token is not None else os.environ.get("PARLEY_TOKEN")
        self.url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
        self.timeout, self.give_up_after, self.on_lost = timeout, give_up_after, on_lost
        self._http = requests.Session()
        # Without one of its own, requests takes a password from ~/.netrc in place of our token.
        user, password = requests.utils.get_auth_from_url(url)
        if token:
            self._http.auth = _Bearer(token)
        elif user:  # as bytes, since requests encodes texts in Latin-1
            self._http.auth = requests.auth.HTTPBasicAuth(user.encode(), password.encode())
        # On the loopback interface, no proxy of the environment is of use, and none gets our token.
        host = parts.hostname or ""
        is_local = host in ("localhost", "::1") or host.startswith("127.")
        self._proxies = dict.fromkeys(("http", "https"), "") if is_local else {}

    # Replies

    def send(
        self,
        content: str,
        session: str | None = None,
        *,
        files: Iterable[File] = (),
        model: str | None = None,
        system: str | None = None,
        options: Json | None = None,
        key: str | None = None,
    ) -> "Reply":
        """Send a message to this session, or to a new one, which may have a model, a system prompt
        and options. Returns the reply as soon as the server has stored the message.

        If you send the same message with the same `key` within 24 hours, even from another process,
        there is still only one reply."""
        chosen = {"model": model, "system": system, "options": options}
        fields = {name: value for name, value in chosen.items() if value is not None}
        if session and fields:
            raise TypeError(f"{', '.join(fields)}: use change() for a session that exists.")
        body = {"content": content} | self._files(files) | fields
        path = _path(session, "messages") if session else "/sessions"
        return Reply(self, session, (path, body, key))

    def retry(
        self,
        session: str,
        content: str | None = None,
        *,
        files: Iterable[File] | None = None,
        key: str | None = None,
    ) -> "Reply":
        """Have the last message answered again. `content` and `files` change the message first;
        `files=[]` removes its images."""
        body = {} if files is None else self._files(files) or {"files": []}
        if content is not None:
            body["content"] = content
        return Reply(self, session, (_path(session, "retry"), body, key))

    def continue_(self, session: str, *, key: str | None = None) -> "Reply":
        """Have the last reply go on where it stopped. Its pieces are what is new; its `text` is all
        of it."""
        turns = self.session(session, limit=1)["turns"]
        text = turns[-1]["content"] if turns and turns[-1]["kind"] == "assistant" else ""
        return Reply(self, session, (_path(session, "continue"), {}, key), text)

    def follow(self, session: str) -> "Reply":
        """The latest reply of this session from its beginning, whether it is in progress or not."""
        return Reply(self, session)

    def cancel(self, session: str) -> Json | None:
        """Stop the reply in progress. Returns its turn as far as it got; None if there is none."""
        try:
            return self._ask("POST", _path(session, "cancel"))
        except ParleyError as error:
            if error.status == 409:
                return None
            raise

    # Sessions

    def sessions(self, query: str | None = None) -> Iterator[Json]:
        """The sessions, pinned ones first, then the most recently used; or those that contain each
        word of the query. They are fetched in pages, as you iterate: if you delete or unpin them
        in the loop, take `list(parley.sessions())` first."""
        seen: set[str] = set()  # a session that is used meanwhile moves others to the next page
        for offset in itertools.count(0, PAGE):
            params = {"page[limit]": PAGE, "page[offset]": offset, "query": query}
            page = self._ask("GET", "/sessions", params=params)
            for session in page["data"]:
                if session["id"] not in seen:
                    seen.add(session["id"])
                    yield session
            if not page["meta"]["has_more"]:
                return

    def session(self, session: str, *, limit: int | None = None, before: str | None = None) -> Json:
        """A session with its turns, oldest first: all, or the last `limit`, or those before a
        turn."""
        params = {"turns[limit]": limit, "turns[before]": before}
        return self._ask("GET", _path(session), params=params)

    def change(self, session: str, **fields: Any) -> Json:
        """Change a session: its `title`, `model`, `system`, `options`, `pinned`. None clears
        `system`, `options`, or one of the options. Returns the session without its turns."""
        return self._ask("PATCH", _path(session), fields)

    def delete(self, session: str) -> None:
        """Delete a session with its turns. A reply in progress stops."""
        attempts = self._attempts()
        while True:
            try:
                response = self._send("DELETE", _path(session))
                if response.status_code != 204:
                    raise self._foreign(response)
                return
            except ParleyError as error:
                if error.status == 404 and attempts.failures:  # the lost answer said that it was
                    return
                attempts.wait_after(error)

    def fork(self, session: str, turn: str | None = None, *, key: str | None = None) -> Json:
        """A new session with a copy of the turns up to this one, or of all."""
        return self._ask("POST", _path(session, "fork"), {"turn": turn}, key=key)

    def export(self) -> Iterator[Json]:
        """All sessions with their turns, the oldest first, as `import_` takes them. They are
        fetched in pages, as you iterate."""
        cursor: str | None = None
        while True:
            params = {"page[after]": cursor}
            page = self.request("GET", "/export", params=params, accept="application/x-ndjson")
            # Not its `iter_lines`, which also splits at U+2028.
            lines = filter(None, page.content.split(b"\n"))
            try:
                sessions = [json.loads(line) for line in lines]
            except ValueError:
                raise self._foreign(page) from None
            yield from sessions
            if "next" not in page.links:
                return
            query = urllib.parse.urlsplit(page.links["next"]["url"]).query
            [cursor] = urllib.parse.parse_qs(query)["page[after]"]

    def import_(self, session: Json) -> Json:
        """Make a session of this one, which `export` has returned; or of a `conversation` of
        another product (docs/api.md). Returns the new session."""
        if "conversation" not in session:
            # Sent again, the same origin makes no second session.
            session = {"origin": f"parley-client:{uuid.uuid4()}"} | session
        return self._ask("POST", "/sessions/import", session)

    # Files, thinking, versions, the server

    def upload(self, file: File) -> Json:
        """Upload a JPEG or PNG, for `files` of a message. To describe the image for people who do
        not see it, add `alt` to what this returns."""
        if isinstance(file, dict):
            return file
        if isinstance(file, (str, os.PathLike)):
            data = pathlib.Path(file).read_bytes()
        else:
            data = file if isinstance(file, bytes) else file.read()
        return self._ask("POST", "/files", data=data)

    def file(self, id: str) -> bytes:
        """The bytes of an uploaded file."""
        return self.request("GET", f"/files/{_quoted(id)}", accept="image/*").content

    def thinking(self, session: str, turn: str) -> str:
        """What the model thought for this reply. Raises ParleyError (404) if that is not kept."""
        return self._ask("GET", _path(session, f"turns/{_quoted(turn)}/thinking"))["text"]

    def versions(self, session: str, turn: str) -> list[Json]:
        """The complete replies that this one has replaced, the newest first: at most twenty."""
        return self._ask("GET", _path(session, f"turns/{_quoted(turn)}/versions"))["data"]

    def models(self) -> Json:
        """The models, in `data`; in `meta`, what the server takes."""
        return self._ask("GET", "/models")

    def usage(self, first: Day | None = None, last: Day | None = None) -> Json:
        """The user's tokens by day and model, from the `first` to the `last` day in UTC; without
        these, of the last thirty days."""
        return self._ask("GET", "/usage", params={"from": first, "to": last})

    def me(self) -> Json:
        """Who is asking."""
        return self._ask("GET", "/me")

    def request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        data: bytes = b"",
        params: Json | None = None,
        accept: str = "application/json",
        key: str | None = None,
    ) -> requests.Response:
        """Send any request of the API, with this JSON or these bytes, again if need be. Returns its
        answer, whole. A POST has an idempotency key: yours, or a new one. The path begins with a
        slash."""
        if not path.startswith("/"):  # it could change the host
            raise ValueError("The path begins with a slash.")
        headers = {"Accept": accept}
        if method == "POST":
            headers["Idempotency-Key"] = key or _new_key()
        attempts = self._attempts()
        while True:
            try:
                return self._send(method, path, body, data, params, headers)
            except ParleyError as error:
                attempts.wait_after(error)

    def close(self) -> None:
        """Close the connections that are kept open for further requests."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, method: str, path: str, body: Json | None = None, **options: Any) -> Any:
        """The JSON of the answer to this request."""
        response = self.request(method, path, body, **options)
        try:
            return response.json()
        except ValueError:
            raise self._foreign(response) from None

    # One attempt

    def _send(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        data: bytes = b"",
        params: Json | None = None,
        headers: dict[str, str] | None = None,
        stream: bool = False,
    ) -> requests.Response:
        """The answer to a request that is sent once. Its body has arrived, unless it is a stream.
        Raises ParleyError."""
        headers = dict(headers or {})
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        with self._failures():
            response = self._http.request(
                method,
                self.url + path,
                params=params,
                # The timeout to connect is also that of each piece that is sent. Bytes would be one
                # piece; a file is read in pieces of 16 KiB.
                data=io.BytesIO(data) if data else None,
                headers=headers,
                timeout=self.timeout,
                allow_redirects=False,  # they would be sent the message, and perhaps the token
                proxies=self._proxies,
                stream=stream,
            )
            if response.status_code // 100 != 2:
                raise self._refusal(response)
            if not stream and _is_cut(response):
                raise self._lost("it broke the connection")
        return response

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Raise a ParleyError for the errors of requests and urllib3."""
        handled = sys.exception()
        try:
            yield
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            is_invalid = isinstance(error, ValueError)
            # A server that stops, or a proxy whose server does, may end a connection during the
            # handshake. Other faults of TLS do not go away.
            is_tls = isinstance(error, requests.exceptions.SSLError) and "EOF" not in str(error)
            retry_after = None if is_invalid or is_tls else 0
            raise self._lost(_cause_of(error, handled), retry_after) from error

    def _lost(self, why: str, retry_after: float | None = 0) -> ParleyError:
        return ParleyError(None, f"{self.url} cannot be reached: {why}.", retry_after=retry_after)

    def _refusal(self, response: requests.Response) -> ParleyError:
        """The error that this answer is, whose status is not a 2xx."""
        status, wait = response.status_code, _seconds(response.headers.get("Retry-After"))
        try:
            errors = json.loads(response.content)["errors"]
            meta, source = errors[0].get("meta", {}), errors[0].get("source", {})
            sentences = [*(error["detail"] for error in errors), meta.get("reason", "")]
            detail = " ".join(sentences).rstrip()
            return ParleyError(status, detail, source.get("pointer"), wait, meta.get("session_id"))
        except (ValueError, LookupError, TypeError, AttributeError):
            pass
        if _is_cut(response):
            return self._lost("it broke the connection")
        if status in AWAY:
            return self._lost(f"the status is {status}", wait or 0)
        if response.is_redirect:
            return ParleyError(None, f"{self.url} redirects to {response.headers['Location']}.")
        return self._foreign(response, wait)

    def _foreign(
        self, response: requests.Response, retry_after: float | None = None
    ) -> ParleyError:
        sentence = f"{self.url} answered with status {response.status_code}, and is not Parley."
        return ParleyError(None, sentence, retry_after=retry_after)

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        """The body of a stream as it arrives. Raises ParleyError."""
        # Not `iter_content`, which waits for all of a body that is not chunked.
        with self._failures():
            while chunk := response.raw.read1(CHUNK, decode_content=True):
                yield chunk

    def _events(
        self,
        response: requests.Response,
        first: bytes,
        chunks: Iterator[bytes],
        attempts: "_Attempts",
    ) -> Iterator[Event]:
        """The events in these chunks. Raises ParleyError when they end."""
        rest = b""
        for chunk in itertools.chain([first], chunks):
            if chunk is not first:  # which comes at once, even if nothing else will
                attempts.restart()
            *frames, rest = (rest + chunk).split(b"\n\n")
            for frame in frames:
                try:
                    event = _event_of(frame)
                except (ValueError, LookupError):
                    raise self._foreign(response) from None
                if event:
                    attempts.restart()
                    yield event
        raise self._lost("the stream ended")

    def _attempts(self) -> "_Attempts":
        return _Attempts(self.give_up_after, self.on_lost)

    def _files(self, files: Iterable[File]) -> Json:
        """The field of a message with these files, which are uploaded."""
        if isinstance(files, (str, bytes, os.PathLike, dict)) or hasattr(files, "read"):
            raise TypeError("files is a list, also of one file.")
        uploaded = [self.upload(file) for file in files]
        return {"files": uploaded} if uploaded else {}


class Reply:
    """A reply, as it is written. Iterate over it for the pieces of its text, or take `text`, which
    waits for the end. If you leave the loop, you can come back later, by another loop or by `text`.

    `session` is the id of its session."""

    def __init__(
        self,
        parley: Parley,
        session: str | None,
        request: tuple[str, Json, str | None] | None = None,
        text: str = "",
    ) -> None:
        self.session = session or ""
        self._parley = parley
        # Which asks for the reply; None once an event has named its turn. Until then, another reply
        # of the session could be taken for it.
        self._request = request
        self._key = (request and request[2]) or _new_key()
        self._pieces = [text] if text else []
        self._iterated = len(self._pieces)  # how many of them `for` has given
        self._skip = 0  # characters of the text that the stream will repeat
        self._thoughts = ""
        self._last_id: str | None = None
        self._response: requests.Response | None = None
        self._events: Iterator[Event] | None = None  # of the open stream
        self._turn: Json = {}
        self._error: ParleyError | None = None
        self._is_over = self._is_error_told = False
        self._loops = 0
        self._attempts = parley._attempts()
        self._connect()

    def __iter__(self) -> Iterator[str]:
        """The pieces of the text that no loop has given yet, as they come. Raises ParleyError at
        the end, if the reply failed."""
        with contextlib.closing(self.events()) as events:
            has_more = True
            while has_more:
                has_more = next(events, None) is not None
                if new := self._pieces[self._iterated :]:
                    self._iterated += len(new)
                    yield "".join(new)
        if self._error:
            self._is_error_told = True
            raise self._error

    def events(self) -> Generator[Event]:
        """All events that have not been read yet, each once, up to `done` or `error`. Only
        `thinking` may come again from its beginning: its `start` is then 0."""
        self._loops += 1
        self._attempts.restart()
        try:
            while not self._is_over:
                stream = self._connect()
                try:
                    for event in stream:
                        if new := self._take(event):
                            yield new
                        if self._is_over:
                            return
                    self.close()
                except ParleyError as error:
                    self.close()
                    self._attempts.wait_after(error)
        finally:
            self._loops -= 1
            if not self._loops:
                self.close()

    @property
    def text(self) -> str:
        """The text. Within a loop over the reply, what has come so far; otherwise all of it, for
        which this waits. If the reply failed, this raises ParleyError the first time, and then is
        the text that had come."""
        self._finish()
        return "".join(self._pieces)

    @property
    def turn(self) -> Json:
        """The turn as it is stored, for whose end this waits. Its `status` is `complete` or
        `interrupted`. Raises ParleyError if the reply failed."""
        self._read_to_end()
        if self._error:
            raise self._error
        return self._turn

    @property
    def thinking(self) -> str:
        """What the model thought; within a loop, so far. "" if it did not, or if that was not kept
        by the server."""
        self._finish()
        thought = self._turn.get("thinking")
        if thought and thought["characters"] > len(self._thoughts):
            try:
                self._thoughts = self._parley.thinking(self.session, self._turn["id"])
            except ParleyError as error:
                if error.status != 404:
                    raise
        return self._thoughts

    def cancel(self) -> None:
        """Stop the reply, from any thread. It then ends with what had come. As long as nothing of
        it has been read, this stops whatever reply of the session is in progress."""
        if self._is_over:
            return
        if self._last_id:
            turns = self._parley.session(self.session, limit=1)["turns"]
            if turns[-1]["id"] != self._last_id.partition("-")[0]:
                return  # it has ended, and another one followed
        self._parley.cancel(self.session)

    def close(self) -> None:
        """Close the connection. The reply goes on, on the server, and can be resumed."""
        response, self._response, self._events = self._response, None, None
        if response:
            response.close()

    def __del__(self) -> None:
        self.close()

    # How it is read

    def _finish(self) -> None:
        """Read to the end, unless this is called within a loop."""
        if not self._loops:
            self._read_to_end()
            if self._error and not self._is_error_told:
                self._is_error_told = True
                raise self._error

    def _read_to_end(self) -> None:
        for _ in self.events():
            pass

    def _connect(self) -> Iterator[Event]:
        """The events of the stream that is open, or of a new one."""
        while self._events is None:
            try:
                self._events = self._open()
            except ParleyError as error:
                self.close()
                is_ours = self._request and error.retry_after and error.session
                if error.status == 409 and is_ours:  # the answer to an earlier attempt was lost
                    self.session, self._request = error.session or "", None
                else:
                    self._attempts.wait_after(error)
        return self._events

    def _open(self) -> Iterator[Event]:
        """The events of a new stream. Raises ParleyError."""
        parley, headers = self._parley, {"Accept": STREAM}
        if self._request:
            path, body, _ = self._request
            headers["Idempotency-Key"] = self._key
            self._response = parley._send("POST", path, body, headers=headers, stream=True)
        else:
            if self._last_id:
                headers["Last-Event-ID"] = self._last_id
            path = _path(self.session, "events")
            self._response = parley._send("GET", path, headers=headers, stream=True)
        response = self._response
        if response.status_code == 204:
            raise ParleyError(404, "This session has no reply.")
        chunks = parley._chunks(response)
        # If the connection breaks within the head, http.client takes what has come of it for all.
        # Then there is no body; but the server sends a comment or an event with each head.
        first = next(chunks, b"")
        if not first:
            raise parley._lost("the connection broke")
        if not response.headers.get("Content-Type", "").startswith(STREAM):
            raise parley._foreign(response)
        if self._request:
            place = response.headers.get("Location", "")
            self.session = place.rpartition("/sessions/")[2].partition("/")[0]
        elif not self._last_id:
            self._skip = sum(map(len, self._pieces))
        return parley._events(response, first, chunks, self._attempts)

    def _take(self, event: Event) -> Event | None:
        """Note what this event says. Returns it, without text that has been read before."""
        turn, data = event.id.partition("-")[0], event.data
        if self._last_id and turn != self._last_id.partition("-")[0]:
            raise ParleyError(409, "Another reply followed: get the session.")
        self._last_id, self._request = event.id, None
        match event.event:
            case "content_delta":
                new = data["delta"][self._skip :]
                self._skip -= len(data["delta"]) - len(new)
                if not new:
                    return None
                self._pieces.append(new)
                return event._replace(data={"delta": new})
            case "thinking" if "delta" in data:
                self._thoughts = self._thoughts[: data["start"]] + data["delta"]
            case "assistant_turn":
                self._turn = data
                content, text = data["content"], "".join(self._pieces)
                if content != text and content.startswith(text):
                    # The answer to a `continue` that is sent again has no deltas.
                    self._pieces.append(content[len(text) :])
            case "done":
                self._is_over = True
            case "error":
                sentence = f"{data['message']} {data.get('reason', '')}".rstrip()
                self._error = ParleyError(data["status"], sentence, session=self.session)
                self._is_over = True
        return event


class _Attempts:
    """The attempts since the last answer."""

    def __init__(self, give_up_after: float, on_lost: Callable[[ParleyError], None] | None) -> None:
        self._give_up_after, self._on_lost = give_up_after, on_lost
        self.failures, self._deadline = 0, 0.0

    def restart(self) -> None:
        self.failures = 0

    def wait_after(self, error: ParleyError) -> None:
        """Wait for the next attempt. Raises the error if a further one does not help, or would be
        too late."""
        if not self.failures:
            self._deadline = time.monotonic() + self._give_up_after
        pause = error.retry_after or min(0.25 * 2**self.failures, MAX_PAUSE)
        is_final = error.retry_after is None or error.status == 409
        if is_final or time.monotonic() + pause > self._deadline:
            raise error
        if not self.failures and self._on_lost:
            self._on_lost(error)
        self.failures += 1
        time.sleep(pause)


class _Bearer(requests.auth.AuthBase):
    def __init__(self, token: str) -> None:
        # The message of an error about a header that has other characters would have the token.
        self._header = f"Bearer {''.join(token.split())}".encode(errors="replace")

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._header
        return request


def _parts_of(url: str) -> urllib.parse.SplitResult:
    """The parts of the server's URL. Raises ValueError, without the URL, which may have a
    password."""
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    except ValueError:
        pass
    raise ValueError(
        "The URL of the server begins with http:// or https://. "
        "In a password, quote what is not a letter or digit: %2F is a slash."
    )


def _event_of(frame: bytes) -> Event | None:
    """The event of a frame; None if it has only comments. Raises ValueError or LookupError if it is
    not Parley's."""
    fields = {}
    for line in frame.decode("utf-8", "replace").split("\n"):
        name, _, value = line.partition(":")
        fields[name] = value.removeprefix(" ")
    if "data" not in fields:
        return None
    return Event(fields["event"], json.loads(fields["data"]), fields["id"])


def _is_cut(response: requests.Response) -> bool:
    """Whether the connection broke within the head: http.client takes what has come for all."""
    is_empty = response.status_code != 204 and not response.content
    headers = response.headers
    return is_empty and "Content-Length" not in headers and "Transfer-Encoding" not in headers


def _cause_of(error: BaseException, handled: BaseException | None) -> str:
    """Why there is no answer, in the words of the system if it has some. `handled` is an exception
    that the caller was handling, which is no cause."""
    if isinstance(error, ValueError):  # its message may have the URL's password
        return "the URL or a header is invalid"
    cause = error
    while cause.__context__ not in (None, handled):
        cause = cause.__context__
    if isinstance(cause, ValueError):  # a chunk has no length
        return "it broke the connection"
    return str(getattr(cause, "strerror", None) or cause) or type(cause).__name__


def _seconds(retry_after: str | None) -> float | None:
    """The seconds of this header, if it has some; it may also be a date."""
    return float(retry_after) if retry_after and retry_after.isdecimal() else None


def _new_key() -> str:
    return str(uuid.uuid4())


def _quoted(id: str) -> str:
    return urllib.parse.quote(id, safe="")


def _path(session: str, rest: str = "") -> str:
    return f"/sessions/{_quoted(session)}" + (f"/{rest}" if rest else "")
