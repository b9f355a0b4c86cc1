"""A server that many mistakes are made with."""

import pytest

from mistakes import HUSH, Asker
from provider import Provider
from servers import running


@pytest.fixture(scope="session")
def asker(tmp_path_factory):
    """A server for alice, whose tokens are for `parley`, and who has the models of a provider."""
    provider = Provider()
    settings = {
        "OPENAI_BASE_URL": provider.url + "/v1",
        "OPENAI_API_KEY": HUSH,
        "MODEL_TIMEOUT": 1,
        "JWT_AUDIENCE": "parley",
    }
    # The first allowed user runs the server, and gets more exact error messages.
    settings["ALLOWED_USERS"] = "owner,alice"
    with running(tmp_path_factory.mktemp("asker"), **settings) as server:
        asker = Asker(server)
        asker.provider = provider
        yield asker
    provider.close()
