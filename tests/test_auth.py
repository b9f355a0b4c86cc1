"""Tokens: whose keys are taken, what a token must say, what a refusal looks like, and making one."""

import base64
import concurrent.futures
import contextlib
import hmac
import json
import os
import stat
import subprocess
import sys
import threading
import time
import uuid

import jwt
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from werkzeug.exceptions import ServiceUnavailable

import client
from auth import name_of
from client import (
    ALICE,
    ROOT,
    SECRET,
    Client,
    copy_of_the_service,
    free_port,
    make_token,
    running,
    wait_until,
)
from keys import PublishedKeys
from provider import chunk, head, raw, status

CHALLENGE = 'Bearer realm="parley"'


def pem(key):
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def in_base64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forge(claims, key=SECRET, digest="sha256", **header):
    """A token by hand, with what a library would not write."""
    parts = [
        json.dumps(part).encode() if isinstance(part, dict) else part
        for part in ({"alg": "HS256"} | header, claims)
    ]
    text = ".".join(map(in_base64, parts))
    return f"{text}.{in_base64(hmac.digest(key.encode(), text.encode(), digest))}"


def good_claims(**claims):
    now = int(time.time())
    return {"iss": "fabro-web", "iat": now, "exp": now + 3600, "sub": ALICE} | claims


def status_of(server, token):
    response = Client(server.url, token).get("/sessions")
    assert response.status_code in (200, 401, 503), response.text
    assert token not in server.output()
    return response.status_code


def refused(server, token):
    """The detail of a 401, which says the same as its challenge and nothing of the token."""
    response = Client(server.url, token).get("/sessions")
    assert response.status_code == 401, response.text
    [error] = response.json()["errors"]
    challenge = response.headers["WWW-Authenticate"]
    assert challenge == f'{CHALLENGE}, error="invalid_token", error_description="{error["detail"]}"'
    assert token not in server.output()
    return error["detail"]


# Keys

ED25519 = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
KEYS = {
    "Ed25519": (ED25519, "EdDSA", ed25519.Ed25519PrivateKey.generate()),
    "P-256": (
        ec.generate_private_key(ec.SECP256R1()),
        "ES256",
        ec.generate_private_key(ec.SECP256R1()),
    ),
    "P-384": (
        ec.generate_private_key(ec.SECP384R1()),
        "ES384",
        ec.generate_private_key(ec.SECP384R1()),
    ),
    "RSA": (RSA, "RS256", rsa.generate_private_key(65537, 2048)),
}
WAYS = {"Ed25519": "PEM", "P-256": "base64", "P-384": "one line", "RSA": "base64"}


def written(public_key, way):
    text = pem(public_key)
    return {
        "PEM": text,
        "base64": base64.b64encode(text.encode()).decode(),
        "one line": text.replace("\n", "\\n"),
    }[way]


@pytest.mark.parametrize("kind", KEYS)
def test_takes_tokens_that_the_public_key_verifies(tmp_path, kind):
    key, algorithm, other = KEYS[kind]
    with running(
        tmp_path, JWT_SECRET="", JWT_PUBLIC_KEY=written(key.public_key(), WAYS[kind])
    ) as server:
        assert status_of(server, make_token(key=key, algorithm=algorithm)) == 200
        for token in (
            make_token(key=other, algorithm=algorithm),
            make_token(),
            forge(good_claims(), pem(key.public_key())),  # the public key, taken for a secret
            forge(good_claims(), pem(key.public_key()).strip()),
            forge(good_claims(), written(key.public_key(), WAYS[kind])),
            forge(good_claims(), alg=algorithm),
            jwt.encode(good_claims(), None, "none"),
            make_token(key=key, algorithm=algorithm).rpartition(".")[0] + ".",
        ):
            assert (
                refused(server, token)
                == "The token was not signed with a key and an algorithm that this server takes."
            )
        if kind == "RSA":
            for algorithm in ("RS512", "PS256"):
                assert status_of(server, make_token(key=key, algorithm=algorithm)) == 401


def test_takes_tokens_that_the_secret_verifies(server):
    assert status_of(server, make_token()) == 200
    for token in (
        make_token(key=SECRET + "!"),
        forge(good_claims(), digest="sha512", alg="HS512"),
        make_token(key=ED25519, algorithm="EdDSA"),
        jwt.encode(good_claims(), None, "none"),
    ):
        assert "not signed with a key" in refused(server, token)


