"""What is kept of a picture: all that a decoder shows, and nothing else."""

import base64
import itertools
import random
import struct
import time
import tracemalloc
import zlib

import pytest

import images
from images import BadImage, cut
from product import ROOT

SECRET = b"52.5200, 13.4050"


def segment(marker, body=b""):
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(body)) + body


def frame(width=3, height=2, kind=0xC0, depth=8, components=3):
    parts = b"".join(bytes([number, 0x11, 0]) for number in range(components))
    return segment(kind, struct.pack(">BHHB", depth, height, width, components) + parts)


def scan(data=b"pixels", components=3):
    header = bytes([components]) + b"".join(bytes([number, 0]) for number in range(components))
    return segment(0xDA, header + bytes([0, 63, 0])) + data


def tiff(orientation=6, order=">", kind=3, count=1, tag=0x112, start=8):
    """Exif data with a place, a thumbnail, and this orientation."""
    sign = {">": b"MM\0*", "<": b"II*\0"}[order]
    entry = struct.pack(f"{order}HHIHxx", tag, kind, count, orientation)
    entries = struct.pack(f"{order}HHII", 0x10F, 2, 16, 38) + entry
    place = struct.pack(f"{order}I", 0) + SECRET
    return sign + struct.pack(f"{order}IH", start, 2) + entries + place + b"\xff\xd8\xff\xd9"


def exif(*arguments, **options):
    return segment(0xE1, b"Exif\0\0" + tiff(*arguments, **options))


def oriented(orientation):
    """Exif data that says nothing else: Exif 2.32, section 4.6.2."""
    head, tag, kind = "4d4d002a 00000008 0001", "0112", "0003"
    return bytes.fromhex(f"{head} {tag} {kind} 00000001 {orientation:04x}0000 00000000")


def profile(number=1, count=1, data=b"profile"):
    return segment(0xE2, b"ICC_PROFILE\0" + bytes([number, count]) + data)


SOI, EOI = b"\xff\xd8", b"\xff\xd9"
TABLES = segment(0xDB, bytes(65)) + segment(0xC4, bytes(17)) + segment(0xDD, b"\0\1")
REST = TABLES + frame() + scan(b"\xff\0data\xff\xd0\xff\xd7") + EOI
JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
ADOBE = segment(0xEE, b"Adobe\0\x64\0\0\0\0\2")


def jpeg(*segments, rest=REST):
    return b"".join((SOI, *segments, rest))


def chunk(kind, body=b"", checksum=None):
    checksum = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def header(width=3, height=2, depth=8, kind=2, interlace=0):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace))


SIGNATURE = b"\x89PNG\r\n\x1a\n"
DATA = chunk(b"IDAT", zlib.compress(bytes(20)))
END = chunk(b"IEND")
PALETTE = chunk(b"PLTE", bytes(range(12)))


def png(*chunks, head=None, rest=DATA + END):
    return b"".join((SIGNATURE, head or header(), *chunks, rest))


def refusal(data):
    with pytest.raises(BadImage) as refused:
        cut(data)
    return str(refused.value)


# A picture of 3 × 2 pixels: progressive, with marks for restarts.
REAL = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6jq62rZ4C8ybqmx5mo"
    "q6T/2wBDARweHigjKE4rK06kbl1upKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKT/wgARCAACAAMDASIAAhEB"
    "AxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAT/xAAVAQEBAAAAAAAAAAAAAAAAAAABA//dAAQAAf/aAAwDAQACEAMQAAABpFz/xAAWEAEBAQAAAAAAAAAA"
    "AAAAAAACAwH/2gAIAQEAAQUCkTs//8QAFBEBAAAAAAAAAAAAAAAAAAAAAP/aAAgBAwEBPwF//8QAFxEAAwEAAAAAAAAAAAAAAAAAAAECMv/aAAgBAgEB"
    "PwGco//EABYQAQEBAAAAAAAAAAAAAAAAAAECAP/aAAgBAQAGPwKVkd//xAAXEAEAAwAAAAAAAAAAAAAAAAABABEx/9oACAEBAAE/IXYFak//2gAMAwEA"
    "AgADAAAAEAP/xAAWEQADAAAAAAAAAAAAAAAAAAAAATH/2gAIAQMBAT8QdP/EABYRAAMAAAAAAAAAAAAAAAAAAAABof/aAAgBAgEBPxCRH//EABcQAQAD"
    "AAAAAAAAAAAAAAAAAAEAIYH/2gAIAQEAAT8QelbhV2f/2Q=="
)


def test_a_real_jpeg_and_a_real_png_stay_as_they_are():
    assert cut(REAL) == (images.JPEG, 3, 2, REAL)
    icon = (ROOT / "static" / "icons" / "icon-192.png").read_bytes()
    assert cut(icon) == (images.PNG, 192, 192, icon)


