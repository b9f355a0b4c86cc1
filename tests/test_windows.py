"""A conversation never ends: what the model is sent of one that is longer than its window, and what that costs."""

import html
import itertools
import json
import pathlib
import string
import threading
import tomllib
import uuid

import pytest

from client import BOB, Server, running, wait_for_status, wait_until
from provider import KEEP, fails, head, raw, reply, silence, so_far, status, stream, thought
from raw_tables import tables_of

ANTHROPIC, OPENAI = "claude-w", "w"
LETTERS = str.maketrans("0123456789", "ghijklmnop")
REFUSALS = tomllib.loads(pathlib.Path(__file__).with_name("refusals.toml").read_text("utf-8"))
PROMPT_TOO_LONG, LLAMA, GROQ = (
    REFUSALS[name]["body"] for name in ("Anthropic", "llama.cpp", "Groq")
)


# What has nothing to do with the kind of database
on_one_engine = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)


class Model:
    """A model of its own name with a window of so many tokens, which here are words, and the server's own words where it refuses.

    `counts`: the limit of the answer has to fit beside the prompt. `hidden`: tokens that the server adds to each prompt.
    `tells`: its answers have their usage.
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
        # In letters: a number in it might be that of a window, which is no proof then.
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
    """So many words, of which the first ones are given."""
    given = first.split()
    return " ".join([*given, *["lorem"] * (count - len(given))])


def sent_of(body):
    """The contents that a request has, without the system prompt."""
    return [message["content"] for message in body["messages"] if message["role"] != "system"]


def ended(reason, text="Half a sentence", usage=(15, 7, 3)):
    """An answer with this end; `usage` is None where the server counts nothing, in OpenAI's protocol."""

    def answer(request):
        for part in reply(*[text] if text else [], stop=reason, usage=usage)(request):
            if usage is not None or part is KEEP or b'"usage"' not in part:
                yield part

    return answer


class Conversation:
    """A session that one goes on with."""

    def __init__(self, client, model, **fields):
        self.client = client
        self.id = client.create(words(30, "Message 1:"), model=model.name, **fields)["id"]
        self.path = f"/sessions/{self.id}"

    def say(self, content, **headers):
        return self.client.post(self.path + "/messages", {"content": content}, **headers)

    def go_on(self, count, size=30, first=2):
        """So many messages of this size, each of which is answered; returns the turn of the last one."""
        for number in range(first, first + count):
            response = self.say(words(size, f"Message {number}:"))
            assert response.status_code == 201, (number, response.text)
        return response.json()

    def show(self, query=""):
        """The turns, and the id of the first one that the model remembers."""
        response = self.client.get(self.path + query)
        assert response.status_code == 200
        return response.json()["turns"], response.headers.get("First-Turn-Sent")


@pytest.fixture(scope="module")
def one(new_database, provider_of_all, tmp_path_factory):
    """One process, which has both protocols: what a refusal tells is learned once a process."""
    urls = {
        "ANTHROPIC_BASE_URL": provider_of_all.url,
        "OPENAI_BASE_URL": provider_of_all.url + "/v1",
    }
    settings = urls | {
        "DATABASE_URL": new_database(),
        "DEFAULT_MODEL": "m-1",
        "WEB_CONCURRENCY": 1,
        "MAX_TOKENS": 8192,
    }
    server = Server(tmp_path_factory.mktemp("windows"), **settings)
    yield server.wait_until_up()
    server.stop()


@pytest.fixture
def talk(one, provider):
    """A function that begins a conversation with a model."""

    def begin(model, **fields):
        provider.default = model
        return Conversation(one.client(), model, **fields)

    return begin


# Long conversations

WORDINGS = {"anthropic": (PROMPT_TOO_LONG, ANTHROPIC), "llama.cpp": (LLAMA, OPENAI)}


@on_one_engine
@pytest.mark.parametrize("refusal, kind", WORDINGS.values(), ids=WORDINGS)
@pytest.mark.parametrize("size, least", [(30, 0.85), (200, 0.5)])
def test_hundreds_of_messages_go_on_in_a_window_of_two_thousand_words(
    talk, refusal, kind, size, least
):
    model = Model(2000, refusal, kind, answer_size=size)
    conversation = talk(model, system="Be brief.")
    pairs = 60 if size == 200 else 250 if kind == ANTHROPIC else 150
    turn = conversation.go_on(pairs - 1, size)
    print(
        f"{size} words: {model.share:.1%} begin with the one before, {len(model.refused)} refused"
    )
    assert len(model.accepted) == pairs
    assert model.share >= least
    assert all(tokens(body) <= 2000 for body in model.accepted)
    assert len(model.refused) <= (1 - least) * pairs
    for number, body in enumerate(model.accepted, 1):
        assert sent_of(body)[-1].startswith(f"Message {number}: ")
        assert (body.get("system") or body["messages"][0]["content"]) == "Be brief."
    turns, first = conversation.show()
    assert len(turns) == 2 * pairs
    assert turn["turns_left_out"] == len(turns) - 1 - len(sent_of(model.accepted[-1]))
    assert (
        next(turn["content"] for turn in turns if turn["id"] == first)
        == sent_of(model.accepted[-1])[0]
    )


def test_everything_stays_stored_shown_and_searched(talk):
    model, marker = Model(200), uuid.uuid4().hex
    conversation = talk(model, system=f"Mind {marker}.")
    conversation.say(f"Remember {marker}, please.")
    conversation.go_on(12, first=3)
    assert not any(marker in content for content in sent_of(model.accepted[-1]))
    assert model.accepted[-1]["system"] == f"Mind {marker}."
    turns, _ = conversation.show()
    assert [turn["content"].split()[1] for turn in turns if turn["kind"] == "user"][:3] == [
        "1:",
        f"{marker},",
        "3:",
    ]
    found = conversation.client.get(f"/sessions?query={marker}").json()["data"]
    assert [session["id"] for session in found] == [conversation.id]


def test_a_turn_and_the_stream_tell_how_many_turns_are_left_out_and_where_the_memory_begins(talk):
    model = Model(200)
    conversation = talk(model)
    conversation.go_on(2)
    turns, first = conversation.show()
    assert (first, [turn.get("turns_left_out") for turn in turns]) == (None, [None, 0] * 3)
    assert conversation.show("?turns[limit]=2")[1] is None
    with conversation.client.stream(
        "POST", conversation.path + "/messages", {"content": words(100, "Message 4:")}
    ) as events:
        *_, turn, done = events
    assert done.name == "done"
    assert len(model.refused) >= 1
    left_out = 7 - len(sent_of(model.accepted[-1]))
    assert turn.data["turns_left_out"] == left_out > 0
    turns, first = conversation.show()
    assert (turns[-1], first) == (turn.data, turns[left_out]["id"])
    assert conversation.show("?turns[limit]=2") == (turns[-2:], first)
    assert [turn["turns_left_out"] for turn in turns[1::2]] == [0, 0, 0, left_out]


