"""How a page signs in by OpenID Connect: what a stranger is told, and to whom the page may speak.

A stranger may wait for the identity provider, in one of a few places. Who finds none is told
without its endpoints.
"""

import contextlib
from typing import Any

from api.services import services, step_aside
from limits import Overloaded
from oidc import Discovered, IdentityProvider

STRANGERS = ""  # all of them are one user of the places


def told_to_strangers() -> dict[str, Any]:
    """What `meta.sign_in` of a 401 has."""
    provider = services().tokens.provider
    return {"oidc": provider.describe(_discovered(provider)) if provider else None}


def origins() -> list[str]:
    """Those of the identity provider to which the page speaks; none without one."""
    provider = services().tokens.provider
    return provider.origins(_discovered(provider)) if provider else []


def _discovered(provider: IdentityProvider) -> Discovered | None:
    """What is known of it, at hand or within ten seconds."""
    if found := provider.at_hand():
        return found
    with contextlib.suppress(Overloaded), services().strangers.slot(STRANGERS):
        step_aside()
        return provider.soon()
    return None
