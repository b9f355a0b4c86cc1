"""Mistakes of whoever sets a server up, or asks it, and the sentence that each gets: at the start, in the answer, in the log.

Those of an address are in tests/test_settings.py, as are values that have the wrong form.
"""

import base64
import concurrent.futures
import contextlib
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid

import psycopg
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from client import ALICE, SECRET, copy_of_the_service, free_port, make_token, running, wait_until
from provider import Provider, certificate, cut, raw, reply, silence, status

NOBODY = 65534  # the user of that name
KEY = ed25519.Ed25519PrivateKey.generate()
HUSH = "hush-hush-hush"  # a password, a key: what nobody is told

# The start


@pytest.fixture(scope="module")
def service():
    """The folder of a copy of the service in which any user may look."""
    folder = pathlib.Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield copy_of_the_service(folder / "service")
    shutil.rmtree(folder)


# Starts a server for each row, in a process that is forked: importing takes longest.
STARTS = """
import gc, json, os, sys
import app

gc.freeze()  # else each of them would look through all that was imported when it ends
for line in sys.stdin:
    row = json.loads(line)
    inside, outside = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(outside, 2)
        os.environ.clear()
        os.environ.update(row["settings"])
        if row["user"]:
            os.setgid(row["user"])
            os.setuid(row["user"])
        app.create_app()
        sys.exit()
    os.close(outside)
    with open(inside) as told:
        text = told.read()
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text]), flush=True)
"""


@pytest.fixture(scope="module")
def start_with(service):
    """A function that returns the (exit status, standard error) of a start with these settings, as this user, if not as ours."""
    environment = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        [sys.executable, "-c", STARTS], cwd=service, env=environment, **pipes
    ) as process:

        def start_with(settings, user):
            print(
                json.dumps({"settings": {"JWT_SECRET": SECRET} | settings, "user": user}),
                file=process.stdin,
                flush=True,
            )
            return json.loads(process.stdout.readline())

        yield start_with
        process.stdin.close()


def check_starts(start_with, subtests, table):
    """Each row: what is wrong, the settings, the user, the beginning of the one line that is told."""
    for name, settings, user, pattern in table:
        code, told = start_with(settings, user)
        with subtests.test(name):
            assert code == 1, told
            assert told.count("\n") == 1 and re.match(pattern, told), told
            assert HUSH not in told


URL, DATABASE = (
    "give a URL that begins with http:// or https://",
    "write it like sqlite:///path or postgresql://user:password@host/name",
)
NOT_SERVED = "GET /models lists what this server serves. To serve this one, set OPENAI_API_KEY or OPENAI_BASE_URL on it."
SETTINGS = [  # the name, the value, what is told
    (
        "OPENAI_BASE_URL",
        "http://127.0.0.1:11434/v1 DEFAULT_MODEL=llama3.2",
        "DEFAULT_MODEL stands on the same line. Give it a line of its own",
    ),
    ("OPENAI_BASE_URL", "127.0.0.1:11434/v1", URL),
    ("ANTHROPIC_BASE_URL", "api.anthropic.com", URL),
    ("JWT_JWKS_URL", "id.example/keys", URL),
    ("LOG_FORMAT", "Text", "give text or json"),
    ("LOG_FORMAT", "JSON", "give text or json"),
    ("DATABASE_URL", "Sqlite:///p.db", DATABASE),
    ("DATABASE_URL", "mysql://u:p@h/d", DATABASE),
    ("DATABASE_URL", "postgressql://u:p@h/d", DATABASE),
    ("DATABASE_URL", "postgresql+psycopg://u:p@h/d", DATABASE),
    ("DATABASE_URL", "sqlite:p.db", DATABASE),
    ("DATABASE_URL", "sqlite://p.db", DATABASE),
    ("DATABASE_URL", '"sqlite:///p.db"', DATABASE),
    ("JWT_SECRET", "short", "give at least 32 bytes"),
    ("MAX_TOKENS", "8k", "give a whole number from 1 on"),
    ("MODEL_TIMEOUT", "2m", "give a number of seconds above 0"),
    ("REPLY_WAIT", "off", "give a number of seconds above 0"),
    ("RATE_LIMIT", "10/min", "write it like 10/minute (second, minute, hour or day)"),
    ("MAX_CONTENT_LENGTH", "1MB", "give a whole number from 1 on"),
    ("MODELS", ",", "give ids of models, separated by commas"),
    ("MODELS", "llama3.2", f"llama3.2 is not served. {NOT_SERVED}"),
    ("DEFAULT_MODEL", "llama3.2", f"llama3.2 is not served. {NOT_SERVED}"),
    ("TITLE_MODEL", "llama3.2", f"llama3.2 is not served. {NOT_SERVED}"),
    ("OPENAI_API_KEY", "a key", "it has characters that no key has"),
]


