"""ChatGPT's and Claude's conversations, as the page makes imports of them."""

import json

import pytest

import archives
from odd_archives import ODD, REFUSED
from page_files import BEGAN, chatgpt, claude, node, said
from upkeep import foreign

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

CONVERT = """
    const [value, done] = arguments;
    import("/static/page/foreign.js").then(({ convert, isConversation, Refusal }) => {
        try {
            done(JSON.stringify(isConversation(value) ? convert(value) : "none"));
        } catch (error) {
            done(JSON.stringify(error instanceof Refusal ? error.message : `${error}`));
        }
    });
"""
AT = "2023-11-14T22:13:20Z"
MODEL = {"metadata": {"model_slug": "gpt-4o"}}


@pytest.fixture
def convert(script):
    """A function that returns what the page makes of a conversation, or the sentence for which it does not."""
    return lambda value: json.loads(script(CONVERT, value))


def turns(converted):
    return [(turn["kind"], turn["content"]) for turn in converted["body"]["turns"]]


NOTHING_LEFT = {"files": 0, "tools": 0, "branches": 0}


def test_a_line_of_an_export_is_taken_as_it_is(convert):
    line = {"id": "i", "title": "T", "turns": [{"id": "1", "kind": "user", "content": "Hi"}]}
    assert convert(line) == {"body": line | {"origin": "parley:i"}, "left": NOTHING_LEFT}


def test_what_is_no_conversation_is_none(convert):
    for value in ({}, {"title": "T"}, {"messages": []}, {"end": True}):
        assert convert(value) == "none"


# ChatGPT


def test_a_conversation_of_chatgpt_keeps_texts_times_and_models(convert):
    given = chatgpt(
        node("system", "", at=None),
        node("user", "One", "and more"),
        node("assistant", "Two", metadata={"model_slug": "gpt-4"}, at=BEGAN + 60),
        node("assistant", "three", recipient="all", **MODEL),
        node("user", "Four", at=None),
    )
    assert convert(given) == {
        "body": {
            "origin": f"chatgpt:{given['id']}",
            "title": "From ChatGPT",
            "created_at": AT,
            "updated_at": "2023-11-14T23:13:20Z",
            "turns": [
                {"kind": "user", "content": "One\n\nand more", "created_at": AT},
                {
                    "kind": "assistant",
                    "content": "Two\n\nthree",
                    "created_at": "2023-11-14T22:14:20Z",
                    "model": "gpt-4o",
                },
                {"kind": "user", "content": "Four"},
            ],
        },
        "left": NOTHING_LEFT,
    }


def test_what_is_missing_in_a_conversation_of_chatgpt_is_left_out(convert):
    given = chatgpt(node("user", "One"), title=" ", create_time=None, update_time=1e300, id=None)
    given["conversation_id"] = "other"
    body = convert(given)["body"]
    assert body["origin"] == "chatgpt:other"
    assert not {"title", "created_at", "updated_at"} & set(body)
    assert convert(chatgpt(node("user", "One"), id=None)) == "It has no id."
    long = convert(chatgpt(node("user", "One"), title="\U0001f389" * 300))
    assert long["body"]["title"] == "\U0001f389" * 200


def tree():
    """A conversation whose first message was edited, and whose last reply was asked for again."""
    return {
        "a": node("user", "First", parent="root"),
        "b": node("assistant", "Old", parent="a"),
        "c": node("user", "Edited", parent="root"),
        "d": node("assistant", "One way", parent="c"),
        "e": node("assistant", "Another way", parent="c"),
    }


@pytest.mark.parametrize(
    ("current", "shown"),
    [("d", "One way"), ("e", "Another way"), (None, "Another way"), ("gone", "Another way")],
)
def test_the_branch_that_is_shown_is_taken_and_the_others_are_counted(current, shown, convert):
    converted = convert(chatgpt(tree(), current=current))
    assert turns(converted) == [("user", "Edited"), ("assistant", shown)]
    assert converted["left"] == {"files": 0, "tools": 0, "branches": 3}


