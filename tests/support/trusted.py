"""Peers of a server that name their user: a trusted proxy, and one that pretends to be one."""

import contextlib
import json
import socket

from raw_http import Answer

HEADER = "Remote-User"


class Peer:
    """A client that connects to this address (an address and a port, or a path), perhaps from an
    address of its own."""

    def __init__(self, address, source=None):
        self.address, self.source = address, source

    def connect(self):
        if isinstance(self.address, str):
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(20)
            try:
                connection.connect(self.address)
            except OSError:
                connection.close()
                raise
            return connection
        source = (self.source, 0) if self.source else None
        return socket.create_connection(self.address, 20, source)

    def ask(
        self,
        *fields,
        method="GET",
        path="/me",
        host="chat.example.com",
        content=None,
        before=b"",
        pause=None,
    ):
        """The answer to a request with these lines in its head. `pause` is called between head and body."""
        body = b"" if content is None else json.dumps({"content": content}).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *fields]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        with contextlib.closing(self.connect()) as connection:
            connection.sendall(before + head)
            if pause:
                pause()
            if body:
                with contextlib.suppress(BrokenPipeError):  # it was refused before all of it came
                    connection.sendall(body)
            return Answer(b"".join(iter(lambda: connection.recv(65536), b"")))


def name(user):
    """The line in which a proxy names this user."""
    return f"{HEADER}: {user}"


def user_of(answer):
    """The user to whom the server attributes this request."""
    assert answer.status_code == 200, answer.text
    return answer.json()["subject"]