def jwk(key, kid, **fields):
    algorithms = {
        ed25519.Ed25519PublicKey: jwt.algorithms.OKPAlgorithm,
        rsa.RSAPublicKey: jwt.algorithms.RSAAlgorithm,
    }
    make = next(algorithm for kind, algorithm in algorithms.items() if isinstance(key, kind)).to_jwk
    return make(key, as_dict=True) | {"kid": kid} | fields


def jwks(*keys, **headers):
    return status(200, {"keys": keys}, **headers)


def test_takes_tokens_that_the_published_keys_verify(identity, tmp_path):
    """Found by their kid, cached, and fetched again where one is not known, as keys are replaced."""
    first, second, unlisted = (ed25519.Ed25519PrivateKey.generate() for _ in range(3))
    published = [
        jwk(first.public_key(), "1"),
        jwk(RSA.public_key(), "2", alg="RS256", use="sig"),
        jwk(unlisted.public_key(), "enc", use="enc"),
        {"kty": "oct", "kid": "oct", "k": in_base64(SECRET.encode()), "alg": "HS256"},
        {"kty": "of the future", "kid": "3"},
    ]
    identity.models = jwks(*published)
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=identity.url + "/keys.json") as server:
        for _ in range(3):
            assert (
                status_of(server, make_token(key=first, algorithm="EdDSA", headers={"kid": "1"}))
                == 200
            )
            assert (
                status_of(server, make_token(key=RSA, algorithm="RS256", headers={"kid": "2"}))
                == 200
            )
        assert [request.path for request in identity.requests] == ["/keys.json"]

        for key, algorithm, kid in [
            (first, "EdDSA", "2"),
            (first, "EdDSA", "unknown"),
            (first, "EdDSA", None),
            (unlisted, "EdDSA", "enc"),
            (SECRET, "HS256", "oct"),
            (SECRET, "HS256", "1"),
        ]:
            headers = {"kid": kid} if kid else {}
            assert "signed with a key" in refused(
                server, make_token(key=key, algorithm=algorithm, headers=headers)
            )
        for token in ("o.d.d", forge(good_claims(), kid=5), forge(good_claims(), kid=["1"])):
            assert "malformed" in refused(server, token)

        identity.models = jwks(jwk(second.public_key(), "4"))
        token = make_token(key=second, algorithm="EdDSA", headers={"kid": "4"})
        deadline = time.monotonic() + 5
        while status_of(server, token) == 401:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert status_of(server, token) == 200
        assert (
            status_of(server, make_token(key=first, algorithm="EdDSA", headers={"kid": "1"})) == 401
        )


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
def test_refuses_published_keys_that_are_too_weak(identity, tmp_path):
    short = rsa.generate_private_key(65537, 1024)
    identity_point = in_base64(b"\1" + bytes(31))
    identity.models = jwks(
        jwk(short.public_key(), "short"),
        {"kty": "OKP", "crv": "Ed25519", "x": identity_point, "kid": "anybody's"},
        jwk(ED25519.public_key(), "good"),
    )
    signed = make_token(key=ED25519, algorithm="EdDSA", headers={"kid": "anybody's"}).rpartition(
        "."
    )[0]
    forged = f"{signed}.{in_base64(bytes([1]) + bytes(63))}"  # by nobody: it is right for any text
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=identity.url) as server:
        assert "a weak one" in refused(
            server, make_token(key=short, algorithm="RS256", headers={"kid": "short"})
        )
        assert "a weak one" in refused(server, forged)
        assert (
            status_of(server, make_token(key=ED25519, algorithm="EdDSA", headers={"kid": "good"}))
            == 200
        )


def test_takes_published_keys_from_behind_a_password(identity, tmp_path):
    identity.models = jwks(jwk(ED25519.public_key(), "1"))
    url = identity.url.replace("http://", "http://user:pass%20word@")
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=url) as server:
        assert (
            status_of(server, make_token(key=ED25519, algorithm="EdDSA", headers={"kid": "1"}))
            == 200
        )
    [request] = identity.requests
    assert (
        base64.b64decode(request.headers["authorization"].removeprefix("Basic "))
        == b"user:pass word"
    )