def test_messages_that_refer_to_each_other_in_a_circle_are_refused(convert):
    circle = tree() | {"a": node("user", "First", parent="b")}
    assert convert(chatgpt(circle, current="b")) == "Its messages refer to each other in a circle."
    itself = {"a": node("user", "First", parent="a")}
    assert convert(chatgpt(itself, current="a")) == "Its messages refer to each other in a circle."
    converted = convert(chatgpt(circle, current="e"))  # which is no part of it
    assert converted["left"]["branches"] == 3
    rootless = chatgpt(itself, current=None)
    del rootless["mapping"]["root"]
    assert convert(rootless) == "Its messages refer to each other in a circle."


IMAGE = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://file-1"}
SPOKEN = {"content_type": "audio_transcription", "text": "Spoken"}
AUDIO = {"content_type": "audio_asset_pointer"}


def test_images_files_tools_and_thoughts_are_left_out_and_counted(convert):
    files = {"attachments": [{"id": "file-1"}, {"id": "file-2"}]}
    given = chatgpt(
        node("user", IMAGE, "What is it?", of="multimodal_text", metadata=files),
        node("assistant", of="thoughts"),
        node("assistant", "print(1)", of="code", recipient="python"),
        node("assistant", "search()", recipient="web"),
        node("tool", "1", of="execution_output"),
        node("assistant", "A cat.", IMAGE, None, of="multimodal_text"),
        node("user", SPOKEN, AUDIO, of="multimodal_text"),
        node("user", IMAGE, of="multimodal_text"),
        node("user", "", metadata={"attachments": [{"id": "file-3"}]}),
        node("user", "My profile", of="user_editable_context"),
        node("user", "Hidden", metadata={"is_visually_hidden_from_conversation": True}),
        node("assistant", " \n"),
    )
    converted = convert(given)
    assert turns(converted) == [
        ("user", "What is it?"),
        ("assistant", "A cat."),
        ("user", "Spoken"),
        ("user", "[image]"),
        ("user", "[file]"),
    ]
    assert converted["left"] == {"files": 6, "tools": 4, "branches": 0}


def test_markers_of_sources_and_what_no_database_holds_are_taken_out(convert):
    marker = "\ue200cite\ue202turn0search0\ue202turn0search1\ue201"
    given = chatgpt(
        node("assistant", "Before all"),
        node("user", "A\0B"),
        node("assistant", f"One{marker}, two\ue200filecite\ue202turn0file0\ue201. Left: \ue200"),
        node("assistant", marker),
        title="T\0",
    )
    converted = convert(given)
    assert turns(converted) == [("user", "A\ufffdB"), ("assistant", "One, two. Left: \ue200")]
    assert converted["body"]["title"] == "T\ufffd"


def test_half_a_character_becomes_a_replacement(script):
    body = script("""
        const [done] = arguments;
        const value = { uuid: "u", name: "\\ud83c", chat_messages: [{ sender: "human", text: "a\\udf89b" }] };
        import("/static/page/foreign.js").then(({ convert }) => done(convert(value).body));
    """)
    assert (body["title"], body["turns"][0]["content"]) == ("\ufffd", "a\ufffdb")


NOT_MINE = {
    "no mapping": {"id": "i", "mapping": None},
    "no mapping but a list": {"id": "i", "mapping": []},
    "no list of messages": {"uuid": "u", "chat_messages": {"a": 1}},
    "nothing": chatgpt(),
    "no mapping of nodes": chatgpt() | {"mapping": {"a": None, "b": "text", "c": []}},
    "the assistant's alone": chatgpt(node("assistant", "Hello, I am here.")),
    "empty messages": chatgpt(node("user", ""), node("user", " "), node("assistant", "What?")),
    "strange ones": chatgpt(
        {
            "a": {"message": []},
            "b": {"message": {"author": None, "content": "text"}, "parent": "a"},
            "c": {"message": {"author": {"role": "user"}, "content": {"content_type": "text"}}},
        }
    ),
    "nothing of Claude's": claude(),
    "Claude's greeting": claude(said("assistant", "Hello")),
    "strange ones of Claude's": claude({}, {"sender": "constructor", "text": "x"}, None, 7),
}


@pytest.mark.parametrize("name", NOT_MINE)
def test_a_conversation_without_a_message_of_the_user_is_passed_over(name, convert):
    assert convert(NOT_MINE[name]) == "It has no message of yours."


