"""A relay to a PostgreSQL server that delays what a client sends, as a stalled network does: it
arrives all the same, later.
"""

import socket
import threading
from collections.abc import Callable
from urllib.parse import urlsplit


class HoldingRelay:
    """A port whose connections lead to the server of this URL; `url` is that of the same database
    by this port.

    After `hold(text)`, the first packet of a client that has the text in it is delayed, with all
    that follows on its connection, even if its client has gone. `release` lets it arrive.
    """

    def __init__(self, url: str):
        self._target = urlsplit(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = self._target._replace(
            netloc=f"{self._target.username}@127.0.0.1:{port}"
        ).geturl()
        self.is_holding = threading.Event()
        self._text, self._held, self._packets = None, None, []
        self._meeting = None  # (a text, what to do before a packet of another connection with that text arrives, and after)
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self, text: bytes) -> None:
        with self._lock:
            self._text = text

    def meet(self, text: bytes, before: Callable[[], None], behind: Callable[[], None]) -> None:
        """Call these before and after the first packet of another connection that has this text in
        it."""
        with self._lock:
            self._meeting = text, before, behind

    def release(self) -> None:
        with self._lock:
            packets, self._packets = self._packets, None
        for packet in packets:
            self._held.sendall(packet)

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((self._target.hostname, self._target.port))
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while data := server.recv(65536):
                client.sendall(data)
        except OSError:
            pass
        client.close()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(65536):
                self._pass(data, server)
        except OSError:
            pass
        if server is not self._held:  # else it would be as if it had never been sent
            server.close()

    def _pass(self, data: bytes, server: socket.socket) -> None:
        with self._lock:
            if self._text is not None and self._text in data:
                self._text, self._held = None, server
                self.is_holding.set()
            if server is self._held and self._packets is not None:
                self._packets.append(data)
                return
            meeting = None
            if self._meeting and self.is_holding.is_set() and self._meeting[0] in data:
                meeting, self._meeting = self._meeting, None
        if meeting:
            meeting[1]()
        server.sendall(data)
        if meeting:
            meeting[2]()
