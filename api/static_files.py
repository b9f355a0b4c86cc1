"""The files of the page: read at the start, compressed when they are first asked for, and sent from
memory.

Nothing else is compressed. The API's answers contain secrets next to texts that others may choose:
compressed together, their length would reveal the secrets (BREACH, breachattack.com).
"""

import dataclasses
import functools
import gzip
import pathlib
import re
from collections.abc import Iterable

from flask import Response, request
from werkzeug import exceptions

# Media types by suffix. Other files of the folder are not sent.
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
COMPRESSED = ("image/png",)  # formats that gzip would not make smaller
LIBRARIES = "vendor"  # the folder whose modules are sent unchanged
COMMENT = re.compile(rb"(?:^|[ \t]+)//(?: [^\n]*)?$|^[ \t]*/\*\*.*?\*/$", re.MULTILINE | re.DOTALL)
PAGE_HEADERS = {"Cache-Control": "no-store"}
# A browser may keep a file, but asks each time whether it has changed: so it never mixes the
# modules of two releases.
FILE_HEADERS = {"Cache-Control": "no-cache"}


@dataclasses.dataclass(frozen=True)
class StaticFile:
    path: pathlib.Path
    version: tuple[int, int]  # time of change and size
    kind: str
    source: bytes

    @functools.cached_property
    def data(self) -> bytes:
        """What is sent. Comments, a fifth of the bytes of our modules, are left out. Each line
        keeps its number."""
        if self.path.suffix != ".js" or self.path.parent.name == LIBRARIES:
            return self.source
        return COMMENT.sub(lambda comment: b"\n" * comment[0].count(b"\n"), self.source)

    @functools.cached_property
    def zipped(self) -> bytes | None:
        """The same, compressed by gzip; None if that would not make it smaller."""
        return None if self.kind in COMPRESSED else gzip.compress(self.data, mtime=0)


class StaticFiles:
    """The files of a folder by their paths in it, such as `icons/icon.svg`. A request only looks a
    path up here, and can reach no other file."""

    def __init__(self, folder: str) -> None:
        self._folder = pathlib.Path(folder)
        self._files: dict[str, StaticFile] = {}
        self._read_folder()

    def _read_folder(self) -> None:
        """Read the files that are new or have changed."""
        files = {}
        for path in self._folder.rglob("*"):
            if path.suffix in KINDS and path.is_file():  # editors leave broken links as locks
                name = path.relative_to(self._folder).as_posix()
                files[name] = read_file(path, self._files.get(name))
        self._files = files

    def answer(self, name: str, origins: Iterable[str] = ()) -> Response:
        """The answer to a GET or HEAD of this file: compressed if the client accepts that, 304 if
        the client has it. A page may also connect to these `origins`. `Range` is ignored, as a
        server may (RFC 9110, section 14.2). Raises NotFound."""
        if "werkzeug.socket" in request.environ:  # `flask run`: somebody may be editing the page
            self._read_folder()
        file = self._files.get(name)
        if file is None:
            raise exceptions.NotFound
        # Whether the client accepts gzip at least as gladly as no encoding (RFC 9110, 12.5.3).
        takes_gzip = request.accept_encodings.best_match(["gzip", "identity"]) == "gzip"
        is_zipped = file.zipped is not None and takes_gzip
        response = Response(file.zipped if is_zipped else file.data, mimetype=file.kind)
        if file.kind == "text/html":
            response.headers.update(
                PAGE_HEADERS | {"Content-Security-Policy": page_policy(origins)}
            )
        else:
            response.headers.update(FILE_HEADERS)
        if file.zipped is not None:
            response.vary.add("Accept-Encoding")
        if is_zipped:
            response.content_encoding = "gzip"
        response.add_etag()  # a hash of the bytes that are sent: each encoding has its own
        return response.make_conditional(request)


def read_file(path: pathlib.Path, known: StaticFile | None) -> StaticFile:
    """The file at this path; the known one if its time and size are still the same."""
    status = path.stat()
    version = status.st_mtime_ns, status.st_size
    if known and known.version == version:
        return known
    return StaticFile(path, version, KINDS[path.suffix], path.read_bytes())


def page_policy(origins: Iterable[str]) -> str:
    """The `Content-Security-Policy` of the page: it runs and loads only its own files, and connects
    only to this server and these origins. Navigation is not restricted (`form-action` is only about
    forms)."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            " ".join(("connect-src 'self'", *origins)),
            "img-src 'self' data: blob:",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
