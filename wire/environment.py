"""How the environment says to reach a server, as the library requests reads it."""

import re
import urllib.parse
from typing import Any

import requests

from well_known import is_loopback


def route(url: str) -> dict[str, Any]:
    """The options `proxies`, `stream`, `verify` and `cert` for this URL. No proxy is used for a
    loopback address."""
    found = requests.Session().merge_environment_settings(url, {}, True, None, None)
    if is_loopback(urllib.parse.urlsplit(url).hostname or ""):
        found["proxies"] = {}
    return dict(found)


def without_password(text: str) -> str:
    """The text without users and passwords in its URLs."""
    return re.sub(r"//[^/?#\s]*@", "//…@", text)  # up to the last @: a password may contain one
