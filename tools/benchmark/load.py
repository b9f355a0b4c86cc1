"""The client's side: requests as bytes over sockets, so that we measure the server and not its
client.
"""

import json
import socket
import threading
import time


class Answer:
    """The answer to one request; times are in seconds since the request was sent."""

    def __init__(self, status, data, first_word, seconds):
        self.status = status
        self.data = data
        self.first_word = first_word
        self.seconds = seconds


class Client:
    """Sends requests one after the other, over one connection until it is closed; gunicorn closes
    one that is idle for 2 s."""

    def __init__(self, port, token="", tls=None):
        self.port = port
        self.token = token
        self.tls = tls  # the context of a TLS client, if the server has TLS
        self.socket = None

    def connect(self):
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=60)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                self.socket = self.tls.wrap_socket(self.socket, server_hostname="127.0.0.1")

    def send(self, method, path, body=None, accept="application/json", status=200, prefer=""):
        """The answer, which must have this status. The body is bytes, or is sent as JSON."""
        content = body if isinstance(body, bytes) else encoded(body)
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.token}\r\nAccept: {accept}\r\n"
        head += f"Prefer: {prefer}\r\n" if prefer else ""
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        began = time.perf_counter()
        self.connect()
        self.socket.sendall(head.encode() + content)
        answer = self._receive(began)
        if answer.status != status:
            raise RuntimeError(f"{method} {path}: {answer.data[:500]}")
        if b"\r\nConnection: close\r\n" in answer.data:
            self.close()
        return answer

    def _receive(self, began):
        data, first_word = bytearray(), None
        while not is_whole(data):
            more = self.socket.recv(262144)
            if not more:
                raise RuntimeError(f"the connection was cut behind {data[-500:]}")
            data += more
            if first_word is None and b"word0" in data:
                first_word = time.perf_counter() - began
        return Answer(int(data[9:12]), data, first_word, time.perf_counter() - began)

    def close(self):
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def encoded(body):
    return json.dumps(body).encode() if body is not None else b""


def is_whole(data):
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    if data.startswith(b"HTTP/1.1 204 "):
        return True
    length = data[:end].partition(b"\r\nContent-Length: ")[2].split(b"\r\n")[0]
    return len(data) == end + 4 + int(length) if length else data.endswith(b"\r\n0\r\n\r\n")


def at_once(clients, count, send):
    """Have each of the clients call `send(client)` `count` times, all at the same time; returns the
    seconds it took."""
    ready, failures = threading.Barrier(len(clients) + 1), []
    for client in clients:
        client.connect()

    def run(client):
        ready.wait()
        try:
            for _ in range(count):
                send(client)
        except (OSError, RuntimeError) as error:  # the main thread raises it
            failures.append(error)
        client.close()

    threads = [threading.Thread(target=run, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return time.perf_counter() - began
