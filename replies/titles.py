"""Titles of sessions: written from the first message, or asked of a model."""

import regex

from database import connected
from models import Turn
from providers.answer import Exchange
from providers.faults import ModelError
from providers.protocols import Provider
from replies.draft import Draft
from replies.reply import Reply, count_usage
from tables.ledger import Usage
from wire import Call, HungUp

LONGEST = 60  # characters
FALLBACK = "New session"
PROMPT = (
    "Write a title of three to seven words for the conversation that begins with the user's "
    "message. Only the title."
)
PROMPT_CHARACTERS = 1000  # of the message
MAX_TOKENS = 500  # a model that thinks spends most of them on that
TIMEOUT = 10  # seconds
MAX_CHARACTERS = 20_000  # of an answer, or of a message, that are looked at

# An English request has said what it wants before one of these words. Behind it the request says
# how, why or when.
_TURN_TO_DETAIL = regex.compile(
    r"(?i)\s(?:using|with|by|via|so|because|since|which|that|where|when|while|if|then|but"
    r"|including|instead)\s"
)
_SENTENCE_END = regex.compile(r"(?<=[.!?…])\s|(?<=[。！？])|[:;]\s")
_ARTICLE = regex.compile(r"(?i)(?<!\S)(?:the|an?)\s+(?=\w)")
_MARKUP = regex.compile(r"^\s*(?:[#>*+-]+\s+|\d+[.)]\s+)+")
_FENCE = regex.compile(r"(?m)^[^\S\n]*(?:```|~~~).*")
# Without `\A`, `.*` would be tried at every character of an answer in which no thinking ends: in
# quadratic time.
_THOUGHTS = regex.compile(r"(?is)\A.*</think(?:ing)?>|<think(?:ing)?>.*")
# These are written without spaces.
_IDEOGRAPH = regex.compile(r"[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
# Controls, halves of characters, and what has no width and shapes no other character, or turns the
# writing direction.
_UNSEEN = regex.compile(
    r"(?![\s\x1c-\x1f])"
    r"[\p{Cc}\p{Cs}\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
)
# Unicode calls the first five letters and signs, and nothing of them is seen.
_SEEN = regex.compile(r"(?![\u115f\u1160\u2800\u3164\uffa0])[\p{L}\p{N}\p{P}\p{S}]")
# What a reader sees as one character: Unicode's extended grapheme cluster (UAX 29).
_CHARACTER = regex.compile(r"\X")
_LABEL = regex.compile(r"(?i)^title\s*:\s*")
_TRIMMED = " ,;:-–—"
_QUOTES = "\"'`*_“”‘’«»„‹›「」『』"


def local_title(message: str) -> str:
    """Return one line of at most 60 characters that names what the message is about: the message
    itself where it fits, else the beginning of its first sentence, up to where that turns to
    details, without articles, and shortened between words."""
    # The first line of prose that has words in it; the first of code where no prose has.
    # Prose, code, prose, …
    parts = _FENCE.split("\n".join(message[:MAX_CHARACTERS].splitlines()))
    lines = (line for part in parts[::2] + parts[1::2] for line in part.splitlines())
    worded = (line for line in lines if any(character.isalnum() for character in line))
    line = _one_line(_MARKUP.sub("", next(worded, message[:1000])))
    if len(line) > LONGEST:
        line = _SENTENCE_END.split(line)[0]
    if len(line) > LONGEST:
        detail = _TURN_TO_DETAIL.search(line, 12)
        line = _ARTICLE.sub("", line[: detail.start()] if detail else line)
    title = _cut(line)
    return title if _SEEN.search(title) else FALLBACK


def proposed_title(answer: str) -> str | None:
    """Return the title in a model's answer, without thinking, quotes and markup; None where there
    is no title."""
    lines = _THOUGHTS.sub("", answer[:MAX_CHARACTERS]).splitlines()
    prose = (_one_line(_MARKUP.sub("", line)) for line in lines if not _FENCE.match(line))
    lines = list(filter(None, prose))
    if len(lines) > 1 and lines[0].endswith(":"):
        del lines[0]  # it is like "Here is a title:"
    if not lines or len(lines[0]) > 200:
        return None
    title = _LABEL.sub("", lines[0].strip(_QUOTES + " ")).strip(_QUOTES + " ")
    title = _cut(title.removesuffix(".").replace("**", "").replace("`", ""))
    return title if any(character.isalnum() for character in title) else None


def _one_line(text: str) -> str:
    """Return the text with single spaces for its white space, and without characters that are not
    seen."""
    return " ".join(_UNSEEN.sub("", text.strip()[:2000]).split())


def _cut(line: str) -> str:
    """Return at most 60 characters of the line, up to the end of a word or an ideograph, else of a
    whole character."""
    line = line.strip(_TRIMMED)
    if len(line) > LONGEST and " " not in line:
        line = regex.sub(r"^https?://(www\.)?", "", line)
    if len(line) <= LONGEST:
        return line
    # `\X` takes quadratic time on a run of flags, so it gets no more than it needs. Whether a
    # character ends at a place depends on what is before that place, and on one code point behind
    # it.
    whole = [
        match.end() for match in _CHARACTER.finditer(line[: LONGEST + 1]) if match.end() <= LONGEST
    ]
    words = [end for end in whole if line[end] == " " or _IDEOGRAPH.match(line[end - 1])]
    return line[: max(words or whole, default=0)].rstrip(_TRIMMED)


def ask_for_title(reply: Reply, provider: Provider, model: str, message: str, call: Call) -> None:
    """Give the session of a reply the title that this model of the provider writes for a message,
    by this call, if it writes one, and nobody has given it another. What that used is counted, also
    where the call is hung up meanwhile."""
    exchange, session = Exchange(call), reply.session
    draft = Draft.of(Turn(id=reply.id, session=session, model=model, content=""))
    title = _generate(exchange, provider, model, message)
    count_usage(draft, draft.turn.usage, exchange.answers, exchange.answers)
    with connected():
        if any(draft.turn.usage.values()):
            Usage.add_late(draft.entry())
        if title and session.suggest_title(title):
            reply.note(title=title)


def _generate(exchange: Exchange, provider: Provider, model: str, message: str) -> str | None:
    """None where the model writes none within the call's time, or is not waited for any more."""
    messages = [{"role": "user", "content": message[:PROMPT_CHARACTERS]}]
    try:
        texts = provider.stream(exchange, model, PROMPT, messages, MAX_TOKENS, {}, retries=0)
        return proposed_title("".join(texts))
    except (ModelError, HungUp):
        return None
