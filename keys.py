"""Keys that verify tokens: published by an identity provider, given by a setting, or the server's
own."""

import base64
import contextlib
import json
import logging
import os
import pathlib
import re
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from werkzeug.exceptions import ServiceUnavailable

import wire
from limits import Bulkhead
from logs import log
from wire import SingleFlight

KEYS_TIMEOUT, KEYS_TTL = 10, 300  # seconds
# Seconds until an identity provider that has failed is asked again in the background. A token with
# an unknown `kid` asks it sooner: after the cooldown of `published`, or after as many seconds as
# the failure took.
FAILURE_TTL = 5
# Seconds after the last fetch, for which keys are used if the provider cannot be reached.
KEYS_LIFETIME = 24 * 3600
PUBLISHED_SIZE = 2**20  # bytes of a document of an identity provider
MOST_KEYS = 1000  # that are read of a set
MOST_OF_A_KID = 8  # keys with the same `kid`: a token is verified with each of them
UNKNOWN = ""  # in `waiting`, all tokens with an unknown `kid` count as this one user
LEEWAY = 30  # seconds by which a clock may be set back
WAITING = 16  # tokens that may wait for an identity provider; see `Services.fit`
# An Ed25519 key is a point: its y in the field of this prime, and a bit for x (RFC 8032, 5.1).
# Anyone can forge signatures for a point of small order. These eight points have y = 0, 1 or -1, or
# the y of order 8 or its negative; libsodium refuses the same.
P = 2**255 - 19
Y_OF_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_EC_ALGORITHMS = {
    "secp256r1": "ES256",
    "secp384r1": "ES384",
    "secp521r1": "ES512",
    "secp256k1": "ES256K",
}


# Advice on texts that are not a public key. Base64 of PEM begins with LS0t.
_PUBLIC_KEY_ADVICE = {
    "PRIVATE KEY-|LS0tLS1CRUdJTi(BQUklWQVRF|BSU0EgUFJJVkFU|BFQyBQUklWQVRF|BFTkNSWVBURUQg"
    "|BPUEVOU1NIIFBS)": (
        "this is a private key, which signs tokens; give its public half: "
        "openssl pkey -in private.pem -pubout"
    ),
    "CERTIFICATE-|LS0tLS1CRUdJTiBDRVJUSUZJ": (
        "this is a certificate; give its public key: "
        "openssl x509 -in certificate.pem -noout -pubkey"
    ),
    "^(ssh|ecdsa|sk)-": (
        "this is an OpenSSH key; give it in PEM: ssh-keygen -e -m PKCS8 -f key.pub"
    ),
    r"^([.~/]|[A-Za-z]:)|^(?!LS0t).*\.\w{3}$": (
        "this is a path; give the key itself, the contents of the file, or their base64: "
        "base64 -w0 public.pem"
    ),
    "": "give an Ed25519, EC or RSA public key, in PEM or base64 of PEM",
}


class InvalidToken(Exception):
    """The message says what is wrong with a token, and quotes nothing of it."""


class UnfitKey(ValueError):
    """A public key that must not verify tokens; the message says why."""


