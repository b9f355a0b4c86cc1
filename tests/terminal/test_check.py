"""`flask check`: what it says about everything that may be set up wrongly, and its exit status."""

import contextlib
import datetime
import email.utils
import json
import os
import pty
import re
import sqlite3
import time
import uuid

import psycopg
import pytest

import forked
from commands import (
    COMMANDS,
    CONTROLS,
    check,
    check_that_it_commands_nothing,
    environment_of,
    of_level,
)
from databases import POSTGRESQL
from keeping import Keeping
from provider import raw, reply, status, thought
from raw_tables import tables_of
from servers import free_port, running
from tables.ledger import TOKENS
from tokens import ED25519, RSA, jwk


def check_that_it_says(level, status, folder, sentences, settings):
    """Assert that these are the sentences of this level, in this order, and the exit status.
    Returns the whole output."""
    code, found = check(folder, **settings)
    said = of_level(level, found)
    assert code == status and len(said) == len(sentences), found
    for each, sentence in zip(said, sentences, strict=True):
        assert re.search(sentence, each), each
    return found


def check_that_it_fails(folder, *sentences, **settings):
    """Assert that these failures are reported, in this order, and that the exit status says so."""
    return check_that_it_says("FAILED", 1, folder, sentences, settings)


def check_that_it_warns(folder, *sentences, **settings):
    """Assert that these warnings are given, in this order, with exit status 0. Returns what is
    fine."""
    return of_level("ok", check_that_it_says("warning", 0, folder, sentences, settings))


def start_once(folder, **settings):
    """Create the files that a start creates."""
    words = ["-c", "import app; app.create_app()"]
    forked.run(words, folder, environment_of(settings)).check_returncode()


def state_of(folder):
    """All that is in this folder: names, modes, times and bytes."""
    files = [path for path in sorted(folder.rglob("*")) if "__pycache__" not in path.parts]
    return [(path, path.stat().st_mode, path.is_file() and path.read_bytes()) for path in files]


def on_a_terminal(folder, *words, **settings):
    """The output of this flask command on a terminal, and its exit status."""
    terminal, inside = pty.openpty()
    environment = environment_of(settings) | {"TERM": "xterm"}
    with open(inside, "rb", buffering=0) as stream:
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), stream)
        process = forked.Process(["-m", "flask", *words], folder, environment, **streams)
    shown = b""
    with contextlib.suppress(OSError):  # Linux's way to say that nobody has it open any more
        while data := os.read(terminal, 65536):
            shown += data
    os.close(terminal)
    return shown.decode().replace("\r\n", "\n"), process.wait(60)


PLACES = ["an id", "a refusal", "the list's refusal", "a first line", "a page of keys", "a setting"]


@pytest.mark.parametrize("place", PLACES)
def test_messages_of_others_cannot_control_the_terminal(folder, provider, openai, place):
    settings = openai | {"DEFAULT_MODEL": "m-1"}
    if place == "an id":
        provider.models = [f"m-1{COMMANDS}"]
        del settings["DEFAULT_MODEL"]
    elif place == "a refusal":
        provider.default = status(400, {"error": {"message": COMMANDS.replace("\n", " ")}})
    elif place == "the list's refusal":
        provider.models = status(400, {"error": {"message": COMMANDS}})
    elif place == "a setting":
        settings["DEFAULT_MODEL"] = f"m-1{COMMANDS}"
    else:
        provider.models = raw(b"HTTP/1.1 %s\r\n\r\n" % COMMANDS.encode())
        settings |= {"JWT_JWKS_URL": provider.url} if place == "a page of keys" else {}
    shown, _ = on_a_terminal(folder, "check", **settings)
    check_that_it_commands_nothing(shown)


def test_names_cannot_control_the_terminal(folder, database):
    with tables_of(database) as tables:
        columns = ", ".join(("owner", "model", "day", "replies", "failed", "interrupted", *TOKENS))
        values = f"'x{COMMANDS}', 'm', '{datetime.date.today()}', 1, 0, 0" + ", 0" * len(TOKENS)
        tables.rows(f"INSERT INTO usage ({columns}) VALUES ({values})")
    for words in (["usage", "--days", "36500"], ["usage", "--days", "36500", "--json"]):
        shown, code = on_a_terminal(folder, *words, DATABASE_URL=database)
        assert code == 0, shown
        assert not CONTROLS.search(shown), repr(shown)
    assert json.loads(shown)[0]["user"] == f"x{COMMANDS}"


