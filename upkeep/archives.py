"""Files of conversations, read piece by piece: JSON as it is, or within a ZIP."""

import contextlib
import fnmatch
import io
import itertools
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator

from upkeep.values import BadFile, Fault, Reader, Value

PIECE = 2**18  # bytes that are read at once
ZIP_MARKS = (b"PK\x03\x04", b"PK\x05\x06")  # of a first file, or of a ZIP that has none
MEMBERS = "conversations*.json"  # in any folder: as ChatGPT and Claude name them
MOST_MEMBERS = 1000
LONGEST_READ = 2**25  # bytes that zipfile may read at once: of its directory
LIKELY_SIZE, MOST_UNPACKED = 2**24, 200  # bytes, and times the packed ones, of what is no trap
# Of bz2 and lzma, zipfile does not bound what comes out at once.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 1  # a bit of a member's flags
# What zipfile raises of damage besides its own error.
DAMAGES = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


class BoundedFile(io.BufferedReader):
    """A file of which zipfile may not read any number of bytes at once, as it would for a large
    directory."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > LONGEST_READ:
            raise zipfile.BadZipFile("its directory is too long")
        return super().read(size)


def read(path: str, limit: int) -> Iterator[Value | Fault]:
    """The conversations of this file, one at a time, as JSON values. It is NDJSON, a JSON array, or
    a ZIP in which such files are called `conversations*.json`. One of more than `limit` bytes is a
    Fault, as one that cannot be read. Raises BadFile where the file cannot be read on."""
    try:
        with BoundedFile(io.FileIO(path)) as file:
            if file.peek(4).startswith(ZIP_MARKS):
                yield from _read_zip(file, path, limit)
            else:
                yield from Reader(path, _pieces_of(file.read1), limit)
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror or error}.") from None


def _pieces_of(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while piece := read(PIECE):
        yield piece


def _read_zip(file: BoundedFile, path: str, limit: int) -> Iterator[Value | Fault]:
    number = 1
    with _told_as_damage(path):
        archive = zipfile.ZipFile(file)
    members = [info for info in archive.infolist() if _is_wanted(info)]
    if not 1 <= len(members) <= MOST_MEMBERS:
        advice = "If it has another ZIP in it, unpack that, and import it."
        text = f"{path} has {len(members)} files that are called {MEMBERS}. {advice}"
        raise BadFile(text)
    if _lie_over_each_other(members):
        raise BadFile(f"{path} is damaged: files in it lie over each other.")
    allowance = Allowance(os.fstat(file.fileno()).st_size)
    for info in sorted(members, key=lambda info: info.filename):
        name = f"{info.filename} in {path}"
        reader = Reader(name, _unpack(archive, info, name, allowance), limit, number)
        yield from reader
        number = reader.number


def _is_wanted(info: zipfile.ZipInfo) -> bool:
    return fnmatch.fnmatchcase(info.filename.rpartition("/")[2].lower(), MEMBERS)


def _lie_over_each_other(members: list[zipfile.ZipInfo]) -> bool:
    """Whether one would be read many times over, of which zipfile only warns, if it does."""
    in_order = sorted(members, key=lambda info: info.header_offset)
    return any(
        one.header_offset + one.compress_size >= other.header_offset
        for one, other in itertools.pairwise(in_order)
    )


def _unpack(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, allowance: "Allowance"
) -> Iterator[bytes]:
    """The bytes of this member, piece by piece. Raises BadFile, also where they are more than what
    is left of what is allowed."""
    if info.flag_bits & ENCRYPTED:
        raise BadFile(f"{name} is encrypted. Unpack the ZIP, and import that file.")
    if info.compress_type not in METHODS:
        text = f"{name} is packed in a way that is not read here. Unpack it, and import that file."
        raise BadFile(text)
    with _told_as_damage(name), archive.open(info) as member:
        for piece in _pieces_of(member.read):
            allowance.take(len(piece), name)
            yield piece


class Allowance:
    """How many bytes may come out of a ZIP of this size, whichever members they are of."""

    def __init__(self, packed: int) -> None:
        self._left = max(LIKELY_SIZE, packed * MOST_UNPACKED)

    def take(self, size: int, name: str) -> None:
        """Raises BadFile where there is no more for this member."""
        self._left -= size
        if self._left < 0:
            times = f"more than {MOST_UNPACKED} times as much comes out as is in it"
            raise BadFile(f"{name} was not read to its end: of the ZIP, {times}.")


@contextlib.contextmanager
def _told_as_damage(name: str) -> Iterator[None]:
    try:
        yield
    except DAMAGES as error:
        raise BadFile(f"{name} is damaged, or not whole: {error}.") from None
