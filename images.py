"""Reads a JPEG or a PNG without decoding it, and cuts off all that is not the picture: where and
when it was taken, what was written into it, and what was appended to it.

We walk along its parts, segments (JPEG: ITU T.81, annex B) or chunks (PNG: w3.org/TR/png-3, section
5), and copy those that a decoder needs. What we do not know is left out, or refused."""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

SIDE_MAX = 8_000  # pixels
PIXELS_MAX = 40_000_000
ICC_MAX = 2**16  # bytes of a colour profile; a PNG's is compressed
# A file of many tiny parts would take us, or a decoder, long. Of real pictures, a progressive JPEG
# has about ten scans, and a PNG a chunk for some kB of its data, or for each row.
SEGMENTS_MAX = 2**12
SCANS_MAX = 100
CHUNKS_MAX = 2**14

JPEG = "image/jpeg"
PNG = "image/png"
_TOO_LARGE = (
    f"This picture is too large: it may have {SIDE_MAX:,} pixels a side, and "
    f"{PIXELS_MAX // 10**6} million in all."
)


class BadImage(ValueError):
    """The bytes are no picture that we accept. The message is a sentence for the client, and quotes
    nothing of them."""


class Image(NamedTuple):
    """A picture, and nothing else."""

    media_type: str
    width: int  # as displayed, after the orientation is applied
    height: int
    data: bytes  # what is left of the file


def cut(data: bytes) -> Image:
    """What is left of a JPEG's or a PNG's file when all that is not the picture is cut off. Cutting
    that again changes nothing. Raises BadImage.

    Decoders show the same pixels as before, of an animated PNG its still picture. What stays
    besides is the orientation, one colour profile, and how colours are encoded."""
    if data.startswith(_JPEG_START):
        return _Jpeg(data).cut()
    if data.startswith(_PNG_START):
        return _Png(data).cut()
    raise BadImage("This is neither a JPEG nor a PNG.")


def _check_size(width: int, height: int) -> None:
    if max(width, height) > SIDE_MAX or width * height > PIXELS_MAX:
        raise BadImage(_TOO_LARGE)


def _displayed(width: int, height: int, orientation: int) -> tuple[int, int]:
    """The orientations from 5 on turn the picture by a quarter (Exif 2.32, section 4.6.4)."""
    return (height, width) if orientation >= 5 else (width, height)


