"""Files with chats, as the page reads them: piece by piece, with bounded memory, and with one
sentence for each error."""

import io
import json
import struct
import zipfile

import pytest

from page_files import lines, zipped

pytestmark = pytest.mark.parametrize(
    "engine", ["sqlite"], indirect=True
)  # what the page does is the same on both

READ = """
    const done = arguments[0];
    const [file] = document.getElementById("given").files;
    import("/static/page/archive.js").then(async ({ readArchive, ArchiveError }) => {
        const found = [];
        let read;
        try {
            for await (const each of readArchive(file, (...bytes) => (read = bytes))) found.push(each);
        } catch (error) {
            done([found, error instanceof ArchiveError ? error.message : String(error), read]);
        }
        done([found, "", read]);
    });
"""
TWO = [{"title": 'One "{[\\'}, {"title": 'Zwei ]}\\"'}]


@pytest.fixture(scope="module")
def given(page_of_all):
    """A field for a file."""
    page_of_all.driver.execute_script(
        "document.body.append(Object.assign(document.createElement('input'), { type: 'file', id: 'given' }))"
    )
    return page_of_all.find("#given")


@pytest.fixture
def read(given, script, tmp_path):
    """A function that lets the page's reader read a file. Returns what it finds, the sentence
    with which it stops, if it does, and how many of the file's bytes it has read."""

    def read(content):
        (tmp_path / "file").write_bytes(content)
        given.send_keys(str(tmp_path / "file"))
        found, fault, progress = script(READ)
        if not fault:
            assert progress is None or progress[0] == progress[1]
        return found, fault

    return read


def with_backslashes(content):
    return content.replace(b"a/conversations", b"a\\conversations")


def with_comment(comment):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("conversations.json", json.dumps(TWO))
        archive.comment = comment
    return file.getvalue()


def changed(name, place):
    """A ZIP with a changed byte of the CRC or the size in its directory."""
    content = bytearray(zipped({name: json.dumps(TWO)}))
    content[content.index(b"PK\1\2") + place] ^= 1
    return bytes(content)


def values(found):
    assert all(json.loads(each["text"]) == each["value"] for each in found)
    return [each["value"] for each in found]