def test_the_cut_stays_where_it_is_until_the_next_refusal(talk):
    model = Model(400)
    conversation = talk(model)
    cuts, refused = [], []
    for number in range(2, 30):
        conversation.go_on(1, first=number)
        cuts.append(conversation.show()[1])
        refused.append(len(model.refused))
    moved = [later != earlier for earlier, later in itertools.pairwise(cuts)]
    paid = [later > earlier for earlier, later in itertools.pairwise(refused)]
    assert moved == paid and 3 <= sum(moved) <= 10


def test_another_model_is_sent_the_whole_again_and_so_is_the_first_one_afterwards(talk, provider):
    small, large = Model(200), Model(10_000, LLAMA, OPENAI)
    conversation = talk(small)
    conversation.go_on(6)
    assert conversation.show()[1]
    conversation.client.patch(conversation.path, {"model": small.name, "title": "Mine"})
    assert conversation.show()[1], "the same model remembers no more than before"
    conversation.client.patch(conversation.path, {"model": large.name})
    assert conversation.show()[1] is None
    provider.default = large
    turn = conversation.go_on(1, first=8)
    assert turn["turns_left_out"] == 0
    assert len(sent_of(large.accepted[-1])) == 15
    assert conversation.show()[1] is None
    conversation.client.patch(conversation.path, {"model": small.name})
    provider.default, before = small, len(small.refused)
    turn = conversation.go_on(1, first=9)
    assert len(sent_of(small.refused[before])) == 17
    assert turn["turns_left_out"] == 17 - len(sent_of(small.accepted[-1])) > 0
    assert conversation.show()[1]


def test_a_change_of_model_while_a_reply_is_trimmed_starts_from_the_whole_again(talk, provider):
    small, large, gate = Model(200), Model(10_000, LLAMA, OPENAI), threading.Event()
    conversation = talk(small)
    conversation.go_on(2)
    asked = len(provider.posts)
    provider.script = [small, reply("Half, ", gate, "and the rest.")]
    conversation.say(words(100, "Message 4:"), Prefer="respond-async")
    provider.wait_for_request(asked + 2)
    conversation.client.patch(conversation.path, {"model": large.name})
    gate.set()
    wait_for_status(conversation.client, {"id": conversation.id}, "complete")
    assert conversation.show()[1] is None
    provider.default = large
    conversation.go_on(1, first=5)
    assert len(sent_of(large.accepted[-1])) == 9


def test_a_retry_has_the_room_that_its_message_had(talk):
    model = Model(200)
    conversation = talk(model)
    conversation.go_on(6)
    for body in (None, {"content": words(30, "Another 7:")}):
        response = conversation.client.post(conversation.path + "/retry", body)
        assert response.status_code == 201
        contents = sent_of(model.accepted[-1])
        assert response.json()["turns_left_out"] == 13 - len(contents) > 0
        assert contents[-1] == (body["content"] if body else words(30, "Message 7:"))


# A message that does not fit alone


def test_a_message_that_does_not_fit_alone_is_refused_and_the_next_one_works(talk, provider):
    model = Model(150)
    conversation = talk(model, system="Be brief.")
    conversation.go_on(1)
    for number in range(3):
        long = words(151, f"Too long {number}:")
        response = conversation.say(long)
        assert response.status_code == 413
        assert response.headers["Connection"] == "close"
        assert response.headers["Location"] == conversation.path
        [error] = response.json()["errors"]
        assert error["detail"].startswith("Shorten this message")
        assert error["meta"] == {"session_id": conversation.id}
        assert sent_of(model.refused[-1]) == [long], "everything else was left out first"
        assert model.refused[-1]["system"] == "Be brief."
        turn = conversation.say(words(10, f"Short {number}:"))
        assert turn.status_code == 201
        assert not any("Too long" in content for content in sent_of(model.accepted[-1]))
        assert sent_of(model.accepted[-1])[-1] == words(10, f"Short {number}:")
    turns, _ = conversation.show()
    assert [turn.get("error") and turn["error"]["status"] for turn in turns[5::4]] == [413] * 3

    other = Model(10_000, LLAMA, OPENAI)
    provider.default = other
    conversation.client.patch(conversation.path, {"model": other.name})
    assert conversation.say("Do you know all?").status_code == 201
    assert sum("Too long" in content for content in sent_of(other.accepted[-1])) == 3


def test_a_first_message_that_does_not_fit_is_asked_again_by_a_retry(one, provider):
    provider.default = model = Model(100)
    alice, long = one.client(), words(101, "Too long:")
    response = alice.post("/sessions", {"content": long, "model": model.name})
    assert response.status_code == 413
    path = response.headers["Location"]
    assert alice.post(path + "/retry").status_code == 413
    assert [sent_of(body) for body in model.refused] == [[long]] * 2
    model.window = 1000
    assert alice.post(path + "/retry").status_code == 201
    assert alice.post(path + "/messages", {"content": "And now?"}).status_code == 201
    assert sent_of(model.accepted[-1])[0] == long, "it was refused once, but answered since"


def test_a_stream_and_a_deferred_answer_tell_of_a_message_that_is_too_long(talk):
    conversation = talk(Model(100))
    with conversation.client.stream(
        "POST", conversation.path + "/messages", {"content": words(200)}
    ) as events:
        [error] = events
    assert (error.name, error.data["status"]) == ("error", 413)
    assert error.data["message"].startswith("Shorten this message")
    assert conversation.say(words(200), Prefer="respond-async").status_code == 202
    turn = wait_for_status(conversation.client, {"id": conversation.id}, "failed")
    assert turn["error"]["status"] == 413
    assert conversation.say("Short.").status_code == 201


def test_a_system_prompt_that_does_not_fit_is_never_left_out(talk):
    model = Model(100)
    conversation = talk(model)
    conversation.client.patch(conversation.path, {"system": words(100)})
    assert conversation.say("Short.").status_code == 413
    assert all(body["system"] == words(100) for body in model.refused)
    conversation.client.patch(conversation.path, {"system": None})
    assert conversation.say("Short.").status_code == 201


# Servers that count our limit in

VLLM = {name: refusal["body"] for name, refusal in REFUSALS.items() if name.startswith("vLLM 0")}


