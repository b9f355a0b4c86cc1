"""Thoughts between `<think>` and `</think>` at the very beginning of an answer. Servers that do not
know a model's template send them as text (DeepSeek-R1 and Qwen3 have such templates)."""

OPENING, CLOSING = "<think>", "</think>"
MOST_SPACE = 1000  # characters of white space; after more, we expect no tag


class ThinkTags:
    """Separates an answer's text from the thoughts before it, as it arrives. Tags may be split
    anywhere. White space before a tag and after the closing tag is dropped. But if the answer
    `goes_on` with an earlier text, spaces after the last line break belong to that text."""

    def __init__(self, goes_on: bool = False) -> None:
        self.goes_on = goes_on
        self._state = "before"  # the tag; then "open" and "closed", if there is one, and "text"
        self._held = ""  # the end of what has come: perhaps a part of a tag, or white space
        self._opening, self._thoughts = "", [""]  # the opening tag, and the thoughts after it

    def add(self, more: str) -> tuple[str, str]:
        """Take a piece of the answer; returns the text and the thoughts that are certain now."""
        if self._state == "text":
            return more, ""
        came, self._held = self._held + more, ""
        if self._state == "before":
            return self._begin(came)
        return self._think(came) if self._state == "open" else (self._after(came), "")

    def _begin(self, came: str) -> tuple[str, str]:
        start = came.lstrip()
        if OPENING.startswith(start) and len(came) < MOST_SPACE:
            self._held = came
            return "", ""
        if not start.startswith(OPENING):
            self._state = "text"
            return came, ""
        self._state = "open"
        thoughts = start.removeprefix(OPENING)
        self._opening = came.removesuffix(thoughts)
        return self._think(thoughts)

    def _think(self, came: str) -> tuple[str, str]:
        thoughts, tag, rest = came.partition(CLOSING)
        if tag:
            self._state, self._thoughts = "closed", []
            return self._after(rest), thoughts
        held = next(size for size in range(len(CLOSING) - 1, -1, -1) if _ends_with(came, size))
        thoughts, self._held = came[: len(came) - held], came[len(came) - held :]
        self._thoughts.append(thoughts)
        return "", thoughts

    def _after(self, came: str) -> str:
        text = came.lstrip()
        space = came[: len(came) - len(text)].rpartition("\n")[2] if self.goes_on else ""
        if not text:
            self._held = space[:MOST_SPACE]
            return ""
        self._state = "text"
        return space + text

    def rest(self) -> str:
        """The rest of the text, at the end of the answer: all of it if the tag was never closed."""
        if self._state == "open":
            return self._opening + "".join(self._thoughts) + self._held
        return self._held if self._state == "before" else ""

    @property
    def is_open(self) -> bool:
        """Whether there is an opening tag, and no closing tag yet."""
        return self._state == "open"


def _ends_with(text: str, size: int) -> bool:
    """Whether the text ends with the first `size` characters of the closing tag."""
    return text.endswith(CLOSING[:size])
