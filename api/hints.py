"""The hint of `GET /models`: what keeps models away, and what to do about it."""

import os
from collections.abc import Iterator

from flask import g

from api.services import services
from providers import nearby
from settings import home


def about_models(has_models: bool) -> str:
    """Sentences for the user, each a paragraph; an empty text if all is well."""
    return "\n\n".join(_sentences(has_models))


def _sentences(has_models: bool) -> Iterator[str]:
    catalog = services().catalog
    for failure in catalog.failures():
        _, message, _, _, reason = failure.told(g.is_operator)
        yield f"{message} {reason or ''}".strip()
    if not has_models and (lacks := catalog.lacks_models()):
        yield lacks
    # Only the operator can change the settings, and may know the path of a file.
    if g.is_operator and list(catalog.providers) == ["echo"] and (found := nearby.find()):
        yield "No model is set up yet: `echo` repeats your own words."
        advice = found.advice(os.path.join(home() or "", ".env"), "`")
        yield f"{advice}, and start Parley again."
