"""`flask check`: what it says of all that may be set up wrongly, and its status. What a start says of what is set up."""

import contextlib
import datetime
import email.utils
import json
import os
import pty
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid

import jwt
import psycopg
import pytest

from client import copy_of_the_service, free_port, running, wait_until_up
from conftest import POSTGRESQL
from llm import open_catalog
from provider import raw, reply, status, thought
from raw_tables import tables_of
from settings import read_settings
from tables.ledger import TOKENS
from terminal.start import describe
from test_auth import ED25519, jwk, pem

FLASK = [sys.executable, "-m", "flask"]
CREATE_APP = [sys.executable, "-c", "import app; app.create_app()"]


@pytest.fixture
def folder(tmp_path):
    """The service in a folder of its own, where it has not been started yet."""
    return copy_of_the_service(tmp_path / "parley")


def environment_of(settings):
    clean = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    settings = {"PORT": free_port(), "PYTHONUNBUFFERED": 1} | settings
    return clean | {name: str(value) for name, value in settings.items()}


def run(folder, *words, **settings):
    """This command of flask, which has ended."""
    environment = environment_of(settings)
    return subprocess.run(
        [*FLASK, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


def check(folder, **settings):
    """(status, levels and sentences) of `flask check` with these settings. Nothing secret is shown, nor how the code looks."""
    command = [*FLASK, "check"]
    ended = subprocess.run(
        command,
        cwd=folder,
        env=environment_of(settings),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "hush" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    lines = [
        line
        for line in (ended.stdout + ended.stderr).splitlines()
        if not line.startswith("waiting")
    ]
    return ended.returncode, [(line[:9].strip(), line[9:]) for line in lines]


def of_level(level, found):
    return [sentence for its_level, sentence in found if its_level == level]


def check_that_it_says(level, status, folder, sentences, settings):
    """That just these sentences are of this level, in this order, and that the status is this; returns all that is said."""
    code, found = check(folder, **settings)
    said = of_level(level, found)
    assert code == status and len(said) == len(sentences), found
    for each, sentence in zip(said, sentences, strict=True):
        assert re.search(sentence, each), each
    return found


def check_that_it_fails(folder, *sentences, **settings):
    """That just these are said of failures, in this order, and the status tells."""
    return check_that_it_says("FAILED", 1, folder, sentences, settings)


def check_that_it_warns(folder, *sentences, **settings):
    """That just these are warned of, in this order, and that the status does not mind; returns what is fine."""
    return of_level("ok", check_that_it_says("warning", 0, folder, sentences, settings))


def start_once(folder, **settings):
    """Have made what a start makes."""
    subprocess.run(
        CREATE_APP,
        cwd=folder,
        env=environment_of(settings),
        check=True,
        timeout=60,
        stderr=subprocess.DEVNULL,
    )


def state_of(folder):
    """All that is in this folder: names, modes, times and bytes."""
    files = [path for path in sorted(folder.rglob("*")) if "__pycache__" not in path.parts]
    return [(path, path.stat().st_mode, path.is_file() and path.read_bytes()) for path in files]


# What a terminal would obey, and a line that would look like one of the check's own.
COMMANDS = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\r\u202e\u2066\nok       and forged"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def on_a_terminal(folder, *words, **settings):
    """What this command of flask shows on a terminal, and its status."""
    terminal, inside = pty.openpty()
    environment = environment_of(settings) | {"TERM": "xterm"}
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), inside)
    with subprocess.Popen([*FLASK, *words], cwd=folder, env=environment, **streams) as process:
        os.close(inside)
        shown = b""
        with contextlib.suppress(OSError):  # so Linux tells that nobody has it open any more
            while data := os.read(terminal, 65536):
                shown += data
        os.close(terminal)
    return shown.decode().replace("\r\n", "\n"), process.returncode


def check_that_it_commands_nothing(shown):
    assert not CONTROLS.search(shown), repr(shown)
    assert not re.search("^ok +and forged", shown, re.M)
    assert "owned" in shown


PLACES = ["an id", "a refusal", "the list's refusal", "a first line", "a page of keys", "a setting"]


@pytest.mark.parametrize("place", PLACES)
def test_what_others_say_commands_no_terminal(folder, provider, openai, place):
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


def test_what_a_name_has_in_it_commands_no_terminal(folder, database):
    with tables_of(database) as tables:
        columns = ", ".join(("owner", "model", "day", "replies", "failed", "interrupted", *TOKENS))
        values = f"'x{COMMANDS}', 'm', '{datetime.date.today()}', 1, 0, 0" + ", 0" * len(TOKENS)
        tables.rows(f"INSERT INTO usage ({columns}) VALUES ({values})")
    for words in (["usage", "--days", "36500"], ["usage", "--days", "36500", "--json"]):
        shown, code = on_a_terminal(folder, *words, DATABASE_URL=database)
        assert code == 0, shown
        assert not CONTROLS.search(shown), repr(shown)
    assert json.loads(shown)[0]["user"] == f"x{COMMANDS}"


# What is there


def test_all_is_well_before_the_first_start_and_after_it_and_nothing_is_changed(folder):
    before = state_of(folder)
    fine = check_that_it_warns(folder)
    assert f"{folder}/instance/parley.db will be made at the first start" in fine
    assert f"{folder}/instance/jwt_key.pem will be made at the first start" in fine
    assert state_of(folder) == before
    start_once(folder)
    before = state_of(folder)
    fine = check_that_it_warns(folder)
    assert f"sqlite:///{folder}/instance/parley.db can be read and written" in fine
    assert "there is a key for tokens" in fine
    assert "echo answers" in fine
    assert state_of(folder) == before


def test_stops_at_a_setting_that_is_not_understood(folder):
    check_that_it_fails(
        folder,
        "^MAX_TOKENS: give a whole number from 1 on. All else",
        MAX_TOKENS="hush",
        RATE_LIMIT="odd",
    )
    check_that_it_fails(folder, "^DEFAULT_MODEL: m-1 is not served", DEFAULT_MODEL="m-1")


def test_goes_on_after_each_failure(folder, provider):
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
        "^DATABASE_URL: /nowhere/parley.db cannot be made: have its folder, /nowhere, made",
        "^JWT_JWKS_URL: .*refused",
        "^ANTHROPIC_BASE_URL, ANTHROPIC_API_KEY: The provider anthropic refused this server's own key",
        "^OPENAI_BASE_URL, OPENAI_API_KEY: The provider openai could not be reached",
        **settings,
    )
    misspelt, unlisted = of_level("warning", found)
    assert misspelt == "DATABASE_URI is no setting, and not read. Is it DATABASE_URL?"
    assert unlisted.startswith(
        "The provider anthropic refused this server's own key"
    )  # whether it answers decides


