"""Both protocols on the wire: an answer is read correctly wherever it is cut.

Modules: `wire/body.py`, `wire/streams.py`.
"""

import concurrent.futures
import json
import threading

import pytest

import wire
from protocols import (
    CLAUDE,
    GPT,
    MESSAGE_STOP,
    WHOLE_ANSWERS,
    answered,
    both,
    choice,
    counts,
    failed,
    message_start,
)
from provider import (
    anthropic_events,
    asked,
    chunk,
    cut,
    head,
    openai_events,
    raw,
    reply,
    so_far,
    status,
    stream,
)
from servers import running

# Answers


def block_start(index=0, **block):
    return {"type": "content_block_start", "index": index, "content_block": block}


def block_delta(index=0, **delta):
    return {"type": "content_block_delta", "index": index, "delta": delta}


def text_delta(text, index=0):
    return block_delta(index, type="text_delta", text=text)


def message_delta(stop="end_turn", **usage):
    return {
        "type": "message_delta",
        "delta": {"stop_reason": stop, "stop_sequence": None},
        "usage": usage,
    }


def usage_chunk(**usage):
    return {"object": "chat.completion.chunk", "choices": [], "usage": usage}


STREAMS = {
    "aimock, anthropic: words cut anywhere, no ping, zeros": (
        CLAUDE,
        [
            message_start(input_tokens=0, output_tokens=0),
            block_start(type="text", text=""),
            *map(text_delta, ["héll", "o 世界", " 🎉 "]),
            {"type": "content_block_stop", "index": 0},
            message_delta(output_tokens=0),
            MESSAGE_STOP,
        ],
        "héllo 世界 🎉 ",
        counts(0, 0),
    ),
    "aimock, openai: an empty first delta, reasoning before the role": (
        GPT,
        [
            choice(reasoning_content="Hm."),
            choice(role="assistant", content=""),
            *(choice(content=text) for text in ["héll", "o 世界", " 🎉 "]),
            choice("stop"),
            usage_chunk(prompt_tokens=14, completion_tokens=7, total_tokens=21),
            "[DONE]",
        ],
        "héllo 世界 🎉 ",
        counts(14, 7),
    ),
    "llmock, anthropic: everything escaped": (
        CLAUDE,
        [
            message_start(input_tokens=12, output_tokens=1),
            block_start(type="text", text=""),
            {"type": "ping"},
            *(
                json.dumps(text_delta(text))
                for text in ["h\u00e9llo ", "\u4e16\u754c ", "\U0001f389 "]
            ),
            {"type": "content_block_stop", "index": 0},
            message_delta(output_tokens=15),
            MESSAGE_STOP,
        ],
        "héllo 世界 🎉 ",
        counts(12, 15),
    ),
    "llama.cpp, anthropic: a cache that was not hit": (
        CLAUDE,
        [
            message_start(cache_read_input_tokens=0, input_tokens=56, output_tokens=0),
            block_start(type="text", text=""),
            *map(text_delta, [" h", "é", "lo2", " ", "🎉"]),
            {"type": "content_block_stop", "index": 0},
            message_delta(output_tokens=31),
            MESSAGE_STOP,
        ],
        " hélo2 🎉",
        counts(56, 31, 0),
    ),
    "llama.cpp, openai: a first delta of null, timings": (
        GPT,
        [
            choice(role="assistant", content=None),
            *(choice(content=text) for text in [" h", "é", "lo2", " ", "🎉"]),
            choice("stop"),
            usage_chunk(
                completion_tokens=31, prompt_tokens=56, prompt_tokens_details={"cached_tokens": 55}
            )
            | {"timings": {"cache_n": 55, "prompt_ms": 0.369}},
            "[DONE]",
        ],
        " hélo2 🎉",
        counts(56, 31, 55),
    ),
    "llm-katan: the usage on the last choice": (
        GPT,
        [
            choice(role="assistant"),
            *(
                json.dumps(choice(content=text))
                for text in ["[ech", "o]\nU", " h\u00e9l", "\u754c \U0001f389 "]
            ),
            choice("stop", usage={"prompt_tokens": 13, "completion_tokens": 16}),
            "[DONE]",
        ],
        "[echo]\nU hél界 🎉 ",
        counts(13, 16),
    ),
    "litellm, openai: text in the first delta, the reason alone in the last, no usage": (
        GPT,
        [
            choice(role="assistant", content="Hello! "),
            choice(content="You "),
            choice("stop"),
            "[DONE]",
        ],
        "Hello! You ",
        counts(),
    ),
    "litellm, anthropic: the input counted at the end": (
        CLAUDE,
        [
            message_start(
                input_tokens=0,
                output_tokens=0,
                cache_creation_input_tokens=0,
                cache_read_input_tokens=0,
            ),
            block_start(type="text", text=""),
            text_delta("Hello! "),
            message_delta(input_tokens=6, output_tokens=11),
            MESSAGE_STOP,
        ],
        "Hello! ",
        counts(6, 11, 0),
    ),
    "mock-llm: the reason on a delta with text": (
        GPT,
        [choice(content="Hel"), choice("stop", content="lo"), "[DONE]"],
        "Hello",
        counts(),
    ),
    "ollama: no [DONE], thinking under another name, usage of null": (
        GPT,
        [choice(reasoning="Hm."), choice(content="Hello") | {"usage": None}, choice("stop")],
        "Hello",
        counts(),
    ),
    "anthropic: thinking, several blocks, text at the start of one, unknown events": (
        CLAUDE,
        [
            {"type": "ping"},
            message_start(
                input_tokens=10,
                cache_read_input_tokens=20,
                cache_creation_input_tokens=5,
                output_tokens=1,
            ),
            block_start(type="thinking", thinking="Hm"),
            block_delta(type="thinking_delta", thinking="Let me see."),
            block_delta(type="signature_delta", signature="c2ln"),
            block_start(1, type="redacted_thinking", data="c2VjcmV0"),
            block_start(2, type="text", text="Hel"),
            text_delta("lo.", 2),
            block_delta(2, type="citations_delta", citation={"cited_text": "No."}),
            {
                "type": "of_the_future",
                "index": 3,
                "message": "No.",
                "delta": "No.",
                "usage": 5,
                "error": None,
            },
            block_start(3, type="text", text=""),
            text_delta(" Bye.", 3),
            message_delta(output_tokens=3),
            message_delta("a_reason_of_the_future", output_tokens=9),
            MESSAGE_STOP,
        ],
        "Hello. Bye.",
        counts(35, 9, 20),
    ),
    "mistral: blocks, of which some are thoughts": (
        GPT,
        [
            choice(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]),
            choice(content=[{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]),
            choice("stop", content="."),
            "[DONE]",
        ],
        "Hello.",
        counts(),
    ),
    "openai: a refusal in words, filter results, padding": (
        GPT,
        [
            {"object": "", "choices": [], "prompt_filter_results": []},
            choice(role="assistant", content=None, refusal=None),
            choice(refusal="I would rather ") | {"obfuscation": "x"},
            choice(refusal="not."),
            choice("stop"),
            "[DONE]",
        ],
        "I would rather not.",
        counts(),
    ),
    "anthropic: nothing to say": (
        CLAUDE,
        [message_start(), message_delta(), MESSAGE_STOP],
        "",
        counts(),
    ),
    "openai: nothing to say": (
        GPT,
        [choice(role="assistant", content=""), choice("stop"), "[DONE]"],
        "",
        counts(),
    ),
    "anthropic: as far as MAX_TOKENS": (
        CLAUDE,
        [message_start(), text_delta("So far"), message_delta("max_tokens"), MESSAGE_STOP],
        "So far",
        counts(),
    ),
    "openai: as far as MAX_TOKENS": (
        GPT,
        [choice(content="So far"), choice("length"), "[DONE]"],
        "So far",
        counts(),
    ),
    "anthropic: as far as the context window": (
        CLAUDE,
        [
            message_start(),
            text_delta("So far"),
            message_delta("model_context_window_exceeded"),
            MESSAGE_STOP,
        ],
        "So far",
        counts(),
    ),
    "an error that is none, and a word of the state": (
        GPT,
        [
            {"id": "1", "message": "queued"},
            choice(content="Hello") | {"error": False},
            choice("stop") | {"error": ""},
            "[DONE]",
        ],
        "Hello",
        counts(),
    ),
    "usage that is none": (
        GPT,
        [
            choice(content="Hello"),
            choice("stop", usage={"prompt_tokens": 1.5, "completion_tokens": -1}),
            "[DONE]",
        ],
        "Hello",
        counts(),
    ),
    "usage that no column holds": (
        GPT,
        [
            choice(content="Hello"),
            choice("stop", usage={"prompt_tokens": 2**40, "completion_tokens": "7"}),
            "[DONE]",
        ],
        "Hello",
        counts(),
    ),
    "usage in words": (
        CLAUDE,
        [
            message_start(input_tokens="12"),
            text_delta("Hello"),
            message_delta(output_tokens=True),
            MESSAGE_STOP,
        ],
        "Hello",
        counts(),
    ),
}


