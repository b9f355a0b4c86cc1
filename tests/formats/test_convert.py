"""Conversations of the exports of ChatGPT, Claude, Open WebUI and Parley, as bodies of an import.

Modules: `formats/chatgpt.py`, `formats/claude.py`, `formats/openwebui.py`, `formats/common.py`."""

import copy
import random
import time

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
    OPENWEBUI,
    OPENWEBUI_BODY,
    OPENWEBUI_LEFT_OUT,
    THOUGHT,
    asked_of_chatgpt,
    asked_of_claude,
    asked_of_openwebui,
    chain,
    chatgpt,
    chatted,
    claude,
    of_kind,
    openwebui,
    said,
    tree,
    wrote,
)
from formats import common, convert, images_of, images_within, title_of
from formats.common import LeftOut, Unreadable
from odd_archives import ODD, REFUSED
from replies import thinking


def turns(value):
    return [(turn["kind"], turn["content"]) for turn in convert(value).body["turns"]]


def refusal(value):
    with pytest.raises(Unreadable) as refused:
        convert(value)
    return str(refused.value)


WHOLE = [
    (CHATGPT, CHATGPT_BODY, CHATGPT_LEFT_OUT),
    (CLAUDE, CLAUDE_BODY, CLAUDE_LEFT_OUT),
    (OPENWEBUI, OPENWEBUI_BODY, OPENWEBUI_LEFT_OUT),
    (*asked_of_chatgpt(7), (0, 0, 0)),
    (*asked_of_claude(8), (0, 0, 0)),
    (*asked_of_openwebui(9), (0, 0, 0)),
]
PRODUCTS = ["chatgpt", "claude", "openwebui"]


@pytest.mark.parametrize(
    "value, body, left_out", WHOLE, ids=[*PRODUCTS, *(f"plain {name}" for name in PRODUCTS)]
)
def test_a_conversation_becomes_what_was_shown_of_it(value, body, left_out):
    before = copy.deepcopy(value)
    assert convert(value) == (body, left_out)
    assert value == before


def test_a_line_of_parleys_own_export_is_not_changed():
    line = {"id": "5b6c", "title": "Own", "turns": [{"kind": "user", "content": "Hello"}]}
    assert convert(line) == (line | {"origin": "parley:5b6c"}, LeftOut())
    for value in ({"turns": []}, {"turns": [], "id": 7}, {"turns": [], "id": " "}):
        assert refusal(value) == "It has no id."


# Own lines whose user's turn has these files → its text and files, and how many are left out.
OWN = [
    ([{"id": "a", "alt": "A cat"}], "Hi", [{"id": "1", "alt": "A cat"}], 0),
    ([{"id": "a"}, {"id": "b"}, "a"], "[image]\n\nHi", [{"id": "1"}, {"id": "1"}], 1),
    ([{"id": 7}, None, {}], "[image]\n\n[image]\n\n[image]\n\nHi", [], 3),
    ([{"id": "a"}] * 9, "[image]\n\nHi", [{"id": "1"}] * 8, 1),
    ([], "Hi", [], 0),
    (None, "Hi", None, 0),
    ("a", "Hi", "a", 0),  # the import refuses it
]


@pytest.mark.parametrize("files, text, expected, count", OWN)
def test_files_of_an_own_line_that_are_not_there_leave_marks(files, text, expected, count):
    asked = {"kind": "user", "content": "Hi", "files": files}
    line = {"id": "5b6c", "turns": [asked, 7, {"kind": "assistant", "content": "Ho"}]}
    before = copy.deepcopy(line)
    body, left_out = convert(line, {"a": "1"})
    assert body["turns"] == [asked | {"content": text, "files": expected}, *line["turns"][1:]]
    assert left_out == LeftOut(files=count) and line == before