def test_says_that_the_published_keys_cannot_be_had(identity, tmp_path):
    token = make_token(key=ED25519, algorithm="EdDSA", headers={"kid": "1"})
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=identity.url) as server:
        for answer in (
            raw(),
            raw(b"SSH-2.0-OpenSSH\r\n"),
            raw(head(Transfer_Encoding="chunked"), chunk(b'{"keys": [')),
            status(500),
            status(200, "<html></html>"),
            status(200, "\x80"),
            status(200, "[" * 50_000),
            status(302, {}, Location=identity.url + "/elsewhere"),
        ):
            identity.models, asked = answer, len(identity.requests)
            while len(identity.requests) == asked:  # a failure counts for as long as it took
                response = Client(server.url, token).get("/sessions")
                assert response.status_code == 503, response.text
            assert response.headers["Retry-After"] == "5"
            assert "identity provider" in response.json()["errors"][0]["detail"]
            assert "WWW-Authenticate" not in response.headers
        assert status_of(server, "odd") == 401  # for which no key is needed
        identity.models = jwks(jwk(ED25519.public_key(), "1"))
        wait_until(lambda: status_of(server, token) == 200)


def test_says_that_nobody_publishes_keys(tmp_path):
    token = make_token(key=ED25519, algorithm="EdDSA", headers={"kid": "1"})
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=f"http://127.0.0.1:{free_port()}") as server:
        assert status_of(server, token) == 503


def of_kid(kid, key=ED25519, **claims):
    return make_token(key=key, algorithm="EdDSA", headers={"kid": kid}, **claims)


@pytest.mark.parametrize("is_cached", [True, False], ids=["cached", "not yet"])
def test_few_tokens_wait_for_the_identity_provider(identity, tmp_path, is_cached):
    """Two of 32 threads; others with an unknown kid are to come back. A token has one place."""
    new, gate = ed25519.Ed25519PrivateKey.generate(), threading.Event()
    identity.models = jwks(jwk(ED25519.public_key(), "1"))
    settings = {"JWT_SECRET": "", "JWT_JWKS_URL": identity.url, "GUNICORN_CMD_ARGS": "--threads 32"}
    with running(tmp_path, **settings) as server, concurrent.futures.ThreadPoolExecutor(41) as pool:
        if is_cached:
            assert status_of(server, of_kid("1")) == 200

        def publish(request):
            yield gate
            yield from jwks(jwk(ED25519.public_key(), "1"), jwk(new.public_key(), "2"))(request)

        def ask(token):
            return Client(server.url, token).request("GET", "/sessions", timeout=30)

        identity.models, count, strange = publish, len(identity.requests), of_kid("unknown")
        while len(identity.requests) == count:  # within a second it is not asked again
            waiting = pool.submit(ask, strange)
            wait_until(lambda: waiting.done() or len(identity.requests) > count)
        others = [pool.submit(ask, strange) for _ in range(39)]
        refused = [future.result() for future in concurrent.futures.as_completed(others, 8)]
        told = {(answer.status_code, answer.headers.get("Retry-After")) for answer in refused}
        assert told == {(503, "5")}
        rotated = pool.submit(ask, of_kid("2", new))
        assert requests.get(server.url + "/health", timeout=8).status_code == 200
        if is_cached:
            assert ask(of_kid("1")).status_code == 200
        assert not waiting.done() and not rotated.done()
        gate.set()
        assert rotated.result().status_code == 200
        assert waiting.result().status_code == 401
        assert status_of(server, of_kid("1")) == 200


@pytest.mark.parametrize(
    "keys",
    [[], [{"kty": "oct", "kid": "1", "k": in_base64(SECRET.encode()), "alg": "HS256"}]],
    ids=["empty", "with a key that is not taken"],
)
def test_a_set_without_a_key_withdraws_all(identity, tmp_path, keys):
    identity.models = jwks(jwk(ED25519.public_key(), "1"))
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=identity.url) as server:
        assert status_of(server, of_kid("1")) == 200
        identity.models = jwks(*keys)

        def asked_again(number):
            return status_of(server, of_kid("unknown")) == 401 and len(identity.requests) >= number

        for number in (2, 3):
            wait_until(lambda: asked_again(number))
            assert "does not publish" in refused(server, of_kid("1"))
        told = [line for line in server.output().splitlines() if " are withdrawn, or none " in line]
        assert len(told) == 1 and " ERROR " in told[0]