ICC_IN_TWO = profile(2, 2, b"file") + profile(1, 2, b"pro")


@pytest.mark.parametrize(
    ("segments", "kept"),
    [
        ([], []),
        ([JFIF, ADOBE, profile()], [JFIF, ADOBE, profile()]),
        # Version, density and thumbnail; version and flags, and what follows the transform.
        ([segment(0xE0, b"JFIF\0\1\2\1\1\x2c\1\x2c\1\1" + SECRET[:3])], [JFIF]),
        ([segment(0xEE, b"Adobe\0\x65\1\2\3\4\2" + SECRET)], [ADOBE]),
        ([ADOBE.replace(b"\2", b"\1"), ADOBE], [ADOBE]),
        (
            [segment(0xE0, b"JFXX\0" + SECRET), segment(0xE0, b"JFIF\0"), segment(0xEE, b"Adobe")],
            [],
        ),
        ([segment(marker, SECRET) for marker in (0xFE, 0xDC, *range(0xE0, 0xF0))], []),
        ([segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + SECRET)], []),
        ([segment(0xE2, b"MPF\0MM\0*" + SECRET), b"\xff\xff\xff" + JFIF], [JFIF]),
        ([profile(), exif(), JFIF], [JFIF, segment(0xE1, b"Exif\0\0" + oriented(6)), profile()]),
        ([exif(3), exif(5)], [segment(0xE1, b"Exif\0\0" + oriented(3))]),
        ([ICC_IN_TWO], [profile()]),
        # A piece is missing, is there twice, comes from another profile, or has no number.
        ([profile(1, 2)], []),
        ([profile(), profile()], []),
        ([profile(1, 2), profile(2, 3)], []),
        ([profile(0, 1)], []),
        ([profile(), segment(0xE2, b"ICC_PROFILE\0\1")], []),
        ([profile(n % 256, 257 % 256) for n in range(1, 258)], []),
        # 64 kB in two pieces, which are not cut where ours are; and a byte more.
        (
            [profile(1, 2, bytes(36)), profile(2, 2, bytes(65500))],
            [profile(1, 2, bytes(65519)), profile(2, 2, bytes(17))],
        ),
        ([profile(1, 2, bytes(37)), profile(2, 2, bytes(65500))], []),
    ],
)
def test_of_a_jpegs_segments_only_what_decoders_need_is_kept(segments, kept):
    image = cut(jpeg(*segments) + SECRET)
    assert image.data == jpeg(*kept)
    assert cut(image.data) == image


def test_tables_and_scans_of_a_jpeg_stay_in_their_order():
    """And what is between scans is not the picture, either."""
    first, second = scan(b"", 1), scan(b"a\xff\xff\0b\xff", 2)
    between = segment(0xFE, SECRET) + ADOBE + exif() + profile()
    image = cut(jpeg(frame(kind=0xC2), TABLES, first, between, TABLES, b"\xff", second, rest=EOI))
    assert image.data == jpeg(frame(kind=0xC2), TABLES, first, TABLES, second, rest=EOI)
    assert cut(image.data) == image


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(10))
def test_the_orientation_is_kept_and_the_size_is_the_displayed_one(order, orientation):
    is_kept = orientation in range(2, 9)
    size = (2, 3) if orientation in range(5, 9) else (3, 2)
    found = cut(jpeg(exif(orientation, order)))
    segments = [segment(0xE1, b"Exif\0\0" + oriented(orientation))] * is_kept
    assert found == (images.JPEG, *size, jpeg(*segments)) and cut(found.data) == found
    found = cut(png(chunk(b"eXIf", tiff(orientation, order)), DATA, rest=END))
    chunks = [chunk(b"eXIf", oriented(orientation))] * is_kept
    assert found == (images.PNG, *size, png(*chunks)) and cut(found.data) == found


@pytest.mark.parametrize(
    "data",
    [
        *(tiff()[:size] for size in (*range(33), 0)),
        *(tiff(start=start) for start in (0, 9, 61, 62, 2**32 - 1)),
        tiff(kind=4),
        tiff(count=2),
        tiff(tag=0x113),
        b"II" + tiff()[2:],
    ],
)
def test_exif_without_a_valid_orientation_tells_none(data):
    assert cut(jpeg(segment(0xE1, b"Exif\0\0" + data))).data == jpeg()
    assert cut(png(chunk(b"eXIf", data))).data == png()


TRNS_OF_INDEXED = chunk(b"tRNS", b"\0\1\2\3")
INDEXED = {"head": header(kind=3, depth=4)}
COLOURS = [
    chunk(b"cICP", bytes(4)),
    chunk(b"gAMA", bytes(4)),
    chunk(b"cHRM", bytes(32)),
    chunk(b"iCCP", b"ICC Profile\0\0profile"),
    chunk(b"sRGB", b"\0"),
]


