"""`flask chat` when something is wrong: a line that says what, and an exit status."""

import contextlib
import subprocess
import threading
import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from chats import PIPES, first_session
from provider import REFUSED, Provider, certificate, cut, reply, status
from servers import free_port

START_IT = "Start it with `.venv/bin/flask run`, or check --url, also its http:// or https://."


@pytest.mark.parametrize(
    "options, problem",
    [
        (["--model", "nobody"], "Error: The provider 127.0.0.1:"),
        (["--session", "a1b2c3d4-e5f6-7890-abcd-ef1234567890"], "Error: There is no such session."),
        (
            ["--token", "none"],
            "Error: The token is incomplete: it must have three parts, with dots between them.",
        ),
        (["--token", "a.b.ünïcode"], "Error: The token is malformed."),
        (
            ["--url", "nowhere"],
            "Error: nowhere is not Parley. Check --url, which begins with http:// or https://.",
        ),
        (
            ["--url", "127.0.0.1:5000"],
            "Error: 127.0.0.1:5000 is not Parley. Check --url, which begins with http:// or https://.",
        ),
        (
            ["--url", "http://127.0.0.1:1", "--list"],
            f"Error: http://127.0.0.1:1 cannot be reached. {START_IT}",
        ),
        (
            ["--url", "http://localhost:1"],
            f"Error: http://localhost:1 cannot be reached. {START_IT}",
        ),
        (
            ["--url", "http://me:secret@[::1]:1"],
            f"Error: http://[::1]:1 cannot be reached. {START_IT}",
        ),
        (
            ["--url", "http://parley.invalid"],
            f"Error: http://parley.invalid cannot be reached. {START_IT}",
        ),
    ],
)
def test_an_error_is_one_line(options, problem, run, provider):
    provider.script = [
        status(404, {"error": {"message": "no such model", "code": "model_not_found"}})
    ]
    done = run("Hello", options=options)
    assert (done.returncode, done.stdout.strip()) == (1, "")
    assert done.stderr.startswith(problem) and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("options", [[], ["Hello"], ["-c"]])
def test_an_unreachable_server_is_reported_at_once(options, terminal):
    port = free_port()
    began = time.monotonic()
    chat = terminal(*options, url=f"http://127.0.0.1:{port}")
    assert chat.wait_for_end() == 1
    assert chat.screen == f"Error: http://127.0.0.1:{port} cannot be reached. {START_IT}\r\n"
    assert time.monotonic() - began < 8  # Python needs one or two on a busy machine


def test_a_wrong_scheme_is_reported(run, server, tmp_path):
    other = server.url.replace("http:", "https:")
    done = run("Hello", url=other)
    problem = f"Error: {other} has no https:// that is trusted here. Is it http://?\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", problem)
    path, context = certificate(tmp_path)
    with contextlib.closing(Provider(context)) as secure:
        secure.models = status(200, {"data": []})
        done = run("Hello", url=secure.url.replace("https:", "http:"))
        assert (done.returncode, done.stdout) == (1, "") and "http:// or https://" in done.stderr, (
            done.stderr
        )
        done = run("Hello", url=secure.url)
        assert (done.returncode, done.stderr) == (1, problem.replace(other, secure.url))
        assert not secure.requests
        assert run(options=["--list"], url=secure.url, REQUESTS_CA_BUNDLE=str(path)).returncode == 0


@pytest.mark.parametrize(
    "code, headers, problem",
    [
        (200, {}, "is not Parley. Check --url"),
        (
            301,
            {"Location": "https://127.0.0.1:1/"},
            "redirects to https://127.0.0.1:1/. Check --url.",
        ),
        (404, {}, "answered with status 404, and is not Parley. Check --url."),
        (
            413,
            {},
            "answered with status 413, and is not Parley. Check --url.",
        ),  # as a proxy answers a long message
        (502, {}, "cannot be reached."),  # as a proxy says it
    ],
)
def test_an_answer_of_another_program_is_one_line(code, headers, problem, run):
    with contextlib.closing(Provider()) as other:
        other.models = status(code, "<html>", **headers)
        done = run("Hello", url=other.url)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"Error: {other.url} {problem}")


def test_a_reply_that_is_stopped_elsewhere_is_a_failure(command, alice, provider):
    provider.script = [reply("Once upon ", threading.Event())]
    with subprocess.Popen(**command("Tell me a story"), **PIPES) as process:
        process.stdin.close()
        assert process.stdout.read(10) == "Once upon "
        alice.post(f"/sessions/{first_session(alice)['id']}/cancel")
        problem = "Error: The reply is interrupted: /continue goes on.\n"
        assert (process.stdout.read(), process.stderr.read()) == ("\n", problem)
    assert process.returncode == 1


def test_a_failing_model_ends_one_question_but_not_a_chat(run, terminal, provider):
    provider.script = [cut("Half"), REFUSED, cut("Half"), REFUSED]
    done = run("Hello")
    assert (done.returncode, done.stdout) == (1, "Half\n")
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    chat = terminal()
    chat.wait_for("> ")
    chat.type("Hello\n")
    chat.wait_for("Half\r\nError: ")
    chat.wait_for("> ")
    chat.type("/retry\n")
    chat.wait_for("The answer.\r\nHello · m-1> ")


def test_signs_its_own_token_if_the_server_is_this_one(run, server):
    assert run("Hello", PARLEY_TOKEN="").stdout == "The answer.\n"
    user = server.client(
        "https://github.com/you"
    )  # as in the README's curl command, and on the page that `flask run` names
    assert first_session(user)["title"] == "Hello"


def test_needs_no_settings_with_an_address_and_a_token(run):
    odd = {
        "DATABASE_URL": "postgresql://127.0.0.1:1/none",
        "JWT_SECRET": "short",
        "PROVIDERS": "odd",
        "DEFAULT_MODEL": "none",
    }
    done = run("Hello", **odd)
    assert (done.returncode, done.stdout, done.stderr) == (0, "The answer.\n", "")
    done = run("Hello", PARLEY_TOKEN="", **odd)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr.startswith("Error: Give --token, or set PARLEY_TOKEN. JWT_SECRET: ")
        and done.stderr.count("\n") == 1
    )


def test_asks_for_a_token_if_it_cannot_sign_one(run):
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()
    done = run("Hello", PARLEY_TOKEN="", JWT_SECRET="", JWT_PUBLIC_KEY=pem)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: Give --token, or set PARLEY_TOKEN. ")


def test_asks_for_a_token_if_users_sign_in_elsewhere(run):
    issuer = "https://id.example.com"
    settings = {"PARLEY_TOKEN": "", "JWT_SECRET": "", "JWT_ISSUER": issuer}
    done = run("Hello", **settings, OIDC_CLIENT_ID="parley")
    assert (done.returncode, done.stdout) == (1, "")
    advice = "Give --token, or set PARLEY_TOKEN."
    assert done.stderr == (
        f"Error: {advice} People sign in at {issuer}: this server signs no tokens.\n"
    )
