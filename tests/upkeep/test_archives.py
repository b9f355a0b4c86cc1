"""Files of conversations: NDJSON, an array, a ZIP, and what is wrong with them.

Modules: `upkeep/values.py`."""

import io
import json
import random
import subprocess
import sys
import zipfile

import pytest

from archives import array, ndjson, packed
from product import ROOT
from upkeep import archives
from upkeep.values import BadFile, Reader

LIMIT = 2**20  # bytes


def outcome(values):
    """What comes: (number, value or sentence) of each, and the sentence by which it ends, if by
    one."""
    found = []
    try:
        for each in values:
            found.append(tuple(each))
    except BadFile as error:
        found.append(str(error))
    return found


def read(data, step=None, limit=LIMIT):
    """The same of these bytes, which come in pieces of so many."""
    pieces = [data[at : at + step] for at in range(0, len(data), step)] if step else [data]
    return outcome(Reader("F", pieces, limit))


def read_file(path, limit=LIMIT):
    return outcome(archives.read(str(path), limit))


def numbered(values):
    return [(number, value) for number, value in enumerate(values, 1)]


class Anything:
    """Values of JSON by chance, with what could be mistaken in their texts."""

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


def test_the_elements_of_an_array_come_one_at_a_time_however_it_is_cut():
    anything = Anything(1)
    for _ in range(500):
        values = [anything.value() for _ in range(anything.chance.randrange(5))]
        mark = anything.chance.choice([b"", b"\xef\xbb\xbf"])
        data = (
            mark
            + json.dumps(
                values, ensure_ascii=False, indent=anything.chance.choice([None, 1])
            ).encode()
        )
        for step in (None, 1, 2, 3, 7):
            assert read(data, step) == numbered(values), data


def test_objects_one_after_the_other_come_one_at_a_time_however_they_are_cut():
    anything = Anything(2)
    for _ in range(500):
        values = [{"a": anything.value()} for _ in range(1 + anything.chance.randrange(4))]
        between = anything.chance.choice(["\n", "\r\n", "", " \t\n"])
        data = between.join(json.dumps(value, ensure_ascii=False) for value in values).encode()
        for step in (None, 1, 2, 5):
            assert read(data, step) == numbered(values), data


def test_a_damaged_file_is_told_the_same_however_it_is_cut():
    anything = Anything(3)
    for _ in range(2000):
        data = bytearray(json.dumps([anything.value() for _ in range(3)]).encode())
        for _ in range(anything.chance.randrange(1, 4)):
            data[anything.chance.randrange(len(data))] = anything.chance.choice(
                b'"\\{}[],:\xff\0 a1'
            )
        data = bytes(data[: anything.chance.randrange(1, len(data) + 1)])
        whole = read(data)
        assert [read(data, step) for step in (1, 2, 3)] == [whole] * 3, data


