"""The client for Python: what a user sees, whatever happens to connections and servers.

Modules: `clients/python/parley_client.py`.
"""

import base64
import concurrent.futures
import contextlib
import datetime
import io
import json
import pathlib
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid

import pytest

from client import make_token, wait_until
from clients.python.parley_client import Parley, ParleyError
from pictures import png
from product import ROOT
from provider import KEEP, REFUSED, Provider, chunk, cut, head, raw, reply, status, thought
from raw_tables import tables_of
from servers import Server, free_port

SMALL = png(64, 48)
SESSION = "a1b2c3d4-e5f6-7890-abcd-ef1234567890"


@pytest.fixture
def token():
    """A user's who has no sessions."""
    return make_token(f"https://github.com/{uuid.uuid4().hex}")


@pytest.fixture
def parley(server, token):
    with Parley(server.url, token) as parley:
        yield parley


@pytest.fixture
def through(proxy, token):
    """The client on the other side of a proxy that breaks connections."""
    with Parley(proxy.url, token) as parley:
        yield parley


@pytest.fixture
def other():
    """A server that answers what a test wants."""
    with contextlib.closing(Provider()) as other:
        yield other


def statuses(parley, reply):
    return [turn.get("status") for turn in parley.session(reply.session)["turns"]]


# A reply


def test_a_reply_is_read_piece_by_piece_or_whole(parley, provider):
    gate = threading.Event()
    provider.script = [reply("One ", gate, "twö "), reply("Another."), reply("Once more.")]
    answer = parley.send("Hello")
    seen = []
    for text in answer:
        seen.append((text, answer.text))
        gate.set()
    assert seen == [("One ", "One "), ("twö ", "One twö ")]
    assert (answer.text, answer.turn["content"], answer.thinking) == ("One twö ", "One twö ", "")
    assert answer.turn["status"] == "complete"
    assert list(answer) == []
    assert parley.send("More", answer.session).text == "Another."
    assert parley.retry(answer.session, "Changed").turn["content"] == "Once more."
    turns = parley.session(answer.session)["turns"]
    assert [turn["content"] for turn in turns] == ["Hello", "One twö ", "Changed", "Once more."]


def test_a_reply_can_be_left_and_read_on(parley, provider):
    gate = threading.Event()
    provider.script = [reply("One ", gate, "two ", "three.")]
    answer = parley.send("Hello")
    for text in answer:
        assert text == "One "
        break
    gate.set()
    assert answer.text == "One two three."
    assert "".join(answer) == "two three."
    assert parley.follow(answer.session).text == "One two three."


def test_all_of_a_reply_can_be_asked_for_within_its_loop(parley, provider):
    provider.script = [reply("One ", 0.3, "two.")]
    answer = parley.send("Hello")
    seen = [(text, answer.turn["content"], answer.text) for text in answer]
    assert seen == [("One ", "One two.", "One two."), ("two.", "One two.", "One two.")]


def test_a_reply_that_nobody_reads_is_written(parley, provider):
    session = parley.send("Hello").session
    wait_until(lambda: parley.session(session)["turns"][-1]["status"] == "complete")
    assert parley.session(session, limit=1)["turns"][0]["content"] == "The answer."


def test_a_failed_reply_raises_after_its_text(parley, provider):
    provider.script = [cut("Half"), REFUSED] * 3
    answer = parley.send("Hello")
    with pytest.raises(ParleyError) as failure:
        for text in answer:
            assert text == "Half"
    assert (failure.value.status, failure.value.session) == (502, answer.session)
    assert str(failure.value) == f"502: {failure.value.detail}"
    assert answer.text == "Half"
    for ask in (lambda: answer.turn, lambda: list(answer)):
        with pytest.raises(ParleyError, match="^502: "):
            ask()
    again = parley.retry(answer.session)
    with pytest.raises(ParleyError, match="^502: "):
        _ = again.text
    assert again.text == "Half"
    copy = pickle.loads(pickle.dumps(failure.value))
    assert (copy.detail, copy.session) == (failure.value.detail, answer.session)


