"""How the page signs in by OpenID Connect: what it learns before that, and the origins it may call.

Nobody has signed in yet, so few of these requests may wait for the identity provider at a time. The
others get an answer without its endpoints.
"""

import contextlib
from typing import Any

from api.services import release_slot, services
from limits import Overloaded
from oidc import Discovered, IdentityProvider

STRANGERS = ""  # requests without a user count as one user


def describe() -> dict[str, Any]:
    """`meta.sign_in` of a 401."""
    provider = services().tokens.provider
    return {"oidc": provider.describe(_discovered(provider)) if provider else None}


def origins() -> list[str]:
    """The origins of the identity provider that the page calls; none without one."""
    provider = services().tokens.provider
    return provider.origins(_discovered(provider)) if provider else []


def _discovered(provider: IdentityProvider) -> Discovered | None:
    """The provider's endpoints, if they are known now or within ten seconds."""
    if found := provider.at_hand():
        return found
    with contextlib.suppress(Overloaded), services().strangers.slot(STRANGERS):
        release_slot()
        return provider.soon()
    return None