@pytest.mark.parametrize("setting", ["JWT_JWKS_URL", "OPENAI_BASE_URL", "HTTP_PROXY"])
def test_no_part_of_a_password_with_an_at_sign_is_shown(folder, setting):
    url = f"http://user:hush@HUSH-hush@127.0.0.1:{free_port()}/v1"
    settings = {setting: url, "DEFAULT_MODEL": "echo", "MODELS": "echo"}
    settings |= {"OPENAI_BASE_URL": "http://provider.invalid/v1"} if setting == "HTTP_PROXY" else {}
    code, found = check(folder, **settings)
    assert code == 1 and len(of_level("FAILED", found)) == 1, found
    assert "HUSH" not in str(found) and "user:" not in str(found)


def test_says_who_can_read_what_others_should_not(folder):
    start_once(folder)
    for name in ("parley.db", "jwt_key.pem"):
        (folder / "instance" / name).chmod(0o644)
    check_that_it_warns(
        folder, "parley.db.*mode 644.*chmod 600", "jwt_key.pem.*mode 644.*chmod 600"
    )


# The database


@pytest.fixture
def database(new_database, folder):
    """The URL of a database that has had a start."""
    url = new_database()
    start_once(folder, DATABASE_URL=url)
    return url


def test_a_database_of_a_newer_release_is_told(folder, database):
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


def test_a_file_that_is_damaged_or_another_programs_is_told(folder, tmp_path):
    path = tmp_path / "notes.db"
    path.write_bytes(b"no database" * 500)
    check_that_it_fails(
        folder,
        "^DATABASE_URL: this file is damaged, or no SQLite database",
        DATABASE_URL=f"sqlite:///{path}",
    )
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")
    check_that_it_fails(
        folder, "^DATABASE_URL: this file is another program's", DATABASE_URL=f"sqlite:///{path}"
    )


@pytest.mark.skipif(not POSTGRESQL, reason="TEST_DATABASE_URL is not set")
def test_what_a_server_of_databases_refuses_is_told(folder):
    """A wrong port, a name that is none, an encoding, a role that may not write: nothing is left behind."""
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


