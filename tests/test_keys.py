"""Keys that verify tokens: the server's own, a public one, a secret, and those that an identity provider publishes."""

import base64
import concurrent.futures
import contextlib
import os
import signal
import stat
import threading
import time

import jwt
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from werkzeug.exceptions import ServiceUnavailable

import servers
from auth import open_tokens
from client import ALICE, SECRET, Client, make_token, wait_until
from commands import flask
from keys import InvalidToken, PublishedKeys
from product import copy_of_the_service
from provider import chunk, head, raw, status
from servers import free_port, running
from settings import read_settings
from tokens import (
    ED25519,
    KEYS,
    RSA,
    forge,
    good_claims,
    in_base64,
    jwk,
    jwks,
    pem,
    refused,
    status_of,
)

WAYS = {"Ed25519": "PEM", "P-256": "base64", "P-384": "one line", "RSA": "base64"}


def written(public_key, way):
    text = pem(public_key)
    return {
        "PEM": text,
        "base64": base64.b64encode(text.encode()).decode(),
        "one line": text.replace("\n", "\\n"),
    }[way]


UNSIGNED = "The token was not signed with a key and algorithm of this server."


def unsigned_by(kind):
    """Tokens that a server with this public key refuses."""
    key, algorithm, other = KEYS[kind]
    return [
        make_token(key=other, algorithm=algorithm),
        make_token(),
        forge(good_claims(), pem(key.public_key())),  # the public key, taken for a secret
        forge(good_claims(), pem(key.public_key()).strip()),
        forge(good_claims(), written(key.public_key(), WAYS[kind])),
        forge(good_claims(), alg=algorithm),
        jwt.encode(good_claims(), None, "none"),
        make_token(key=key, algorithm=algorithm).rpartition(".")[0] + ".",
    ]


@pytest.mark.parametrize("kind", KEYS)
def test_tokens_of_each_kind_of_key_are_verified(tmp_path, kind):
    key, algorithm, _ = KEYS[kind]
    given = {"JWT_PUBLIC_KEY": written(key.public_key(), WAYS[kind])}
    tokens = open_tokens(read_settings(given), str(tmp_path))
    assert tokens.verify(make_token(key=key, algorithm=algorithm)).subject == ALICE
    for token in unsigned_by(kind):
        with pytest.raises(InvalidToken, match=UNSIGNED):
            tokens.verify(token)


def test_tokens_that_the_public_key_verifies_are_accepted(tmp_path):
    key, algorithm, _ = KEYS["RSA"]
    settings = {"JWT_SECRET": "", "JWT_PUBLIC_KEY": written(key.public_key(), WAYS["RSA"])}
    with running(tmp_path, **settings) as server:
        assert status_of(server, make_token(key=key, algorithm=algorithm)) == 200
        for token in unsigned_by("RSA"):
            assert refused(server, token).startswith(UNSIGNED)
        for algorithm in ("RS512", "PS256"):
            assert status_of(server, make_token(key=key, algorithm=algorithm)) == 401


def test_tokens_that_the_secret_verifies_are_accepted(server):
    assert status_of(server, make_token()) == 200
    for token in (
        make_token(key=SECRET + "!"),
        forge(good_claims(), digest="sha512", alg="HS512"),
        make_token(key=ED25519, algorithm="EdDSA"),
        jwt.encode(good_claims(), None, "none"),
    ):
        assert "not signed with a key" in refused(server, token)


def test_tokens_that_published_keys_verify_are_accepted(identity, tmp_path):
    """Keys are found by their kid, cached, and fetched again for an unknown kid, since keys are replaced."""
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
def test_weak_published_keys_are_refused(identity, tmp_path):
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
    forged = f"{signed}.{in_base64(bytes([1]) + bytes(63))}"  # by nobody: right for any text
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=identity.url) as server:
        assert "a weak one" in refused(
            server, make_token(key=short, algorithm="RS256", headers={"kid": "short"})
        )
        assert "a weak one" in refused(server, forged)
        assert (
            status_of(server, make_token(key=ED25519, algorithm="EdDSA", headers={"kid": "good"}))
            == 200
        )


def test_published_keys_may_be_protected_by_a_password(identity, tmp_path):
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


def test_unreachable_published_keys_are_reported(identity, tmp_path):
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
            while len(identity.requests) == asked:
                response = Client(server.url, token).get("/sessions")
                assert response.status_code == 503, response.text
                time.sleep(0.05)  # a failure counts for as long as it took
            assert response.headers["Retry-After"] == "5"
            assert "identity provider" in response.json()["errors"][0]["detail"]
            assert "WWW-Authenticate" not in response.headers
        assert status_of(server, "odd") == 401  # no key is needed for that one
        identity.models = jwks(jwk(ED25519.public_key(), "1"))
        wait_until(lambda: status_of(server, token) == 200)


