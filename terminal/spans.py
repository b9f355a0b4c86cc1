"""What Markdown marks within a line: bold, italics, code, links. The marks stay, and are dimmed.

What was shown is not taken back. So a span is held back until its end has come: whether `**` begins
something bold is not known before. A mark whose end does not come in the same line is text.
"""

import functools
import re

from terminal.colours import BOLD, CYAN, DIM, ITALIC, MAGENTA, STRUCK, UNDERLINED, both

LONGEST_SPAN = 300  # characters; what is marked for longer is not coloured
LONGEST_ADDRESS = 2000
LONGEST_WORD = 80

# What stands on both sides of a span, by its kind.
PAIRS = {
    "code": (r"(?P<ticks>`+)(?!`)", r"(?<!`)(?P=ticks)(?!`)"),
    "strong": (r"\*\*(?=\S)", r"(?<=\S)\*\*(?!\*)"),
    "strong_": (r"(?<!\w)__(?=\S)", r"(?<=\S)__(?!\w)"),
    "em": (r"(?<![A-Za-z0-9*])\*(?=[^\s*])", r"(?<=[^\s*])\*(?![A-Za-z0-9*])"),
    "em_": (r"(?<!\w)_(?=[^\s_])", r"(?<=[^\s_])_(?!\w)"),
    "struck": (r"~~(?=\S)", r"(?<=\S)~~(?!~)"),
}
STYLES = {
    "strong": BOLD,
    "strong_": BOLD,
    "em": ITALIC,
    "em_": ITALIC,
    "struck": STRUCK,
}
LABEL = rf"\[(?P<label>[^\[\]]{{0,{LONGEST_SPAN}}})\]"
TARGET = rf"(?P<target>(?:[^()]|\([^()]*\)){{0,{LONGEST_ADDRESS}}})"
URL = rf"(?<!\w)https?://[^\s<>\"'`|\\^{{}}()]{{0,{LONGEST_ADDRESS}}}"
POINTS = r".,;:!?*_~\]"  # which a URL does not end with

MARK = re.compile(r"\\|`+|\*+|_+|~+|\[|\||https?://")
SPAN = "|".join(
    [
        r"(?P<escape>\\[!-/:-@\[-`{-~])",
        *(
            f"{begin}(?P<{kind}>.{{1,{LONGEST_SPAN}}}?){end}"
            for kind, (begin, end) in PAIRS.items()
        ),
        rf"{LABEL}\({TARGET}\)",
        rf"(?P<url>{URL}(?<![{POINTS}]))[{POINTS}]*",
    ]
)
# What may become a span.
HALF_SPAN = "|".join(
    [
        r"[*_~`\\]+",
        *(f"{begin}.{{1,{LONGEST_SPAN}}}" for begin, _ in PAIRS.values()),
        rf"{LABEL}(?:\({TARGET}(?:\([^()]*)?)?",
        rf"\[[^\[\]]{{0,{LONGEST_SPAN}}}",
        URL,
    ]
)
LETTERS = "".join(map(chr, range(0x21, 0x7F)))

Pieces = list[tuple[str, str]]  # of text, with their styles


@functools.cache
def compiled(pattern: str) -> re.Pattern[str]:
    """It takes 10 ms, for which no start of the server needs to wait."""
    return re.compile(pattern)


def read_spans(text: str, begin: int, style: str, is_whole: bool) -> tuple[Pieces, int]:
    """The pieces of a line from there on, and where that begins which is not known yet."""
    pieces = []
    while begin < len(text):
        mark = MARK.search(text, begin)
        end = mark.start() if mark else end_of_words(text, begin, is_whole)
        pieces.append((text[begin:end], style))
        if mark is None:
            return pieces, end
        span = compiled(SPAN).match(text, end)
        is_half = span.end() == len(text) if span else compiled(HALF_SPAN).fullmatch(text, end)
        if is_half and not is_whole:
            return pieces, end
        if span:
            pieces += pieces_of(span, style)
            begin = span.end()
        else:
            pieces.append((mark[0], DIM if mark[0] == "|" else style))
            begin = mark.end()
    return pieces, begin


def end_of_words(text: str, begin: int, is_whole: bool) -> int:
    """Where the word begins that may go on: `htt` may be the beginning of an address."""
    end = len(text.rstrip(LETTERS))
    if is_whole or len(text) - end > LONGEST_WORD:
        return len(text)
    return max(begin, end)


def pieces_of(span: re.Match[str], style: str) -> Pieces:
    """Those of what `SPAN` has found."""
    kind = span.lastgroup or ""
    text = span[kind]
    match kind:
        case "escape":
            return [(text, style)]
        case "url":
            return [(text, both(style, CYAN)), (span[0][len(text) :], style)]
        case "target":
            label, _ = read_spans(span["label"], 0, both(style, UNDERLINED), True)
            return [("[", DIM), *label, ("](", DIM), (text, both(style, CYAN)), (")", DIM)]
        case "code":
            inner = [(text, both(style, MAGENTA))]
        case _:
            inner, _ = read_spans(text, 0, both(style, STYLES[kind]), True)
    begin, end = (place - span.start() for place in span.span(kind))
    return [(span[0][:begin], DIM), *inner, (span[0][end:], DIM)]