def test_a_cancelled_reply_ends_with_what_had_come(parley, provider):
    provider.script = [reply("One ", threading.Event())]
    answer = parley.send("Hello")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        for _ in answer:
            pool.submit(answer.cancel).result()
    assert (answer.text, answer.turn["status"]) == ("One ", "interrupted")
    answer.cancel()
    assert parley.cancel(answer.session) is None
    provider.script = [reply("two.")]
    more = parley.continue_(answer.session)
    assert (list(more), more.text) == (["two."], "One two.")


def test_thinking_is_read_as_it_comes_and_later(parley, provider):
    gate = threading.Event()
    provider.script = [
        reply(thought(reasoning="Hm, "), thought(reasoning="so."), gate, "One ", "two.")
    ]
    answer = parley.send("Hello")
    for event in answer.events():
        if event.event == "thinking" and event.data["characters"] == len("Hm, so."):
            assert (answer.thinking, answer.text) == ("Hm, so.", "")
            gate.set()
    assert answer.thinking == "Hm, so."
    assert parley.follow(answer.session).thinking == "Hm, so."
    assert parley.thinking(answer.session, answer.turn["id"]) == "Hm, so."
    with pytest.raises(ParleyError, match="^404: "):
        parley.thinking(answer.session, parley.session(answer.session)["turns"][0]["id"])


def test_files_are_sent_in_every_form(parley, provider, tmp_path):
    (tmp_path / "a.png").write_bytes(SMALL)
    described = parley.upload(SMALL)
    files = [tmp_path / "a.png", str(tmp_path / "a.png"), SMALL, io.BytesIO(SMALL)]
    answer = parley.send("", files=[*files, described | {"alt": "A heron"}])
    assert answer.text == "The answer."
    sent = parley.session(answer.session)["turns"][0]["files"]
    assert [file["id"] for file in sent] == [described["id"]] * 5
    assert sent[-1]["alt"] == "A heron"
    assert parley.file(described["id"]) == SMALL
    assert parley.retry(answer.session, "Hello", files=[]).text == "The answer."
    assert parley.session(answer.session)["turns"][0]["files"] == []


def test_a_new_session_has_a_model_a_system_prompt_and_options(parley):
    answer = parley.send("Hi", model="m-2", system="Be brief.", options={"temperature": 0.5})
    session = parley.session(answer.session)
    assert (session["model"], session["system"]) == ({"id": "m-2"}, "Be brief.")
    assert session["options"]["temperature"] == 0.5
    with pytest.raises(TypeError, match="model: use change"):
        parley.send("Hi", answer.session, model="m-1")
    assert answer.text == "The answer."  # else the call could take an answer of the next test


def test_the_other_operations(parley, server, token, provider):
    answers = [parley.send(f"Message {number}") for number in range(3)]
    assert [answer.text for answer in answers] == ["The answer."] * 3
    first, *_, last = (answer.session for answer in answers)
    assert [session["id"] for session in parley.sessions()][::2] == [last, first]
    assert [session["id"] for session in parley.sessions("age 0")] == [first]
    assert parley.change(first, title="Mine")["title"] == "Mine"
    turns = parley.session(first)["turns"]
    assert parley.session(first, before=turns[1]["id"])["turns"] == turns[:1]
    fork = parley.fork(first, turns[0]["id"], key="one")
    assert parley.fork(first, turns[0]["id"], key="one")["id"] == fork["id"] != first
    assert len(parley.session(fork["id"])["turns"]) == 1
    assert parley.retry(first).text == "The answer."
    assert parley.versions(first, parley.session(first)["turns"][1]["id"]) == turns[1:]
    parley.delete(fork["id"])
    with pytest.raises(ParleyError, match="^404: There is no such session"):
        parley.delete(fork["id"])
    exported = [*parley.export()]
    assert [session["title"] for session in exported][:1] == ["Mine"]
    copies = [parley.import_(exported[0])["id"] for _ in range(2)]
    assert len({first, *copies}) == 3
    assert parley.session(copies[0])["turns"][1]["content"] == "The answer."
    assert [model["id"] for model in parley.models()["data"]] == ["m-1", "m-2"]
    today = datetime.datetime.now(datetime.UTC).date()
    assert sum(day["replies"] for day in parley.usage(today, today)["data"]) == 4
    assert parley.me()["by"] == "token"


