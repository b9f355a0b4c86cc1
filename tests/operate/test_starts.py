"""The start stops at a mistake with one line, which names it and shows no secret.

Modules: `database/opening.py`.
"""

import base64
import contextlib
import importlib.util
import os
import pathlib
import re
import socket
import sqlite3
import subprocess
import sys
import uuid

import psycopg
import pytest

import auth
import forked
from client import SECRET
from product import ROOT, copy_of_the_service
from servers import free_port, running
from settings import SettingError, read_environment, read_settings, unknown_settings
from starting import is_one_line_about

# A start

PRIVATE_KEY = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIHVzaHVzaHVzaHVzaHVzaHVzaHVzaHVzaHVzaHVzaHVz
-----END PRIVATE KEY-----
"""


X25519_KEY = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VuAyEAhSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
-----END PUBLIC KEY-----
"""


RSA_OF_1024_BITS = """-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCsYXwFjV6yT4SyZieZKuj9vONo
AEY8fYsRd9D1Nnmin4ziZjwSlBAqzKukoZf3YAe2ysOYUKdX+4HDeTRpvMOUX3mr
vae31O/o0qbis+2pytdNFeaNAiH/NI+eEWjYkqmJQvgcDHS6s6lf0cdSxTJfqgOI
eX6A8cu/kh0RTuUv9QIDAQAB
-----END PUBLIC KEY-----
"""


