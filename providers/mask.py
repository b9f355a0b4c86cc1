"""Masking secrets in the messages of providers."""

import base64
import re
import urllib.parse

MASKED = 6  # consecutive characters of a secret are masked


class Mask:
    """Replaces secrets in a text, and parts of them, by "…": as they are, and in the encodings in
    which servers repeat them."""

    def __init__(self, *secrets: str | None) -> None:
        # A secret in some encoding, and how many consecutive characters of it are masked.
        self._forms: list[tuple[str, int]] = []
        for secret in filter(None, secrets):
            size = min(MASKED, len(secret))
            forms = [secret]
            if size == MASKED:  # encodings of a shorter one would match ordinary text
                forms += _encodings(secret)
            self._forms += [(form, size) for form in forms]

    def __call__(self, text: str) -> str:
        shown = list(text)
        for form, size in self._forms:
            for i in range(len(text) - size + 1):
                if text[i : i + size] in form:
                    shown[i : i + size] = "\0" * size
        return re.sub("\0+", "…", "".join(shown))


def _encodings(secret: str) -> list[str]:
    data = secret.encode()
    # Base64 of a secret depends on its offset in the encoded text, modulo 3.
    coded = [base64.b64encode(b" " * shift + data)[2 * shift :] for shift in range(3)]
    return [
        *(each.decode().rstrip("=") for each in coded),
        urllib.parse.quote(secret, ""),
        "".join(f"%{byte:02X}" for byte in data),
        data.hex(),
        data.hex().upper(),
    ]