def _orientation_in(tiff: memoryview) -> int:
    """The orientation that Exif data tells, from 2 to 8; 1, which is upright, if it tells none that
    is valid."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(tiff[:4]))
    if order is None or len(tiff) < 8:
        return 1
    start = struct.unpack_from(f"{order}I", tiff, 4)[0] + 2
    if start > len(tiff):
        return 1
    (count,) = struct.unpack_from(f"{order}H", tiff, start - 2)
    entries = tiff[start : start + 12 * count]
    whole = entries[: len(entries) // 12 * 12]
    for tag, kind, number, value in struct.iter_unpack(f"{order}HHIHxx", whole):
        if tag == 0x112:
            is_valid = (kind, number) == (3, 1) and value in range(1, 9)
            return value if is_valid else 1
    return 1


def _exif(orientation: int) -> bytes:
    """Exif data that tells nothing but this orientation."""
    return struct.pack(">2sHIHHHIHxxI", b"MM", 42, 8, 1, 0x112, 3, 1, orientation, 0)


# Markers of a JPEG's segments: the second byte, after 0xFF.
_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive
_DHT, _DQT, _DRI, _DNL, _SOS, _EOI, _COM = 0xC4, 0xDB, 0xDD, 0xDC, 0xDA, 0xD9, 0xFE
_APPS = range(0xE0, 0xF0)
_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE
# Lossless, hierarchical and arithmetic ones, which neither browsers nor model servers decode.
_RARE = {*range(0xC3, 0xD0), 0xDE, 0xDF} - {_DHT}
_KEPT = {*_FRAMES, _DHT, _DQT, _DRI, _SOS}
_LEFT_OUT = {_DNL, _COM, *_APPS}  # but see `_read_app`

_JPEG_START = b"\xff\xd8\xff"
_MARKER = re.compile(rb"\xff++([^\xff])")  # any number of fill bytes may precede it
# What ends the data of a scan: not a 0xFF of the data, after which there is a zero, and not a mark
# for restarts. A fill byte before the end counts as data: so no run of them is read twice.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

# It is kept because of its presence, which tells decoders that three components are YCbCr. Version
# 1.01, square pixels (no browser heeds a density), no thumbnail.
_JFIF = b"JFIF\0" + struct.pack(">BBBHHBB", 1, 1, 0, 1, 1, 0, 0)
_ADOBE = b"Adobe" + struct.pack(">HHH", 100, 0, 0)  # the colour transform follows
_ICC = b"ICC_PROFILE\0"
_ICC_PIECE = 2**16 - 1 - 2 - len(_ICC) - 2  # bytes of a profile in a segment


class _Jpeg:
    """The segments of a JPEG. What they tell of the whole picture counts up to the first scan, as
    in libjpeg."""

    def __init__(self, data: bytes) -> None:
        self._data, self._view = data, memoryview(data)
        self._kept: list[memoryview] = []
        self._size: tuple[int, int] | None = None
        self._components = self._scans = 0
        self._is_jfif = False
        self._orientation: int | None = None
        self._transform: int | None = None
        self._icc: list[memoryview] = []

    def cut(self) -> Image:
        at = len(_JPEG_START) - 1
        for _ in range(SEGMENTS_MAX):
            marker, at = self._read_marker(at)
            if marker == _EOI:
                return self._image()
            at = self._read_segment(marker, at)
        raise BadImage("This JPEG has too many segments.")

    def _read_marker(self, at: int) -> tuple[int, int]:
        """A marker, and the position after it."""
        found = _MARKER.match(self._data, at)
        if found:
            return found[1][0], found.end()
        if self._data.startswith(b"\xff", at) or at == len(self._data):
            raise BadImage("This JPEG ends too early.")
        raise BadImage("This JPEG is damaged: something is between its segments.")

    def _read_segment(self, marker: int, at: int) -> int:
        """Returns where it ends."""
        if marker in _RARE:
            raise BadImage("This JPEG is neither baseline nor progressive.")
        if marker not in _KEPT and marker not in _LEFT_OUT:
            raise BadImage("This JPEG is damaged: it has an unknown segment.")
        body = self._body(at)
        end = at + 2 + len(body)
        if marker == _SOS:
            end = self._read_scan(body, end)
        elif marker in _FRAMES:
            self._read_frame(body)
        elif marker in _APPS and not self._scans:
            self._read_app(marker, body)
        if marker in _KEPT:
            self._kept.append(self._view[at - 2 : end])
        return end

    def _body(self, at: int) -> memoryview:
        """What follows the length, of two bytes, which counts itself."""
        if at + 2 > len(self._data):
            raise BadImage("This JPEG ends too early.")
        (size,) = struct.unpack_from(">H", self._data, at)
        if size < 2:
            raise BadImage("This JPEG is damaged: a segment has no length.")
        if at + size > len(self._data):
            raise BadImage("This JPEG ends too early.")
        return self._view[at + 2 : at + size]

    def _read_frame(self, body: memoryview) -> None:
        if self._size:
            raise BadImage("This JPEG is damaged: it has two headers.")
        if len(body) < 6 or len(body) != 6 + 3 * body[5]:
            raise BadImage("This JPEG is damaged: its header has a wrong length.")
        depth, height, width, self._components = struct.unpack_from(">BHHB", body)
        # Some decoders take 12 bits, and two components; a browser does not.
        if depth != 8 or self._components not in (1, 3, 4):
            raise BadImage("This JPEG is neither grey, nor in colour with 8 bits.")
        if not width or not height:  # the height may follow the first scan, but no browser reads it
            raise BadImage("This JPEG does not tell its size at its beginning.")
        _check_size(width, height)
        self._size = width, height

    def _read_scan(self, body: memoryview, end: int) -> int:
        """Returns where the scan's data ends. Its header ends at `end`."""
        if not self._size:
            raise BadImage("This JPEG is damaged: it has no header.")
        count = body[0] if body else 0
        if count not in range(1, self._components + 1) or len(body) != 4 + 2 * count:
            raise BadImage("This JPEG is damaged: a scan has a wrong header.")
        self._scans += 1
        if self._scans > SCANS_MAX:
            raise BadImage("This JPEG has too many scans.")
        found = _SCAN_END.search(self._data, end)
        if not found:
            raise BadImage("This JPEG ends too early.")
        return found.start()

    def _read_app(self, marker: int, body: memoryview) -> None:
        """Take from an application's segment what is kept of it."""
        name = body[: len(_ICC)].tobytes()
        if marker == _APP0 and name.startswith(b"JFIF\0") and len(body) >= len(_JFIF):
            self._is_jfif = True
        elif marker == _APP1 and name.startswith(b"Exif\0") and self._orientation is None:
            self._orientation = _orientation_in(body[6:])  # after a byte that means nothing
        elif marker == _APP2 and name == _ICC:
            self._icc.append(body[len(_ICC) :])
        elif marker == _APP14 and name.startswith(b"Adobe") and len(body) > len(_ADOBE):
            self._transform = body[len(_ADOBE)]

    def _image(self) -> Image:
        if not self._size or not self._scans:
            raise BadImage("This JPEG ends too early.")
        orientation = self._orientation or 1
        data = b"".join((b"\xff\xd8", *self._apps(orientation), *self._kept, b"\xff\xd9"))
        return Image(JPEG, *_displayed(*self._size, orientation), data)

    def _apps(self, orientation: int) -> Iterator[bytes]:
        """The segments of applications, written anew. JFIF and Exif both want to be the first; by
        custom JFIF is."""
        if self._is_jfif:
            yield _segment(_APP0, _JFIF)
        if orientation > 1:
            yield _segment(_APP1, b"Exif\0\0" + _exif(orientation))
        if self._transform is not None:
            yield _segment(_APP14, _ADOBE + bytes([self._transform]))
        profile = _profile_of(self._icc)
        starts = range(0, len(profile), _ICC_PIECE)
        for number, start in enumerate(starts, 1):
            piece = profile[start : start + _ICC_PIECE]
            yield _segment(_APP2, _ICC + bytes([number, len(starts)]) + piece)


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body