def test_a_circuit_of_constructors_is_no_mapping(convert):
    """Ids may be called as what every object has."""
    given = chatgpt({"constructor": node("user", "One", parent="toString")}, current="constructor")
    assert turns(convert(given)) == [("user", "One")]


# Claude


def test_a_conversation_of_claude_keeps_texts_and_times(convert):
    given = claude(
        said("human", "One", "and more", created_at="2025-07-03T17:16:39.9+02:00"),
        said("assistant", "Two", created_at="2025-07-03T15:16:39"),
        said("human", content=[], text="Three", created_at="never"),
    )
    assert convert(given) == {
        "body": {
            "origin": f"claude:{given['uuid']}",
            "title": "From Claude",
            "created_at": "2025-07-03T15:16:39Z",
            "updated_at": "2025-07-03T15:20:00Z",
            "turns": [
                {
                    "kind": "user",
                    "content": "One\n\nand more",
                    "created_at": "2025-07-03T15:16:39Z",
                },
                {"kind": "assistant", "content": "Two", "created_at": "2025-07-03T15:16:39Z"},
                {"kind": "user", "content": "Three"},
            ],
        },
        "left": NOTHING_LEFT,
    }
    assert "title" not in convert(claude(said("human", "One"), name=""))["body"]


def test_files_of_claude_are_named_and_their_text_is_kept(convert):
    given = claude(
        said(
            "human",
            "Read this",
            attachments=[
                {"file_name": "a.txt", "extracted_content": "All of it"},
                {"file_name": "b.bin", "extracted_content": ""},
            ],
            files=[{"file_uuid": "u", "file_name": "c.png"}, {}],
        ),
        said("assistant", "Done"),
        said("human", attachments=[{"file_name": "d.txt", "extracted_content": "Alone"}]),
    )
    converted = convert(given)
    assert turns(converted) == [
        ("user", "Read this\n\n[file a.txt]\nAll of it\n\n[file b.bin]\n\n[file c.png]\n\n[file]"),
        ("assistant", "Done"),
        ("user", "[file d.txt]\nAlone"),
    ]
    assert converted["left"] == {"files": 3, "tools": 0, "branches": 0}
    alone = convert(
        claude(
            said("human", content=[{"type": "image"}]),
            said("human", content=[{"type": "document"}]),
        )
    )
    assert turns(alone) == [("user", "[image]"), ("user", "[file]")]


def test_thinking_and_tools_of_claude_are_left_out_and_counted(convert):
    blocks = [
        {"type": "thinking", "thinking": "Hm"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "name": "search"},
        {"type": "tool_result", "content": "x"},
        {"type": "token_budget"},
        {"type": "text", "text": "Found."},
    ]
    placeholder = "This block is not supported on your current device yet."
    converted = convert(
        claude(
            said("human", "Look"),
            said("assistant", content=blocks, text=placeholder),
            said("assistant", content=blocks[2:3], text=placeholder),
        )
    )
    assert turns(converted) == [("user", "Look"), ("assistant", "I look.\n\nFound.")]
    assert converted["left"] == {"files": 0, "tools": 4, "branches": 0}


FIRST = "00000000-0000-4000-8000-000000000000"


def branching(**fields):
    """A conversation of Claude's whose second message was edited. A message has the time of its answer."""
    rows = [
        ("a", FIRST, "human", "One", "10"),
        ("b", "a", "assistant", "Two", "10"),
        ("c", "b", "human", "Old", "20"),
        ("d", "c", "assistant", "Old answer", "21"),
        ("e", "b", "human", "Edited", "30"),
        ("f", "e", "assistant", "New answer", "30"),
    ]
    messages = [
        said(
            sender,
            text,
            uuid=id,
            parent_message_uuid=parent,
            created_at=f"2025-07-03T15:16:{second}Z",
        )
        for id, parent, sender, text, second in rows
    ]
    return claude(*messages, **fields)