# The identity point: the signature (1, 0) is valid for it, whatever is signed.
ED25519_KEY_OF_ANYBODY = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
-----END PUBLIC KEY-----
"""


SECRETS_THAT_ARE_KEYS = [
    X25519_KEY,
    PRIVATE_KEY,
    PRIVATE_KEY.replace("\n", " "),
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVzaHVzaHVzaHVzaHVzaHVzaHVzaHVzaHVzaHVzaHVz hush@hush",
    '{"kty": "oct", "k": "hushhushhushhushhushhushhushhush"}',
]


BAD_STARTS = [
    ("MAX_TOKENS", "odd", {}),
    ("OPENAI_API_KEY", "hush hush", {}),
    ("DATABASE_URL", "postgresql://user:hush@host", {}),
    ("DATABASE_URL", "mysql://user:hush@host/name", {}),
    ("DATABASE_URL", "sqlite:///:memory:", {}),
    ("DATABASE_URL", "sqlite:////proc/nowhere/parley.db", {}),
    ("DATABASE_URL", f"sqlite:///{__file__}", {}),
    ("DATABASE_URL", "postgresql://user:hush@127.0.0.1:1/name?odd=hush", {}),
    ("DATABASE_URL", "postgresql://user:hush@127.0.0.1:1/name?connect_timeout=hush", {}),
    ("DATABASE_URL", "sqlite:////tmp/parley.db?timeout=9", {}),
    ("JWT_PUBLIC_KEY", PRIVATE_KEY, {}),
    ("JWT_PUBLIC_KEY", X25519_KEY, {}),
    ("JWT_PUBLIC_KEY", RSA_OF_1024_BITS, {}),
    ("JWT_PUBLIC_KEY", ED25519_KEY_OF_ANYBODY, {}),
    *(("JWT_SECRET", secret, {}) for secret in SECRETS_THAT_ARE_KEYS),
    ("JWT_SECRET", SECRET, {"JWT_PUBLIC_KEY": X25519_KEY}),
    *(("WEB_CONCURRENCY", value, {}) for value in ("two", "0", "-1", "1.5", "1_0", "65536")),
    ("PORT", "http", {}),
    *(
        ("SCRIPT_NAME", value, {})
        for value in ("chat/v1", "/chat v1", "//chat", "/chat?v1", "http://localhost/chat")
    ),
    ("DEFAULT_MODEL", "m-3", {"OPENAI_API_KEY": "hush", "MODELS": "m-1,m-2"}),
    ("MODELS", "m-1,claude-x", {"OPENAI_API_KEY": "hush"}),
    ("TITLE_MODEL", "claude-x", {"OPENAI_API_KEY": "hush"}),
]


# The `python` commands of the Procfile.
SERVE = (ROOT / "Procfile").read_text().partition("web: python ")[2].split()


def check_that_it_stops(words, folder, name, value, more):
    settings = (
        {"PORT": str(free_port()), "DATABASE_URL": f"sqlite:///{folder}/a.db"}
        | more
        | {name: value}
    )
    settings["PATH"] = os.environ["PATH"]
    start = forked.run(words, ROOT, settings)
    told = start.stdout + start.stderr
    assert start.returncode != 0
    assert is_one_line_about(name, told.removesuffix("\n")), told
    assert not (folder / "a.db").exists()
    return told


@pytest.mark.parametrize("name, value, more", BAD_STARTS)
def test_stops_the_start_with_one_line(tmp_path, name, value, more):
    check_that_it_stops(SERVE, tmp_path, name, value, more)


@pytest.mark.parametrize("name, value, more", BAD_STARTS[:3])
def test_stops_a_local_start_with_one_line(tmp_path, name, value, more):
    words = ["-m", "flask", "run", "--port", str(free_port())]
    check_that_it_stops(words, tmp_path, name, value, more)


MISSPELT = [
    ("OPENAI_APIKEY", "OPENAI_API_KEY"),
    ("openai_base_url", "OPENAI_BASE_URL"),
    ("DATABASE_URI", "DATABASE_URL"),
    ("DEFAULT_MODELS", "DEFAULT_MODEL"),
    ("JWKS_URL", "JWT_JWKS_URL"),
    ("RATELIMIT", "RATE_LIMIT"),
    ("ANTHROPIC_KEY", "ANTHROPIC_API_KEY"),
]


def test_warns_of_misspelt_names_and_of_no_others(start):
    others = {
        "TEST_DATABASE_URL": "postgresql://other",
        "OPENAI_ORG_ID": "org",
        "OPEN_AI": "x",
        "LOG_LEVEL": "debug",
    }
    others["WEB_CONCURRENCY"] = "1"
    server = start(**{name: "hush" for name, _ in MISSPELT}, **others)
    told = [line for line in server.output().splitlines() if "is not a setting" in line]
    assert len(told) == len(MISSPELT), told
    for name, meant in MISSPELT:
        assert any(
            f"{name} is not a setting, and is ignored. Do you mean {meant}?" in line
            for line in told
        ), (name, told)
    assert "hush" not in server.output()


OF_OTHERS = [  # the environment, and what is printed about it
    ({"OLLAMA_HOST": "0.0.0.0"}, "OLLAMA_HOST", "Write OPENAI_BASE_URL=http://127.0.0.1:11434/v1"),
    ({"OLLAMA_HOST": "[::]:99"}, "OLLAMA_HOST", "Write OPENAI_BASE_URL=http://127.0.0.1:99/v1"),
    ({"OLLAMA_HOST": "odd:port"}, "OLLAMA_HOST", "Write OPENAI_BASE_URL=http://…/v1"),
    (
        {"OLLAMA_BASE_URL": "http://box/"},
        "OLLAMA_BASE_URL",
        "Write OPENAI_BASE_URL=http://box:80/v1",
    ),
    (
        {"OLLAMA_HOST": "https://box/ollama"},
        "OLLAMA_HOST",
        "Write OPENAI_BASE_URL=https://box:443/ollama/v1",
    ),
    (
        {"OPENAI_API_BASE": "https://h/s3cr3t-hush-in-a-path/v1"},
        "OPENAI_API_BASE",
        "Write OPENAI_BASE_URL=http://…/v1",
    ),
    (
        {"GROQ_API_KEY": "hush", "OPENAI_BASE_URL": "https://api.groq.com/openai/v1"},
        "GROQ_API_KEY",
        "Write OPENAI_API_KEY",
    ),
    (
        {"MISTRAL_APIKEY": "hush", "PROVIDERS": "mistral=http://h"},
        "MISTRAL_APIKEY",
        "Do you mean MISTRAL_API_KEY?",
    ),
    (
        {"OPENAI_API_BASE": "http://h/v1", "OPENAI_API_KEY": "k"},
        "OPENAI_API_BASE",
        "Write OPENAI_BASE_URL=http://h/v1",
    ),
    (
        {"OPENAI_API_BASE": "http://a:hush@h/v1"},
        "OPENAI_API_BASE",
        "Write OPENAI_BASE_URL=http://…/v1",
    ),
    ({"OPENAI_MODEL": "hush"}, "OPENAI_MODEL", "Write DEFAULT_MODEL"),
    ({"MODEL": "hush"}, "MODEL", "Write DEFAULT_MODEL"),
    (
        {"OIDC_CLIENT_SECRET": "hush"},
        "OIDC_CLIENT_SECRET",
        "The page is a public client, which has no secret: remove it, and register a public client "
        "at the identity provider.",
    ),
    (
        {"MISTRAL_API_KEY": "hush"},
        "MISTRAL_API_KEY",
        "Keep it, and also write PROVIDERS=mistral=https://api.mistral.ai/v1",
    ),
    (
        {"GROQ_API_KEY": "hush", "PROVIDERS": "near=http://h"},
        "GROQ_API_KEY",
        "Keep it, and also write PROVIDERS=…,groq=https://api.groq.com/openai/v1",
    ),
]


@pytest.mark.parametrize("environment, name, advice", OF_OTHERS)
def test_settings_of_other_programs_are_not_read_and_the_line_to_write_is_shown(
    environment, name, advice
):
    told = list(unknown_settings(environment, read_settings(environment)))
    assert told == [f"{name} is not a setting, and is ignored. {advice}"]


@pytest.mark.parametrize(
    "environment",
    [
        {
            "OLLAMA_HOST": "0.0.0.0",
            "OPENAI_BASE_URL": "http://127.0.0.1:11434/v1",
        },  # Ollama itself reads this one
        {"OLLAMA_HOST": "0.0.0.0", "PROVIDERS": "ollama=http://127.0.0.1:11434/v1"},
        {"OPENAI_API_BASE": "http://h/v1", "OPENAI_BASE_URL": "http://h/v1"},
        {"GROQ_API_KEY": "k", "PROVIDERS": "groq=https://api.groq.com/openai/v1"},
        {
            "GROQ_API_KEY": "k",
            "OPENAI_BASE_URL": "https://api.groq.com/openai/v1",
            "OPENAI_API_KEY": "k",
        },
        {"OLLAMA_HOST": "0.0.0.0", "ANTHROPIC_API_KEY": "k"},
        {"OPENAI_API_BASE": "https://api.openai.com/v1"},
        {"SENDGRID_API_KEY": "k"},
        {"MODEL": "m", "MODELS": "m"},
        {"OPENAI_MODEL": "m", "DEFAULT_MODEL": "echo"},
        {"OLLAMA_HOST": ""},
    ],
)
def test_settings_of_other_programs_are_no_mistake_if_nothing_is_missing(environment):
    assert list(unknown_settings(environment, read_settings(environment))) == []


@pytest.mark.parametrize(
    "name, value, second",
    [
        ("OPENAI_BASE_URL", "http://127.0.0.1:1/v1 DEFAULT_MODEL=m", "DEFAULT_MODEL"),
        ("OPENAI_API_KEY", "hush OPENAI_BASE_URL=http://h/v1", "OPENAI_BASE_URL"),
        ("JWT_ISSUER", "me\tGROQ_API_KEY=hush", "GROQ_API_KEY"),
    ],
)
def test_two_settings_on_one_line_are_reported_as_such(name, value, second):
    with pytest.raises(SettingError) as refusal:
        read_settings({name: value})
    assert str(refusal.value) == f"{name}: {second} is on the same line. Give it a line of its own"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start it as another user")
def test_an_unreadable_file_of_settings_is_reported_in_one_line(tmp_path):
    os.chmod(tmp_path, 0o755)
    folder = copy_of_the_service(tmp_path / "parley")
    (folder / ".env").write_text("MODELS=hush")
    (folder / ".env").chmod(0o600)
    # The libraries may be in a folder that others cannot read, such as /root.
    command = "import os, app; os.setgid(65534); os.setuid(65534); app.create_app()"
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and parent != pathlib.Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    ended = subprocess.run(
        [sys.executable, "-c", command], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 1, ended.stderr
    assert ended.stderr.startswith(f"{folder}/.env: it cannot be read (Permission denied). ")
    assert "this server runs as nobody" in ended.stderr and "hush" not in ended.stderr


@pytest.mark.parametrize(
    "words, told", [(["app.py"], ".venv/bin/flask run"), (["gunicorn.conf.py"], ".venv/bin/python")]
)
def test_an_unknown_command_or_missing_libraries_print_the_right_command(words, told):
    """As if .venv was forgotten. -S leaves out the libraries, which are in the folders that
    `site` adds."""
    environment = {"PATH": os.environ["PATH"]}
    ended = subprocess.run(
        [sys.executable, "-S", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert told in ended.stderr and len(ended.stderr.splitlines()) == 1


OF_FLASK = ("blinker", "click", "flask", "itsdangerous", "jinja2", "markupsafe", "werkzeug")


@pytest.mark.parametrize(
    "words, told",
    [
        (["-m", "flask", "run"], "marshmallow is not installed for .+ Use .venv/bin/flask"),
        (["gunicorn.conf.py"], "The libraries are not installed for .+ Use .venv/bin/python"),
    ],
)
def test_a_python_with_only_some_of_the_libraries_says_which_to_use(tmp_path, words, told):
    for name in (*OF_FLASK, "gunicorn"):
        (tmp_path / name).symlink_to(pathlib.Path(importlib.util.find_spec(name).origin).parent)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-S", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1 and re.fullmatch(told + ".*\n", ended.stderr), ended.stderr


@pytest.mark.parametrize(
    "host, settings, words, advice",
    [
        ("0.0.0.0", {"PORT": "{port}"}, [], "PORT={next}, which is on all interfaces, too"),
        (
            "127.0.0.1",
            {"GUNICORN_CMD_ARGS": "--bind 127.0.0.1:{port}"},
            [],
            "GUNICORN_CMD_ARGS=--bind=127.0.0.1:{next}",
        ),
        ("127.0.0.1", {}, ["-b", "127.0.0.1:{port}"], "GUNICORN_CMD_ARGS=--bind=127.0.0.1:{next}"),
        ("::1", {}, ["--bind=[::1]:{port}"], "GUNICORN_CMD_ARGS=--bind=[::1]:{next}"),
    ],
)
def test_a_port_in_use_is_reported_in_one_line(tmp_path, host, settings, words, advice):
    """The advice opens no other address than before, or says so."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as other:
        numbers = {"port": (port := other.getsockname()[1]), "next": port + 1}
        environment = {"PATH": os.environ["PATH"], "DATABASE_URL": f"sqlite:///{tmp_path}/p.db"}
        environment |= {name: text.format(**numbers) for name, text in settings.items()}
        words = [word.format(**numbers) for word in words]
        ended = forked.run(["gunicorn.conf.py", *words], ROOT, environment)
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"Another program listens on {place}. Stop it, or choose another port: "
        f"{advice.format(**numbers)}\n"
    )


