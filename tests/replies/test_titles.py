"""Titles: one line of at most 60 characters, from any first message or from what a model proposes."""

import random

import pytest
import regex

from replies.titles import FALLBACK, local_title, proposed_title

SEED = "Add rate limiting to the auth endpoints using a sliding window approach with Redis, 10 requests per minute per IP."
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"  # 7 code points that are one picture
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"  # 7 as well
SENTENCE = "写一个函数来计算两个日期之间的工作日数量"  # 20 ideographs

TITLES = [
    # On one line as it is
    (SEED, "Add rate limiting to auth endpoints"),
    ("Hello", "Hello"),
    ("How do I exit vim?", "How do I exit vim?"),
    ("  Two \t words\nand a second line", "Two words"),
    ("\n\n  \r\nHello\r\nyou", "Hello"),
    ("one\u2028two\x85three\x0bfour", "one"),
    ("a" * 60, "a" * 60),
    ("What is 2**8 in snake_case?", "What is 2**8 in snake_case?"),
    (" " * 5000 + "Hello", "Hello"),
    # Cut between words
    ("a" * 60 + " b", "a" * 60),
    ("a" * 59 + " b c", "a" * 59),
    ("word " * 30_000, ("word " * 12).strip()),
    ("Fix " + "x" * 100_000, "Fix"),
    (
        "Write a poem about the sea, the sky, the wind and the rain, and make it rhyme",
        "Write poem about sea, sky, wind and rain, and make it rhyme",
    ),
    (
        "Explain recursion. Then write a long program in Haskell that shows it in use everywhere.",
        "Explain recursion.",
    ),
    (
        "Why is my build slow? It takes ten minutes, and I have already tried to clean the cache.",
        "Why is my build slow?",
    ),
    (
        "Refactor the payment module because nobody understands what it does any more these days",
        "Refactor payment module",
    ),
    # Not cut inside a word
    ("x" * 100_000, "x" * 60),
    ("https://example.com/a", "https://example.com/a"),
    ("https://www.example.com/" + "a/b" * 50, ("example.com/" + "a/b" * 50)[:60]),
    ("http://example.com/?q=" + "a" * 34_000, ("example.com/?q=" + "a" * 60)[:60]),
    # Code and Markdown
    ("Why does this fail?\n\n```python\nprint(1/0)\n```", "Why does this fail?"),
    ("```python\nprint(1/0)\n```\nWhy does it fail?", "Why does it fail?"),
    ("```python\nprint(1/0)\n```", "print(1/0)"),
    ("~~~\n\n~~~\n", "~~~ ~~~"),
    ("def f(x):\n    return x", "def f(x)"),
    ("# A heading\n\nand text", "A heading"),
    ("> > - 1. quoted", "quoted"),
    ("- \n* \n1. First", "First"),
    ('{\n  "a": 1\n}', '"a": 1'),
    # Nothing to read
    ("\u200b\u200d\ufeff\u2060", FALLBACK),
    ("\u2800\u3164", FALLBACK),
    ("\u202e\u2066", FALLBACK),
    ("\ufe0f\u0301", FALLBACK),
    ("\x01\x1b\x7f", FALLBACK),
    ("", FALLBACK),
    ("e" + "\u0301" * 100, FALLBACK),  # a single character that is longer than a title
    ("?!", "?!"),
    ("👋", "👋"),
    # Invisible characters
    ("a\x00b\x07c\x1b[31md\x7f", "abc[31md"),
    ("\u202eabc\u202c d\u2066e\u2069f \u200fg", "abc def g"),
    ("\ufeffHel\u00adlo\u200b", "Hello"),
    ("می\u200cخواهم", "می\u200cخواهم"),  # a joiner that shapes the word
    # Scripts without spaces, and characters of several code points
    (SENTENCE * 5000, SENTENCE * 3),
    ("请帮我" + SENTENCE + "。" + SENTENCE * 3, "请帮我" + SENTENCE + "。"),
    ("用 Python " + SENTENCE * 4, "用 Python " + (SENTENCE * 4)[:51]),
    ("𠮷" * 100, "𠮷" * 60),
    (FAMILY * 20, FAMILY * 8),
    ("x" + FAMILY * 20, "x" + FAMILY * 8),
    (ENGLAND * 20, ENGLAND * 8),
    ("🇩🇪" * 100, "🇩🇪" * 30),
    ("x" + "🇩🇪" * 100, "x" + "🇩🇪" * 29),
    ("👍🏽" * 50, "👍🏽" * 30),
    ("x" + "👍🏽" * 50, "x" + "👍🏽" * 29),
    ("1\ufe0f\u20e3" * 50, "1\ufe0f\u20e3" * 20),
    ("xe\u0301" * 50, "xe\u0301" * 20),
    ("x" + "e\u0301\u0323" * 50, "x" + "e\u0301\u0323" * 19),
    ("x" + "\u1112\u1161\u11ab" * 50, "x" + "\u1112\u1161\u11ab" * 19),
    ("한" * 100, "한" * 60),
    ("x" + "क्षि" * 40, "x" + "क्षि" * 14),
    ("x" + "क्ष" * 40, "x" + "क्ष" * 19),
    ("x" + "กำ" * 50, "x" + "กำ" * 29),
    ("x" + "ນຳ" * 50, "x" + "ນຳ" * 29),
    ("x" + "நி" * 50, "x" + "நி" * 29),
    ("x" + "가\u11a8" * 50, "x" + "가\u11a8" * 29),
    ("x" + "ｶ\uff9e" * 50, "x" + "ｶ\uff9e" * 29),
    ("x" + "a\u200c" * 50, "x" + "a\u200c" * 29),
    ("x" + "\u0600١" * 50, "x" + "\u0600١" * 29),  # a number sign that stands before its number
    ("x" + "\U000110bda" * 50, "x" + "\U000110bda" * 29),
    ("x" + "❤\ufe0f\u200d🔥" * 20, "x" + "❤\ufe0f\u200d🔥" * 14),
    ("x" + "🏳\ufe0f\u200d🌈" * 20, "x" + "🏳\ufe0f\u200d🌈" * 14),
]