@pytest.mark.parametrize(
    "turns", [None, 7, {"a": 1}, [7], [{"kind": "user", "files": [{"id": 7}]}]]
)
def test_an_odd_own_line_needs_no_images(turns):
    assert images_of({"id": "x", "turns": turns}) == []


# ChatGPT


def test_without_a_current_node_the_branch_ends_at_the_newest_leaf():
    question, early, late = (
        said("user", "?"),
        said("assistant", "Early."),
        said("assistant", "Late."),
    )
    nodes = tree(("q", "root", question), ("a", "q", early), ("b", "q", late))
    for current in (None, "", "gone"):
        assert turns(chatgpt(mapping=nodes, current_node=current))[-1] == ("assistant", "Late.")
    assert turns(chatgpt(mapping=nodes, current_node="a"))[-1] == ("assistant", "Early.")


def test_the_branch_skips_nodes_without_a_message():
    nodes = tree(
        ("q", "root", said("user", "?")), ("x", "q", None), ("a", "x", said("assistant", "!"))
    )
    assert turns(chatgpt(mapping=nodes, current_node="a")) == [("user", "?"), ("assistant", "!")]


def test_either_of_the_two_names_of_an_id_is_enough():
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
def test_a_circle_of_messages_is_refused(current, mapping):
    circle = chatgpt(mapping=mapping, current_node=current)
    assert refusal(circle) == "Its messages refer to each other in a circle."


def test_a_long_branch_is_imported_whole():
    messages = [said(("user", "assistant")[number % 2], str(number)) for number in range(20_000)]
    assert [content for _, content in turns(chatgpt(*messages))] == [*map(str, range(20_000))]


ATTACHED = {"attachments": [{"name": "a.pdf", "mime_type": "application/pdf"}]}
PHOTO = {"attachments": [{"name": "a.jpg", "mime_type": "image/jpeg"}]}
# A user's message → its text, and how many images and files were left out.
FILES = [
    (said("user", "See:", IMAGE, kind="multimodal_text"), "[image]\n\nSee:", 1),
    (said("user", IMAGE, IMAGE, kind="multimodal_text"), "[image]\n\n[image]", 2),
    (said("user", IMAGE, kind="multimodal_text", metadata=PHOTO), "[image]", 1),
    (said("user", "", metadata=PHOTO), "[image]", 1),
    (said("user", "", metadata=ATTACHED), "[file]", 1),
    (said("user", "Read this.", metadata=ATTACHED), "Read this.", 1),
    (said("user", {"content_type": "video"}, None, kind="multimodal_text"), "[file]", 1),
    (said("user", {}, kind="multimodal_text"), "[file]", 1),
]


@pytest.mark.parametrize("message, text, count", FILES)
def test_images_are_marked_in_the_text_and_files_only_if_there_is_none(message, text, count):
    value = chatgpt(message)
    assert turns(value) == [("user", text)]
    assert convert(value).left_out == LeftOut(files=count)


GIVEN = {"file-A": "1", "file_b": "2", "pdf": "3"}
A = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://file-A"}
B = {"content_type": "image_asset_pointer", "asset_pointer": "sediment://file_b"}
A_ATTACHED = {"id": "file-A", "mime_type": "image/png"}
PDF = {"id": "pdf", "mime_type": "application/pdf"}
# A user's message → its text and files, and how many images and files were left out.
WITH_IMAGES = [
    (said("user", A, "See:", IMAGE, B, kind="multimodal_text"), "[image]\n\nSee:", ["1", "2"], 1),
    (said("user", A, kind="multimodal_text"), "", ["1"], 0),
    (said("user", A, metadata={"attachments": [A_ATTACHED]}), "", ["1"], 0),
    (said("user", "", metadata={"attachments": [A_ATTACHED]}), "", ["1"], 0),
    (said("user", A, metadata={"attachments": [A_ATTACHED, PDF]}), "[file]", ["1"], 1),
    (said("user", "!", *[A] * 10, kind="multimodal_text"), "[image]\n\n[image]\n\n!", ["1"] * 8, 2),
    (said("user", "!", A | {"asset_pointer": 7}, kind="multimodal_text"), "[image]\n\n!", None, 1),
]


