"""Removes each condition of the product's SQL, and each check of a fence, a lease, an owner or of what
is visible in its Python, from a copy, one at a time; near tests must fail.

    .venv/bin/python tools/plant conditions [WORD …]

With words, only the conditions whose names have one of them. `conditions.toml` says which tests are
near, and why a condition may stay that no test needs. The status is 1 if another one survives.
"""

import argparse
import ast
import pathlib
import re
import time
import tomllib
from typing import NamedTuple

from finders import NOTHING_FAILED, first_failure
from planting import new_copy
from product import ROOT

TABLE = pathlib.Path(__file__).with_name("conditions.toml")
STATEMENTS = "tables/queries.sql"
LONGEST = 600  # seconds for the near tests of one condition
ROOMS = ("replies", "models.py", "turns.py", "tables", "maintenance", "transfer", "app.py")
GUARDS = re.compile(
    r"fence|lease|owner|visible|writer|cancelled|RELEASED|is_dead|is_lost|is_in_progress\(|counts_as_alive"
)
TOKEN = re.compile(r"^-- (\w+)\([^;]*?\)\n|--.*|'[^']*'|\{row_lock\}|\w+|[(),;]", re.MULTILINE)
BEGIN = ("WHERE", "ON", "WHEN")
END = {
    "THEN",
    "ELSE",
    "FROM",
    "JOIN",
    "GROUP",
    "ORDER",
    "LIMIT",
    "OFFSET",
    "RETURNING",
    "{row_lock}",
}


class Condition(NamedTuple):
    """A condition, and what a careless person would write in its place."""

    name: str  # the place, and its text
    file: str
    near: list[str]
    start: int
    end: int
    new: str

    def planted_in(self, text):
        return text[: self.start] + self.new + text[self.end :]


class Operand(NamedTuple):
    """A part of a text that is true or false."""

    place: str
    start: int
    end: int
    neutral: str  # what takes its place; {} is its text
    told: str = ""  # what is printed of it besides its text


# SQL


class Frame:
    """What is open: parentheses, or a CASE."""

    def __init__(self, start=None, is_condition=False):
        self.start, self.is_condition, self.joined = start, is_condition, ""

    def begin(self, start, joined=""):
        self.start, self.is_condition, self.joined = start, True, joined


def of_statements(text):
    """The conditions of all statements. One that is joined by OR becomes false, any other true. It
    stays in the text, so that the engine still sees its types and parameters."""
    frames, name, is_between = [Frame()], "", False
    for token in TOKEN.finditer(text):
        word, frame = token[0], frames[-1]
        is_joint = word in ("AND", "OR") and not is_between
        is_over = word in (*BEGIN, *END, ")", "END", ",", ";", "SELECT")
        if (is_joint or is_over) and frame.start is not None:
            joined = frame.joined or (word if is_joint else "")
            if frame.is_condition or joined:
                neutral = "({} AND FALSE)" if "OR" in (joined, word) else "({} OR TRUE)"
                yield Operand(name, frame.start, token.start(), neutral)
            frame.start = None
        if token[1]:
            name, frames = token[1], [Frame()]
        elif word in BEGIN or is_joint:
            frame.begin(token.end(), word if is_joint else "")
        elif word == "CONFLICT":  # the ON before it began no condition
            frame.start = None
        elif word in ("(", "CASE"):
            frames.append(Frame(token.end() if word == "(" else None))
        elif word in (")", "END"):
            frames.pop()
        is_between = word == "BETWEEN" or (is_between and word != "AND")


# Python


def of_module(text):
    """The conditions of a module that are guards."""
    lines = [0]
    for line in text.encode().splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    places = ["" for _ in lines]
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for number in range(node.lineno, node.end_lineno + 1):
                places[number - 1] = f"{places[number - 1]}.{node.name}".lstrip(".")

    def position(line, column):
        return len(text.encode()[: lines[line - 1] + column].decode())

    seen = set()
    for node in ast.walk(tree):
        for part, neutral, told in parts_of(node):
            start = position(part.lineno, part.col_offset)
            end = position(part.end_lineno, part.end_col_offset)
            is_guard = GUARDS.search(text[start:end]) and not list(parts_of(part))
            if is_guard and (start, neutral) not in seen:
                seen.add((start, neutral))
                yield Operand(places[part.lineno - 1], start, end, neutral, told)


ALWAYS, NEVER = "(({}) or True)", "(({}) and False)"
TRUE, FALSE = "(({}) | True)", "(({}) & False)"  # for SQL that peewee makes


