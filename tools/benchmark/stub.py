"""A provider that costs next to nothing: it answers in OpenAI's protocol, with bytes that are
prepared beforehand.

The model's name says how: `m-fast` at once, `m-1s` after a second, `m-words-1000` with a thousand
words as fast as they go over the wire, `m-paced-100` with a hundred words, one every 10 ms,
`m-timed-100-50` with a hundred words, one every 50 ms, each with the time when it was sent. A
connection is kept for the next request, unless the request says `Connection: close`. Run it with
the port as its argument; for TLS, add the file of a certificate and its key.
"""

import asyncio
import functools
import json
import resource
import ssl
import sys
import time

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n%s\r\n\r\n"
PACE = 0.01  # seconds between two words
TIME = "000000000.000000"  # the place in a word of the time when it is sent, by the clock that all processes share


class Connection(asyncio.Protocol):
    """Requests and their answers; the next request is read when the answer is whole."""

    def connection_made(self, transport):
        self.transport = transport
        self.data = bytearray()

    def data_received(self, data):
        self.data += data  # in place: a picture comes in many pieces
        end = self.data.find(b"\r\n\r\n")
        if end >= 0 and len(self.data) - end - 4 >= content_length(self.data[:end]):
            head, body, self.data = self.data[:end], self.data[end + 4 :], bytearray()
            is_last = b"\r\nconnection: close" in head.lower()
            asyncio.get_running_loop().create_task(self.answer(json.loads(body or "{}"), is_last))

    async def answer(self, asked, is_last):
        before, between, parts = prepared(asked.get("model", "m-fast"), asked.get("stream", False))
        if before:
            await asyncio.sleep(before)
        for part in parts:
            self.transport.write(
                part.replace(TIME.encode(), b"%016.6f" % time.monotonic()) if between else part
            )
            if between:
                await asyncio.sleep(between)
        if is_last:
            self.transport.close()


def content_length(head):
    return int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)


@functools.cache
def prepared(model, is_stream):
    """(seconds before the answer, seconds between its parts, the parts) of this model."""
    kind, count, pace, *_ = (*model.removeprefix("m-").split("-"), "", "")
    words = [
        f"@{TIME} " if kind == "timed" else f"word{number} " for number in range(int(count or 1))
    ]
    before, between = (
        (1 if kind == "1s" else 0),
        (PACE if kind == "paced" else int(pace or 0) / 1000),
    )
    if not is_stream:
        return before, 0, [whole(words)]
    parts = streamed(words)
    return before, between, parts if count else [b"".join(parts)]


def whole(words):
    message = {"role": "assistant", "content": "".join(words)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps(
        {"object": "chat.completion", "choices": [choice], "usage": usage(words)}
    ).encode()
    return HEAD % (b"application/json", b"Content-Length: %d" % len(body)) + body


def streamed(words):
    """The parts of a stream: each word is one, the first has the head too, and the last the end."""
    parts = [
        chunk({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
        for word in words
    ]
    parts[0] = HEAD % (b"text/event-stream", b"Transfer-Encoding: chunked") + parts[0]
    parts[-1] += chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    parts[-1] += (
        chunk({"choices": [], "usage": usage(words)}) + framed(b"data: [DONE]\n\n") + framed(b"")
    )
    return parts


def usage(words):
    return {"prompt_tokens": 10, "completion_tokens": len(words)}


def chunk(event):
    return framed(
        b"data: " + json.dumps({"object": "chat.completion.chunk"} | event).encode() + b"\n\n"
    )


def framed(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


async def serve(port, certificate=None):
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    server = await asyncio.get_running_loop().create_server(
        Connection, "127.0.0.1", port, backlog=1024, ssl=tls
    )
    await server.serve_forever()


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each answer has one
    asyncio.run(serve(int(sys.argv[1]), *sys.argv[2:]))
