"""Models with a small context window, which refuse longer prompts in their servers' own words."""

import itertools
import json
import pathlib
import string
import tomllib
import uuid

from provider import KEEP, head, raw, reply, stream

ANTHROPIC, OPENAI = "claude-w", "w"


LETTERS = str.maketrans("0123456789", "ghijklmnop")


REFUSALS = tomllib.loads(pathlib.Path(__file__).with_name("refusals.toml").read_text("utf-8"))


PROMPT_TOO_LONG, LLAMA, GROQ = (
    REFUSALS[name]["body"] for name in ("Anthropic", "llama.cpp", "Groq")
)


class Model:
    """A model of its own name with a window of so many tokens (here, words). It refuses in the
    server's own words.

    `counts`: the limit of the answer must fit next to the prompt. `hidden`: tokens that the server
    adds to each prompt. `tells`: its answers have their usage.
    """

    def __init__(
        self,
        window,
        refusal=PROMPT_TOO_LONG,
        kind=ANTHROPIC,
        code=400,
        counts=False,
        hidden=0,
        answer_size=30,
        tells=True,
    ):
        # In letters: a number in the name might be that of a window, and would prove nothing.
        self.name = f"{kind}-{uuid.uuid4().hex.translate(LETTERS)}"
        self.window, self.refusal, self.code = window, refusal, code
        self.counts, self.hidden, self.answer_size, self.tells = counts, hidden, answer_size, tells
        self.accepted, self.refused = [], []  # the bodies of requests

    def __call__(self, request):
        body = request.body
        assert body["model"] == self.name
        prompt, limit = self.hidden + tokens(body), body["max_tokens"]
        if prompt + limit * self.counts > self.window:
            self.refused.append(body)
            numbers = {
                "prompt": prompt,
                "window": self.window,
                "limit": limit,
                "total": prompt + limit,
            }
            text = string.Template(self.refusal).substitute(numbers, left=self.window - limit)
            return self.refuse(text)(request)
        self.accepted.append(body)
        return ended(
            "stop", words(self.answer_size, f"Answer {len(self.accepted)}:"), self.usage(prompt)
        )(request)

    def usage(self, prompt):
        return (prompt, self.answer_size, 0) if self.tells else None

    def refuse(self, text):
        if self.code != 200:
            return raw(
                head(self.code, "application/json", Content_Length=len(text)) + text.encode(), KEEP
            )
        return stream(text) if text.startswith(("{", "[")) else raw(head(), text.encode())

    @property
    def trimmed(self):
        """The accepted requests that have fewer messages than the one before."""
        pairs = itertools.pairwise(self.accepted)
        return [body for before, body in pairs if len(body["messages"]) < len(before["messages"])]

    @property
    def share(self):
        """How many of the accepted requests begin with the messages of the accepted one before."""
        sent = [json.dumps(body["messages"], ensure_ascii=False)[:-1] for body in self.accepted]
        return sum(later.startswith(earlier) for earlier, later in itertools.pairwise(sent)) / (
            len(sent) - 1
        )


def tokens(body):
    return sum(
        len(text.split())
        for text in [
            body.get("system") or "",
            *(message["content"] for message in body["messages"]),
        ]
    )


def words(count, first=""):
    """So many words; the first ones are given."""
    given = first.split()
    return " ".join([*given, *["lorem"] * (count - len(given))])


def sent_of(body):
    """The contents that a request has, without the system prompt."""
    return [message["content"] for message in body["messages"] if message["role"] != "system"]


def ended(reason, text="Half a sentence", usage=(15, 7, 3)):
    """An answer with this end; `usage` is None if the server counts nothing, in OpenAI's protocol."""

    def answer(request):
        for part in reply(*[text] if text else [], stop=reason, usage=usage)(request):
            if usage is not None or part is KEEP or b'"usage"' not in part:
                yield part

    return answer


class Conversation:
    """A session that a user continues."""

    def __init__(self, client, model, **fields):
        self.client = client
        self.id = client.create(words(30, "Message 1:"), model=model.name, **fields)["id"]
        self.path = f"/sessions/{self.id}"

    def say(self, content, **headers):
        return self.client.post(self.path + "/messages", {"content": content}, **headers)

    def go_on(self, count, size=30, first=2):
        """So many messages of this size, each of which is answered; returns the turn of the last
        one."""
        for number in range(first, first + count):
            response = self.say(words(size, f"Message {number}:"))
            assert response.status_code == 201, (number, response.text)
        return response.json()

    def show(self, query=""):
        """The turns, and the id of the first one that the model remembers."""
        response = self.client.get(self.path + query)
        assert response.status_code == 200
        return response.json()["turns"], response.headers.get("First-Turn-Sent")


# Servers that add our limit to the prompt

VLLM = {name: refusal["body"] for name, refusal in REFUSALS.items() if name.startswith("vLLM 0")}


def refusal(message, code=400, **fields):
    body = json.dumps({"error": {"message": message, "type": "invalid_request_error"} | fields})
    return raw(head(code, "application/json", Content_Length=len(body)) + body.encode(), KEEP)
