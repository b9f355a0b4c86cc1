"""Strange identity providers: odd entries among the keys never affect the good ones."""

import concurrent.futures
import itertools
import json
import threading
import time

from cryptography.hazmat.primitives.asymmetric import ed25519

from client import make_token
from provider import head, raw, status
from servers import running
from tokens import ED25519, RSA, good_claims, in_base64, jwk, jwks, pem, status_of

POINT = in_base64(bytes(range(32)))


ODD_KEYS = [
    {"kty": "RSA", "alg": "none", "kid": "n"},
    *(
        {"kty": "OKP", "crv": "Ed25519", "x": POINT, "kid": "n", "alg": alg}
        for alg in (["EdDSA"], {"a": 1}, 5)
    ),
    *(
        {"kty": kind, "kid": "n"}
        for kind in ("RSA", "EC", "OKP", "oct", "odd", "", None, 5, ["RSA"], {"a": 1})
    ),
    *({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "n"} for x in ("!", "AA", "", 5, None, [])),
    *({"kty": "OKP", "crv": curve, "x": POINT, "kid": "n"} for curve in ("odd", 5, None, [], {})),
    *({"kty": "RSA", "n": n, "e": n, "kid": "n"} for n in ("", "AA", "AQ", "!", 5, None, [])),
    {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "n"},
    {"kty": "oct", "k": 5, "kid": "n", "alg": "HS256"},
    *({}, None, 5, "text", [], True),
]


def signed(key, kid, alg="EdDSA"):
    """A token made by hand, whose header says what a library would not."""
    text = ".".join(
        in_base64(json.dumps(part).encode()) for part in ({"alg": alg, "kid": kid}, good_claims())
    )
    return f"{text}.{in_base64(key.sign(text.encode()))}"


def new_key():
    return ed25519.Ed25519PrivateKey.generate()


def test_each_published_key_is_judged_by_itself(identity, tmp_path):
    identity.models = jwks(*ODD_KEYS, jwk(ED25519.public_key(), "good"), *ODD_KEYS)
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=identity.url) as server:
        assert status_of(server, signed(ED25519, "good")) == 200
        for kid in ("n", "a stranger's"):
            assert status_of(server, signed(new_key(), kid)) == 401
        assert "Traceback" not in server.output()


def test_all_keys_with_one_name_are_tried(identity, tmp_path):
    twins = [new_key(), new_key()]
    secret = jwk(new_key().public_key(), "twin", use="enc")
    identity.models = jwks(
        secret, jwk(RSA.public_key(), "twin"), *(jwk(key.public_key(), "twin") for key in twins)
    )
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=identity.url) as server:
        for key in twins:
            assert status_of(server, signed(key, "twin")) == 200
        assert (
            status_of(server, make_token(key=RSA, algorithm="RS256", headers={"kid": "twin"}))
            == 200
        )
        assert status_of(server, signed(new_key(), "twin")) == 401


def test_ed25519_is_an_algorithm_like_eddsa(identity, tmp_path):
    """RFC 9864 names it so, in tokens and in keys."""
    encrypting = new_key()
    named = [
        jwk(ED25519.public_key(), "Ed25519", alg="Ed25519"),
        jwk(ED25519.public_key(), "EdDSA", alg="EdDSA"),
    ]
    identity.models = jwks(
        *named,
        jwk(ED25519.public_key(), "no"),
        jwk(encrypting.public_key(), "ops", key_ops=["encrypt"]),
    )
    with running(tmp_path / "1", JWT_SECRET="", JWT_JWKS_URL=identity.url) as server:
        for kid, alg in itertools.product(("Ed25519", "EdDSA", "no"), ("Ed25519", "EdDSA")):
            assert status_of(server, signed(ED25519, kid, alg)) == 200, (kid, alg)
        for token in (
            signed(ED25519, "no", "Ed448"),
            signed(new_key(), "no", "Ed25519"),
            signed(encrypting, "ops"),
        ):
            assert status_of(server, token) == 401
    with running(tmp_path / "2", JWT_SECRET="", JWT_PUBLIC_KEY=pem(ED25519.public_key())) as server:
        assert status_of(server, signed(ED25519, "any", "Ed25519")) == 200


def test_a_strange_key_never_affects_the_good_ones(identity, tmp_path):
    good, stranger = signed(ED25519, "good"), new_key()
    identity.models = jwks(jwk(ED25519.public_key(), "good"))
    with running(tmp_path, JWT_SECRET="", JWT_JWKS_URL=identity.url) as server:
        assert status_of(server, good) == 200
        asked, gate = threading.Event(), threading.Event()
        identity.models = raw(lambda _: asked.set(), gate, head(500))
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            strangers = []
            while (
                not asked.wait(0.2) and len(strangers) < 50
            ):  # an unknown name has the keys fetched, once a second at most
                strangers.append(
                    pool.submit(status_of, server, signed(stranger, f"unknown {len(strangers)}"))
                )
            assert asked.is_set()
            began = time.monotonic()
            assert status_of(server, good) == 200
            assert time.monotonic() - began < 3
            gate.set()
            assert {future.result() for future in strangers} <= {401, 503}
        for answer in (
            raw(),
            status(200, "<html></html>"),
            status(200, {"keys": 5}),
            status(200, []),
        ):
            asked.clear()
            identity.models = raw(lambda _: asked.set(), *answer(None))
            while not asked.wait(0.1):
                assert status_of(server, signed(stranger, "unknown")) in (401, 503)
        assert status_of(server, good) == 200