def test_each_setting_says_what_it_takes(start_with, subtests):
    rows = [
        (f"{name}={value}", {name: value}, 0, re.escape(f"{name}: {told}"))
        for name, value, told in SETTINGS
    ]
    check_starts(start_with, subtests, rows)


class OtherDatabase:
    """Refuses whoever connects as PostgreSQL does, with this code and this text (the manual's chapter Message Formats)."""

    def __init__(self, code, text):
        self.error = b"".join(
            b"%s%s\0" % (kind, what.encode())
            for kind, what in ((b"S", "FATAL"), (b"C", code), (b"M", text))
        )
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"postgresql://parley:{HUSH}@127.0.0.1:{self.socket.getsockname()[1]}/chats"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                with connection:
                    size, code = struct.unpack("!II", connection.recv(8, socket.MSG_WAITALL))
                    while code in (80877103, 80877104):  # a wish for TLS, or for GSSAPI
                        connection.sendall(b"N")
                        size, code = struct.unpack("!II", connection.recv(8, socket.MSG_WAITALL))
                    connection.recv(size - 8, socket.MSG_WAITALL)
                    connection.sendall(
                        b"E" + struct.pack("!I", len(self.error) + 5) + self.error + b"\0"
                    )


# What PostgreSQL says (15.14), and what is told of it. The first of these are said by a real one as well, below.
SAID = [
    (
        "3D000",
        'database "chats" does not exist',
        "there is no database chats on this server; make it: createdb chats",
    ),
    (
        "28000",
        'role "parley" does not exist',
        "there is no role parley on this server; make it: createuser --pwprompt parley",
    ),
    (
        "28P01",
        'password authentication failed for user "parley"',
        "the password of parley is wrong; in a URL, write @ as %40",
    ),
    (
        "53300",
        "sorry, too many clients already",
        "the server has no connection left; raise its max_connections",
    ),
    (
        "53300",
        'too many connections for role "parley"',
        "the server has no connection left; raise its max_connections",
    ),
    (
        "53300",
        "remaining connection slots are reserved for roles with SUPERUSER",
        "the server has no connection left",
    ),
    (
        "42501",
        'permission denied for database "chats"',
        'the role may not use the database "chats"; as its owner: GRANT ALL ON',
    ),
    (
        "57P03",
        "the database system is starting up",
        "the server is starting up; try again in a moment",
    ),
    (
        "28000",
        'no pg_hba.conf entry for host "1.2.3.4", user "parley"',
        "the server lets nobody in this way; its pg_hba.conf lacks",
    ),
    (
        "08006",
        "SSL error: certificate verify failed",
        "the server's certificate is not trusted; name its authority with sslroot",
    ),
    (
        "XX000",
        "something that nobody knows",
        r"the database cannot be opened \(OperationalError: connection failed: .*nobody knows",
    ),
]


