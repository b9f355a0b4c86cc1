"""A conversation of a file, by its shape: Parley's own, ChatGPT's, or Claude's, as the body of
POST /sessions/import. The page does the same in `static/`."""

from typing import Any

from upkeep import chatgpt, claude
from upkeep.messages import Conversation, LeftOut, Unreadable, part


def _as_it_is(data: dict[str, Any]) -> Conversation:
    """A line of an export of Parley's."""
    found = part(data, "id", str)
    if not found.strip():
        raise Unreadable("It has no id.")
    return Conversation(data | {"origin": f"parley:{found}"}, LeftOut())


# What only conversations of one shape have.
_READERS = {"turns": _as_it_is, "mapping": chatgpt.convert, "chat_messages": claude.convert}


def is_known(value: Any) -> bool:
    """Whether this is a conversation of a shape that is read."""
    return isinstance(value, dict) and not _READERS.keys().isdisjoint(value)


def convert(value: dict[str, Any]) -> Conversation:
    """The body of a conversation of which the shape is known, and what is left out. Times are RFC
    3339, in whole seconds. Raises Unreadable, and nothing else, whatever the value has."""
    name = next(name for name in _READERS if name in value)
    return _READERS[name](value)


def title_of(value: Any) -> str:
    """What the conversation is called, as far as it says."""
    names = [value.get("title"), value.get("name")] if isinstance(value, dict) else []
    return next((name for name in names if isinstance(name, str) and name.strip()), "")
