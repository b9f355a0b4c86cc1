"""Titles of sessions: written from the first message, or asked of a model."""

import contextlib
import re

import regex

from faults import ModelError
from wire import Call

LONGEST = 60  # characters
FALLBACK = "New session"

PROMPT = "Write a title of three to seven words for the conversation that begins with the user's message. Only the title."
PROMPT_CHARACTERS = 1000  # of the message
MAX_TOKENS = 500  # a model that thinks spends most of them on that
TIMEOUT = 10  # seconds
MAX_CHARACTERS = 20_000  # of an answer, or of a message, that are looked at

# An English request has said what it wants before one of these words. Behind it the request says how, why or when.
_TURNS_TO_DETAIL = re.compile(
    r"\s(?:using|with|by|via|so|because|since|which|that|where|when|while|if|then|but|including|instead)\s", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s|(?<=[。！？])|[:;]\s")
_ARTICLE = re.compile(r"(?<!\S)(?:the|an?)\s+(?=\w)", re.IGNORECASE)
_MARKUP = re.compile(r"^\s*(?:[#>*+-]+\s+|\d+[.)]\s+)+")
_FENCE = re.compile(r"^\s*(?:```|~~~)")
# Without `\A`, `re` would try `.*` at every character of an answer in which no thinking ends: in quadratic time.
_THOUGHTS = re.compile(r"\A.*</think(?:ing)?>|<think(?:ing)?>.*", re.DOTALL | re.IGNORECASE)
_TRIMMED = " ,;:-–—"
_IDEOGRAPH = re.compile("[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")  # these are written without spaces
# Controls, halves of characters, and what has no width and shapes no other character, or turns the writing direction.
_UNSEEN = regex.compile(r"(?![\s\x1c-\x1f])[\p{Cc}\p{Cs}\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
# Unicode calls the first five letters and signs, and nothing of them is seen.
_SEEN = regex.compile(r"(?![\u115f\u1160\u2800\u3164\uffa0])[\p{L}\p{N}\p{P}\p{S}]")
# `\X` of `regex` matches what a reader sees as one character: Unicode's extended grapheme cluster (UAX 29). `re` has none.
_CHARACTER = regex.compile(r"\X")
_QUOTES = "\"'`*_“”‘’«»„‹›「」『』"


def local_title(message):
    """Return one line of at most 60 characters that names what the message is about.

    A message that fits is its own title. The title of a longer one is the beginning of its first sentence. It ends where
    the sentence turns to details, has no articles, and is shortened between words, never inside a character.
    """
    line = _one_line(_first_line(message))
    if len(line) > LONGEST:
        line = _SENTENCE_END.split(line)[0]
    if len(line) > LONGEST:
        detail = _TURNS_TO_DETAIL.search(line, 12)
        line = _ARTICLE.sub("", line[: detail.start()] if detail else line)
    title = _cut(line)
    return title if _SEEN.search(title) else FALLBACK


def generate_title(provider, model, message):
    """The title that this model of the provider writes for a message, or None where it writes none within ten seconds."""
    messages = [{"role": "user", "content": message[:PROMPT_CHARACTERS]}]
    with contextlib.suppress(ModelError):
        return proposed_title("".join(provider.stream(Call(TIMEOUT), model, PROMPT, messages, MAX_TOKENS, retries=0)))


def proposed_title(answer):
    """Return the title in a model's answer, without thinking, quotes and markup; None where there is no title."""
    lines = _THOUGHTS.sub("", answer[:MAX_CHARACTERS]).splitlines()
    lines = list(filter(None, (_one_line(_MARKUP.sub("", line)) for line in lines if not _FENCE.match(line))))
    if len(lines) > 1 and lines[0].endswith(":"):
        del lines[0]  # it is like "Here is a title:"
    if not lines or len(lines[0]) > 200:
        return None
    title = re.sub(r"^title\s*:\s*", "", lines[0].strip(_QUOTES + " "), flags=re.IGNORECASE).strip(_QUOTES + " ")
    title = _cut(title.removesuffix(".").replace("**", "").replace("`", ""))
    return title if any(character.isalnum() for character in title) else None


def _first_line(message):
    """Return the first line of prose that has words in it; the first of code where no prose has."""
    prose, code, fenced = [], [], False
    for line in message[:MAX_CHARACTERS].splitlines():
        if _FENCE.match(line):
            fenced = not fenced
        elif any(character.isalnum() for character in line):
            (code if fenced else prose).append(line)
    return _MARKUP.sub("", (prose or code or [message[:1000]])[0])


def _one_line(text):
    """Return the text with single spaces for its white space, and without characters that are not seen."""
    return " ".join(_UNSEEN.sub("", text.strip()[:2000]).split())


def _cut(line):
    """Return at most 60 characters of the line, up to the end of a word or an ideograph, else of a whole character."""
    line = line.strip(_TRIMMED)
    if len(line) > LONGEST and " " not in line:
        line = re.sub(r"^https?://(www\.)?", "", line)
    if len(line) <= LONGEST:
        return line
    # `\X` takes quadratic time on a run of flags, so it gets no more than it needs. Whether a character ends at a place
    # depends on what is before that place, and on one code point behind it.
    whole = [match.end() for match in _CHARACTER.finditer(line[: LONGEST + 1]) if match.end() <= LONGEST]
    words = [end for end in whole if line[end] == " " or _IDEOGRAPH.match(line[end - 1])]
    return line[: max(words or whole, default=0)].rstrip(_TRIMMED)
