"""Conversations of ChatGPT's and Claude's exports, and of Parley's own, as bodies of an import.

Modules: `upkeep/chatgpt.py`, `upkeep/claude.py`, `upkeep/messages.py`."""

import copy
import random

import pytest

from archives import (
    CHATGPT,
    CHATGPT_BODY,
    CHATGPT_LEFT_OUT,
    CLAUDE,
    CLAUDE_BODY,
    CLAUDE_LEFT_OUT,
    DAY,
    IMAGE,
    NO_MESSAGE,
    asked_of_chatgpt,
    asked_of_claude,
    chain,
    chatgpt,
    claude,
    of_kind,
    said,
    tree,
    wrote,
)
from odd_archives import ODD, REFUSED
from upkeep.foreign import convert, is_known, title_of
from upkeep.messages import LeftOut, Unreadable


def turns(value):
    return [(turn["kind"], turn["content"]) for turn in convert(value).body["turns"]]


def refusal(value):
    with pytest.raises(Unreadable) as refused:
        convert(value)
    return str(refused.value)


WHOLE = [
    (CHATGPT, CHATGPT_BODY, CHATGPT_LEFT_OUT),
    (CLAUDE, CLAUDE_BODY, CLAUDE_LEFT_OUT),
    (*asked_of_chatgpt(7), (0, 0, 0)),
    (*asked_of_claude(8), (0, 0, 0)),
]


@pytest.mark.parametrize(
    "value, body, left_out", WHOLE, ids=["chatgpt", "claude", "plain chatgpt", "plain claude"]
)
def test_a_conversation_becomes_what_was_shown_of_it(value, body, left_out):
    before = copy.deepcopy(value)
    assert convert(value) == (body, left_out)
    assert value == before


def test_a_line_of_parleys_own_is_taken_as_it_is():
    line = {"id": "5b6c", "title": "Own", "turns": [{"kind": "user", "content": "Hello"}]}
    assert convert(line) == (line | {"origin": "parley:5b6c"}, LeftOut())
    for value in ({"turns": []}, {"turns": [], "id": 7}, {"turns": [], "id": " "}):
        assert refusal(value) == "It has no id."


# ChatGPT


def test_without_its_current_node_the_branch_ends_at_the_last_message_that_has_none_behind():
    question, early, late = (
        said("user", "?"),
        said("assistant", "Early."),
        said("assistant", "Late."),
    )
    nodes = tree(("q", "root", question), ("a", "q", early), ("b", "q", late))
    for current in (None, "", "gone"):
        assert turns(chatgpt(mapping=nodes, current_node=current))[-1] == ("assistant", "Late.")
    assert turns(chatgpt(mapping=nodes, current_node="a"))[-1] == ("assistant", "Early.")


def test_the_branch_passes_nodes_without_a_message():
    nodes = tree(
        ("q", "root", said("user", "?")), ("x", "q", None), ("a", "x", said("assistant", "!"))
    )
    assert turns(chatgpt(mapping=nodes, current_node="a")) == [("user", "?"), ("assistant", "!")]


def test_one_of_the_two_names_of_an_id_is_enough():
    assert (
        convert(chatgpt(said("user", "?"), id=None, conversation_id="x")).body["origin"]
        == "chatgpt:x"
    )
    assert refusal(chatgpt(said("user", "?"), id=None)) == "It has no id."


CIRCLES = [
    ("b", tree(("a", "b", said("user", "?")), ("b", "a", said("assistant", "!")))),
    (None, {"a": {"parent": "a", "message": said("user", "?")}}),
    ("a", {"a": {"parent": "a", "message": said("user", "?")}}),
]


@pytest.mark.parametrize("current, mapping", CIRCLES)
def test_a_circle_is_refused_by_its_name(current, mapping):
    circle = chatgpt(mapping=mapping, current_node=current)
    assert refusal(circle) == "Its messages refer to each other in a circle."


def test_a_long_branch_is_taken_whole():
    messages = [said(("user", "assistant")[number % 2], str(number)) for number in range(20_000)]
    assert [content for _, content in turns(chatgpt(*messages))] == [*map(str, range(20_000))]