def test_a_key_that_is_none_is_told(folder):
    start_once(folder)
    (folder / "instance" / "jwt_key.pem").write_text("odd")
    check_that_it_fails(folder, "jwt_key.pem is no Ed25519 key in PEM")
    check_that_it_fails(folder, "^JWT_PUBLIC_KEY", JWT_PUBLIC_KEY="hush")


def test_published_keys_are_counted_and_clocks_are_compared(folder, identity):
    keys = {"keys": [jwk(ED25519.public_key(), "1"), {"kty": "of the future", "kid": "2"}]}
    settings = {"JWT_JWKS_URL": identity.url, "JWT_AUDIENCE": "parley"}
    identity.models = status(200, keys, Date=email.utils.formatdate(time.time() - 5, usegmt=True))
    fine = check_that_it_warns(folder, **settings)
    assert f"{identity.url} publishes 1 keys that are taken" in fine
    identity.models = status(200, keys, Date=email.utils.formatdate(time.time() - 300, usegmt=True))
    check_that_it_warns(folder, r"clock is \+\d+ s from that of", **settings)
    identity.models = status(404)
    check_that_it_fails(folder, "^JWT_JWKS_URL: .*404", **settings)
    identity.models = status(200, {"keys": []})
    check_that_it_fails(folder, "^JWT_JWKS_URL: it publishes no key that is taken", **settings)


TAKES_OTHERS = "JWT_AUDIENCE is not set: tokens that the identity provider made for other services"


def test_published_keys_without_an_audience_are_warned_of(folder, identity, tmp_path):
    identity.models = status(200, {"keys": [jwk(ED25519.public_key(), "1")]})
    check_that_it_warns(folder, f"^{TAKES_OTHERS}.*Write JWT_AUDIENCE=", JWT_JWKS_URL=identity.url)
    for audience in (None, "parley"):
        settings = {"JWT_SECRET": "", "JWT_JWKS_URL": identity.url, "JWT_AUDIENCE": audience}
        with running(tmp_path / str(audience), **settings, WEB_CONCURRENCY=2) as server:
            output = server.wait_for_output(" start ")
            assert output.count(f" WARNING {TAKES_OTHERS}") == (audience is None)


# The providers


