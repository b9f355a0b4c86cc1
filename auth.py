"""Tokens: which key verifies them, what they must say, and making one."""

import base64
import dataclasses
import datetime
import json
import os
import re
import tempfile

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, ed448, rsa

import wire
from settings import SettingError, ensure_folder

LEEWAY = 30  # seconds by which clocks may differ
LONGEST_SUBJECT = 255  # characters, as in OpenID Connect Core 1.0, section 2
REQUIRED = ["iss", "iat", "exp", "sub"]
FAULTS = {
    jwt.ExpiredSignatureError: "The token has expired. Get a new one.",
    jwt.ImmatureSignatureError: "The token is not valid yet.",
    jwt.InvalidIssuerError: "The token is by another issuer.",
    jwt.InvalidAudienceError: "The token is for another audience.",
}
LEAST_RSA_BITS = 2048
# A key is a point, encoded as its y and a bit for x (RFC 8032, 5.1 and 5.2: so many bits of y, in this field). Anyone can
# sign for a point of small order. These have y = 0, 1 or -1, and on Ed25519 also the y of order 8 or its negative, which makes
# eight points; libsodium refuses the same.
CURVES = {ed25519.Ed25519PublicKey: (255, 2**255 - 19), ed448.Ed448PublicKey: (448, 2**448 - 2**224 - 1)}
Y_OF_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_EC_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512", "secp256k1": "ES256K"}


class InvalidToken(Exception):
    """The text says what is wrong with the token, and shows nothing of it."""


class WeakKey(ValueError):
    """A public key for which others than its owner can sign; the text says why."""


class KeysUnavailable(Exception):
    """The identity provider does not give its keys."""


@dataclasses.dataclass(repr=False)  # it would show the keys
class Tokens:
    """Verifies tokens with fixed keys, and signs them where it has a key for that."""

    keys: list  # (algorithm, key) pairs, any of which may have signed a token
    signing: tuple | None = None  # such a pair
    issuer: str = "fabro-web"
    audience: str | None = None

    def keys_for(self, token):
        return self.keys

    def verify(self, token):
        """The `sub` of a token. Raises InvalidToken; KeysUnavailable where its key cannot be had."""
        try:
            for algorithm, key in self.keys_for(token):
                try:
                    return self._decode(token, algorithm, key)
                except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                    continue  # another key may have signed it
        except jwt.MissingRequiredClaimError as error:
            raise InvalidToken(f"The token lacks the claim {error.claim}.") from None
        except (jwt.InvalidTokenError, ValueError, OverflowError) as error:
            raise InvalidToken(FAULTS.get(type(error), "The token is malformed.")) from None
        raise InvalidToken("The token was not signed with a key and an algorithm that this server takes.")

    def _decode(self, token, algorithm, key):
        options = {"require": REQUIRED + (["aud"] if self.audience else []), "verify_aud": bool(self.audience)}
        claims = jwt.decode(token, key, [algorithm], options, issuer=self.issuer, audience=self.audience, leeway=LEEWAY)
        if any(type(claims.get(name, 0)) not in (int, float) for name in ("iat", "exp", "nbf")):
            raise InvalidToken("The token is malformed: its times are no numbers.")
        subject = claims["sub"]
        if not names_somebody(subject):
            raise InvalidToken("The token's sub names nobody.")
        return subject

    def sign(self, subject, days):
        """A token for this subject. Raises InvalidToken where this server would not take it, or cannot sign it."""
        if not names_somebody(subject):
            raise InvalidToken(f"The subject names nobody. Give from 1 to {LONGEST_SUBJECT} characters in UTF-8, not all blank.")
        if self.signing is None:
            raise InvalidToken("This server only has public keys: tokens come from whoever holds the private one.")
        algorithm, key = self.signing
        now = datetime.datetime.now(datetime.timezone.utc)
        claims = {"iss": self.issuer, "iat": now, "exp": now + datetime.timedelta(days=days), "sub": subject}
        if self.audience:
            claims["aud"] = self.audience
        return jwt.encode(claims, key, algorithm)


class PublishedKeys(jwt.PyJWKClient):
    """The keys that an identity provider publishes (JWKS, RFC 7517), fetched over a wire that is kept."""

    def __init__(self, url):
        # An unknown kid has the keys fetched again, as they may have been rotated, but not more than once a second.
        super().__init__(url, cooldown_duration=1)
        self.wire = wire.Wire(url, timeout=10)

    def fetch_data(self):
        with self.wire.request(wire.Call(), "GET", "", {"Accept": "application/json"}) as response:
            if response.status != 200:
                raise jwt.PyJWKClientConnectionError(f"status {response.status}")
            return json.loads(response.body(2**20))


