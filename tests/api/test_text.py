"""The nastiest texts, a megabyte each: stored, titled, searched and answered without delaying other users."""

import json
import threading
import time
import unicodedata
import uuid

import pytest
import requests

from client import BOB, make_token, wait_for_status
from provider import reply
from servers import running
from tables.search import normalize, words_of

SIZE = 1_000_000  # bytes of a body in JSON and UTF-8; MAX_CONTENT_LENGTH is 1,048,576
CALM = 5  # seconds in which others are served, even on a busy machine; 1.0.0 took half a minute


def filled(part, beginning=""):
    return beginning + part * (
        (SIZE - 1000) // (len(json.dumps(part, ensure_ascii=False).encode()) - 2)
    )


TEXTS = {
    "marks on one letter": filled("\u0301\u0323", "a"),
    "marks on many letters": filled("a" + "\u0301\u0323" * 300),
    "Hangul in parts": filled("\u1112\u1161\u11ab"),
    "Hangul": filled("한국어 "),
    "emoji": filled("👩🏽\u200d🚀"),
    "flags": filled("🇩🇪"),
    "one endless word": filled("x"),
    "one endless word with marks": filled("é"),
    "ligatures that become many letters": filled("\ufdfa"),
    "unclosed tags": filled("a <"),
    "unclosed thinking": filled("<think>"),
    "white space": "a" + filled(" ") + "b",
    "line breaks": "a" + filled("\n") + "b",
    "backslashes and percents": filled("\\%_"),
}


def post(server, path, body, **headers):
    """A POST with an unescaped UTF-8 body: escaped, these texts would be too large."""
    headers = {
        "Authorization": f"Bearer {make_token()}",
        "Content-Type": "application/json",
    } | headers
    return requests.post(
        server.url + path,
        json.dumps(body, ensure_ascii=False).encode(),
        headers=headers,
        timeout=60,
    )


@pytest.fixture(scope="module")
def server(new_database, provider_of_all, tmp_path_factory):
    """A server that accepts such long answers."""
    settings = {
        "OPENAI_BASE_URL": provider_of_all.url + "/v1",
        "DEFAULT_MODEL": "m-1",
        "MAX_TOKENS": 16384,
    }
    with running(
        tmp_path_factory.mktemp("server"), DATABASE_URL=new_database(), **settings
    ) as server:
        yield server


@pytest.fixture
def others(server):
    """Another user creates sessions all the time. `stop` returns the time of the slowest, in seconds."""
    bob, slowest, ended = server.client(BOB), [], threading.Event()

    def create():
        while not ended.is_set():
            began = time.monotonic()
            bob.create("Meanwhile", model="m-2")
            slowest.append(time.monotonic() - began)

    thread = threading.Thread(target=create)
    thread.start()

    def stop():
        ended.set()
        thread.join()
        return max(slowest)

    yield stop
    ended.set()
    thread.join()


def answers(text):
    """A provider that answers with this text for the model m-1, and with two letters for any other."""
    pieces = [text[start : start + 10_000] for start in range(0, len(text), 10_000)]
    return lambda request: reply(*(pieces if request.body["model"] == "m-1" else ["Hi"]))(request)


# One of each kind. The pure functions are tested with all texts below.
SOME = (
    "marks on one letter",
    "Hangul in parts",
    "ligatures that become many letters",
    "unclosed thinking",
    "white space",
)


@pytest.mark.parametrize("text", [TEXTS[name] for name in SOME], ids=SOME)
def test_any_text_of_a_user_or_a_model_is_stored_without_delaying_others(
    server, alice, provider, others, text
):
    provider.default = answers(text)
    created = post(server, "/sessions", {"content": text})
    assert created.status_code == 201, created.text[:200]
    session, path = created.json(), created.headers["Location"]
    assert 1 <= len(session["title"]) <= 60
    assert [turn["content"] == text for turn in alice.turns(session)] == [True, True]
    assert (
        post(server, path + "/messages", {"content": text}, Prefer="respond-async").status_code
        == 202
    )
    assert wait_for_status(alice, session, "complete", 30)["content"] == text
    assert alice.patch(path, {"title": text[:200]}).status_code == 200
    found = alice.request(
        "GET", "/sessions", params={"query": " ".join(text[:150].split()[:20]) or "a"}
    )
    assert found.status_code in (200, 400)  # a few characters may become over twenty words
    assert alice.delete(path).status_code == 204
    assert others() < CALM