@pytest.mark.parametrize(
    "message, title", TITLES, ids=[ascii(message)[1:30] for message, _ in TITLES]
)
def test_a_message_gets_a_title(message, title):
    assert local_title(message) == title


MEGABYTES = [
    ("🇩🇪" * 125_000, "🇩🇪" * 30),
    ("x" + "🇩🇪" * 125_000, "x" + "🇩🇪" * 29),
    ("\u0301" * 500_000, FALLBACK),
    ("e" + "\u0301" * 500_000, FALLBACK),
    ("Hello e" + "\u0301" * 500_000, "Hello"),
]


@pytest.mark.parametrize(
    "message, title", MEGABYTES, ids=[ascii(message)[1:30] for message, _ in MEGABYTES]
)
def test_a_megabyte_of_flags_or_marks_gets_a_title(message, title):
    assert local_title(message) == title


def test_any_message_gets_its_title_in_the_api(alice):
    for message, title in TITLES:
        if message.strip() and "\0" not in message:
            assert alice.create(message)["title"] == title


CHARACTERS = [
    *"abcdefgh.!?,;:-–—_'\"()[]{}<>#*`~=+/\\|@%&$^0123456789",
    *" \t\n\u3000\u2009",
    *"éßøñ世界写函数日本語ひらがなカタカナ한글กขनमמשمح",
    *[
        "e\u0301",
        "กำ",
        "ນຳ",
        "क्ष",
        "क्षि",
        "र्क",
        "நி",
        "\u1112\u1161\u11ab",
        "가\u11a8",
        "\ud7b0\ud7cb",
        "\ua960\u1161",
    ],
    *[
        FAMILY,
        ENGLAND,
        "🇩🇪",
        "👍🏽",
        "1\ufe0f\u20e3",
        "❤\ufe0f\u200d🔥",
        "🏳\ufe0f\u200d🌈",
        "a\u200c",
        "ｶ\uff9e",
        "\u0600١",
        "\U000110bda",
    ],
]


@pytest.mark.parametrize("seed", range(20))
def test_no_character_is_cut_in_two(seed):
    """`regex` says what a character is, both here and in `local_title`. The literal cases above check that it is right."""
    chance = random.Random(seed)
    for _ in range(50):
        alphabet = chance.sample(CHARACTERS, chance.randint(1, 12))
        message = "".join(chance.choices(alphabet, k=chance.randint(1, 150)))
        title = local_title(message)
        assert 1 <= len(title) <= 60
        assert title == " ".join(title.split())
        characters = iter(regex.findall(r"\X", " ".join(message.split())))
        if title != FALLBACK:
            # Words and markup may be missing, but each character of the title is one of the message.
            assert all(character in characters for character in regex.findall(r"\X", title)), (
                message,
                title,
            )


PROPOSALS = [
    ("Rate limiting for auth", "Rate limiting for auth"),
    ('"Rate limiting for auth"', "Rate limiting for auth"),
    ("“Rate limiting”\n", "Rate limiting"),
    ("«Rate limiting»", "Rate limiting"),
    ("「限流」", "限流"),
    ("**Rate limiting**", "Rate limiting"),
    ("*Rate limiting*", "Rate limiting"),
    ("`Rate` limiting", "Rate limiting"),
    ("## Rate limiting", "Rate limiting"),
    ("- Rate limiting", "Rate limiting"),
    ("1. Rate limiting", "Rate limiting"),
    ("> Rate limiting", "Rate limiting"),
    ("```\nRate limiting\n```", "Rate limiting"),
    ("Title: Rate limiting", "Rate limiting"),
    ('**Title:** "Rate limiting"', "Rate limiting"),
    ("Rate limiting.", "Rate limiting"),
    ("Why not?", "Why not?"),
    ("It's done", "It's done"),
    ("Here is a title:\n\n**Rate limiting**", "Rate limiting"),
    ("Rate limiting\n\nThis names what the message is about.", "Rate limiting"),
    ("<think>The user wants\n\na title.</think>\n\nRate limiting", "Rate limiting"),
    ("<thinking>Hm.</thinking>Rate limiting", "Rate limiting"),
    ("The user wants a title.\n</think>\nRate limiting", "Rate limiting"),
    ("<THINK>Hm.</THINK>Rate limiting", "Rate limiting"),
    ("  Rate \t limiting  ", "Rate limiting"),
    ("Rate\x00 lim\u202eit\u200bing", "Rate limiting"),
    ("word " * 20, ("word " * 12).strip()),
    ("限流" * 40, "限流" * 30),
    ("", None),
    ("  \n ", None),
    ("<think>The user wants a title, and", None),
    ("<think>Hm.</think>", None),
    ("...", None),
    ('""', None),
    ("```\n```", None),
    ("👍", None),
    ("\u200b", None),
    ("I am sorry, but " + "I cannot do that, " * 20, None),
    ("x" * 1_000_000, None),
    ("🇩🇪" * 125_000, None),
    ("e" + "\u0301" * 500_000, None),
    ("<think>" * 100_000, None),
    ("Rate limiting\n" + "x" * 1_000_000, "Rate limiting"),
]


@pytest.mark.parametrize(
    "answer, title", PROPOSALS, ids=[ascii(answer)[1:30] for answer, _ in PROPOSALS]
)
def test_a_title_is_taken_from_a_models_answer(answer, title):
    assert proposed_title(answer) == title
