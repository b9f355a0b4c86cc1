"""Both protocols of providers: models, whole answers, and the replies made from them."""

import itertools

import pytest

CLAUDE, GPT = "claude-x", "m-1"


both = pytest.mark.parametrize("model", [CLAUDE, GPT], ids=["anthropic", "openai"])


def failed(client, model, content="Hello"):
    """The response to a session whose reply fails, its only error, and the turn that is kept."""
    response = client.post("/sessions", {"content": content, "model": model})
    assert response.status_code >= 400, response.text
    [error] = response.json()["errors"]
    session_id = error["meta"]["session_id"]
    assert response.headers["Location"] == f"/sessions/{session_id}"
    user, turn = client.turns({"id": session_id})
    assert user["content"] == content
    assert turn["status"] == "failed"
    assert turn["error"] == {"status": response.status_code, "message": error["detail"]}
    return response, error, turn


def answered(client, model, content="Hello"):
    """The turn of a reply that is complete."""
    turn = client.turns(client.create(content, model=model))[-1]
    assert turn["status"] == "complete"
    return turn


def message_start(**usage):
    return {
        "type": "message_start",
        "message": {"role": "assistant", "content": [], "stop_reason": None, "usage": usage},
    }


MESSAGE_STOP = {"type": "message_stop"}


def choice(finish_reason=None, usage=None, **delta):
    extra = {"usage": usage} if usage else {}
    return {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    } | extra


def counts(input_tokens=None, output_tokens=None, cached_tokens=None):
    return {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cached_tokens": cached_tokens,
    }


WHOLE_ANSWERS = {
    CLAUDE: {
        "type": "message",
        "content": [
            {"type": "thinking", "thinking": "Hm"},
            {"type": "text", "text": "All "},
            {"type": "text", "text": "of it."},
        ],
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": 11,
            "cache_read_input_tokens": 3,
            "cache_creation_input_tokens": 1,
            "output_tokens": 7,
        },
    },
    GPT: {
        "object": "chat.completion",
        "choices": [
            {
                "message": {
                    "role": "assistant",
                    "content": "All of it.",
                    "reasoning_content": "Hm",
                },
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 15,
            "completion_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 3},
        },
    },
}


# Failures

PAGE = "<html><h1>Bad things</h1></html>"


# Retries

OWN_PAUSE = 0.375  # seconds, at least, before the second try


def pauses(provider):
    times = [request.at for request in provider.posts]
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def stop(client, session, way):
    if way == "cancel":
        assert client.post(f"/sessions/{session['id']}/cancel").status_code == 200
    else:
        assert client.delete(f"/sessions/{session['id']}").status_code == 204


by_any_way = pytest.mark.parametrize("way", ["cancel", "delete"])


at_any_time = pytest.mark.parametrize(
    "begun", [False, True], ids=["before the answer", "in the middle of it"]
)


# Which model


def models_of(client):
    response = client.get("/models")
    assert response.status_code == 200
    body = response.json()
    assert body["meta"].keys() - {"hint"} == {"has_more", "thinking", "max_file"}
    assert body["meta"]["has_more"] is False
    return [tuple(model[name] for name in ("id", "provider", "default")) for model in body["data"]]