def test_lists_are_fetched_page_by_page(server, token, monkeypatch):
    monkeypatch.setattr("clients.python.parley_client.PAGE", 2)
    parley = Parley(server.url, token)
    asked = {parley.send(f"Message {number}").session for number in range(5)}
    sessions = parley.sessions()
    seen = [next(sessions)["id"]]
    _ = parley.send("Newer").text  # moves the others to the next page
    seen += [session["id"] for session in sessions]
    assert (len(seen), set(seen)) == (5, asked)
    text = "x" * 500_000
    for _ in range(19):
        parley.import_({"turns": [{"kind": "user", "content": text}], "title": "Long\u2028title"})
    exported = [*parley.export()]
    assert len({session["id"] for session in exported}) == 6 + 19
    assert exported[-1]["title"] == "Long\u2028title"


# What breaks


@pytest.mark.parametrize("cut_behind", [b"HTT", b"HTTP/1.1 20", b"\r\nContent-Type: text/ev"])
def test_a_message_whose_answer_is_lost_is_sent_once(through, proxy, provider, cut_behind):
    provider.script = [reply("One ", 0.5, "two.")]
    proxy.cut_behind = cut_behind
    answer = through.send("Hello")
    assert proxy.cut_behind is None
    assert answer.text == "One two."
    assert len(provider.posts) == len([*through.sessions()]) == 1


def test_a_key_makes_one_reply_of_two_requests(parley, server, token, provider):
    gate = threading.Event()
    provider.script = [reply("One ", gate, "two.")]
    first = parley.send("Hello", key="mine")
    second = Parley(server.url, token).send("Hello", key="mine")
    gate.set()
    assert (first.session, first.text) == (second.session, second.text)
    assert Parley(server.url, token).send("Hello", key="mine").text == "One two."
    assert len(provider.posts) == 1
    with pytest.raises(ParleyError, match="^422: "):
        parley.send("Another", key="mine")


def test_a_reply_goes_on_after_cuts_within_a_frame_and_a_letter(through, proxy, provider):
    gate = threading.Event()
    provider.script = [reply("One ", gate, "twö ", 0.3, "🎉\u2028", "four.")]
    proxy.splits, pieces = True, []
    answer = through.send("Hello")
    for text in answer:
        pieces.append(text)
        if not gate.is_set():
            proxy.cut_behind = "ö".encode()[:1]
            gate.set()
        elif len(pieces) == 2:
            proxy.cut_behind = b"event: cont"
    assert (proxy.cut_behind, "".join(pieces)) == (None, "One twö 🎉\u2028four.")
    assert answer.turn["content"] == answer.text
    assert proxy.sent.lower().count(b"last-event-id") == 2


def test_a_continued_reply_is_not_given_from_its_beginning(through, proxy, provider):
    """The connection breaks before the first event, so that only the whole text can be had."""
    provider.script = [reply("Half", stop="length"), reply(" and ", 0.5, "whole.")]
    session = through.send("Hello").turn and next(through.sessions())["id"]
    proxy.cut_behind = b":\n\n"
    more = through.continue_(session)
    assert ("".join(more), more.text) == (" and whole.", "Half and whole.")
    assert proxy.cut_behind is None


