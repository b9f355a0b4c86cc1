"""Tokens: which key verifies them, what they must say, and making one."""

import base64
import contextlib
import json
import os
import pathlib
import re
import tempfile
import time

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from werkzeug.exceptions import ServiceUnavailable

import wire
from faults import NOT_UNDERSTOOD
from fetched import Fetched
from logs import log
from settings import SettingError, ensure_folder, mistake, whose

jwt.register_algorithm("Ed25519", jwt.get_algorithm_by_name("EdDSA"))  # the name in RFC 9864 of what was EdDSA

KEYS_TIMEOUT, KEYS_TTL = 10, 300  # seconds
KEYS_SIZE = 2**20  # bytes
KEY_FILE = "jwt_key.pem"  # the server's own key, in its folder
LEEWAY = 30  # seconds by which clocks may differ
LONGEST_SUBJECT = 255  # characters, as in OpenID Connect Core 1.0, section 2
LOCAL_USER = "https://github.com/you"  # who signs their own tokens on a laptop: the page, `flask chat` and the README's curl
# A key of Ed25519 is a point, encoded as its y, in the field of this prime, and a bit for x (RFC 8032, 5.1). Anyone can sign for
# a point of small order. These eight have y = 0, 1 or -1, or the y of order 8 or its negative; libsodium refuses the same.
P = 2**255 - 19
Y_OF_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_EC_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512", "secp256k1": "ES256K"}


class InvalidToken(Exception):
    """The text says what is wrong with the token, and shows nothing of it."""


class UnfitKey(ValueError):
    """A public key by which no token may be verified; the text says why."""


class Tokens:
    """Verifies tokens, and signs them where it has a key for that."""

    def __init__(self, settings, keys_for, signing=None):
        self.issuer, self.audience = settings["JWT_ISSUER"], settings["JWT_AUDIENCE"]
        self._keys_for = keys_for  # returns the (algorithm, key) pairs any of which may have signed this token
        self.signing = signing  # such a pair, or None
        self.source = f"Tokens for this server come from {self.issuer}."  # a sentence for whoever has no token
        if signing:
            self.source = f"On the server, in Parley's folder, `.venv/bin/flask token {LOCAL_USER}` prints one."

    def verify(self, token):
        """The `sub` of a token. Raises InvalidToken; ServiceUnavailable where its key cannot be had."""
        try:
            for algorithm, key in self._keys_for(token):
                with contextlib.suppress(jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):  # another may have signed it
                    return self._decode(token, algorithm, key)
        except (jwt.InvalidTokenError, ValueError, OverflowError) as error:
            raise InvalidToken(mistake("token", f"{type(error).__name__}: {error}")) from None
        raise InvalidToken("The token was not signed with a key and an algorithm that this server takes.")

    def _decode(self, token, algorithm, key):
        # Where there is an audience, a token must have it, too.
        options = {"require": ["iss", "iat", "exp", "sub"], "verify_aud": bool(self.audience)}
        algorithms = [algorithm, "Ed25519"] if algorithm == "EdDSA" else [algorithm]
        claims = jwt.decode(token, key, algorithms, options, issuer=self.issuer, audience=self.audience, leeway=LEEWAY)
        if any(type(claims.get(name, 0)) not in (int, float) for name in ("iat", "exp", "nbf")):
            raise InvalidToken("The token is malformed: its times are no numbers.")
        if not names_somebody(claims["sub"]):
            raise InvalidToken("The token's sub names nobody.")
        return claims["sub"]

    def compare(self, token):
        """What a token that is refused names, and what it must name here, for the log. Nothing is shown of what is no token."""
        with contextlib.suppress(jwt.InvalidTokenError, OverflowError, *NOT_UNDERSTOOD):
            whole = jwt.decode_complete(token, options={"verify_signature": False})
            named = whole["payload"] | whole["header"]
            shown = [f"{name} {json.dumps(named.get(name))[:100]}" for name in ("alg", "kid", "iss", "aud")]
            ago = time.time() - named.get("exp", float("inf"))
            shown += [f"and expired {ago:.0f} s ago"] if ago > 0 else []
            return f"It names {', '.join(shown)}; taken are iss {self.issuer}, aud {self.audience}."
        return ""

    def sign(self, subject, days):
        """A token for this subject. Raises InvalidToken where this server would not take it, or cannot sign it."""
        if not names_somebody(subject):
            raise InvalidToken(f"The subject names nobody. Give from 1 to {LONGEST_SUBJECT} characters in UTF-8, not all blank.")
        if self.signing is None:
            raise InvalidToken("This server only has public keys: tokens come from whoever holds the private one.")
        algorithm, key = self.signing
        now = int(time.time())
        claims = {"iss": self.issuer, "iat": now, "exp": now + days * 86400, "sub": subject}
        return jwt.encode(claims | ({"aud": self.audience} if self.audience else {}), key, algorithm)


