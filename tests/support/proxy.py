"""A proxy on the loopback interface that breaks connections on request."""

import contextlib
import re
import socket
import threading
import time
from urllib.parse import urlsplit


class Proxy:
    """Stands between a client and the server, and breaks connections as its attributes say."""

    def __init__(self, target, port=0):
        self.target = target
        self.sent = b""  # by clients
        # Bytes of an answer: the connection breaks after the next ones that contain them.
        self.cut_behind = None
        self.splits = False  # whether the bytes of a letter are passed on one by one
        self.passes = threading.Event()  # while it is not set, nothing is passed on
        self.passes.set()
        self._pairs = []
        self._socket = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        """Break all connections."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            self._break(pair)

    def close(self):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.cut()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self._socket.accept()[0]
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    pair = client, socket.create_connection(("127.0.0.1", self.target))
                except ConnectionRefusedError:  # the server is away
                    client.close()
                    continue
                self._pairs.append(pair)
                threading.Thread(target=self._pass_on, args=(pair, *pair), daemon=True).start()
                threading.Thread(
                    target=self._pass_on, args=(pair, *reversed(pair)), daemon=True
                ).start()

    def _pass_on(self, pair, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.passes.wait()
                if source is pair[0]:
                    self.sent += data
                elif self.cut_behind is not None and self.cut_behind in data:
                    target.sendall(data[: data.index(self.cut_behind) + len(self.cut_behind)])
                    self.cut_behind = None
                    break
                for part in (
                    re.findall(rb"[\x80-\xff]|[\x00-\x7f]+", data) if self.splits else [data]
                ):
                    target.sendall(part)
                    time.sleep(
                        0.01 if self.splits else 0
                    )  # so that it is read alone: nothing tells us when it was
        self._break(pair)
        source.close()

    @staticmethod
    def _break(pair):
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Relay:
    """A proxy in front of the database, which can be away: `url` is that of the database there."""

    def __init__(self, url):
        self.proxy = Proxy(urlsplit(url).port)
        self.url = url.replace(
            urlsplit(url).netloc.rpartition("@")[2], urlsplit(self.proxy.url).netloc
        )

    def cut_off(self, seconds):
        """For so long, all connections are cut, and no new one is let in."""
        self.proxy.close()
        time.sleep(seconds)
        self.proxy = Proxy(self.proxy.target, urlsplit(self.proxy.url).port)

    def hang(self, seconds):
        """For so long, nothing passes. What was sent meanwhile passes afterwards, even if the
        sender has given up."""
        self.proxy.passes.clear()
        time.sleep(seconds)
        self.proxy.passes.set()