def test_each_fault_of_postgresql_has_its_own_sentence_at_the_start(start_with, subtests):
    others = [OtherDatabase(code, text) for code, text, _ in SAID]
    table = [(text, other.url, told) for (_, text, told), other in zip(SAID, others, strict=True)]
    nowhere, place = free_port(), f"parley:{HUSH}@127.0.0.1"
    silent = socket.create_server(("127.0.0.1", 0))  # which never answers
    table += [
        (
            "nothing listens",
            f"postgresql://{place}:{nowhere}/chats",
            f"nothing listens at 127.0.0.1, port {nowhere}; start PostgreSQL",
        ),
        (
            "the host is unknown",
            f"postgresql://parley:{HUSH}@nosuch.invalid/chats",
            "the host nosuch.invalid is not known",
        ),
        (
            "the password has an @",
            f"postgresql://parley:a@{HUSH}@127.0.0.1/chats",
            "there is one @ too many before 127.0.0.1; in",
        ),
        (
            "no socket",
            "postgresql:///chats?host=/nowhere/at/all",
            "write it like|no PostgreSQL is behind the socket /nowhere/at/all",
        ),
        (
            "it is silent",
            f"postgresql://{place}:{silent.getsockname()[1]}/chats?connect_timeout=2",
            "the server does not answer in time",
        ),
    ]
    check_starts(
        start_with,
        subtests,
        [(name, {"DATABASE_URL": url}, 0, f"DATABASE_URL: ({told})") for name, url, told in table],
    )
    for other in others:
        other.socket.close()
    silent.close()


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_real_postgresql_says_what_the_table_expects(engine, new_database, start_with, subtests):
    url, role = new_database(), f"parley_{uuid.uuid4().hex}"
    place = url.rpartition("@")[2]
    host = place.partition("/")[0]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        try:
            table = [
                (
                    "no database",
                    f"{url.rpartition('/')[0]}/nosuch",
                    "there is no database nosuch on this server; make it: createdb",
                ),
                (
                    "no role",
                    f"postgresql://nosuch@{place}",
                    "there is no role nosuch on this server; make it: createuser",
                ),
                (
                    "no right",
                    f"postgresql://{role}@{place}",
                    "the role may not use the schema public; as its owner: GRANT ALL ON schema",
                ),
                (
                    "no TLS",
                    f"{url}?sslmode=require",
                    "the server has no TLS, which sslmode asks for",
                ),
                (
                    "takes no writes",
                    f"{url}?options=-c%20default_transaction_read_only%3Don",
                    "the server takes no writes, as a standby",
                ),
                ("nothing", f"postgresql://{role}@{host}", "write it like"),
            ]
            check_starts(
                start_with,
                subtests,
                [
                    (name, {"DATABASE_URL": url}, 0, f"DATABASE_URL: {told}")
                    for name, url, told in table
                ],
            )
        finally:
            connection.execute(f"DROP ROLE {role}")


