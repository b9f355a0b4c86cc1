"""Files of conversations: NDJSON, an array, a ZIP, and what is wrong with them.

Modules: `formats/json_reader.py`."""

import io
import json
import random
import subprocess
import sys
import time
import zipfile

import pytest

from archives import array, ndjson, packed
from formats import archives
from formats.json_reader import BadFile, Reader
from product import ROOT

LIMIT = 2**20  # bytes


def outcome(values):
    """What is read: (number, value or error) for each conversation, and the error that ends it, if
    one does."""
    found = []
    try:
        for each in values:
            found.append(tuple(each)[:2])
    except BadFile as error:
        found.append(str(error))
    return found


def read(data, step=None, limit=LIMIT, file_limit=0):
    """The same for these bytes, read in pieces of `step` bytes."""
    pieces = iter([data[at : at + step] for at in range(0, len(data), step)] if step else [data])
    return outcome(Reader("F", lambda size: next(pieces, b""), limit, file_limit=file_limit))


def read_file(path, limit=LIMIT):
    return outcome(archives.read(str(path), limit))


def numbered(values):
    return [(number, value) for number, value in enumerate(values, 1)]


class Anything:
    """Random JSON values whose texts contain what a reader might misread."""

    def __init__(self, seed):
        self.chance = random.Random(seed)

    def text(self):
        return "".join(
            self.chance.choices('ab"\\\\{}[],: \n\0é漢\U0001f600', k=self.chance.randrange(12))
        )

    def value(self, depth=0):
        kind = self.chance.randrange(4 if depth > 3 else 8)
        if kind == 0:
            return self.chance.choice([None, True, False, 0, -2.5, 1e9])
        if kind < 4:
            return self.text()
        values = [self.value(depth + 1) for _ in range(self.chance.randrange(4))]
        return values if kind < 6 else {self.text(): each for each in values}


def test_the_objects_of_an_array_are_read_one_by_one_in_pieces_of_any_size():
    anything = Anything(1)
    for _ in range(500):
        values = [{"a": anything.value()} for _ in range(anything.chance.randrange(5))]
        mark = anything.chance.choice([b"", b"\xef\xbb\xbf"])
        indent = anything.chance.choice([None, 1])
        data = mark + json.dumps(values, ensure_ascii=False, indent=indent).encode()
        for step in (None, 1, 2, 3, 7):
            assert read(data, step) == numbered(values), data


def test_consecutive_objects_are_read_one_by_one_in_pieces_of_any_size():
    anything = Anything(2)
    for _ in range(500):
        values = [{"a": anything.value()} for _ in range(1 + anything.chance.randrange(4))]
        between = anything.chance.choice(["\n", "\r\n", "", " \t\n"])
        indent = anything.chance.choice([None, 1])
        texts = [json.dumps(value, ensure_ascii=False, indent=indent) for value in values]
        for step in (None, 1, 2, 5):
            assert read(between.join(texts).encode(), step) == numbered(values), texts


def test_a_damaged_file_gives_the_same_error_in_pieces_of_any_size():
    anything = Anything(3)
    for _ in range(2000):
        values = [{"a": anything.value()} for _ in range(3)]
        text = (
            json.dumps(values)
            if anything.chance.random() < 0.5
            else "\n".join(map(json.dumps, values))
        )
        data = bytearray(text.encode())
        for _ in range(anything.chance.randrange(1, 4)):
            data[anything.chance.randrange(len(data))] = anything.chance.choice(
                b'"\\{}[],:\xff\0 a1'
            )
        data = bytes(data[: anything.chance.randrange(1, len(data) + 1)])
        whole = read(data)
        assert [read(data, step) for step in (1, 2, 3)] == [whole] * 3, data


