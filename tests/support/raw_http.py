"""HTTP as bytes: requests that no library would send, and answers as they arrive."""

import contextlib
import json
import socket
import time

import requests
from requests.structures import CaseInsensitiveDict

from client import ALICE, make_token


@contextlib.contextmanager
def connected(server, count=None, receive_buffer=None):
    """A connection to this server, or a list of so many."""
    with contextlib.ExitStack() as leaving:
        clients = []
        for _ in range(count or 1):
            client = leaving.enter_context(socket.socket())
            if receive_buffer:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            client.settimeout(20)
            client.connect(("127.0.0.1", server.port))
            clients.append(client)
        yield clients if count else clients[0]


def read_answer(client):
    """The next answer on this connection, which must have a length."""
    data, length = b"", None
    while length is None or length > 0:
        more = client.recv(length or 1)
        assert more, f"the connection ended behind {data}"
        data += more
        if length is not None:
            length -= len(more)
        elif data.endswith(b"\r\n\r\n"):
            length = int(Answer(data).headers["Content-Length"])
    return Answer(data)


def seconds_for_health(server):
    began = time.monotonic()
    assert requests.get(server.url + "/health", timeout=20).status_code == 200
    return time.monotonic() - began


TITLES = {
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    409: "Conflict",
    413: "Request Entity Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    503: "Service Unavailable",
}


def errors_of(response, status):
    """(source, detail) of the errors of a response, which must have the common shape."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    body = response.json()
    assert list(body) == ["errors"]
    assert body["errors"]
    for error in body["errors"]:
        assert set(error) - {"source", "meta"} == {"status", "title", "detail"}
        assert error["status"] == str(status)
        assert error["title"] == TITLES[status]
        assert error["detail"][0].isupper() and error["detail"].endswith((".", "?"))
        assert "Traceback" not in error["detail"]
    return [(error.get("source"), error["detail"]) for error in body["errors"]]


def send(
    server, method, path, data=None, content_type="application/json", subject=ALICE, **headers
):
    headers = {"Authorization": f"Bearer {make_token(subject)}"} | {
        n.replace("_", "-"): v for n, v in headers.items()
    }
    if content_type:
        headers["Content-Type"] = content_type
    return requests.request(method, server.url + path, data=data, headers=headers, timeout=30)


# Types and sizes

JSON_BODY = b'{"content": "x"}'


LIMIT = 1048576


class Answer:
    """The answer to a raw request, with the names that `requests` uses."""

    def __init__(self, data):
        head, _, self.text = data.decode().partition("\r\n\r\n")
        lines = head.split("\r\n")
        self.status_code = int(lines[0].split()[1])
        # Caddy writes `X-Request-Id`.
        self.headers = CaseInsensitiveDict(line.split(": ", 1) for line in lines[1:])

    def json(self):
        return json.loads(self.text)


def raw(server, *parts, timeout=5):
    """The server's answer to these bytes, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as connection:
        for part in parts:
            connection.sendall(part)
        return read_to_end(connection)


def read_to_end(connection):
    """The answer on a connection that the server then closes."""
    return Answer(b"".join(iter(lambda: connection.recv(65536), b"")))


def head(method="POST", path="/sessions", subject=ALICE, **headers):
    headers = {
        "Host": "x",
        "Authorization": f"Bearer {make_token(subject)}",
        "Content-Type": "application/json",
    } | headers
    lines = [
        f"{method} {path} HTTP/1.1",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)
