"""The file of everything: which lines are right, and what is told of others. Nothing of the database is asked."""

import os

import pytest

from upkeep.everything import NotMoved, Source, end, header, row

SESSION = {
    "id": "8b6d0000-0000-4000-8000-000000000001",
    "owner": "https://github.com/alice",
    "title": "Hello",
    "folded_title": "hello",
    "title_is_users": False,
    "model": "m-1",
    "created_at": 1_796_040_000_123_456,
    "updated_at": 1_796_040_000_123_456,
    "options": {"temperature": 0.5},
}
TURN = {
    "id": 2**62,
    "session_id": SESSION["id"],
    "kind": "user",
    "content": "Hello",
    "created_at": 1_796_040_000_123_456,
    "shown": True,
    "cancelled": False,
    "continued": 0,
    "error_message": None,
}
COUNTS = {"release": 1, "session": 1, "turn": 1}
LINES = [
    header("5c1", "2026-11-30T12:00:00Z"),
    row("release", {"secret": "0f7"}),
    row("session", SESSION),
    row("turn", TURN),
    end(COUNTS),
]


def read(tmp_path, lines):
    path = tmp_path / "file"
    path.write_bytes(b"".join(lines))
    return Source(path).counts()


def test_a_whole_file_is_right_also_where_an_older_release_knew_fewer_columns(tmp_path):
    counts = read(tmp_path, LINES)
    assert {name: count for name, count in counts.items() if count} == COUNTS


def changed(number, old, new):
    """A function that changes this in the line of this number."""

    def spoil(lines):
        assert old in lines[number - 1]
        lines[number - 1] = lines[number - 1].replace(old, new, 1)

    return spoil


def of_a_person(lines):
    lines[0] = b'{"parley": 2, "subject": "alice", "exported_at": "2026-11-30T12:00:00Z"}\n'


def without(number):
    """A function that takes out the line of this number."""
    return lambda lines: lines.pop(number - 1)


def in_turn(old, new):
    return changed(4, old, new)


NO_ROW = "Line 4 of {} is damaged: it is no row in JSON."
SPOILED = {
    "empty": (list.clear, "{} was not written by `.venv/bin/flask export --all`."),
    "of another program": (
        lambda lines: lines.insert(0, b"[" * 10**6),
        "{} was not written by `.venv/bin/flask export --all`.",
    ),
    "of a person": (
        of_a_person,
        "{} has the chats of one person. `.venv/bin/flask import FILE SUBJECT` takes it.",
    ),
    "of no id": (changed(1, b'"5c1"', b"7"), "Line 1 of {} has no right id."),
    "of an id with NUL": (changed(1, b"5c1", rb"\u0000"), "Line 1 of {} has no right id."),
    "of an id with half of a character": (
        changed(1, b"5c1", rb"\ud800"),
        "Line 1 of {} has no right id.",
    ),
    "without a column": (
        changed(2, b'"secret":"0f7"', b""),
        "Line 2 of {} has no column of a release.",
    ),
    "of a newer release": (
        changed(1, b"3", b"4"),
        "{} was written by another release of Parley. Install that.",
    ),
    "without its end": (
        without(5),
        "{} is not whole: it ends with line 4, and its last one is lacking. Export it anew.",
    ),
    "without a line": (
        without(4),
        "{} is not whole: its last line, 4, tells of other rows than those before it. Export it anew.",
    ),
    "with more behind its end": (
        lambda lines: lines.append(b"\n"),
        "Line 6 of {} stands behind the end.",
    ),
    "cut off within a line": (in_turn(b'"kind"', b"\n"), NO_ROW),
    "not in UTF-8": (in_turn(b"Hello", b"\xff"), NO_ROW),
    "deep": (in_turn(b'"Hello"', b"[" * 10**5), NO_ROW),
    "a long number": (in_turn(b'"Hello"', b"1" * 10**5), NO_ROW),
    "two rows": (in_turn(b'{"turn"', b'{"key":{},"turn"'), NO_ROW),
    "no row": (in_turn(b'"turn":', b'"turn":1,"x":'), NO_ROW),
    "an unknown table": (
        in_turn(b'"turn"', b'"chat"'),
        "Line 4 of {} has no row of a table that this release knows.",
    ),
    "an unknown column": (
        in_turn(b'"kind"', b'"x":1,"kind"'),
        "Line 4 of {} has a column of a turn that this release does not know.",
    ),
    "a column less": (in_turn(b'"kind"', b'"x"'), "Line 4 of {} has no kind of a turn."),
    "no boolean": (in_turn(b"true", b"1"), "Line 4 of {} has no right shown of a turn."),
    "no integer": (in_turn(b":0", b":0.5"), "Line 4 of {} has no right continued of a turn."),
    "too large": (in_turn(b":0", b":2147483648"), "Line 4 of {} has no right continued of a turn."),
    "null": (in_turn(b":0", b":null"), "Line 4 of {} has no right continued of a turn."),
    "NUL": (in_turn(b"Hello", rb"\u0000"), "Line 4 of {} has no right content of a turn."),
    "half of a character": (
        in_turn(b"Hello", rb"\ud83d"),
        "Line 4 of {} has no right content of a turn.",
    ),
    "no text": (in_turn(b'"Hello"', b"[]"), "Line 4 of {} has no right content of a turn."),
    "no UUID": (changed(3, b"8b6d", b"g"), "Line 3 of {} has no right id of a session."),
    "no options": (
        changed(3, b'{"temperature":0.5}', b"7"),
        "Line 3 of {} has no right options of a session.",
    ),
}


def test_a_pipe_is_refused_since_it_cannot_be_read_twice(tmp_path):
    path = tmp_path / "file"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)  # else nobody could open it to read
    os.write(writer, b"".join(LINES))
    with pytest.raises(NotMoved) as refused:
        Source(path)
    os.close(writer)
    assert str(refused.value) == f"{path} is a pipe, and it is read twice. Name a file."


@pytest.mark.parametrize("spoil, told", SPOILED.values(), ids=SPOILED)
def test_what_is_not_right_is_told_with_its_line(tmp_path, spoil, told):
    lines = list(LINES)
    spoil(lines)
    with pytest.raises(NotMoved) as refused:
        read(tmp_path, lines)
    assert str(refused.value) == told.format(tmp_path / "file")
