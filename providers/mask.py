"""Secrets are taken out of what providers say."""

import base64
import re
import urllib.parse

MASKED = 6  # characters of a secret that may not be seen side by side


class Mask:
    """Takes secrets out of a text, and parts of them, as they are and in the encodings in which
    servers repeat them."""

    def __init__(self, *secrets: str | None) -> None:
        # A text, and how many of its characters may not be seen side by side.
        self._forms: list[tuple[str, int]] = []
        for secret in filter(None, secrets):
            size = min(MASKED, len(secret))
            forms = [secret]
            if size == MASKED:  # of a shorter one the others are no words, but syllables
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
    # Base64 is another text for each place at which the secret may begin.
    coded = [base64.b64encode(b" " * shift + data)[2 * shift :] for shift in range(3)]
    return [
        *(each.decode().rstrip("=") for each in coded),
        urllib.parse.quote(secret, ""),
        "".join(f"%{byte:02X}" for byte in data),
        data.hex(),
        data.hex().upper(),
    ]