@pytest.mark.parametrize("tells", [True, False], ids=["with usage", "without usage"])
@pytest.mark.parametrize("refusal", VLLM.values(), ids=VLLM)
def test_vllm_refuses_once_at_most_and_never_has_less_than_a_quarter(talk, refusal, tells):
    model = Model(8192, refusal, OPENAI, counts=True, tells=tells)
    conversation = talk(model)
    assert len(model.refused) == 1
    conversation.go_on(20)
    assert len(model.refused) == 1, "what was learned is not asked again"
    assert all(8192 // 4 <= body["max_tokens"] <= 8192 for body in model.accepted)
    assert talk(model).id and len(model.refused) == 1, "nor in another session"


@pytest.mark.parametrize("tells", [True, False], ids=["with usage", "without usage"])
@pytest.mark.parametrize("refusal", VLLM.values(), ids=VLLM)
def test_vllm_goes_on_where_a_conversation_outgrows_it(talk, refusal, tells):
    model = Model(8192, refusal, OPENAI, counts=True, answer_size=400, tells=tells)
    conversation = talk(model)
    conversation.go_on(30, 400)
    assert min(body["max_tokens"] for body in model.accepted) >= 8192 // 4
    assert conversation.show()[1]
    assert len(model.refused) <= 1 + 3 * len(model.trimmed)


def test_the_limit_is_as_large_as_fits_once_turns_are_left_out(talk):
    """A word of these is six bytes, and a token: a limit that took a byte for a token would be far too small."""
    model = Model(8192, VLLM["vLLM 0.10"], OPENAI, counts=True, answer_size=400)
    talk(model).go_on(12, 400)
    [trimmed] = model.trimmed
    assert 0.6 * (8192 - tokens(trimmed)) <= trimmed["max_tokens"] <= 8192 - tokens(trimmed)


@pytest.mark.parametrize("refusal", VLLM.values(), ids=VLLM)
def test_what_a_server_adds_to_each_prompt_is_not_paid_for_by_each_message(talk, refusal):
    model = Model(8192, refusal, OPENAI, counts=True, hidden=150)
    conversation = talk(model)
    conversation.go_on(20)
    assert len(model.refused) <= 2
    assert min(body["max_tokens"] for body in model.accepted) >= 8192 // 4
    for number in range(1, 4):
        talk(model).go_on(3)
        assert len(model.refused) <= 2 + number, "one a session"


def test_where_no_window_is_named_an_answer_has_256_tokens_and_a_short_session_more(talk):
    model = Model(10_000, GROQ, OPENAI, counts=True)
    conversation = talk(model)
    assert (model.refused, model.accepted[-1]["max_tokens"]) == ([], 8192)
    conversation.go_on(1, 9000)
    assert (len(model.refused), model.accepted[-1]["max_tokens"]) == (1, 256)
    talk(model)
    assert (len(model.refused), model.accepted[-1]["max_tokens"] > 256) == (1, True)


def test_a_small_window_without_a_number_still_goes_on(talk):
    model = Model(600, GROQ, OPENAI, counts=True)
    conversation = talk(model)
    conversation.go_on(30)
    assert all(body["max_tokens"] >= 256 for body in model.accepted)
    assert conversation.show()[1]


# Refusals by server


@on_one_engine
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_each_servers_refusal_shortens_what_is_sent(talk, refusal):
    kind, counts = refusal.get("kind", OPENAI), refusal.get("counts", False)
    model = Model(1000, refusal["body"], kind, refusal["status"], counts, answer_size=100)
    conversation = talk(model)
    turn = conversation.go_on(7, 100)
    assert turn["turns_left_out"] > 0
    assert conversation.show()[1]
    assert len(model.refused) <= 5
    if counts:
        assert all(body["max_tokens"] >= 250 for body in model.accepted)
    else:
        assert {body["max_tokens"] for body in model.accepted} == {8192}


NO_OVERFLOWS = {  # what speaks of tokens and limits, but says nothing of the window
    "Anthropic, longest answer": (
        400,
        "max_tokens: 10000 > 4096, which is the maximum allowed number of output tokens for claude-3",
    ),
    "OpenAI, longest answer": (
        400,
        "max_tokens is too large: 8192. This model supports at most 4096 completion tokens, whereas you provided "
        "8192.",
    ),
    "OpenAI, newer": (
        400,
        "Invalid 'max_tokens': integer above maximum value. Expected a value <= 32768, but got 99999 instead.",
    ),
    "Groq, longest answer": (
        400,
        "`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than the "
        "`context_window` for this model",
    ),
    "DeepSeek": (400, "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"),
    "Cohere, longest answer": (
        400,
        "too many tokens: max tokens must be less than or equal to 4096, the maximum output length for this model "
        "- received 1000000.",
    ),
    "Bedrock, longest answer": (
        400,
        "The maximum tokens you requested exceeds the model limit of 4096. Try again with a maximum tokens value "
        "that is lower than 4096.",
    ),
    "Vertex": (
        400,
        "Unable to submit request because it has a maxOutputTokens value of 100000 but the supported range is from "
        "1 (inclusive) to 65537 (exclusive). Update the value and try again.",
    ),
    "Ollama Cloud": (
        400,
        "max_tokens (32768) exceeds model's maximum output tokens (16384) for model kimi-k3",
    ),
    "DashScope": (400, "Range of max_tokens should be [1, 65536]"),
    "Doubao": (
        400,
        "The parameter `max_completion_tokens` specified in the request are not valid: integer above maximum "
        "value, expected a value <= 12288, but got 32000 instead.",
    ),
    "unnamed": (400, "max_tokens (current value: 4096) must be between 0 and 4000"),
    "Scaleway": (416, "max_completion_tokens is limited for this model"),
    "OpenAI, tokens per minute": (
        429,
        "Request too large for gpt-4 in organization org on tokens per min (TPM): Limit 10000, Requested 12000. "
        "The input or output tokens must be reduced in order to run successfully.",
    ),
    "Bedrock, throttle": (429, "Too many tokens, please wait before trying again."),
    "Bedrock, throttle as a bad request": (
        400,
        "Too many tokens, please wait before trying again.",
    ),
    "Anthropic, tokens per minute": (
        429,
        "This request would exceed your organization's rate limit of 30,000 input tokens per minute. Please reduce "
        "the prompt length or the maximum tokens requested.",
    ),
    "OpenRouter, credit": (
        402,
        "This request requires more credits, or fewer max_tokens. You requested up to 31776 tokens, but can only "
        "afford 9063.",
    ),
    "a user's own words": (400, "The role of message 3 is not known."),
}


@on_one_engine
@pytest.mark.parametrize("code, message", NO_OVERFLOWS.values(), ids=NO_OVERFLOWS)
def test_what_is_no_overflow_leaves_nothing_out(talk, provider, code, message):
    model = Model(10_000, kind=OPENAI)
    conversation = talk(model)
    conversation.go_on(2)
    kind = "tokens" if "TPM" in message else "invalid_request_error"
    text = json.dumps(
        {
            "error": {
                "message": message,
                "type": kind,
                "code": "rate_limit_exceeded" if "TPM" in message else None,
            }
        }
    )
    before = len(provider.posts)
    provider.default = raw(
        head(code, "application/json", Content_Length=len(text), retry_after_ms="1")
        + text.encode(),
        KEEP,
    )
    response = conversation.say("Go on.")
    assert response.status_code in (502, 503), response.text
    contents = [
        (sent_of(request.body), request.body["max_tokens"]) for request in provider.posts[before:]
    ]
    assert all(sent == contents[0] for sent in contents) and len(contents[0][0]) == 7
    assert contents[0][1] == 8192
    provider.default = model
    conversation.go_on(1)
    assert conversation.show()[1] is None


# Replies that end since the window is full


@pytest.mark.parametrize("counted", [True, False], ids=["with usage", "without usage"])
def test_a_reply_that_ends_below_our_limit_moves_the_cut_for_the_next_one(talk, provider, counted):
    """So llama.cpp tells that its window is full, and says nothing else."""
    model = Model(10_000, LLAMA, OPENAI)
    conversation = talk(model)
    conversation.go_on(5)
    provider.script = [ended("length", usage=counted and (15, 7, 3) or None)]
    turn = conversation.say(words(30, "Message 7:")).json()
    assert (turn["status"], turn["stop_reason"], turn["content"]) == (
        "complete",
        "length",
        "Half a sentence",
    )
    assert turn["turns_left_out"] == 0
    turns, first = conversation.show()
    place = [turn["id"] for turn in turns].index(first)
    sizes = [len(turn["content"]) for turn in turns]
    assert turns[place]["kind"] == "user"
    assert sum(sizes[place:]) <= sum(sizes) / 2 < sum(sizes[place - 2 :])
    turn = conversation.go_on(3, first=8)
    assert sent_of(model.accepted[-1])[0] == turns[place]["content"]
    assert turn["turns_left_out"] == place
    assert conversation.show()[1] == first, "the cut stays"


@pytest.mark.parametrize("limit", ["MAX_TOKENS", "max_tokens"])
def test_a_reply_that_ends_at_our_own_limit_moves_nothing(provider, tmp_path, limit):
    with running(
        tmp_path,
        OPENAI_BASE_URL=provider.url + "/v1",
        MAX_TOKENS=7 if limit == "MAX_TOKENS" else 100,
    ) as server:
        model = Model(10_000, LLAMA, OPENAI)
        provider.default = model
        conversation = Conversation(
            server.client(),
            model,
            **({} if limit == "MAX_TOKENS" else {"options": {"max_tokens": 7}}),
        )
        conversation.go_on(3)
        for usage in ((15, 7, 3), None):
            provider.script = [ended("length", "As far as that.", usage)]
            turn = conversation.say("Go on.").json()
            assert (turn["status"], turn["stop_reason"]) == ("complete", "length")
            assert conversation.show()[1] is None
        conversation.go_on(1, first=7)
        assert len(sent_of(model.accepted[-1])) == 13


def test_what_anthropic_counts_before_an_answer_is_not_its_length(talk, provider):
    """A compatible server may count nothing behind it: as many bytes as our limit has tokens may be an answer at our limit."""
    model = Model(10_000)
    conversation = talk(model, options={"max_tokens": 7})
    conversation.go_on(3)
    provider.script = [
        stream(
            {
                "type": "message_start",
                "message": {"usage": {"input_tokens": 15, "output_tokens": 1}},
            },
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": "As far as that."},
            },
            {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}},
            {"type": "message_stop"},
        )
    ]
    assert conversation.say("Go on.").json()["stop_reason"] == "length"
    assert conversation.show()[1] is None


