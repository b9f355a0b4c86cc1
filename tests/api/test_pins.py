"""Pinned sessions come first in lists. Module: `models.py`."""

import uuid

import pytest

from client import at_once
from exports import export_of, imported, turns_of


def pin(client, session, pinned=True):
    return client.patch(f"/sessions/{session['id']}", {"pinned": pinned})


def listed(client, **params):
    return [row["title"] for row in client.get("/sessions", params=params).json()["data"]]


@pytest.fixture
def other(server):
    """Another user who has no sessions."""
    return server.client(f"https://github.com/{uuid.uuid4().hex}")


@pytest.fixture
def four(someone):
    """Sessions "A" to "D", the oldest first."""
    return [someone.create(title) for title in "ABCD"]


def test_a_pinned_session_comes_first_however_old_it_is(someone, four):
    before = someone.get(f"/sessions/{four[0]['id']}").json()
    assert before["pinned"] is False
    changed = pin(someone, four[0])
    assert (changed.status_code, changed.json()["pinned"]) == (200, True)
    assert changed.json()["updated_at"] == before["updated_at"]
    assert someone.get(f"/sessions/{four[0]['id']}").json()["pinned"] is True
    assert listed(someone) == ["A", "D", "C", "B"]
    pin(someone, four[1])
    assert listed(someone) == ["B", "A", "D", "C"]  # among themselves, the last used first
    rows = someone.get("/sessions").json()["data"]
    assert [row["pinned"] for row in rows] == [True, True, False, False]
    pin(someone, four[0], False)
    assert listed(someone) == ["B", "D", "C", "A"]


def test_pages_and_searches_have_the_same_order(someone, four):
    pin(someone, four[1])
    pages = [listed(someone, **{"page[limit]": 1, "page[offset]": place}) for place in range(5)]
    assert pages == [["B"], ["D"], ["C"], ["A"], []]
    assert listed(someone, query="the answer") == ["B", "D", "C", "A"]


def test_at_most_twenty_sessions_are_pinned(someone, other):
    sessions = [someone.create() for _ in range(21)]
    assert [pin(someone, session).status_code for session in sessions[:20]] == [200] * 20
    refused = pin(someone, sessions[20])
    assert refused.status_code == 409 and "20" in refused.json()["errors"][0]["detail"]
    assert "Retry-After" not in refused.headers
    assert pin(someone, sessions[0]).status_code == 200  # it is pinned already
    assert pin(other, other.create()).status_code == 200
    pin(someone, sessions[0], False)
    assert pin(someone, sessions[20]).status_code == 200


def test_pins_at_the_same_time_are_counted(someone):
    sessions = [someone.create() for _ in range(24)]
    answers = at_once(24, lambda number: pin(someone, sessions[number]).status_code)
    assert sorted(answers) == [200] * 20 + [409] * 4


@pytest.mark.parametrize("pinned", [None, 1, "true"])
def test_another_value_is_refused(someone, pinned):
    refused = pin(someone, someone.create(), pinned)
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["source"] == {"pointer": "/pinned"}


def test_a_fork_is_not_pinned(someone, four):
    pin(someone, four[0])
    copy = someone.post(f"/sessions/{four[0]['id']}/fork").json()
    assert someone.get(f"/sessions/{copy['id']}").json()["pinned"] is False


def test_an_export_says_what_is_pinned_and_an_import_takes_it(someone, other, four):
    pin(someone, four[0])
    lines = export_of(someone)
    assert [line["pinned"] for line in lines] == [True, False, False, False]
    copies = [imported(other, **line) for line in lines]
    shown = [other.get(f"/sessions/{copy['id']}").json()["pinned"] for copy in copies]
    assert shown == [True, False, False, False]


def test_an_import_pins_no_more_than_twenty(someone):
    for _ in range(21):
        last = imported(someone, turns=turns_of("Hello", "Hi."), pinned=True)
    rows = someone.get("/sessions", params={"page[limit]": 100}).json()["data"]
    assert sum(row["pinned"] for row in rows) == 20
    assert someone.get(f"/sessions/{last['id']}").json()["pinned"] is False