ATTACHED = {"attachments": [{"name": "a.pdf", "mime_type": "application/pdf"}]}
PHOTO = {"attachments": [{"name": "a.jpg", "mime_type": "image/jpeg"}]}
# A user's message, its text, and how many images and files were left out.
FILES = [
    (said("user", "See:", IMAGE, kind="multimodal_text"), "See:", 1),
    (said("user", IMAGE, IMAGE, kind="multimodal_text"), "[image]", 2),
    (said("user", IMAGE, kind="multimodal_text", metadata=PHOTO), "[image]", 1),
    (said("user", "", metadata=PHOTO), "[image]", 1),
    (said("user", "", metadata=ATTACHED), "[file]", 1),
    (said("user", "Read this.", metadata=ATTACHED), "Read this.", 1),
    (said("user", {"content_type": "video"}, None, kind="multimodal_text"), "[file]", 1),
    (said("user", {}, kind="multimodal_text"), "[file]", 1),
]


@pytest.mark.parametrize("message, text, count", FILES)
def test_images_and_files_are_counted_and_stand_for_a_message_without_text(message, text, count):
    value = chatgpt(message)
    assert turns(value) == [("user", text)]
    assert convert(value).left_out == LeftOut(files=count)


NOT_KEPT = [
    (said("tool", "Found."), 1),
    (said("assistant", "print(1)", recipient="python"), 1),
    (of_kind("code", text="print(1)"), 1),
    (of_kind("execution_output", "tool", text="1"), 1),
    (of_kind("thoughts", thoughts=[]), 1),
    (of_kind("something_new"), 1),
    (of_kind("model_editable_context"), 0),
    (said("system", "Be kind."), 0),
    (said("assistant", "Psst.", metadata={"is_visually_hidden_from_conversation": True}), 0),
    (said("assistant", ""), 0),
    (said("assistant"), 0),
    ({}, 0),
]


@pytest.mark.parametrize("message, count", NOT_KEPT)
def test_what_is_no_message_is_not_taken_and_tools_are_counted(message, count):
    value = chatgpt(
        said("user", "?"), said("assistant", "One."), message, said("assistant", "Two.")
    )
    assert turns(value) == [("user", "?"), ("assistant", "One.\n\nTwo.")]
    assert convert(value).left_out == LeftOut(tools=count)


def test_of_joined_answers_the_last_names_the_model_and_the_first_the_time():
    first = said("assistant", "One.", at=DAY, metadata={"model_slug": "gpt-4o"})
    last = said("assistant", "Two.", at=DAY + 9, metadata={"model_slug": "o3"})
    turn = convert(chatgpt(said("user", "?", metadata={"model_slug": "x"}), first, last)).body[
        "turns"
    ]
    assert turn[1] == {
        "kind": "assistant",
        "content": "One.\n\nTwo.",
        "created_at": "2023-11-14T22:13:20Z",
        "model": "o3",
    }
    assert "model" not in turn[0]


TEXTS = [
    ("a\ue200cite\ue202turn0search0\ue201b", "ab"),
    ("a\ue200cite\n\ue201b\ue200x\ue201", "ab"),
    ('In \ue200entity\ue202["city","Ulm \\"on\\" it","in Swabia"]\ue201.', 'In Ulm \\"on\\" it.'),
    ('In \ue200entity\ue202["city"]\ue201.', "In ."),
    ('In \ue200entity\ue202["city","Ulm\\\n"]\ue201.', "In Ulm\\\n."),
    ("a\ue200never closed", "a\ue200never closed"),
    ("a\0b\ud83dc\U0001f600", "a\ufffdb\ufffdc\U0001f600"),
    ("  kept \n", "  kept \n"),
]


@pytest.mark.parametrize("text, taken", TEXTS)
def test_citations_and_what_no_database_holds_are_taken_out(text, taken):
    assert turns(chatgpt(said("user", text))) == [("user", taken)]


