"""Files of conversations, read piece by piece: plain JSON, or JSON in a ZIP."""

import contextlib
import fnmatch
import functools
import io
import itertools
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from formats.json_reader import BadFile, Fault, FileLine, Reader, Value

ZIP_MARKS = (b"PK\x03\x04", b"PK\x05\x06")  # begin a ZIP with files, and an empty one
MEMBERS = "conversations*.json"  # ChatGPT's and Claude's names, in any folder
# ChatGPT's names of pictures begin with the id by which conversations refer to them, in any folder:
# `file-AbC-cat.jpg`, `file_0123-sanitized.png`; since May 2026, `file-AbC.dat`
# (github.com/Superkikim/nexus-ai-chat-importer/issues/62).
ASSET = re.compile("file[-_][0-9A-Za-z]+")
MOST_MEMBERS = 1000
LONGEST_READ = 2**25  # bytes that zipfile may read at once, for the directory of a ZIP
# A ZIP counts as a bomb if it unpacks to more than this many bytes, and this many times its size.
LIKELY_SIZE, MOST_UNPACKED = 2**24, 200
# For bz2 and lzma, zipfile does not limit how much it unpacks at once.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 1  # a bit of a member's flags
# Exceptions of zipfile for a damaged file.
DAMAGES = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


class BoundedFile(io.BufferedReader):
    """A file of which zipfile cannot read gigabytes at once, as it does for a large directory."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > LONGEST_READ:
            raise zipfile.BadZipFile("its directory is too long")
        return super().read(size)


class Images:
    """The images in a ZIP, while its conversations are read. Any other file has none."""

    def __init__(self) -> None:
        self._archive: zipfile.ZipFile | None = None
        self._members: dict[str, zipfile.ZipInfo] = {}

    def find(self, archive: zipfile.ZipFile, allowance: "Allowance") -> None:
        self._archive, self._allowance = archive, allowance
        for info in archive.infolist():
            if match := ASSET.match(info.filename.rpartition("/")[2]):
                self._members.setdefault(match[0], info)

    def read(self, asset: str, most: int) -> bytes | None:
        """The bytes of the image with this id; None if it is not there, cannot be read, or has more
        than `most` bytes. Raises BadFile if the ZIP is a bomb."""
        info = self._members.get(asset)
        if info is None or info.file_size > most or self._archive is None:
            return None
        try:
            with _open(self._archive, info, info.filename) as member:
                # zipfile unpacks no more than the directory says, and compares the checksum there.
                return _unpack(member, info.filename, self._allowance, info.file_size)
        except (DamagedFile, OSError):
            return None


def read(
    path: str, limit: int, file_limit: int = 0, images: Images | None = None
) -> Iterator[Value | Fault | FileLine]:
    """The conversations of this file, one at a time, as JSON objects. The file is NDJSON, one
    object, a JSON array, or a ZIP with such files that are called `conversations*.json`. A
    conversation that cannot be read, or has more than `limit` bytes, is a Fault if we can tell
    where the next one begins. Otherwise raises BadFile. An export of Parley also has files, in
    lines of up to `file_limit` bytes; those in a ZIP are in `images`."""
    try:
        with BoundedFile(io.FileIO(path)) as file:
            if file.peek(4).startswith(ZIP_MARKS):
                yield from _read_zip(file, path, limit, images or Images())
            else:
                yield from Reader(path, file.read1, limit, file_limit=file_limit)
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror or error}.") from None


def _read_zip(
    file: BoundedFile, path: str, limit: int, images: Images
) -> Iterator[Value | Fault | FileLine]:
    number = 1
    with _raising_bad_file(path):
        archive = zipfile.ZipFile(file)
    members = [info for info in archive.infolist() if _is_conversations(info)]
    if not 1 <= len(members) <= MOST_MEMBERS:
        advice = "If it has another ZIP in it, unpack that, and import it."
        text = f"{path} has {len(members)} files that are called {MEMBERS}. {advice}"
        raise BadFile(text)
    if _overlap(members):
        raise BadFile(f"{path} is damaged: files in it overlap.")
    allowance = Allowance(os.fstat(file.fileno()).st_size)
    images.find(archive, allowance)
    for info in sorted(members, key=lambda info: info.filename):
        name = f"{info.filename} in {path}"
        with _open(archive, info, name) as member:
            unpack = functools.partial(_unpack, member, name, allowance)
            reader = Reader(name, unpack, limit, number)
            yield from reader
        number = reader.number


def _is_conversations(info: zipfile.ZipInfo) -> bool:
    return fnmatch.fnmatchcase(info.filename.rpartition("/")[2].lower(), MEMBERS)


def _overlap(members: list[zipfile.ZipInfo]) -> bool:
    """Whether members share bytes, which a ZIP bomb unpacks many times. zipfile only warns of that,
    if at all."""
    in_order = sorted(members, key=lambda info: info.header_offset)
    return any(
        one.header_offset + one.compress_size >= other.header_offset
        for one, other in itertools.pairwise(in_order)
    )


class DamagedFile(BadFile):
    """A file in a ZIP, or a ZIP, that cannot be unpacked."""


def _open(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> IO[bytes]:
    """The unpacked bytes of this member. Raises DamagedFile."""
    if info.flag_bits & ENCRYPTED:
        raise DamagedFile(f"{name} is encrypted. Unpack the ZIP, and import that file.")
    if info.compress_type not in METHODS:
        text = f"{name} is compressed by an unknown method. Unpack it, and import that file."
        raise DamagedFile(text)
    with _raising_bad_file(name):
        return archive.open(info)


def _unpack(member: IO[bytes], name: str, allowance: "Allowance", size: int) -> bytes:
    with _raising_bad_file(name):
        piece = member.read(size)
    allowance.spend(len(piece), name)
    return piece


class Allowance:
    """How many bytes the members of a ZIP of this size may have together, unpacked."""

    def __init__(self, packed: int) -> None:
        self._left = max(LIKELY_SIZE, packed * MOST_UNPACKED)

    def spend(self, size: int, name: str) -> None:
        """Count `size` bytes of this member. Raises BadFile if that is too much."""
        self._left -= size
        if self._left < 0:
            times = f"the ZIP unpacks to more than {MOST_UNPACKED} times its size"
            raise BadFile(f"{name} was not read to its end: {times}.")


@contextlib.contextmanager
def _raising_bad_file(name: str) -> Iterator[None]:
    try:
        yield
    except DAMAGES as error:
        raise DamagedFile(f"{name} is damaged, or not whole: {error}.") from None
