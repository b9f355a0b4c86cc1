"""Columns of turns and sessions: no statement forgets one, and before any text is read from the
database its bytes are counted, unless its length has a bound."""

import pathlib
import re

import pytest
from peewee import TextField

from models import Session, Turn
from product import ROOT
from tables.columns import described_for
from tables.ledger import TOKENS

QUERIES = pathlib.Path(ROOT, "tables", "queries.sql").read_text("utf-8")


def statement(name):
    [text] = re.findall(rf"^-- {name}\([^)]*\)\n(.+?);$", QUERIES, re.MULTILINE | re.DOTALL)
    return text


def names_of(columns):
    return {column.column_name for column in columns}


def texts_of(columns):
    return names_of(column for column in columns if isinstance(column, TextField))


def test_a_fork_copies_every_column_of_a_turn_but_those_of_its_writer():
    """A new column is copied, or added here if it says who writes the reply or how it came to be shown."""
    own = {"id", "session_id", "shown", "replaces", "fence", "lease_until", "writer", "restarts"}
    own |= {"stream_id", "stream_start", "versions"}
    copied = names_of(described_for(Turn, "copied"))
    assert names_of(Turn._meta.sorted_fields) - copied == own | {"uncounted", "error_reason"}


@pytest.mark.parametrize("name", ["add_usage", "read_latest_reply"])
def test_a_statement_that_counts_tokens_has_all_of_them(name):
    assert set(TOKENS) <= set(re.findall(r"\w+", statement(name)))


def test_tokens_are_stored_at_the_end_and_later():
    assert set(TOKENS) <= names_of(described_for(Turn, "at_end"))
    assert set(TOKENS) <= names_of(described_for(Turn, "told_late"))


def test_every_text_of_a_session_but_its_system_prompt_is_short():
    """A new column is added here with its bound, or counted as the system prompt is."""
    most = {
        "owner": 255,
        "title": 200,
        "folded_title": 400,
        "model": 200,
        "options": 1000,
        "images_start": 2000,
        "provider": 200,
        "origin": 255,
        "preview": 100,
        "writer": 200,
    }
    assert texts_of(Session._meta.sorted_fields) - {"system"} == most.keys()
    assert texts_of(Session.columns_but_system()) == most.keys()
