"""Keys for tokens: those that an identity provider publishes, those of the settings, and the
server's own."""

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
FAILURE_TTL = 5  # seconds after which an identity provider that has failed is asked again
KEYS_LIFETIME = 24 * 3600  # seconds after which keys end that the identity provider did not confirm
PUBLISHED_SIZE = 2**20  # bytes of what an identity provider publishes
MOST_KEYS = 1000  # of a set that are looked at
MOST_OF_A_KID = 8  # keys: a token is held against each of its kid
UNKNOWN = ""  # the user of `waiting` that all tokens of unknown keys are
LEEWAY = 30  # seconds by which a clock may be set back
WAITING = 16  # tokens that wait for an identity provider; a server sets it by its threads
# A key of Ed25519 is a point, encoded as its y, in the field of this prime, and a bit for x (RFC
# 8032, 5.1). Anyone can sign for a point of small order. These eight have y = 0, 1 or -1, or the y
# of order 8 or its negative; libsodium refuses the same.
P = 2**255 - 19
Y_OF_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_EC_ALGORITHMS = {
    "secp256r1": "ES256",
    "secp384r1": "ES384",
    "secp521r1": "ES512",
    "secp256k1": "ES256K",
}


# What is given as a public key, and is none, in PEM or in base64 of PEM, which begins with LS0t.
_NO_PUBLIC_KEYS = {
    "PRIVATE KEY-|LS0tLS1CRUdJTi(BQUklWQVRF|BSU0EgUFJJVkFU|BFQyBQUklWQVRF|BFTkNSWVBURUQg"
    "|BPUEVOU1NIIFBS)": (
        "this is a private key, which only signs tokens; give its public half: "
        "openssl pkey -in private.pem -pubout"
    ),
    "CERTIFICATE-|LS0tLS1CRUdJTiBDRVJUSUZJ": (
        "this is a certificate; give its public key: "
        "openssl x509 -in certificate.pem -noout -pubkey"
    ),
    "^(ssh|ecdsa|sk)-": (
        "this is a key of OpenSSH; give it in PEM: ssh-keygen -e -m PKCS8 -f key.pub"
    ),
    r"^([.~/]|[A-Za-z]:)|^(?!LS0t).*\.\w{3}$": (
        "this is a path; give the key itself: what the file has in it, or its base64: "
        "base64 -w0 public.pem"
    ),
    "": "give an Ed25519, EC or RSA public key, in PEM or base64 of PEM",
}


class InvalidToken(Exception):
    """The text says what is wrong with the token, and shows nothing of it."""


class UnfitKey(ValueError):
    """A public key by which no token may be verified; the text says why."""


class PublishedKeys:
    """The keys that an identity provider publishes (JWKS, RFC 7517), found by their `kid`."""

    def __init__(
        self,
        place: str,
        lifetime: float = KEYS_LIFETIME,
        find_url: Callable[[], str] | None = None,
        file: str | None = None,
    ) -> None:
        """`place` is their URL; or, if that has to be found first, the identity provider, and
        `find_url` raises ValueError if it is not found. The keys are kept in the `file`, so that a
        process that starts has them at once."""
        self._find_url = find_url or (lambda: place)
        self._wire = wire.Wire("")  # to the URL that was found last
        # Room for tokens that wait for it. All tokens of unknown keys have half of that, as one.
        self.waiting = Bulkhead(WAITING)
        self._said = ""  # of the set that was fetched last
        self._place, self._file = wire.without_password(place), file
        # An unknown kid has the keys fetched again, as they may have been rotated, but not more
        # than once a second.
        name = f"The keys {'of' if find_url else 'at'} {self._place}"
        self.published = SingleFlight(
            name, self._fetch, KEYS_TTL, FAILURE_TTL, cooldown=1, lifetime=lifetime
        )
        self._kids: set[str | None] = set()  # of the last set, also if it has expired
        self._remember()

    def begin(self) -> None:
        """Have them fetched, if it is time to, so that the first token need not wait."""
        self.published.begin()

    def keys_for(self, token: str, step_aside: Callable[[], None] = lambda: None) -> list:
        """The (algorithm, key) pairs of the token's kid. Only one not at hand is waited for, after
        `step_aside` is called. Raises InvalidToken; ServiceUnavailable if nobody can know whether
        there are such keys."""
        since, kid = time.monotonic(), jwt.get_unverified_header(token).get("kid")
        if keys := (self.published.at_hand() or {}).get(kid):
            return keys
        with self.waiting.slot(token if kid in self._kids else UNKNOWN):
            step_aside()
            keys = self._fetch_anew(since, kid).get(kid)
        if not keys:
            raise InvalidToken(
                "The token was signed with a key that the identity provider does not publish, "
                "or a weak one."
            )
        return keys

    def _fetch_anew(self, since: float, kid: str | None) -> dict:
        try:
            return self.published.get_newer(since, KEYS_TIMEOUT, lambda keys: kid in keys)
        except (wire.Fault, TimeoutError, *wire.NOT_UNDERSTOOD) as failure:
            told = ServiceUnavailable(
                "The identity provider does not answer. Ask again later.", retry_after=5
            )
            raise told from ValueError(
                f"{self.published.name} cannot be had: {type(failure).__name__} {failure}"
            )

    def _fetch(self) -> dict:
        """The (algorithm, key) pairs by `kid`, which several keys may share. Each key is judged by
        itself."""
        call = wire.Call(KEYS_TIMEOUT)  # the URL is found within this time
        if (url := self._find_url()) != self._wire.base_url:
            self._wire = wire.Wire(url)
        document = fetch_json(self._wire, call)
        if isinstance(document, dict) and "jwks_uri" in document and "keys" not in document:
            found = json.dumps(document["jwks_uri"])[:200]
            raise ValueError(f"this is a discovery document; write its jwks_uri, {found}")
        published = document["keys"]
        if not isinstance(published, list):
            raise ValueError("its keys are no list")
        keys = self._read(published)
        self._keep(published)
        return keys

    def _read(self, published: list) -> dict:
        keys, refused = {}, {}
        for number, each in enumerate(published[:MOST_KEYS]):
            try:
                _take(each, keys)
            except Exception as error:
                # PyJWT raises whatever the odd key brings about; its text may show a secret one.
                refused[number] = (
                    str(error) if isinstance(error, UnfitKey) else type(error).__name__
                )
        self._tell(len(published), keys, refused)
        self._kids = set(keys)
        return keys

    def _keep(self, published: list) -> None:
        """Store them for processes that start later. The folder is for this user alone."""
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
            text = "%s are not kept in %s (%s): a server that starts without that provider has none"
            log.warning(text, self.published.name, self._file, error.strerror)
            self._file = None

    def _remember(self) -> None:
        """Take those that another process has stored, if they are of the same place, and not too
        old."""
        if self._file is None:
            return
        with contextlib.suppress(OSError, KeyError, TypeError, *wire.NOT_UNDERSTOOD):
            kept = json.loads(pathlib.Path(self._file).read_text("utf-8"))
            age = time.time() - kept["at"]
            if kept["place"] == self._place and age > -LEEWAY:
                self.published.remember(self._read(list(kept["keys"])), max(0, age))

    def _tell(self, count: int, keys: dict, refused: dict) -> None:
        """Log what is wrong with this set, if that is another thing than what was said last."""
        sentences = []
        if not keys:
            name = self.published.name
            sentences.append(f"{name} are withdrawn, or none is taken: every token is refused.")
        if count > MOST_KEYS:
            sentences.append(f"Of {count} published keys the first {MOST_KEYS} are looked at.")
        if refused:
            sentences.append(f"Of {count} published keys these are not taken: {str(refused)[:500]}")
        said, self._said = self._said, " ".join(sentences)
        if self._said not in ("", said):
            log.log(logging.WARNING if keys else logging.ERROR, "%s", self._said)