@pytest.mark.parametrize(
    ("head", "chunks", "kept"),
    [
        (None, COLOURS, COLOURS),
        (None, [chunk(b"iCCP", SECRET + b"\0\0profile")], [COLOURS[3]]),
        (
            None,
            [chunk(b"iCCP", b"x" * 79 + b"\0\0" + bytes(2**16))],
            [chunk(b"iCCP", b"ICC Profile\0\0" + bytes(2**16))],
        ),
        (None, [chunk(b"iCCP", b"x\0\0" + bytes(2**16 + 1))], []),
        *(
            (None, [chunk(b"iCCP", body)], [])
            for body in (b"", b"x\0\0", b"x\0\1a", b"\0\0a", b"x" * 80 + b"\0\0a")
        ),
        # The first of each, and none of a wrong size.
        (None, [COLOURS[4], chunk(b"sRGB", b"\1")], [COLOURS[4]]),
        (None, [chunk(b"eXIf", tiff(3)), chunk(b"eXIf", tiff(5))], [chunk(b"eXIf", oriented(3))]),
        (
            None,
            [chunk(kind, bytes(5)) for kind in (b"cICP", b"gAMA", b"cHRM", b"sRGB", b"tRNS")],
            [],
        ),
        (None, [chunk(b"tRNS", bytes(6)), PALETTE], [chunk(b"tRNS", bytes(6))]),
        (header(kind=0), [chunk(b"tRNS", bytes(2))], [chunk(b"tRNS", bytes(2))]),
        (header(kind=6), [chunk(b"tRNS", bytes(6))], []),
        (header(kind=3), [PALETTE, TRNS_OF_INDEXED], [PALETTE, TRNS_OF_INDEXED]),
        (header(kind=3), [TRNS_OF_INDEXED, PALETTE, chunk(b"tRNS", bytes(5))], [PALETTE]),
        (header(kind=0, depth=16, interlace=1), [], []),
        (
            None,
            [
                chunk(kind, SECRET)
                for kind in (
                    b"tEXt",
                    b"zTXt",
                    b"iTXt",
                    b"tIME",
                    b"pHYs",
                    b"bKGD",
                    b"acTL",
                    b"fcTL",
                    b"xxXx",
                )
            ],
            [],
        ),
    ],
)
def test_of_a_pngs_chunks_only_what_decoders_need_is_kept(head, chunks, kept):
    late = [chunk(b"fdAT", SECRET), chunk(b"eXIf", tiff()), COLOURS[4], PALETTE]
    image = cut(png(*chunks, DATA, DATA, *late, END, head=head, rest=SECRET))
    assert image.data == png(*kept, DATA, head=head)
    assert cut(image.data) == image


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xd8", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"\0" + REAL, SIGNATURE[:-1], b"<svg/>"],
)
def test_anything_else_is_refused(data):
    assert refusal(data) == "This is neither a JPEG nor a PNG."


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (jpeg(rest=EOI), "ends too early"),
        (jpeg(frame(), rest=EOI), "ends too early"),
        (jpeg(rest=REST[:-2] + SOI + REST), "an unknown segment"),  # no end before the next picture
        (jpeg(JFIF, b"\0"), "between its segments"),
        (jpeg(b"\xff\0"), "an unknown segment"),
        (jpeg(b"\xff\xd0"), "an unknown segment"),
        (jpeg(b"\xff\xfe\0\1"), "no length"),
        (jpeg(frame()), "two headers"),
        (jpeg(scan()), "no header"),
        (jpeg(segment(0xC0, b"\x08\0\1\0\1"), rest=REST), "a wrong length"),
        (jpeg(segment(0xC0, b"\x08\0\1\0\1\1"), rest=REST), "a wrong length"),
        *(
            (jpeg(frame(kind=kind)), "neither baseline nor progressive")
            for kind in (*range(0xC3, 0xD0), 0xDE, 0xDF)
            if kind not in (0xC4, 0xC8, 0xCC)
        ),
        (jpeg(frame(depth=12)), "with 8 bits"),
        *((jpeg(frame(components=count)), "nor in colour") for count in (0, 2, 5)),
        (jpeg(frame(height=0)), "does not tell its size"),
        (jpeg(frame(width=0)), "does not tell its size"),
        *((jpeg(frame(), scan(components=count), rest=EOI), "a wrong header") for count in (0, 4)),
        (jpeg(frame(), segment(0xDA), rest=EOI), "a wrong header"),
        (jpeg(frame(), segment(0xDA, b"\1\0\0\0\x3f"), rest=EOI), "a wrong header"),
        (jpeg(frame(), *[scan()] * 101, rest=EOI), "too many scans"),
        (jpeg(*[JFIF] * 5000), "too many segments"),
        (SIGNATURE + DATA + END, "does not begin with its header"),
        (png(head=chunk(b"IHDR", bytes(12))), "does not begin with its header"),
        *(
            (png(head=header(depth=depth, kind=kind)), "its header")
            for depth, kind in ((4, 2), (16, 3), (8, 1), (3, 0), (8, 7))
        ),
        (png(head=header(interlace=2)), "its header"),
        (png(head=chunk(b"IHDR", b"\0\0\0\1\0\0\0\1\x08\2\1\0\0")), "its header"),
        (png(head=header(width=0)), "no size"),
        (png(header()), "an unknown chunk"),
        (png(chunk(b"XXXX")), "an unknown chunk"),
        (png(chunk(b"IDAT", b"x", 5)), "a checksum is wrong"),
        (png(chunk(b"te t")), "between its chunks"),
        (png(b"\x80\0\0\0tEXt" + bytes(99)), "between its chunks"),
        (png(b"\x7f\xff\xff\xfftEXt" + bytes(99)), "ends too early"),
        (png(rest=END), "ends too early"),
        (png(DATA, chunk(b"tEXt")), "between parts of its data"),
        (png(**INDEXED), "no palette"),
        (png(chunk(b"PLTE", bytes(4)), **INDEXED), "its palette"),
        (png(chunk(b"PLTE", bytes(771)), **INDEXED), "its palette"),
        (png(chunk(b"PLTE"), **INDEXED), "its palette"),
        (png(*[chunk(b"tEXt")] * 20_000), "too many chunks"),
    ],
)
def test_a_damaged_picture_is_refused_with_a_sentence(data, why):
    assert why in refusal(data)


