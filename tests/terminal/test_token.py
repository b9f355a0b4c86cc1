"""`flask token`: a token that the server accepts, or the reason why there is none."""

import time

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa, x25519

from client import ALICE, SECRET
from commands import flask
from product import ROOT, copy_of_the_service
from tokens import ED25519, KEYS, pem, status_of

# Making one


def test_makes_a_token_with_its_secret(tmp_path, server):
    command = flask(
        ROOT,
        "token",
        ALICE,
        "--days",
        "7",
        JWT_SECRET=SECRET,
        DATABASE_URL=f"sqlite:///{tmp_path}/a.db",
    )
    assert (command.returncode, command.stderr) == (0, "")
    token = command.stdout.strip()
    claims = jwt.decode(token, SECRET, ["HS256"], issuer="fabro-web")
    assert set(claims) == {"iss", "iat", "exp", "sub"}
    assert claims["sub"] == ALICE
    assert claims["exp"] - claims["iat"] == 7 * 24 * 3600
    assert abs(claims["iat"] - time.time()) < 10
    assert status_of(server, token) == 200


@pytest.mark.parametrize(
    "settings",
    [{"JWT_PUBLIC_KEY": pem(ED25519.public_key())}, {"JWT_JWKS_URL": "http://127.0.0.1:9/keys"}],
    ids=["public key", "published keys"],
)
def test_makes_no_token_with_a_key_that_only_verifies(tmp_path, settings):
    command = flask(ROOT, "token", ALICE, **settings, DATABASE_URL=f"sqlite:///{tmp_path}/a.db")
    assert (command.returncode, command.stdout) == (1, "")
    assert (
        command.stderr
        == "Error: This server only has public keys: tokens come from the holder of the private one.\n"
    )


SIGN_IN = {"OIDC_CLIENT_ID": "parley", "JWT_ISSUER": "https://id.example.com/realms/home"}


def test_makes_no_token_if_users_sign_in_elsewhere(tmp_path):
    folder = copy_of_the_service(tmp_path / "parley")
    command = flask(folder, "token", ALICE, **SIGN_IN)
    assert (command.returncode, command.stdout) == (1, "")
    issuer = SIGN_IN["JWT_ISSUER"]
    told = f"Error: People sign in at {issuer}: this server signs no tokens.\n"
    assert command.stderr == told
    assert not (folder / "instance" / "jwt_key.pem").exists()


def test_a_key_of_ones_own_signs_for_the_client_if_users_sign_in_elsewhere(tmp_path):
    (tmp_path / "key.pem").write_text(private_pem(ED25519))
    command = flask(ROOT, "token", ALICE, "--key", str(tmp_path / "key.pem"), **SIGN_IN)
    claims = jwt.decode(command.stdout.strip(), options={"verify_signature": False})
    assert (claims["iss"], claims["aud"]) == (SIGN_IN["JWT_ISSUER"], "parley")


@pytest.mark.parametrize("subject", ["", " ", "\n\t", "\u3000", "x" * 256, "x" * 300, "\udcff"])
def test_makes_no_token_that_the_server_would_refuse(tmp_path, subject):
    command = flask(
        ROOT, "token", subject, JWT_SECRET=SECRET, DATABASE_URL=f"sqlite:///{tmp_path}/a.db"
    )
    assert (command.returncode, command.stdout) == (1, "")
    assert command.stderr.startswith(
        "Error: The subject names nobody. Give from 1 to 255 characters"
    )
    assert command.stderr.count("\n") == 1


NO_ENCRYPTION = serialization.NoEncryption()


def private_pem(key, encryption=NO_ENCRYPTION, form=serialization.PrivateFormat.PKCS8):
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()


PKCS8, TRADITIONAL = (
    serialization.PrivateFormat.PKCS8,
    serialization.PrivateFormat.TraditionalOpenSSL,
)


@pytest.mark.parametrize(
    "kind, form", [*((kind, PKCS8) for kind in KEYS), ("P-256", TRADITIONAL), ("RSA", TRADITIONAL)]
)
def test_signs_with_a_private_key_if_nothing_else_can_be_opened(tmp_path, kind, form):
    key, algorithm, _ = KEYS[kind]
    (tmp_path / "private.pem").write_text(private_pem(key, form=form))
    settings = {
        "JWT_PUBLIC_KEY": pem(key.public_key()),
        "JWT_AUDIENCE": "parley",
        "DATABASE_URL": "sqlite:////nowhere/a.db",
    }
    command = flask(ROOT, "token", ALICE, "--key", str(tmp_path / "private.pem"), **settings)
    assert (command.returncode, command.stderr) == (0, "")
    token = command.stdout.strip()
    assert jwt.get_unverified_header(token)["alg"] == algorithm
    claims = jwt.decode(token, key.public_key(), [algorithm], issuer="fabro-web", audience="parley")
    assert claims["sub"] == ALICE