@pytest.mark.parametrize("kind", [ANTHROPIC, OPENAI])
def test_a_model_that_says_that_its_window_is_full_moves_the_cut(talk, provider, kind):
    model = Model(10_000, kind=kind)
    conversation = talk(model)
    conversation.go_on(5)
    provider.script = [ended("model_context_window_exceeded")]
    turn = conversation.say(words(30, "Message 7:")).json()
    assert (turn["status"], turn["stop_reason"]) == ("complete", "length")
    assert conversation.show()[1]
    conversation.go_on(1, first=8)
    assert 0 < len(sent_of(model.accepted[-1])) < 9


@pytest.mark.parametrize("kind", [ANTHROPIC, OPENAI])
@pytest.mark.parametrize("reason", ["length", "model_context_window_exceeded"])
def test_an_answer_without_a_word_is_asked_for_again_with_less(talk, provider, kind, reason):
    model = Model(10_000, kind=kind)
    conversation = talk(model)
    conversation.go_on(5)
    before = len(provider.posts)
    provider.script = [ended(reason, "")]
    turn = conversation.go_on(1, first=7)
    assert (turn["status"], turn["stop_reason"]) == ("complete", "stop")
    sent = [sent_of(request.body) for request in provider.posts[before:]]
    assert len(sent) == 2 and len(sent[0]) == 13
    assert turn["turns_left_out"] == 13 - len(sent[1]) > 0


def test_an_answer_without_a_word_to_a_lone_message_is_413(one, provider):
    provider.default = ended("model_context_window_exceeded", "")
    response = one.client().post(
        "/sessions", {"content": "Hello", "model": f"w-{uuid.uuid4().hex}"}
    )
    assert response.status_code == 413
    assert response.json()["errors"][0]["detail"].startswith("Shorten this message")


def test_a_reply_longer_than_half_of_all_leaves_the_next_message_alone(talk, provider):
    model = Model(10_000, LLAMA, OPENAI)
    conversation = talk(model)
    provider.script = [ended("length", words(200))]
    conversation.go_on(1)
    assert conversation.client.post(conversation.path + "/retry").status_code == 201
    assert sent_of(model.accepted[-1]) == [words(30, "Message 2:")], (
        "the last message is asked again all the same"
    )
    provider.script = [ended("length", words(200))]
    assert conversation.client.post(conversation.path + "/retry").status_code == 201
    turn = conversation.go_on(1, first=3)
    assert sent_of(model.accepted[-1]) == [words(30, "Message 3:")]
    assert turn["turns_left_out"] == 4
    turns, first = conversation.show()
    assert first == turns[4]["id"]
    conversation.go_on(1, first=4)
    assert len(sent_of(model.accepted[-1])) == 3