def test_a_picture_that_ends_anywhere_too_early_is_refused():
    whole = jpeg(JFIF, exif(), profile(), rest=TABLES + frame() + scan() + TABLES + scan() + EOI)
    for size in range(3, len(whole)):
        assert "ends too early" in refusal(whole[:size])
    whole = png(*COLOURS, chunk(b"eXIf", tiff()), DATA)
    for size in range(8, len(whole)):
        assert "ends too early" in refusal(whole[:size])


@pytest.mark.parametrize(
    ("width", "height", "is_accepted"),
    [
        (8000, 5000, True),
        (5000, 8000, True),
        (8001, 1, False),
        (1, 8001, False),
        (6399, 6251, False),
    ],
)
def test_a_picture_has_a_largest_size(width, height, is_accepted):
    for data in (
        jpeg(TABLES, frame(width, height), scan(), rest=EOI),
        png(head=header(width, height)),
    ):
        if is_accepted:
            assert cut(data)[1:3] == (width, height)
        else:
            assert "8,000 pixels a side, and 40 million in all" in refusal(data)


SIZE = 2**21


@pytest.mark.parametrize(
    "data",
    [
        jpeg(b"\xff" * SIZE),
        SOI + b"\xff" * SIZE,
        *(
            jpeg(frame(), scan(unit * (SIZE // len(unit))), rest=rest)
            for unit in (b"\xff", b"\xff\0", b"\xff\xff\0", b"\xff\xd0", b"x")
            for rest in (EOI, b"")
        ),
        jpeg(segment(0xFE) * (SIZE // 4)),
        jpeg((segment(0xC4) + segment(0xFE)) * (SIZE // 8)),
        jpeg(frame(), scan(b"") * (SIZE // 14)),
        jpeg(segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(65_000)) * (SIZE // 65_000)),
        png(chunk(b"IDAT", b"x") * (SIZE // 13)),
        png(chunk(b"tEXt") * (SIZE // 12)),
        png(chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + bytes(SIZE))),
        png(chunk(b"IDAT", bytes(SIZE))),
    ],
    ids=itertools.count(),
)
def test_hostile_bytes_take_little_time_and_no_more_than_one_copy(data):
    """A loop in Python per byte takes a second; a search that begins anew at each byte, hours."""
    began = time.thread_time()
    outcome(data)
    assert time.thread_time() - began < 0.5
    tracemalloc.start()
    outcome(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(data) + 2**19


def outcome(data):
    try:
        return cut(data)
    except BadImage:
        return None


def test_no_bytes_raise_anything_else():
    chance = random.Random(7)
    seeds = [
        REAL,
        jpeg(JFIF, exif(), ADOBE, ICC_IN_TWO),
        png(*COLOURS, chunk(b"eXIf", tiff()), chunk(b"tRNS", bytes(6)), DATA),
    ]
    accepted = 0
    for _ in range(5000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(2, len(data))
            count = chance.choice((1, 1, 1, 0, 9))
            data[at : at + count] = chance.choice((b"", b"\0", b"\xff", chance.randbytes(2)))
        image = outcome(bytes(data))
        accepted += image is not None
        assert image is None or cut(image.data) == image
    assert accepted > 100