@pytest.fixture
def openai(provider):
    return {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": "sk-hush-hush"}


def test_models_that_are_not_listed_are_warned_of(folder, provider, openai):
    sentences = "openai does not list odd, but m-1, m-2", "openai does not list old, but"
    fine = check_that_it_warns(folder, *sentences, MODELS="m-1,odd", TITLE_MODEL="old", **openai)
    assert "openai answers, and lists 2 models" in fine and "m-1 answers" in fine
    assert len(provider.posts) == 1 and provider.posts[0].body["max_tokens"] <= 256


def test_a_default_model_that_does_not_answer_is_told(folder, provider, openai):
    provider.default = status(
        404, {"error": {"message": 'model "m-1" not found, try pulling it first'}}
    )
    check_that_it_fails(folder, "has no such model: model .m-1. not found", **openai)
    provider.default = status(500, {"error": {"message": "out of memory"}})
    check_that_it_fails(folder, "failed with status 500.*out of memory", **openai)
    assert len(provider.posts) == 2  # it is not tried again


def test_a_model_that_thinks_for_too_long_is_there(folder, provider, openai):
    provider.default = reply(
        thought(reasoning_content="Hm. " * 10), stop="length", usage=(15, 256, 0)
    )
    assert "m-1 answers" in check_that_it_warns(folder, **openai)


def test_a_provider_that_lists_nothing_needs_a_default(folder, provider, openai):
    provider.models = []
    check_that_it_fails(folder, "lists no model", **openai)
    check_that_it_warns(folder, "openai does not list m-1", DEFAULT_MODEL="m-1", **openai)


def test_whether_a_default_model_answers_decides_where_nothing_is_listed(folder, provider, openai):
    provider.models = status(404)
    warning = "openai has nothing there .*404"
    assert "m-1 answers" in check_that_it_warns(folder, warning, DEFAULT_MODEL="m-1", **openai)
    check_that_it_fails(folder, "404", **openai)
    check_that_it_fails(folder, "404", TITLE_MODEL="t", **openai)  # which is no default


# gunicorn


def test_what_gunicorn_would_not_take_is_told(folder):
    for port in ("abc", "99999"):
        check_that_it_fails(folder, "^PORT: give a whole number from 1 to 65535$", PORT=port)
    check_that_it_fails(folder, "^WEB_CONCURRENCY: give a whole number", WEB_CONCURRENCY="two")


# The start


def start_lines(output):
    return [line for line in output.splitlines() if " start " in line or '"start"' in line]


def test_the_log_says_once_what_a_server_starts_with(provider, tmp_path):
    """Also where it reloads; and no password, in whatever form its URL has it."""
    public = pem(ED25519.public_key())
    settings = {
        "JWT_PUBLIC_KEY": public,
        "JWT_SECRET": "",
        "DEFAULT_MODEL": "m-1",
        "OPENAI_API_KEY": "sk-hush",
    }
    settings |= {
        "OPENAI_BASE_URL": provider.url.replace("//", "//hush:hush@") + "/v1",
        "WEB_CONCURRENCY": 2,
    }
    with running(tmp_path, **settings) as server:
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_output("Booting worker", 4)
        (line,) = start_lines(server.output())
    assert line.partition(" INFO ")[2] == (
        f"start version=2.0.0.dev0 address=http://127.0.0.1:{server.port} database=sqlite:///{tmp_path}/parley.db "
        f'keys=JWT_PUBLIC_KEY providers="openai http://***@127.0.0.1:{provider.port}/v1" model=m-1'
    )


@pytest.mark.parametrize(
    "url, shown",
    [
        (
            "postgresql://hush:hu%40sh@db:5432,[::1]:5433/name?a=b",
            "postgresql://***@db:5432,[::1]:5433/name?a=b",
        ),
        (
            "postgresql://db/name?user=me&password=hush&a=b",
            "postgresql://db/name?user=me&password=***&a=b",
        ),
        ("postgres:///name?host=/tmp&pass%77ord=hush", "postgres:///name?host=/tmp&pass%77ord=***"),
        ("sqlite:///some/where.db", "sqlite:///some/where.db"),
    ],
)
def test_no_form_of_a_password_is_shown(url, shown):
    settings = read_settings(
        {"DATABASE_URL": url, "JWT_JWKS_URL": "https://hush@identity.example/keys"}
    )
    assert describe(settings, "/instance", open_catalog(settings)) == {
        "database": shown,
        "keys": "https://***@identity.example/keys",
        "providers": "echo",
        "model": "echo",
    }


def test_says_that_only_the_provider_knows_its_default_model():
    """It is not asked."""
    settings = read_settings({"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "ANTHROPIC_API_KEY": ""})
    described = describe(settings, "/instance", open_catalog(settings))
    assert described["model"] == "the first that openai lists"
    assert described["keys"] == "/instance/jwt_key.pem"


def run_once(folder, *arguments, **settings):
    """(port, what `flask run` prints, what it logs) until it is up."""
    port, pipes = free_port(), {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [*FLASK, "run", "--port", str(port), *arguments]
    process = subprocess.Popen(
        command, cwd=folder, env=environment_of(settings), start_new_session=True, **pipes
    )
    printed = ""
    try:
        wait_until_up(f"http://127.0.0.1:{port}", process)
        while f":{port}/" not in (line := process.stdout.readline()) or not line.startswith("open"):
            assert line, printed
            printed += line
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        rest, log = process.communicate(timeout=20)
    return port, printed + line + rest, log


def test_flask_run_prints_six_lines_once_and_the_link_is_the_last(folder):
    port, printed, log = run_once(folder, "--debug")
    lines = printed[printed.index("Parley ") :].splitlines()
    assert lines[:4] == [
        "Parley 2.0.0.dev0",
        f"database: sqlite:///{folder}/instance/parley.db",
        f"keys: {folder}/instance/jwt_key.pem",
        "providers: echo; the default model is echo",
    ]
    assert (
        lines[4].startswith(f"try: curl -N http://127.0.0.1:{port}/sessions ") and len(lines) == 6
    )
    told, _, token = lines[5].partition("#token=")
    assert told == f"open, a secret for 30 days: http://127.0.0.1:{port}/"
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 30 * 86400
    assert token not in printed[: -len(token) - 1] and start_lines(log) == []


def test_flask_run_on_all_addresses_prints_one_that_works(folder):
    _, printed, _ = run_once(folder, "--host", "0.0.0.0")
    address = re.search("http://([0-9.]+):", printed)[1]
    assert address != "0.0.0.0"
    with socket.socket() as listener:
        listener.bind((address, 0))  # raises OSError where it is none of this machine's


def test_gunicorn_prints_the_link_on_a_terminal_and_never_into_a_log(folder):
    for has_terminal in (True, False):
        port, (terminal, inside) = free_port(), pty.openpty()
        command = [sys.executable, "gunicorn.conf.py"]
        environment = environment_of({"PORT": str(port)}) | {"TERM": "xterm"}
        streams = {"stdout": inside if has_terminal else subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=folder, env=environment, **streams)
        os.close(inside)
        try:
            wait_until_up(f"http://127.0.0.1:{port}", process)
        finally:
            process.terminate()
            printed, log = (each or b"" for each in process.communicate(timeout=40))
        shown = os.read(terminal, 65536) if has_terminal else b""
        os.close(terminal)
        assert (b"#token=" in shown) == has_terminal and b"#token=" not in printed + log
        if has_terminal:
            token = shown.decode().partition("#token=")[2].strip()
            assert (
                jwt.decode(token, options={"verify_signature": False})["sub"]
                == "https://github.com/you"
            )


@pytest.mark.parametrize(
    "url, link", [("https://c.example", "https://c.example/"), ("http://h:80/x/", "http://h:80/x/")]
)
def test_flask_token_prints_a_link(folder, url, link):
    ended = run(folder, "token", "https://github.com/bob", "--url", url)
    told, _, token = ended.stdout.strip().partition("#token=")
    assert told == link
    assert jwt.decode(token, options={"verify_signature": False})["sub"] == "https://github.com/bob"


@pytest.mark.parametrize(
    "url", ["c.example", "https://", "https://c.example/#x", "https://a:b@c.example"]
)
def test_flask_token_refuses_what_is_no_address(folder, url):
    ended = run(folder, "token", "bob", "--url", url)
    assert (ended.returncode, ended.stdout) == (1, "") and "write it like https://" in ended.stderr


def test_flask_run_prints_nothing_that_a_terminal_obeys(folder):
    settings = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "DEFAULT_MODEL": f"m{COMMANDS}"}
    _, printed, log = run_once(folder, **settings)
    assert "owned" in printed
    check_that_it_commands_nothing(printed + log)


def test_flask_run_prints_no_token_where_it_cannot_make_one(folder):
    port, printed, _ = run_once(folder, JWT_PUBLIC_KEY=pem(ED25519.public_key()))
    assert printed.endswith(
        "tokens: Whoever runs this server has tokens for it, or links with one.\n"
        f"open: http://127.0.0.1:{port}/\n"
    )
    assert "curl" not in printed


def test_flask_run_prints_nothing_where_its_port_is_taken(folder):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = [*FLASK, "run", "--port", str(port)]
        ended = subprocess.run(
            command, cwd=folder, env=environment_of({}), capture_output=True, text=True, timeout=60
        )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert (
        ended.stderr.splitlines()[-1]
        == f"Error: Another program listens on port {port}. Stop it, or: flask run -p {port + 1}"
    )


IN_A_NETWORK_OF_ITS_OWN = r"""
import http.server, json, subprocess, sys, threading

class Models(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"object": "list", "data": [{"id": "llama3.2"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
silent = __import__("socket").create_server(("127.0.0.1", 11434))
if sys.argv[1] == "8080":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Models)
    threading.Thread(target=server.serve_forever, daemon=True).start()
command = [sys.executable, "-c", "import app, terminal.start; print(terminal.start.describe_start(app.create_app())['model'])"]
print(subprocess.run(command, capture_output=True, text=True, timeout=60).stdout)
"""


HAS_NETWORKS = os.getuid() == 0 and shutil.which("unshare") and shutil.which("ip")


@pytest.mark.skipif(not HAS_NETWORKS, reason="a network of its own needs root, unshare and ip")
def test_a_model_server_of_this_machine_is_named_and_not_used(folder):
    """One that says nothing, on Ollama's port, does not hold up the start; one that has a list is named, by whatever proxy."""
    command = ["unshare", "-n", sys.executable, "-c", IN_A_NETWORK_OF_ITS_OWN]
    environment = environment_of(
        {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    )
    named = "echo; a model server answers on this machine: put OPENAI_BASE_URL=http://127.0.0.1:8080/v1 into .env"
    for port, found in (("8080", named), ("0", "echo")):
        ended = subprocess.run(
            [*command, port],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.stdout.strip() == found, ended.stderr