def test_if_nobody_publishes_keys_the_answer_is_503(tmp_path):
    token = make_token(key=ED25519, algorithm="EdDSA", headers={"kid": "1"})
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=f"http://127.0.0.1:{free_port()}") as server:
        assert status_of(server, token) == 503


def of_kid(kid, key=ED25519, **claims):
    return make_token(key=key, algorithm="EdDSA", headers={"kid": kid}, **claims)


@pytest.mark.parametrize("is_cached", [True, False], ids=["cached", "not yet"])
def test_few_tokens_wait_for_the_identity_provider(identity, tmp_path, is_cached):
    """Two of 32 threads wait, and tokens of unknown keys get one of these. Other requests are told to come back."""
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
        while len(identity.requests) == count:  # it is asked once a second at most
            waiting = pool.submit(ask, strange)
            wait_until(lambda: waiting.done() or len(identity.requests) > count)
        others = [pool.submit(ask, strange) for _ in range(39)]
        # Which one waits is chance: it may be one that came after the first.
        wait_until(lambda: sum(each.done() for each in (waiting, *others)) >= 39, 8)
        refused = [each.result() for each in others if each.done()]
        told = {(answer.status_code, answer.headers.get("Retry-After")) for answer in refused}
        assert told == {(503, "5")}
        [waiting] = [each for each in (waiting, *others) if not each.done()]
        assert ask(of_kid("2", new)).status_code == 503
        assert requests.get(server.url + "/health", timeout=8).status_code == 200
        if is_cached:
            assert ask(of_kid("1")).status_code == 200
        assert not waiting.done()
        gate.set()
        assert waiting.result().status_code == 401
        assert status_of(server, of_kid("2", new)) == 200
        assert status_of(server, of_kid("1")) == 200


def test_a_set_without_usable_keys_withdraws_all_earlier_ones(identity, tmp_path):
    keys = [{"kty": "oct", "kid": "1", "k": in_base64(SECRET.encode()), "alg": "HS256"}]
    identity.models = jwks(jwk(ED25519.public_key(), "1"))
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=identity.url) as server:
        assert status_of(server, of_kid("1")) == 200
        identity.models = jwks(*keys)

        def asked_again(number):
            return status_of(server, of_kid("unknown")) == 401 and len(identity.requests) >= number

        for number in (2, 3):
            wait_until(lambda: asked_again(number))
            assert "does not publish" in refused(server, of_kid("1"))
        told = [
            line for line in server.output().splitlines() if " are withdrawn or all unfit" in line
        ]
        assert len(told) == 1 and " ERROR " in told[0]


def test_keys_are_fetched_from_the_new_url_if_they_move(identity):
    """The discovery document names the URL, and may name another the next day."""
    urls = [f"{identity.url}/old"]
    identity.models = jwks(jwk(ED25519.public_key(), "1"), Connection="close")
    keys = PublishedKeys("https://id.example.com", find_url=lambda: urls[-1])
    assert keys.keys_for(of_kid("1")) and identity.requests[-1].path == "/old"
    urls.append(f"{identity.url}/new")
    assert keys.published.get_newer(time.monotonic(), 5, lambda found: False)
    assert identity.requests[-1].path == "/new"
    assert keys.keys_for(of_kid("1"))


def test_a_new_key_is_fetched_even_within_a_second_of_the_last_fetch(identity):
    """After a 401, the page would ask its user to sign in again."""
    new = ed25519.Ed25519PrivateKey.generate()
    identity.models = jwks(jwk(ED25519.public_key(), "1"))
    keys = PublishedKeys(identity.url)
    assert keys.keys_for(of_kid("1"))
    identity.models = jwks(jwk(ED25519.public_key(), "1"), jwk(new.public_key(), "2"))
    assert keys.keys_for(of_kid("2", new))
    assert len(identity.requests) == 2


def test_a_fetch_from_before_a_token_came_does_not_refuse_it(identity):
    new, gate = ed25519.Ed25519PrivateKey.generate(), threading.Event()

    def late(request):
        yield gate
        yield from jwks(jwk(ED25519.public_key(), "1"))(request)

    identity.models = late
    keys = PublishedKeys(identity.url)
    keys.prefetch()
    wait_until(lambda: identity.requests)
    identity.models = jwks(jwk(new.public_key(), "2"))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        found = pool.submit(keys.keys_for, of_kid("2", new))
        gate.set()
        assert found.result(10)


def test_a_failing_identity_provider_is_not_asked_for_each_token(identity):
    identity.models = status(500, {}, Connection="close")
    keys = PublishedKeys(identity.url)
    for _ in range(50):
        with pytest.raises(ServiceUnavailable):
            keys.keys_for(of_kid("1"))
    assert len(identity.requests) <= 2


