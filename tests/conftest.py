"""A provider, a database and a server for the tests, which speak HTTP and look at what a client sees."""

import contextlib
import functools
import pathlib
import uuid

import pytest

from browser import browser, door, driver, npm, page  # noqa: F401
from client import ALICE, BOB
from databases import LEFT_OUT, POSTGRESQL, new_databases
from issuer import Issuer
from ledgers import within_a_day  # noqa: F401
from provider import Provider, status
from proxy import Proxy
from raw_tables import tables_of
from servers import Server, running

# Code with SQL of its own is tested on both engines, all else only on SQLite, unless a test says otherwise.
ON_BOTH = {"database", "heavy", "maintenance", "replies", "tables", "transfer"}
ON_BOTH |= {
    f"api/test_{name}.py" for name in ("export", "fork", "import", "sessions", "text", "turns")
}
ON_BOTH |= {
    f"api/test_{name}.py" for name in ("rate_limit", "token_limit", "usage", "versions", "pins")
}
ON_BOTH |= {"test_processes.py"}


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc):
    place = metafunc.definition.path.relative_to(pathlib.Path(__file__).parent)
    is_on_both = ON_BOTH & {place.as_posix(), place.parts[0]}
    marks = metafunc.definition.iter_markers("parametrize")
    if "engine" in metafunc.fixturenames and not is_on_both:
        if not any("engine" in mark.args[0] for mark in marks):
            on_sqlite = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
            metafunc.definition.add_marker(on_sqlite)


def pytest_report_header():
    return None if POSTGRESQL else LEFT_OUT


@pytest.fixture(scope="session", params=["sqlite", "postgresql"] if POSTGRESQL else ["sqlite"])
def engine(request):
    """The kind of database: PostgreSQL, too, if TEST_DATABASE_URL names one."""
    if request.param == "postgresql" and not POSTGRESQL:
        pytest.skip(LEFT_OUT)  # a test for PostgreSQL alone
    return request.param


@pytest.fixture(scope="session")
def new_database(engine, tmp_path_factory):
    """A function that returns the URL of an empty database. All of them are dropped at the end."""
    with new_databases(engine, tmp_path_factory.mktemp) as create:
        yield create


@pytest.fixture(scope="session")
def new_other(engine, tmp_path_factory):
    """A function that returns the URL of an empty database of the other engine, if there is one."""
    other = "postgresql" if engine == "sqlite" and POSTGRESQL else "sqlite"
    with new_databases(other, tmp_path_factory.mktemp) as create:
        yield create


@pytest.fixture(scope="session")
def provider_of_all():
    provider = Provider()
    yield provider
    provider.close()


@pytest.fixture(autouse=True)
def provider(provider_of_all):
    """The provider of `server`, reset: no requests yet, and no answers from another test."""
    provider_of_all.reset()
    yield provider_of_all
    provider_of_all.reset()  # before shared fixtures are made for the next test


@pytest.fixture
def identity():
    """An identity provider: it answers with its `models`."""
    provider = Provider()
    yield provider
    provider.close()


@pytest.fixture
def issuer():
    """An OpenID Connect identity provider."""
    with contextlib.closing(Issuer()) as issuer:
        yield issuer


@pytest.fixture(scope="session")
def server(new_database, provider_of_all, tmp_path_factory):
    """Two workers that serve Anthropic's and OpenAI's protocol; echo is not served."""
    server = Server(
        tmp_path_factory.mktemp("server"),
        DATABASE_URL=new_database(),
        ANTHROPIC_BASE_URL=provider_of_all.url,
        ANTHROPIC_API_KEY="key-of-anthropic",
        OPENAI_BASE_URL=provider_of_all.url + "/v1",
        OPENAI_API_KEY="key-of-openai",
        DEFAULT_MODEL="m-1",
        MODEL_TIMEOUT="6",  # a program that a test starts on a busy machine may take more than two seconds
        REPLY_WAIT="10",
    )
    yield server.wait_until_up()
    server.stop()


@pytest.fixture
def settings(new_database, provider):
    """For servers that share a database of their own, and have the provider."""
    return {
        "DATABASE_URL": new_database(),
        "OPENAI_BASE_URL": provider.url + "/v1",
        "DEFAULT_MODEL": "m-1",
    }


@pytest.fixture
def start(new_database, tmp_path):
    """A function that starts a server with these settings, by default on an empty database of its own."""
    servers = []

    def start(**environment):
        server = Server(
            tmp_path,
            **{"DATABASE_URL": environment.get("DATABASE_URL") or new_database()} | environment,
        )
        servers.append(server)
        return server.wait_until_up()

    yield start
    for server in servers:
        server.kill()  # a stop takes a while, and has tests of its own
        server.stop()


@pytest.fixture
def alice(server):
    return server.client(ALICE)


@pytest.fixture
def bob(server):
    return server.client(BOB)


@pytest.fixture
def someone(server):
    """A user who has no sessions and has used nothing."""
    return server.client(f"https://github.com/{uuid.uuid4().hex}")


@pytest.fixture
def proxy(server):
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def newcomer(server, provider):
    """A user who has no session before or after the test, and for whom no model is asked."""
    subject = f"https://github.com/{uuid.uuid4().hex}"
    yield subject
    assert server.client(subject).get("/sessions").json() == {
        "data": [],
        "meta": {"has_more": False},
    }
    assert provider.requests == []


@pytest.fixture(scope="module")
def server_with(tmp_path_factory, provider_of_all):
    """A function that returns the server with these settings. Each is started once."""
    with contextlib.ExitStack() as leaving:

        @functools.cache
        def server_with(**settings):
            settings = {
                "OPENAI_BASE_URL": provider_of_all.url + "/v1",
                "DEFAULT_MODEL": "m-1",
            } | settings
            return leaving.enter_context(running(tmp_path_factory.mktemp("server"), **settings))

        yield server_with


@pytest.fixture
def tables(settings):
    with tables_of(settings["DATABASE_URL"]) as tables:
        yield tables


# Wrong settings, proxies, and the terminal


@pytest.fixture
def trap():
    """An address at which nothing may arrive."""
    with contextlib.closing(Provider()) as trap:
        trap.default = trap.models = status(200, {})
        yield trap
