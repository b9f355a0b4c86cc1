"""What the model is sent of a conversation, pure functions of its turns; how long its answer may be, and how one goes on."""

import itertools
import math

LONGEST = 8 * 2**20  # bytes of all turns
FRAME = 32  # tokens at most that a provider puts around a message
LEAST = 256  # tokens of an answer, where a refusal names no window
LEARNED_MAX = 1000  # models of a provider; any user may name more
GO_ON = "Your answer was cut off. Go on exactly where it stopped, with the very next character: repeat and explain nothing."
LEAST_OVERLAP, LONGEST_OVERLAP = 20, 10_000  # characters; what is shorter may be text that only looks like a repetition


def messages_of(turns, so_far=""):
    """The messages of a request, made of turns, oldest first; with the text `so_far` of a reply, they ask to go on with that.
    The first is the user's, empty turns are left out and neighbours of one role are joined, since providers refuse all else:
    the turns user "One", assistant "", user "Two" give the one message {"role": "user", "content": "One\\n\\nTwo"}."""
    said = itertools.dropwhile(lambda turn: turn.kind != "user", (turn for turn in turns if turn.content.strip()))
    groups = itertools.groupby(said, lambda turn: turn.kind)
    messages = [{"role": role, "content": "\n\n".join(turn.content for turn in group)} for role, group in groups]
    # Many models refuse a conversation that ends with their own words: the wish to go on is the user's.
    going_on = [{"role": "assistant", "content": so_far}, {"role": "user", "content": GO_ON}]
    return messages + (going_on if so_far.strip() else [])


def size_of(system, messages):
    """The bytes of what a model is sent."""
    return len((system or "").encode()) + sum(len(message["content"].encode()) for message in messages)


def overlap(text, more):
    """How many characters `more` surely repeats of the end of `text`: none where it may be text that only looks like that, as a
    word or two, a rule or an indent without a letter, or a rhythm that goes on, "ha ha ha …"."""
    sizes = range(min(len(text), len(more), LONGEST_OVERLAP), LEAST_OVERLAP - 1, -1)
    longest, *shorter = [size for size in sizes if more[size - 1] == text[-1] and text.endswith(more[:size])] or [0]
    if not any(character.isalpha() for character in more[:longest]):
        return 0
    goes_on = shorter and more[shorter[0] :].startswith(more[longest : 2 * longest - shorter[0]])
    return 0 if goes_on else longest


class Continuation:
    """What comes behind a text with which a model is to go on; what may repeat its end is held back until that is known."""

    def __init__(self, text):
        self.held, self._text = "", text

    def add(self, more):
        """Take what has come; returns what of all that has come is known to be new."""
        self.held += more
        return "" if self.held in self._text else self.decide()

    def decide(self):
        """What is held back, without the repetition, if it is one. From here on, all that comes is new."""
        new, self.held = self.held[overlap(self._text, self.held) :], ""
        self._text = "" if new else self._text
        return new


def newest_half(turns, behind=0):
    """The newest of these turns that have at most half of all characters, from a user turn on; perhaps none. So the next cut is
    far away, and until it the provider's cache of what is sent holds. `behind` them are so many characters more."""
    room = (_characters(turns) + behind) // 2 - behind
    sizes = itertools.accumulate(len(turn.content) for turn in reversed(turns))
    start = len(turns) - sum(size <= room for size in sizes)
    return list(itertools.dropwhile(lambda turn: turn.kind != "user", turns[start:]))


def _characters(turns):
    return sum(len(turn.content) for turn in turns)


class Prompt:
    """What this model is sent of a conversation: the turns from `trim` on, without those that it refused as too long.
    `turns` are those before the reply, the newest first: no more of them are taken than may be sent, which are 8 MB at most.
    The last user turn, the first of these, is sent in any case. `count_before` counts the turns before one that was taken."""

    def __init__(self, turns, model, system, trim=0, count_before=None):
        self.turns, before, taken, size, newer = [], 0, 0, 0, None
        for turn in turns:
            if newer and (turn.id < trim or size > LONGEST):
                before = count_before(newer.id)
                break
            taken += 1
            is_refused = newer and (newer.error_status, newer.model, newer.content) == (413, model, "")
            if turn.kind != "user" or not is_refused:
                self.turns.append(turn)
                size += len(turn.content.encode())
            newer = turn
        self.turns.reverse()
        if size > LONGEST:
            self.turns = newest_half(self.turns) or self.turns[-1:]
        self.turns = list(itertools.dropwhile(lambda turn: turn.kind != "user", self.turns))
        self.left_out = before + taken - len(self.turns)
        self._is_whole = not before and self.turns[:1] == [newer]
        self.tokens = self._most_tokens(model, system)  # it has at most, as far as is known

    def _most_tokens(self, model, system):
        """A token has a byte or more; four, where the provider has counted less of a prompt with which this one begins."""
        known, size = 0, len((system or "").encode())
        for turn in self.turns:
            if turn.input_tokens and (turn.model, turn.turns_left_out, turn.continued) == (model, self.left_out, 0):
                known = size - turn.input_tokens  # bytes that are no tokens
            size += len(turn.content.encode()) + FRAME
        return max(size - known, size // 4)

    def shorten(self):
        """Leave out the older half; returns whether that makes it shorter."""
        kept = newest_half(self.turns) or self.turns[-1:]
        if _characters(kept) == _characters(self.turns):
            return False
        self.tokens = self.tokens * _characters(kept) // _characters(self.turns)
        self.left_out += len(self.turns) - len(kept)
        self.turns, self._is_whole = kept, False
        return True

    def trim(self, reply_id, full=None):
        """Where what the model is sent is to begin from here on: an id, or 0 for the first turn. `full` is the text of the reply
        where it has filled the window: half of it all is left out then, and the reply itself where it is longer than that."""
        if full is None:
            return 0 if self._is_whole else self.turns[0].id
        kept = newest_half(self.turns, behind=len(full))
        return kept[0].id if kept else reply_id + 1


class Windows:
    """The windows of a provider's models, as far as its refusals tell: where it counts prompt and answer together beforehand."""

    def __init__(self):
        self._known = {}  # model → (tokens of its window, the least of it that an answer gets)

    def room(self, model, prompt, most):
        """How many tokens of an answer, at most `most`, fit beside a prompt of so many."""
        window, least = self._known.get(model, (math.inf, 0))
        return min(most, max(least, window - prompt))

    def learn(self, model, window, prompt, limit):
        """Take in that such a prompt was refused beside an answer of `limit` tokens; `window` is 0 where none was named. Returns
        the room that there is by now: as much as before, where the prompt itself is too long."""
        least = window // 4 or LEAST
        if model in self._known or len(self._known) < LEARNED_MAX:
            self._known[model] = window or prompt + least, least
        room = self.room(model, prompt, limit)
        return room if room < limit else min(limit, least)  # the server may add to the prompt what we do not know