# What a provider says of the end

ENDS = {  # the status of the turn, its `stop_reason`, and whether it is one that may pass
    "stop": ("complete", "stop"),
    "STOP": ("complete", "stop"),
    "end_turn": ("complete", "stop"),
    "stop_sequence": ("complete", "stop"),
    "eos_token": ("complete", "stop"),
    "COMPLETE": ("complete", "stop"),
    "tool_calls": ("complete", "stop"),
    "tool_use": ("complete", "stop"),
    "function_call": ("complete", "stop"),
    "a word of the future": ("complete", "stop"),
    "length": ("complete", "length"),
    "max_tokens": ("complete", "length"),
    "MAX_TOKENS": ("complete", "length"),
    "model_length": ("complete", "length"),
    "model_context_window_exceeded": ("complete", "length"),
    "content_filter": ("failed", None),
    "refusal": ("failed", None),
    "SAFETY": ("failed", None),
    "RECITATION": ("failed", None),
    "sensitive": ("failed", None),
    "error": ("failed", None, "and is asked to go on"),
    "abort": ("failed", None, "and is asked to go on"),
    "network_error": ("failed", None, "and is asked to go on"),
    "insufficient_system_resource": ("failed", None, "and is asked to go on"),
    "pause_turn": ("failed", None, "and is asked to go on"),
}


@on_one_engine
@pytest.mark.parametrize("kind", [ANTHROPIC, OPENAI])
@pytest.mark.parametrize("reason, outcome", ENDS.items(), ids=ENDS)
def test_a_turn_tells_how_its_answer_ended(one, provider, kind, reason, outcome):
    provider.default = lambda request: (
        status(400) if so_far(request) else ended(reason, "So far.")
    )(request)
    alice = one.client()
    with alice.stream(
        "POST", "/sessions", {"content": "Hello", "model": f"{kind}-{uuid.uuid4().hex}"}
    ) as events:
        session, *_, last = events
    turn = alice.turns(session.data)[-1]
    assert (turn["status"], turn["stop_reason"], turn["content"]) == (*outcome[:2], "So far.")
    assert last.name == ("done" if outcome[0] == "complete" else "error")
    assert (turn["continued"], turn["turns_left_out"]) == (len(outcome[2:]), 0)


NO_ENDS = {
    "openai: null, and the end of all": (OPENAI, [thought(content="So far."), "[DONE]"], "failed"),
    "openai: the word null": (
        OPENAI,
        [
            {"choices": [{"index": 0, "delta": {"content": "So far."}, "finish_reason": "null"}]},
            "[DONE]",
        ],
        "failed",
    ),
    "openai: null until the last": (
        OPENAI,
        [
            thought(content="So far."),
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        ],
        "complete",
    ),
    "anthropic: null at the end of all": (
        ANTHROPIC,
        [
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": "So far."},
            },
            {
                "type": "message_delta",
                "delta": {"stop_reason": None},
                "usage": {"output_tokens": 7},
            },
            {"type": "message_stop"},
        ],
        "complete",
    ),
}


@pytest.mark.parametrize("kind, events, outcome", NO_ENDS.values(), ids=NO_ENDS)
def test_an_end_without_a_reason(one, provider, kind, events, outcome):
    provider.default = stream(*events)
    alice = one.client()
    response = alice.post("/sessions", {"content": "Hello", "model": f"{kind}-{uuid.uuid4().hex}"})
    turn = alice.turns({"id": response.headers["Location"].rpartition("/")[2]})[-1]
    assert (turn["status"], turn["content"]) == (outcome, "So far.")
    assert turn["stop_reason"] == ("stop" if outcome == "complete" else None)


# While it is trimmed


def test_a_reply_that_is_trimmed_and_then_cut_keeps_its_text_and_the_cut(talk, provider):
    model = Model(200)
    conversation = talk(model)
    conversation.go_on(2)
    provider.script = [model, fails("Half")]
    response = conversation.say(words(100, "Message 4:"))
    assert response.status_code == 502
    turns, first = conversation.show()
    assert (turns[-1]["status"], turns[-1]["content"], turns[-1]["stop_reason"]) == (
        "failed",
        "Half",
        None,
    )
    assert first == turns[turns[-1]["turns_left_out"]]["id"] != turns[0]["id"]
    assert conversation.client.post(conversation.path + "/retry").status_code == 201
    refused = len(model.refused)
    conversation.go_on(1, 10, first=5)
    assert len(model.refused) - refused <= 1


@pytest.mark.parametrize("begun", [False, True], ids=["before the answer", "in the middle of it"])
def test_a_cancel_while_a_reply_is_trimmed_hangs_up_and_the_next_message_works(
    talk, provider, begun
):
    model = Model(200)
    conversation = talk(model)
    conversation.go_on(2)
    before = len(provider.posts)
    provider.script = [
        model,
        reply("Half", threading.Event()) if begun else silence(threading.Event()),
    ]
    conversation.say(words(100, "Message 4:"), Prefer="respond-async")
    asked = provider.wait_for_request(before + 2)
    response = conversation.client.post(conversation.path + "/cancel")
    assert (response.status_code, response.json()["status"]) == (200, "interrupted")
    assert asked.hung_up.wait(1)
    assert conversation.say(words(10, "Message 5:")).status_code == 201
    assert tokens(model.accepted[-1]) <= 200
    assert conversation.client.post(conversation.path + "/retry").status_code == 201


@on_one_engine
def test_a_reply_that_is_trimmed_goes_on_trimmed_behind_kill_9(start, settings, provider):
    model = Model(200, LLAMA, OPENAI)
    provider.default = model
    server = start(**settings)
    conversation = Conversation(server.client(), model)
    conversation.go_on(2)
    provider.script = [model, reply("Half", threading.Event())]
    with conversation.client.stream(
        "POST", conversation.path + "/messages", {"content": words(100, "Message 4:")}
    ) as events:
        assert next(iter(events)).data == {"delta": "Half"}
        server.kill()
    provider.script = []
    with tables_of(
        settings["DATABASE_URL"]
    ) as tables:  # as if its lease had lapsed for long enough
        tables.rows("UPDATE turn SET lease_until = 0 WHERE status = 'in_progress'")
    conversation.client = start(**settings).client()
    turn = wait_for_status(conversation.client, {"id": conversation.id}, "complete")
    assert (turn["continued"], turn["turns_left_out"] > 0) == (1, True)
    assert tokens(model.accepted[-1]) <= 200
    turns, _ = conversation.show()
    assert [turn["content"].split()[0] for turn in turns] == ["Message", "Answer"] * 3 + [
        "Message",
        "HalfAnswer",
    ]
    assert conversation.client.post(conversation.path + "/retry").status_code == 201
    conversation.go_on(2, first=5)
    assert conversation.show()[1]