def _profile_of(pieces: list[memoryview]) -> bytes:
    """The colour profile that has these pieces, which are numbered from 1 (ICC.1, annex B.4). None,
    if it is too large, or if a piece is missing or there twice: then decoders take none, either."""
    count = len(pieces)
    numbered = {piece[0]: piece[2:] for piece in pieces if len(piece) >= 2 and piece[1] == count}
    is_whole = sorted(numbered) == [*range(1, count + 1)]
    if not is_whole or sum(map(len, numbered.values())) > ICC_MAX:
        return b""
    return b"".join(numbered[number] for number in range(1, count + 1))


_PNG_START = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR, _INDEXED = 0, 2, 3  # colour types; with transparency, they are 4 and 6
_DEPTHS = {
    _GREY: (1, 2, 4, 8, 16),
    _COLOUR: (8, 16),
    _INDEXED: (1, 2, 4, 8),
    4: (8, 16),
    6: (8, 16),
}
# What tells decoders the meaning of the pixels' numbers, and its size.
_COLOURS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4}
# What precedes a compressed profile: its name, which could say anything, and a method. And ours.
_PROFILE = re.compile(rb"[^\x00]{1,79}\x00\x00(?=.)", re.DOTALL)
_PROFILE_NAME = b"ICC Profile\0\0"