def test_the_newest_branch_of_claude_is_taken_or_the_one_that_is_named(convert):
    converted = convert(branching())
    assert [text for _, text in turns(converted)] == ["One", "Two", "Edited", "New answer"]
    assert converted["left"]["branches"] == 2
    converted = convert(branching(current_leaf_message_uuid="d"))
    assert [text for _, text in turns(converted)] == ["One", "Two", "Old", "Old answer"]


def test_a_circle_of_claude_is_refused_where_its_branches_are_followed(convert):
    given = branching()
    given["chat_messages"][0]["parent_message_uuid"] = "f"
    assert convert(given) == "Its messages refer to each other in a circle."


def test_messages_of_claude_without_branches_keep_their_order(convert):
    given = claude(
        said("human", "One", created_at="2025-07-03T15:16:40Z", parent_message_uuid=FIRST),
        said("assistant", "Two", created_at="2025-07-03T15:16:39Z", parent_message_uuid="gone"),
    )
    assert [text for _, text in turns(convert(given))] == ["One", "Two"]


# The same as by the command


def without_nothing(value):
    """JSON as JavaScript writes it: what is undefined is left out."""
    return {name: each for name, each in value.items() if each is not None}


@pytest.mark.parametrize("value", [archives.CHATGPT, archives.CLAUDE], ids=["ChatGPT", "Claude"])
def test_the_page_takes_what_flask_import_takes(convert, value):
    body, left_out = foreign.convert(value)
    # WebDriver sends no lone surrogate, and no number that JSON has not.
    given = json.loads(json.dumps(value).replace("\\ud83d", "\\ufffd").replace("1e+300", "-1"))
    assert convert(given) == {"body": body, "left": left_out._asdict()}


@pytest.mark.parametrize("value", [value for value, *_ in ODD.values()], ids=ODD)
def test_the_page_passes_over_the_same_of_another_kind(convert, value):
    body, left_out = foreign.convert(value)
    assert convert(value) == {"body": body, "left": left_out._asdict()}


@pytest.mark.parametrize("value, refused", REFUSED.values(), ids=REFUSED)
def test_the_page_refuses_the_same(convert, value, refused):
    assert convert(value) == refused


TEXTS = [
    'In \ue200entity\ue202["city","Ulm\\\n"]\ue201.',
    'In \ue200entity\ue202["city","Ulm \\"on\\" it","in Swabia"]\ue201.',
    'In \ue200entity\ue202["city"]\ue201.',
    "a\ue200cite\ue202turn0search0\ue201b",
    "a\ue200never closed",
    'In \ue200entity\ue202["city","Ulm \\\n","in Swabia"]\ue201.',
    'In \ue200entity\ue202["city","Ulm","in Swabia"]\ue201 and \ue200entity\ue202["city","\\\\"]\ue201.',
]


@pytest.mark.parametrize("text", TEXTS)
def test_marks_of_chatgpt_are_read_the_same(convert, text):
    given = chatgpt(node("user", text))
    assert turns(convert(given)) == [("user", foreign.convert(given).body["turns"][0]["content"])]


def test_what_claude_heard_is_text_and_what_stands_for_other_blocks_is_none(convert):
    lacking = "```\nThis block is not supported on your current device yet.\n```"
    given = claude(
        {"sender": "human", "content": [{"type": "voice_note", "text": "Said."}]},
        {"sender": "assistant", "text": f"Before.\n\n{lacking}\n\nAfter."},
    )
    taken = convert(given)
    assert turns(taken)[0] == ("user", "Said.") and taken["left"] == NOTHING_LEFT
    assert turns(taken)[1][1].split() == ["Before.", "After."]


LONG_NAMES = r"""
    const [done] = arguments;
    const begin = '\ue200entity\ue202["city","';
    const texts = ["x".repeat(16_000_000), "\\x".repeat(5_000_000)].map((text) => begin + text);
    const chat = (text) => ({ id: "i", mapping: { a: { message: {
        author: { role: "user" }, content: { content_type: "text", parts: [text] } } } } });
    import("/static/page/foreign.js").then(({ convert }) =>
        done(texts.map((text) => convert(chat(text)).body.turns[0].content === text))).catch((error) => done(`${error}`));
"""


def test_a_name_of_millions_of_characters_that_never_ends_is_text(page):
    assert page.driver.execute_async_script(LONG_NAMES) == [True, True]