DIGITS = b"1" * 5000
DEEP = b"[" * 200_000 + b"]" * 200_000
NO_JSON = "F is not JSON in UTF-8: it begins with neither { nor [."
LOST = "F cannot be read further:"
CUT = "is not whole, or is not JSON:"
# The file's content → what is read.
BAD = [
    (b"", ["F is empty."]),
    (b"\xef\xbb\xbf \n", ["F is empty."]),
    (b"hello", [NO_JSON]),
    (b"\n  <html>", [NO_JSON]),
    ('[{"a": 1}]'.encode("utf-16"), [NO_JSON]),
    (b"[]", []),
    (
        b'[{}, {"a": [2',
        [(1, {}), f"{LOST} conversation 2 {CUT} Expecting ',' delimiter."],
    ),
    (b'{"a": 1}\n{"a": "', [(1, {"a": 1}), (2, f"It {CUT} Unterminated string.")]),
    (b"[{},", [(1, {}), "F is not whole: it ends before conversation 2."]),
    (b"[{}\n", [(1, {}), "F is not whole: it ends before conversation 2."]),
    (b"[", ["F is not whole: it ends before conversation 1."]),
    (b"[{}]\n{}", [(1, {}), f"{LOST} '{{' before conversation 2 is out of place."]),
    (b"{} x", [(1, {}), f"{LOST} 'x' before conversation 2 is out of place."]),
    (b"[{}, 7]", [(1, {}), f"{LOST} '7' before conversation 2 is out of place."]),
    # The end of these is found.
    (b'[{"a": "\xe9"}, {}]', [(1, "It is not UTF-8."), (2, {})]),
    (b'[{"\xed\xa0\xbd\xed\xb8\x82": 1}, {}]', [(1, "It is not UTF-8."), (2, {})]),
    # In lines, the next one is read; in an array, nothing says where the next one begins.
    (b'{"a" 1}\n{}', [(1, f"It {CUT} Expecting ':' delimiter."), (2, {})]),
    (b'[{"a" 1}, {}]', [f"{LOST} conversation 1 {CUT} Expecting ':' delimiter."]),
    (b'{"a": tru}\n{}', [(1, f"It {CUT} Expecting value."), (2, {})]),
    (b'{"a": NaN}\n{}', [(1, "It is not JSON: it has NaN in it."), (2, {})]),
    (b'[{"a": -Infinity}]', [f"{LOST} conversation 1 is not JSON: it has -Infinity in it."]),
    (b'{"a": ' + DIGITS + b"}\n{}", [(1, "It has a number of too many digits."), (2, {})]),
    (b'{"a": ' + DEEP + b"}\n{}", [(1, "It is nested too deeply."), (2, {})]),
    (b'[{"a": ' + DEEP + b"}, {}]", [f"{LOST} conversation 1 is nested too deeply."]),
]


@pytest.mark.parametrize("data, told", BAD, ids=[str(data[:20]) for data, _ in BAD])
def test_an_error_says_what_is_wrong_and_how_far_reading_came(data, told):
    assert read(data) == told
    if len(data) < 1000:
        assert read(data, 1) == told


def test_a_conversation_that_is_too_long_is_skipped():
    for step in (None, 1, 7):
        longest = {"a": "x" * 91}
        assert len(json.dumps(longest)) == 100
        long = [{"a": "x" * 92}, {"a": "é" * 90}, longest]
        told = [(1, "It has 101 bytes, more than the limit of 100.")]
        told += [(2, "It has 189 bytes, more than the limit of 100."), (3, longest)]
        for text in ("\n".join(json.dumps(each, ensure_ascii=False) for each in long), long):
            data = (
                text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
            ).encode()
            assert read(data, step, limit=100) == told


def test_a_line_of_any_length_is_skipped_and_an_array_element_is_not():
    long = json.dumps({"a": "x" * 10**6})
    told = "has more than 100000 bytes, or is not JSON: Unterminated string."
    for step in (1000, 100_000):
        lines = read(f'{long}\n{{"b": 1}}'.encode(), step, limit=100_000)
        assert lines == [(1, f"It {told}"), (2, {"b": 1})]
        assert read(f"[{long}, {{}}]".encode(), step, limit=100_000) == [
            f"{LOST} conversation 1 {told}"
        ]


def test_large_conversations_in_small_pieces_take_time_in_proportion_to_their_size():
    data = json.dumps([{"a": ["x"] * 10**6}] * 4).encode()
    times = []
    for step in (len(data), 2**16):
        began = time.process_time()
        assert len(read(data, step, limit=2**24)) == 4
        times.append(time.process_time() - began)
    assert times[1] < 20 * times[0] + 1


def test_the_header_of_an_export_is_not_counted():
    data = b'{"parley": 2}\n{"id": 1}\n{"id": '
    told = (2, f"It {CUT} Expecting value.")
    assert read(data) == [(1, {"parley": 2}), (1, {"id": 1}), told]


def test_lines_of_files_have_a_limit_of_their_own_and_are_not_counted():
    file, longer = ({"file": "f", "data": "x" * size} for size in (200, 300))
    values = [{"parley": 3}, file, {"id": 1}, longer, {"id": 2, "a": "x" * 100}, {"id": 3}]
    data = "\n".join(map(json.dumps, values)).encode()
    told = "It has 118 bytes, more than the limit of 100."
    expected = [(1, {"parley": 3}), (file,), (1, {"id": 1}), (None,), (2, told), (3, {"id": 3})]
    for step in (None, 1, 3, 7, 50):
        assert read(data, step, limit=100, file_limit=300) == expected