class PublishedKeys:
    """The keys that an identity provider publishes (JWKS, RFC 7517), found by their `kid`.

    While the provider does not answer, known keys are used for up to `lifetime` seconds after they
    were fetched, and a token with an unknown `kid` cannot be checked. If a `kid` gets another key,
    its new tokens are refused until the keys are fetched again, after KEYS_TTL seconds."""

    def __init__(
        self,
        place: str,
        lifetime: float = KEYS_LIFETIME,
        find_url: Callable[[], str] | None = None,
        file: str | None = None,
    ) -> None:
        """`place` is the URL of the keys; or, with `find_url`, the identity provider, whose URL of
        keys that function finds (it raises ValueError if it cannot). The keys are also stored in
        `file`, so that a process has them when it starts."""
        self._find_url = find_url or (lambda: place)
        self._wire = wire.HTTPClient("")  # for the URL that was found last
        # Tokens that wait for the provider. All tokens with an unknown `kid` together get half of
        # the places.
        self.waiting = Bulkhead(WAITING)
        self._logged = ""  # what the log says about the set that was fetched last
        self._place, self._file = wire.without_password(place), file
        # The keys may have been rotated: so an unknown `kid` fetches them again, but at most once a
        # second, and after a failure not before as many seconds as it took.
        name = f"The keys {'of' if find_url else 'at'} {self._place}"
        self.published = SingleFlight(
            name, self._fetch, KEYS_TTL, FAILURE_TTL, cooldown=1, lifetime=lifetime
        )
        self._kids: set[str | None] = set()  # of the last set, also if it has expired
        self._load_stored()

    def prefetch(self) -> None:
        """Fetch the keys in the background if they are due, so that no token need wait for them.

        A worker begins as a copy of its master, which has only what was stored before it started.
        So what has been stored since is loaded first."""
        self._load_stored()
        self.published.begin()

    def keys_for(self, token: str, release_slot: Callable[[], None] = lambda: None) -> list:
        """The (algorithm, key) pairs of the token's `kid`. If they are not cached, calls
        `release_slot` and waits for the provider. Raises InvalidToken; ServiceUnavailable if the
        provider does not answer."""
        since, kid = time.monotonic(), jwt.get_unverified_header(token).get("kid")
        if keys := (self.published.at_hand() or {}).get(kid):
            return keys
        with self.waiting.slot(token if kid in self._kids else UNKNOWN):
            release_slot()
            keys = self._fetch_again(since, kid).get(kid)
        if not keys:
            raise InvalidToken(
                "The token was signed with a key that the identity provider does not publish, "
                "or a weak one."
            )
        return keys

    def _fetch_again(self, since: float, kid: str | None) -> dict:
        try:
            return self.published.get_newer(since, KEYS_TIMEOUT, lambda keys: kid in keys)
        except (wire.Fault, TimeoutError, *wire.NOT_UNDERSTOOD) as failure:
            if kid in (stored := self.published.at_hand() or {}):
                return stored
            unavailable = ServiceUnavailable(
                "The identity provider does not answer. Ask again later.", retry_after=5
            )
            raise unavailable from ValueError(
                f"{self.published.name} cannot be had: {type(failure).__name__} {failure}"
            )

    def _fetch(self) -> dict:
        """The (algorithm, key) pairs by `kid`, which several keys may share. An unfit key does not
        affect the others."""
        self._load_stored()  # another process may have fetched newer ones since
        call = wire.Call(KEYS_TIMEOUT)  # its time includes that of `_find_url`
        if (url := self._find_url()) != self._wire.base_url:
            self._wire = wire.HTTPClient(url)
        document = fetch_json(self._wire, call)
        if isinstance(document, dict) and "jwks_uri" in document and "keys" not in document:
            found = json.dumps(document["jwks_uri"])[:200]
            raise ValueError(f"this is a discovery document; write its jwks_uri, {found}")
        published = document["keys"]
        if not isinstance(published, list):
            raise ValueError("its keys are not a list")
        keys = self._read_keys(published)
        self._store(published)
        return keys

    def _read_keys(self, published: list) -> dict:
        keys, refused = {}, {}
        for number, each in enumerate(published[:MOST_KEYS]):
            try:
                _add_key(each, keys)
            except Exception as error:
                # PyJWT raises all kinds of errors for a malformed key, and their messages may quote
                # a secret one.
                refused[number] = (
                    str(error) if isinstance(error, UnfitKey) else type(error).__name__
                )
        self._log_problems(len(published), keys, refused)
        self._kids = set(keys)
        return keys

    def _store(self, published: list) -> None:
        """Store the keys for processes that start later. Only this user can read them."""
        if self._file is None:
            return
        kept = {"place": self._place, "at": time.time(), "keys": published}
        draft = f"{self._file}.{os.getpid()}"
        try:
            os.makedirs(os.path.dirname(self._file), 0o700, exist_ok=True)
            with open(draft, "w", encoding="utf-8", opener=_for_owner_only) as file:
                json.dump(kept, file)
            os.replace(draft, self._file)
        except OSError as error:
            text = "%s cannot be stored in %s (%s): a server that starts while it is down has none"
            log.warning(text, self.published.name, self._file, error.strerror)
            self._file = None

    def _load_stored(self) -> None:
        """Use the keys that another process has stored, if they come from the same place, and are
        not too old."""
        if self._file is None:
            return
        with contextlib.suppress(OSError, KeyError, TypeError, *wire.NOT_UNDERSTOOD):
            kept = json.loads(pathlib.Path(self._file).read_text("utf-8"))
            age = time.time() - kept["at"]
            if kept["place"] == self._place and age > -LEEWAY:
                self.published.remember(self._read_keys(list(kept["keys"])), max(0, age))

    def _log_problems(self, count: int, keys: dict, refused: dict) -> None:
        """Log what is wrong with this set, unless that is what was logged last."""
        sentences = []
        if not keys:
            name = self.published.name
            sentences.append(f"{name} are withdrawn or all unfit: every token is refused.")
        if count > MOST_KEYS:
            sentences.append(f"Only the first {MOST_KEYS} of {count} published keys are read.")
        if refused:
            sentences.append(f"Of {count} published keys, these are not used: {str(refused)[:500]}")
        before, self._logged = self._logged, " ".join(sentences)
        if self._logged not in ("", before):
            log.log(logging.WARNING if keys else logging.ERROR, "%s", self._logged)


