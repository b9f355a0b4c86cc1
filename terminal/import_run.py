"""A run of `flask import`: store the conversations of a file, and print what happened to each."""

import sys
import time
from typing import Any

import click

import formats
from api.import_schema import explain, load_conversation
from formats.common import LeftOut
from formats.json_reader import BadFile, Fault, Value, is_header
from llm import Catalog, UnknownModel
from logs import one_line
from models import Refused
from schemas import ValidationError
from transfer import imports
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
    """Imports the conversations of this file for an owner, and counts what became of them."""

    def __init__(self, path: str, owner: str, catalog: Catalog, storage_limit: int) -> None:
        self._path, self._owner, self._catalog = file_name(path), owner, catalog
        self._storage_limit = storage_limit
        self.imported = self.already_there = self.refused = 0
        self._left_out = LeftOut()
        # The sessions so far of an export of Parley; None before its first and after its last line.
        self._count: int | None = None
        self._drawn_at = 0.0

    def add(self, read: Value | Fault) -> None:
        """Import this conversation, or print why not. Raises BadFile if this must be a wrong file,
        and exceptions of the database or a provider."""
        self._draw()
        if is_header(read):
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
            fields, left_out = load_conversation(read.value)
            _, is_new = imports.import_session(
                self._owner, fields, self._catalog, self._storage_limit
            )
        except ValidationError as error:
            return self._refuse(read, explain(error))
        except (Refused, UnknownModel) as error:
            return self._refuse(read, str(error))
        if not is_new:
            self.already_there += 1
            return None
        self.imported += 1
        self._left_out = self._left_out.plus(left_out)

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
