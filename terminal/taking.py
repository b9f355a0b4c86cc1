"""What becomes of the conversations of a file, one after the other, as `flask import` tells it."""

import sys
import time
from typing import Any

import click

from api.import_schema import explain, import_schema
from llm import Catalog, UnknownModel
from logs import one_line
from models import Refused
from schemas import ValidationError
from settings import command
from upkeep import foreign, imports
from upkeep.everything import READABLE
from upkeep.messages import LeftOut, Unreadable
from upkeep.values import BadFile, Fault, Value, is_header

MOST_UNKNOWN = 1000  # values of another shape, before any that is known
LONGEST_TITLE = 60  # characters that are shown
PAUSE = 0.2  # seconds between two signs of life
KINDS = ("images and files", "tools and thinking", "messages of other branches")  # as LeftOut has


class Taking:
    """The conversations of this file that its new owner is given, and what became of them."""

    def __init__(self, path: str, owner: str, catalog: Catalog, storage_limit: int) -> None:
        self._path, self._owner, self._catalog = file_name(path), owner, catalog
        self._storage_limit = storage_limit
        self.imported = self.there = self.refused = 0
        self._left_out = LeftOut()
        # The names of what is of no known shape, as long as nothing else has come: some exports
        # begin so.
        self._unknown: list[str] = []
        self._is_known = False
        # Of an export of Parley's, as long as its last line has not come: how many sessions have.
        self._count: int | None = None
        self._drawn_at = 0.0

    def take(self, read: Value | Fault) -> None:
        """Import this conversation, or say why not. Raises BadFile where it shows that the file is
        another one, and what the database or a provider fails by."""
        self._draw()
        if is_header(read):
            self._begin(read.value)
        elif self._count is not None and is_end(read):
            self._end(read.value)
        else:
            self._count = None if self._count is None else self._count + 1
            self._take_conversation(read)

    def end(self) -> None:
        """Raises BadFile where the file is not whole, or has no conversation of a known shape."""
        if self._unknown:
            kinds = "an export of Parley's, or conversations of ChatGPT's or Claude's"
            raise BadFile(f"{self._path} is of another shape than {kinds}.")
        if self._count is not None:
            raise BadFile(f"{self._path} is not whole: its last line is missing.")

    def tell(self, problem: str) -> None:
        """Print what became of all, and what was wrong with the file, if anything."""
        self._erase()
        counts = f"{self.imported} imported, {self.there} there already, {self.refused} not taken"
        if not problem or self.imported or self.there or self.refused:
            say(f"{counts}.")
        if any(self._left_out):
            rows = zip(KINDS, self._left_out, strict=True)
            say(f"Left out of these: {', '.join(f'{kind} {n}' for kind, n in rows)}.")
        if problem:
            click.echo(f"Error: {one_line(problem)}", err=True)

    def _begin(self, header: dict[str, Any]) -> None:
        if header.get("everything"):
            words = f"`{command()} import --all {self._path}`"
            raise BadFile(f"{self._path} has everything of all users. {words} reads that.")
        if header["parley"] not in READABLE:
            raise BadFile(f"{self._path} was made by another release. Import it with that one.")
        if self._count is not None:
            raise BadFile(f"{self._path} is not whole: another export begins in it.")
        self._is_known, self._count = True, 0

    def _end(self, end: dict[str, Any]) -> None:
        if end.get("sessions") != self._count:
            said = f"its last line names {end.get('sessions')} sessions, and it has {self._count}"
            raise BadFile(f"{self._path} is not whole: {said}.")
        self._count = None

    def _take_conversation(self, read: Value | Fault) -> None:
        if isinstance(read, Fault):
            self._refuse(name_of(read), read.text)
        elif foreign.is_known(read.value):
            self._is_known = True
            self._refuse_unknown()
            self._import(read)
        else:
            self._unknown.append(name_of(read))
            if self._is_known:
                self._refuse_unknown()
            elif len(self._unknown) == MOST_UNKNOWN:
                self.end()

    def _import(self, read: Value) -> None:
        try:
            body, left_out = foreign.convert(read.value)
            given = import_schema.load(body)
            _, is_new = imports.take(self._owner, given, self._catalog, self._storage_limit)
        except ValidationError as error:
            return self._refuse(name_of(read), explain(error))
        except (Unreadable, Refused, UnknownModel) as error:
            return self._refuse(name_of(read), str(error))
        if not is_new:
            self.there += 1
            return None
        self.imported += 1
        self._left_out = self._left_out.plus(left_out)

    def _refuse_unknown(self) -> None:
        for name in self._unknown:
            self._refuse(name, "It is of no shape that is known here.")
        self._unknown.clear()

    def _refuse(self, name: str, reason: str) -> None:
        self.refused += 1
        self._erase()
        click.echo(one_line(f"Not taken: {name}: {reason}"), err=True)

    def _draw(self) -> None:
        """Show a person how far it is."""
        now = time.monotonic()
        if now - self._drawn_at < PAUSE or not sys.stderr.isatty():
            return
        self._drawn_at = now
        done = self.imported + self.there + self.refused
        click.echo(f"\r{done} conversations\033[K", nl=False, err=True)

    def _erase(self) -> None:
        if self._drawn_at:
            click.echo("\r\033[K", nl=False, err=True)
            self._drawn_at = 0.0


def name_of(read: Value | Fault) -> str:
    """By which a person finds this conversation in the file."""
    title = foreign.title_of(read.value) if isinstance(read, Value) else ""
    shown = f"{title[: LONGEST_TITLE - 1]}…" if len(title) > LONGEST_TITLE else title
    return f"conversation {read.number}" + (f", {shown}" if shown else "")


def file_name(path: str) -> str:
    """The path as it is shown, on one line, whatever bytes it has."""
    return one_line(click.format_filename(path))


def say(text: str) -> None:
    """Print this. Raises ClickException where standard output does not take it."""
    try:
        click.echo(text)
    except UnicodeEncodeError:  # of a standard output that has few characters
        click.echo(text.encode("ascii", "backslashreplace"))
    except OSError as error:
        sys.stdout = None  # else Python would try again at its end, and print a trace
        problem = f"Standard output takes nothing: {error.strerror or error}. It was to have: "
        raise click.ClickException(problem + text) from None


def is_end(read: Value | Fault) -> bool:
    """Whether this is the last line of an export."""
    return isinstance(read, Value) and isinstance(read.value, dict) and "end" in read.value
