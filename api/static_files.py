"""The files of the page: read and compressed once, at the start, and sent from memory.

Nothing else is compressed. What the API answers has secrets beside texts that others may choose:
the length of both, compressed together, would tell of the secrets (BREACH, breachattack.com).
"""

import dataclasses
import gzip
import pathlib
import re
from collections.abc import Iterable

from flask import Response, request
from werkzeug import exceptions

# What a file is called, and what it is then. Nothing else of the folder is sent.
KINDS = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".md": "text/markdown",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
COMPRESSED = ("image/png",)  # by their own format
LIBRARIES = "vendor"  # the folder of what is sent as it is
COMMENT = re.compile(rb"(?:^|[ \t]+)//(?: [^\n]*)?$|^[ \t]*/\*\*.*?\*/$", re.MULTILINE | re.DOTALL)
PAGE = {"Cache-Control": "no-store"}  # and what a browser lets it do
# A browser keeps a file, and asks each time whether it still is the one: so it has the modules of
# one release, not some of the last.
FILE = {"Cache-Control": "no-cache"}


@dataclasses.dataclass(frozen=True)
class StaticFile:
    """A file as it was read, and by gzip, where that is of use; `version` is its time and size."""

    version: tuple[int, int]
    kind: str
    data: bytes
    zipped: bytes | None


class StaticFiles:
    """The files of a folder by their paths in it, such as `icons/icon.svg`. A request can name one
    of these, and no other."""

    def __init__(self, folder: str) -> None:
        self._folder = pathlib.Path(folder)
        self._files: dict[str, StaticFile] = {}
        self._read()

    def _read(self) -> None:
        """Read what is new there, or has changed."""
        files = {}
        for path in self._folder.rglob("*"):
            if path.suffix in KINDS and path.is_file():  # an editor may have a link to nowhere
                name = path.relative_to(self._folder).as_posix()
                files[name] = read_file(path, self._files.get(name))
        self._files = files

    def answer(self, name: str, origins: Iterable[str] = ()) -> Response:
        """The answer to a GET or HEAD of this file: compressed, where the client takes that, and
        304 where it has it. A page may speak to these origins, too. Parts are not sent: a server
        may ignore `Range` (RFC 9110, section 14.2). Raises NotFound."""
        if "werkzeug.socket" in request.environ:  # of `flask run`: the page may be worked on
            self._read()
        file = self._files.get(name)
        if file is None:
            raise exceptions.NotFound
        is_zipped = file.zipped is not None and takes_gzip()
        response = Response(file.zipped if is_zipped else file.data, mimetype=file.kind)
        response.headers.update(headers_of(file, origins))
        if file.zipped is not None:
            response.vary.add("Accept-Encoding")
        if is_zipped:
            response.content_encoding = "gzip"
        response.add_etag()  # by the bytes that are sent: each encoding has its own
        return response.make_conditional(request)


def read_file(path: pathlib.Path, known: StaticFile | None) -> StaticFile:
    """The file at this path, which is the known one where time and size are the same."""
    status = path.stat()
    version = status.st_mtime_ns, status.st_size
    if known and known.version == version:
        return known
    kind, data = KINDS[path.suffix], path.read_bytes()
    if path.suffix == ".js" and path.parent.name != LIBRARIES:
        data = without_comments(data)
    zipped = None if kind in COMPRESSED else gzip.compress(data, mtime=0)
    return StaticFile(version, kind, data, zipped)


def without_comments(module: bytes) -> bytes:
    """A module of the page without its comments, which are a quarter of what would be sent. Each
    line keeps its number."""
    return COMMENT.sub(lambda comment: b"\n" * comment[0].count(b"\n"), module)


def headers_of(file: StaticFile, origins: Iterable[str]) -> dict[str, str]:
    if file.kind != "text/html":
        return FILE
    return PAGE | {"Content-Security-Policy": page_policy(origins)}


def page_policy(origins: Iterable[str]) -> str:
    """What a browser lets a page do: run and load its own files only, and speak to this server and
    these origins only. Whither it goes is not limited: `form-action` is for forms alone."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            " ".join(("connect-src 'self'", *origins)),
            "img-src 'self' data:",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def takes_gzip() -> bool:
    """Whether the client takes gzip, and likes it no less than the file as it is (RFC 9110,
    section 12.5.3)."""
    return request.accept_encodings.best_match(["gzip", "identity"]) == "gzip"