@pytest.mark.parametrize("message, text, files, count", WITH_IMAGES)
def test_images_that_are_given_are_the_files_of_the_turn(message, text, files, count):
    answer = said("assistant", A, "Ah.", kind="multimodal_text")
    body, left_out = convert(chatgpt(message, answer), GIVEN)
    asked, answered = body["turns"]
    assert (asked["content"], asked.get("files")) == (text, files)
    assert answered == {"kind": "assistant", "content": "[image]\n\nAh."}  # replies have none
    assert left_out == LeftOut(files=count + 1)


def test_only_images_on_the_shown_branch_are_needed():
    nodes = tree(
        ("old", "root", said("user", A, kind="multimodal_text")),
        ("new", "root", said("user", B, B, kind="multimodal_text")),
        ("a", "new", said("assistant", A, kind="multimodal_text")),
    )
    assert images_of(chatgpt(mapping=nodes, current_node="a")) == ["file_b"]


NOT_KEPT = [
    (said("tool", "Found."), 1),
    (said("assistant", "print(1)", recipient="python"), 1),
    (of_kind("code", text="print(1)"), 1),
    (of_kind("execution_output", "tool", text="1"), 1),
    (of_kind("thoughts", thoughts=[]), 0),
    (of_kind("thoughts", "tool", thoughts=[{"content": "Hm."}]), 1),
    (of_kind("reasoning_recap", content="Thought for 5s"), 0),
    (of_kind("something_new"), 1),
    (of_kind("model_editable_context"), 0),
    (said("system", "Be kind."), 0),
    (said("assistant", "Psst.", metadata={"is_visually_hidden_from_conversation": True}), 0),
    (said("assistant", ""), 0),
    (said("assistant"), 0),
    ({}, 0),
]


@pytest.mark.parametrize("message, count", NOT_KEPT)
def test_what_is_no_message_is_left_out_and_tools_are_counted(message, count):
    value = chatgpt(
        said("user", "?"), said("assistant", "One."), message, said("assistant", "Two.")
    )
    assert turns(value) == [("user", "?"), ("assistant", "One.\n\nTwo.")]
    assert convert(value).left_out == LeftOut(tools=count)


THOUGHTS = [{"summary": "First", "content": "One."}, {"content": "Two."}]
# What comes before an answer → the thinking of its turn.
THINKING = [
    ([of_kind("thoughts", thoughts=THOUGHTS)], {"text": "**First**\n\nOne.\n\nTwo."}),
    (
        [
            of_kind("thoughts", thoughts=THOUGHTS[1:]),
            of_kind("reasoning_recap", metadata={"finished_duration_sec": 2.5}),
            said("assistant", "search()", recipient="web.run"),
            of_kind("thoughts", thoughts=[{"summary": "Then"}, 7, {"content": ["x"]}]),
            of_kind("reasoning_recap", metadata={"finished_duration_sec": 3}),
        ],
        {"text": "Two.\n\n**Then**", "seconds": 5.5},
    ),
    ([of_kind("thoughts", thoughts=[{"content": "a\0b\ud83d"}])], {"text": "a\ufffdb\ufffd"}),
    *(
        (
            [
                of_kind("thoughts", thoughts=THOUGHTS[1:]),
                of_kind("reasoning_recap", metadata={"finished_duration_sec": odd}),
            ],
            {"text": "Two."},
        )
        for odd in (None, True, "5", -1, 1e10, float("nan"), 10**400)
    ),
    ([of_kind("thoughts", thoughts="x"), of_kind("thoughts", thoughts=[{}])], None),
    (
        [
            of_kind("thoughts", thoughts=[{"content": "x" * 200_000}]),
            of_kind("thoughts", thoughts=[{"content": "x" * 200_000}]),
        ],
        {"text": "x" * 200_000 + "\n\n" + "x" * 62_142},
    ),
]


