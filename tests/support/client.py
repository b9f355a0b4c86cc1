"""A client of Parley that knows only HTTP, and a server as the Procfile starts it."""

import concurrent.futures
import contextlib
import datetime
import functools
import http.client
import json
import threading
import time
from urllib.parse import urlsplit

import jsonschema
import jwt
import requests

from history import NOWHERE, UNRECORDED
from product import ROOT

# Seconds without an event, after which a stream counts as stopped, even if it has comments.
QUIET = 120
SECRET = "a secret for the tests, of 32 bytes or more"
ALICE, BOB = "https://github.com/alice", "https://github.com/bob"


def make_token(subject=ALICE, key=SECRET, algorithm="HS256", headers=None, **claims):
    """A token; a claim of None is left out."""
    now = int(time.time())
    claims = {"iss": "fabro-web", "iat": now, "exp": now + 3600, "sub": subject} | claims
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm, headers)


class Event:
    def __init__(self, id, name, data):
        self.id, self.name, self.data = id, name, data

    def __repr__(self):
        return f"<{self.id} {self.name} {self.data}>"


@functools.cache
def validator_of(name):
    """Validates an event of this name against the API's description. Raises KeyError if it has
    none."""
    described = json.loads((ROOT / "static" / "openapi.json").read_text("utf-8"))
    kinds = described["components"]["schemas"]["Event"]["discriminator"]["mapping"]
    schema = {"$ref": kinds[name], "components": described["components"]}
    return jsonschema.Draft202012Validator(schema)


def event_of(lines):
    """The event of a frame."""
    fields = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    return Event(fields["id"], fields["event"], json.loads(fields["data"]))


class Stream:
    """An event stream that is read frame by frame. Its events are validated against the API's
    description, unless it is another server's."""

    def __init__(self, connection, response, operation=UNRECORDED, is_described=True):
        self.connection = connection
        self.response = response
        self.operation = operation
        self.status = response.status
        self.headers = response.headers
        self.is_described = is_described
        self.comments = 0

    def __iter__(self):
        lines, heard = [], time.monotonic()
        while line := self.response.readline():
            line = line.decode().rstrip("\n")
            if line.startswith(":"):
                self.comments += 1
                self.operation.comment(line)
                assert time.monotonic() - heard < QUIET, "comments, and no event"
            elif line:
                lines.append(line)
            elif lines:
                self.operation.frame(lines)
                event = event_of(lines)
                if self.is_described:
                    validator_of(event.name).validate(
                        {"id": event.id, "event": event.name, "data": event.data}
                    )
                yield event
                lines, heard = [], time.monotonic()
        self.operation.ended()

    def close(self):
        # The response has the socket, too: the other side sees the end once both are closed.
        self.response.close()
        self.connection.close()


class Client:
    """One user of one server. Requests and answers are written in the user's history, if there is
    one."""

    history = NOWHERE

    def __init__(self, url, token, is_described=True):
        self.url = url
        self.token = token
        self.is_described = is_described  # else it is another server's API

    def request(self, method, path, body=None, timeout=60, params=None, **headers):
        headers = {"Authorization": f"Bearer {self.token}"} | {
            n.replace("_", "-"): v for n, v in headers.items()
        }
        headers = {name: value for name, value in headers.items() if value is not None}
        sent = method, path, params, headers, body
        with self.history.operation(self.token, *sent) as operation:
            response = requests.request(
                method, self.url + path, json=body, params=params, headers=headers, timeout=timeout
            )
            operation.got(response)
        return response

    def get(self, path, **headers):
        return self.request("GET", path, **headers)

    def post(self, path, body=None, **headers):
        return self.request("POST", path, body, **headers)

    def patch(self, path, body, **headers):
        return self.request("PATCH", path, body, **headers)

    def delete(self, path, **headers):
        return self.request("DELETE", path, **headers)

    def upload(self, data, **headers):
        """The answer to an upload of these bytes."""
        headers = {"Authorization": f"Bearer {self.token}"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return requests.post(self.url + "/files", data=data, headers=headers, timeout=60)

    def uploaded(self, data):
        """The id of the file with these bytes, which is uploaded."""
        response = self.upload(data)
        assert response.status_code in (200, 201), response.text
        return response.json()["id"]

    def create(self, content="Hello", **fields):
        """A new session, after a 201."""
        response = self.post("/sessions", {"content": content} | fields)
        assert response.status_code == 201, response.text
        return response.json()

    def turns(self, session):
        return self.get(f"/sessions/{session['id']}").json()["turns"]

    @contextlib.contextmanager
    def stream(self, method, path, body=None, timeout=60, **headers):
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=timeout)
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "text/event-stream"} | {
            name.replace("_", "-"): value for name, value in headers.items() if value is not None
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        data = json.dumps(body) if body is not None else None
        sent = method, path, None, headers, body
        recording = self.history.operation(self.token, *sent)
        with contextlib.closing(connection), recording as operation:
            connection.request(method, place.path + path, data, headers)
            response = connection.getresponse()
            operation.got_head(response)
            stream = Stream(connection, response, operation, self.is_described)
            with contextlib.closing(stream):
                yield stream

    def events(self, session, last_id=None, **options):
        return self.stream(
            "GET", f"/sessions/{session['id']}/events", Last_Event_ID=last_id, **options
        )


def read_until(client, text, came=b""):
    """Read from this connection until this text has come. Returns all of it, beginning with `came`."""
    deadline = time.monotonic() + QUIET
    while text not in came:
        assert time.monotonic() < deadline, came
        data = client.recv(65536)
        assert data, came
        came += data
    return came


def wait_until(is_so, seconds=30):
    """Wait until this function returns a true value, and return it."""
    deadline = time.monotonic() + seconds
    while not (result := is_so()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return result


def wait_for_status(client, session, wanted, seconds=10):
    """The last turn, once it has this status."""
    deadline = time.monotonic() + seconds
    while (turn := client.turns(session)[-1])["status"] != wanted:
        assert time.monotonic() < deadline, turn
        time.sleep(0.05)
    return turn


def at_once(count, function):
    """Call it so many times at the same instant; returns the results."""
    barrier = threading.Barrier(count)

    def call(number):
        barrier.wait(30)
        return function(number)

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


def parse_time(text):
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
