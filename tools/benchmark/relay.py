"""A line to a server that is far away: what is sent arrives half a round trip later, in both
directions.

Connecting to this process succeeds at once, while TCP's handshake would take a round trip: so the
first bytes of a new connection wait that long. Nothing else is slowed down. Run it with its own
port, the server's port and the seconds of a round trip as its arguments.
"""

import asyncio
import contextlib
import selectors
import sys

MOST_CONNECTIONS = 256
MOST_CHUNKS = 1024  # that are on their way in one direction, each of at most 64 KiB


class Line:
    """Lines to the server at this port."""

    def __init__(self, port, round_trip):
        self.port = port
        self.round_trip = round_trip
        self.places = asyncio.Semaphore(MOST_CONNECTIONS)

    async def carry(self, reader, writer):
        """Carry a connection in both directions, until both sides have ended it or one has broken
        it."""
        opened_at = now() + self.round_trip
        with contextlib.closing(writer):
            if self.places.locked():
                return
            async with self.places:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
                with contextlib.closing(far_writer):
                    there, back = asyncio.Queue(MOST_CHUNKS), asyncio.Queue(MOST_CHUNKS)
                    await until_broken(
                        self.take_in(reader, there, opened_at),
                        give_out(there, far_writer),
                        self.take_in(far_reader, back, opened_at),
                        give_out(back, writer),
                    )

    async def take_in(self, reader, queue, opened_at):
        """Put what is read in this queue, with the time when it arrives at the other end; b"" is
        the end."""
        data = True
        while data:
            data = await reader.read(65536)
            await queue.put((max(now(), opened_at) + self.round_trip / 2, data))


async def until_broken(*parts):
    """Run these at the same time, until all have ended or one finds its connection broken."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(part)
    except* OSError:
        pass


async def give_out(queue, writer):
    """Send on what is in this queue, when it is due."""
    data = True
    while data:
        arrives_at, data = await queue.get()
        await asyncio.sleep(arrives_at - now())
        if data:
            writer.write(data)
            await writer.drain()
        else:
            writer.write_eof()


def now():
    return asyncio.get_running_loop().time()


async def serve(port, far_port, round_trip):
    line = Line(far_port, round_trip)
    async with await asyncio.start_server(line.carry, "127.0.0.1", port, backlog=1024) as server:
        await server.serve_forever()


def precise_loop():
    """A loop whose timers are not rounded up to whole milliseconds, as they are with epoll."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        runner.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