@pytest.mark.parametrize("before, thought", THINKING, ids=range(len(THINKING)))
def test_thinking_before_an_answer_is_imported(before, thought):
    value = chatgpt(said("user", "?"), *before, said("assistant", "!"))
    [_, turn] = convert(value).body["turns"]
    assert (turn["content"], turn.get("thinking")) == ("!", thought)


def test_the_limit_of_imported_thinking_is_that_of_a_reply():
    assert common.LONGEST_THINKING == thinking.MOST


def test_thinking_without_an_answer_was_interrupted():
    value = chatgpt(said("user", "?"), of_kind("thoughts", thoughts=THOUGHTS[1:]))
    turn = {"kind": "assistant", "content": "", "thinking": {"text": "Two."}}
    assert convert(value).body["turns"][1] == turn | {"status": "interrupted"}


def test_joined_answers_have_the_last_model_and_the_first_time():
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
def test_citations_and_invalid_characters_are_removed(text, taken):
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
def test_a_time_becomes_whole_seconds_or_is_left_out(seconds, told):
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


def test_without_branches_the_messages_keep_their_order():
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


def test_the_branch_that_ends_at_the_newest_message_is_imported():
    assert turns(branched()) == [("user", "?"), ("assistant", "Newest.")]
    assert convert(branched()).left_out == LeftOut(branches=1)


def test_the_branch_that_was_shown_is_imported():
    value = branched(current_leaf_message_uuid="3")
    assert turns(value) == [("user", "?"), ("assistant", "Older.")]


def test_branches_in_a_circle_are_refused():
    value = claude(
        wrote("human", "?", uuid="1", parent="2"),
        wrote("assistant", "!", uuid="2", parent="1"),
        wrote("assistant", "!!", uuid="3", parent="1"),
    )
    assert refusal(value) == "Its messages refer to each other in a circle."


def test_text_outside_the_blocks_counts_if_there_are_no_blocks():
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


def test_speech_is_text_and_placeholders_for_other_blocks_are_not():
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
    images = "[image]\n\n" * ("[image]" in text)
    assert turns(value) == [("user", text), ("assistant", f"{images}!")]
    assert convert(value).left_out == LeftOut(files=2 * count)


def test_images_of_claude_can_be_given():
    files = [{"file_uuid": "f", "file_name": "a.png"}, {"file_uuid": "g", "file_name": "b.pdf"}]
    blocks = [{"type": "text", "text": "!"}, {"type": "image", "file_uuid": "f"}]
    value = claude(wrote("human", files=files, content=blocks), wrote("assistant", "Ah."))
    body, left_out = convert(value, {"f": "id of f"})
    question = {"kind": "user", "content": "!\n\n[file b.pdf]", "files": ["id of f"]}
    assert body["turns"][0] == question and left_out == LeftOut(files=1)
    assert convert(value).left_out == LeftOut(files=3)
    assert images_of(value) == ["f", "g"]


def test_a_message_of_another_sender_is_left_out():
    value = claude(wrote("human", "?"), wrote("moderator", "Stop."), wrote("assistant", "!"))
    assert turns(value) == [("user", "?"), ("assistant", "!")]


def test_times_become_utc_and_invalid_ones_are_left_out():
    for text, told in [
        ("2024-03-01T00:30:00.9+01:00", "2024-02-29T23:30:00Z"),
        ("2024-03-01T00:30:00", "2024-03-01T00:30:00Z"),
        (7, "1970-01-01T00:00:07Z"),
        *((odd, None) for odd in ("0001-01-01T00:00:00+23:00", "1969-12-31T00:00:00Z", "soon", [])),
    ]:
        body = convert(claude(wrote("human", "?", at=text), created_at=text)).body
        assert (body.get("created_at"), body["turns"][0].get("created_at")) == (told, told), text


