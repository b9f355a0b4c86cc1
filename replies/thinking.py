"""The thinking of a model before or while it writes a reply: shown as it arrives, and kept next to
the turn. Unlike text, some of it may be lost. This module is pure: it gets the thoughts and the
time from its caller."""

from typing import NamedTuple

from wire import storable

MOST = 2**18  # characters of one reply that are kept and streamed; further ones are only counted
# Seconds between two events. Together with the additional event that is sent when text follows,
# that makes at most four events a second.
TELL_INTERVAL = 1 / 3
PHASE_END_INTERVAL = 1  # seconds between two events that are sent because text follows
COUNT_INTERVAL = 1  # seconds between two events if THINKING=count
STORE_INTERVAL = 2  # seconds between two commits of thoughts
BREAK = "\n\n"  # between two phases


class Thoughts(NamedTuple):
    """What followers are told of the thinking so far."""

    text: str | None = ""  # None if only the number of characters is known
    characters: int = 0
    version: int = 0  # grows whenever the text does not begin with the text told before


class NewThoughts(NamedTuple):
    """What one commit stores of the thinking."""

    turn_id: int
    fence: int
    start: int  # characters that are stored already
    text: str  # the characters after these
    replaces_stored: bool  # drop what is stored already: a part belongs to the reply instead
    characters: int | None  # of all thoughts; None if there are none
    milliseconds: int | None
    version: int = 0  # as in Thoughts


class Thinking:
    """The thinking of one reply, in its writer's process. A phase begins with the first thought of
    a call, or with the first after text, and ends with the next text. For example, the thoughts
    "Hm." of a call that broke and "So." of the one after it are kept as "Hm.\n\nSo."."""

    def __init__(
        self, mode: str, text: str = "", characters: int = 0, milliseconds: int = 0
    ) -> None:
        """`mode` is the setting THINKING; the rest is what earlier writers have stored."""
        self._mode = mode
        # The parts follow the text. `_joined` joins them, so that adding a thought
        # does not copy the whole text.
        self._text, self._parts = text, list[str]()
        self._characters, self._milliseconds, self._version = characters, milliseconds, 0
        self._began: float | None = None  # when the phase began; None between phases
        self._call = 0  # the number of the phase's call
        self._before = text, characters  # before the phase
        self._starts_over = False  # the next thought replaces all
        self._next_event = self._next_phase_end = self._next_store = 0.0
        self._is_told = True
        self._stored_length, self._is_all_stored, self._replaces_stored = len(text), True, False

    @property
    def is_in_phase(self) -> bool:
        return self._began is not None

    def add(self, thoughts: str, call: int, now: float) -> Thoughts | None:
        """Add thoughts of the call with this number. Returns what to tell followers, if it is time
        for that."""
        if call != self._call:
            self.end_phase(now)
        thoughts = storable(thoughts)
        if self._began is None:
            self._began, self._call = now, call
            self._before = self._joined(), self._characters
            self._next_store = max(self._next_store, now + STORE_INTERVAL)
            if self._starts_over:
                self._replace("", 0)
            thoughts = BREAK + thoughts if self._characters else thoughts
        if self._mode != "count" and self._characters < MOST:
            self._parts.append(thoughts[: MOST - self._characters])
        self._characters += len(thoughts)
        self._is_all_stored = self._is_told = False
        return self.news(now)

    def news(self, now: float) -> Thoughts | None:
        """What to tell followers now, if there is anything new and it is time for that."""
        if self._is_told or now < self._next_event:
            return None
        self._next_event = now + (COUNT_INTERVAL if self._mode == "count" else TELL_INTERVAL)
        return self.tell()

    def end_phase(self, now: float) -> Thoughts | None:
        """End the phase: text follows, or the reply has ended. Returns what to tell followers, if
        it is time for that."""
        if self._began is None:
            return None
        self._milliseconds += round((now - self._began) * 1000)
        self._began, self._is_all_stored = None, False
        if self._mode == "count" or now < self._next_phase_end:
            return None
        self._next_phase_end, self._next_store = now + PHASE_END_INTERVAL, 0.0
        return self.tell()

    def remaining(self) -> Thoughts | None:
        """What to tell followers at the end, if they lack anything."""
        return None if self._is_told or self._mode == "count" else self.tell()

    def take_back(self) -> Thoughts | None:
        """Drop the thoughts of this phase, which turned out to be text of the reply. Returns what
        to tell followers."""
        if self._began is None:
            return None
        self._began = None
        self._replace(*self._before)
        return self.tell()

    def start_over(self) -> None:
        """Let the next thought replace all that are known: they are read once more."""
        self._starts_over = True

    def go_on(self) -> None:
        """Let the next thought follow those that are known, after all."""
        self._starts_over = False

    def _replace(self, text: str, characters: int) -> None:
        self._text, self._characters, self._parts = text, characters, []
        self._starts_over, self._version = False, self._version + 1
        self._stored_length, self._is_all_stored, self._replaces_stored = 0, False, True

    def figures(self, now: float) -> tuple[int | None, int | None]:
        """The characters of all thoughts, and the milliseconds that the model has thought. Both are
        None if it has not thought, or if these figures are not kept."""
        if self._mode == "count" or not self._characters:
            return None, None
        since = 0 if self._began is None else round((now - self._began) * 1000)
        return self._characters, self._milliseconds + since

    def to_store(
        self, turn_id: int, fence: int, now: float, is_over: bool = False
    ) -> NewThoughts | None:
        """What to store now. Thoughts are due every few seconds, when a phase has ended, and when
        the reply `is_over`. Returns None otherwise."""
        is_due = is_over or now >= self._next_store
        if self._is_all_stored or self._mode == "count" or not is_due:
            return None
        text = self._joined()[self._stored_length :] if self._mode == "keep" else ""
        figures = self.figures(now)
        version = self._version
        start, replaces = self._stored_length, self._replaces_stored
        return NewThoughts(turn_id, fence, start, text, replaces, *figures, version)

    def mark_stored(self, new: NewThoughts, now: float) -> None:
        """Note that these thoughts are stored."""
        if new.version != self._version:
            return  # a phase was taken back meanwhile, so all is stored again
        self._stored_length, self._next_store = new.start + len(new.text), now + STORE_INTERVAL
        self._replaces_stored = False
        self._is_all_stored = (new.characters, new.milliseconds) == self.figures(now)

    def tell(self) -> Thoughts:
        self._is_told = True
        # With THINKING=live, the text of an earlier writer is not known.
        is_unknown = self._mode == "count" or (self._characters and not self._joined())
        return Thoughts(None if is_unknown else self._text, self._characters, self._version)

    def _joined(self) -> str:
        self._text, self._parts = "".join([self._text, *self._parts]), []
        return self._text