def parts_of(node):
    """The conditions of this node, each with what removes it."""
    match node:
        case ast.BoolOp(
            op=ast.Or(), values=[_, ast.Constant()]
        ):  # a default value, not a condition
            pass
        case ast.BoolOp(op=op, values=values):
            yield from ((each, ALWAYS if isinstance(op, ast.And) else NEVER, "") for each in values)
        case ast.BinOp(left=ast.Dict()):
            pass
        case ast.BinOp(op=ast.BitAnd() | ast.BitOr() as op, left=left, right=right):
            neutral = TRUE if isinstance(op, ast.BitAnd) else FALSE
            yield from ((each, neutral, "") for each in (left, right))
        case ast.Call(func=ast.Attribute(attr="where" | "get_or_none"), args=args):
            yield from ((each, TRUE, "") for each in args if not isinstance(each, ast.Starred))
        case ast.Assign(
            targets=[ast.Name()], value=ast.Tuple(elts=[ast.Compare(), *_] as elements)
        ):
            yield from ((each, TRUE, "") for each in elements)
        case ast.If(test=ast.Compare() as test) | ast.IfExp(test=ast.Compare() as test):
            if not isinstance(test.left, ast.NamedExpr):
                yield from ((test, ALWAYS, ", always"), (test, NEVER, ", never"))
        case ast.comprehension(ifs=ifs):
            yield from ((each, ALWAYS, "") for each in ifs)


# All of them


def read_conditions(near):
    """All conditions by their names."""
    files = [path for room in ROOMS for path in (ROOT / room, *sorted((ROOT / room).glob("*.py")))]
    found = {}
    for path in [ROOT / STATEMENTS, *(path for path in files if path.is_file())]:
        file, text = str(path.relative_to(ROOT)), path.read_text("utf-8")
        is_sql = file == STATEMENTS
        for operand in of_statements(text) if is_sql else of_module(text):
            place, start, end, neutral, told = operand
            own = text[start:end]
            start += len(own) - len(own.lstrip())
            own = own.strip()
            place = place if is_sql else f"{file} {place}"
            name = unique(f"{place}: {' '.join(own.split())}{told}", found)
            tests = near.get(place.split(".")[0] if is_sql else file, near["all"])
            condition = Condition(name, file, tests, start, start + len(own), neutral.format(own))
            found[name] = condition
    return found


def unique(name, names):
    number = sum(each == name or each.startswith(f"{name} (") for each in names) + 1
    return name if number == 1 else f"{name} ({number})"


class NearTests:
    """The near tests, in one copy."""

    def __init__(self, copy):
        self._copy, self._url = copy, copy.environment.get("TEST_DATABASE_URL")
        self._passing = set()  # tests that are known to pass without a fault

    def look(self, condition):
        """The first test that fails without the condition: on SQLite, or else on PostgreSQL. None
        if no test fails."""
        self._copy.environment.pop("TEST_DATABASE_URL", None)
        found = self._first(condition)
        if found is None and self._url:
            self._copy.environment["TEST_DATABASE_URL"] = self._url
            found = self._first(condition, "-k", "postgresql")
        return found

    def _first(self, condition, *options):
        deadline, arguments = time.monotonic() + LONGEST, [*condition.near, *options]
        run = first_failure(self._copy, condition, deadline, 0, arguments, self._passing)
        if run.first is None and run.status in NOTHING_FAILED:
            return None
        return run.first[1] if run.first else f"no test, but pytest fails: {run.lines[-1:]}"


def main(arguments):
    parser = argparse.ArgumentParser(
        prog="python tools/plant conditions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", metavar="WORD", nargs="*", help="by default all are asked")
    words = parser.parse_args(arguments).words
    table = tomllib.loads(TABLE.read_text("utf-8"))
    conditions, reasons = read_conditions(table["near"]), table["reasons"]
    unknown = [name for name in reasons if name not in conditions]
    for name in unknown:
        print(f"there is no condition {name}")
    survivors = []
    with new_copy() as copy:
        near_tests = NearTests(copy)
        for name, condition in conditions.items():
            if words and not any(word in name for word in words):
                continue
            if name in reasons:
                print(f"{name}: stays. {reasons[name]}", flush=True)
                continue
            began = time.monotonic()
            found = near_tests.look(condition)
            if found is None:
                survivors.append(name)
            seconds = time.monotonic() - began
            print(f"{name}: {found or 'SURVIVED'}, {seconds:.0f} s", flush=True)
    print(f"{len(survivors)} of {len(conditions)} conditions survived")
    return 1 if unknown or survivors else 0