@pytest.mark.parametrize(
    "text, problem",
    [
        (None, "No such file or directory"),
        ("odd", "it is not an Ed25519, EC or RSA private key in PEM"),
        (pem(ED25519.public_key()), "it is a public key"),
        (
            private_pem(ED25519, serialization.BestAvailableEncryption(b"hush")),
            "it is encrypted; `openssl pkey",
        ),
        (
            private_pem(rsa.generate_private_key(65537, 1024)),
            "an RSA key must have 2048 bits or more",
        ),
        (
            private_pem(x25519.X25519PrivateKey.generate()),
            "it is not an Ed25519, EC or RSA private key in PEM",
        ),
    ],
    ids=["missing", "none", "public", "encrypted", "weak", "of another type"],
)
def test_says_why_a_key_does_not_sign(tmp_path, text, problem):
    path = tmp_path / "private.pem"
    if text is not None:
        path.write_text(text)
    command = flask(ROOT, "token", ALICE, "--key", str(path))
    assert (command.returncode, command.stdout) == (1, "")
    assert (
        command.stderr.startswith(f"Error: {path} cannot sign: {problem}")
        and command.stderr.count("\n") == 1
    )


@pytest.mark.parametrize(
    "arguments", [["token"], ["token", ALICE, "--days", "0"], ["token", ALICE, "--days", "odd"]]
)
def test_explains_how_to_make_a_token(tmp_path, arguments):
    command = flask(ROOT, *arguments, JWT_SECRET=SECRET, DATABASE_URL=f"sqlite:///{tmp_path}/a.db")
    assert (command.returncode, command.stdout) == (2, "")
    assert command.stderr.startswith("Usage: ")


# A name that other users have


def test_a_token_for_a_new_user_mentions_an_old_one_of_the_same_name(start, settings):
    """Otherwise the old user's chats seem lost. Standard output has only the token."""
    server = start(**settings)
    server.client("https://github.com/bob").create()
    server.client("https://github.com/xbob").create()
    said = {}
    for subject in ("bob", "https://github.com/bob", "xbo", "b", "carol"):
        command = flask(ROOT, "token", subject, **settings)
        assert command.returncode == 0 and command.stdout.count(".") == 2
        said[subject] = command.stderr
    assert said.pop("bob") == (
        "This is a token of bob, who has no chats. https://github.com/bob has some: "
        ".venv/bin/flask token https://github.com/bob\n"
    )
    assert set(said.values()) == {""}


# Users of a trusted proxy


def elsewhere(folder):
    return {"DATABASE_URL": f"sqlite:///{folder}/a.db"}


def test_a_token_can_be_for_a_user_that_a_proxy_names(tmp_path):
    command = flask(ROOT, "token", "proxy:/alice", JWT_SECRET=SECRET, **elsewhere(tmp_path))
    claims = jwt.decode(command.stdout.strip(), SECRET, ["HS256"], issuer="fabro-web")
    assert claims["sub"] == "proxy:/alice"


@pytest.mark.parametrize("name", ["", "a b", "a,b", "a/b", "a?b", "a#b", "é", "x" * 201])
def test_no_token_is_for_a_user_that_no_proxy_could_name(tmp_path, name):
    command = flask(ROOT, "token", f"proxy:/{name}", JWT_SECRET=SECRET, **elsewhere(tmp_path))
    assert command.returncode == 1 and command.stdout == ""
    assert "A proxy cannot name this user. A name has 1 to 200 ASCII characters" in command.stderr


def test_another_key_signs_for_no_user_of_a_proxy(tmp_path):
    path = tmp_path / "private.pem"
    path.write_text(private_pem(ED25519))
    settings = {"JWT_PUBLIC_KEY": pem(ED25519.public_key())} | elsewhere(tmp_path)
    command = flask(ROOT, "token", "proxy:/alice", "--key", str(path), **settings)
    assert command.returncode == 1 and command.stdout == ""
    assert "Only this server's own key or secret can sign for a proxy's user" in command.stderr
    command = flask(ROOT, "token", "proxy:/alice", **settings)
    assert command.returncode == 1 and "This server only has public keys" in command.stderr
