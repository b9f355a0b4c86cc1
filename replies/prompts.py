"""What the model is sent of a conversation, read once there is room for it in this process."""

import functools
import itertools
import sys
from collections.abc import Iterable, Iterator

from database import connected
from limits import SMALL, memory_of
from models import Missing, Turn
from providers.conversation import Prompt
from replies.feed import COPIES
from replies.reply import Reply
from tables.shown import ShownTurn, count_before, pages_before

WAIT = 1  # seconds for room, after which it is seen whether the reply is still wanted


class _NoRoom(Exception):
    """There is no room for what a prompt takes."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size  # bytes, as far as it was read


def read_prompt(reply: Reply, first: str | None) -> Prompt:
    """The prompt of a reply. `first` is the message of a new session, which has its room. What
    waits for room holds nothing. Raises HungUp where the reply is not wanted any more, Missing
    where its session was deleted."""
    session = reply.session
    if first is not None:
        turns = [Turn(kind="user", content=first)]
        return Prompt(turns, reply.draft.model, session.system)
    size = COPIES * session.system_size if session.lacks_system else 0
    while True:
        while size and not reply.memory.take(size, seconds=WAIT):
            reply.call.pause(0)  # raises HungUp
        try:
            return _read(reply, size)
        except _NoRoom as needs:
            size = needs.size
        session.system = None  # it is read again


def _read(reply: Reply, size: int) -> Prompt:
    """The prompt of a reply that has room for so many bytes. Raises _NoRoom where that does not do,
    and then there is room for nothing."""
    session = reply.session
    with connected():
        session.read_system()
        pages = _with_room(reply, size, pages_before(session.key, reply.id))
        turns = itertools.chain.from_iterable(pages)
        before = session.trim or 0, functools.partial(count_before, session.key)
        prompt = Prompt(turns, reply.draft.model, session.system, *before)
    if not prompt.turns:
        raise Missing  # the session was deleted meanwhile
    texts = [session.system, reply.text, *(turn.content for turn in prompt.turns)]
    reply.memory.take(COPIES * memory_of(texts))  # of what was read, not all may be sent
    return prompt


def _with_room(
    reply: Reply, size: int, pages: Iterable[list[ShownTurn]]
) -> Iterator[list[ShownTurn]]:
    """These pages of turns, beside the system prompt and the reply's own text, as long as there is
    room for them in the reply's slot, which has so many bytes already. Raises _NoRoom."""
    held = sys.getsizeof(reply.session.system) + sys.getsizeof(reply.text)
    for page in itertools.chain([[]], pages):
        held += sum(sys.getsizeof(turn.content) for turn in page)
        if held > SMALL and COPIES * held > size:
            size = COPIES * held
            if not reply.memory.take(size):
                raise _NoRoom(size)
        yield page