@pytest.fixture
def files():
    """A folder in which each kind of file is that a SQLite database cannot be in, or only somebody else's."""
    folder = pathlib.Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    for name, owner, mode in (
        ("roots", 0, 0o600),
        ("readable", 0, 0o644),
        ("fixed", NOBODY, 0o444),
        ("mine", NOBODY, 0o644),
    ):
        (folder / name).mkdir()
        with contextlib.closing(sqlite3.connect(folder / name / "a.db")) as connection:
            connection.execute("CREATE TABLE release (id, migrations)")
            connection.execute("CREATE TABLE session (id)")
            connection.execute("CREATE TABLE turn (id)")
        (folder / name / "a.db").chmod(mode)
        if os.getuid() == 0:
            os.chown(folder / name / "a.db", owner, owner)
    if os.getuid() == 0:
        os.chown(folder / "fixed", NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


def test_each_fault_of_a_file_has_its_own_sentence_at_the_start(
    start_with, service, files, subtests
):
    owned = r"/a.db belongs to (root|nobody) \(mode {}\), {}/\w+ belongs to \w+ \(mode 7\d\d\), and this server runs as nobody"
    table = [
        ("no folder", f"{files}/none/a.db", 0, "the folder of this file is not there; make it"),
        (
            "no folder of this name",
            f"{files}/locked certificates/a.db",
            0,
            "the folder of this file is not there; make it",
        ),
        (
            "a folder",
            f"{files}",
            0,
            f"this file, or its folder, cannot be opened and written: {files} belongs to",
        ),
        ("text", str(service / "README.md"), 0, "this file is damaged, or no SQLite database"),
    ]
    (service / "README.md").write_text("Dear diary, " * 1000)
    if os.getuid() == 0:
        denied = "this file, or its folder, cannot be opened and written: "
        table += [
            (
                f"{name}, mode {mode}",
                f"{files}/{name}/a.db",
                NOBODY,
                denied + f"{files}/{name}" + owned.format(mode, files),
            )
            for name, mode in (("roots", 600), ("readable", 644), ("fixed", 444), ("mine", 644))
        ]
        table.append(
            (
                "a new one in another's folder",
                f"{files}/roots/new.db",
                NOBODY,
                denied + f"{files}/roots belongs to root",
            )
        )
    rows = [
        (name, {"DATABASE_URL": f"sqlite:///{path}"}, user, f"DATABASE_URL: {told}")
        for name, path, user, told in table
    ]
    check_starts(start_with, subtests, rows)


@pytest.mark.parametrize(
    "size, told", [("16k", "full, or fails; look for room"), ("100k", "full; make room on it")]
)
def test_a_full_disk_is_told_at_the_start(start_with, subtests, tmp_path, size, told):
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(tmp_path)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    try:
        settings = {"DATABASE_URL": f"sqlite:///{tmp_path}/a.db"}
        check_starts(
            start_with,
            subtests,
            [("full", settings, 0, f"DATABASE_URL: the disk is {told}")],
        )
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def pem(key):
    if hasattr(key, "private_bytes"):
        kinds = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return key.private_bytes(serialization.Encoding.PEM, *kinds).decode()
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def in_base64(text):
    return base64.b64encode(text.encode()).decode()


def test_what_is_no_public_key_is_called_what_it_is(start_with, subtests, tmp_path):
    keys = [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())]
    private, older = (
        pem(keys[0]),
        keys[1]
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        .decode(),
    )
    paper = certificate(tmp_path)[0].read_text().partition("-----BEGIN PRIVATE")[0]
    is_private, is_paper = (
        "this is a private key, which only signs tokens; give its public half: ",
        "this is a certificate; give its",
    )
    is_path = "this is a path; give the key itself: "
    values = [
        ("a private key", private, is_private),
        ("a private key of EC", older, is_private),
        ("a private key in base64", in_base64(private), is_private),
        ("a private key of EC in base64", in_base64(older), is_private),
        ("a certificate", paper, is_paper),
        ("a certificate in base64", in_base64(paper), is_paper),
        ("a path", "/etc/parley/public.pem", is_path),
        ("a name", "public.pem", is_path),
        (
            "OpenSSH's",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGnothing me@here",
            "this is a key of OpenSSH; give it in PEM: ssh-keygen",
        ),
        ("nonsense", "nonsense", "give an Ed25519, EC or RSA public key, in PEM or base64 of PEM"),
        (
            "half a key",
            pem(keys[0].public_key())[:60],
            "give an Ed25519, EC or RSA public key, in PEM or base64 of PEM",
        ),
    ]
    rows = [
        (name, {"JWT_PUBLIC_KEY": value, "JWT_SECRET": ""}, 0, f"JWT_PUBLIC_KEY: {told}")
        for name, value, told in values
    ]
    check_starts(start_with, subtests, rows)


def test_a_key_file_of_another_owner_is_called_that(start_with, service, subtests):
    if os.getuid() != 0:
        pytest.skip("only root can be another user")
    key = service / "instance" / "jwt_key.pem"
    settings = {"JWT_SECRET": "", "DATABASE_URL": f"sqlite:///{service}/a.db"}
    nobody = "this server's own key, cannot be read or made: "
    told = rf"JWT_PUBLIC_KEY: it is not set, and {key.parent} cannot be made \(Permission denied\)"
    check_starts(start_with, subtests, [("no right to make the folder", settings, NOBODY, told)])
    key.parent.mkdir()
    table = [
        (
            "no right to make one",
            settings,
            NOBODY,
            rf"JWT_PUBLIC_KEY: it is not set, and {key}, {nobody}{key.parent} belongs to root",
        )
    ]
    check_starts(start_with, subtests, table)
    key.write_text(pem(ed25519.Ed25519PrivateKey.generate()))
    key.chmod(0o600)
    told = rf"JWT_PUBLIC_KEY: it is not set, and {key}, {nobody}{key} belongs to root \(mode 600\), .+ runs as nobody; make"
    check_starts(start_with, subtests, [("root's", settings, NOBODY, told)])
    key.write_text("odd")
    check_starts(
        start_with,
        subtests,
        [
            (
                "no key",
                settings,
                0,
                rf"JWT_PUBLIC_KEY: it is not set, and {key} is no Ed25519 key in PEM",
            )
        ],
    )


