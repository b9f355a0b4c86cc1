"""An answer that may be read several times, because its server keeps it. This module is pure."""

from providers.conversation import Continuation


class AnotherAnswer(Exception):
    """What is read again is not what was read before, or the server does not have it any more."""


class Reread:
    """Gives each word of an answer once, however often the answer is read. For example, if "One two
    th" is known, and "One two", " three" is read, the new text is "ree"."""

    def __init__(self, before: str = "", known: str = "") -> None:
        """`known` is what the answer has added so far to the text `before`: that is, without what
        the model repeated of it."""
        self._before, self._known = before, [known]
        self.begin()

    def begin(self) -> None:
        """Begin to read it, again or for the first time."""
        self._known = ["".join(self._known)]
        self._place = 0  # up to which the known text has been read again
        self._continuation = Continuation(self._before)

    def add(self, text: str) -> str:
        """Take a piece of the answer; returns what is new of it. Raises AnotherAnswer."""
        return self._without_known(self._continuation.add(text))

    def end(self) -> str:
        """Take the end of the answer; returns the new text that was held back. Raises AnotherAnswer
        if the known text is longer."""
        new = self._without_known(self._continuation.decide())
        if self._place < len(self._known[0]):
            raise AnotherAnswer
        return new

    def _without_known(self, text: str) -> str:
        known = self._known[0]
        size = min(len(text), len(known) - self._place)
        if not known.startswith(text[:size], self._place):
            raise AnotherAnswer
        self._place += size
        new = text[size:]
        self._known.append(new)
        return new
