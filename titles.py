"""Titles of sessions: written from the first message, or asked of a model."""

import re
import threading
import unicodedata

from llm import Call, HungUp, ModelError

LONGEST = 60  # characters
FALLBACK = "New session"

PROMPT = "Write a title of three to seven words for the conversation that begins with the user's message. Only the title."
PROMPT_CHARACTERS = 1000  # of the message
MAX_TOKENS = 500  # a model that thinks spends most of them on that
TIMEOUT = 10  # seconds

# Where an English request has said what it wants and goes on to say how, why or when.
_TURNS_TO_DETAIL = re.compile(
    r"\s(?:using|with|by|via|so|because|since|which|that|where|when|while|if|then|but|including|instead)\s", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s|(?<=[。！？])|[:;]\s")
_ARTICLE = re.compile(r"(?<!\S)(?:the|an?)\s+(?=\w)", re.IGNORECASE)
_MARKUP = re.compile(r"^\s*(?:[#>*+-]+\s+|\d+[.)]\s+)+")
_FENCE = re.compile(r"^\s*(?:```|~~~)")
_THOUGHTS = re.compile(r".*</think(?:ing)?>|<think(?:ing)?>.*", re.DOTALL | re.IGNORECASE)
_TRIMMED = " ,;:-–—"
_IDEOGRAPH = re.compile("[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")  # written without spaces
# Zero-width characters that do not shape others, and those that turn the writing direction.
_UNSEEN = re.compile("[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
_BLANKS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and signs of which nothing is seen
# What a reader sees as one character goes on before these, besides marks, and behind those (Unicode UAX 29): the later
# parts of Hangul syllables, joiners, skin tones, tags; the first parts of syllables, joiners, marks that are prepended.
_GOES_ON = re.compile(
    "[\u0e33\u0eb3\u1160-\u11ff\u200c\u200d\ud7b0-\ud7fb\uff9e\uff9f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"
)
_OPENS = re.compile(
    "[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e\u1100-\u115f\u200d\ua960-\ua97c\U000110bd\U000110cd"
    "\U000111c2\U000111c3\U0001193f\U00011941\U00011a84-\U00011a89\U00011d46]"
)
_FLAG_LETTERS = re.compile("[\U0001f1e6-\U0001f1ff]+$")
_QUOTES = "\"'`*_“”‘’«»„‹›「」『』"


def local_title(message):
    """One line of at most 60 characters that names what the message is about.

    A message that fits is its own title. Of a longer one it is the beginning of its first sentence, up to where that
    turns to details, without articles, cut between words and never inside a character.
    """
    line = _one_line(_first_line(message))
    if len(line) > LONGEST:
        line = _SENTENCE_END.split(line)[0]
    if len(line) > LONGEST:
        detail = _TURNS_TO_DETAIL.search(line, 12)
        line = _ARTICLE.sub("", line[: detail.start()] if detail else line)
    title = _cut(line)
    return title if any(map(_is_visible, title)) else FALLBACK


def generate_title(provider, model, message):
    """The title that this model of the provider writes for a message, or None where it writes none within ten seconds."""
    call = Call()
    timer = threading.Timer(TIMEOUT, call.hang_up)
    timer.daemon = True
    timer.start()
    messages = [{"role": "user", "content": message[:PROMPT_CHARACTERS]}]
    try:
        answer = "".join(provider.stream(call, model, PROMPT, messages, MAX_TOKENS))
    except (ModelError, HungUp):
        return None
    finally:
        timer.cancel()
    return None if call.hung_up else proposed_title(answer)


def proposed_title(answer):
    """The title in a model's answer, or None where there is none: thinking, quotes and markup are taken off."""
    lines = [_one_line(_MARKUP.sub("", line)) for line in _THOUGHTS.sub("", answer).splitlines() if not _FENCE.match(line)]
    lines = [line for line in lines if line]
    if len(lines) > 1 and lines[0].endswith(":"):
        del lines[0]  # "Here is a title:"
    if not lines or len(lines[0]) > 200:
        return None
    title = re.sub(r"^title\s*:\s*", "", lines[0].strip(_QUOTES + " "), flags=re.IGNORECASE).strip(_QUOTES + " ")
    title = _cut(title.removesuffix(".").replace("**", "").replace("`", ""))
    return title if any(character.isalnum() for character in title) else None


def _first_line(message):
    """The first line with words in it: prose before code, code where there is nothing else."""
    prose, code, fenced = [], [], False
    for line in message[:20000].splitlines():
        if _FENCE.match(line):
            fenced = not fenced
        elif any(character.isalnum() for character in line):
            (code if fenced else prose).append(line)
    return _MARKUP.sub("", (prose or code or [message[:1000]])[0])


def _one_line(text):
    """White space made single spaces; control characters and those that are not seen left out."""
    text = "".join(" " if character.isspace() else character for character in text.strip()[:2000])
    return " ".join("".join(c for c in _UNSEEN.sub("", text) if unicodedata.category(c) not in ("Cc", "Cs")).split())


def _is_visible(character):
    return unicodedata.category(character)[0] in "LNPS" and character not in _BLANKS


def _cut(line):
    """At most 60 characters of the line: up to the end of a word or an ideograph, else of a whole character."""
    line = line.strip(_TRIMMED)
    if len(line) > LONGEST and " " not in line:
        line = re.sub(r"^https?://(www\.)?", "", line)
    if len(line) <= LONGEST:
        return line
    whole = [end for end in range(1, LONGEST + 1) if not _is_inside_character(line, end)]
    words = [end for end in whole if line[end] == " " or _IDEOGRAPH.match(line[end - 1])]
    return line[: max(words or whole, default=0)].rstrip(_TRIMMED)


def _is_inside_character(text, position):
    """Whether what a reader sees as one character goes on across this position."""
    before, after = text[position - 1], text[position]
    if unicodedata.category(after).startswith("M") or _GOES_ON.match(after) or _OPENS.match(before):
        return True
    if unicodedata.combining(before) == 9:  # a virama joins two consonants
        return True
    letters = _FLAG_LETTERS.search(text[:position])
    return bool(letters and _FLAG_LETTERS.match(after) and len(letters[0]) % 2)