# Requests


class Asker:
    """Asks a server, and knows what its log says of it."""

    def __init__(self, server):
        self.server = server

    def ask(self, path="/sessions", body=None, method=None, **headers):
        """(status, detail) of the answer, and the line of the request in the log."""
        name = uuid.uuid4().hex
        headers = {"Authorization": f"Bearer {make_token()}", "X-Request-ID": name} | headers
        headers |= (
            {"Content-Type": "application/json"}
            if body is not None and "Content-Type" not in headers
            else {}
        )
        data = json.dumps(body) if isinstance(body, dict) else body
        method = method or ("GET" if body is None else "POST")
        answer = requests.request(
            method, self.server.url + path, data=data, headers=headers, timeout=30
        )
        mine = re.compile(f".* request method=.* id={name}.*")  # written behind the answer
        [line] = wait_until(lambda: mine.findall(self.server.output()))
        details = [error["detail"] for error in answer.json().get("errors", ())]
        return answer.status_code, " ".join(details), why(line)


def why(line):
    """What is the reason, by this line of the log; None where it has none."""
    found = re.search(r' why=("(?:[^"\\]|\\.)*"|\S+)', line)
    return found and (json.loads(found[1]) if found[1].startswith('"') else found[1])


def why_of_replies(server):
    return [why(line) for line in server.output().splitlines() if " reply session=" in line]


@pytest.fixture(scope="module")
def asker(tmp_path_factory):
    """A server for alice, whose tokens are for `parley`, and who has the models of a provider."""
    provider = Provider()
    settings = {
        "OPENAI_BASE_URL": provider.url + "/v1",
        "OPENAI_API_KEY": HUSH,
        "MODEL_TIMEOUT": 1,
        "JWT_AUDIENCE": "parley",
    }
    with running(tmp_path_factory.mktemp("asker"), ALLOWED_USERS="alice", **settings) as server:
        asker = Asker(server)
        asker.provider = provider
        yield asker
    provider.close()


def bearer(*args, **claims):
    return {"Authorization": "Bearer " + make_token(*args, **{"aud": "parley"} | claims)}


def is_taken(**named):
    said = "; taken are iss fabro-web, aud parley."
    return (
        "It names "
        + ", ".join(f"{name} {json.dumps(value)}" for name, value in named.items())
        + said
    )


ALL = {"alg": "HS256", "kid": None, "iss": "fabro-web", "aud": "parley"}
TOKENS = [  # what is wrong, the headers, what the client is told, and what the log says besides
    ("no token", {"Authorization": None}, r"Send a token: Authorization: Bearer <token>\. .+", ""),
    (
        "another scheme",
        {"Authorization": f"Token {make_token()}"},
        r"Send a token: Authorization: Bearer <token>\. .+",
        "",
    ),
    (
        "no scheme",
        {"Authorization": make_token()},
        r"Send a token: Authorization: Bearer <token>\. .+",
        "",
    ),
    (
        "quotes",
        {"Authorization": f'Bearer "{make_token()}"'},
        r"The token stands in quotes\. Send .+",
        "",
    ),
    (
        "Bearer twice",
        {"Authorization": f"Bearer Bearer {make_token()}"},
        r"The token is malformed\.",
        "",
    ),
    (
        "<token> left in",
        {"Authorization": "Bearer <token>"},
        "Send a token in the place of <token>.",
        "",
    ),
    ("cut off", {"Authorization": f"Bearer {make_token()[:40]}"}, "The token is not whole: .+", ""),
    (
        "another secret",
        bearer(key="x" * 32),
        "The token was not signed with a key and an algorithm .+",
        is_taken(**ALL),
    ),
    (
        "another algorithm",
        bearer(key=KEY, algorithm="EdDSA"),
        "The token was not .+",
        is_taken(**ALL | {"alg": "EdDSA"}),
    ),
    (
        "another issuer",
        bearer(iss="https://x/"),
        r"The token is by another issuer\.",
        is_taken(**ALL | {"iss": "https://x/"}),
    ),
    (
        "another audience",
        bearer(aud=["x"]),
        r"The token is for another audience\.",
        is_taken(**ALL | {"aud": ["x"]}),
    ),
    (
        "no audience",
        bearer(aud=None),
        r"The token lacks the claim aud\.",
        is_taken(**ALL | {"aud": None}),
    ),
    ("a long issuer", bearer(iss="x\n" * 200), r"The token is by another issuer\.", "x\\nx\\n"),
    (
        "expired",
        bearer(exp=int(time.time()) - 7200),
        r"The token has expired\. Get a new one\.",
        ", and expired [0-9]{4,5} s ago;",
    ),
]


