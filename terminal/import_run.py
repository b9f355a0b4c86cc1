"""A run of `flask import`: store the conversations of a file, and print what happened to each."""

import base64
import binascii
import sys
import time
from typing import Any

import click

import formats
from api.import_schema import explain, load_conversation
from formats.archives import Images
from formats.common import LeftOut, Unreadable
from formats.json_reader import BadFile, Fault, FileLine, Value, is_header
from images import BadImage
from llm import Catalog, UnknownModel
from logs import one_line
from models import Refused
from schemas import ValidationError
from tables.files import UnknownFile
from transfer import imports, uploads
from transfer.exports import READABLE

MOST_REFUSED = 100  # if so many conversations at the start are refused, it is a wrong file
LONGEST_TITLE = 60  # characters that are shown
PAUSE = 0.2  # seconds between two updates of the progress
KINDS = (
    "images and files",
    "tool calls and results",
    "messages of other branches",
)  # as LeftOut has them


class ImportRun:
    """Imports the conversations of this file for an owner, and counts what became of them. Their
    images are in lines of the file, in the conversations themselves, or in `images`."""

    def __init__(
        self, path: str, owner: str, catalog: Catalog, settings: dict[str, Any], images: Images
    ) -> None:
        self._path, self._owner, self._catalog = file_name(path), owner, catalog
        self._storage_limit, self._most = settings["STORAGE_LIMIT"], settings["MAX_FILE"]
        self._images = images
        # The ids of the files that are uploaded, by their ids in this file; None for an image that
        # was not taken.
        self._uploaded: dict[str, str | None] = {}
        self.imported = self.already_there = self.refused = 0
        self._left_out = LeftOut()
        # The sessions so far of an export of Parley; None before its first and after its last line.
        self._count: int | None = None
        self._drawn_at = 0.0

    def add(self, read: Value | Fault | FileLine) -> None:
        """Import this conversation, or print why not; or upload this file. Raises BadFile if this
        must be a wrong file, and exceptions of the database or a provider."""
        self._draw()
        if isinstance(read, FileLine):
            self._upload_line(read.value or {})
        elif is_header(read):
            self._begin(read.value)
        elif self._count is not None and is_end(read):
            self._end(read.value)
        else:
            self._count = None if self._count is None else self._count + 1
            self._import(read)

    def check_end(self) -> None:
        """Check that the file was complete. Raises BadFile."""
        if self._count is not None:
            raise BadFile(f"{self._path} is not whole: its last line is missing.")

    def print_result(self, problem: str) -> None:
        """Print the counts, and the problem with the file, if there is one."""
        self._erase()
        counts = f"{self.imported} imported, {self.already_there} there already"
        counts += f", {self.refused} not taken"
        if not problem or self.imported or self.already_there or self.refused:
            say(f"{counts}.")
        if any(self._left_out):
            rows = zip(KINDS, self._left_out, strict=True)
            say(f"Left out of these: {', '.join(f'{kind} {n}' for kind, n in rows)}.")
        if problem:
            click.echo(f"Error: {one_line(problem)}", err=True)

    def _begin(self, header: dict[str, Any]) -> None:
        if header.get("everything"):
            words = "It moves into a new database with that release; upgrade then."
            raise BadFile(f"{self._path} is of `export --all` of release 2.0.0. {words}")
        if header["parley"] not in READABLE:
            raise BadFile(f"{self._path} was made by another release. Import it with that one.")
        if self._count is not None:
            raise BadFile(f"{self._path} is not whole: another export begins in it.")
        self._count = 0

    def _end(self, end: dict[str, Any]) -> None:
        if end.get("sessions") != self._count:
            counts = f"its last line names {end.get('sessions')} sessions, and it has {self._count}"
            raise BadFile(f"{self._path} is not whole: {counts}.")
        self._count = None

    def _import(self, read: Value | Fault) -> None:
        if isinstance(read, Fault):
            return self._refuse(read, read.text)
        try:
            loaded = load_conversation(read.value, self._upload_images(read.value), self._owner)
            _, is_new = imports.import_session(
                self._owner, loaded.fields, self._catalog, self._storage_limit
            )
        except ValidationError as error:
            return self._refuse(read, explain(error))
        except UnknownFile:  # somebody forgets this user at this moment, for example
            return self._refuse(read, "One of its images was deleted meanwhile. Run this again.")
        except (Refused, UnknownModel) as error:
            return self._refuse(read, str(error))
        if not is_new:
            self.already_there += 1
            return None
        self.imported += 1
        self._left_out = self._left_out.plus(loaded.left_out)
        return None

    def _upload_line(self, line: dict[str, Any]) -> None:
        file_id, data = line.get("file"), line.get("data")
        if isinstance(file_id, str) and isinstance(data, str):
            self._uploaded[file_id] = self._upload(decoded(data))

    def _upload_images(self, conversation: Any) -> dict[str, str]:
        """Upload the images of this conversation that can be found. Returns the ids of the files,
        by the ids of the images."""
        try:
            wanted = formats.images_of(conversation)
        except Unreadable:  # which is told when the conversation is loaded
            return {}
        within = formats.images_within(conversation)
        found = {}
        for asset in wanted:
            if asset in within:
                file_id = self._upload(decoded(within[asset].partition("base64,")[2]))
            else:
                if asset not in self._uploaded:
                    self._uploaded[asset] = self._upload(self._images.read(asset, self._most))
                file_id = self._uploaded[asset]
            if file_id is not None:
                found[asset] = file_id
        return found

    def _upload(self, data: bytes | None) -> str | None:
        """The id of the file with these bytes; None if it is not taken."""
        if not data or len(data) > self._most:
            return None
        try:
            file, _ = uploads.upload(self._owner, data, self._storage_limit)
        except (BadImage, Refused):
            return None
        return file.id

    def _refuse(self, read: Value | Fault, reason: str) -> None:
        self.refused += 1
        self._erase()
        click.echo(one_line(f"Not taken: {name_of(read)}: {reason}"), err=True)
        is_right_file = self._count is not None or self.imported or self.already_there
        if self.refused == MOST_REFUSED and not is_right_file:
            kinds = "an export of ChatGPT, Claude, Open WebUI or Parley"
            none = f"all of its first {MOST_REFUSED} conversations were refused"
            raise BadFile(f"{self._path} was not read further: {none}. Name {kinds}.")

    def _draw(self) -> None:
        """On a terminal, show the progress."""
        now = time.monotonic()
        if now - self._drawn_at < PAUSE or not sys.stderr.isatty():
            return
        self._drawn_at = now
        done = self.imported + self.already_there + self.refused
        click.echo(f"\r{done} conversations\033[K", nl=False, err=True)

    def _erase(self) -> None:
        if self._drawn_at:
            click.echo("\r\033[K", nl=False, err=True)
            self._drawn_at = 0.0


def decoded(data: str) -> bytes:
    """The bytes of a text in base64 (RFC 4648, section 4); none if it is something else."""
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return b""


def name_of(read: Value | Fault) -> str:
    """The number and the title by which a person finds this conversation in the file."""
    title = formats.title_of(read.value)
    shown = f"{title[: LONGEST_TITLE - 1]}…" if len(title) > LONGEST_TITLE else title
    return f"conversation {read.number}" + (f", {shown}" if shown else "")


def file_name(path: str) -> str:
    """The path for a message: on one line, whatever bytes it has."""
    return one_line(click.format_filename(path))


def say(text: str) -> None:
    """Print this. Raises ClickException if standard output fails."""
    try:
        click.echo(text)
    except UnicodeEncodeError:  # the encoding of standard output lacks characters
        click.echo(text.encode("ascii", "backslashreplace"))
    except OSError as error:
        sys.stdout = None  # Python would flush it again at its exit, and print a traceback
        problem = f"Standard output fails: {error.strerror or error}. It would have had: "
        raise click.ClickException(problem + text) from None


def is_end(read: Value | Fault) -> bool:
    """Whether this is the last line of an export."""
    return isinstance(read, Value) and "end" in read.value
