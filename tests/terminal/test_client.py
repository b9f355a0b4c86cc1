"""The terminal's client, if another program than Parley answers."""

import concurrent.futures
import contextlib
import os

import pytest

import forked
from client import SECRET, make_token
from hell_answers import PAGE
from product import ROOT
from provider import Provider, status


@pytest.fixture
def chat(tmp_path):
    """A function that runs `flask chat` and returns the ended process. ~/.netrc has a password
    for the loopback."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password of-netrc\n")
    (tmp_path / ".netrc").chmod(0o600)

    token_of_alice = make_token()

    def chat(url, *options, token=token_of_alice, **environment):
        clean = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
            "JWT_SECRET": SECRET,
        }
        clean |= {"DATABASE_URL": f"sqlite:///{tmp_path}/unused.db", "PARLEY_TOKEN": token}
        words = ["-m", "flask", "chat", "--url", url, *options]
        return forked.run(words, ROOT, clean | environment, "Hello\n")

    return chat


ODD_SERVERS = {  # its answer, the options of the command, and the line that is printed
    "a redirect": (lambda url: status(307, {}, Location=url + "/sessions"), [], "redirects to"),
    "a redirect for a list": (
        lambda url: status(301, {}, Location=url + "/sessions"),
        ["--list"],
        "redirects to",
    ),
    "a page": (lambda url: status(200, PAGE.decode()), [], "Error: "),
    "a page for a list": (lambda url: status(200, PAGE.decode()), ["--list"], "Error: "),
    "an answer of another program": (
        lambda url: status(200, {"data": [5], "turns": 7}),
        ["--list"],
        "Error: ",
    ),
    "a session without a place": (lambda url: status(201, {"id": 5}), [], "Error: "),
}


def test_the_terminal_client_says_in_one_line_that_it_is_no_parley(chat, trap, subtests):
    def run(name):
        answer, options, _ = ODD_SERVERS[name]
        with contextlib.closing(Provider()) as server:
            server.default = server.models = answer(trap.url)
            return chat(server.url, *options), server.requests

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for (name, (_, _, words)), (done, asked) in zip(
            ODD_SERVERS.items(), pool.map(run, ODD_SERVERS), strict=True
        ):
            with subtests.test(name):
                assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
                assert words in done.stderr and "Traceback" not in done.stderr
                assert len(asked) == 1
                assert all(
                    request.headers["authorization"].startswith("Bearer ") for request in asked
                )
    assert not trap.connections


def test_the_terminal_client_asks_no_proxy_for_the_loopback(chat, trap, server, provider):
    done = chat(server.url, HTTP_PROXY=trap.url, http_proxy=trap.url, ALL_PROXY=trap.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "The answer.\n", "")
    assert not trap.connections