class RemoteTokens(Tokens):
    """Verifies tokens with the keys that an identity provider publishes, found by their `kid`."""

    def __init__(self, url, issuer, audience):
        super().__init__([], None, issuer, audience)
        self.published = PublishedKeys(url)

    def keys_for(self, token):
        kid = jwt.get_unverified_header(token).get("kid")
        try:
            key = self.published.get_signing_key(kid)
        except (jwt.PyJWKClientConnectionError, wire.Fault, ValueError, RecursionError):
            raise KeysUnavailable("The identity provider does not answer. Ask again later.") from None
        except (jwt.PyJWKClientError, jwt.PyJWKSetError):
            raise InvalidToken("The token was signed with a key that the identity provider does not publish.") from None
        if key.algorithm_name.startswith("HS"):
            raise InvalidToken("The token was signed with a key that is not public.")
        try:
            check_strength(key.key)
        except WeakKey as error:
            raise InvalidToken(f"The token was signed with a published key that is too weak: {error}.") from None
        return [(key.algorithm_name, key.key)]


def names_somebody(subject):
    return 1 <= len(subject.strip()) <= LONGEST_SUBJECT and not re.search("[\0\ud800-\udfff]", subject)


def check_strength(key):
    """Raises WeakKey."""
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < LEAST_RSA_BITS:
        raise WeakKey(f"an RSA key must have {LEAST_RSA_BITS} bits or more")
    for kind, (bits, p) in CURVES.items():
        if isinstance(key, kind):
            y = int.from_bytes(key.public_bytes_raw(), "little") % 2**bits % p
            if y in (0, 1, p - 1, Y_OF_ORDER_8, p - Y_OF_ORDER_8):
                raise WeakKey("it is a point of small order, for which anyone can sign")


def public_keys(text):
    """The (algorithm, key) pairs of one or more public keys in PEM, or in base64 of PEM. Raises ValueError."""
    text = text.strip().replace("\\n", "\n")
    if not text.startswith("-----BEGIN"):
        try:
            text = base64.b64decode(text).decode("ascii")
        except ValueError:  # it is neither base64 nor ASCII
            text = ""
    blocks = re.findall(r"-----BEGIN (?:RSA )?PUBLIC KEY-----.+?-----END (?:RSA )?PUBLIC KEY-----", text, re.DOTALL)
    if not blocks:
        raise ValueError("it is neither a public key in PEM nor base64 of one")
    try:
        keys = [serialization.load_pem_public_key(block.encode()) for block in blocks]
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    for key in keys:
        check_strength(key)
    return [(_algorithm(key), key) for key in keys]


def own_key(path):
    """The Ed25519 key in this file (PEM, PKCS #8, mode 0600), which is made where there is none.

    Of several processes that make one at the same time, one wins, and all have its key. Raises ValueError.
    """
    if not os.path.exists(path):
        pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        handle, draft = tempfile.mkstemp(dir=os.path.dirname(path))  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(draft)
    with open(path, "rb") as file:
        key = serialization.load_pem_private_key(file.read(), None)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ValueError("it does not hold an Ed25519 private key")
    return key


def _algorithm(key):
    if isinstance(key, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)):
        return "EdDSA"
    if isinstance(key, rsa.RSAPublicKey):
        return "RS256"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _EC_ALGORITHMS:
        return _EC_ALGORITHMS[key.curve.name]
    raise ValueError("its type is none of Ed25519, EC and RSA")


def open_tokens(settings, folder):
    """What verifies tokens by these settings; the server's own key has its place in the folder. Raises SettingError."""
    issuer, audience = settings["JWT_ISSUER"], settings["JWT_AUDIENCE"]
    if settings["JWT_JWKS_URL"]:
        return RemoteTokens(settings["JWT_JWKS_URL"], issuer, audience)
    if settings["JWT_SECRET"]:
        pair = ("HS256", settings["JWT_SECRET"])
        try:
            jwt.encode({}, pair[1], pair[0])
        except jwt.InvalidKeyError:
            raise SettingError("JWT_SECRET", "it is a key; a public key goes into JWT_PUBLIC_KEY") from None
        return Tokens([pair], pair, issuer, audience)
    if settings["JWT_PUBLIC_KEY"]:
        try:
            return Tokens(public_keys(settings["JWT_PUBLIC_KEY"]), None, issuer, audience)
        except WeakKey as error:
            raise SettingError("JWT_PUBLIC_KEY", error) from None
        except ValueError:
            raise SettingError("JWT_PUBLIC_KEY", "give an Ed25519, EC or RSA public key, in PEM or base64 of PEM") from None
    path = os.path.join(ensure_folder(folder, "JWT_PUBLIC_KEY"), "jwt_key.pem")
    try:
        key = own_key(path)
    except (ValueError, TypeError, OSError):
        raise SettingError("JWT_PUBLIC_KEY", f"it is not set, and {path} is no Ed25519 key in PEM") from None
    return Tokens([("EdDSA", key.public_key())], ("EdDSA", key), issuer, audience)
