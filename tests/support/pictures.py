"""Pictures that a test uploads."""

import random
import struct
import zlib


def png(width=640, height=480, size=0, color=0):
    """A PNG of one colour. With `size`, its lines have noise, so that it has about so many bytes."""
    noise = random.Random(f"{size} {color}").randbytes(size)
    lines = b"".join(
        b"\0"
        + noise[line * size // height : (line + 1) * size // height][: 3 * width].ljust(
            3 * width, bytes([color])
        )
        for line in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(lines, 1)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(chunk, *zip(*chunks, strict=True)))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