@pytest.mark.parametrize("model, events, text, usage", STREAMS.values(), ids=STREAMS)
def test_the_streams_of_all_servers_are_read(alice, provider, model, events, text, usage):
    provider.script = [stream(*events)]
    turn = answered(alice, model)
    assert (turn["content"], turn["usage"]) == (text, usage)
    assert len(provider.posts) == 1


@both
def test_cached_tokens_count_as_input_tokens(alice, provider, model):
    assert answered(alice, model)["usage"] == counts(15, 7, 3)


@pytest.fixture(scope="module")
def single(provider_of_all, tmp_path_factory):
    """One worker that continues no reply: a reply is exactly one answer."""
    settings = {
        "ANTHROPIC_BASE_URL": provider_of_all.url,
        "ANTHROPIC_API_KEY": "key-of-anthropic",
        "OPENAI_BASE_URL": provider_of_all.url + "/v1",
        "OPENAI_API_KEY": "key-of-openai",
        "CONTINUE_LIMIT": 0,
    }
    with running(tmp_path_factory.mktemp("single"), **settings) as server:
        yield server


MALFORMED = '{"type":"content_block_delta","index":0,"de'


FAULTY_STREAMS = {
    "litellm, openai: an error behind text": (
        GPT,
        [
            choice(content="So far"),
            {"error": {"message": "Connection error.", "type": None, "param": None, "code": "500"}},
        ],
        (502, "So far", "failed with status 500"),
    ),
    "litellm, anthropic: an error behind text": (
        CLAUDE,
        [
            text_delta("So far"),
            {"type": "error", "error": {"type": "api_error", "message": "The stream was closed."}},
        ],
        (502, "So far", "failed with status 500"),
    ),
    "litellm, anthropic: no end": (
        CLAUDE,
        [message_start(), text_delta("So far")],
        (502, "So far", "cut its answer short"),
    ),
    "litellm, anthropic: an event cut in the middle": (
        CLAUDE,
        [text_delta("So far"), MALFORMED, text_delta("No."), message_delta(), MESSAGE_STOP],
        (502, "So far", "not understood"),
    ),
    "litellm, openai: [DONE] without a reason": (
        GPT,
        [choice(content="So far"), "[DONE]"],
        (502, "So far", "cut its answer short"),
    ),
    "openai: no end": (GPT, [choice(content="So far")], (502, "So far", "cut its answer short")),
    "anthropic: overloaded behind text": (
        CLAUDE,
        [
            text_delta("So far"),
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        ],
        (503, "So far", "overloaded"),
    ),
    "openai: limited behind text": (
        GPT,
        [
            choice(content="So far"),
            {"error": {"message": "Slow.", "type": "tokens", "code": "rate_limit_exceeded"}},
        ],
        (503, "So far", "limits this server"),
    ),
    "vllm: an error of its own shape": (
        GPT,
        [
            choice(content="So far"),
            {
                "object": "error",
                "message": "It is no number.",
                "type": "BadRequestError",
                "code": 400,
            },
        ],
        (502, "So far", "It is no number."),
    ),
    "openrouter: an error beside a choice": (
        GPT,
        [
            choice(content="So far"),
            choice("error", content="") | {"error": {"code": 502, "message": "Upstream."}},
        ],
        (502, "So far", "failed with status 502"),
    ),
    "mock-llm: an error first, which is no use to try again": (
        GPT,
        [
            {
                "error": {
                    "message": "It must not be 7.",
                    "type": "invalid_request_error",
                    "code": "unsupported_value",
                }
            }
        ],
        (502, "", "It must not be 7."),
    ),
    "anthropic: an unknown model first": (
        CLAUDE,
        [{"type": "error", "error": {"type": "not_found_error", "message": "model: claude-x"}}],
        (400, "", "no such model"),
    ),
    "openai: too long first": (
        GPT,
        [
            {
                "error": {
                    "message": "It is too long.",
                    "type": "invalid_request_error",
                    "code": "context_length_exceeded",
                }
            }
        ],
        (413, "", "context window"),
    ),
    "openai: out of credit first": (
        GPT,
        [
            {
                "error": {
                    "message": "Pay.",
                    "type": "insufficient_quota",
                    "code": "insufficient_quota",
                }
            }
        ],
        (502, "", "used up"),
    ),
    "openai: a bad key first": (
        GPT,
        [
            {
                "error": {
                    "message": "Wrong: key-of-ope***",
                    "type": "invalid_request_error",
                    "code": "invalid_api_key",
                }
            }
        ],
        (502, "", "refused this server's own key"),
    ),
    "anthropic: a refusal": (
        CLAUDE,
        [message_start(), message_delta("refusal"), MESSAGE_STOP],
        (502, "", "declined"),
    ),
    "anthropic: a refusal behind text": (
        CLAUDE,
        [message_start(), text_delta("So far"), message_delta("refusal"), MESSAGE_STOP],
        (502, "So far", "declined"),
    ),
    "aimock, anthropic: the other protocol's reason": (
        CLAUDE,
        [message_start(), text_delta("So far"), message_delta("content_filter"), MESSAGE_STOP],
        (502, "So far", "declined"),
    ),
    "openai: filtered": (
        GPT,
        [choice(content="So far"), choice("content_filter"), "[DONE]"],
        (502, "So far", "declined"),
    ),
    "openai: filtered at once": (GPT, [choice("content_filter"), "[DONE]"], (502, "", "declined")),
    "anthropic: nothing but thoughts": (
        CLAUDE,
        [
            message_start(),
            block_delta(type="thinking_delta", thinking="Hm"),
            message_delta("max_tokens"),
            MESSAGE_STOP,
        ],
        (502, "", "MAX_TOKENS"),
    ),
    "openai: nothing but thoughts": (
        GPT,
        [choice(reasoning_content="Hm"), choice("length"), "[DONE]"],
        (502, "", "MAX_TOKENS"),
    ),
    "anthropic: no room for an answer": (
        CLAUDE,
        [message_start(), message_delta("model_context_window_exceeded"), MESSAGE_STOP],
        (413, "", "context window"),
    ),
    "no object": (GPT, ["[1, 2]"], (502, "", "not understood")),
    "no list": (GPT, [choice(content="So far"), {"choices": 5}], (502, "So far", "not understood")),
    "nested deeply": (
        CLAUDE,
        [text_delta("So far"), "[" * 100_000],
        (502, "So far", "not understood"),
    ),
}