def test_how_long_claude_thought_is_read_from_its_blocks():
    def block(start, stop):
        times = {"start_timestamp": start, "stop_timestamp": stop}
        return {"type": "thinking", "thinking": "Hm."} | times

    at = "2024-03-01T09:00:0"
    blocks = [
        block(f"{at}0Z", f"{at}1.25Z"),
        block(f"{at}3Z", f"{at}5Z"),
        block(f"{at}5Z", f"{at}3Z"),
        block(None, f"{at}3Z"),
        block(7, []),
    ]
    value = claude(wrote("human", "?"), wrote("assistant", content=blocks))
    turn = convert(value).body["turns"][1]
    assert turn["thinking"] == {"text": "\n\n".join(["Hm."] * 5), "seconds": 3.25}


# Open WebUI


def test_the_branch_that_ends_at_the_current_message_is_imported():
    messages = {
        "q": chatted("user", "?"),
        "a": chatted("assistant", "Early.", parent="q"),
        "b": chatted("assistant", "Late.", parent="q"),
    }
    assert turns(openwebui(messages, "a")) == [("user", "?"), ("assistant", "Early.")]
    for current in (None, "", "gone", 7):
        assert turns(openwebui(messages, current))[-1] == ("assistant", "Late.")
    assert convert(openwebui(messages, "a")).left_out == LeftOut(branches=1)
    messages["q"]["parentId"] = "b"
    assert refusal(openwebui(messages, "a")) == "Its messages refer to each other in a circle."


def test_an_export_of_an_older_release_is_imported_too():
    chat = openwebui({"q": chatted("user", "?", at=DAY)}, "q")["chat"]
    assert convert({"id": "old", "chat": chat}).body["origin"] == "openwebui:old"
    assert convert(chat | {"id": "older"}).body["origin"] == "openwebui:older"
    assert convert({"chat": chat | {"id": "inner"}}).body["title"] == "Seas"
    assert refusal({"chat": chat}) == "It has no id."


CODE = '<details type="code_interpreter" done="true" duration="1">\n<summary>Analyzed</summary>\n```python\n1\n```\n</details>'
# The text of an answer → the text that is shown, its thinking, and how many tools it had.
ANSWERS = [
    ("Plain.\n", "Plain.\n", None, 0),
    (f"{THOUGHT}\nSo.", "So.", {"text": "Salt & water?\n\n<b>Deep</b>.", "seconds": 5}, 0),
    (f"One.\n\n{CODE}\n    Two.", "One.\n\n    Two.", None, 1),
    (
        '<details type="reasoning" done="true" duration="0.5">\n<summary>S</summary>\n> a & b &amp;\n>  c\n</details>\n!',
        "!",
        {"text": "a & b &amp;\n c", "seconds": 0.5},
        0,
    ),
    (
        '<details type="reasoning" done="false">\n<summary>Thinking…</summary>\n&gt; a\n</details>',
        "",
        {"text": "a"},
        0,
    ),
    (
        f'{THOUGHT}\n{THOUGHT}\n<details type="reasoning" open',
        '<details type="reasoning" open',
        {
            "text": "Salt & water?\n\n<b>Deep</b>.\n\nSalt & water?\n\n<b>Deep</b>.",
            "seconds": 10,
        },
        0,
    ),
    ("<details>\n<summary>Mine</summary>\n</details>", None, None, 0),
    ('<details type="reasoning" done="true">never closed', None, None, 0),
]


@pytest.mark.parametrize("content, text, thought, tools", ANSWERS, ids=range(len(ANSWERS)))
def test_thinking_and_tools_are_removed_from_an_answer(content, text, thought, tools):
    messages = {"q": chatted("user", "?"), "a": chatted("assistant", content, parent="q")}
    body, left_out = convert(openwebui(messages, "a"))
    [_, turn] = body["turns"]
    assert turn["content"] == (content if text is None else text)
    assert turn.get("thinking") == thought and left_out == LeftOut(tools=tools)