@pytest.mark.parametrize("name, headers, told, said", TOKENS, ids=[row[0] for row in TOKENS])
def test_why_a_token_is_refused_is_in_the_log(asker, name, headers, told, said):
    status, detail, reason = asker.ask(**headers)
    assert status == 401 and re.fullmatch(told, detail), detail
    assert reason.startswith(detail) and (
        re.search(said, reason) if "[0-9]" in said else said in reason
    ), reason
    assert len(reason) < 400 and (said or reason == detail)
    token = (headers["Authorization"] or "").rpartition(" ")[2].strip('"')
    for part in filter(lambda part: len(part) > 8, [token, *token.split(".")]):
        assert part not in asker.server.output()


@pytest.mark.parametrize("name, code", [("eve", 403), ("Eve", 201), ("eves", 201)])
def test_a_user_who_is_blocked_is_told_so_and_no_other(tmp_path, name, code):
    with running(tmp_path, BLOCKED_USERS="mallory, eve", WEB_CONCURRENCY=1) as server:
        token = bearer(f"https://github.com/{name}")
        answer = requests.post(
            f"{server.url}/sessions", json={"content": "Hello"}, headers=token, timeout=30
        )
        assert answer.status_code == code
        if code == 403:
            assert (
                answer.json()["errors"][0]["detail"]
                == "This user is not allowed on this server. Ask whoever runs it."
            )
            assert "BLOCKED_USERS has the name 'eve'." in server.wait_for_output("status=403")


def test_who_is_allowed_and_blocked_is_blocked(tmp_path):
    with running(
        tmp_path, ALLOWED_USERS="eve,bob", BLOCKED_USERS="eve", WEB_CONCURRENCY=1
    ) as server:
        for name, code in (("eve", 403), ("bob", 200), ("alice", 403)):
            token = bearer(f"https://github.com/{name}")
            assert (
                requests.get(f"{server.url}/sessions", headers=token, timeout=30).status_code
                == code
            )


def test_whom_the_list_of_users_lacks_is_in_the_log(asker):
    status, detail, reason = asker.ask(**bearer("https://github.com/bob"))
    assert (status, detail) == (
        403,
        "This user is not allowed on this server. Ask whoever runs it.",
    )
    assert reason == "ALLOWED_USERS lacks the name 'bob'."