class PublishedKeys:
    """The keys that an identity provider publishes (JWKS, RFC 7517), found by their `kid`."""

    def __init__(self, url):
        self.wire = wire.Wire(url)
        # An unknown kid has the keys fetched again, as they may have been rotated, but not more than once a second.
        self.published = Fetched("The keys at " + wire.without_password(url), self._fetch, KEYS_TTL, cooldown=1)

    def keys_for(self, token):
        kid = jwt.get_unverified_header(token).get("kid")
        try:
            keys = self.published.get().get(kid) or self.published.get(wanting=True).get(kid)
        except (wire.Fault, *NOT_UNDERSTOOD) as failure:
            told = ServiceUnavailable("The identity provider does not answer. Ask again later.", retry_after=5)
            raise told from ValueError(f"{self.published.name} cannot be had: {type(failure).__name__} {failure}")
        if not keys:
            raise InvalidToken("The token was signed with a key that the identity provider does not publish, or a weak one.")
        return keys

    def _fetch(self):
        """The (algorithm, key) pairs by `kid`, which several keys may share. Each key is judged by itself."""
        with self.wire.request(wire.Call(KEYS_TIMEOUT), "GET", "", {"Accept": "application/json"}) as response:
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            published = json.loads(wire.join(response.chunks(), KEYS_SIZE))["keys"]
        keys, refused = {}, {}
        for number, each in enumerate(published):
            try:
                key = jwt.PyJWK(each, "EdDSA" if each.get("alg") == "Ed25519" else None)
                algorithm_of(key.key)
                if key.public_key_use not in (None, "sig") or "verify" not in each.get("key_ops", ["verify"]):
                    raise UnfitKey("it is not for signatures")
                keys.setdefault(key.key_id, []).append((key.algorithm_name, key.key))
            except Exception as error:  # PyJWT raises whatever the odd key brings about; its text may show a secret one
                refused[number] = str(error) if isinstance(error, UnfitKey) else type(error).__name__
        if refused:
            log.warning("Of %d published keys these are not taken: %s", len(published), str(refused)[:500])
        if not keys:
            raise ValueError("no key that is taken")
        return keys


def names_somebody(subject):
    return 1 <= len(subject.strip()) <= LONGEST_SUBJECT and not wire.UNSTORABLE.search(subject)


def algorithm_of(key):
    """The algorithm by which this public key verifies. Raises UnfitKey; ValueError where it is of another type."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        y = int.from_bytes(key.public_bytes_raw(), "little") % 2**255 % P
        if y in (0, 1, P - 1, Y_OF_ORDER_8, P - Y_OF_ORDER_8):
            raise UnfitKey("it is a point of small order, for which anyone can sign")
        return "EdDSA"
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < 2048:
            raise UnfitKey("an RSA key must have 2048 bits or more")
        return "RS256"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _EC_ALGORITHMS:
        return _EC_ALGORITHMS[key.curve.name]
    raise ValueError("its type is none of Ed25519, EC and RSA")


def public_keys(text):
    """The (algorithm, key) pairs of public keys in PEM, or in base64 of PEM. Raises ValueError or UnsupportedAlgorithm."""
    text = text.replace("\\n", "\n")
    if not text.startswith("-----BEGIN"):
        text = base64.b64decode(text).decode("ascii")
    blocks = re.findall("-----BEGIN (?:RSA )?PUBLIC KEY-----.+?-----END (?:RSA )?PUBLIC KEY-----", text, re.DOTALL)
    keys = [serialization.load_pem_public_key(block.encode()) for block in blocks or [text]]
    return [(algorithm_of(key), key) for key in keys]


def own_key(path):
    """The Ed25519 key in this file (PEM, PKCS #8, mode 0600), which is made where there is none: of several processes that make
    one at the same time, one wins, and all have its key. Raises ValueError, TypeError where it is encrypted, or OSError."""
    if not os.path.exists(path):
        form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        pem = ed25519.Ed25519PrivateKey.generate().private_bytes(*form)
        with tempfile.NamedTemporaryFile(dir=os.path.dirname(path), buffering=0) as draft, contextlib.suppress(FileExistsError):
            draft.write(pem)  # its mode is 0600
            os.fsync(draft.fileno())
            os.link(draft.name, path)
    key = serialization.load_pem_private_key(pathlib.Path(path).read_bytes(), None)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ValueError("it does not hold an Ed25519 private key")
    return key


def signing_with(path, settings):
    """What signs tokens with the private key in this file. Raises InvalidToken, which says why it cannot sign."""
    data = b""
    try:
        data = pathlib.Path(path).read_bytes()
        key = serialization.load_pem_private_key(data, None)
        return Tokens(settings, None, (algorithm_of(key.public_key()), key))
    except (OSError, TypeError, ValueError, UnsupportedAlgorithm) as error:
        problem = mistake("private_key", f"{error!r} {data}", path=path)
        raise InvalidToken(f"{path} cannot sign: {problem}.") from None


def open_tokens(settings, folder):
    """What verifies tokens by these settings; the server's own key has its place in the folder. Raises SettingError."""
    if settings["JWT_JWKS_URL"]:
        return Tokens(settings, PublishedKeys(settings["JWT_JWKS_URL"]).keys_for)
    if settings["JWT_SECRET"]:
        pair = ("HS256", settings["JWT_SECRET"])
        try:
            jwt.encode({}, pair[1], pair[0])
        except jwt.InvalidKeyError:
            raise SettingError("JWT_SECRET", "it is a key; a public key goes into JWT_PUBLIC_KEY") from None
        return Tokens(settings, lambda token: [pair], pair)
    if settings["JWT_PUBLIC_KEY"]:
        try:
            keys = public_keys(settings["JWT_PUBLIC_KEY"])
        except (ValueError, UnsupportedAlgorithm) as error:
            problem = error if isinstance(error, UnfitKey) else mistake("public_key", settings["JWT_PUBLIC_KEY"])
            raise SettingError("JWT_PUBLIC_KEY", problem) from None
        return Tokens(settings, lambda token: keys)
    path = os.path.join(ensure_folder(folder, "JWT_PUBLIC_KEY"), KEY_FILE)
    try:
        key = own_key(path)
    except (ValueError, TypeError, OSError) as error:
        raise SettingError("JWT_PUBLIC_KEY", mistake("own_key", str(error), path=path, whose=whose(path))) from None
    return Tokens(settings, lambda token: [("EdDSA", key.public_key())], ("EdDSA", key))
