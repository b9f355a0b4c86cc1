"""Titles of sessions: written from the first message, and what a model proposes made fit to be one."""

import re
import unicodedata

LONGEST = 60
FALLBACK = "New session"
PROMPT = "Write a title of three to seven words for the conversation that begins with the user's message. Only the title."

# Where an English request has said what it wants and goes on to say how, why or when.
_TURNS_TO_DETAIL = re.compile(
    r"\s(?:using|with|by|via|so|because|since|which|that|where|when|while|if|then|but|including|instead)\s", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s|(?<=[。！？])|[:;]\s")
_ARTICLE = re.compile(r"\b(?:the|an?)\s+(?=\w)", re.IGNORECASE)
_MARKUP = re.compile(r"^\s*(?:[#>*+-]+\s+|\d+[.)]\s+)+")
_FENCE = re.compile(r"^\s*(?:```|~~~)")
_THOUGHTS = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
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
    return title if any(character.isprintable() for character in title) else FALLBACK


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
    """White space made single spaces; control characters and those that turn the writing direction left out."""
    text = "".join(" " if character.isspace() else character for character in text[:2000])
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cs") and not _turns_direction(c))
    return " ".join(text.split())


def _turns_direction(character):
    return "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"


def _cut(line):
    """At most 60 characters of the line, between words where there is a space, else between whole characters."""
    line = line.strip(" ,;:-–—")
    if len(line) <= LONGEST:
        return line
    if " " in line[: LONGEST + 1].strip():
        return line[: LONGEST + 1].rpartition(" ")[0].rstrip(" ,;:-–—")
    if re.match(r"https?://", line):
        line = re.sub(r"^https?://(www\.)?", "", line)
    end = min(LONGEST, len(line))
    while end > 0 and end < len(line) and _is_inside_character(line, end):
        end -= 1
    return line[:end]


def _is_inside_character(text, position):
    """Whether what a reader sees as one character goes on across this position (Unicode UAX 29, its main rules)."""
    before, after = text[position - 1], text[position]
    if unicodedata.category(after).startswith("M") or after == "\u200d" or before == "\u200d":
        return True
    if "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f":  # skin tones, tags
        return True
    if _is_flag_letter(after):
        letters = len(text[:position]) - len(text[:position].rstrip("".join(map(chr, range(0x1F1E6, 0x1F200)))))
        return letters % 2 == 1
    return "\u1160" <= after <= "\u11ff"  # the later parts of a Hangul syllable


def _is_flag_letter(character):
    return "\U0001f1e6" <= character <= "\U0001f1ff"
