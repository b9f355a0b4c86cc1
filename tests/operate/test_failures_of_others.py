"""Failures outside the service (providers, published keys, the database), and the log line for
each."""

import base64
import concurrent.futures
import contextlib
import http.server
import re
import threading
import time

import pytest
import requests

from client import ALICE, make_token, wait_until
from mistakes import HUSH, KEY, WORDS, Asker, bearer, why
from provider import Provider, cut, raw, reply, silence, status
from servers import free_port, running


def why_of_replies(server):
    return [why(line) for line in server.output().splitlines() if " reply session=" in line]


# Providers

OUT_OF_MEMORY = {
    "error": {"message": f"llama runner process has terminated: CUDA error: out of memory ({HUSH})"}
}


SPENT = "refuses, since the quota or the credit of this server is used up: {} The person who runs this server adds credit .+"


REPLIES = [  # what the provider does, what the client is told, what the log says as well
    (
        "a wrong model",
        status(404, {"error": {"message": 'model "m" not found, try pulling it first'}}),
        400,
        "has no such model: model .+",
        "",
    ),
    (
        "our key is refused",
        status(401, {"error": {"message": "Bad key"}}),
        502,
        "refused this server's own key. Tell .+",
        " Is `OPENAI_API_KEY` right[?] Bad key",
    ),
    (
        "no path",
        status(404, "404 page not found"),
        502,
        "has nothing there .+is its base URL right[?] It ends in /v1 for OpenAI's .+",
        "",
    ),
    (
        "no path of FastAPI",
        status(404, {"detail": "Not Found"}),
        502,
        r"has nothing there \(Not Found\): is its base URL right.+",
        "",
    ),
    (
        "it fails",
        status(500, OUT_OF_MEMORY, x_should_retry="false"),
        502,
        "has too little memory for this model. Choose .+",
        " llama runner process .+memory .….",
    ),
    (
        "it is overloaded",
        status(429, {"error": {"message": "Slow down"}}, Retry_After=60),
        503,
        "limits this server: Slow down. Ask again in 60 seconds.",
        "",
    ),
    (
        "it is overloaded, and does not say for how long",
        status(529, {"error": {"message": "Busy"}}),
        503,
        "is overloaded: Busy. Ask again later.",
        "",
    ),
    (
        "the quota of OpenAI is used up",
        status(
            429,
            {"error": {"code": "insufficient_quota", "message": "You exceeded your quota"}},
            Retry_After=1,
        ),
        502,
        SPENT.format("You exceeded your quota."),
        "",
    ),
    (
        "the credit of Anthropic is used up",
        status(
            400,
            {
                "error": {
                    "type": "invalid_request_error",
                    "message": "Your credit balance is too low to go on.",
                }
            },
        ),
        502,
        SPENT.format("Your credit balance is too low to go on."),
        "",
    ),
    (
        "the credit of others is used up",
        status(402, {"error": {"message": "Pay"}}),
        502,
        SPENT.format("Pay."),
        "",
    ),
    (
        "it refuses",
        status(400, {"error": {"message": "Not today"}}),
        502,
        "refused the request: Not today",
        "",
    ),
    (
        "a page",
        raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html>"),
        502,
        "sent a web page in the place of an answer. Tell .+",
        "",
    ),
    (
        "it is silent",
        silence(5),
        504,
        "was silent for 1 seconds. Ask .+|sent nothing of an answer in time. Ask .+",
        "",
    ),
    (
        "it breaks",
        cut("Some "),
        502,
        "broke the connection. Ask .+|cut its answer short. Ask .+",
        ".*",
    ),
]


