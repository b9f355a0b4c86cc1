"""A source distribution that is the same each time that it is built."""

import gzip
import io
import tarfile


def make_equal(path, seconds):
    """Write this archive anew: its entries by name, of nobody in particular, all of this time. setuptools has the times of
    its own files in it, and the order in which the system lists them."""
    with tarfile.open(path) as archive:
        entries = sorted(archive.getmembers(), key=lambda entry: entry.name)
        contents = {
            entry.name: archive.extractfile(entry).read() for entry in entries if entry.isfile()
        }
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            equal = tarfile.TarInfo(entry.name)
            equal.type, equal.mtime = entry.type, seconds
            equal.mode = 0o755 if entry.isdir() else 0o644
            equal.size = len(contents.get(entry.name, b""))
            archive.addfile(equal, io.BytesIO(contents.get(entry.name, b"")))
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=seconds) as packed:
        packed.write(whole.getvalue())