def test_a_message_may_be_a_list_of_parts():
    parts = [{"type": "text", "text": "See:"}, {"type": "image_url"}, 7, {"text": "There."}]
    assert turns(openwebui({"q": chatted("user", parts)}, "q")) == [("user", "See:\n\nThere.")]


def test_thinking_may_come_beside_the_text():
    answer = chatted("assistant", "!", parent="q", reasoning_content="Hm.")
    [_, turn] = convert(openwebui({"q": chatted("user", "?"), "a": answer}, "a")).body["turns"]
    assert turn["thinking"] == {"text": "Hm."}


def test_files_of_open_webui_are_named_in_the_text():
    for files, text in [
        ([{"type": "image", "url": "/api/v1/files/1/content"}], "[image]"),
        ([{"type": "file", "content_type": "image/png", "name": "a.png"}], "[image]"),
        ([{"type": "file", "name": "a.pdf"}, 7], "[file]"),
        ([{"type": 7}], "[file]"),
    ]:
        body, left_out = convert(openwebui({"q": chatted("user", " ", files=files)}, "q"))
        assert body["turns"][0]["content"] == text and left_out == LeftOut(files=1)
    messages = {"q": chatted("user", "See:", files=[{"type": "image"}])}
    assert turns(openwebui(messages, "q")) == [("user", "[image]\n\nSee:")]


DATA = "data:image/png;base64,iVBORw0KGgo="


def test_images_of_open_webui_have_ids_urls_or_places():
    files = [
        {"type": "image", "url": DATA},
        {"type": "image", "id": "x", "url": DATA},
        {"type": "image", "url": "y"},
        {"type": "file", "id": "z"},
    ]
    value = openwebui({"q": chatted("user", "See:", files=files)}, "q")
    assert images_of(value) == ["q/0", "x", "y"]
    assert images_within(value) == {"q/0": DATA, "x": DATA}
    assert images_within({"history": value["chat"]["history"]}) == {"q/0": DATA, "x": DATA}
    body, left_out = convert(value, {"q/0": "1", "y": "2", "z": "3"})
    assert body["turns"][0]["content"] == "[image]\n\nSee:"
    assert body["turns"][0]["files"] == ["1", "2"] and left_out == LeftOut(files=2)


@pytest.mark.parametrize("odd", [None, 7, "chat", {"chat": 7}, {"chat": {"history": ["x"]}}])
def test_whatever_has_no_images_within_it_has_none(odd):
    assert images_within(odd) == {}


def test_messages_of_another_role_are_left_out():
    messages = {
        "s": chatted("system", "Be kind."),
        "q": chatted("user", "?", parent="s"),
        "t": chatted(["tool"], "x", parent="q"),
        "a": chatted("assistant", "!", parent="t"),
    }
    assert turns(openwebui(messages, "a")) == [("user", "?"), ("assistant", "!")]


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
        openwebui({}),
        openwebui({"a": chatted("assistant", "!")}),
        openwebui({"q": chatted("user", ["?"])}),
        {"id": "w", "chat": None},
        {"id": "w", "history": []},
    ],
)
def test_a_conversation_without_a_user_message_is_skipped(value):
    assert refusal(value) == "It has no message of yours."


@pytest.mark.parametrize("value, refused", REFUSED.values(), ids=REFUSED)
def test_a_refusal_names_what_is_missing_or_the_circle(value, refused):
    assert refusal(value) == refused


@pytest.mark.parametrize("value, taken, left_out", ODD.values(), ids=ODD)
def test_a_value_of_the_wrong_type_counts_as_missing(value, taken, left_out):
    assert turns(value) == taken
    assert convert(value).left_out == LeftOut(**left_out)


STRANGE = [None, True, 7, -0.5, "", "x", "\ud800", [], ["x"], [[]], {}, {"x": None}]


