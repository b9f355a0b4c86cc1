"""Strange providers that repeat what we sent them.

No six characters in a row of a secret may be shown.
"""

import base64
import itertools
import urllib.parse

from hell_answers import ANSWER, HALF, fault, refusal
from hell_errors import event_error
from hell_reasons import ends_with
from hell_right import ONCE_TO_THRICE, bad, ok
from protocols import CLAUDE, GPT
from provider import head

KEY, PASSWORD = "sk-Vq7ZtR2m.Kx9LwB4n", "p@Tz5:w0rd/Gh8"


def forms_of(secret):
    """(each way to write it, how long six of its characters are in it)"""
    data = secret.encode()
    quoted = "".join(f"%{byte:02X}" for byte in data)
    return [
        (secret, 6),
        (urllib.parse.quote(secret, ""), 6),
        (data.hex(), 12),
        (data.hex().upper(), 12),
        (quoted, 18),
    ] + [
        (base64.b64encode(b"x" * shift + data).decode()[4 if shift else 0 :].rstrip("="), 8)
        for shift in range(3)
    ]


BASIC = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
STRETCHES = {
    (length, form[i : i + length])
    for form, length in [*forms_of(KEY), *forms_of(PASSWORD), (BASIC[8:], 8)]
    for i in range(len(form) - length + 1)
}


def told(text):
    """What a text reveals of the secrets."""
    return {
        text[i : i + length]
        for length in (6, 8, 12, 18)
        for i in range(len(text))
        if (length, text[i : i + length]) in STRETCHES
    }


def ways_of(secret):
    return [form for form, _ in forms_of(secret)] + [
        secret[:9] + "***" + secret[-8:],
        secret[4:12],
        secret[-6:],
    ]


# Each protocol's provider repeats what it was sent: one of them a password, the other a key.
WAYS = [
    {CLAUDE: password, GPT: key}
    for password, key in zip(
        [*ways_of(PASSWORD), BASIC, BASIC[:16] + "…", f"user:{PASSWORD}"],
        [*ways_of(KEY), BASIC, f"Bearer {KEY}", urllib.parse.quote(PASSWORD, "")],
        strict=True,
    )
]
PLACES = {
    "a message": lambda text: (
        refusal(400, {"error": {"message": f"bad header: Basic {text}"}}),
        bad(502, "refused"),
    ),
    "a detail": lambda text: (
        refusal(422, {"detail": [{"loc": ["header"], "msg": text, "input": text}]}),
        bad(502),
    ),
    "an unknown model": lambda text: (
        refusal(404, {"error": {"message": f"no such model: {text}"}}),
        bad(400),
    ),
    "a type and a code": lambda text: (
        refusal(418, {"error": {"type": text, "code": text, "param": text}}),
        bad(502),
    ),
    "a stream": lambda text: (
        (HALF, fault({"type": "invalid_request_error", "message": f"({text})"})),
        bad(502, "", "Half"),
    ),
    "an event": lambda text: (
        (HALF, event_error({"message": text, "code": 400})),
        bad(502, "", "Half"),
    ),
    "a field": lambda text: (
        (HALF, b'error: {"code": 400, "message": "%s"}\n\n' % text.encode()),
        bad(502, "", "Half"),
    ),
    "a request id": lambda text: (
        (
            head(
                X_Request_Id=text.encode().decode("latin-1"),
                Request_Id=text.encode().decode("latin-1"),
            ),
            ANSWER,
        ),
        ok(),
    ),
    "a reason": lambda text: (ends_with(f"odd {text}", "So far"), ok("So far")),
    "a redirect": lambda text: (
        refusal(307, Location=f"/elsewhere/{urllib.parse.quote(text)}"),
        bad(502, "redirects"),
    ),
}
OF_A_KEY = [
    "Incorrect API key provided: sk***gA. You can obtain an API key from https://console.x.ai.",
    "invalid api_key",
    "No API-Key!",
]


def repeated(texts, make):
    """A row in which each protocol's provider repeats its text."""
    rows = {protocol: make(text) for protocol, text in texts.items()}
    return {protocol: spec for protocol, (spec, _) in rows.items()}, rows[GPT][1]


SECRETS = {
    **{
        f"{place}, {number}": repeated(texts, make)
        for (number, texts), (place, make) in itertools.product(enumerate(WAYS), PLACES.items())
    },
    **{
        f"status {code}": (
            {
                protocol: refusal(code, {"error": {"message": f"It is {text}."}})
                for protocol, text in WAYS[0].items()
            },
            bad((502, 503, 400), tries=ONCE_TO_THRICE),
        )
        for code in (400, 401, 402, 403, 404, 407, 409, 418, 422, 429, 500, 503, 529)
    },
    **{
        f"{text} {code}": (
            refusal(code, {"error": text}),
            bad(502, "refused this server's own key"),
        )
        for text in OF_A_KEY
        for code in (400, 422)
    },
    **{
        f"{text} in a stream": (
            (head(), fault({"message": text})),
            bad(502, "refused this server's own key", tries=ONCE_TO_THRICE),
        )
        for text in OF_A_KEY
    },
    **{
        f"{text} behind a word": (
            (HALF, fault({"message": text})),
            bad(502, "refused this server's own key", "Half"),
        )
        for text in OF_A_KEY
    },
}
