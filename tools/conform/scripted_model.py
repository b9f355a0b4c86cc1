"""A model on the loopback interface: it speaks OpenAI's Chat Completions, and says what its cases
script.
"""

import collections
import contextlib
import http.server
import json
import re
import select
import socket
import threading
import time
import uuid

PATIENCE = 60  # seconds to wait for a gate
APART = 0.05  # seconds between two halves, so that they do not come together
MARK = re.compile("conform-[0-9a-f]{12}")  # in a message: whose script answers it
MODEL = "conform"
CUT = {"cut": True}  # the connection breaks here
END = {"end": True}  # the body ends here, without a mark that it is whole
REFUSED = {
    "status": 400,
    "body": {"error": {"message": "Not today."}},
}  # an error after which no client tries again
GATE = {"gate": "go"}  # what follows waits until the case opens this gate


class Script:
    """The answers to one message, call by call. `said` counts the calls, `hung_up` is set once the
    server has closed the connection of one, `asked` has what was sent."""

    def __init__(self, answers, says):
        self.mark = f"conform-{uuid.uuid4().hex[:12]}"
        self.message = f"{self.mark}: {says}"
        self.answers = collections.deque(answers)
        self.gates = collections.defaultdict(threading.Event)
        self.hung_up = threading.Event()
        self.asked = []
        self._news = threading.Condition()

    @property
    def calls(self):
        return len(self.asked)

    def open(self, gate="go"):
        self.gates[gate].set()

    def next_answer(self, body):
        """The answer to the next call. After the last answer, it says that the script has no more."""
        with self._news:
            self.asked.append(body)
            self._news.notify_all()
            return self.answers.popleft() if self.answers else ["All was said."]

    def wait_for_call(self, number=1, seconds=10):
        """Returns whether the model was called so often within these seconds."""
        with self._news:
            return self._news.wait_for(lambda: self.calls >= number, seconds)


class ScriptedModel:
    """Listens on this port of the loopback interface, or on any."""

    def __init__(self, port=0):
        self.scripts = {}
        handler = type("Handler", (Handler,), {"model": self})
        self._server = Listener(("127.0.0.1", port), handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def script(self, answers, says="Hello"):
        """A message with a mark, whose answers are these; each is a list of parts."""
        script = Script(answers, says)
        self.scripts[script.mark] = script
        return script

    def script_of(self, body):
        """The script of the last message that has a mark; if there is none, a script of its own."""
        said = " ".join(str(message.get("content")) for message in body["messages"])
        marks = [mark for mark in MARK.findall(said) if mark in self.scripts]
        return self.scripts[marks[-1]] if marks else Script([["The answer."]], "")

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class Listener(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that has hung up is no fault here."""


class Handler(http.server.BaseHTTPRequestHandler):
    model: ScriptedModel
    disable_nagle_algorithm = True

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.answer(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        script = self.model.script_of(body)
        parts = script.next_answer(body)
        first = parts[0] if parts else None
        if isinstance(first, dict) and "status" in first:
            self.answer(first["status"], first.get("body", {}), first.get("headers", {}))
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            if self.say(script, parts):
                self.say_end("stop")
        except OSError:
            script.hung_up.set()

    def answer(self, status, body, headers=()):
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def say(self, script, parts):
        """Send these parts; returns whether the usual end is to follow. Raises OSError if the
        server has hung up."""
        self.event(choices=[choice({"role": "assistant", "content": None})])
        for part in parts:
            if isinstance(part, str):
                self.event(choices=[choice({"content": part})])
            elif isinstance(part, (int, float)):
                self.wait(threading.Event(), part)
            elif not self.say_other(script, part):
                return False
        return True

    def say_other(self, script, part):
        """Send a part that is an object; returns whether more may follow it."""
        [(kind, value)] = [each for each in part.items() if each[0] != "times"]
        if kind == "text":
            self.event(choices=[choice({"content": value * part.get("times", 1)})])
        elif kind == "halves":
            for code in halves_of(value):
                self.event(choices=[choice({"content": code})])
                self.wait(threading.Event(), APART)
        elif kind == "thought":
            self.event(choices=[choice({"reasoning_content": value})])
        elif kind == "gate":
            return self.wait(script.gates[value], PATIENCE)
        elif kind == "finish":
            self.say_end(value)
            return False
        elif kind == "error":
            self.event(error=value)
            return False
        elif kind == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            return False
        else:
            return False
        return True

    def say_end(self, reason):
        usage = {"prompt_tokens": 15, "completion_tokens": 7}
        self.event(choices=[choice({}, reason)])
        self.event(choices=[], usage=usage | {"prompt_tokens_details": {"cached_tokens": 3}})
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, **fields):
        data = json.dumps({"object": "chat.completion.chunk"} | fields)
        self.wfile.write(b"data: " + data.encode() + b"\n\n")

    def wait(self, event, seconds):
        """Wait for this event, at most so long; returns whether it came. Raises OSError if the
        server hangs up meanwhile."""
        deadline = time.monotonic() + seconds
        while not event.wait(0.01) and time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                is_readable = select.select([self.connection], [], [], 0)[0]
                if is_readable and not self.connection.recv(1, socket.MSG_PEEK):
                    raise ConnectionResetError
        return event.is_set()


def choice(delta, reason=None):
    return {"index": 0, "delta": delta, "finish_reason": reason}


def halves_of(text):
    """Its UTF-16 code units, one by one, as JSON may escape them."""
    coded = text.encode("utf-16-be")
    for place in range(0, len(coded), 2):
        yield coded[place : place + 2].decode("utf-16-be", "surrogatepass")
