"""Tokens: which keys verify them, which claims they must have, and how to sign one."""

import contextlib
import datetime
import errno
import json
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

import wire
from keys import (
    InvalidToken,
    PublishedKeys,
    UnfitKey,
    algorithm_of,
    own_key,
    public_key_advice,
    public_keys,
)
from oidc import (
    OTHER_AUDIENCE,
    IdentityProvider,
    audiences_in,
    check_id_token,
    email_in,
    name_in,
)
from settings import SETTINGS, SettingError, command, ensure_folder, home, whose

# RFC 9864 names EdDSA with this curve so.
jwt.register_algorithm("Ed25519", jwt.get_algorithm_by_name("EdDSA"))

KEY_FILE = "jwt_key.pem"  # the server's own key, in its folder
PUBLISHED_FILE = "published_keys.json"  # the identity provider's keys, in the same folder
LEEWAY = 30  # seconds by which clocks may differ
PROXY = "proxy:/"  # the start of the subject of a user whom a trusted proxy names
# A user name that a proxy may send. No comma, since that joins two headers of one name; no `/`, `?`
# and `#`, since the name is the last segment of the subject. Without a name, Caddy sends
# `{http.reverse_proxy.header.Remote-User}`, and Apache `(null)`.
PROXY_NAME = re.compile(r"(?!\{.*\}$|\(null\)$)((?![,/?#])[!-~]){1,200}")
PROXY_NAME_ADVICE = (
    "A name has 1 to 200 ASCII characters, without spaces, commas, slashes, ? and #, and is not a "
    "placeholder such as {…} or (null)."
)
LONGEST_SUBJECT = 255  # characters, as in OpenID Connect Core 1.0, section 2
# The user on a laptop: of the page, `flask chat` and the README's curl.
LOCAL_USER = "https://github.com/you"


REFUSALS = {
    jwt.ExpiredSignatureError: "The token has expired. Get a new one.",
    jwt.ImmatureSignatureError: "The token is not valid yet.",
    jwt.InvalidIssuerError: "The token is by another issuer.",
    jwt.InvalidAudienceError: OTHER_AUDIENCE,
}

Settings = Mapping[str, Any]
Pair = tuple[str, Any]  # an algorithm, and a key for it


class Identity(NamedTuple):
    """A user."""

    subject: str  # the owner of their sessions
    name: str  # what the page calls them
    email: str | None = None  # only if their identity provider has verified it