@pytest.mark.parametrize(
    "words, told",
    [
        (["-m", "gunicorn", "app:app"], "leave app:app out. Write: .venv/bin/python gunicorn.conf"),
        (["-m", "gunicorn", "-k", "gevent"], "leave -k gevent out. Write: .venv/bin/python gunico"),
        (["gunicorn.conf.py", "--worker-class=tornado"], "leave -k tornado out."),
        (["gunicorn.conf.py", "--bnd=x"], "command line: unrecognized arguments: --bnd=x"),
    ],
)
def test_a_gunicorn_option_that_parley_cannot_run_with_is_reported_in_one_line(
    tmp_path, words, told
):
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": f"sqlite:///{tmp_path}/p.db"}
    ended = forked.run(words, ROOT, environment)
    assert ended.returncode == 1 and told in ended.stderr, ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_line_that_dotenv_skips_stops_the_start(tmp_path):
    """It names the file and the line, and says what to write. It shows nothing else of the file."""
    table = {
        "KEY: hush\n": "line 1: this is YAML. Write KEY=value, with = instead of the colon",
        "A=1\n\n\nexport KEY:hush\r\n": "line 4: this is YAML. Write KEY=value, with =",
        'A=1\nKEY="hush\nB=2\n': "line 2: its quote is not closed. Write KEY=value on one line",
        'KEY="hush\nB="hush"\n': "line 1: its quote is not closed. Write KEY=value on one line",
        'KEY="hush\nMODELS="\n': "line 1: its quote is not closed. Write KEY=value on one line",
        "KEY='it's hush'\n": "line 1: there is text after its quotes. Write KEY=value, without",
        "# A\nKEY=“hush”\n": "line 2: its quotes are curly. Write KEY=value, without quotes",
        "Dear hush, hello\n": "line 1: write it like NAME=value, or begin it with #",
    }
    for text, told in table.items():
        (tmp_path / ".env").write_bytes(text.encode())
        with pytest.raises(SettingError) as refusal:
            read_environment(str(tmp_path))
        assert str(refusal.value).startswith(f"{tmp_path}/.env, {told}"), text
        assert "hush" not in str(refusal.value)