def test_answers_are_in_utf_8_without_escapes(alice, provider):
    text = "Grüße, 世界, 👩🏽\u200d🚀 and \u2028"
    provider.default = reply(text)
    answer = alice.post("/sessions", {"content": text})
    path = answer.headers["Location"]
    refused = alice.patch(path, {"wörd 👩": 1})
    assert refused.json()["errors"][0]["source"] == {"pointer": "/wörd 👩"}
    shown = [alice.get(path).content, alice.get("/sessions").content]
    for body in (answer.content, refused.content, *shown):
        assert b"\\u" not in body and "👩".encode() in body


def test_a_lone_surrogate_that_an_answer_quotes_is_escaped(server, alice, provider):
    headers = {"Authorization": f"Bearer {alice.token}", "Content-Type": "application/json"}
    body = '{"content": "Hello", "half \\ud83d": 1, "whole 👩": 1}'.encode()
    refused = requests.post(server.url + "/sessions", body, headers=headers, timeout=60)
    assert refused.status_code == 400 and refused.content.isascii()
    pointers = {error["source"]["pointer"] for error in refused.json()["errors"]}
    assert pointers == {"/half \ud83d", "/whole 👩"}
    assert not provider.posts


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_text_becomes_much_longer_when_normalized(text):
    assert len(normalize(text)) <= 2 * len(text) + 16_384


@pytest.mark.parametrize("character", ["\ufdfa", "\u3316", "\ufb03", "ß", "\u0390"])
def test_characters_that_expand_to_many_stay_within_the_limit(character):
    for text in (character * 300_000, f"{character} " * 100_000, f"x{character}" * 100_000):
        assert len(normalize(text)) <= 2 * len(text) + 16_384
    sentence = f"He said {character} and went on, as one does who has said it. "
    assert set(normalize(sentence * 5000).split()) == set(normalize(sentence).split())


def test_normalizing_follows_unicode_except_for_endless_words():
    for text in (
        "",
        "Straße",
        "ＡＢＣ ﬁ",
        "e\u0301\u0323 e\u0323\u0301",
        "\u1112\u1161\u11ab",
        "İI\n\tı",
        "\ufdfa",
        "👩🏽\u200d🚀 x",
    ):
        whole = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        assert normalize(text) == whole
        assert normalize(f"{text} " * 500) == f"{whole} " * 500


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_normalizing_takes_linear_time(text):
    """For 20 times the text, at most 60 times the time is allowed. Quadratic time would be 400 times."""

    def seconds(part):
        began = time.process_time()
        normalize(part)
        return time.process_time() - began

    short = min(seconds(text[: len(text) // 20]) for _ in range(5))
    assert min(seconds(text) for _ in range(2)) < 60 * short + 0.05


def test_the_words_of_a_query_are_counted_after_normalizing(server, provider):
    user = server.client(
        f"https://github.com/{uuid.uuid4().hex}"
    )  # this user has no other session with these numbers
    assert len(words_of("\ufdfa")) == 4 and words_of("a A a b") == ["a", "b"]
    many = "\ufdfa".join(chr(code) for code in range(0x61, 0x7B))
    for query in (" ".join(map(str, range(10, 31))), many[:160], " ".join("abcdefghijklmnopqrstu")):
        refused = user.request("GET", "/sessions", params={"query": query})
        assert refused.status_code == 400, refused.text
        assert refused.json()["errors"][0]["source"] == {"parameter": "query"}
        assert "20 words" in refused.json()["errors"][0]["detail"]
    user.create(" ".join(map(str, range(10, 30))))
    found = user.request("GET", "/sessions", params={"query": " ".join(map(str, range(29, 9, -1)))})
    assert len(found.json()["data"]) == 1
