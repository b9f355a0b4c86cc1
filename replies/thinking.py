"""What a model thinks before, or while, it writes a reply: shown as it comes, and kept next to the
turn. None of it is promised exactly. Pure: what has come and the time go in."""

from typing import NamedTuple

from wire import UNSTORABLE

MOST = 2**18  # characters that are kept, and streamed, of one reply; beyond them, all are counted
# Seconds from one event to the next: with one more as text follows, these are four in a second.
TELL_INTERVAL = 1 / 3
REST_INTERVAL = 1  # seconds from one such one to the next
COUNT_INTERVAL = 1  # the same with THINKING=count
STORE_INTERVAL = 2  # seconds from one time that thoughts are stored to the next
BREAK = "\n\n"  # between the thoughts of two calls, or before and after a text


class Thoughts(NamedTuple):
    """What followers are told of it."""

    text: str | None = ""  # None if only the characters are known
    characters: int = 0
    version: int = 0  # another one does not go on from the text of the one before


class NewThoughts(NamedTuple):
    """What is stored of it at a time."""

    turn_id: int
    fence: int
    start: int  # characters that are stored already
    text: str  # that follows these
    is_anew: bool  # what is stored already does not hold: there was text among it
    characters: int | None  # all of them; None if there are none
    milliseconds: int | None
    version: int = 0  # as that of Thoughts


class Thinking:
    """The thinking of one reply, as its writer takes it in. A phase begins with the first thought
    of a call, or the first after a text, and ends with the next text. For example, the thoughts
    "Hm." of a call that broke and "So." of the one after it are kept as "Hm.\n\nSo."."""

    def __init__(
        self, mode: str, text: str = "", characters: int = 0, milliseconds: int = 0
    ) -> None:
        """`mode` is the setting THINKING; the rest is what earlier writers have stored."""
        self._mode = mode
        self._text, self._parts = text, list[str]()  # that follow the text
        self._characters, self._milliseconds, self._version = characters, milliseconds, 0
        self._began: float | None = None  # the phase, unless it is over
        self._call = 0  # of the phase
        self._before = text, characters  # the phase
        self._next_event = self._next_rest = self._next_store = 0.0
        self._is_told = True
        self._stored, self._is_stored, self._is_anew = len(text), True, False

    @property
    def is_going_on(self) -> bool:
        return self._began is not None

    def add(self, thoughts: str, call: int, now: float) -> Thoughts | None:
        """Take thoughts, of the call of this number. Returns what followers are told, if it is time
        to tell them."""
        if call != self._call:
            self.end_phase(now)
        thoughts = UNSTORABLE.sub("\ufffd", thoughts)
        if self._began is None:
            self._began, self._call = now, call
            self._before = self._joined(), self._characters
            self._next_store = max(self._next_store, now + STORE_INTERVAL)
            thoughts = BREAK + thoughts if self._characters else thoughts
        if self._mode != "count" and self._characters < MOST:
            self._parts.append(thoughts[: MOST - self._characters])
        self._characters += len(thoughts)
        self._is_stored = self._is_told = False
        return self.news(now)

    def news(self, now: float) -> Thoughts | None:
        """What followers are told now, if there is anything and it is time to tell them."""
        if self._is_told or now < self._next_event:
            return None
        self._next_event = now + (COUNT_INTERVAL if self._mode == "count" else TELL_INTERVAL)
        return self.told()

    def end_phase(self, now: float) -> Thoughts | None:
        """Text follows, or nothing. Returns what followers are told: the rest of the thoughts, if
        it is time to tell them."""
        if self._began is None:
            return None
        self._milliseconds += round((now - self._began) * 1000)
        self._began, self._is_stored = None, False
        if self._mode == "count" or now < self._next_rest:
            return None
        self._next_rest, self._next_store = now + REST_INTERVAL, 0.0
        return self.told()

    def rest(self) -> Thoughts | None:
        """What followers are told at the end: what they were not told yet."""
        return None if self._is_told or self._mode == "count" else self.told()

    def take_back(self) -> Thoughts | None:
        """What was thought in this phase was text. Returns what followers are told."""
        if self._began is None:
            return None
        (self._text, self._characters), self._parts = self._before, []
        self._began, self._version = None, self._version + 1
        self._stored, self._is_stored, self._is_anew = 0, False, True
        return self.told()

    def figures(self, now: float) -> tuple[int | None, int | None]:
        """How many characters there are, and for how many milliseconds the model has thought; both
        are None if it has not, or if that is not kept."""
        if self._mode == "count" or not self._characters:
            return None, None
        since = 0 if self._began is None else round((now - self._began) * 1000)
        return self._characters, self._milliseconds + since

    def to_store(
        self, turn_id: int, fence: int, now: float, is_over: bool = False
    ) -> NewThoughts | None:
        """What is to be stored: every few seconds, when a phase has ended, and if the reply
        `is_over`."""
        is_due = is_over or now >= self._next_store
        if self._is_stored or self._mode == "count" or not is_due:
            return None
        text = self._joined()[self._stored :] if self._mode == "keep" else ""
        figures = self.figures(now)
        version = self._version
        return NewThoughts(turn_id, fence, self._stored, text, self._is_anew, *figures, version)

    def stored(self, new: NewThoughts, now: float) -> None:
        """This is stored now."""
        if new.version != self._version:
            return  # it was taken back meanwhile, and all of it is stored anew
        self._stored, self._next_store = new.start + len(new.text), now + STORE_INTERVAL
        self._is_anew = False
        self._is_stored = (new.characters, new.milliseconds) == self.figures(now)

    def told(self) -> Thoughts:
        self._is_told = True
        # With "live", the text of an earlier writer is not known.
        is_unknown = self._mode == "count" or (self._characters and not self._joined())
        return Thoughts(None if is_unknown else self._text, self._characters, self._version)

    def _joined(self) -> str:
        self._text, self._parts = "".join([self._text, *self._parts]), []
        return self._text