# All is well


def test_all_is_well_before_and_after_the_first_start_and_nothing_is_changed(folder):
    before = state_of(folder)
    fine = check_that_it_warns(folder)
    assert f"{folder}/instance/parley.db will be created at the first start" in fine
    assert f"{folder}/instance/jwt_key.pem will be created at the first start" in fine
    assert state_of(folder) == before
    start_once(folder)
    before = state_of(folder)
    fine = check_that_it_warns(folder)
    assert f"sqlite:///{folder}/instance/parley.db can be read and written" in fine
    assert "there is a key for tokens" in fine
    assert "echo answers" in fine
    assert state_of(folder) == before


def test_stops_at_a_setting_that_it_cannot_understand(folder):
    check_that_it_fails(
        folder,
        "^MAX_TOKENS: give a whole number, 1 or more. Correct this first",
        MAX_TOKENS="hush",
        RATE_LIMIT="odd",
    )
    check_that_it_fails(folder, "^DEFAULT_MODEL: m-1 is not served", DEFAULT_MODEL="m-1")


def test_continues_after_each_failure(folder, provider):
    provider.models = provider.default = status(
        401, {"error": {"message": "Incorrect API key: sk-hush-hush"}}
    )
    settings = {
        "DATABASE_URL": "sqlite:////nowhere/parley.db",
        "JWT_JWKS_URL": f"http://hush:hush@127.0.0.1:{free_port()}/keys",
    }
    settings |= {"ANTHROPIC_BASE_URL": provider.url, "ANTHROPIC_API_KEY": "sk-hush-hush"}
    settings |= {"JWT_AUDIENCE": "parley"}
    settings |= {"OPENAI_BASE_URL": f"http://127.0.0.1:{free_port()}/v1", "DATABASE_URI": "hush"}
    found = check_that_it_fails(
        folder,
        "^DATABASE_URL: /nowhere/parley.db cannot be created: create its folder, /nowhere,",
        "^JWT_JWKS_URL: .*refused",
        "^ANTHROPIC_BASE_URL, ANTHROPIC_API_KEY: The provider .* refused this server's own key",
        "^OPENAI_BASE_URL, OPENAI_API_KEY: The provider .* could not be reached",
        **settings,
    )
    misspelt, unlisted = of_level("warning", found)
    assert misspelt == "DATABASE_URI is not a setting, and is ignored. Do you mean DATABASE_URL?"
    assert unlisted.startswith(
        f"The provider 127.0.0.1:{provider.port} refused this server's own key"
    )  # whether the default model answers decides


@pytest.mark.parametrize("setting", ["JWT_JWKS_URL", "OPENAI_BASE_URL", "HTTP_PROXY"])
def test_no_part_of_a_password_with_an_at_sign_is_shown(folder, setting):
    url = f"http://user:hush@HUSH-hush@127.0.0.1:{free_port()}/v1"
    settings = {setting: url, "DEFAULT_MODEL": "echo", "MODELS": "echo"}
    settings |= {"OPENAI_BASE_URL": "http://provider.invalid/v1"} if setting == "HTTP_PROXY" else {}
    code, found = check(folder, **settings)
    assert code == 1 and len(of_level("FAILED", found)) == 1, found
    assert "HUSH" not in str(found) and "user:" not in str(found)


def test_names_files_that_others_can_read_but_should_not(folder):
    start_once(folder)
    for name in ("parley.db", "jwt_key.pem"):
        (folder / "instance" / name).chmod(0o644)
    check_that_it_warns(
        folder, "parley.db.*mode 644.*chmod 600", "jwt_key.pem.*mode 644.*chmod 600"
    )


def test_says_which_proxy_is_trusted_and_who_else_could_pass_for_it(folder):
    trusted = {"TRUSTED_USER_HEADER": "Remote-User", "TRUSTED_PROXIES": "unix, 10.0.0.7"}
    assert "users may be named by Remote-User from unix, 10.0.0.7" in check_that_it_warns(
        folder, **trusted
    )
    check_that_it_warns(
        folder,
        "^TRUSTED_PROXIES: every program on this machine can pose as any user; name",
        "^TRUSTED_PROXIES: every machine in 10.0.0.0/8 can pose as any user; name",
        "^TRUSTED_PROXIES: every program on this machine can pose as any user; name",
        TRUSTED_USER_HEADER="Remote-User",
        TRUSTED_PROXIES="127.0.0.1, 10.0.0.0/8, ::1, 10.0.0.7",
    )