def test_a_line_that_dotenv_understands_is_read(tmp_path):
    text = (
        "\ufeff# “A”: 1\r\nexport A = 'x: y' # c\nB=\nC\nD=\"-----BEGIN\nABC=\n-----END\"\nE=it's\n"
    )
    (tmp_path / ".env").write_text(text)
    read = read_environment(str(tmp_path))
    expected = {"A": "x: y", "B": "", "C": None, "D": "-----BEGIN\nABC=\n-----END", "E": "it's"}
    assert {name: read[name] for name in expected} == expected


def test_an_env_that_is_a_folder_stops_the_start(tmp_path):
    """Docker makes a folder if the file to be mounted is missing."""
    folder = copy_of_the_service(tmp_path / "parley")
    (folder / ".env").mkdir()
    for words in (["-m", "flask", "check"], ["-m", "flask", "run"], SERVE):
        ended = forked.run(words, folder, {"PATH": os.environ["PATH"]})
        assert ended.returncode == 1, ended.stdout
        assert ended.stderr.startswith(f"{folder}/.env: it is a folder (Docker makes one")


def test_files_of_an_older_release_are_made_private(tmp_path):
    folder = copy_of_the_service(tmp_path / "parley")
    instance = folder / "instance"
    environment = {"PATH": os.environ["PATH"]}
    command = ["-c", "import app; app.create_app()"]
    forked.run(command, folder, environment).check_returncode()
    files = [instance, instance / "parley.db", instance / "jwt_key.pem"]
    for file in files:
        file.chmod(0o755 if file.is_dir() else 0o644)
    (instance / "notes.txt").touch(0o644)
    (instance / "notes.txt").chmod(0o644)
    forked.run(command, folder, environment).check_returncode()
    assert [file.stat().st_mode & 0o777 for file in files] == [0o700, 0o600, 0o600]
    assert (instance / "notes.txt").stat().st_mode & 0o777 == 0o644