def _for_owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def fetch_json(way: wire.Wire, call: wire.Call) -> Any:
    """What an identity provider publishes there. Raises a Fault, or ValueError or RecursionError
    where it is no JSON."""
    with way.request(call, "GET", "", {"Accept": "application/json"}) as response:
        if response.status != 200:
            raise ValueError(f"status {response.status}")
        return json.loads(wire.join(response.chunks(), PUBLISHED_SIZE))


def _take(published: dict, keys: dict) -> None:
    """Put a published key among the others of its kid. Raises whatever it may where it is none for
    tokens; the text of an UnfitKey says why."""
    if len(keys.get(published.get("kid"), ())) == MOST_OF_A_KID:
        raise UnfitKey(f"there are {MOST_OF_A_KID} of its kid")
    key = jwt.PyJWK(published, "EdDSA" if published.get("alg") == "Ed25519" else None)
    algorithm_of(key.key)
    operations = published.get("key_ops", ["verify"])
    if key.public_key_use not in (None, "sig") or "verify" not in operations:
        raise UnfitKey("it is not for signatures")
    keys.setdefault(key.key_id, []).append((key.algorithm_name, key.key))


def algorithm_of(key: Any) -> str:
    """The algorithm by which this public key verifies. Raises UnfitKey; ValueError where it is of
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
    raise ValueError("its type is none of Ed25519, EC and RSA")


def public_keys(text: str) -> list[tuple[str, Any]]:
    """The (algorithm, key) pairs of public keys in PEM, or in base64 of PEM. Raises ValueError or
    UnsupportedAlgorithm."""
    text = text.replace("\\n", "\n")
    if not text.startswith("-----BEGIN"):
        text = base64.b64decode(text).decode("ascii")
    blocks = re.findall(
        "-----BEGIN (?:RSA )?PUBLIC KEY-----.+?-----END (?:RSA )?PUBLIC KEY-----", text, re.DOTALL
    )
    keys = [serialization.load_pem_public_key(block.encode()) for block in blocks or [text]]
    return [(algorithm_of(key), key) for key in keys]


def why_no_public_key(text: str) -> str:
    """What to give in the place of a text that is no public key."""
    return next(advice for pattern, advice in _NO_PUBLIC_KEYS.items() if re.search(pattern, text))


def own_key(path: str) -> ed25519.Ed25519PrivateKey:
    """The Ed25519 key in this file (PEM, PKCS #8, mode 0600), which is made where there is none: of
    several processes that make one at the same time, one wins, and all have its key. Raises
    ValueError, TypeError where it is encrypted, or OSError."""
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
            draft.write(pem)  # its mode is 0600
            os.fsync(draft.fileno())
            os.link(draft.name, path)
    key = serialization.load_pem_private_key(pathlib.Path(path).read_bytes(), None)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ValueError("it does not hold an Ed25519 private key")
    return key