def test_a_session_of_more_than_eight_megabytes_goes_on(one, provider):
    """The newest eight are read at most; where they begin is a cut like any other."""
    provider.default = model = Model(10**9, kind=OPENAI, answer_size=5)
    conversation = Conversation(one.client(), model)
    for number in range(2, 11):
        assert (
            conversation.say(words(166_000, f"Message {number}:")).status_code == 201
        )  # almost a megabyte
    contents = sent_of(model.accepted[-1])
    assert len(json.dumps(model.accepted[-1])) < 8.1 * 2**20
    turns, first = conversation.show()
    assert turns[-1]["turns_left_out"] == 19 - len(contents) > 0
    assert next(turn["content"] for turn in turns if turn["id"] == first) == contents[0]
    model.window = 500_000
    turn = conversation.say("Go on.")
    assert turn.status_code == 201
    assert turn.json()["turns_left_out"] > 10


@on_one_engine
def test_a_conversation_is_sent_whole_and_in_order_however_it_is_read(one, provider):
    """It is read in parts, by number and by bytes."""
    sizes = [120_000 if number % 9 == 0 else 5 for number in range(45)]
    questions = [f"Question {number} " + "世" * size for number, size in enumerate(sizes)]
    alice = one.client()
    path = f"/sessions/{alice.create(questions[0])['id']}/messages"
    for question in questions[1:]:
        assert alice.post(path, {"content": question}).status_code == 201
    said = [message["content"] for message in provider.posts[-1].body["messages"]]
    assert said[::2] == questions and set(said[1::2]) == {"The answer."}


@on_one_engine
def test_the_cut_of_eight_megabytes_stays_for_some_messages(one, provider):
    provider.default = model = Model(10**9, kind=OPENAI, answer_size=5)
    conversation = Conversation(one.client(), model)
    for number in range(2, 16):
        assert conversation.say(words(166_000, f"Message {number}:")).status_code == 201
    assert model.share > 0.7


def test_an_overflow_that_is_told_behind_text_is_no_refusal_of_the_message(talk, provider):
    """As of LM Studio, whose window is full in the middle of an answer: the message did fit."""
    model = Model(10_000, LLAMA, OPENAI)
    conversation = talk(model)
    provider.script = [
        stream(thought(content="Half"), {"error": {"message": "Context size has been exceeded"}})
    ]
    assert conversation.say("Message 2.").status_code == 413
    assert conversation.show()[0][-1]["content"] == "Half"
    assert conversation.say("Message 3.").status_code == 201
    assert "Message 2." in sent_of(model.accepted[-1])


# Where a window, a limit or a cut could be wrong for good


@pytest.mark.parametrize(
    "body", [None, {"content": words(10, "Changed:")}], ids=["as it is", "changed"]
)
def test_a_first_reply_that_filled_the_window_is_asked_for_again_and_remembered(
    talk, provider, body
):
    model = Model(10_000, LLAMA, OPENAI)
    conversation = talk(model)
    provider.script = [ended("length", words(200))]
    assert conversation.client.post(conversation.path + "/retry").json()["stop_reason"] == "length"
    assert (
        conversation.client.post(conversation.path + "/retry", body).json()["stop_reason"] == "stop"
    )
    assert conversation.say("Message 2.").json()["turns_left_out"] == 0
    assert len(sent_of(model.accepted[-1])) == 3
    assert conversation.show()[1] is None


@pytest.mark.parametrize("kind", [ANTHROPIC, OPENAI])
@pytest.mark.parametrize("tokens_written", [0, 1])
def test_a_full_window_that_yields_no_word_leaves_turns_out(talk, provider, kind, tokens_written):
    if (kind, tokens_written) == (ANTHROPIC, 1):
        tokens_written = (
            2  # 1 is no place-holder at the end, but the stand-in could not tell it from one
        )
    model = Model(10_000, kind=kind)
    conversation = talk(model)
    conversation.go_on(4)
    provider.script = [
        ended("length" if kind == OPENAI else "max_tokens", "", (15, tokens_written, 0))
    ]
    turn = conversation.say("Message 6.").json()
    assert (turn["status"], turn["stop_reason"]) == ("complete", "stop")
    assert turn["turns_left_out"] > 0


def test_no_request_is_sent_twice_where_only_empty_replies_could_be_left_out(one, provider):
    model = Model(20)
    provider.default = model
    alice = one.client()
    response = alice.post("/sessions", {"content": words(30), "model": model.name})
    path = response.headers["Location"]
    for number in range(3):
        before = len(provider.posts)
        assert (
            alice.post(path + "/messages", {"content": words(30, f"Message {number}:")}).status_code
            == 413
        )
        assert len(provider.posts) == before + 1
    assert alice.post(path + "/messages", {"content": "Short."}).status_code == 201
    shown = alice.get(path)
    by_id = {turn["id"]: turn["content"] for turn in shown.json()["turns"]}
    assert by_id[shown.headers["First-Turn-Sent"]] == "Short."


def test_what_a_cancelled_reply_has_learned_of_the_window_is_kept(talk, provider):
    model, gate = Model(200), threading.Event()
    conversation = talk(model)
    conversation.go_on(2)
    before = len(provider.posts)
    provider.script = [model, reply("Half", gate)]
    conversation.say(words(100, "Message 4:"), Prefer="respond-async")
    provider.wait_for_request(before + 2)
    wait_until(lambda: conversation.show()[0][-1]["content"] == "Half")
    assert conversation.client.post(conversation.path + "/cancel").status_code == 200
    wait_until(lambda: conversation.show()[1] is not None)
    assert conversation.show()[0][-1]["turns_left_out"] > 0
    refused = len(model.refused)
    assert conversation.say("Message 5.").status_code == 201
    assert len(model.refused) == refused


def test_no_user_can_teach_a_window_by_an_option(one, provider):
    """A provider may quote the value that it refuses."""
    text = "max_new_tokens` must be <= 4"
    response = one.client().post(
        "/sessions", {"content": "Hello", "options": {"reasoning_effort": text}}
    )
    assert response.status_code == 400
    assert response.json()["errors"][0]["source"] == {"pointer": "/options/reasoning_effort"}
    assert provider.posts == []


