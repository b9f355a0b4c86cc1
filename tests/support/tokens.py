"""Keys of several kinds, the key sets that publish them, and the claims of a token."""

import base64
import hmac
import json
import time

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from client import ALICE, SECRET, Client
from provider import status

CHALLENGE = 'Bearer realm="parley"'


def pem(key):
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def in_base64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forge(claims, key=SECRET, digest="sha256", **header):
    """A token made by hand, with things that a library would refuse to write."""
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
    """The detail of a 401, which is the same in its challenge and reveals nothing of the token."""
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


def jwk(key, kid, **fields):
    algorithms = {
        ed25519.Ed25519PublicKey: jwt.algorithms.OKPAlgorithm,
        rsa.RSAPublicKey: jwt.algorithms.RSAAlgorithm,
    }
    make = next(algorithm for kind, algorithm in algorithms.items() if isinstance(key, kind)).to_jwk
    return make(key, as_dict=True) | {"kid": kid} | fields


def jwks(*keys, **headers):
    return status(200, {"keys": keys}, **headers)