def _for_owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def fetch_json(way: wire.HTTPClient, call: wire.Call) -> Any:
    """The JSON document that an identity provider publishes. Raises a Fault; ValueError or
    RecursionError if it is not JSON."""
    with way.request(call, "GET", "", {"Accept": "application/json"}) as response:
        if response.status != 200:
            raise ValueError(f"status {response.status}")
        return json.loads(wire.join(response.chunks(), PUBLISHED_SIZE))


def _add_key(published: dict, keys: dict) -> None:
    """Add a published key to `keys`, under its `kid`. Raises UnfitKey, whose message says why, or
    any other exception, if the key is not for tokens."""
    if len(keys.get(published.get("kid"), ())) == MOST_OF_A_KID:
        raise UnfitKey(f"{MOST_OF_A_KID} others have the same kid")
    key = jwt.PyJWK(published, "EdDSA" if published.get("alg") == "Ed25519" else None)
    algorithm_of(key.key)
    operations = published.get("key_ops", ["verify"])
    if key.public_key_use not in (None, "sig") or "verify" not in operations:
        raise UnfitKey("it is not for signatures")
    keys.setdefault(key.key_id, []).append((key.algorithm_name, key.key))


def algorithm_of(key: Any) -> str:
    """The algorithm with which this public key verifies. Raises UnfitKey; ValueError if it is of
    another type."""
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
    raise ValueError("its type is not Ed25519, EC or RSA")


def public_keys(text: str) -> list[tuple[str, Any]]:
    """The (algorithm, key) pairs of public keys in PEM, or in base64 of PEM. Raises UnfitKey,
    ValueError or UnsupportedAlgorithm."""
    text = text.replace("\\n", "\n")
    if not text.startswith("-----BEGIN"):
        text = base64.b64decode(text).decode("ascii")
    blocks = re.findall(
        "-----BEGIN (?:RSA )?PUBLIC KEY-----.+?-----END (?:RSA )?PUBLIC KEY-----", text, re.DOTALL
    )
    keys = [serialization.load_pem_public_key(block.encode()) for block in blocks or [text]]
    return [(algorithm_of(key), key) for key in keys]


def public_key_advice(text: str) -> str:
    """What is wrong with a text that is not a public key, and what to give instead."""
    return next(
        advice for pattern, advice in _PUBLIC_KEY_ADVICE.items() if re.search(pattern, text)
    )


def own_key(path: str) -> ed25519.Ed25519PrivateKey:
    """The Ed25519 key in this file (PEM, PKCS #8, mode 0600), which is created if it does not
    exist. If several processes create it at the same time, one wins, and all get its key. Raises
    ValueError, TypeError if it is encrypted, or OSError."""
    if not os.path.exists(path):
        form = (
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        pem = ed25519.Ed25519PrivateKey.generate().private_bytes(*form)
        with (
            tempfile.NamedTemporaryFile(dir=os.path.dirname(path), buffering=0) as draft,
            contextlib.suppress(FileExistsError),
        ):
            draft.write(pem)  # NamedTemporaryFile makes it with mode 0600
            os.fsync(draft.fileno())
            os.link(draft.name, path)
    key = serialization.load_pem_private_key(pathlib.Path(path).read_bytes(), None)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ValueError("it does not hold an Ed25519 private key")
    return key