def test_an_empty_number_of_processes_counts_as_not_set(tmp_path):
    with running(tmp_path, WEB_CONCURRENCY="") as server:
        assert server.client().get("/health").status_code == 200


def check_that_it_stops_at(path):
    """A start with this file stops, and changes no byte of it. Returns what is printed."""
    before, nowhere = path.read_bytes(), path.parent / "nowhere"
    told = check_that_it_stops(SERVE, nowhere, "DATABASE_URL", f"sqlite:///{path}", {})
    assert path.read_bytes() == before
    return told


# What another program may have in a file: (journal mode, statements). A table is not Parley's just
# because it has the name of one of Parley's.
FOREIGN = {
    "tables": (
        "delete",
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, text); INSERT INTO notes (text) VALUES ('A note')",
    ),
    "tables and a log": (
        "wal",
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, text); INSERT INTO notes (text) VALUES ('A note')",
    ),
    "a view alone": ("delete", "CREATE VIEW notes AS SELECT 1 AS note"),
    "an id alone": ("delete", "PRAGMA application_id = 252006675"),
    "an id and tables": (
        "wal",
        "PRAGMA application_id = 252006675; CREATE TABLE vcache (id, value)",
    ),
    "a session": (
        "delete",
        "CREATE TABLE session (token TEXT PRIMARY KEY, data); INSERT INTO session VALUES ('t', x'00')",
    ),
    "a session in use": (
        "wal",
        "CREATE TABLE session (token TEXT PRIMARY KEY, data); INSERT INTO session VALUES ('t', x'00')",
    ),
    "a release": (
        "wal",
        "CREATE TABLE release (id INTEGER PRIMARY KEY, migrations); INSERT INTO release VALUES (1, 1)",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_of_another_program_is_not_touched(tmp_path, kind):
    """Neither its tables nor its journal mode are changed, and no file is left next to it."""
    path, (mode, script) = tmp_path / "notes.db", FOREIGN[kind]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"PRAGMA journal_mode = {mode}; {script}")
        if "in use" not in kind:
            connection.close()
        files = sorted(tmp_path.iterdir())
        assert "another program" in check_that_it_stops_at(path)
        assert sorted(tmp_path.iterdir()) == files


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of one of Parley's files with 200 sessions, and its page size."""
    path = tmp_path_factory.mktemp("whole") / "parley.db"
    settings = {
        "DATABASE_URL": f"sqlite:///{path}",
        "JWT_SECRET": SECRET,
        "PATH": os.environ["PATH"],
    }
    subprocess.run(
        [sys.executable, "-c", "import app; app.create_app()"], cwd=ROOT, env=settings, check=True
    )
    with contextlib.closing(sqlite3.connect(path)) as connection:
        columns = "id, owner, title, title_is_users, model, created_at, updated_at, folded_title"
        rows = [
            (uuid.uuid4().hex, "alice", "x" * 500, 0, "m-1", number, number, "x" * 500)
            for number in range(200)
        ]
        connection.executemany(
            f"INSERT INTO session ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows
        )
        connection.commit()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    return path.read_bytes(), size