@pytest.mark.parametrize("name, answer, code, told, said", REPLIES, ids=[row[0] for row in REPLIES])
def test_the_log_says_once_why_a_reply_fails(asker, name, answer, code, told, said):
    asker.provider.reset()
    asker.provider.default, before = answer, len(why_of_replies(asker.server))
    found, detail, reason = asker.ask(body={"content": WORDS, "model": "m-1"}, **bearer())
    assert found == code and re.fullmatch(f"The provider 127.0.0.1:[0-9]+ (?:{told})", detail), (
        detail
    )
    assert reason == detail
    [why] = wait_until(lambda: why_of_replies(asker.server)[before:])
    assert why.startswith(detail) and re.fullmatch(said, why.removeprefix(detail)), why
    assert " ERROR " not in asker.server.output()
    for secret in (HUSH, WORDS, HUSH[:6]):
        assert secret not in asker.server.output()


def test_the_log_says_why_a_continued_reply_gained_nothing(asker):
    asker.provider.reset()
    asker.provider.script = [
        cut("Half "),
        status(400, {"error": {"message": "Not today"}}),
        status(400, {"error": {"message": "Nor now"}}),
    ]
    answer = requests.post(
        f"{asker.server.url}/sessions",
        json={"content": WORDS, "model": "m-1"},
        headers=bearer(),
        timeout=30,
    )
    session = answer.json()["errors"][0]["meta"]["session_id"]
    status_, detail, reason = asker.ask(f"/sessions/{session}/continue", {}, **bearer())
    assert status_ == 502 and "Nor now" in detail
    wait_until(lambda: any("Nor now" in why for why in why_of_replies(asker.server)))


def test_a_failed_list_of_models_is_logged_once_and_is_not_called_empty(asker):
    asker.provider.reset()
    asker.provider.models = status(401, {"error": {"message": "Bad key"}})
    for _ in range(3):
        status_, detail, reason = asker.ask(body={"content": "Hello"}, **bearer())
        assert (status_, detail) == (
            502,
            f"The provider 127.0.0.1:{asker.provider.port} refused this server's own key. "
            "Tell the person who runs this server.",
        )
        assert reason == detail
        assert asker.ask("/models", **bearer())[0] == 200
    told = [
        line for line in asker.server.output().splitlines() if "The models of 127.0.0.1:" in line
    ]
    assert len(told) == 1 and told[0].endswith(f" {detail} Is `OPENAI_API_KEY` right? Bad key")
    asker.provider.models = []
    wait_until(
        lambda: (
            "lists no model. Name one, or set `DEFAULT_MODEL`"
            in asker.ask(body={"content": "Hello"}, **bearer())[1]
        ),
        10,
    )
    asker.provider.models = status(401, {"error": {"message": "Bad key"}})
    wait_until(lambda: asker.ask(body={"content": "Hello"}, **bearer())[1] == detail, 10)
    assert asker.server.output().count(" cannot be had: ") == 2


def test_a_provider_that_is_unreachable_is_named_with_its_address(tmp_path):
    """Nothing listens, the host is unknown, or it speaks HTTP when asked for HTTPS. This also
    holds if only the provider's list could tell whose a model is."""
    port, plain = (
        free_port(),
        http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler),
    )
    threading.Thread(target=plain.serve_forever, daemon=True).start()
    places = {
        f"http://user:{HUSH}@127.0.0.1:{port}/v1": (
            f"Nothing listens at 127.0.0.1:{port}. Start it there..*Connection refused"
        ),
        "http://nosuch.invalid/v1": "The host nosuch.invalid is not known.*nosuch.invalid:80: .*[Nn]ame",
        f"https://127.0.0.1:{plain.server_port}/v1": "SSL.*WRONG_VERSION_NUMBER|SSL.*EOF|SSL.*record layer",
    }

    def check(number, url, said):
        with running(tmp_path / str(number), OPENAI_BASE_URL=url) as server:
            asker = Asker(server)
            for body in ({"content": "Hello"}, {"content": "Hello", "model": "m-1"}):
                status_, detail, reason = asker.ask(body=body)
                assert status_ == 502 and re.match(
                    "The provider (?!openai).+ (could not|cannot) be reached", detail
                ), detail
                assert reason == detail
            assert re.search(said, wait_until(lambda: why_of_replies(server))[0]), server.output()
            assert re.search(
                f"WARNING The models of .+ cannot be had: .*({said})", server.output()
            ), server.output()
            assert HUSH not in server.output()

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(check, number, *row) for number, row in enumerate(places.items())]:
            done.result()
    plain.shutdown()
    plain.server_close()