@pytest.mark.parametrize("model, events, outcome", FAULTY_STREAMS.values(), ids=FAULTY_STREAMS)
def test_the_text_of_a_stream_that_fails_is_kept(single, provider, model, events, outcome):
    provider.script = [stream(*events)]
    response, error, turn = failed(single.client(), model)
    code, text, words = outcome
    assert (response.status_code, turn["content"]) == (code, text)
    assert words in error["detail"]
    assert "key-of" not in response.text + single.output()
    assert len(provider.posts) == 1


BREAKS = {  # after these, the same model may have more to say
    "litellm, openai: an error behind text",
    "litellm, anthropic: an error behind text",
    "litellm, anthropic: no end",
    "openai: no end",
    "litellm, openai: [DONE] without a reason",
    "anthropic: overloaded behind text",
    "openai: limited behind text",
    "openrouter: an error beside a choice",
}


def test_a_reply_continues_after_a_break_and_after_no_other_fault(server, provider):
    streams = {name: row for name, row in FAULTY_STREAMS.items() if row[2][1]}
    provider.default = lambda request: (
        reply(".") if so_far(request) else stream(*streams[asked(request)][1])
    )(request)

    def ask(name):
        response = server.client().post("/sessions", {"content": name, "model": streams[name][0]})
        session = {"id": response.headers["Location"].rpartition("/")[2]}
        turn = server.client().turns(session)[-1]
        return name, (response.status_code, turn["content"], turn["status"], turn["continued"])

    with concurrent.futures.ThreadPoolExecutor(len(streams)) as pool:
        found = dict(pool.map(ask, streams))
    assert found == {
        name: (201, text + ".", "complete", 1) if name in BREAKS else (code, text, "failed", 0)
        for name, (_, _, (code, text, _)) in streams.items()
    }
    assert len(provider.posts) == len(streams) + len(BREAKS)


