"""No text is read from the database before its bytes are counted, unless it has a bound of its own."""

import pathlib
import re

from peewee import TextField

from models import Session, Turn
from product import ROOT
from tables.shown import ShownTurn

QUERIES = pathlib.Path(ROOT, "tables", "queries.sql").read_text("utf-8")


def texts_of(columns):
    return {column.column_name for column in columns if isinstance(column, TextField)}


def test_every_text_of_a_turn_that_is_shown_is_counted_or_a_word_of_our_own():
    [statement] = re.findall(r"^-- read_turns\(\)\n(.+?);$", QUERIES, re.MULTILINE | re.DOTALL)
    counted = set(re.findall(r"\{size_of_(\w+)\}", statement)) - {"text"}
    shown = texts_of(Turn._meta.sorted_fields) & set(ShownTurn._fields)
    assert shown - counted == {"kind", "status", "stop_reason", "error_pointer"}


def test_every_text_of_a_session_is_short_but_for_its_system_prompt():
    """A new one is added here with its bound, or counted as the system prompt is."""
    most = {
        "owner": 255,
        "title": 200,
        "folded_title": 400,
        "model": 200,
        "options": 1000,
        "provider": 200,
        "origin": 255,
        "preview": 100,
        "writer": 200,
    }
    assert texts_of(Session._meta.sorted_fields) - {"system"} == most.keys()
    assert texts_of(Session.columns_but_system()) == most.keys()