WHOLE = {
    "lines": lines(*TWO),
    "lines without an end": lines(*TWO)[:-1],
    "lines of Windows": lines(*TWO).replace(b"\n", b"\r\n"),
    "an array": json.dumps(TWO).encode(),
    "an array over lines": json.dumps(TWO, indent=2).encode(),
    "a mark in front": b"\xef\xbb\xbf" + json.dumps(TWO, ensure_ascii=False).encode(),
    "a ZIP": zipped({"conversations.json": json.dumps(TWO), "user.json": "{}"}),
    "a ZIP that packs nothing": zipped({"conversations.json": json.dumps(TWO)}, zipfile.ZIP_STORED),
    "a ZIP with folders": zipped(
        {
            "a/conversations-000.json": json.dumps(TWO[:1]),
            "__MACOSX/a/._conversations-000.json": b"\0\5",
            "shared_conversations.json": "[{}]",
            "a/conversations-001.json": json.dumps(TWO[1:]),
        }
    ),
    "a ZIP with folders of Windows": with_backslashes(
        zipped({"a/conversations.json": json.dumps(TWO)})
    ),
    "a ZIP with a comment": with_comment(b"PK\5\6 is how the end of a ZIP is marked"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_finds_the_conversations_of_a_file(name, read):
    found, fault = read(WHOLE[name])
    assert fault == "" and values(found) == TWO


def test_finds_the_conversations_of_a_large_zip(read, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 0)  # so that small ones are written as large ones
    content = zipped({"conversations.json": json.dumps(TWO), "b/conversations.json": "[]"})
    assert b"PK\6\6" in content and b"PK\6\7" in content
    found, fault = read(content)
    assert fault == "" and values(found) == TWO


def test_says_where_a_conversation_is_and_counts_no_header(read):
    header = {"parley": 2}
    found, _ = read(lines(header, *TWO))
    starts = len(lines(header)), len(lines(header, TWO[0]))
    assert [each["place"] for each in found][1:] == [
        f"Conversation {number}, at byte {start}" for number, start in enumerate(starts, 1)
    ]
    found, _ = read(WHOLE["a ZIP with folders"])
    assert found[1]["place"] == "a/conversations-001.json, conversation 1, at byte 1"


def test_lines_of_files_are_no_conversations(read):
    file = {"file": "f", "data": "x"}
    large = b'{"file": "' + b"x" * 17_000_000 + b'"}\n'
    found, fault = read(lines({"parley": 3}, file, TWO[0]) + large + lines(TWO[1]))
    assert fault == "" and [each["isFile"] for each in found] == [False, True, False, True, False]
    assert found[1]["value"] == file and "value" not in found[3]
    assert [each["place"].partition(",")[0] for each in found[2::2]] == [
        "Conversation 1",
        "Conversation 2",
    ]


LARGE = b'{"a": "' + b"x" * 40_000_000 + b'"}'
PASSED_OVER = {
    "larger than 16 MB": LARGE,
    "not UTF-8": b'{"a": "\xed\xa0\xbd"}',
    "not JSON": b'{"a": nothing}',
}


@pytest.mark.parametrize("problem", PASSED_OVER)
def test_a_bad_conversation_is_skipped(problem, read):
    for content in (
        b"[" + PASSED_OVER[problem] + b", " + json.dumps(TWO[0]).encode() + b"]",
        PASSED_OVER[problem] + b"\n" + lines(TWO[0]),
    ):
        found, fault = read(content)
        assert fault == "" and len(found) == 2
        assert found[0]["problem"] == f"It is {problem}." and "value" not in found[0]
        assert found[1]["value"] == TWO[0]


def encrypted():
    """A ZIP whose member is marked as encrypted."""
    content = bytearray(zipped({"conversations.json": "[]"}))
    content[content.index(b"PK\1\2") + 8] |= 1
    return bytes(content)


def overlapping():
    """A ZIP in which a hundred members share the same bytes."""
    content = zipped({"conversations.json": json.dumps(["x" * 1000])}, zipfile.ZIP_STORED)
    at, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    directory = content[at:end] * 100
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 100, 100, len(directory), at, 0)
    return content[:at] + directory + last


ZIP = WHOLE["a ZIP"]
FAULTS = {
    "The file is not a JSON list of conversations: unexpected content at byte 0.": b"%PDF-1.7 {}",
    "The file is not a JSON list of conversations: unexpected content at byte 1.": b'["a"]',
    "The file is not a JSON list of conversations: unexpected content at byte 9.": b'[{"a":1}][{}]',
    "The file is empty, or ends before its first conversation.": b"",
    "The file is incomplete: it ends within conversation 2.": lines(*TWO)[:-5],
    "The file is incomplete: it ends after conversation 2.": json.dumps(TWO).encode()[:-1],
    "There is no conversations.json in this ZIP.": zipped({"chat.html": "<html>"}),
    "The ZIP is damaged or incomplete.": ZIP[:-30],
    "conversations.json in the ZIP is encrypted. Unpack it first.": encrypted(),
    "conversations.json is packed in a way that we cannot read. Unpack it first.": zipped(
        {"conversations.json": "[]"}, zipfile.ZIP_BZIP2
    ),
    "conversations.json in the ZIP is damaged.": ZIP[:50] + b"\xff\xff\xff" + ZIP[53:],
    "conversations.json in the ZIP is incomplete: it ends after conversation 1.": zipped(
        {"conversations.json": "[{}"}
    ),
    "This ZIP has more than 1000 files of conversations.": zipped(
        {f"conversations-{number}.json": "" for number in range(1001)}
    ),
    "conversations.json unpacks to more than 200 times what is in the ZIP.": zipped(
        {"conversations.json": b"[" + b" " * 40_000_000 + b"{}]"}
    ),
}


@pytest.mark.parametrize("sentence", FAULTS)
def test_says_in_a_sentence_why_it_stops_reading_a_file(sentence, read):
    assert read(FAULTS[sentence])[1] == sentence


def test_a_changed_zip_is_damaged(read):
    for place in (16, 24):
        _, fault = read(changed("conversations.json", place))
        assert fault == "conversations.json in the ZIP is damaged."


def test_overlapping_members_of_a_zip_are_refused(read):
    assert read(overlapping()) == ([], "The ZIP is damaged or incomplete.")


NO_DIRECTORY = "The ZIP is damaged or incomplete."
WILD = {  # a number in a ZIP, and its place: the end of the directory, or an entry
    "the place of the directory": (b"PK\5\6", 16, NO_DIRECTORY),
    "the size of the directory": (b"PK\5\6", 12, NO_DIRECTORY),
    "the size of a member": (b"PK\1\2", 20, "conversations.json in the ZIP is damaged."),
    "how many members there are": (b"PK\5\6", 8, ""),  # which is not read
}


@pytest.mark.parametrize("record, offset, sentence", WILD.values(), ids=WILD)
def test_a_zip_with_a_wrong_number_is_damaged_if_the_number_matters(record, offset, sentence, read):
    content = bytearray(ZIP)
    at = content.index(record) + offset
    content[at : at + 4] = b"\xfe\xff\xff\xff"
    found, fault = read(bytes(content))
    assert (values(found), fault) == ([] if sentence else TWO, sentence)


def test_finds_what_comes_before_the_cut_in_an_incomplete_file(read):
    found, _ = read(lines(*TWO)[:-5])
    assert values(found) == TWO[:1]


def test_says_that_a_file_has_gone_meanwhile(given, script, tmp_path):
    (tmp_path / "file").write_bytes(lines(*TWO))
    given.send_keys(str(tmp_path / "file"))
    size = "const [field, done] = arguments; done(field.files[0].size)"
    assert script(size, given) > 0
    (tmp_path / "file").unlink()
    found, fault, _ = script(READ)
    assert found == [] and fault.startswith("The file cannot be read.")