def test_warns_of_a_trusted_proxy_that_may_be_anybody(folder):
    check_that_it_warns(
        folder,
        "^TRUSTED_PROXIES: everybody can pose as any user; name",
        TRUSTED_USER_HEADER="Remote-User",
        TRUSTED_PROXIES="0.0.0.0/0",
    )


def test_warns_of_allowed_users_without_oneself(folder):
    told = "^ALLOWED_USERS lacks you, so the link of .* signs in as alice, the first user who is allowed"
    check_that_it_warns(folder, told, ALLOWED_USERS="alice,bob")
    check_that_it_warns(folder, ALLOWED_USERS="alice,you")
    check_that_it_warns(folder, BLOCKED_USERS="alice")


def test_warns_of_spaces_instead_of_commas(folder, provider, openai):
    told = "^MODELS: m-1 m-2 is one model with spaces in its id. Write m-1,m-2"
    check_that_it_warns(folder, told, "does not list m-1 m-2", MODELS="m-1 m-2", **openai)


def test_missing_certificates_are_reported(folder):
    told = "^REQUESTS_CA_BUNDLE: /nowhere.pem does not exist. Name a file"
    check_that_it_fails(folder, told, REQUESTS_CA_BUNDLE="/nowhere.pem")


# The database


@pytest.fixture
def database(new_database, folder):
    """The URL of a database that a server has started on."""
    url = new_database()
    start_once(folder, DATABASE_URL=url)
    return url


def test_a_database_of_a_newer_release_is_reported(folder, database):
    with tables_of(database) as tables:
        tables.rows("UPDATE release SET migrations = 99")
    check_that_it_fails(
        folder, "^DATABASE_URL: it belongs to a newer release of Parley", DATABASE_URL=database
    )


def test_an_empty_database_is_fine_and_stays_empty(folder, new_database):
    url = new_database()
    check_that_it_warns(folder, DATABASE_URL=url)
    assert not os.path.exists(url.removeprefix("sqlite:///"))
    with tables_of(url) as tables:
        assert tables.columns() == set()


def test_a_database_is_checked_while_it_is_written(start, settings, folder):
    server = start(**settings)
    server.client().create()
    assert any(
        "can be read and written" in each for each in check_that_it_warns(folder, **settings)
    )


def test_a_damaged_file_and_one_of_another_program_are_reported(folder, tmp_path):
    path = tmp_path / "notes.db"
    path.write_bytes(b"no database" * 500)
    check_that_it_fails(
        folder,
        "^DATABASE_URL: this file is damaged, or no SQLite database",
        DATABASE_URL=f"sqlite:///{path}",
    )
    folder_of_it = f"sqlite:///{tmp_path}"
    check_that_it_fails(folder, "^DATABASE_URL: this is a folder; name", DATABASE_URL=folder_of_it)
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")
    check_that_it_fails(
        folder, "^DATABASE_URL: this file is another program's", DATABASE_URL=f"sqlite:///{path}"
    )