def places_in(value, path=()):
    """The paths of all values within this one."""
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


@pytest.mark.parametrize("whole", [CHATGPT, CLAUDE, OPENWEBUI], ids=PRODUCTS)
def test_any_strange_value_in_any_place_is_imported_or_refused(whole):
    """Each value of a conversation is replaced in turn by each of the strange ones."""
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


def test_any_mixture_of_strange_values_is_imported_or_refused():
    chance = random.Random(39)
    for _ in range(3000):
        value = copy.deepcopy(chance.choice([CHATGPT, CLAUDE, OPENWEBUI]))
        for path in chance.sample([path for path in places_in(value) if len(path) > 1], 3):
            place = value
            try:
                for key in path[:-1]:
                    place = place[key]
                place[path[-1]] = chance.choice(STRANGE)
            except (KeyError, IndexError, TypeError, AttributeError):
                continue  # an earlier replacement removed it
        try:
            convert(value)
        except Unreadable as refused:
            assert str(refused).endswith(".")


# The shape


@pytest.mark.parametrize("value", [None, 7, "mapping", [], {}, {"title": "Folder"}, ["turns"]])
def test_a_value_without_messages_is_no_conversation(value):
    assert refusal(value) == "This is not a conversation of ChatGPT, Claude, Open WebUI or Parley."
    assert title_of(value) == (value["title"] if value == {"title": "Folder"} else "")


def test_an_error_calls_a_conversation_by_its_title():
    titles = [title_of(value) for value in (chatgpt(), claude(), openwebui({}), {"title": 7})]
    assert titles == ["Rivers", "Lakes", "Seas", ""]


# Time


def circle(size):
    """Messages that refer to each other in a circle."""
    return {str(n): {"parent": str((n + 1) % size)} for n in range(size)}


def test_a_large_conversation_takes_time_in_proportion_to_its_size(subtests):
    """Each has about four megabytes; the limit is sixteen."""
    many, text = 25_000, "x" * 4_000_000
    asked = said("user", "?")
    deep = chain(asked, *[said("assistant", "!")] * many)
    wide = tree(
        ("q", "root", asked), *((f"a{n}", "q", said("assistant", "!")) for n in range(many))
    )
    details = '<details type="reasoning" done="true" '
    answers = {
        "opened": details * 100_000,
        "never closed": (details + ">") * 75_000,
        "closed": (details + ">></details>") * 75_000,
        "signs": "&gt;" * 1_000_000,
    }
    marks = {
        "entity": '\ue200entity\ue202["a","' * 125_000,
        "name": '\ue200entity\ue202["a","' + text,
        "escaped": '\ue200entity\ue202["a","' + "\\x" * 1_250_000,
        "source": "\ue200cite" * 500_000,
        "closings": "\ue201" * 1_250_000,
    }
    lacking = "```" + " " * 4_000_000 + "This"
    worst = {
        "deep": chatgpt(mapping=deep, current_node=f"m{many + 1}"),
        "wide": chatgpt(mapping=wide, current_node=None),
        "circle": chatgpt(mapping=circle(many), current_node="7"),
        "replies in a row": claude(wrote("human", "?"), *[wrote("assistant", "!" * 60)] * many),
        "branches": claude(*(wrote("human", "?", uuid=str(n), parent="x") for n in range(many))),
        "old text": claude(wrote("human", "?"), {"sender": "assistant", "text": lacking}),
        **{name: chatgpt(said("user", mark)) for name, mark in marks.items()},
        **{
            name: openwebui(
                {"q": chatted("user", "?"), "a": chatted("assistant", answer, parent="q")}, "a"
            )
            for name, answer in answers.items()
        },
    }
    for name, value in worst.items():
        with subtests.test(name):
            began = time.process_time()
            try:
                convert(value)
            except Unreadable as error:
                assert name == "circle" and "in a circle" in str(error)
            assert time.process_time() - began < 1
