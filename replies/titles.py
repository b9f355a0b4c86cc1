"""Titles of sessions: made from the first message, or written by a model."""

import regex

from database import connected
from models import Turn
from providers.answer import Exchange
from providers.faults import ModelError
from providers.protocols import Provider
from replies.draft import Draft
from replies.reply import Reply
from tables.ledger import Usage
from wire import Call, HungUp

LONGEST = 60  # characters
FALLBACK = "New session"
WITHOUT_WORDS = "Image"  # the title of a session that begins with a message without words
PROMPT = (
    "Write a title of three to seven words for the conversation that begins with the user's "
    "message. Only the title."
)
PROMPT_CHARACTERS = 1000  # of the message
MAX_TOKENS = 500  # a model that thinks spends most of them on that
TIMEOUT = 10  # seconds
MAX_CHARACTERS = 20_000  # of an answer or a message; the rest is ignored

# An English request usually says what is wanted before one of these words, and after it, how, why
# or when.
_TURN_TO_DETAIL = regex.compile(
    r"(?i)\s(?:using|with|by|via|so|because|since|which|that|where|when|while|if|then|but"
    r"|including|instead)\s"
)
_SENTENCE_END = regex.compile(r"(?<=[.!?…])\s|(?<=[。！？])|[:;]\s")
_ARTICLE = regex.compile(r"(?i)(?<!\S)(?:the|an?)\s+(?=\w)")
_MARKUP = regex.compile(r"^\s*(?:[#>*+-]+\s+|\d+[.)]\s+)+")
_FENCE = regex.compile(r"(?m)^[^\S\n]*(?:```|~~~).*")
# Without `\A`, an answer in which no thinking ends would take quadratic time: `.*` would be tried
# at every character.
_THOUGHTS = regex.compile(r"(?is)\A.*</think(?:ing)?>|<think(?:ing)?>.*")
# Characters of languages that are written without spaces.
_IDEOGRAPH = regex.compile(r"[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
# Invisible characters: controls, lone surrogates, marks of the writing direction, and those without
# width, except those that shape their neighbours.
_INVISIBLE = regex.compile(
    r"(?![\s\x1c-\x1f])"
    r"[\p{Cc}\p{Cs}\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
)
# Visible characters. The five that are excluded are blank, although Unicode calls them letters or
# symbols.
_VISIBLE = regex.compile(r"(?![\u115f\u1160\u2800\u3164\uffa0])[\p{L}\p{N}\p{P}\p{S}]")
# What a reader takes for one character: Unicode's extended grapheme cluster (UAX 29).
_CHARACTER = regex.compile(r"\X")
_LABEL = regex.compile(r"(?i)^title\s*:\s*")
_TRIMMED = " ,;:-–—"
_QUOTES = "\"'`*_“”‘’«»„‹›「」『』"


def first_title(message: str) -> str:
    """The title of a session that begins with this message, which may have no words, but images."""
    return local_title(message) if message.strip() else WITHOUT_WORDS


def local_title(message: str) -> str:
    """Return a title of one line and at most 60 characters for a message. It is the first line that
    has words, if that fits. Otherwise it is the first sentence of that line; if that is too long as
    well, its articles and details are left out, and it is cut between words."""
    # The parts are prose, code, prose and so on. Code is used only if no prose has words.
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
    return title if _VISIBLE.search(title) else FALLBACK


def proposed_title(answer: str) -> str | None:
    """Return the title in a model's answer, without thinking, quotes and markup; None if there is
    no title."""
    lines = _THOUGHTS.sub("", answer[:MAX_CHARACTERS]).splitlines()
    prose = (_one_line(_MARKUP.sub("", line)) for line in lines if not _FENCE.match(line))
    lines = list(filter(None, prose))
    if len(lines) > 1 and lines[0].endswith(":"):
        del lines[0]  # such as "Here is a title:"
    if not lines or len(lines[0]) > 200:
        return None
    title = _LABEL.sub("", lines[0].strip(_QUOTES + " ")).strip(_QUOTES + " ")
    title = _cut(title.removesuffix(".").replace("**", "").replace("`", ""))
    return title if any(character.isalnum() for character in title) else None


def _one_line(text: str) -> str:
    """Return the text without invisible characters, and with white space as single spaces."""
    return " ".join(_INVISIBLE.sub("", text.strip()[:2000]).split())


def _cut(line: str) -> str:
    """Return at most 60 characters of the line. It is cut after a word or an ideograph, or, if
    there is neither, after a whole character."""
    line = line.strip(_TRIMMED)
    if len(line) > LONGEST and " " not in line:
        line = regex.sub(r"^https?://(www\.)?", "", line)
    if len(line) <= LONGEST:
        return line
    # `\X` takes quadratic time on a row of flag emoji, so it gets one code point more than may be
    # kept: no more is needed to find out whether a character ends there.
    whole = [
        match.end() for match in _CHARACTER.finditer(line[: LONGEST + 1]) if match.end() <= LONGEST
    ]
    words = [end for end in whole if line[end] == " " or _IDEOGRAPH.match(line[end - 1])]
    return line[: max(words or whole, default=0)].rstrip(_TRIMMED)


def ask_for_title(reply: Reply, provider: Provider, model: str, message: str, call: Call) -> None:
    """Ask a model for a title of a session that begins with this message, and set the title unless
    it was changed meanwhile. `reply` is the session's first reply; its followers are told. The
    tokens are counted even if the call is hung up, but not if the database does not answer then."""
    session = reply.session
    exchange = Exchange(call, session.owner)
    draft = Draft.of(Turn(id=reply.id, session=session, model=model, content=""))
    title = _generate(exchange, provider, model, message)
    draft.account.add_up(exchange.answers, finished=exchange.answers)
    with connected():
        if any(draft.account.used.values()):
            Usage.add_late(draft.entry())
        if title and session.suggest_title(title):
            reply.update_progress(title=title)


def _generate(exchange: Exchange, provider: Provider, model: str, message: str) -> str | None:
    """The title that the model writes. None if there is none in its answer, if it fails, if the
    call's time is over, or if the call is hung up."""
    messages = [{"role": "user", "content": message[:PROMPT_CHARACTERS]}]
    try:
        texts = provider.stream(exchange, model, PROMPT, messages, MAX_TOKENS, {}, retries=0)
        return proposed_title("".join(texts))
    except (ModelError, HungUp):
        return None
