"""Servers for tests with strange providers, or of one process."""

import pytest

from hellish import open_pit
from protocols import GPT
from servers import Server, running
from windows import Conversation


@pytest.fixture(scope="session")
def lone(provider_of_all, tmp_path_factory):
    """A server with one worker, short timeouts, no key for Anthropic, and a ~/.netrc with passwords for the provider."""
    home = tmp_path_factory.mktemp("home")
    (home / ".netrc").write_text("machine 127.0.0.1 login user password of-netrc\n")
    (home / ".netrc").chmod(0o600)
    settings = {
        "HOME": home,
        "ANTHROPIC_BASE_URL": provider_of_all.url + "/prefix/",
        "OPENAI_BASE_URL": provider_of_all.url + "/v1/",
        "OPENAI_API_KEY": "key-of-openai",
        "DEFAULT_MODEL": GPT,
        "MAX_TOKENS": 100,
        "MODEL_TIMEOUT": 0.5,
    }
    with running(home / "server", **settings) as server:
        yield server


@pytest.fixture(scope="session")
def pit(tmp_path_factory):
    with open_pit(tmp_path_factory.mktemp("hell")) as pit:
        yield pit


@pytest.fixture(scope="session")
def one(new_database, provider_of_all, tmp_path_factory):
    """One process with both protocols: each process learns from refusals by itself."""
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
    """A function that starts a conversation with a model."""

    def begin(model, **fields):
        provider.default = model
        return Conversation(one.client(), model, **fields)

    return begin