def frames(*events, turn="7"):
    """An event stream of Parley's."""
    sent = [
        f"event: {name}\ndata: {json.dumps(data)}\nid: {turn}-{number}\n\n".encode()
        for number, (name, data) in enumerate(events)
    ]
    place = f"/sessions/{SESSION}/events"
    return raw(
        head(Transfer_Encoding="chunked", Location=place), *map(chunk, sent), chunk(b""), KEEP
    )


DONE = ("done", {})


def complete(content):
    return ("assistant_turn", {"id": "7", "content": content, "status": "complete"}), DONE


def test_a_continued_reply_whose_answer_is_lost_is_given_when_it_is_complete(other):
    """The server then answers with the turn alone."""
    other.models = status(200, {"turns": [{"kind": "assistant", "content": "Half"}]})
    other.script = [raw(b"HTTP/1.1 200 \r\nConte"), frames(*complete("Half and whole."))]
    more = Parley(other.url, "token").continue_(SESSION)
    assert (list(more), more.text) == ([" and whole."], "Half and whole.")
    keys = {request.headers["idempotency-key"] for request in other.posts}
    assert (len(keys), len(other.posts)) == (1, 2)


def test_two_replies_are_never_mixed(through, proxy, parley, provider):
    provider.script = [reply("One ", 0.2, "two."), reply("Another.")]
    answer = through.send("Hello")
    with pytest.raises(ParleyError, match="^409: Another reply followed"):
        for text in answer:
            assert text == "One "
            target, proxy.target = proxy.target, free_port()  # nothing listens there
            proxy.cut()
            wait_until(lambda: statuses(parley, answer)[-1] == "complete")
            assert parley.send("More", answer.session).text == "Another."
            proxy.target = target


def test_a_reply_that_was_closed_unread_does_not_become_another(parley, provider):
    provider.script = [reply("One."), reply("Two.")]
    answer = parley.send("Hello")
    answer.close()
    wait_until(lambda: statuses(parley, answer)[-1] == "complete")
    assert parley.send("More", answer.session).text == "Two."
    assert answer.text == "One."
    assert len(provider.posts) == 2


def test_a_cancel_that_comes_too_late_stops_no_other_reply(parley, provider):
    provider.script = [reply("One ", "more."), reply("Two ", threading.Event())]
    answer = parley.send("Hello")
    for _ in answer:
        break
    wait_until(lambda: statuses(parley, answer)[-1] == "complete")
    other = parley.send("More", answer.session)
    assert next(iter(other)) == "Two "
    answer.cancel()
    assert statuses(parley, answer)[-1] == "in_progress"
    other.cancel()
    assert statuses(parley, answer)[-1] == "interrupted"


def test_a_reply_is_complete_though_its_server_is_killed(new_database, provider, tmp_path):
    settings = {"DATABASE_URL": new_database(), "OPENAI_BASE_URL": provider.url + "/v1"}
    settings |= {"DEFAULT_MODEL": "m-1", "WEB_CONCURRENCY": 1}
    provider.script = [reply("One ", threading.Event()), reply("two.")]
    server = Server(tmp_path, **settings).wait_until_up()
    lost = []
    answer = Parley(server.url, make_token(), on_lost=lost.append).send("Hello")
    pieces = iter(answer)
    try:
        assert next(pieces) == "One "
        server.kill()
        with tables_of(settings["DATABASE_URL"]) as tables:  # it would lapse by itself, but later
            tables.rows("UPDATE turn SET lease_until = 0 WHERE status = 'in_progress'")
        server.stop()
        server = Server(tmp_path, **settings, port=server.port).wait_until_up()
        assert "".join(pieces) == "two."
        assert answer.turn["continued"] == 1
        assert [error.status for error in lost] == [None]
    finally:
        server.kill()
        server.stop()


# When the server asks to wait, refuses, or is another program