@pytest.mark.parametrize(
    "seconds, told",
    [
        (0, "1970-01-01T00:00:00Z"),
        (DAY + 0.999, "2023-11-14T22:13:20Z"),
        (253402300799.5, "9999-12-31T23:59:59Z"),
        *((odd, None) for odd in (-1, 253402300800, 1e300, float("nan"), float("inf"), 10**400)),
        ("2023-11-14T23:13:20+01:00", "2023-11-14T22:13:20Z"),
        *((odd, None) for odd in (None, True, "2023", "2023-11-14", "20231114T221320Z", [])),
    ],
)
def test_a_time_is_told_in_whole_seconds_or_left_out(seconds, told):
    value = chatgpt(said("user", "?", at=seconds), create_time=seconds, update_time=seconds)
    body = convert(value).body
    assert [body.get("created_at"), body.get("updated_at")] == [told, told]
    assert body["turns"][0].get("created_at") == told


@pytest.mark.parametrize(
    "title, taken",
    [(None, None), ("", None), (" \n", None), ("é" * 300, "é" * 200), (" A ", " A ")],
)
def test_a_title_is_cut_or_left_out(title, taken):
    assert convert(chatgpt(said("user", "?"), title=title)).body.get("title") == taken


# Claude


def test_without_branches_the_messages_are_taken_in_their_order():
    late, early = (
        wrote("human", "?", at="2025-01-01T00:00:00Z"),
        wrote("assistant", "!", at="2024-01-01T00:00:00Z"),
    )
    assert turns(claude(late, early)) == [("user", "?"), ("assistant", "!")]


def branched(**fields):
    return claude(
        wrote("human", "?", uuid="1", parent=NO_MESSAGE, at="2024-01-01T00:00:00Z"),
        wrote("assistant", "Newest.", uuid="2", parent="1", at="2024-01-01T00:00:09.5Z"),
        wrote("assistant", "Older.", uuid="3", parent="1", at="2024-01-01T00:00:09.25+00:00"),
        **fields,
    )


def test_of_branches_the_one_is_taken_that_ends_at_the_newest_message():
    assert turns(branched()) == [("user", "?"), ("assistant", "Newest.")]
    assert convert(branched()).left_out == LeftOut(branches=1)


def test_of_branches_the_one_is_taken_that_was_shown():
    value = branched(current_leaf_message_uuid="3")
    assert turns(value) == [("user", "?"), ("assistant", "Older.")]


def test_branches_that_lead_in_a_circle_are_refused_by_that_name():
    value = claude(
        wrote("human", "?", uuid="1", parent="2"),
        wrote("assistant", "!", uuid="2", parent="1"),
        wrote("assistant", "!!", uuid="3", parent="1"),
    )
    assert refusal(value) == "Its messages refer to each other in a circle."


def test_the_text_beside_the_blocks_counts_where_there_are_no_blocks():
    blocks = [
        {"type": "tool_use"},
        {"type": "injected_prompt_block"},
        {"type": "text", "text": None},
    ]
    value = claude(
        {"sender": "human", "text": "Old?"},
        {"sender": "assistant", "text": "Flat.", "content": blocks},
        {"sender": "assistant", "text": "Old.", "content": []},
    )
    assert turns(value) == [("user", "Old?"), ("assistant", "Old.")]
    assert convert(value).left_out == LeftOut(tools=1)


def test_speech_is_text_and_what_stands_for_other_blocks_is_none():
    lacking = "```\nThis block is not supported on your current device yet.\n```"
    value = claude(
        {"sender": "human", "content": [{"type": "voice_note", "text": "Said."}]},
        {"sender": "assistant", "text": f"Before.\n\n{lacking}\n\nAfter."},
    )
    (_, asked), (_, answered) = turns(value)
    assert (asked, answered.split()) == ("Said.", ["Before.", "After."])
    assert convert(value).left_out == LeftOut()


ATTACHMENTS = [
    ({"attachments": [{"file_name": "a.txt", "extracted_content": "x"}]}, "[file a.txt]\nx", 0),
    ({"attachments": [{"extracted_content": "x"}]}, "[file]\nx", 0),
    ({"files": [{"file_name": "a.png"}, {}]}, "[file a.png]\n\n[file]", 2),
    ({"content": [{"type": "image", "file_uuid": "f"}]}, "[image]", 1),
    ({"content": [{"type": "document", "title": "A"}]}, "[file]", 1),
]


@pytest.mark.parametrize("fields, text, count", ATTACHMENTS)
def test_a_message_of_files_has_their_names(fields, text, count):
    blocks = [{"type": "text", "text": "!"}, *fields.get("content", [])]
    answer = wrote("assistant", **fields | {"content": blocks})
    value = claude(wrote("human", **fields), answer)
    assert turns(value) == [("user", text), ("assistant", "!")]
    assert convert(value).left_out == LeftOut(files=2 * count)