CLOSE = {"Connection": "close"}
NO_SETS = {
    "nothing": raw(),
    "an error": status(500, {}, **CLOSE),
    "no list": status(200, {"keys": {}}, **CLOSE),
    "null": status(200, {"keys": None}, **CLOSE),
}


@pytest.mark.parametrize("answer", NO_SETS.values(), ids=NO_SETS)
def test_keys_that_are_not_confirmed_end_after_a_time(identity, answer):
    """Until then those are taken that there were. No connection is left behind here."""
    identity.models = jwks(jwk(ED25519.public_key(), "1"), Connection="close")
    lasting, short = PublishedKeys(identity.url), PublishedKeys(identity.url, lifetime=0.3)
    for keys in (lasting, short):
        assert [algorithm for algorithm, _ in keys.keys_for(of_kid("1"))] == ["EdDSA"]
    identity.models = answer

    def is_over():
        with contextlib.suppress(ServiceUnavailable):
            return not short.keys_for(of_kid("1"))
        return True

    wait_until(is_over)
    with pytest.raises(ServiceUnavailable, match="The identity provider does not answer"):
        short.keys_for(of_kid("1"))
    with pytest.raises(ServiceUnavailable):
        lasting.keys_for(of_kid("unknown"))
    assert lasting.keys_for(of_kid("1"))
    identity.models = jwks(jwk(ED25519.public_key(), "1"), Connection="close")
    wait_until(lambda: not is_over())


def test_takes_eight_keys_of_a_kid_and_looks_at_a_thousand(identity, tmp_path):
    keys = [ed25519.Ed25519PrivateKey.generate() for _ in range(9)]
    odd = [{"kty": "of the future", "kid": "odd"}] * (1000 - len(keys))
    good = [jwk(key.public_key(), "1") for key in keys]
    last, beyond = (jwk(ED25519.public_key(), kid) for kid in ("the thousandth", "one more"))
    identity.models = jwks(*good, *odd[1:], last, beyond)
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=identity.url) as server:
        assert [status_of(server, of_kid("1", key)) for key in keys] == [200] * 8 + [401]
        assert status_of(server, of_kid("the thousandth")) == 200
        assert status_of(server, of_kid("one more")) == 401
        output = server.output()
        assert "Of 1001 published keys the first 1000 are looked at." in output
        assert "8: 'there are 8 of its kid'" in output