def refusal(code, detail="Not now.", pointer=None, session=None, **headers):
    error = {"detail": detail, "source": {"pointer": pointer}, "meta": {"session_id": session}}
    return status(code, {"errors": [error]}, **headers)


def test_it_waits_as_long_as_the_server_says(other):
    told = []
    busy = [refusal(503, Retry_After=1), refusal(429, Retry_After=1)]
    other.script = [*busy, frames(("content_delta", {"delta": "One."}), *complete("One."))]
    began = time.monotonic()
    assert Parley(other.url, "token", on_lost=told.append).send("Hello").text == "One."
    assert time.monotonic() - began > 2
    assert [error.status for error in told] == [503]
    assert len({request.headers["idempotency-key"] for request in other.posts}) == 1


@pytest.mark.parametrize(
    "answer, expected",
    [
        (refusal(429, Retry_After=3600), (429, "Not now.", None, 3600)),
        (refusal(400, pointer="/content"), (400, "Not now.", "/content", None)),
        (refusal(401), (401, "Not now.", None, None)),
        (refusal(409, Retry_After=1), (409, "Not now.", None, 1)),
        (refusal(413), (413, "Not now.", None, None)),
        (refusal(500), (500, "Not now.", None, None)),
        (
            status(404, "<html>"),
            (None, "{url} answered with status 404, and is not Parley.", None, None),
        ),
        (
            status(200, "<html>"),
            (None, "{url} answered with status 200, and is not Parley.", None, None),
        ),
        (
            status(200, {"id": 5}),
            (None, "{url} answered with status 200, and is not Parley.", None, None),
        ),
        (
            raw(head(), b"data: 5\n\n"),
            (None, "{url} answered with status 200, and is not Parley.", None, None),
        ),
    ],
)
def test_a_refusal_is_raised_at_once(other, answer, expected):
    other.default = answer
    with pytest.raises(ParleyError) as refused:
        _ = Parley(other.url, "token").send("Hello").text
    error, (code, detail, *rest) = refused.value, expected
    assert (error.status, error.detail) == (code, detail.format(url=other.url))
    assert [error.pointer, error.retry_after] == rest
    assert len(other.posts) == 1


def test_a_reply_in_progress_under_the_key_is_followed(other):
    other.script = [raw(b""), refusal(409, session=SESSION, Retry_After=1)]
    other.models = frames(("content_delta", {"delta": "One."}), *complete("One."))
    answer = Parley(other.url, "token").send("Hello")
    assert (answer.session, answer.text) == (SESSION, "One.")
    assert other.requests[-1].path == f"/sessions/{SESSION}/events"


@pytest.mark.parametrize("away", [status(502, "<html>"), raw(b"HTTP/1.1 200 \r\nConten"), None])
def test_it_gives_up_after_a_while(other, away):
    url = other.url if away else f"http://127.0.0.1:{free_port()}"
    other.models = away
    parley, told = Parley(url, "token", give_up_after=2), []
    parley.on_lost = told.append
    began = time.monotonic()
    with pytest.raises(ParleyError) as lost:
        parley.me()
    assert 1.5 < time.monotonic() - began < 2.5
    assert lost.value.status is None
    assert lost.value.detail.startswith(f"{url} cannot be reached: ")
    assert (len(told), len(other.requests)) == (1, 4 if away else 0)


def test_the_time_of_a_slow_reader_is_not_the_servers(other):
    other.default = frames(("content_delta", {"delta": "One "}))
    other.models = status(502, "<html>")
    answer = Parley(other.url, "token", give_up_after=1).send("Hello")
    for _ in answer:
        time.sleep(1.2)
        other.models = frames(("content_delta", {"delta": "two."}), *complete("One two."))
    assert answer.text == "One two."


