"""Pictures that a test uploads."""

import base64
import random
import struct
import zlib

# Makes a picture of a kind, with noise if it is to be a photo.
DRAW = """
    const [width, height, type, isPhoto, done] = arguments;
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    for (let at = 0; at < pixels.data.length; at += 4) {
        const noise = isPhoto ? (at * 2654435761) >>> 8 : 0;
        pixels.data.set([at % 256 ^ noise & 31, (at >> 9) % 256, noise & 255, 255], at);
        if (!isPhoto) pixels.data.set([at < pixels.data.length / 2 ? 200 : 20, 90, 90, 255], at);
    }
    context.putImageData(pixels, 0, 0);
    canvas.convertToBlob({ type, quality: 0.9 }).then(async (blob) => {
        const reader = new FileReader();
        reader.onload = () => done(reader.result.split(",")[1]);
        reader.readAsDataURL(blob);
    });
"""
# Pastes files and a text into the focused element, or drops them on the page.
GIVE = """
    const [how, files, text] = arguments;
    const data = new DataTransfer();
    for (const [name, type, base64] of files) {
        const bytes = Uint8Array.from(atob(base64), (sign) => sign.charCodeAt(0));
        data.items.add(new File([bytes], name, { type }));
    }
    if (text) data.setData("text/plain", text);
    const all = { bubbles: true, cancelable: true };
    if (how === "paste") {
        document.activeElement.dispatchEvent(new ClipboardEvent("paste", { ...all, clipboardData: data }));
    } else {
        const target = document.querySelector(how);
        target.dispatchEvent(new DragEvent("dragover", { ...all, dataTransfer: data }));
        target.dispatchEvent(new DragEvent("drop", { ...all, dataTransfer: data }));
    }
"""


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


def give(page, how, *files, text=""):
    """Paste, or drop on this element, files of a name, a media type and bytes."""
    encoded = [[name, kind, base64.b64encode(data).decode()] for name, kind, data in files]
    page.driver.execute_script(GIVE, how, encoded, text)


def exif(jpeg, orientation):
    """This JPEG with an EXIF segment that has its orientation and a place."""
    tags = b"\x01\x12\0\x03\0\0\0\x01" + orientation.to_bytes(2) + b"\0\0"
    tiff = b"MM\0\x2a\0\0\0\x08" + b"\0\x01" + tags + b"\0\0\0\0" + b"GPS 52.5 13.4"
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2) + segment + jpeg[2:]
