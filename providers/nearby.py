"""A model server on this machine that nobody has set up."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from providers.base import OLLAMA_LACKS
from well_known import SERVICES, name_at, name_of
from wire import Call, Fault, HTTPClient, join

# Where we look.
NEARBY = [each.url for each in SERVICES if each.name in ("ollama", "llamacpp")]
TIMEOUT = 0.2  # seconds for each, since a start and a page wait


class Found(NamedTuple):
    name: str
    url: str  # its base URL
    lacks: str  # what to do first, if it has no model yet

    def advice(self, path: str, quote: str = "") -> str:
        """A clause that says what to write into the settings file at this path. `quote` is put
        around code."""
        put = f"put {quote}OPENAI_BASE_URL={self.url}{quote} into {quote}{path}{quote}"
        first = f"{self.lacks}; then " if self.lacks else ""
        return f"{self.name} answers on this machine: {first}{put}"


def find() -> Found | None:
    """The first that answers with a list of models."""
    for url in NEARBY:
        try:
            headers, text = ask(f"{url}/models", seconds=TIMEOUT)
        except Fault:
            continue
        if '"data"' in text:
            name = name_of(headers.get("Server")) or name_at(url)
            return Found(name, url, OLLAMA_LACKS if re.search(r'"data":\s*null', text) else "")
    return None


def ask(
    url: str, headers: Mapping[str, str] | None = None, seconds: float = 5
) -> tuple[Mapping[str, str], str]:
    """Headers and text of the answer to a GET, whatever its status. Raises `wire.Fault`."""
    sent = {"Connection": "close"} | dict(headers or {})
    with HTTPClient(url).request(Call(seconds), "GET", "", sent) as response:
        return response.headers, join(response.chunks()).decode("utf-8", "replace")
