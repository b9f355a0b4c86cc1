"""An identity provider of OpenID Connect: it describes itself, publishes a key, and signs ID tokens
with it.
"""

from client import ALICE, make_token
from provider import Provider, status
from tokens import RSA, jwk, jwks

CLIENT_ID = "parley"
REALM = "/realms/home"
DISCOVERY = f"{REALM}/.well-known/openid-configuration"


class Issuer:
    """`discovery` is the answer in place of its document, `document` is what the document says."""

    def __init__(self):
        self.provider = Provider()
        self.provider.models = self._answer
        self.url = self.provider.url + REALM
        self.document = described(self.url, self.provider.url)
        self.discovery = None
        self.keys = jwks(jwk(RSA.public_key(), "1"))
        self.settings = {
            "JWT_SECRET": "",
            "JWT_ISSUER": self.url,
            "OIDC_CLIENT_ID": CLIENT_ID,
        }

    def _answer(self, request):
        answers = {
            DISCOVERY: self.discovery or status(200, self.document),
            "/keys": self.keys,
        }
        yield from answers.get(request.path, status(404))(request)

    def token(self, subject=ALICE, typ="JWT", also=(), **claims):
        """An ID token, with the `typ` in its header; a claim of None is left out. `also` is for
        claims with the names of arguments here."""
        named = {"iss": self.url, "aud": CLIENT_ID} | claims | dict(also)
        return make_token(subject, RSA, "RS256", {"kid": "1", "typ": typ}, **named)

    def asked(self, path=DISCOVERY):
        """How often this path was requested."""
        return sum(request.path == path for request in self.provider.requests)

    def close(self):
        self.provider.close()


def described(issuer, origin="https://id.example.com"):
    """A discovery document, with some fields that others have, too."""
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{origin}/authorize",
        "token_endpoint": f"{origin}/token",
        "jwks_uri": f"{origin}/keys",
        "end_session_endpoint": f"{origin}/logout",
        "response_types_supported": ["code", "id_token"],
        "code_challenge_methods_supported": ["plain", "S256"],
        "subject_types_supported": ["public"],
    }