# Words that are not the provider's own

TEACHING = 'this "model"\'s maximum context length is 4 tokens. However,\n'
TEACHING += "you requested 9 output tokens 世界"
LONG_TEACHING = f"{TEACHING} and {words(60)} prompt is too long: reduce the length of the messages"


def refusal(message, code=400, **fields):
    body = json.dumps({"error": {"message": message, "type": "invalid_request_error"} | fields})
    return raw(head(code, "application/json", Content_Length=len(body)) + body.encode(), KEEP)


def pydantic(text):
    """As docs.pydantic.dev/latest/errors/validation_errors: it quotes the value that it refuses."""
    detail = {"type": "value_error", "loc": ["body", "messages", 0, "content"]}
    detail |= {"msg": "Value error, not allowed", "input": text}
    body = json.dumps({"detail": [detail]})
    return raw(head(422, "application/json", Content_Length=len(body)) + body.encode(), KEEP)


def in_a_stream(message):
    return stream({"error": {"message": message, "type": "invalid_request_error"}})


QUOTATIONS = {
    "pydantic's input": pydantic,
    "pydantic's text": lambda text: refusal(f"1 error [input_value={text!r}, input_type=str]"),
    "JSON": lambda text: refusal(f"Not allowed: {json.dumps(text)}"),
    "JSON as it is": lambda text: refusal(f"Not allowed: {json.dumps(text, ensure_ascii=False)}"),
    "JSON in JSON": lambda text: refusal(json.dumps({"error": json.dumps({"content": text})})),
    "HTML": lambda text: refusal(f"Not allowed: {html.escape(text)}"),
    "folded, in capitals": lambda text: refusal(f"Not allowed: '{' '.join(text.upper().split())}'"),
    "cut": lambda text: refusal(f"Not allowed: {text[:70]}..."),
    "cut in the middle": lambda text: refusal(f"value='{text[:70]}…{text[-40:]}' is not allowed"),
    "without marks": lambda text: refusal(f"The content {text} is not allowed."),
    "nothing else": lambda text: refusal(text),
    "a status of 500": lambda text: refusal(f"Cannot answer '{text}'", 500),
    "an event of a stream": lambda text: in_a_stream(f"Not allowed: '{text}'"),
}


class Gateway(Model):
    """Before a model: while it is `shut`, it refuses each request that has this text, and quotes it
    in its own `form`."""

    def __init__(self, form, text, kind=OPENAI):
        super().__init__(10_000, kind=kind)
        self.form, self.text, self.shut, self.quoted = form, text, True, []

    def __call__(self, request):
        body = request.body
        sent = [body.get("system"), *(message["content"] for message in body["messages"])]
        if self.shut and self.text in sent:
            self.quoted.append(body)
            return self.form(self.text)(request)
        return super().__call__(request)


def check_that_nothing_is_learned(one, model):
    """Another user's first request has the whole limit, and is taken."""
    refused = len(model.refused)
    one.client(BOB).create("Hello", model=model.name)
    assert (model.accepted[-1]["max_tokens"], len(model.refused)) == (8192, refused)


@on_one_engine
@pytest.mark.parametrize("text", [TEACHING, LONG_TEACHING], ids=["short", "long"])
@pytest.mark.parametrize("form", QUOTATIONS.values(), ids=QUOTATIONS)
def test_a_message_that_is_quoted_teaches_nothing_and_cuts_nothing(one, talk, form, text):
    gateway = Gateway(form, text)
    conversation = talk(gateway)
    conversation.go_on(2)
    response = conversation.say(text)
    assert response.status_code == 502, response.text
    assert all(len(sent_of(body)) == 7 and body["max_tokens"] == 8192 for body in gateway.quoted)
    assert conversation.show()[1] is None
    check_that_nothing_is_learned(one, gateway)
    gateway.shut = False
    assert conversation.say("Message 5.").json()["turns_left_out"] == 0
    assert gateway.accepted[-1]["max_tokens"] == 8192


@on_one_engine
@pytest.mark.parametrize("form", QUOTATIONS.values(), ids=QUOTATIONS)
def test_a_system_prompt_that_is_quoted_teaches_nothing(one, provider, form):
    provider.default = gateway = Gateway(form, TEACHING, ANTHROPIC)
    body = {"content": "Hello", "model": gateway.name, "system": TEACHING}
    response = one.client().post("/sessions", body)
    assert response.status_code == 502, response.text
    assert {body["max_tokens"] for body in gateway.quoted} == {8192}
    check_that_nothing_is_learned(one, gateway)


@on_one_engine
@pytest.mark.parametrize("form", QUOTATIONS.values(), ids=QUOTATIONS)
def test_an_older_turn_that_is_quoted_stays_in_the_conversation(one, talk, form):
    gateway = Gateway(form, TEACHING)
    gateway.shut = False
    conversation = talk(gateway)
    assert conversation.say(TEACHING).status_code == 201
    conversation.go_on(2, first=3)
    gateway.shut = True
    response = conversation.say("Message 5.")
    assert response.status_code == 502, response.text
    assert all(len(sent_of(body)) == 9 for body in gateway.quoted)
    assert conversation.show()[1] is None
    check_that_nothing_is_learned(one, gateway)
    gateway.shut = False
    assert conversation.say("Message 6.").json()["turns_left_out"] == 0
    assert TEACHING in sent_of(gateway.accepted[-1])


NAMES = {
    "in marks": "The model `{}` cannot be asked.",
    "without marks": "Model {} cannot be asked.",
    "behind a sign": "Bad name passed in model={}",
}


