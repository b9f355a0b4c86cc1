"""Tokens: which key verifies them, what they must say, and making one."""

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
    public_keys,
    why_no_public_key,
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

# The name in RFC 9864 of what was EdDSA.
jwt.register_algorithm("Ed25519", jwt.get_algorithm_by_name("EdDSA"))

KEY_FILE = "jwt_key.pem"  # the server's own key, in its folder
PUBLISHED_FILE = "published_keys.json"  # the identity provider's, in the same folder
LEEWAY = 30  # seconds by which clocks may differ
PROXY = "proxy:/"  # what the subject begins with of a user whom a trusted proxy names
# What follows. A comma joins two headers of one name. The name is the last segment of the subject,
# which `/`, `?` and `#` would end. Where they have no name, Caddy sends
# `{http.reverse_proxy.header.Remote-User}`, and Apache `(null)`.
PROXY_NAME = re.compile(r"(?!\{.*\}$|\(null\)$)((?![,/?#])[!-~]){1,200}")
PROXY_NAME_ADVICE = (
    "A name has 1 to 200 characters of ASCII, no space, comma, slash, ? or #. "
    "It is no place-holder, such as {…} or (null)."
)
LONGEST_SUBJECT = 255  # characters, as in OpenID Connect Core 1.0, section 2
# Who signs their own tokens on a laptop: the page, `flask chat` and the README's curl.
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
    """A user: the owner of sessions, what the page calls them, and the e-mail that their identity
    provider has verified, if there is one."""

    subject: str
    name: str
    email: str | None = None


class Tokens:
    """Verifies tokens, and signs them where it has a key for that."""

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
        self._made_for = self.audience or settings["OIDC_CLIENT_ID"]  # the aud of what it signs
        self.local_user = local_user(settings) if signing else LOCAL_USER
        self.has_own_key = has_own_key  # which this server has made
        self._keys_for = keys_for  # the pairs any of which may have signed a token
        self.signing = signing  # such a pair, or None
        self.provider = provider  # at which the page signs people in, where there is one
        self.published = published  # the keys of an identity provider, if these verify tokens
        # A sentence for a user without a token.
        self.source = f"Tokens for this server come from {self.issuer}."
        if settings["JWT_PUBLIC_KEY"] and self.issuer == SETTINGS["JWT_ISSUER"].default:
            self.source = "The person who runs this server has tokens for it, or links with one."
        if provider:
            self.source = f"Sign in at {self.issuer}."
        if signing:
            where = "On the server" if home() else "On the server, in Parley's folder"
            self.source = f"{where}, `{command()} token {self.local_user}` prints one."

    def verify(self, token: str, step_aside: Callable[[], None] = lambda: None) -> Identity:
        """Who has this token. Before an identity provider is waited for, `step_aside` is called.
        Raises InvalidToken; ServiceUnavailable if its key cannot be had."""
        try:
            for algorithm, key in self._keys_for(token, step_aside):
                try:
                    return self._identity(self._decode(token, algorithm, key))
                except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                    continue  # another key may have signed it
        except (jwt.InvalidTokenError, ValueError, OverflowError) as error:
            raise InvalidToken(_told_of(error, token)) from None
        raise InvalidToken(
            f"The token was not signed with a key and algorithm of this server. {self.source}"
        )

    def _decode(self, token: str, algorithm: str, key: Any) -> dict[str, Any]:
        # Where there is an audience, a token must have it, too; that of a client is seen below.
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
            raise InvalidToken("The token is malformed: its times are no numbers.")
        if not names_somebody(claims["sub"]):
            raise InvalidToken("The token's sub names nobody.")
        if claims["sub"].startswith(PROXY) and not self._is_own():
            raise InvalidToken(f"Only a token of this server's own may have {PROXY} in its sub.")
        self._check_audience(claims, token)
        return claims

    def _check_audience(self, claims: Mapping[str, Any], token: str) -> None:
        """Raises InvalidToken where a token is neither for JWT_AUDIENCE nor an ID token of the
        client that signs people in here."""
        if self.provider and self.audience not in audiences_in(claims):
            header = jwt.get_unverified_header(token)
            check_id_token(claims, header, self.provider.client_id)

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        """Another server than one that signs people in by OpenID Connect looks at `sub` alone."""
        subject = claims["sub"]
        if self.provider is None:
            return Identity(subject, name_of(subject))
        return Identity(subject, name_in(claims) or name_of(subject), email_in(claims))

    def _is_own(self) -> bool:
        """Whether this server's own key or secret signs what is verified here. Another's tokens
        name no user of the trusted proxy."""
        # What signs with `--key` verifies nothing.
        return bool(self.signing and self._keys_for)

    def compare(self, token: str) -> str:
        """What a token that is refused names, and what it must name here, for the log. Nothing is
        shown of what is no token."""
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
        return f"It names {', '.join(shown)}; taken are iss {self.issuer}, aud {audience}."

    def sign(self, subject: str, days: int) -> str:
        """A token for this subject. Raises InvalidToken where this server would not take it, or
        cannot sign it."""
        if not names_somebody(subject):
            advice = f"Give from 1 to {LONGEST_SUBJECT} characters in UTF-8, not all blank."
            raise InvalidToken(f"The subject names nobody. {advice}")
        if subject.startswith(PROXY) and not PROXY_NAME.fullmatch(subject.removeprefix(PROXY)):
            raise InvalidToken(f"No proxy names this user. {PROXY_NAME_ADVICE}")
        if subject.startswith(PROXY) and self.signing and not self._is_own():
            raise InvalidToken(
                "Only this server's own key or secret signs for a proxy's user: leave --key out."
            )
        if self.signing is None:
            raise InvalidToken(self._why_it_signs_not())
        algorithm, key = self.signing
        now = int(time.time())
        claims = {"iss": self.issuer, "iat": now, "exp": now + days * 86400, "sub": subject}
        return jwt.encode(
            claims | ({"aud": self._made_for} if self._made_for else {}), key, algorithm
        )

    def _why_it_signs_not(self) -> str:
        if self.provider:
            return f"People sign in at {self.issuer}: this server signs no tokens."
        return "This server only has public keys: tokens come from the holder of the private one."