BAD_FILES = [
    b'{"file": "f", "data": "' + b"x" * 10_000 + b'"}',
    b'{"file": "f", "data": "\xff"}',
    b'{"file": "f", "data" 1}',
    b'{ "file": NaN}',
    b'{"file": ' + DIGITS + b"}",
    b'{"file": ' + DEEP + b"}",
]


@pytest.mark.parametrize("line", BAD_FILES, ids=range(len(BAD_FILES)))
def test_a_bad_line_of_a_file_is_no_conversation(line):
    data = line + b'\n{"id": 1}\n' + line
    assert read(data, limit=100, file_limit=300) == [(None,), (1, {"id": 1}), (None,)]


# Files


def test_a_file_is_an_array_or_ndjson_by_its_first_character(tmp_path):
    values = [{"a": number} for number in range(3)]
    assert read_file(array(tmp_path / "a", *values)) == numbered(values)
    assert read_file(ndjson(tmp_path / "b", *values)) == numbered(values)


def test_a_file_that_cannot_be_read_gives_one_sentence(tmp_path):
    assert read_file(tmp_path) == [f"{tmp_path} cannot be read: Is a directory."]
    nothing = tmp_path / "nothing"
    assert read_file(nothing) == [f"{nothing} cannot be read: No such file or directory."]
    nothing.touch()
    assert read_file(nothing) == [f"{nothing} is empty."]


MEMORY = """
import resource, sys
from formats.archives import BadFile, read

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    for each in read(sys.argv[1], 2**20):
        print(each)
except BadFile as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def read_apart(path):
    """The lines of a process that reads this file, and by how many MB its memory has grown."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, path], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    *lines, grown = done.stdout.splitlines()
    return lines, int(grown)