def flask(folder, *arguments, **environment):
    """A command of the checkout in this folder."""
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": f"sqlite:///{folder}/token.db",
    } | environment
    command = [sys.executable, "-m", "flask", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of the service, whose instance folder is its own."""
    folder = copy_of_the_service(tmp_path / "checkout")
    monkeypatch.setattr(client, "ROOT", folder)
    return folder


def test_makes_one_key_pair_of_its_own(checkout):
    """However many processes start at the same moment."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        commands = [pool.submit(flask, checkout, "token", f"user-{number}") for number in range(4)]
        with running(checkout.parent / "server", JWT_SECRET="") as server:
            tokens = [command.result().stdout.strip() for command in commands]
            assert [status_of(server, token) for token in tokens] == [200] * 4
    path = checkout / "instance" / "jwt_key.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    for number, token in enumerate(tokens):
        assert jwt.decode(token, key.public_key(), ["EdDSA"])["sub"] == f"user-{number}"
    assert sorted(
        file.name for file in path.parent.iterdir() if not file.name.startswith("parley.db")
    ) == ["jwt_key.pem"]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_what_it_makes_is_for_its_owner_only(checkout):
    assert flask(checkout, "token", "alice").returncode == 0
    with running(checkout.parent / "server", DATABASE_URL=None) as server:
        server.client().create()
        folder = checkout / "instance"
        assert mode(folder) == 0o700
        files = {file.name: mode(file) for file in folder.iterdir() if file.name != "jwt_key.pem"}
        assert files == dict.fromkeys(("parley.db", "parley.db-wal", "parley.db-shm"), 0o600)


def test_leaves_the_modes_of_what_there_is(checkout):
    folder = checkout / "instance"
    folder.mkdir(mode=0o750)
    (folder / "parley.db").touch(mode=0o640)
    with running(checkout.parent / "server", DATABASE_URL=None) as server:
        server.client().create()
        assert (mode(folder), mode(folder / "parley.db"), mode(folder / "parley.db-wal")) == (
            0o750,
            0o640,
            0o640,
        )


@pytest.mark.parametrize("name", ["a#b", "a?b=c", "a%20b%", "a b+&", "ä#?%23"])
def test_runs_in_a_folder_of_any_name(tmp_path, monkeypatch, name):
    folder = copy_of_the_service(tmp_path / name)
    monkeypatch.setattr(client, "ROOT", folder)
    with running(tmp_path / "server", DATABASE_URL=None, JWT_SECRET="") as server:
        token = flask(folder, "token", ALICE, DATABASE_URL="").stdout.strip()
        user = Client(server.url, token)
        assert user.turns(user.create("Hello"))[1]["content"] == "Hello"
        made = {"parley.db", "parley.db-wal", "parley.db-shm", "jwt_key.pem"}
        assert {file.name for file in (folder / "instance").iterdir()} == made
    assert {file.name for file in tmp_path.iterdir()} == {name, "server"}


# What a token must say


@pytest.mark.parametrize("claim", ["iss", "iat", "exp", "sub"])
@pytest.mark.parametrize("is_null", [False, True], ids=["missing", "null"])
def test_refuses_a_token_without_a_required_claim(server, claim, is_null):
    claims = good_claims() | {claim: None}
    if not is_null:
        del claims[claim]
    assert refused(server, forge(claims)) == f"The token lacks the claim {claim}."


@pytest.mark.parametrize("issuer", ["fabro-web2", "", "Fabro-web", 5, ["fabro-web"], {}])
def test_refuses_a_token_by_another_issuer(server, issuer):
    assert refused(server, forge(good_claims(iss=issuer))) in (
        "The token is by another issuer.",
        "The token is malformed.",
    )


@pytest.mark.parametrize(
    "claim, seconds, problem",
    [
        ("exp", -24, None),
        ("exp", -32, "The token has expired. Get a new one."),
        ("nbf", 24, None),
        ("nbf", 36, "The token is not valid yet."),
        ("iat", 24, None),
        ("iat", 36, "The token is not valid yet."),
        ("nbf", -3600, None),
        ("iat", -3600 * 24 * 365, None),
    ],
)
def test_forgives_clocks_that_differ_by_half_a_minute(server, claim, seconds, problem):
    token = forge(good_claims(**{claim: int(time.time()) + seconds}))
    if problem is None:
        assert status_of(server, token) == 200
    else:
        assert refused(server, token) == problem


ODD_CLAIMS = [
    *(
        ("exp", value)
        for value in (
            "Infinity",
            "NaN",
            '"9999999999"',
            "true",
            "[]",
            "{}",
            "1" + "0" * 5000,
            "-1",
            "0",
        )
    ),
    *(
        ("iat", value)
        for value in ("Infinity", "-Infinity", "NaN", '"1"', "false", "[1]", "1e30", "1e400")
    ),
    *(("nbf", value) for value in ("Infinity", "NaN", '"1"', "true", "{}", "1e30")),
    *(
        ("sub", value)
        for value in (
            "5",
            "true",
            "[]",
            "{}",
            '""',
            r'" \t"',
            r'"a\u0000b"',
            r'"\ud800"',
            '"%s"' % ("x" * 256),
        )
    ),
]


@pytest.mark.parametrize(
    "claim, value", ODD_CLAIMS, ids=[f"{claim} {value[:12]}" for claim, value in ODD_CLAIMS]
)
def test_refuses_odd_claims(server, claim, value):
    claims = json.dumps(good_claims(**{claim: "odd"})).replace('"odd"', value)
    refused(server, forge(claims.encode()))


@pytest.mark.parametrize(
    "subject", [ALICE, "x" * 255, "Grüße 世界", "https://github.com/", "' OR 1=1 --", "\U0001f389"]
)
def test_takes_any_subject_for_a_user_of_its_own(server, provider, subject):
    user = server.client(subject)
    session = user.create("Hello")
    assert [listed["id"] for listed in user.get("/sessions").json()["data"]][:1] == [session["id"]]
    assert server.client("somebody else").get(f"/sessions/{session['id']}").status_code == 404


def test_takes_fractions_of_seconds_and_audiences(server):
    now = time.time()
    assert (
        status_of(
            server,
            forge(
                good_claims(iat=now, exp=now + 3600.5, nbf=now - 0.5, aud=["any"], more={"a": 1})
            ),
        )
        == 200
    )


BAD_TOKENS = {
    "one part": "odd",
    "two parts": "odd.odd",
    "no parts": "..",
    "four parts": make_token() + ".odd",
    "two tokens": make_token() + " " + make_token(),
    "no base64": "!!!.???.***",
    "not ASCII": "ü.ü.ü",
    "a changed claim": make_token().replace(".", ".A", 1),
    "a header nested deeply": f"{in_base64(b'[' * 5000)}.{in_base64(b'{}')}.",
    "a header of null": f"{in_base64(b'null')}.{in_base64(b'{}')}.",
    "an algorithm that is a list": forge(good_claims(), alg=["HS256"]),
    "an algorithm of null": forge(good_claims(), alg=None),
    "an extension that must be understood": forge(good_claims(), crit=["odd"], odd=1),
    "a payload apart": forge(good_claims(), b64=False, crit=["b64"]),
    "claims that are a list": forge(b"[]"),
    "claims that are a text": forge(b'"odd"'),
    "claims that are no JSON": forge(b"odd"),
    "claims that are no UTF-8": forge(b'{"sub": "\xff"}'),
    "claims nested deeply": forge(b"[" * 4000),
}


@pytest.mark.parametrize("token", BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_refuses_what_is_no_token(server, token):
    before, name = server.output(), uuid.uuid4().hex
    headers = {"Authorization": f"Bearer {token}".encode(), "X-Request-ID": name}
    response = requests.get(server.url + "/sessions", headers=headers)
    assert response.status_code == 401, response.text
    assert response.headers["WWW-Authenticate"].startswith(
        CHALLENGE + ', error="invalid_token", error_description="'
    )
    # Only in what is new of the log: a path that was asked for before may read like one of these tokens.
    assert token not in server.wait_for_output(name).removeprefix(before)


# What a refusal looks like


NO_BEARERS = {
    "no header": None,
    "an empty header": "",
    "a password": "Basic YWxpY2U6cGFzcw==",
    "a token alone": make_token(),
    "another scheme": "Token odd",
    "no space": "Bearertoken",
}


@pytest.mark.parametrize("header", NO_BEARERS.values(), ids=NO_BEARERS)
@pytest.mark.parametrize(
    "method, path",
    [("GET", "/sessions"), ("POST", "/sessions"), ("GET", "/models"), ("PATCH", "/sessions/odd")],
)
def test_asks_for_a_token_with_a_bare_challenge(server, header, method, path):
    if path == "/sessions/odd":
        path = "/sessions/a1b2c3d4-e5f6-7890-abcd-ef1234567890"
    headers = {"Authorization": header} if header is not None else {}
    response = requests.request(method, server.url + path, headers=headers, data=b"odd")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == CHALLENGE
    assert response.headers["Content-Type"] == "application/json"
    [error] = response.json()["errors"]
    assert (error["status"], error["title"]) == ("401", "Unauthorized")
    assert "Authorization: Bearer" in error["detail"]


def test_refuses_an_empty_token(server):
    response = requests.get(server.url + "/sessions", headers={"Authorization": "Bearer "})
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith(CHALLENGE)


def test_takes_no_token_from_the_url(server):
    response = requests.get(f"{server.url}/sessions?access_token={make_token()}")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == CHALLENGE


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
def test_takes_the_scheme_in_any_case(server, scheme):
    response = requests.get(
        server.url + "/sessions", headers={"Authorization": f"{scheme} {make_token()}"}
    )
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/", "/health"])
def test_needs_no_token_for_what_is_public(server, path):
    assert requests.get(server.url + path).status_code == 200
    assert (
        requests.get(server.url + path, headers={"Authorization": "Bearer odd"}).status_code == 200
    )


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    settings = {
        "JWT_ISSUER": "somebody",
        "JWT_AUDIENCE": "parley",
        "ALLOWED_USERS": " alice, bob ,",
    }
    with running(tmp_path_factory.mktemp("strict"), **settings) as server:
        yield server


@pytest.mark.parametrize(
    "claims, problem",
    [
        ({"aud": "parley"}, None),
        ({"aud": ["other", "parley"]}, None),
        ({"aud": "other"}, "The token is for another audience."),
        ({"aud": ["other"]}, "The token is for another audience."),
        ({"aud": "parley2"}, "The token is for another audience."),
        ({"aud": [5]}, "The token is for another audience."),
        ({"aud": {"parley": 1}}, "The token is for another audience."),
        ({}, "The token lacks the claim aud."),
        ({"aud": "parley", "iss": "fabro-web"}, "The token is by another issuer."),
    ],
)
def test_holds_issuer_and_audience_against_its_own(strict, claims, problem):
    token = forge(good_claims(iss="somebody") | claims)
    if problem is None:
        assert status_of(strict, token) == 200
    else:
        assert refused(strict, token) == problem


@pytest.mark.parametrize(
    "subject, is_allowed",
    [
        ("https://github.com/alice", True),
        ("https://github.com/alice?x=/carol#/carol", True),
        ("https://github.com/carol?x=/alice", False),
        ("https://github.com/carol#/alice", False),
        ("https://github.com?/alice", False),
        ("https://alice", False),
        ("https://github.com/bob", True),
        ("https://github.com/bob/", False),
        ("https://github.com/bob//", False),
        ("alice/", False),
        ("alice", True),
        ("https://github.com/carol", False),
        ("https://github.com/alice2", False),
        ("https://github.com/alice/carol", False),
        ("https://github.com/", False),
        ("carol, bob", False),
        ("/", False),
    ],
)
def test_lets_in_only_the_users_on_its_list(strict, subject, is_allowed):
    response = strict.client(subject, iss="somebody", aud="parley").get("/sessions")
    if is_allowed:
        assert response.status_code == 200
    else:
        assert response.status_code == 403
        [error] = response.json()["errors"]
        assert (error["status"], error["title"]) == ("403", "Forbidden")
        assert "not allowed" in error["detail"]
        assert "bob" not in response.text


@pytest.mark.parametrize(
    "subject, name",
    [
        ("https://github.com/eve?x=/alice", "eve"),
        ("https://github.com/eve#/alice", "eve"),
        ("https://github.com/eve/?/alice", ""),
        ("https://eve:/alice@github.com/eve", "eve"),
        ("https://github.com/a/b;c=d%2Fe", "b;c=d%2Fe"),
        ("https://github.com/alice\n", "alice\n"),
        ("HTTPS://github.com//alice", "alice"),
        ("https:///alice", "alice"),
        ("https://", ""),
        ("team/alice", "alice"),
        ("team/eve?x=/alice", "alice"),
        ("auth0|alice", "auth0|alice"),
        ("urn:user:alice", "urn:user:alice"),
    ],
)
def test_a_users_name_is_the_last_segment_of_the_path_of_a_url(subject, name):
    assert name_of(subject) == name


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


def test_makes_a_token_that_it_takes_itself(tmp_path, strict):
    settings = {"JWT_SECRET": SECRET, "JWT_ISSUER": "somebody", "JWT_AUDIENCE": "parley"}
    command = flask(ROOT, "token", "alice", **settings, DATABASE_URL=f"sqlite:///{tmp_path}/a.db")
    assert status_of(strict, command.stdout.strip()) == 200


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
        == "Error: This server only has public keys: tokens come from whoever holds the private one.\n"
    )


@pytest.mark.parametrize("subject", ["", " ", "\n\t", "\u3000", "x" * 256, "x" * 300, "\udcff"])
def test_makes_no_token_that_it_would_refuse(tmp_path, subject):
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
def test_signs_with_a_private_key_where_nothing_else_can_be_opened(tmp_path, kind, form):
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
        ("odd", "it is no Ed25519, EC or RSA private key in PEM"),
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
            "it is no Ed25519, EC or RSA private key in PEM",
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
def test_explains_how_a_token_is_made(tmp_path, arguments):
    command = flask(ROOT, *arguments, JWT_SECRET=SECRET, DATABASE_URL=f"sqlite:///{tmp_path}/a.db")
    assert (command.returncode, command.stdout) == (2, "")
    assert command.stderr.startswith("Usage: ")