DIGITS = b"1" * 5000
DEEP = b"[" * 200_000 + b"]" * 200_000
# What stands in the file → what comes.
BAD = [
    (b"", ["F is empty."]),
    (b"\xef\xbb\xbf \n", ["F is empty."]),
    (b"hello", ["F is no JSON in UTF-8: neither { nor [ stands at byte 0."]),
    (b"\n  <html>", ["F is no JSON in UTF-8: neither { nor [ stands at byte 3."]),
    ('[{"a": 1}]'.encode("utf-16"), ["F is no JSON in UTF-8: neither { nor [ stands at byte 0."]),
    (b"[]", []),
    (b'[1, {"a": [2', [(1, 1), "F ends in the middle of conversation 2."]),
    (b'{"a": 1}\n{"a": "', [(1, {"a": 1}), "F ends in the middle of conversation 2."]),
    (b"[{},", [(1, {}), "F is not whole: it ends before conversation 2."]),
    (b"[{}\n", [(1, {}), "F is not whole: it ends before conversation 2."]),
    (b"[", ["F is not whole: it ends before conversation 1."]),
    (
        b"[{}]\n{}",
        [(1, {}), "F cannot be read on: byte 5, before conversation 2, is out of place."],
    ),
    (b"[{} {}]", [(1, {}), "F cannot be read on: byte 4, before conversation 2, is out of place."]),
    (b"{} x", [(1, {}), "F cannot be read on: byte 3, before conversation 2, is out of place."]),
    (b'[{"a": "\xe9"}, 2]', [(1, "It is not UTF-8 at byte 8 of F."), (2, 2)]),
    (
        b'[{"\xc3\xa9" 1}, 2]',
        [(1, "It is not JSON at byte 7 of F: Expecting ':' delimiter."), (2, 2)],
    ),
    (b"[[}, 2]", [(1, "It is not JSON at byte 2 of F: Expecting value."), (2, 2)]),
    (b"[tru, 2]", [(1, "It is not JSON at byte 1 of F: Expecting value."), (2, 2)]),
    (b"[NaN, 2]", [(1, "It is not JSON: it has NaN in it."), (2, 2)]),
    (b'[{"a": -Infinity}, 2]', [(1, "It is not JSON: it has -Infinity in it."), (2, 2)]),
    (b"[" + DIGITS + b", 2]", [(1, "It has a number of too many digits."), (2, 2)]),
    (b"[" + DEEP + b", 2]", [(1, "It is nested too deeply."), (2, 2)]),
    (b'["\xed\xa0\xbd\xed\xb8\x82", 2]', [(1, "It is not UTF-8 at byte 2 of F."), (2, 2)]),
]


@pytest.mark.parametrize("data, told", BAD, ids=[str(data[:20]) for data, _ in BAD])
def test_what_is_wrong_is_told_in_a_sentence_that_says_where(data, told):
    assert read(data) == told
    if len(data) < 1000:
        assert read(data, 1) == told


def test_a_conversation_that_is_too_long_is_not_held_and_the_next_one_is_read():
    told = "It has 103 bytes, and 100 are the most."
    for step in (None, 1, 7):
        long, longest = f'"{"x" * 101}"', "x" * 98
        data = f'[1, {long}, "{longest}", {{"a": {long}}}, 5]'.encode()
        found = read(data, step, limit=100)
        assert found == [(1, 1), (2, told), (3, longest), (4, told.replace("103", "110")), (5, 5)]


def test_the_header_of_an_export_is_not_counted():
    data = b'{"parley": 2}\n{"id": 1}\n{"id": '
    told = "F ends in the middle of conversation 2."
    assert read(data) == [(1, {"parley": 2}), (1, {"id": 1}), told]


# Files


def test_a_file_is_an_array_or_ndjson_by_what_it_begins_with(tmp_path):
    values = [{"a": number} for number in range(3)]
    assert read_file(array(tmp_path / "a", *values)) == numbered(values)
    assert read_file(ndjson(tmp_path / "b", *values)) == numbered(values)


def test_a_file_that_cannot_be_read_is_told_in_a_sentence(tmp_path):
    assert read_file(tmp_path) == [f"{tmp_path} cannot be read: Is a directory."]
    nothing = tmp_path / "nothing"
    assert read_file(nothing) == [f"{nothing} cannot be read: No such file or directory."]
    nothing.touch()
    assert read_file(nothing) == [f"{nothing} is empty."]


MEMORY = """
import resource, sys
from upkeep.archives import BadFile, read

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    for each in read(sys.argv[1], 2**20):
        print(each)
except BadFile as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def read_apart(path):
    """The lines of a process that reads this file, and by how many MB it has grown."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, path], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    *lines, grown = done.stdout.splitlines()
    return lines, int(grown)