class Tokens:
    """Verifies tokens, and signs them if it has a key for that."""

    def __init__(
        self,
        settings: Settings,
        keys_for: Callable[[str, Callable[[], None]], Iterable[Pair]] | None,
        signing: Pair | None = None,
        has_own_key: bool = False,
        published: PublishedKeys | None = None,
        provider: IdentityProvider | None = None,
    ) -> None:
        self.issuer, self.audience = settings["JWT_ISSUER"], settings["JWT_AUDIENCE"]
        self._aud_to_sign = self.audience or settings["OIDC_CLIENT_ID"]  # `aud` of tokens it signs
        self.local_user = local_user(settings) if signing else LOCAL_USER
        self.has_own_key = has_own_key  # a key that this server has generated
        self._keys_for = keys_for  # the pairs of which one may verify this token
        self.signing = signing
        self.provider = provider  # at which the page signs people in, if there is one
        self.published = published  # the keys of an identity provider, if these verify tokens
        # Tells a user without a token how to get one.
        self.source = f"Tokens for this server come from {self.issuer}."
        if settings["JWT_PUBLIC_KEY"] and self.issuer == SETTINGS["JWT_ISSUER"].default:
            self.source = "The person who runs this server has tokens for it, or links with one."
        if provider:
            self.source = f"Sign in at {self.issuer}."
        if signing:
            where = "On the server" if home() else "On the server, in Parley's folder"
            self.source = f"{where}, `{command()} token {self.local_user}` prints one."

    def verify(self, token: str, release_slot: Callable[[], None] = lambda: None) -> Identity:
        """The user of this token. Calls `release_slot` before it waits for an identity provider.
        Raises InvalidToken; ServiceUnavailable if the key cannot be fetched."""
        try:
            for algorithm, key in self._keys_for(token, release_slot):
                try:
                    return self._identity(self._decode(token, algorithm, key))
                except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                    continue  # another key may have signed it
        except (jwt.InvalidTokenError, ValueError, OverflowError) as error:
            raise InvalidToken(_refusal_of(error, token)) from None
        raise InvalidToken(
            f"The token was not signed with a key and algorithm of this server. {self.source}"
        )

    def _decode(self, token: str, algorithm: str, key: Any) -> dict[str, Any]:
        # With an identity provider, the audience is checked below: an ID token will do, too.
        has_audience = bool(self.audience) and not self.provider
        options = {"require": ["iss", "iat", "exp", "sub"], "verify_aud": has_audience}
        algorithms = [algorithm, "Ed25519"] if algorithm == "EdDSA" else [algorithm]
        claims = jwt.decode(
            token,
            key,
            algorithms,
            options,
            issuer=self.issuer,
            audience=self.audience,
            leeway=LEEWAY,
        )
        if any(type(claims.get(name, 0)) not in (int, float) for name in ("iat", "exp", "nbf")):
            raise InvalidToken("The token is malformed: its times are not numbers.")
        if not is_valid_subject(claims["sub"]):
            raise InvalidToken("The token's sub names nobody.")
        if claims["sub"].startswith(PROXY) and not self._is_own():
            raise InvalidToken(f"Only a token that this server signed may have {PROXY} in its sub.")
        # With an identity provider, a token is for JWT_AUDIENCE, or is an ID token of our client.
        if self.provider and self.audience not in audiences_in(claims):
            check_id_token(claims, jwt.get_unverified_header(token), self.provider.client_id)
        return claims

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        """The user that these claims name. Without OpenID Connect, only `sub` counts."""
        subject = claims["sub"]
        if self.provider is None:
            return Identity(subject, name_of(subject))
        return Identity(subject, name_in(claims) or name_of(subject), email_in(claims))

    def _is_own(self) -> bool:
        """Whether this server itself signs the tokens that it verifies. Other issuers must not name
        users of the trusted proxy."""
        # `flask token --key` signs, but verifies nothing.
        return bool(self.signing and self._keys_for)

    def compare(self, token: str) -> str:
        """For the log: the claims of a token that was refused, and what they must be here; "" if it
        is no token at all."""
        try:
            whole = jwt.decode_complete(token, options={"verify_signature": False})
            named = whole["payload"] | whole["header"]
            ago = time.time() - named.get("exp", float("inf"))
        except (jwt.InvalidTokenError, OverflowError, *wire.NOT_UNDERSTOOD):
            return ""
        names = ("alg", "kid", "iss", "aud", *(("azp",) if self.provider else ()))
        shown = [f"{name} {json.dumps(named.get(name))[:100]}" for name in names]
        if ago > 0:
            shown.append(f"and expired {ago:.0f} s ago")
        audience = self.audience
        if self.provider:
            audience = " or ".join(filter(None, (audience, self.provider.client_id)))
        return f"It has {', '.join(shown)}; expected are iss {self.issuer}, aud {audience}."

    def sign(self, subject: str, days: int) -> str:
        """A token for this subject. Raises InvalidToken if this server cannot sign it, or would not
        accept it."""
        if not is_valid_subject(subject):
            advice = f"Give from 1 to {LONGEST_SUBJECT} characters in UTF-8, not only spaces."
            raise InvalidToken(f"The subject names nobody. {advice}")
        if subject.startswith(PROXY) and not PROXY_NAME.fullmatch(subject.removeprefix(PROXY)):
            raise InvalidToken(f"A proxy cannot name this user. {PROXY_NAME_ADVICE}")
        if subject.startswith(PROXY) and self.signing and not self._is_own():
            raise InvalidToken(
                "Only this server's own key or secret can sign for a proxy's user: leave --key out."
            )
        if self.signing is None:
            why = (
                "This server only has public keys: tokens come from the holder of the private one."
            )
            if self.provider:
                why = f"People sign in at {self.issuer}: this server signs no tokens."
            raise InvalidToken(why)
        algorithm, key = self.signing
        now = int(time.time())
        claims = {"iss": self.issuer, "iat": now, "exp": now + days * 86400, "sub": subject}
        return jwt.encode(
            claims | ({"aud": self._aud_to_sign} if self._aud_to_sign else {}), key, algorithm
        )


def _refusal_of(error: Exception, token: str) -> str:
    """The error message about a token that PyJWT refused with this error."""
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"The token lacks the claim {error.claim}."
    sentence = REFUSALS.get(type(error)) or flaw_of(token)
    if isinstance(error, jwt.ImmatureSignatureError):
        # PyJWT accepts strings as times, and times that are no date.
        with contextlib.suppress(TypeError, ValueError, OverflowError, OSError):
            claims = jwt.decode(token, options={"verify_signature": False})
            since = max(claims.get("iat", 0), claims.get("nbf", 0))
            now = _time(time.time())
            sentence += f" This server's clock says {now}; the token is valid from {_time(since)}."
    return sentence


