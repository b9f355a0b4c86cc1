"""How requests gets to a server, by the environment; and how it fails, for who uses it."""

import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import requests
import urllib3

from well_known import is_loopback

# What a request, or reading its response, raises where there is no server.
LOST = (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)


def route(url: str) -> dict[str, Any]:
    """`proxies`, `stream`, `verify` and `cert`. This machine needs no proxy."""
    found = requests.Session().merge_environment_settings(url, {}, True, None, None)
    if is_loopback(urllib.parse.urlsplit(url).hostname or ""):
        found["proxies"] = {}
    return dict(found)


def without_password(text: str) -> str:
    """The same with neither user nor password in its URLs."""
    return re.sub(r"//[^/?#\s]*@", "//…@", text)  # up to the last @: a password may have some


def arriving(response: requests.Response) -> Iterator[bytes]:
    """The body of a response, in chunks as they come. Raises requests.ConnectionError where it
    breaks."""
    try:
        while chunk := response.raw.read1(65536, decode_content=True):
            yield chunk
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(error) from None