def test_a_silent_stream_counts_as_lost(other):
    place = f"/sessions/{SESSION}/events"
    opened = head(Transfer_Encoding="chunked", Location=place), chunk(b": \n\n")
    other.script = [raw(*opened, threading.Event()), refusal(409, session=SESSION, Retry_After=1)]
    other.models = frames(("content_delta", {"delta": "One."}), *complete("One."))
    assert Parley(other.url, "token", timeout=(10, 0.5)).send("Hello").text == "One."


def test_a_redirect_is_not_followed(other, trap):
    other.default = status(307, {}, Location=trap.url + "/sessions")
    with pytest.raises(ParleyError, match=f"redirects to {trap.url}/sessions.$"):
        Parley(other.url, "token").send("Hello")
    assert (len(other.requests), trap.connections) == (1, [])


def test_a_deletion_whose_answer_is_lost_has_happened(through, proxy):
    session = through.send("Hello").turn and next(through.sessions())["id"]
    proxy.cut_behind = b"HTTP/1.1 204"
    through.delete(session)
    assert proxy.cut_behind is None
    assert [*through.sessions()] == []


def test_an_import_whose_answer_is_lost_makes_one_session(through, proxy):
    proxy.cut_behind = b"HTTP/1.1 201"
    session = through.import_({"turns": [{"kind": "user", "content": "Hello"}]})
    assert [each["id"] for each in through.sessions()] == [session["id"]]


# Whom it asks, and as whom


def test_the_token_is_in_no_message(other, tmp_path, monkeypatch):
    """Nor is it replaced by a password of ~/.netrc, or by one in the URL."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password of-netrc\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    other.models = refusal(401)
    for given in ("top-secret", "top-\r\nsecret", " top-secret\n"):
        parley = Parley(other.url.replace("//", "//me:word@"), given, give_up_after=0)
        with pytest.raises(ParleyError) as refused:
            parley.me()
        assert other.requests[-1].headers["authorization"] == "Bearer top-secret"
        assert "secret" not in repr(refused.value) and "word" not in repr(refused.value)
    for odd in ("tö\0p-secret\ud800", "…-secret"):
        with pytest.raises(ParleyError) as refused:
            Parley(other.url, odd, give_up_after=0).me()
        causes = [refused.value, refused.value.__cause__, refused.value.__context__]
        assert "secret" not in " ".join(map(repr, causes))


def test_a_password_in_the_url_is_in_no_message(other):
    other.models = status(200, {})
    Parley(other.url.replace("//", "//me:w%2F–rd@")).me()
    given = base64.b64decode(other.requests[-1].headers["authorization"].removeprefix("Basic "))
    assert given.decode() == "me:w/–rd"
    for password in ("pa/ss", "pa?ss", "pa#ss", "pa]ss[", "pa℀ss"):
        with pytest.raises(ValueError, match="begins with http:// or https://") as refused:
            Parley(other.url.replace("//", f"//me:{password}@"))
        assert "pa" not in repr(refused.value).replace("password", "")


def test_what_the_caller_was_handling_is_no_cause():
    try:
        raise KeyError("secret")
    except KeyError:
        with pytest.raises(ParleyError, match="cannot be reached: Connection refused") as refused:
            Parley(f"http://127.0.0.1:{free_port()}", "token", give_up_after=0).me()
    assert "secret" not in str(refused.value)


def test_odd_arguments_are_refused_before_anything_is_sent(other):
    parley = Parley(other.url, "token")
    for files in ("a.png", b"a", pathlib.Path("a.png"), {"id": "a"}, io.BytesIO(b"a")):
        with pytest.raises(TypeError, match="files is a list"):
            parley.send("Hello", files=files)
    with pytest.raises(ParleyError, match="the URL or a header is invalid.$"):
        parley.send("Hello", key="one\ntwo")
    for path in ("@127.0.0.1:1/x", ":1/x", "x"):
        with pytest.raises(ValueError, match="begins with a slash"):
            parley.request("GET", path)
    assert other.requests == []


def test_another_program_is_not_asked_again(other):
    other.default = other.models = status(501, {})
    parley = Parley(other.url, "token")
    for ask in (parley.me, lambda: parley.send("Hello"), lambda: parley.delete(SESSION)):
        with pytest.raises(ParleyError, match="is not Parley"):
            ask()
    other.default = other.models = status(200, {})
    with pytest.raises(ParleyError, match="is not Parley"):
        parley.delete(SESSION)
    other.models = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")
    with pytest.raises(ParleyError, match="is not Parley"):
        list(parley.export())
    assert len(other.requests) == 5


def test_url_and_token_come_from_the_environment(other, monkeypatch):
    monkeypatch.setenv("PARLEY_URL", other.url + "/chat/")
    monkeypatch.setenv("PARLEY_TOKEN", "of-the-environment")
    other.models = status(200, {})
    Parley().me()
    Parley(token="").me()
    first, second = other.requests
    assert (first.path, first.headers["authorization"]) == ("/chat/me", "Bearer of-the-environment")
    assert "authorization" not in second.headers
    for url in ("nowhere", "127.0.0.1:5000", "ftp://127.0.0.1"):
        with pytest.raises(ValueError, match="begins with http:// or https://"):
            Parley(url)


def test_a_proxy_of_the_environment_is_used_but_not_for_the_loopback(other, trap, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, other.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    other.models = trap.models = status(200, {})
    Parley("http://chat.invalid", "token").me()
    Parley(trap.url, "token").me()
    Parley(trap.url.replace("127.0.0.1", "localhost"), "token").me()
    assert [request.path for request in other.requests] == ["http://chat.invalid/me"]
    assert len(trap.requests) == 2


def test_an_upload_may_take_longer_than_a_connection():
    """On a slow line, each of its pieces has that time."""
    data = bytes(12_000_000) + b"\xff"  # more than the buffers of both ends have room for

    def serve(listening):
        connection, _ = listening.accept()
        with connection:
            while (received := connection.recv(2**18)) and not received.endswith(b"\xff"):
                time.sleep(0.03)
            connection.sendall(b'HTTP/1.1 201 \r\nContent-Length: 10\r\n\r\n{"id": ""}')

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        parley = Parley(url, "token", timeout=(0.3, 10), give_up_after=0)
        assert parley.upload(data) == {"id": ""}


def test_threads_share_a_client(parley):
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        texts = list(pool.map(lambda number: parley.send(f"Message {number}").text, range(24)))
    assert texts == ["The answer."] * 24


LEAVES = """
import gc, sys
from clients.python.parley_client import Parley