@pytest.mark.parametrize("message", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("status", [400, 200], ids=["refused", "in a stream"])
def test_the_name_of_a_model_that_is_quoted_is_no_overflow(one, provider, message, status):
    name = f"context length is 4 tokens. However, you requested 9 output tokens, {uuid.uuid4().hex}"
    text = message.format(name)
    provider.default = refusal(text) if status == 400 else in_a_stream(text)
    response = one.client().post("/sessions", {"content": "Hello", "model": name})
    assert response.status_code == 502, response.text
    assert [request.body["max_tokens"] for request in provider.posts] == [8192]


@pytest.mark.parametrize("value", ["context_length_exceeded", "n_keep", "request_too_large"])
def test_an_options_value_that_is_quoted_is_no_overflow(talk, value):
    model = Model(10_000, kind=OPENAI)
    conversation = talk(model)
    conversation.go_on(2)
    said = f"Unsupported value: 'reasoning_effort' does not support '{value}'. It may be 'low'."
    conversation.client.patch(conversation.path, {"options": {"reasoning_effort": value}})
    error = {"message": said, "type": "invalid_request_error"}
    model.window, model.refusal = 0, json.dumps({"error": error})
    response = conversation.say("Message 4.")
    assert response.status_code == 400, response.text
    assert response.json()["errors"][0]["source"] == {"pointer": "/options/reasoning_effort"}
    assert len(model.refused) == 1
    assert conversation.show()[1] is None


class Quoting(Model):
    """It quotes the last message before it says in its own words why that is refused."""

    def __call__(self, request):
        said = says(json.loads(VLLM["vLLM 0.18"]))
        message = f"Cannot answer '{' '.join(sent_of(request.body)[-1].split())}': {said}"
        self.refusal = json.dumps({"error": {"message": message, "type": "BadRequestError"}})
        return super().__call__(request)


def test_a_refusal_that_quotes_the_user_too_is_taken_for_what_it_says_itself(one, provider):
    """Its window is learned, and turns are left out, though a quotation with another is before it."""
    provider.default = model = Quoting(8192, kind=OPENAI, counts=True, answer_size=800)
    alice = one.client()
    path = "/sessions/" + alice.create(TEACHING, model=model.name)["id"]
    assert (len(model.refused), model.accepted[-1]["max_tokens"] >= 8192 // 4) == (1, True)
    for number in range(12):
        response = alice.post(path + "/messages", {"content": f"{TEACHING} {number}"})
        assert response.status_code == 201, response.text
    assert min(body["max_tokens"] for body in model.accepted) >= 8192 // 4
    assert response.json()["turns_left_out"] > 0
    refused = len(model.refused)
    one.client(BOB).create("Hello", model=model.name)
    assert len(model.refused) == refused, "what was learned holds for others"


def says(body):
    return (body.get("error") or body)["message"]


PASTED = ("Anthropic", "vLLM 0.10", "OpenAI, with the answer", "Groq", "Cerebras")


@pytest.mark.parametrize("name", PASTED)
def test_a_conversation_about_refusals_goes_on_behind_its_own(talk, name):
    """Its user shows what the same server has told of another prompt, and speaks of parameters."""
    refusal = REFUSALS[name]
    kind, counts = refusal.get("kind", OPENAI), refusal.get("counts", False)
    model = Model(1000, refusal["body"], kind, refusal["status"], counts, answer_size=100)
    conversation = talk(model)
    numbers = {"prompt": 987, "window": 1000, "limit": 345, "total": 1332, "left": 655}
    pasted = says(json.loads(string.Template(refusal["body"]).substitute(numbers)))
    for content in (f"Why does it say: {pasted} What is 'max_tokens'?", pasted):
        assert conversation.say(content).status_code == 201
    turn = conversation.go_on(6, 100, first=4)
    assert turn["turns_left_out"] > 0
    assert all(body["max_tokens"] >= 250 for body in model.accepted)


# What is learned, and when

COUNTED = "The maximum context length is {} tokens. However, you requested 8192 output tokens."


def test_nothing_is_learned_of_a_limit_that_does_not_help(one, provider):
    """The refusal comes again, whatever the limit."""
    model = Model(10_000, kind=OPENAI)
    provider.default = refusal(COUNTED.format(1000))
    response = one.client().post("/sessions", {"content": "Hello", "model": model.name})
    assert response.status_code == 413
    assert [request.body["max_tokens"] for request in provider.posts][0] == 8192
    assert len(provider.posts) <= 3
    provider.default = model
    check_that_nothing_is_learned(one, model)


def test_what_helps_is_learned_also_where_the_answer_breaks(one, provider):
    model = Model(10_000, kind=OPENAI)
    provider.script = [refusal(COUNTED.format(1000)), fails("Half")]
    response = one.client().post("/sessions", {"content": "Hello", "model": model.name})
    assert response.status_code == 502
    provider.default = model
    one.client(BOB).create("Hello", model=model.name)
    assert 250 <= model.accepted[-1]["max_tokens"] <= 1000


def test_a_window_in_which_the_provider_has_counted_more_is_none(one, provider):
    """By its own count of the prompt that it answered."""
    model = Model(10_000, kind=OPENAI)
    provider.script = [refusal(COUNTED.format(1000)), ended("stop", usage=(995, 7, 3))]
    one.client().create("Hello", model=model.name)
    assert provider.posts[-1].body["max_tokens"] < 1000
    provider.default = model
    check_that_nothing_is_learned(one, model)


@pytest.mark.parametrize("content", ["Hello", words(10_000)], ids=["short", "long"])
def test_a_window_that_cannot_hold_what_was_sent_is_none_for_its_own_reply(one, provider, content):
    """A token has 256 bytes at most: the long one has 235 or more."""
    model = Model(20_000, kind=OPENAI)
    provider.script = [refusal(COUNTED.format(4 if content == "Hello" else 240))]
    one.client().create(content, model=model.name)
    assert [request.body["max_tokens"] for request in provider.posts] == [8192, 256]
    provider.default = model
    check_that_nothing_is_learned(one, model)


def test_a_window_whose_number_stands_in_the_request_is_for_its_own_reply_alone(one, provider):
    """However it is quoted: here by a gateway that says in the middle how much it has left out."""
    model = Model(10_000, kind=OPENAI)
    text = "context length is 400 tokens. However, you requested 900 tokens "
    text += "(500 in it, {} 400 in the completion)"
    provider.script = [refusal("It has: " + text.format("7 characters are left out")), model]
    provider.default = model
    one.client().create(text.format(words(30)), model=model.name)
    assert [request.body["max_tokens"] < 400 for request in provider.posts] == [False, True]
    check_that_nothing_is_learned(one, model)


def test_a_window_that_no_refusal_names_is_learned_from_the_providers_own_words(one, provider):
    """Words that the user has said, too, are heeded by his own reply."""
    own, quoted = Model(10_000, kind=OPENAI), Model(10_000, kind=OPENAI)
    text = "reduce the length of the messages or completion"
    question = f"Why do you say that I should {text} of mine?"
    for model, content in ((own, "Hello"), (quoted, question)):
        provider.default = model
        provider.script = [refusal(f"Please {text}.")]
        before = len(provider.posts)
        one.client().create(content, model=model.name)
        assert [request.body["max_tokens"] for request in provider.posts[before:]] == [8192, 256]
    check_that_nothing_is_learned(one, quoted)
    provider.default = own
    one.client(BOB).create("Hello", model=own.name)
    assert own.accepted[-1]["max_tokens"] < 8192
