"""The operator's commands: what they print, and what they do not change."""

import json
import pathlib

import pytest

from client import ALICE
from commands import flask
from ledgers import APP, use
from raw_tables import tables_of


@pytest.mark.parametrize("words", [("usage",), ("forget", ALICE)], ids=lambda words: words[0])
def test_the_operators_commands_create_and_migrate_no_database(settings, tmp_path, words):
    url = settings["DATABASE_URL"]
    ended = flask(tmp_path, "--app", APP, *words, DATABASE_URL=url)
    told = "DATABASE_URL: the service has not been started on this database yet; start it first\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", told)
    if url.startswith("sqlite"):
        assert not pathlib.Path(url.removeprefix("sqlite:///")).exists()
    else:
        with tables_of(url) as tables:
            assert tables.columns() == set()


# The operator's table


@pytest.mark.usefixtures("within_a_day")
def test_prints_a_line_for_each_user(settings, start, tables, tmp_path):
    def usage(*options):
        ended = flask(
            tmp_path, "--app", APP, "usage", *options, DATABASE_URL=settings["DATABASE_URL"]
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout

    start(**settings)
    assert usage().split() == ["replies", "input", "output", "cached", "estimated", "user"]
    use(tables, ALICE, 0, "m-1", 10, (1000, 200, 30, 4))
    use(tables, ALICE, 29, "m-2", 1, (1, 1, 1, 1))
    use(tables, ALICE, 30, "m-2", 1, (10**9, 1, 1, 1))
    use(
        tables,
        "https://id.example/" + "a-very-long-name-" * 5,
        0,
        "m-1",
        5 * 10**8,
        (10**12, 10**13, 0, 10**7),
    )
    use(tables, "odd\x1b[2J漢字", 0)
    use(tables, "", 0, "m-1", 2)
    lines = usage().splitlines()
    assert max(map(len, lines)) <= 80, lines
    assert [line.split() for line in lines] == [
        ["replies", "input", "output", "cached", "estimated", "user"],
        ["500M", "1000000M", "10000000M", "0", "10000000", "…long-name-a-very-long-name-"],
        ["11", "1001", "201", "31", "5", ALICE],
        ["2", "0", "0", "0", "0", "(forgotten)"],
        ["1", "0", "0", "0", "0", "odd?[2J??"],
    ]
    users = json.loads(usage("--json", "--days", "31"))
    assert users[1] == {
        "user": ALICE,
        "replies": 12,
        "input_tokens": 1000001001,
        "output_tokens": 202,
        "cached_tokens": 32,
        "estimated_tokens": 6,
    }
    assert (
        users[0]["user"].endswith("name-a-very-long-name-") and users[0]["input_tokens"] == 10**12
    )