@both
def test_the_text_before_a_broken_connection_is_kept(single, provider, model):
    provider.script = [cut("So ", "far")]
    response, error, turn = failed(single.client(), model)
    assert (response.status_code, turn["content"]) == (502, "So far")
    assert "broke the connection" in error["detail"]


def test_the_usage_of_a_failed_reply_is_kept(single, provider):
    provider.script = [stream(message_start(input_tokens=5, output_tokens=1), text_delta("So far"))]
    assert failed(single.client(), CLAUDE)[2]["usage"] == counts(
        5, None
    )  # the output count is a placeholder


@both
def test_an_answer_that_is_not_streamed_is_read(alice, provider, model):
    provider.script = [status(200, WHOLE_ANSWERS[model])]
    turn = answered(alice, model)
    assert (turn["content"], turn["usage"]) == ("All of it.", counts(15, 7, 3))


@both
def test_an_error_of_a_server_that_does_not_stream_is_read(alice, provider, model):
    provider.script = [
        status(200, {"type": "error", "error": {"type": "invalid_request_error", "message": "No."}})
    ]
    response, error, _ = failed(alice, model)
    assert response.status_code == 502
    assert "No." in error["detail"]


def test_a_web_page_is_not_taken_for_an_answer(alice, provider):
    provider.default = status(200, "<html><p>data: hello</p></html>")
    response, error, turn = failed(alice, GPT)
    assert (response.status_code, turn["content"]) == (502, "")
    assert "html" not in error["detail"]