class _Png:
    """The chunks of a PNG. What they tell of the picture counts up to its data."""

    def __init__(self, data: bytes) -> None:
        self._data, self._view = data, memoryview(data)
        self._width = self._height = 0
        self._colour_type = _GREY
        self._kept: dict[bytes, memoryview | bytes] = {}  # by their type: the first of each
        self._orientation: int | None = None
        # Chunks of the picture's data follow each other: they are one range of the file.
        self._start = self._end = 0

    def cut(self) -> Image:
        for kind, body, end in self._chunks():
            if not self._width:
                self._read_header(kind, body)
            elif kind == b"IDAT":
                self._read_data(body, end)
            elif kind == b"IEND":
                return self._image()
            elif not kind[0] & 0x20 and kind != b"PLTE":  # a capital: no decoder may pass over it
                raise BadImage("This PNG is damaged: it has an unknown chunk.")
            elif not self._start:
                self._read_other(kind, body)
        raise BadImage("This PNG has too many chunks.")

    def _chunks(self) -> Iterator[tuple[bytes, memoryview, int]]:
        """The type and the content of each chunk, and where it ends."""
        at = len(_PNG_START)
        for _ in range(CHUNKS_MAX):
            if at + 12 > len(self._data):
                raise BadImage("This PNG ends too early.")
            size, kind = struct.unpack_from(">I4s", self._data, at)
            if size >= 2**31 or not kind.isalpha():
                raise BadImage("This PNG is damaged: something is between its chunks.")
            end = at + 12 + size
            if end > len(self._data):
                raise BadImage("This PNG ends too early.")
            (checksum,) = struct.unpack_from(">I", self._data, end - 4)
            if checksum != zlib.crc32(self._view[at + 4 : end - 4]):
                raise BadImage("This PNG is damaged: a checksum is wrong.")
            yield kind, self._view[at + 8 : end - 4], end
            at = end

    def _read_header(self, kind: bytes, body: memoryview) -> None:
        if kind != b"IHDR" or len(body) != 13:
            raise BadImage("This PNG is damaged: it does not begin with its header.")
        width, height, depth, self._colour_type, *methods, interlace = struct.unpack(
            ">IIBBBBB", body
        )
        if depth not in _DEPTHS.get(self._colour_type, ()) or any(methods) or interlace > 1:
            raise BadImage("This PNG is damaged: its header is not valid.")
        if not width or not height:
            raise BadImage("This PNG is damaged: it has no size.")
        _check_size(width, height)
        self._width, self._height = width, height
        self._kept[kind] = body

    def _read_data(self, body: memoryview, end: int) -> None:
        start = end - 12 - len(body)
        if not self._start:
            if self._colour_type == _INDEXED and b"PLTE" not in self._kept:
                raise BadImage("This PNG is damaged: it has no palette.")
            self._start = start
        elif self._end != start:
            raise BadImage("This PNG is damaged: something is between parts of its data.")
        self._end = end

    def _read_other(self, kind: bytes, body: memoryview) -> None:
        """Take from a chunk before the data what is kept of it."""
        if kind == b"eXIf":
            # Chromium (since 2024) and Firefox (since 2025) heed it if it precedes the data, as it
            # must in the third edition (github.com/w3c/png, issue 447 and pull request 522).
            if self._orientation is None:
                self._orientation = _orientation_in(body)
        elif kind not in self._kept:
            content = self._content(kind, body)
            if content:
                self._kept[kind] = content

    def _content(self, kind: bytes, body: memoryview) -> memoryview | bytes:
        """What is kept of a chunk's content: none of a chunk that decoders pass over."""
        size = len(body)
        if kind == b"PLTE" and self._colour_type == _INDEXED:
            if size % 3 or size not in range(3, 3 * 256 + 1):
                raise BadImage("This PNG is damaged: its palette has a wrong length.")
            return body
        if kind == b"tRNS":
            least, most = {_GREY: (2, 2), _COLOUR: (6, 6)}.get(
                self._colour_type, (1, self._palette_size())
            )
            return body if least <= size <= most else b""
        if kind == b"iCCP":
            name = _PROFILE.match(body)
            if name and size - name.end() <= ICC_MAX:
                return _PROFILE_NAME + body[name.end() :]
            return b""
        return body if _COLOURS.get(kind) == size else b""

    def _palette_size(self) -> int:
        """How many colours it has; 0, if there is none."""
        return len(self._kept.get(b"PLTE", b"")) // 3

    def _image(self) -> Image:
        if not self._start:
            raise BadImage("This PNG ends too early.")
        orientation = self._orientation or 1
        if orientation > 1:
            self._kept[b"eXIf"] = _exif(orientation)
        chunks = [_chunk(kind, content) for kind, content in self._kept.items()]
        picture = self._view[self._start : self._end]
        data = b"".join((_PNG_START, *chunks, picture, _chunk(b"IEND", b"")))
        return Image(PNG, *_displayed(self._width, self._height, orientation), data)


def _chunk(kind: bytes, content: memoryview | bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(content)), kind, content, struct.pack(">I", checksum)))