def _time(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(int(seconds), datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


def flaw_of(token: str) -> str:
    """What is wrong with the form of a token, mostly mistakes of copying and pasting."""
    if not token:
        return "The token is empty."
    if "<" in token:
        return "Send a token in the place of <token>."
    if token.startswith(("'", '"')) or token.endswith(("'", '"')):
        return "The token is in quotes. Send it without them."
    if token.count(".") != 2:
        return "The token is incomplete: it must have three parts, with dots between them."
    return "The token is malformed."


def name_of(subject: str) -> str:
    """The user's name: the last segment of the path if the `sub` is a URL, or else all after its
    last slash. Nothing is trimmed: after a slash at the end, the name is empty."""
    url = re.match("[^:/?#]+://[^/?#]*([^?#]*)", subject)  # as in RFC 3986, appendix B
    return (url[1] if url else subject).rpartition("/")[2]


def local_user(settings: Settings) -> str:
    """The user for whom this server prints tokens: LOCAL_USER or, if that one is not allowed, the
    first who is."""
    blocked = settings["BLOCKED_USERS"] or ()
    allowed = [name for name in settings["ALLOWED_USERS"] or () if name not in blocked]
    if not allowed or name_of(LOCAL_USER) in allowed:
        return LOCAL_USER
    return f"{LOCAL_USER.rpartition('/')[0]}/{allowed[0]}"


def proxy_subject(name: str) -> str | None:
    """The subject of the user whom a trusted proxy calls this; None if it is no possible name."""
    return f"{PROXY}{name}" if PROXY_NAME.fullmatch(name) else None


def is_valid_subject(subject: str) -> bool:
    return 1 <= len(subject.strip()) <= LONGEST_SUBJECT and not wire.UNSTORABLE.search(subject)


def open_private_key(path: str, settings: Settings) -> Tokens:
    """Tokens that are signed with the private key in this file. Raises InvalidToken, which says why
    the file cannot sign."""
    data = b""
    try:
        data = pathlib.Path(path).read_bytes()
        key = serialization.load_pem_private_key(data, None)
        return Tokens(settings, None, (algorithm_of(key.public_key()), key))
    except (OSError, TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise InvalidToken(
            f"{path} cannot sign: {_cannot_sign_reason(error, path, data)}."
        ) from None


def _cannot_sign_reason(error: Exception, path: str, data: bytes) -> str:
    """What is wrong with this key file. Shows none of its data, which may be a secret."""
    if isinstance(error, UnfitKey):
        return str(error)
    if isinstance(error, OSError):
        return str(error.strerror)
    if isinstance(error, TypeError):
        return f"it is encrypted; `openssl pkey -in {path}` prints it decrypted"
    if b" PUBLIC KEY-" in data:
        return "it is a public key"
    return "it is not an Ed25519, EC or RSA private key in PEM"


def _tokens_by_published_keys(settings: Settings, folder: str) -> Tokens:
    """Tokens that are verified with the keys at JWT_JWKS_URL, or else with those of the identity
    provider at which people sign in."""
    file = os.path.join(folder, PUBLISHED_FILE)
    provider = IdentityProvider(settings) if settings["OIDC_CLIENT_ID"] else None
    if settings["JWT_JWKS_URL"] or provider is None:
        keys = PublishedKeys(settings["JWT_JWKS_URL"], file=file)
    else:
        keys = PublishedKeys(provider.issuer, find_url=provider.find_keys, file=file)
    return Tokens(settings, keys.keys_for, published=keys, provider=provider)


def _tokens_by_secret(settings: Settings) -> Tokens:
    pair = ("HS256", settings["JWT_SECRET"])
    try:
        jwt.encode({}, pair[1], pair[0])
    except jwt.InvalidKeyError:
        problem = "it is a key, not a secret; put a public key into JWT_PUBLIC_KEY"
        raise SettingError("JWT_SECRET", problem) from None
    return Tokens(settings, lambda token, release_slot: [pair], pair)


def open_tokens(settings: Settings, folder: str) -> Tokens:
    """Tokens as these settings want them verified and signed. The server's own key is in the
    folder. Raises SettingError."""
    if settings["JWT_JWKS_URL"] or settings["OIDC_CLIENT_ID"]:
        return _tokens_by_published_keys(settings, folder)
    if settings["JWT_SECRET"]:
        return _tokens_by_secret(settings)
    if settings["JWT_PUBLIC_KEY"]:
        try:
            keys = public_keys(settings["JWT_PUBLIC_KEY"])
        except UnfitKey as error:
            raise SettingError("JWT_PUBLIC_KEY", str(error)) from None
        except (ValueError, UnsupportedAlgorithm):
            problem = public_key_advice(settings["JWT_PUBLIC_KEY"])
            raise SettingError("JWT_PUBLIC_KEY", problem) from None
        return Tokens(settings, lambda token, release_slot: keys)
    path = os.path.join(ensure_folder(folder, "JWT_PUBLIC_KEY"), KEY_FILE)
    try:
        key = own_key(path)
    except (ValueError, TypeError):
        problem = f"it is not set, and {path} is not an Ed25519 key in PEM"
        raise SettingError("JWT_PUBLIC_KEY", problem) from None
    except OSError as error:
        problem = f"it is not set, and {path}, this server's own key, cannot be read or created"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            problem += f": {whose(path)}; give it to the server's user: chown"
        else:
            problem += f" ({error.strerror})"
        raise SettingError("JWT_PUBLIC_KEY", problem) from None
    pairs = [("EdDSA", key.public_key())]
    return Tokens(settings, lambda token, release_slot: pairs, ("EdDSA", key), has_own_key=True)
