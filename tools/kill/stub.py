"""A provider for all programs: it speaks OpenAI's Chat Completions, says the words one by one, and
keeps what each call was sent.

No model is kinder: if a prompt has some of the words, no matter in whose message, the answer begins
with the next one. Otherwise it begins with the first.
"""

import http.server
import json
import threading
import time

from words import WORDS, numbers_in

PACE = 0.1  # seconds from one word to the next
READING = 2  # seconds before the first word of the first call, in which the reader can connect


class Call:
    """One request: when it came, on the clock `time.monotonic`, which words its messages had, and
    how many it was answered.
    """

    def __init__(self, messages):
        self.at = time.monotonic()
        self.messages = messages
        self.sent = numbers_in(json.dumps(messages))
        self.said = 0


class Stub(http.server.ThreadingHTTPServer):
    """It listens on the loopback interface. Programs are given its `url`, which ends in `/v1`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.calls = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        call = Call(body["messages"])
        is_first = not self.server.calls
        self.server.calls.append(call)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        if is_first:
            time.sleep(READING)
        try:
            self.answer(call)
        except ConnectionError:
            pass  # the program was killed

    def answer(self, call):
        for number in range(max(call.sent, default=0) + 1, WORDS + 1):
            self.send({"role": "assistant", "content": f"word{number} "}, None)
            call.said += 1
            time.sleep(PACE)
        self.send({}, "stop")
        self.wfile.write(b"data: [DONE]\n\n")

    def send(self, delta, reason):
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "stub"}
        chunk["choices"] = [{"index": 0, "delta": delta, "finish_reason": reason}]
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def log_message(self, *_):
        """Print nothing."""