def test_a_large_file_takes_no_more_memory_than_a_small_one(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.write(b'{"a": 1}\n{"a": "')
        file.seek(2**28)  # the gap takes no room on the disk, and reads as NUL
        file.write(b'"}\n{"a": 3}')
    lines, grown = read_apart(path)
    told = "It has more than 1048576 bytes, or is not JSON: Invalid control character."
    assert lines == [
        "Value(number=1, value={'a': 1})",
        f"Fault(number=2, text='{told}', value=None)",
        "Value(number=3, value={'a': 3})",
    ]
    assert grown < 20


# ZIPs


def test_images_of_a_zip_are_found_by_their_ids_while_it_is_read(tmp_path):
    files = {
        "conversations.json": "[{}]",
        "file-A1-b.png": b"one",
        "dalle-generations/file_0b.dat": b"two",
        "a/file-A1.png": b"another",
        "profile-A2.png": b"none",
        "file-A3.png": b"x" * 11,
    }
    path = packed(tmp_path / "a.zip", files)
    images = archives.Images()
    found = []
    for _ in archives.read(str(path), LIMIT, images=images):
        assets = "file-A1", "file_0b", "file-A2", "file-A3", "file-A", "conversations"
        found += [images.read(asset, 10) for asset in assets]
    assert found == [b"one", b"two", None, None, None, None]
    assert images.read("file-A1", 10) is None  # the file is closed


def test_images_count_for_what_a_zip_unpacks_to(tmp_path):
    files = {f"file-A{number}.png": bytes(2**22) for number in range(8)}
    path = packed(tmp_path / "a.zip", files | {"conversations.json": "[{}]"})
    images = archives.Images()
    with pytest.raises(BadFile, match="the ZIP unpacks to more than 200 times its size"):
        for _ in archives.read(str(path), LIMIT, images=images):
            for number in range(8):
                assert len(images.read(f"file-A{number}", 2**22)) == 2**22


def test_all_parts_of_a_zip_are_read_in_the_order_of_their_names(tmp_path):
    files = {
        "export/conversations-001.json": '[{"a": 2}, {"a": 3}]',
        "shared_conversations.json": '[{"a": 9}]',
        "__MACOSX/._conversations.json": "no JSON",
        "export/conversations-000.json": '[{"a": 1}]',
        "export/conversation_asset_file_names.json": "{}",
        "notes.txt": "",
    }
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        path = packed(tmp_path / "a.zip", files, method)
        assert read_file(path) == numbered([{"a": 1}, {"a": 2}, {"a": 3}])


def test_an_error_in_a_zip_names_the_file(tmp_path):
    path = packed(tmp_path / "a.zip", {"x/conversations.json": b'[{"a": 1}, {"a": tru}, {"a": "'})
    where = f"x/conversations.json in {path} cannot be read further: conversation 2"
    assert read_file(path) == [(1, {"a": 1}), f"{where} {CUT} Expecting value."]


def test_a_zip_with_overlapping_files_is_damaged(tmp_path):
    """Otherwise each would be read as often as it is named."""
    whole = packed(tmp_path / "a.zip", {"conversations.json": '[{"a": 1}]'}).read_bytes()
    start, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    count = (99).to_bytes(2, "little")
    size = (99 * (end - start)).to_bytes(4, "little")
    data = whole[:start] + whole[start:end] * 99 + whole[end:]
    at = len(data) - 22
    path = tmp_path / "b.zip"
    path.write_bytes(data[: at + 8] + count * 2 + size + data[at + 16 :])
    assert read_file(path) == [f"{path} is damaged: files in it overlap."]


def test_a_zip_without_conversations_gives_one_sentence(tmp_path):
    told = "files that are called conversations*.json. If it has another ZIP in it, unpack that"
    for files in ({}, {"users.json": "[]", "Conversations-chatgpt-0001.zip": "PK"}):
        path = packed(tmp_path / "a.zip", files)
        assert read_file(path) == [f"{path} has 0 {told}, and import it."]


def test_compression_that_zipfile_unpacks_without_a_bound_is_refused(tmp_path):
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = packed(tmp_path / "a.zip", {"conversations.json": "[1]"}, method)
        [told] = read_file(path)
        assert told.startswith(f"conversations.json in {path} is compressed by")


def test_an_encrypted_file_gives_one_sentence(tmp_path):
    path = packed(tmp_path / "a.zip", {"conversations.json": "[1]"})
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flags in the file's own header, and in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    [told] = read_file(path)
    assert (
        told == f"conversations.json in {path} is encrypted. Unpack the ZIP, and import that file."
    )


def test_a_file_that_unpacks_a_thousandfold_is_not_read_to_its_end(tmp_path):
    """It takes no memory either, and what came before is read."""
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("conversations.json", "w") as member:
            member.write(b'{"a": 1}\n{"a": "')
            for _ in range(300):
                member.write(b"x" * 2**20)
            member.write(b'"}')
    path = tmp_path / "a.zip"
    path.write_bytes(bomb.getvalue())
    assert path.stat().st_size < 2**20
    lines, grown = read_apart(path)
    assert lines[0] == "Value(number=1, value={'a': 1})"
    times = "the ZIP unpacks to more than 200 times its size."
    assert lines[1:] == [f"conversations.json in {path} was not read to its end: {times}"]
    assert grown < 20


def test_many_files_that_unpack_a_thousandfold_count_together(tmp_path):
    text = json.dumps([{"a": "x" * 2**23}])
    path = packed(tmp_path / "a.zip", {f"conversations-{n}.json": text for n in range(9)})
    assert path.stat().st_size * 200 < 5 * 2**23
    *read, told = read_file(path, 2**24)
    assert len(read) < 5 and "was not read to its end" in told


def test_repetitive_text_is_read_if_it_is_not_large(tmp_path):
    values = [{"a": "x" * 2**19} for _ in range(20)]
    path = packed(tmp_path / "a.zip", {"conversations.json": json.dumps(values)})
    assert path.stat().st_size * 200 < 20 * 2**19
    assert read_file(path) == numbered(values)


def test_a_directory_that_is_too_long_is_not_read_into_memory(tmp_path):
    path = tmp_path / "a.zip"
    size = 2**31
    end = b"PK\5\6" + bytes(4) + b"\1\0" * 2 + size.to_bytes(4, "little") + bytes(6)
    with path.open("wb") as file:
        file.write(b"PK\3\4")
        file.seek(size)
        file.write(end)
    lines, grown = read_apart(path)
    assert lines == [f"{path} is damaged, or not whole: its directory is too long."]
    assert grown < 20


def test_a_damaged_zip_gives_one_sentence_and_what_came_before_is_kept(tmp_path):
    chance = random.Random(5)
    files = {"conversations.json": json.dumps([{"a": chance.random()} for _ in range(50)])}
    whole = packed(tmp_path / "a.zip", files).read_bytes()
    assert len(read_file(tmp_path / "a.zip")) == 50
    told = 0
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(4, len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(4, len(data)) :]
        (tmp_path / "b.zip").write_bytes(data)
        *before, last = read_file(tmp_path / "b.zip") or [None]
        assert all(isinstance(each, tuple) for each in before)
        told += isinstance(last, str)
    assert told > 1000