def test_a_message_of_another_sender_is_not_taken():
    value = claude(wrote("human", "?"), wrote("moderator", "Stop."), wrote("assistant", "!"))
    assert turns(value) == [("user", "?"), ("assistant", "!")]


def test_times_of_other_zones_are_told_in_utc_and_odd_ones_left_out():
    for text, told in [
        ("2024-03-01T00:30:00.9+01:00", "2024-02-29T23:30:00Z"),
        ("2024-03-01T00:30:00", "2024-03-01T00:30:00Z"),
        (7, "1970-01-01T00:00:07Z"),
        *((odd, None) for odd in ("0001-01-01T00:00:00+23:00", "1969-12-31T00:00:00Z", "soon", [])),
    ]:
        body = convert(claude(wrote("human", "?", at=text), created_at=text)).body
        assert (body.get("created_at"), body["turns"][0].get("created_at")) == (told, told), text


# What is refused


@pytest.mark.parametrize(
    "value",
    [
        chatgpt(),
        chatgpt(said("assistant", "!")),
        chatgpt(mapping={}),
        chatgpt(mapping=None),
        chatgpt(said("user", " \n")),
        claude(),
        claude(wrote("assistant", "!")),
        claude(chat_messages=None),
    ],
)
def test_without_a_message_of_the_user_it_is_passed_over(value):
    assert refusal(value) == "It has no message of yours."


@pytest.mark.parametrize("value, refused", REFUSED.values(), ids=REFUSED)
def test_what_is_lacking_or_leads_in_a_circle_is_refused_by_its_name(value, refused):
    assert refusal(value) == refused


@pytest.mark.parametrize("value, taken, left_out", ODD.values(), ids=ODD)
def test_what_is_of_another_kind_counts_as_missing(value, taken, left_out):
    assert turns(value) == taken
    assert convert(value).left_out == LeftOut(**left_out)


STRANGE = [None, True, 7, -0.5, "", "x", "\ud800", [], ["x"], [[]], {}, {"x": None}]


def places_in(value, path=()):
    """The paths to all values within this one."""
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, each in items:
        yield from places_in(each, (*path, key))


@pytest.mark.parametrize("whole", [CHATGPT, CLAUDE], ids=["chatgpt", "claude"])
def test_whatever_stands_in_any_place_is_taken_or_refused(whole):
    """Each value of a conversation, one after the other, becomes each of the strange ones."""
    outcomes = set()
    for path in [path for path in places_in(whole) if path]:
        for strange in STRANGE:
            value = copy.deepcopy(whole)
            place = value
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = strange
            try:
                assert convert(value).body["turns"][0]["kind"] == "user"
                outcomes.add("taken")
            except Unreadable:
                outcomes.add("refused")
    assert outcomes == {"taken", "refused"}


def test_whatever_is_mixed_is_taken_or_refused():
    chance = random.Random(39)
    for _ in range(3000):
        value = copy.deepcopy(chance.choice([CHATGPT, CLAUDE]))
        for path in chance.sample([path for path in places_in(value) if len(path) > 1], 3):
            place = value
            try:
                for key in path[:-1]:
                    place = place[key]
                place[path[-1]] = chance.choice(STRANGE)
            except (KeyError, IndexError, TypeError, AttributeError):
                continue  # it was replaced before
        try:
            convert(value)
        except Unreadable as refused:
            assert str(refused).endswith(".")


# The shape


@pytest.mark.parametrize("value", [None, 7, "mapping", [], {}, {"title": "Folder"}, ["turns"]])
def test_what_has_no_messages_is_of_no_known_shape(value):
    assert not is_known(value)
    assert title_of(value) == (value["title"] if value == {"title": "Folder"} else "")


def test_the_three_shapes_are_known():
    assert all(map(is_known, [CHATGPT, CLAUDE, {"turns": None}, chatgpt(mapping=chain())]))
    assert [title_of(value) for value in (chatgpt(), claude(), {"title": 7})] == [
        "Rivers",
        "Lakes",
        "",
    ]