def test_of_two_gigabytes_no_more_is_held_than_of_a_small_file(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.write(b'[1, "')
        file.seek(2**31)  # what is between takes no room, and reads as NUL
        file.write(b'", 3]')
    lines, grown = read_apart(path)
    size = 2**31 - 4 + 1
    assert lines == [
        "Value(number=1, value=1)",
        f"Fault(number=2, text='It has {size} bytes, and 1048576 are the most.')",
        "Value(number=3, value=3)",
    ]
    assert grown < 20


# ZIPs


def test_in_a_zip_all_parts_are_read_in_the_order_of_their_names(tmp_path):
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


def test_a_place_in_a_zip_is_told_by_its_file(tmp_path):
    path = packed(tmp_path / "a.zip", {"x/conversations.json": b'[1, {"a": tru}, {"a": "'})
    name = f"x/conversations.json in {path}"
    fault = f"It is not JSON at byte 10 of {name}: Expecting value."
    assert read_file(path) == [(1, 1), (2, fault), f"{name} ends in the middle of conversation 3."]


def test_a_zip_whose_files_lie_over_each_other_is_damaged(tmp_path):
    """Each would be read, as often as it is named."""
    whole = packed(tmp_path / "a.zip", {"conversations.json": '[{"a": 1}]'}).read_bytes()
    start, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    count = (99).to_bytes(2, "little")
    size = (99 * (end - start)).to_bytes(4, "little")
    data = whole[:start] + whole[start:end] * 99 + whole[end:]
    at = len(data) - 22
    path = tmp_path / "b.zip"
    path.write_bytes(data[: at + 8] + count * 2 + size + data[at + 16 :])
    assert read_file(path) == [f"{path} is damaged: files in it lie over each other."]


def test_a_zip_without_conversations_is_told_in_a_sentence(tmp_path):
    told = "files that are called conversations*.json. If it has another ZIP in it, unpack that"
    for files in ({}, {"users.json": "[]", "Conversations-chatgpt-0001.zip": "PK"}):
        path = packed(tmp_path / "a.zip", files)
        assert read_file(path) == [f"{path} has 0 {told}, and import it."]


def test_what_zipfile_would_unfold_without_a_bound_is_not_read(tmp_path):
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = packed(tmp_path / "a.zip", {"conversations.json": "[1]"}, method)
        [told] = read_file(path)
        assert told.startswith(f"conversations.json in {path} is packed in a way")


def test_an_encrypted_file_is_told_in_a_sentence(tmp_path):
    path = packed(tmp_path / "a.zip", {"conversations.json": "[1]"})
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flags of the file's own header, and in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    [told] = read_file(path)
    assert (
        told == f"conversations.json in {path} is encrypted. Unpack the ZIP, and import that file."
    )


def test_a_file_that_unfolds_a_thousandfold_is_not_read_to_its_end(tmp_path):
    """It is not held either, and what came before is there."""
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("conversations.json", "w") as member:
            member.write(b'[{"a": 1}, "')
            for _ in range(300):
                member.write(b"x" * 2**20)
            member.write(b'"]')
    path = tmp_path / "a.zip"
    path.write_bytes(bomb.getvalue())
    assert path.stat().st_size < 2**20
    lines, grown = read_apart(path)
    assert lines[0] == "Value(number=1, value={'a': 1})"
    times = "of the ZIP, more than 200 times as much comes out as is in it."
    assert lines[1:] == [f"conversations.json in {path} was not read to its end: {times}"]
    assert grown < 20


def test_many_files_that_unfold_a_thousandfold_are_one_trap(tmp_path):
    text = json.dumps([{"a": "x" * 2**23}])
    path = packed(tmp_path / "a.zip", {f"conversations-{n}.json": text for n in range(9)})
    assert path.stat().st_size * 200 < 5 * 2**23
    *read, told = read_file(path)
    assert len(read) < 5 and "was not read to its end" in told


def test_much_of_the_same_is_read_where_it_is_not_much(tmp_path):
    values = [{"a": "x" * 2**19} for _ in range(20)]
    path = packed(tmp_path / "a.zip", {"conversations.json": json.dumps(values)})
    assert path.stat().st_size * 200 < 20 * 2**19
    assert read_file(path) == numbered(values)


def test_a_directory_that_is_too_long_is_not_held(tmp_path):
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


def test_a_damaged_zip_is_told_in_a_sentence_and_what_came_before_is_kept(tmp_path):
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
