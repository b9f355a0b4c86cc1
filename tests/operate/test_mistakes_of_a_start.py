"""Mistakes in setting up a server, and the sentence that the start prints for each."""

import base64
import contextlib
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
import uuid

import psycopg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from client import SECRET
from commands import check, of_level
from mistakes import HUSH
from product import ROOT, copy_of_the_service
from provider import certificate
from servers import free_port, running

NOBODY = 65534  # the user of that name


# The start


@pytest.fixture(scope="module")
def service():
    """A folder with a copy of the service that any user may read."""
    folder = pathlib.Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield copy_of_the_service(folder / "service")
    shutil.rmtree(folder)


# Starts a server for each row in a forked process, because importing takes longest.
STARTS = """
import gc, json, os, sys
import app, psycopg

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
    """A function that starts with these settings, and as this user if one is given, and returns
    the exit status and standard error."""
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
    """Each row: what is wrong, the settings, the user, the beginning of the one line that is
    printed."""
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


SETTINGS = [  # the name, the value, what is printed
    (
        "OPENAI_BASE_URL",
        "http://127.0.0.1:11434/v1 DEFAULT_MODEL=llama3.2",
        "DEFAULT_MODEL is on the same line. Give it a line of its own",
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
    ("MAX_TOKENS", "8k", "give a whole number, 1 or more"),
    ("MODEL_TIMEOUT", "2m", "give a number of seconds above 0"),
    ("REPLY_WAIT", "off", "give a number of seconds above 0"),
    ("RATE_LIMIT", "10/min", "write it like 10/minute (second, minute, hour or day)"),
    ("MAX_CONTENT_LENGTH", "1MB", "give a whole number, 1 or more"),
    ("MODELS", ",", "give ids of models, separated by commas"),
    ("MODELS", "llama3.2", f"llama3.2 is not served. {NOT_SERVED}"),
    ("DEFAULT_MODEL", "llama3.2", f"llama3.2 is not served. {NOT_SERVED}"),
    ("TITLE_MODEL", "llama3.2", f"llama3.2 is not served. {NOT_SERVED}"),
    ("OPENAI_API_KEY", "a key", "it has characters that no key has"),
]


def test_each_setting_says_what_it_accepts(start_with, subtests):
    rows = [
        (f"{name}={value}", {name: value}, 0, re.escape(f"{name}: {told}"))
        for name, value, told in SETTINGS
    ]
    check_starts(start_with, subtests, rows)


class OtherDatabase:
    """Refuses every client as PostgreSQL does, with this code and this text (its manual's
    chapter Message Formats)."""

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
                    while code in (80877103, 80877104):  # a request for TLS or GSSAPI
                        connection.sendall(b"N")
                        size, code = struct.unpack("!II", connection.recv(8, socket.MSG_WAITALL))
                    connection.recv(size - 8, socket.MSG_WAITALL)
                    connection.sendall(
                        b"E" + struct.pack("!I", len(self.error) + 5) + self.error + b"\0"
                    )


# What PostgreSQL 15.14 says, and what we print. A real one says the first of these as well, see
# below.
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
            "write it like|no PostgreSQL listens at the socket /nowhere/at/all",
        ),
        (
            "an option of another library",
            f"postgresql://{place}:{nowhere}/chats?schema=mine",
            r"PostgreSQL has no option schema; write \?options=-csearch_path%3DNAME",
        ),
        (
            "an option of none",
            f"postgresql://{place}:{nowhere}/chats?pool=5",
            "PostgreSQL has no option pool; leave it out",
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
    """A folder with each kind of file that cannot be our SQLite database."""
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
            f"this is a folder; name a file: sqlite:///{files}/parley.db",
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
    "size, told",
    [("16k", "full, or fails; free space on that"), ("100k", "full; free space on that")],
)
def test_a_full_disk_is_reported_at_the_start(start_with, subtests, tmp_path, size, told):
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


def test_a_full_disk_is_reported_to_clients_in_the_log_and_by_the_check(tmp_path):
    (tmp_path / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(tmp_path / "disk")]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path}/disk/a.db", "WEB_CONCURRENCY": 1}
    try:
        with running(tmp_path, **settings) as server:
            with contextlib.suppress(OSError), open(tmp_path / "disk" / "full", "wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()
            answer = server.client().post("/sessions", {"content": "x" * 900_000})
            assert answer.status_code == 503
            (error,) = answer.json()["errors"]
            told = "The server's disk is full. The person who runs it must free space on it."
            assert error["detail"] == told
            server.wait_for_output("the disk is full: free space on that of the database")
            code, found = check(ROOT, **settings)
        told = f"the disk is full: free space on that of the database, {tmp_path}/disk/a.db"
        assert code == 1 and of_level("FAILED", found) == [f"DATABASE_URL: {told}"]
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=True)


def pem(key):
    if hasattr(key, "private_bytes"):
        kinds = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return key.private_bytes(serialization.Encoding.PEM, *kinds).decode()
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def in_base64(text):
    return base64.b64encode(text.encode()).decode()


def test_a_file_that_is_no_public_key_is_called_what_it_is(start_with, subtests, tmp_path):
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
        "this is a private key, which signs tokens; give its public half: ",
        "this is a certificate; give its",
    )
    is_path = "this is a path; give the key itself, "
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
            "this is an OpenSSH key; give it in PEM: ssh-keygen",
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


def test_a_key_file_of_another_owner_is_reported_as_such(start_with, service, subtests):
    if os.getuid() != 0:
        pytest.skip("only root can be another user")
    key = service / "instance" / "jwt_key.pem"
    settings = {"JWT_SECRET": "", "DATABASE_URL": f"sqlite:///{service}/a.db"}
    nobody = "this server's own key, cannot be read or created: "
    told = (
        rf"JWT_PUBLIC_KEY: it is not set, and {key.parent} cannot be created \(Permission denied\)"
    )
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
    told = rf"JWT_PUBLIC_KEY: it is not set, and {key}, {nobody}{key} belongs to root \(mode 600\), .+ runs as nobody; give"
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
                rf"JWT_PUBLIC_KEY: it is not set, and {key} is not an Ed25519 key in PEM",
            )
        ],
    )
