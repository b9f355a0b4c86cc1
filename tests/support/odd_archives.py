"""Conversations of ChatGPT's and Claude's exports in which a value has an unexpected type, which
counts as missing; what is imported of them, or why nothing is.
"""

from archives import NO_MESSAGE, chain, chatgpt, claude, said, wrote


def user_said(**fields):
    """A message of the user's, with these fields changed."""
    return said("user", "hi") | fields


def odd_of_chatgpt(**fields):
    """A conversation whose second message has these fields, with unexpected types."""
    return chatgpt(said("user", "first"), user_said(**fields))


FIRST, HI = ("user", "first"), ("user", "hi")
SPOKEN_ODDLY = {"content_type": "audio_transcription", "text": 7}
# A conversation, its turns, and what is left out of it.
ODD = {
    "parts": (chatgpt(said("user", "hi", 7, None, True, ["x"])), [HI], {}),
    "no list of parts": (
        odd_of_chatgpt(content={"content_type": "text", "parts": "hi"}),
        [FIRST],
        {},
    ),
    "speech": (chatgpt(said("user", "hi", SPOKEN_ODDLY)), [HI], {}),
    "kind of a part": (
        chatgpt(said("user", {"content_type": 7})),
        [("user", "[file]")],
        {"files": 1},
    ),
    "message": (
        chatgpt(mapping=chain(said("user", "hi"), "text", [7], 7), current_node="m4"),
        [HI],
        {},
    ),
    "node": (chatgpt(mapping=chain(said("user", "hi")) | {"x": 7, "y": ["z"]}), [HI], {}),
    "parent": (
        chatgpt(mapping={"a": {"parent": ["b"], "message": said("user", "hi")}}, current_node="a"),
        [HI],
        {},
    ),
    "current node": (chatgpt(said("user", "hi"), current_node=1), [HI], {}),
    "title": (chatgpt(said("user", "hi"), title={"a": 1}, id=7, conversation_id="c"), [HI], {}),
    "times": (chatgpt(said("user", "hi", at=["x"]), create_time="2023", update_time={}), [HI], {}),
    "time of the other": (chatgpt(said("user", "hi", at="2023-11-14T22:13:20Z")), [HI], {}),
    "metadata": (odd_of_chatgpt(metadata=["x"]), [FIRST, HI], {}),
    "author": (odd_of_chatgpt(author="user"), [FIRST], {}),
    "role": (odd_of_chatgpt(author={"role": ["user"]}), [FIRST], {"tools": 1}),
    "content": (odd_of_chatgpt(content="hi"), [FIRST], {"tools": 1}),
    "content type": (odd_of_chatgpt(content={"content_type": ["text"]}), [FIRST], {"tools": 1}),
    "recipient": (odd_of_chatgpt(recipient=7), [FIRST], {"tools": 1}),
    "attachments": (odd_of_chatgpt(metadata={"attachments": {"a": 1}}), [FIRST, HI], {}),
    "attachment": (
        odd_of_chatgpt(metadata={"attachments": ["x", {"mime_type": 7}]}),
        [FIRST, HI],
        {"files": 1},
    ),
    "model": (
        chatgpt(said("user", "hi"), said("assistant", "!", metadata={"model_slug": ["x"]})),
        [HI, ("assistant", "!")],
        {},
    ),
    "messages of Claude": (claude("text", wrote("human", "hi"), 7, None, ["x"]), [HI], {}),
    "name and times of Claude": (
        claude(wrote("human", "hi", at=7), name=7, created_at=["x"], updated_at=1700000000),
        [HI],
        {},
    ),
    "sender": (claude(wrote("human", "hi"), wrote(["human"], "?")), [HI], {}),
    "blocks": (
        claude({"sender": "human", "text": "hi", "content": ["text", 7]}),
        [HI],
        {},
    ),
    "no list of blocks": (claude({"sender": "human", "text": "hi", "content": "x"}), [HI], {}),
    "type of a block": (
        claude(wrote("human", "hi"), wrote("assistant", content=[{"type": ["text"], "text": "x"}])),
        [HI],
        {"tools": 1},
    ),
    "text of a block": (
        claude(
            wrote(
                "human", content=[{"type": "text", "text": ["a"]}, {"type": "text", "text": "hi"}]
            )
        ),
        [HI],
        {},
    ),
    "text of Claude": (
        claude(wrote("human", "hi"), {"sender": "assistant", "text": ["x"]}),
        [HI],
        {},
    ),
    "files of Claude": (
        claude(
            wrote("human", attachments=[{"file_name": 7, "extracted_content": ["x"]}, 7], files="x")
        ),
        [("user", "[file]")],
        {"files": 1},
    ),
    "uuid of a message, and branches": (
        claude(
            wrote("human", "old", uuid=7, parent=NO_MESSAGE, at="2024-03-01T09:00:00Z"),
            wrote("human", "first", uuid="a", parent=NO_MESSAGE, at="2024-03-01T09:00:01Z"),
            wrote("human", "hi", uuid="b", parent="a", at="2024-03-01T09:00:02Z"),
        ),
        [FIRST, HI],
        {"branches": 1},
    ),
    "parents of Claude": (
        claude(
            wrote("human", "first", uuid="a", parent=7),
            wrote("human", "hi", uuid="b", parent=["x"]),
            current_leaf_message_uuid=7,
        ),
        [FIRST, HI],
        {},
    ),
}
NO_ID = "It has no id."
NONE_OF_MINE = "It has no message of yours."
CIRCLE = "Its messages refer to each other in a circle."
# A conversation, and why it is refused.
REFUSED = {
    "id of another kind": (chatgpt(said("user", "?"), id=7, conversation_id=["c"]), NO_ID),
    "uuid of another kind": (claude(wrote("human", "?"), uuid=7), NO_ID),
    "mapping of another kind": (chatgpt(mapping="text"), NONE_OF_MINE),
    "messages of another kind": (claude(chat_messages={"a": 1}), NONE_OF_MINE),
    "no part that is a text": (chatgpt(said("user", 7)), NONE_OF_MINE),
    "no block that is one": (claude(wrote("human", content=["text"])), NONE_OF_MINE),
    "a circle": (chatgpt(mapping={"a": {"parent": "a", "message": said("user", "?")}}), CIRCLE),
}