def test_a_server_started_while_the_identity_provider_is_away_has_its_keys(
    identity, tmp_path, start, settings
):
    """They are kept beside the server's own data. Those of another provider are not used."""
    identity.models = jwks(jwk(ED25519.public_key(), "1"))
    settings |= {"JWT_SECRET": "", "JWT_JWKS_URL": identity.url, "PARLEY_HOME": str(tmp_path)}
    token = of_kid("1")
    first = start(**settings)
    assert status_of(first, token) == 200
    file = tmp_path / "published_keys.json"
    wait_until(file.exists)
    assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0
    identity.models = status(500, {}, Connection="close")
    first.stop()
    second = start(**settings)
    assert [status_of(second, token) for _ in range(10)] == [200] * 10
    assert status_of(second, of_kid("unknown")) == 503
    second.stop()
    other = start(**settings | {"JWT_JWKS_URL": identity.url + "/other"})
    assert status_of(other, token) == 503


def test_a_worker_that_begins_while_the_identity_provider_is_away_has_its_keys(
    identity, tmp_path, start, settings
):
    """A crash or a reload replaces workers, and the master that forks them has no keys."""
    identity.models = jwks(jwk(ED25519.public_key(), "1"))
    settings |= {"JWT_SECRET": "", "JWT_JWKS_URL": identity.url, "PARLEY_HOME": str(tmp_path)}
    server, token = start(**settings), of_kid("1")
    assert status_of(server, token) == 200
    wait_until((tmp_path / "published_keys.json").exists)
    identity.models = status(500, {}, Connection="close")
    first = server.workers()
    os.kill(first[0], signal.SIGKILL)
    wait_until(lambda: len(server.workers()) == 2 and first[0] not in server.workers())
    assert {status_of(server, token) for _ in range(20)} == {200}
    second = server.workers()
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(server.workers()) == 2 and not {*second} & {*server.workers()})
    assert {status_of(server, token) for _ in range(20)} == {200}


CLOSE = {"Connection": "close"}


def test_if_one_process_has_the_new_keys_all_have_them(identity, tmp_path):
    new = ed25519.Ed25519PrivateKey.generate()
    identity.models = jwks(jwk(ED25519.public_key(), "1"), **CLOSE)
    file = str(tmp_path / "published_keys.json")
    first, second = (PublishedKeys(identity.url, file=file) for _ in range(2))
    assert first.keys_for(of_kid("1")) and second.keys_for(of_kid("1"))
    identity.models = jwks(jwk(new.public_key(), "2"), **CLOSE)
    assert first.keys_for(of_kid("2", new))
    identity.models = status(500, {}, **CLOSE)
    assert second.keys_for(of_kid("2", new))


NO_SETS = {
    "nothing": raw(),
    "an error": status(500, {}, **CLOSE),
    "no list": status(200, {"keys": {}}, **CLOSE),
    "null": status(200, {"keys": None}, **CLOSE),
}


@pytest.mark.parametrize("answer", NO_SETS.values(), ids=NO_SETS)
def test_keys_that_are_not_confirmed_expire(identity, answer):
    """Until then the old ones are used. No connection is left open here."""
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


def test_eight_keys_of_a_kid_and_a_thousand_in_all_are_read(identity, tmp_path):
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
        assert "Only the first 1000 of 1001 published keys are read." in output
        assert "8: '8 others have the same kid'" in output


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of the service with an instance folder of its own."""
    folder = copy_of_the_service(tmp_path / "checkout")
    monkeypatch.setattr(servers, "ROOT", folder)
    return folder


def test_one_key_pair_is_made(checkout):
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


def test_files_that_the_server_makes_are_only_for_their_owner(checkout):
    assert flask(checkout, "token", "alice").returncode == 0
    with running(checkout.parent / "server", DATABASE_URL=None) as server:
        server.client().create()
        folder = checkout / "instance"
        assert mode(folder) == 0o700
        files = {file.name: mode(file) for file in folder.iterdir() if file.name != "jwt_key.pem"}
        files.pop("parley.db-reserve", None)  # it is made a moment later
        assert files == dict.fromkeys(("parley.db", "parley.db-wal", "parley.db-shm"), 0o600)


def test_modes_of_existing_files_are_not_changed(checkout):
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


def test_the_service_runs_in_a_folder_of_any_name(tmp_path, monkeypatch):
    name = "a b+&%20c%ä#d?e=f"
    folder = copy_of_the_service(tmp_path / name)
    monkeypatch.setattr(servers, "ROOT", folder)
    with running(tmp_path / "server", DATABASE_URL=None, JWT_SECRET="") as server:
        token = flask(folder, "token", ALICE, DATABASE_URL="").stdout.strip()
        user = Client(server.url, token)
        assert user.turns(user.create("Hello"))[1]["content"] == "Hello"
        made = {"parley.db", "parley.db-wal", "parley.db-shm", "parley.db-reserve", "jwt_key.pem"}
        wait_until(lambda: {file.name for file in (folder / "instance").iterdir()} == made)
    assert {file.name for file in tmp_path.iterdir()} == {name, "server"}
