"""How the environment says to reach a server, as the library requests reads it; and what code that
uses requests itself needs: its errors, and a body as it arrives."""

import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import requests
import urllib3

from well_known import is_loopback

# What requests raises, sending a request or reading the response, if the server is unreachable.
LOST = (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)


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


def arriving(response: requests.Response) -> Iterator[bytes]:
    """The body of a response, in chunks as they arrive. Raises requests.ConnectionError if the
    connection breaks."""
    try:
        while chunk := response.raw.read1(65536, decode_content=True):
            yield chunk
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(error) from None