WORDS = "private words"
BODIES = [  # what is wrong, the body, what is told of it
    ("nothing", b"", "Send a JSON value: the body is empty."),
    (
        "a trailing comma",
        b'{\n"content": "x",\n}',
        r"Send one valid JSON value in UTF-8. At line [23], column \d+: (Exp|Ill).+\.",
    ),
    (
        "single quotes",
        b"{'content': 'private words'}",
        "Send one valid JSON value in UTF-8. At line 1, column 2: Expecting .+",
    ),
    (
        "an open text",
        b'{"content": "private words',
        "Send one valid JSON value in UTF-8. At line 1, column 13: Unterminated string.+",
    ),
    (
        "two values",
        b'{"content": "x"} {}',
        "Send one valid JSON value in UTF-8. At line 1, column 18: Extra data.",
    ),
    (
        "a control character",
        b'{"content": "private words\x01"}',
        "Send one .+ At line 1, column 27: Invalid control character.",
    ),
    ("NaN", b'{"content": NaN}', "Send one valid JSON value in UTF-8: NaN is no JSON."),
    (
        "infinity",
        b'{"content": -Infinity}',
        "Send one valid JSON value in UTF-8: -Infinity is no JSON.",
    ),
    (
        "Latin-1",
        b'{"content": "caf\xe9"}',
        r"Send one valid JSON value in UTF-8: byte 16 of the body, counted from 0, is not .+\(0xe9\).",
    ),
    (
        "too deep",
        b"[" * 100_000,
        "Send one valid JSON value in UTF-8: this one is nested too deeply.",
    ),
    (
        "a long number",
        b'{"content": ' + b"1" * 5000 + b"}",
        "Send one .+, with numbers of at most 4300 digits.",
    ),
    (
        "message for content",
        b'{"message": "private words"}',
        "(Give a string. This field is not known here. Leave it out.|This .+)",
    ),
    ("a list", b'["private words"]', "Send a JSON object."),
]


@pytest.mark.parametrize("name, body, told", BODIES, ids=[row[0] for row in BODIES])
def test_what_is_wrong_with_a_body_is_told_and_in_the_log(asker, name, body, told):
    status, detail, reason = asker.ask(body=body, **bearer())
    assert status == 400 and re.fullmatch(told, detail), detail
    assert reason == detail and WORDS not in asker.server.output()


OTHERS = [  # what is wrong, and what it is told
    (
        "form data",
        {"body": "content=x", "Content-Type": "application/x-www-form-urlencoded"},
        415,
        "Send JSON, with Content-Type: .+",
    ),
    (
        "a slash too many",
        {"path": "/sessions/"},
        404,
        "There is nothing at this path. GET / names the places to begin.",
    ),
    (
        "OpenAI's path",
        {"path": "/v1/chat/completions", "body": {}},
        404,
        "There is nothing at this path. .+",
    ),
    (
        "another method",
        {"method": "PUT"},
        405,
        "This path does not take this method. Use one that the header Allow names.",
    ),
    (
        "another form",
        {"Accept": "application/xml"},
        406,
        "Accept application/json or text/event-stream.",
    ),
    (
        "no session",
        {"path": f"/sessions/{uuid.uuid4()}"},
        404,
        "There is no such session. Look it up in GET /sessions.",
    ),
    (
        "a bad page",
        {"path": "/sessions?page[limit]=ten"},
        400,
        "Give a whole number from 1 to 100.",
    ),
    (
        "no model of ours",
        {"body": {"content": "x", "model": "claude-x"}},
        400,
        "GET /models lists .+ set ANTHROPIC_API_KEY on it.",
    ),
]


@pytest.mark.parametrize("name, request_, status, told", OTHERS, ids=[row[0] for row in OTHERS])
def test_why_a_request_is_refused_is_in_the_log(asker, name, request_, status, told):
    found, detail, reason = asker.ask(**bearer() | request_)
    assert found == status and re.fullmatch(told, detail), detail
    assert reason == detail


# Providers