def flip(data, start, count, mask):
    return (
        data[:start]
        + bytes(byte ^ mask for byte in data[start : start + count])
        + data[start + count :]
    )


# What is left of a file. `middle` is the beginning of a page in its middle.
DAMAGES = {
    "a page": lambda data, middle, size: flip(data, middle, size, 255),
    "a bit": lambda data, middle, size: flip(
        data, middle, 1, 8
    ),  # SQLite tells the kind of a page by it
    "the first page": lambda data, middle, size: flip(data, 100, 1, 8),
    "cut in half": lambda data, middle, size: data[:middle],
    "cut within a page": lambda data, middle, size: data[: middle + size // 2],
    "no database": lambda data, middle, size: b"Dear diary, " * 1000,
}


@pytest.mark.parametrize("how", DAMAGES)
def test_says_what_to_do_with_a_damaged_file(tmp_path, whole, how):
    """Nothing is written to it, so that what is left can be saved."""
    data, size = whole
    path = tmp_path / "parley.db"
    path.write_bytes(DAMAGES[how](data, len(data) // size // 2 * size, size))
    told = check_that_it_stops_at(path)
    assert "damaged" in told and f"sqlite3 {path} .recover" in told


OPTIONS = {
    "sqlite": [
        "nosuch=1",
        "isolation_level=foo",
        "max_connections=3",
        "cached_statements=odd",
        "pragmas=odd",
        "detect_types=99999999999999",
    ],
    "postgresql": [
        "nosuch=1",
        "isolation_level=foo",
        "isolation_level=7",
        "row_factory=1",
        "sslmode=odd",
    ],
}


@pytest.mark.parametrize(
    "engine, option",
    [(engine, option) for engine in OPTIONS for option in OPTIONS[engine]],
    indirect=["engine"],
)
def test_an_unknown_option_of_the_database_stops_the_start(engine, new_database, tmp_path, option):
    check_that_it_stops(SERVE, tmp_path, "DATABASE_URL", f"{new_database()}?{option}", {})


SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    # The same points in other encodings that OpenSSL accepts
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_a_public_key_that_anyone_can_sign_for_is_refused(point):
    key = base64.b64encode(bytes.fromhex("302a300506032b6570032100" + point)).decode()
    pem = f"-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----"
    with pytest.raises(
        SettingError,
        match="^JWT_PUBLIC_KEY: it is a point of small order, for which anyone can sign$",
    ):
        auth.open_tokens(read_settings({"JWT_PUBLIC_KEY": pem}), "nowhere")


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)  # SQLite stores any text
def test_a_database_that_cannot_store_every_text_stops_the_start(engine, tmp_path):
    server, name = os.environ["TEST_DATABASE_URL"].rpartition("/")[0], f"parley_{uuid.uuid4().hex}"
    with psycopg.connect(server + "/postgres", autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
        )
        try:
            check_that_it_stops(SERVE, tmp_path, "DATABASE_URL", f"{server}/{name}", {})
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