parley = Parley(*sys.argv[1:])
session = parley.send("Hello").session
for text in parley.follow(session):
    break
try:
    for text in parley.follow(session):
        raise KeyboardInterrupt
except KeyboardInterrupt:
    pass
print(parley.follow(session).text, end="")
del parley
gc.collect()
"""


def test_it_prints_and_leaves_nothing_open(server, token, provider):
    provider.script = [reply("One ", 0.5, "two.")]
    words = [sys.executable, "-X", "dev", "-W", "error", "-c", LEAVES, server.url, token]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "One two.", "")


def test_the_ten_lines_are_a_chat(server, token, tmp_path, provider):
    lines = (ROOT / "examples" / "python" / "chat.py").read_text("utf-8")
    assert lines.count("\n") == 10
    assert f"```python\n{lines}```" in (ROOT / "clients" / "python" / "README.md").read_text(
        "utf-8"
    )
    provider.script = [reply("One ", "twö."), reply("Three.")]
    (tmp_path / "chat.py").write_text(lines, "utf-8")
    shutil.copy(ROOT / "clients" / "python" / "parley_client.py", tmp_path)
    settings = {"PARLEY_URL": server.url, "PARLEY_TOKEN": token, "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "chat.py"],
        cwd=tmp_path,
        env=settings,
        input="Hello\nMore\n\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "> One twö.\n> Three.\n> ", "")