@pytest.mark.skipif(not POSTGRESQL, reason="TEST_DATABASE_URL is not set")
def test_a_refusal_of_the_database_server_is_reported(folder):
    """A wrong port, an unknown name, an encoding, a role that may not write. The check leaves
    nothing in the database."""
    place, name, role = (
        POSTGRESQL.rpartition("/")[0],
        f"parley_{uuid.uuid4().hex}",
        f"role_{uuid.uuid4().hex}",
    )
    nowhere = f"postgresql://hush:hush@127.0.0.1:{free_port()}/parley"
    check_that_it_fails(folder, "^DATABASE_URL: nothing listens at 127.0.0.1", DATABASE_URL=nowhere)
    check_that_it_fails(
        folder, f"^DATABASE_URL: there is no database {name}", DATABASE_URL=f"{place}/{name}"
    )
    with psycopg.connect(POSTGRESQL, autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
        try:
            connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hush'")
            check_that_it_fails(
                folder, "^DATABASE_URL: .*encoding.*UTF8", DATABASE_URL=f"{place}/{name}"
            )
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
            url = f"{place.partition('//')[0]}//{role}:hush@{place.rpartition('@')[2]}/{name}"
            check_that_it_fails(folder, "^DATABASE_URL: the role may not use", DATABASE_URL=url)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
            connection.execute(f"DROP ROLE {role}")


# The keys


def test_an_invalid_key_is_reported(folder):
    start_once(folder)
    (folder / "instance" / "jwt_key.pem").write_text("odd")
    check_that_it_fails(folder, "jwt_key.pem is not an Ed25519 key in PEM")
    check_that_it_fails(folder, "^JWT_PUBLIC_KEY", JWT_PUBLIC_KEY="hush")


def test_published_keys_are_counted_and_clocks_are_compared(folder, identity):
    keys = {"keys": [jwk(ED25519.public_key(), "1"), {"kty": "of the future", "kid": "2"}]}
    settings = {"JWT_JWKS_URL": identity.url, "JWT_AUDIENCE": "parley"}
    identity.models = status(200, keys, Date=email.utils.formatdate(time.time() - 5, usegmt=True))
    fine = check_that_it_warns(folder, **settings)
    assert f"{identity.url} publishes 1 usable keys" in fine
    identity.models = status(200, keys, Date=email.utils.formatdate(time.time() - 300, usegmt=True))
    check_that_it_warns(folder, r"clock is \+\d+ s from that of", **settings)
    identity.models = status(404)
    check_that_it_fails(folder, "^JWT_JWKS_URL: .*404", **settings)
    identity.models = status(200, {"keys": []})
    check_that_it_fails(folder, "^JWT_JWKS_URL: it publishes no usable key", **settings)
    identity.models = status(200, {"issuer": "x", "jwks_uri": "https://id.example/keys"})
    told = '^JWT_JWKS_URL: this is a discovery document; write its jwks_uri, "https://id.example/ke'
    check_that_it_fails(folder, told, **settings)


TAKES_OTHERS = "JWT_AUDIENCE is not set: tokens that the identity provider made for other services"


def test_warns_of_published_keys_without_an_audience(folder, identity, tmp_path):
    identity.models = status(200, {"keys": [jwk(ED25519.public_key(), "1")]})
    check_that_it_warns(folder, f"^{TAKES_OTHERS}.*Write JWT_AUDIENCE=", JWT_JWKS_URL=identity.url)
    for audience in (None, "parley"):
        settings = {"JWT_SECRET": "", "JWT_JWKS_URL": identity.url, "JWT_AUDIENCE": audience}
        with running(tmp_path / str(audience), **settings, WEB_CONCURRENCY=2) as server:
            output = server.wait_for_output(" start ")
            assert output.count(f" WARNING {TAKES_OTHERS}") == (audience is None)


# OpenID Connect


@pytest.fixture
def issuer(issuer):
    issuer.settings["ALLOWED_USERS"] = "alice@example.com"
    return issuer


def test_a_suitable_identity_provider_is_reported(folder, issuer):
    fine = check_that_it_warns(folder, **issuer.settings)
    assert f"people sign in at {issuer.url}, as the client parley" in fine
    assert f"{issuer.provider.url}/keys publishes 1 usable keys" in fine
    assert not any("jwt_key.pem" in sentence for sentence in fine)


UNFIT = {
    "away": (None, "cannot be had .*refused.*can it be reached from here"),
    "another issuer": ({"issuer": "https://other"}, r'its issuer is "https://other", and JWT_ISS'),
    "no endpoint": ({"token_endpoint": None}, "its token_endpoint is not an https:// URL"),
    "no PKCE": ({"code_challenge_methods_supported": ["plain"]}, "does not fit: .* lacks S256"),
    "no code": ({"response_types_supported": ["token"]}, "does not fit: .* lacks code"),
    "no keys": ({"jwks_uri": "http://127.0.0.1:9/keys"}, "its keys cannot be had"),
}


@pytest.mark.parametrize("change, sentence", UNFIT.values(), ids=UNFIT)
def test_an_unsuitable_identity_provider_is_reported(folder, issuer, change, sentence):
    if change is None:
        issuer.close()
    issuer.document |= change or {}
    check_that_it_fails(folder, f"^JWT_ISSUER: .*{sentence}", **issuer.settings)


def test_the_clock_of_an_identity_provider_is_compared(folder, issuer):
    date = email.utils.formatdate(time.time() - 300, usegmt=True)
    issuer.keys = status(200, {"keys": [jwk(RSA.public_key(), "1")]}, Date=date)
    check_that_it_warns(folder, r"clock is \+\d+ s from that of", **issuer.settings)


def test_warns_of_an_identity_provider_that_lets_everybody_in(folder, issuer):
    del issuer.settings["ALLOWED_USERS"]
    check_that_it_warns(folder, "^ALLOWED_USERS is not set: everybody with", **issuer.settings)


def test_keys_with_an_address_of_their_own_are_fetched_there(folder, issuer, identity):
    identity.models = status(200, {"keys": []})
    sentence = "^JWT_JWKS_URL: it publishes no usable key"
    check_that_it_fails(folder, sentence, **issuer.settings, JWT_JWKS_URL=identity.url)


# The providers


@pytest.fixture
def openai(provider):
    return {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": "sk-hush-hush"}


def test_warns_of_models_that_are_not_listed(folder, provider, openai):
    sentences = "does not list odd; it lists m-1, m-2", "does not list old; it lists"
    fine = check_that_it_warns(folder, *sentences, MODELS="m-1,odd", TITLE_MODEL="old", **openai)
    answers = f"127.0.0.1:{provider.port} answers, and lists 2 models"
    assert answers in fine and "m-1 answers" in fine
    assert len(provider.posts) == 1 and provider.posts[0].body["max_tokens"] <= 256


def test_a_default_model_that_does_not_answer_is_reported(folder, provider, openai):
    provider.default = status(
        404, {"error": {"message": 'model "m-1" not found, try pulling it first'}}
    )
    check_that_it_fails(folder, "has no such model: model .m-1. not found", **openai)
    provider.default = status(500, {"error": {"message": "out of memory"}})
    check_that_it_fails(folder, "too little memory.*out of memory", **openai)
    assert len(provider.posts) == 2  # it is not tried again


def test_a_model_that_thinks_for_too_long_counts_as_available(folder, provider, openai):
    provider.default = reply(
        thought(reasoning_content="Hm. " * 10), stop="length", usage=(15, 256, 0)
    )
    assert "m-1 answers" in check_that_it_warns(folder, **openai)


def test_a_provider_without_a_list_needs_a_default(folder, provider, openai):
    provider.models = []
    check_that_it_fails(folder, "lists no model", **openai)
    check_that_it_warns(folder, "does not list m-1", DEFAULT_MODEL="m-1", **openai)


def test_a_provider_without_a_list_is_judged_by_its_default_model(folder, provider, openai):
    provider.models = status(404)
    warning = "has nothing there .*404"
    assert "m-1 answers" in check_that_it_warns(folder, warning, DEFAULT_MODEL="m-1", **openai)
    check_that_it_fails(folder, "404", **openai)
    check_that_it_fails(folder, "404", TITLE_MODEL="t", **openai)  # which is no default


def test_a_provider_with_fields_of_the_operators_own_is_asked_with_them(folder, provider, openai):
    near = {"PROVIDERS": f"near={provider.url}/v1", "NEAR_BODY": '{"plugins": [{"id": "web"}]}'}
    assert "near/m-1 answers" in check_that_it_warns(folder, **openai, **near)
    asked = [post.body.get("plugins") for post in provider.posts]
    assert sorted(asked, key=bool) == [None, [{"id": "web"}]]
    provider.default = status(400, {"error": {"message": "plugins: extra inputs"}})
    own = openai | {"OPENAI_BODY": near["NEAR_BODY"]}
    check_that_it_fails(folder, "OPENAI_API_KEY, OPENAI_BODY: .*plugins: extra inputs", **own)


# gunicorn


def test_a_setting_that_gunicorn_would_refuse_is_reported(folder):
    for port in ("abc", "99999"):
        check_that_it_fails(folder, "^PORT: give a whole number from 1 to 65535$", PORT=port)
    check_that_it_fails(folder, "^WEB_CONCURRENCY: give a whole number", WEB_CONCURRENCY="two")


@pytest.mark.parametrize("can", [True, False])
def test_says_whether_llama_cpp_keeps_answers(folder, can):
    with contextlib.closing(Keeping()) as keeping:
        keeping.has_route = can
        settings = {"OPENAI_BASE_URL": f"{keeping.url}/v1", "MODELS": "m-1"}
        level, sentence = ("ok", "keeps") if can else ("warning", "keeps no")
        code, found = check(folder, **settings)
        assert code == 0
        assert any(f"llama.cpp {sentence} answers" in each for each in of_level(level, found))
