"""The JSON of a request with images.

Modules: `providers/base.py`, `providers/protocols.py`.
"""

import base64
import json
import random
import tracemalloc

import pytest

from files import File
from providers.protocols import Anthropic, OpenAI
from replies.writer import MEMORY_PER_BYTE

WORDS = 'Grüße "世界" \\u0000 👩‍👩‍👧\n'
TEXT = {"type": "text", "text": WORDS}


def data_of(protocol, pictures):
    """The body of a request with these pictures, each before a text."""
    files = [
        File(str(number), "image/png", 1, 1, len(data)) for number, data in enumerate(pictures)
    ]
    messages = [{"role": "user", "content": [file, TEXT]} for file in files]
    provider = protocol("p", "http://127.0.0.1/v1", "k", 1)
    body = provider.body("m-1", WORDS, messages, 7, {})
    return provider.data(body, lambda file: pictures[int(file.id)])


@pytest.mark.parametrize("protocol", [Anthropic, OpenAI])
@pytest.mark.parametrize("pictures", [[], [b"one"], [b"one", b"\xff" * 99, b"one"]])
def test_each_image_is_at_its_place_and_all_else_is_plain_json(protocol, pictures):
    data = data_of(protocol, pictures)
    body = json.loads(data)
    assert json.dumps(body, ensure_ascii=False).encode() == data
    said = [each for each in body["messages"] if each["role"] == "user"]
    assert [each["content"][1] for each in said] == [TEXT] * len(pictures)
    for message, picture in zip(said, pictures, strict=True):
        assert base64.b64encode(picture).decode() in json.dumps(message["content"][0])


def test_a_request_is_made_in_the_memory_that_is_reserved():
    pictures = [random.randbytes(1_000_000) for _ in range(4)]
    tracemalloc.start()
    data_of(OpenAI, pictures)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MEMORY_PER_BYTE * sum(map(len, pictures))