def _told_of(error: Exception, token: str) -> str:
    """What is told of a token that PyJWT refuses by this error."""
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"The token lacks the claim {error.claim}."
    told = REFUSALS.get(type(error)) or flaw_of(token)
    if isinstance(error, jwt.ImmatureSignatureError):
        # PyJWT takes a text for a time, and times for which there is no date.
        with contextlib.suppress(TypeError, ValueError, OverflowError, OSError):
            claims = jwt.decode(token, options={"verify_signature": False})
            since = max(claims.get("iat", 0), claims.get("nbf", 0))
            now = _time(time.time())
            told += f" This server's clock says {now}; the token is valid from {_time(since)}."
    return told


def _time(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(int(seconds), datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


def flaw_of(token: str) -> str:
    """What is wrong with the form of what was sent as a token, as it may come of pasting one."""
    if not token:
        return "The token is empty."
    if "<" in token:
        return "Send a token in the place of <token>."
    if token.startswith(("'", '"')) or token.endswith(("'", '"')):
        return "The token stands in quotes. Send it without them."
    if token.count(".") != 2:
        return "The token is not whole: it has three parts, with dots between."
    return "The token is malformed."


def name_of(subject: str) -> str:
    """The user's name: the last segment of the path of a `sub` that is a URL; of another one, what
    is behind its last slash. Nothing is trimmed: behind a slash at the end there is no name."""
    url = re.match("[^:/?#]+://[^/?#]*([^?#]*)", subject)  # as in RFC 3986, appendix B
    return (url[1] if url else subject).rpartition("/")[2]


def local_user(settings: Settings) -> str:
    """Who signs their own tokens here: LOCAL_USER, or the first user who is allowed, if that one
    is not."""
    blocked = settings["BLOCKED_USERS"] or ()
    allowed = [name for name in settings["ALLOWED_USERS"] or () if name not in blocked]
    if not allowed or name_of(LOCAL_USER) in allowed:
        return LOCAL_USER
    return f"{LOCAL_USER.rpartition('/')[0]}/{allowed[0]}"


def proxy_subject(name: str) -> str | None:
    """The subject of the user whom a trusted proxy calls by this name; None where nobody can be
    called that."""
    return f"{PROXY}{name}" if PROXY_NAME.fullmatch(name) else None


def names_somebody(subject: str) -> bool:
    return 1 <= len(subject.strip()) <= LONGEST_SUBJECT and not wire.UNSTORABLE.search(subject)


def signing_with(path: str, settings: Settings) -> Tokens:
    """What signs tokens with the private key in this file. Raises InvalidToken, which says why it
    cannot sign."""
    data = b""
    try:
        data = pathlib.Path(path).read_bytes()
        key = serialization.load_pem_private_key(data, None)
        return Tokens(settings, None, (algorithm_of(key.public_key()), key))
    except (OSError, TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise InvalidToken(f"{path} cannot sign: {_why_it_signs_not(error, path, data)}.") from None


def _why_it_signs_not(error: Exception, path: str, data: bytes) -> str:
    """What is wrong with this file, which has this in it. Nothing is shown of that: it may be a
    secret."""
    if isinstance(error, UnfitKey):
        return str(error)
    if isinstance(error, OSError):
        return str(error.strerror)
    if isinstance(error, TypeError):
        return f"it is encrypted; `openssl pkey -in {path}` prints it plain"
    if b" PUBLIC KEY-" in data:
        return "it is a public key"
    return "it is no Ed25519, EC or RSA private key in PEM"


def _tokens_by_published_keys(settings: Settings, folder: str) -> Tokens:
    """What verifies tokens by the keys at JWT_JWKS_URL, else by those that the identity provider
    names where people sign in."""
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
        problem = "it is a key; a public key goes into JWT_PUBLIC_KEY"
        raise SettingError("JWT_SECRET", problem) from None
    return Tokens(settings, lambda token, step_aside: [pair], pair)


def open_tokens(settings: Settings, folder: str) -> Tokens:
    """What verifies tokens by these settings; the server's own key has its place in the folder.
    Raises SettingError."""
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
            problem = why_no_public_key(settings["JWT_PUBLIC_KEY"])
            raise SettingError("JWT_PUBLIC_KEY", problem) from None
        return Tokens(settings, lambda token, step_aside: keys)
    path = os.path.join(ensure_folder(folder, "JWT_PUBLIC_KEY"), KEY_FILE)
    try:
        key = own_key(path)
    except (ValueError, TypeError):
        problem = f"it is not set, and {path} is no Ed25519 key in PEM"
        raise SettingError("JWT_PUBLIC_KEY", problem) from None
    except OSError as error:
        problem = f"it is not set, and {path}, this server's own key, cannot be read or made"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            problem += f": {whose(path)}; make it this server's: chown"
        else:
            problem += f" ({error.strerror})"
        raise SettingError("JWT_PUBLIC_KEY", problem) from None
    pairs = [("EdDSA", key.public_key())]
    return Tokens(settings, lambda token, step_aside: pairs, ("EdDSA", key), has_own_key=True)
