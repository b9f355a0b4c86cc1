"""A relay to a PostgreSQL server that counts what passes through it. It can be slow, or be cut.

It is a process of its own: so it takes no time from the process that measures, and does not wait
for it.
"""

import collections
import heapq
import itertools
import os
import pathlib
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

MOST_HELD = 16 << 20  # bytes of one direction that are on their way; more is not read
SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102


class CountingRelay:
    """A port whose connections lead to this server. Each chunk arrives `delay` seconds later, in
    both directions.

    `round_trips` counts, over all connections, how often the server has answered what its client
    had sent until then: what is sent together counts once, and so does opening a connection.
    `statements` is how many were executed, by the simple or by the extended protocol. The relay
    ends, at the latest, with the process that started it.
    """

    def __init__(self, target_host, target_port, delay=0.0):
        self._lock = threading.Lock()
        command = [
            sys.executable,
            str(pathlib.Path(__file__).resolve()),
            target_host,
            str(target_port),
            str(delay),
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self.port = int(self._process.stdout.readline())

    @property
    def round_trips(self):
        return self.counts()[0]

    @property
    def statements(self):
        return self.counts()[1]

    def counts(self):
        """The round trips and the statements until now."""
        with self._lock:
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
            return tuple(map(int, self._process.stdout.readline().split()))

    def hold(self):
        """From now on nothing arrives: what is sent waits until the relay is cut. After this, its
        counts cannot be read any more."""
        self._process.send_signal(signal.SIGSTOP)

    def close(self):
        """Cut it: what is still on its way is lost."""
        with self._lock:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()


class Statements:
    """Counts the statements in what a client sends (PostgreSQL's manual, "Message Formats"),
    without copying it."""

    def __init__(self):
        self.has_begun = False  # the first packet has no letter for its type
        self.wants_encryption = False
        self.count = 0
        self._head = b""
        self._left = 0  # bytes of a message's body

    def read(self, data):
        place = 0
        while place < len(data):
            if self._left:
                step = min(self._left, len(data) - place)
                self._left -= step
                place += step
                continue
            size = (5 if self.has_begun else 8) - len(self._head)
            self._head += data[place : place + size]
            place += size
            if place > len(data):  # the rest of the head is yet to come
                return
            self._understand()
            self._head = b""

    def _understand(self):
        if self.has_begun:
            self.count += self._head[:1] in (b"E", b"Q")
            self._left = struct.unpack(">I", self._head[1:])[0] - 4
            return
        length, code = struct.unpack(">II", self._head)
        self._left = length - 8
        self.wants_encryption = code in (SSL_REQUEST, GSS_REQUEST)
        self.has_begun = not self.wants_encryption and code != CANCEL_REQUEST


class Way:
    """One direction of a connection."""

    def __init__(self, source, sink, opened_at):
        self.source, self.sink = source, sink
        self.held = collections.deque()  # what is still on its way
        self.ready = collections.deque()  # what has arrived, and the socket has not taken yet
        self.size = 0
        self.has_ended = False
        self.other = None  # the way back
        self.statements = None  # those of a client
        self.opened_at = opened_at
        # The source has sent something that the other side has not answered.
        self.awaits_answer = False


class Lines:
    """All the connections to one server."""

    def __init__(self, target, delay):
        self.target, self.delay = target, delay
        self.round_trips = self.statements = 0
        # epoll would round each delay up to whole milliseconds.
        self.selector = selectors.SelectSelector() if delay else selectors.DefaultSelector()
        self.paused = {}  # sockets that are neither read nor written at present, with their ways
        self.due = []  # a heap of the times when delayed data arrive
        self.number = itertools.count()
        self.server = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.server.setblocking(False)
        self.port = self.server.getsockname()[1]

    def run(self):
        self.selector.register(self.server, selectors.EVENT_READ, self.accept)
        self.selector.register(0, selectors.EVENT_READ, self.report)
        print(self.port, flush=True)
        while True:
            timeout = max(0, self.due[0][0] - time.monotonic()) if self.due else None
            for key, events in self.selector.select(timeout):
                if callable(key.data):
                    key.data()
                    continue
                reads, writes = key.data
                if events & selectors.EVENT_WRITE and self.is_open(writes):
                    self.give_out(writes)
                if events & selectors.EVENT_READ and self.is_open(reads):
                    self.take_in(reads)
            now = time.monotonic()
            while self.due and self.due[0][0] <= now:
                way = heapq.heappop(self.due)[2]
                way.ready.append(way.held.popleft())
                if self.is_open(way):
                    self.give_out(way)

    def report(self):
        asked = os.read(0, 4096)
        if not asked:
            sys.exit()
        for _ in asked:
            print(self.round_trips, self.statements, flush=True)

    def accept(self):
        client, _ = self.server.accept()
        try:
            server = socket.create_connection(self.target, 5)
        except OSError:
            client.close()
            return
        opened_at = time.monotonic() + 2 * self.delay  # as TCP's handshake would take
        there, back = Way(client, server, opened_at), Way(server, client, opened_at)
        there.other, back.other = back, there
        there.statements = Statements()
        for sock, ways in ((client, (there, back)), (server, (back, there))):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.selector.register(sock, selectors.EVENT_READ, ways)

    def take_in(self, way):
        try:
            data = way.source.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            return self.close(way)
        if way.statements is None:
            if data and way.other.awaits_answer:
                way.other.awaits_answer = False
                self.round_trips += 1
            return self.send(way, data)
        if data:
            before = way.statements.count
            way.statements.read(data)
            self.statements += way.statements.count - before
            if (
                way.statements.wants_encryption
            ):  # it is refused here, since encrypted statements could not be counted
                way.statements.wants_encryption = False
                self.round_trips += 1
                return self.send(way.other, b"N", 2 * self.delay)
            way.awaits_answer = True
        self.send(way, data)

    def send(self, way, data, delay=None):
        """Let this arrive when it is due; b"" is the end."""
        way.has_ended = not data
        way.size += len(data)
        if self.delay:
            way.held.append(data)
            arrives_at = max(time.monotonic(), way.opened_at) + (delay or self.delay)
            heapq.heappush(self.due, (arrives_at, next(self.number), way))
            self.watch(way.source)
        else:
            way.ready.append(data)
            self.give_out(way)

    def give_out(self, way):
        try:
            while way.ready:
                if data := way.ready[0]:
                    sent = way.sink.send(data)
                    way.size -= sent
                    if sent < len(data):
                        way.ready[0] = data[sent:]
                        break
                else:
                    way.sink.shutdown(socket.SHUT_WR)
                way.ready.popleft()
        except BlockingIOError:
            pass
        except OSError:
            return self.close(way)
        if all(each.has_ended and not each.held and not each.ready for each in (way, way.other)):
            return self.close(way)
        self.watch(way.source)
        self.watch(way.sink)

    def watch(self, sock):
        """Wait for the events of this socket that can be handled now."""
        key = self.selector.get_map().get(sock)
        reads, writes = key.data if key else self.paused[sock]
        events = selectors.EVENT_READ * (not reads.has_ended and reads.size < MOST_HELD)
        events |= selectors.EVENT_WRITE * bool(writes.ready)
        if key and events == key.events:
            return
        if key:
            self.selector.unregister(sock)
        self.paused.pop(sock, None)
        if events:
            self.selector.register(sock, events, (reads, writes))
        else:
            self.paused[sock] = reads, writes

    def is_open(self, way):
        return way.source.fileno() >= 0

    def close(self, way):
        for sock in (way.source, way.sink):
            if sock in self.selector.get_map():
                self.selector.unregister(sock)
            self.paused.pop(sock, None)
            sock.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started it ends it
    lines = Lines((sys.argv[1], int(sys.argv[2])), float(sys.argv[3]))
    lines.run()