OUT_OF_MEMORY = {
    "error": {"message": f"llama runner process has terminated: CUDA error: out of memory ({HUSH})"}
}
SPENT = (
    "says that the credit or the quota of this server is used up. Tell whoever runs this server."
)
REPLIES = [  # what the provider does, what the client is told, what the log says besides
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
        " Bad key",
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
        "failed with status 500. Ask .+",
        " llama runner process .+memory .….",
    ),
    (
        "it is overloaded",
        status(429, {"error": {"message": "Slow down"}}, Retry_After=60),
        503,
        "limits this server. Ask again in 60 seconds.",
        " Slow down",
    ),
    (
        "it is overloaded, and does not say for how long",
        status(529, {"error": {"message": "Busy"}}),
        503,
        "is overloaded. Ask again later.",
        " Busy",
    ),
    (
        "the quota of OpenAI is used up",
        status(
            429,
            {"error": {"code": "insufficient_quota", "message": "You exceeded your quota"}},
            Retry_After=1,
        ),
        502,
        SPENT,
        " You exceeded your quota",
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
        SPENT,
        " Your credit balance is too low to go on.",
    ),
    (
        "the credit of others is used up",
        status(402, {"error": {"message": "Pay"}}),
        502,
        SPENT,
        " Pay",
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
def test_why_a_reply_fails_is_in_the_log_once(asker, name, answer, code, told, said):
    asker.provider.reset()
    asker.provider.default, before = answer, len(why_of_replies(asker.server))
    found, detail, reason = asker.ask(body={"content": WORDS, "model": "m-1"}, **bearer())
    assert found == code and re.fullmatch(f"The provider openai (?:{told})", detail), detail
    assert reason == detail
    [why] = wait_until(lambda: why_of_replies(asker.server)[before:])
    assert why.startswith(detail) and re.fullmatch(said, why.removeprefix(detail)), why
    assert " ERROR " not in asker.server.output()
    for secret in (HUSH, WORDS, HUSH[:6]):
        assert secret not in asker.server.output()


def test_a_reply_that_a_person_has_go_on_in_vain_says_why(asker):
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


def test_a_list_of_models_that_fails_is_told_once_and_is_not_called_empty(asker):
    asker.provider.reset()
    asker.provider.models = status(401, {"error": {"message": "Bad key"}})
    for _ in range(3):
        status_, detail, reason = asker.ask(body={"content": "Hello"}, **bearer())
        assert (status_, detail) == (
            502,
            "The provider openai refused this server's own key. Tell whoever runs this server.",
        )
        assert reason == detail
        assert asker.ask("/models", **bearer())[0] == 200
    told = [
        line
        for line in asker.server.output().splitlines()
        if "The models of openai cannot be had: " in line
    ]
    assert len(told) == 1 and told[0].endswith(f" {detail} Bad key")
    asker.provider.models = []
    wait_until(
        lambda: (
            "lists no model. Name one, or set DEFAULT_MODEL"
            in asker.ask(body={"content": "Hello"}, **bearer())[1]
        ),
        10,
    )
    asker.provider.models = status(401, {"error": {"message": "Bad key"}})
    wait_until(lambda: asker.ask(body={"content": "Hello"}, **bearer())[1] == detail, 10)
    assert asker.server.output().count("The models of openai cannot be had: ") == 2


def test_a_provider_that_is_not_there_is_told_with_its_place(tmp_path):
    """Nothing listens; the host is unknown; https is spoken to what speaks http. Also where only its list could tell a model."""
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
                    "The provider openai (could not|cannot) be reached", detail
                ), detail
                assert reason == detail
            assert re.search(said, wait_until(lambda: why_of_replies(server))[0]), server.output()
            assert re.search(
                f"WARNING The models of openai cannot be had: .*({said})", server.output()
            ), server.output()
            assert HUSH not in server.output()

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(check, number, *row) for number, row in enumerate(places.items())]:
            done.result()
    plain.shutdown()
    plain.server_close()


# Identity providers

CONFIGURATION = {"issuer": "https://id.example", "jwks_uri": "https://id.example/keys"}


def test_why_the_published_keys_cannot_be_had_is_in_the_log(tmp_path):
    point = base64.urlsafe_b64encode(KEY.public_key().public_bytes_raw()).rstrip(b"=").decode()
    jwks = {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": point, "kid": "ours"}]}
    answers = [
        (status(404, {}), "ValueError status 404"),
        (status(200, CONFIGURATION), "KeyError 'keys'"),
        (status(200, "<html>"), "JSONDecodeError Expecting value: line 1 column 1 (char 0)"),
        (status(200, {"keys": {}}), "its keys are no list"),
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
                'It names alg "EdDSA", kid "another", iss "fabro-web", aud null; taken are iss fabro-web, aud None.'
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


def test_why_the_database_does_not_answer_is_in_the_log_and_when_it_does_again(tmp_path, provider):
    """Once by each request, and once by the keeper, which tries again each second to store a reply."""
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