# Streams on the wire

EVENT_STREAMS = {
    "line feeds": (b"data: a\n\ndata: b\n\n", ["a", "b"]),
    "both": (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
    "carriage returns": (b"data: a\r\rdata: b\r\r", ["a", "b"]),
    "mixed": (b"data: a\r\n\rdata: b\n\r\ndata: c\r\n\n", ["a", "b", "c"]),
    "several lines": (b"data: a\r\ndata: b\r\ndata\r\ndata: c\r\n\r\n", ["a\nb\n\nc"]),
    "comments": (b": ping\n\n:\n\ndata: a\n: ping\n\n: ping\n\n", ["a"]),
    "other fields": (
        b"event: x\nid: 1\nretry: 5\ndatax: no\n data: no\nData: no\ndata: a\n\n",
        ["a"],
    ),
    "spaces and colons": (b"data:a\n\ndata:  a: b \n\n", ["a", " a: b "]),
    "a mark at the start": (b"\xef\xbb\xbfdata: a\n\ndata: b\n\n", ["a", "b"]),
    "a mark before later lines": (b"data: a\n\xef\xbb\xbf\n\xef\xbb\xbfdata: b\n\n", ["a", "b"]),
    "a mark elsewhere": ("data: \ufeffa\n\n".encode(), ["\ufeffa"]),
    "characters of several bytes": ("data: é 世界 👩‍👩‍👧\r\n\r\n".encode(), ["é 世界 👩‍👩‍👧"]),
    "what looks like a line's end": (
        "data: a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\n\n".encode(),
        ["a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"],
    ),
    "no UTF-8": (b"data: a\xffb\n\n", ["a\ufffdb"]),
    "no blank line at the end": (b'data: a\n\ndata: {"b": 1}\n', ["a", '{"b": 1}']),
    "no line feed at the end": (b"data: a\n\ndata: [DONE]", ["a", "[DONE]"]),
    "cut in the end": (b'data: a\n\ndata: {"b": ', ["a"]),
    "cut before a mark": (b"data: a\n\ndata: b\n\xef\xbb\xbf", ["a"]),
    "a line of JSON": (b'data: a\n\n{"error": 1}\n\n', ["a", {"error": 1}]),
    "lines of JSON": (b'{"a": 1}\n{"b": 2}\r\n', [{"a": 1}, {"b": 2}]),
    "nothing in it": (b"\n\n\ndata:\n\ndata: a\n\nevent: x\n\n", ["a"]),
}


def parse(*chunks):
    return [
        event["json"] if "json" in event else event["data"]
        for batch in wire.parse_sse(chunks)
        for event in batch
    ]


@pytest.mark.parametrize("data, expected", EVENT_STREAMS.values(), ids=EVENT_STREAMS)
def test_events_are_parsed_wherever_they_are_cut(data, expected):
    assert parse(data) == expected
    assert parse(*(data[i : i + 1] for i in range(len(data)))) == expected
    for i in range(len(data)):
        for j in range(i, len(data)):
            assert parse(data[:i], data[i:j], data[j:]) == expected, (data[:i], data[i:j], data[j:])


PIECES = ["é", "世界 ", "👩‍👩‍👧", "\u2028\x85", "\r\n ", "."]


def whole_stream(model, pieces=PIECES):
    return b"".join((anthropic_events if model == CLAUDE else openai_events)(pieces))


@both
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_a_stream_may_arrive_byte_by_byte(alice, provider, model, end):
    data = b"\xef\xbb\xbf: hello\n\n" + whole_stream(model) + b": bye\n\n"
    data = data.replace(b"\n", end)
    provider.script = [
        raw(
            head(Transfer_Encoding="chunked"),
            *(chunk(data[i : i + 1]) for i in range(len(data))),
            chunk(b""),
        )
    ]
    assert answered(alice, model)["content"] == "".join(PIECES)


def close_delimited(*parts):
    return raw(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", *parts)


@both
def test_text_without_a_length_is_passed_on_at_once(alice, provider, model):
    """The provider sends no more until the client has the first words."""
    gate = threading.Event()
    parts = list(
        (anthropic_events if model == CLAUDE else openai_events)(["Hello", gate, " again."])
    )
    provider.script = [close_delimited(*parts)]
    with alice.stream("POST", "/sessions", {"content": "Hello", "model": model}) as events:
        events = iter(events)
        assert next(events).name == "session"
        assert next(events).data == {"delta": "Hello"}
        gate.set()
        assert [event.name for event in events] == ["content_delta", "assistant_turn", "done"]


@both
def test_a_cut_is_noticed_in_a_stream_without_a_length(single, provider, model):
    data = whole_stream(model, ["So far", "."])
    provider.script = [close_delimited(data[: data.index(b"}\n\n", data.index(b"So far")) + 20])]
    response, error, turn = failed(single.client(), model)
    assert (response.status_code, turn["content"]) == (502, "So far")
    assert "cut its answer short" in error["detail"]


@both
def test_a_long_answer_is_read_completely(alice, provider, model):
    words = ["word " * 100_000, *(f"{number} " for number in range(2000))]
    provider.script = [close_delimited(whole_stream(model, words))]
    assert answered(alice, model)["content"] == "".join(words)


@both
def test_characters_that_no_database_stores_become_replacement_characters(alice, provider, model):
    make = text_delta if model == CLAUDE else lambda text: choice(content=text)
    ends = [message_delta(), MESSAGE_STOP] if model == CLAUDE else [choice("stop"), "[DONE]"]
    pieces = ["a\ud83c", "\udf89b", "\udf89", "c\0d", "\ud800e", "f\ud83c"]
    provider.script = [stream(*(json.dumps(make(piece)) for piece in pieces), *ends)]
    with alice.stream("POST", "/sessions", {"content": "Hello", "model": model}) as events:
        events = list(events)
    text = "".join(event.data["delta"] for event in events if event.name == "content_delta")
    assert text == events[-2].data["content"] == "a🎉b\ufffdc\ufffdd\ufffdef\ufffd"
    assert alice.turns(events[0].data)[-1]["content"] == text