# Identity providers

CONFIGURATION = {"issuer": "https://id.example", "jwks_uri": "https://id.example/keys"}


def test_the_log_says_why_the_published_keys_cannot_be_fetched(tmp_path):
    point = base64.urlsafe_b64encode(KEY.public_key().public_bytes_raw()).rstrip(b"=").decode()
    jwks = {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": point, "kid": "ours"}]}
    answers = [
        (status(404, {}), "ValueError status 404"),
        (status(200, CONFIGURATION), 'this is a discovery document; write its jwks_uri, "https:'),
        (status(200, "<html>"), "JSONDecodeError Expecting value: line 1 column 1 (char 0)"),
        (status(200, {"keys": {}}), "its keys are not a list"),
    ]
    with contextlib.closing(Provider()) as publisher:
        url = publisher.url.replace("//", f"//user:{HUSH}@")
        with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=f"{url}/keys") as server:
            asker, place = Asker(server), f"{publisher.url.replace('//', '//…@')}/keys"
            ours = {"Authorization": "Bearer " + make_token(ALICE, KEY, "EdDSA", {"kid": "ours"})}
            for answer, said in answers:
                publisher.models = answer
                wait_until(lambda: said in (found := asker.ask(**ours))[2] and found[0] == 503, 10)
                status_, detail, reason = asker.ask(**ours)
                assert (status_, detail) == (
                    503,
                    "The identity provider does not answer. Ask again later.",
                )
                assert (
                    reason.startswith(f"{detail} The keys at {place} cannot be had: ")
                    and said in reason
                ), reason
            publisher.models = status(200, jwks)
            assert wait_until(lambda: asker.ask(**ours)[0] == 200, 10)
            other = make_token(ALICE, KEY, "EdDSA", {"kid": "another"})
            status_, detail, reason = asker.ask(Authorization=f"Bearer {other}")
            assert status_ == 401 and detail.startswith(
                "The token was signed with a key that the identity provider does not publish"
            )
            assert (
                'It has alg "EdDSA", kid "another", iss "fabro-web", aud null; expected are iss fabro-web, aud None.'
                in reason
            )
            publisher.close()
            wait_until(
                lambda: "Connection refused" in asker.ask(Authorization=f"Bearer {other}")[2], 10
            )
            assert asker.ask(**ours)[0] == 200
            for secret in (HUSH, other.rpartition(".")[2], point):
                assert secret not in server.output()


# Databases


def test_the_log_says_why_the_database_does_not_answer_and_when_it_does_again(tmp_path, provider):
    """Once for each request, and once for the keeper, which tries every second to store a reply."""
    provider.script = [reply(*(part for number in range(40) for part in (0.2, f"word {number} ")))]
    with running(tmp_path, OPENAI_BASE_URL=provider.url + "/v1") as server:
        asker, path, why = (
            Asker(server),
            tmp_path / "parley.db",
            "FileNotFoundError: [Errno 2] No such file or directory: ",
        )
        asker.ask(body={"content": "Hello", "model": "m-1"}, Prefer="respond-async")
        path.rename(tmp_path / "away.db")
        status_, detail, reason = asker.ask()
        assert (status_, detail) == (503, "The database does not answer. Ask again in a moment.")
        assert reason == f"{why}'{path}'"
        server.wait_for_output(f" ERROR the database does not answer: {why}", 2)
        time.sleep(3)
        (tmp_path / "away.db").rename(path)
        seconds = re.search(
            " WARNING the database answers again after ([0-9]+) s",
            server.wait_for_output("answers again"),
        )[1]
        assert 2 <= int(seconds) <= 20
        assert server.output().count("the database does not answer") == 2
