"""A turn's thinking goes where the turn goes: into forks, exports and imports, and away with it."""

import json
import re

import pytest

from client import ALICE, wait_until
from commands import flask
from ledgers import APP
from provider import reply, thought
from raw_tables import tables_of

THOUGHTS = "Hm, 世界 🦉.\n\nSo."


def thinking_of(client, session, number=1):
    turn = client.turns(session)[number]
    path = f"/sessions/{session['id']}/turns/{turn['id']}/thinking"
    answer = client.get(path).json()
    return turn["thinking"], answer.get("text")


@pytest.fixture
def thoughtful(someone, provider):
    """A session of two replies. The model thought before the first."""
    provider.script = [reply(thought(reasoning=THOUGHTS), "The answer."), reply("More.")]
    session = someone.create()
    someone.post(f"/sessions/{session['id']}/messages", {"content": "And?"})
    return session


def test_a_fork_has_the_thinking(someone, thoughtful):
    figures, _ = thinking_of(someone, thoughtful)
    forked = someone.post(f"/sessions/{thoughtful['id']}/fork").json()
    assert thinking_of(someone, forked) == (figures, THOUGHTS)
    assert thinking_of(someone, forked, 3) == (None, None)
    someone.delete(f"/sessions/{thoughtful['id']}")
    assert thinking_of(someone, forked) == (figures, THOUGHTS)


def test_an_exported_line_has_it_and_can_be_imported_unchanged(someone, bob, thoughtful):
    figures, _ = thinking_of(someone, thoughtful)
    [line] = someone.get("/export").text.splitlines()
    turns = json.loads(line)["turns"]
    assert turns[1]["thinking"] == {"text": THOUGHTS, "seconds": figures["seconds"]}
    assert "thinking" not in turns[3]
    imported = bob.post("/sessions/import", json.loads(line)).json()
    assert thinking_of(bob, imported) == (figures, THOUGHTS)
    assert thinking_of(bob, imported, 3) == (None, None)


LOADED = {  # what is imported, and what is shown then
    "text alone": ({"text": "Hm."}, ({"characters": 3, "seconds": 0}, "Hm.")),
    "text and seconds": (
        {"text": "Hm.", "seconds": 1.26},
        ({"characters": 3, "seconds": 1.3}, "Hm."),
    ),
    "no seconds": ({"text": "Hm.", "seconds": None}, ({"characters": 3, "seconds": 0}, "Hm.")),
    "no thinking": (None, (None, None)),
    "empty": ({"text": ""}, (None, None)),
}


def session_with(thinking):
    said = {"kind": "assistant", "content": "The answer.", "thinking": thinking}
    return {"turns": [{"kind": "user", "content": "Hello"}, said]}


@pytest.mark.parametrize("given, shown", LOADED.values(), ids=LOADED)
def test_an_import_may_have_only_a_part_of_it(alice, given, shown):
    imported = alice.post("/sessions/import", session_with(given)).json()
    assert thinking_of(alice, imported) == shown


BAD = {
    "a text": ("Hm.", ""),
    "a long text": ({"text": "x" * 262_145}, "/text"),
    "NUL": ({"text": "a\0"}, "/text"),
    "a number for a text": ({"text": 1}, "/text"),
    "no text": ({"seconds": 1}, "/text"),
    "seconds in words": ({"text": "", "seconds": "3"}, "/seconds"),
    "fewer than no seconds": ({"text": "", "seconds": -0.1}, "/seconds"),
    "an age": ({"text": "", "seconds": 1e300}, "/seconds"),
    "an unknown field": ({"text": "", "content": "Hm."}, "/content"),
}


@pytest.mark.parametrize("given, place", BAD.values(), ids=BAD)
def test_an_import_of_invalid_thinking_is_refused(alice, given, place):
    refused = alice.post("/sessions/import", session_with(given))
    assert refused.status_code == 400, refused.text
    [error] = refused.json()["errors"]
    assert error["source"]["pointer"] == f"/turns/1/thinking{place}"


def test_thinking_makes_no_exported_line_longer_than_an_import_may_be(start, settings, provider):
    """What would make it longer is left out, oldest first."""
    alice = start(**settings, MAX_CONTENT_LENGTH=1024).client()
    session = None
    for letter in "abc":
        provider.script = [reply(thought(reasoning=letter * 5000), "The answer.")]
        if session:
            alice.post(f"/sessions/{session['id']}/messages", {"content": "More"})
        else:
            session = alice.create()
    [line] = alice.get("/export").text.splitlines()
    assert len(line.encode()) <= 16 * 1024
    thinking = [turn.get("thinking") for turn in json.loads(line)["turns"][1::2]]
    assert thinking[0] is None
    assert [each["text"][0] for each in thinking[1:]] == ["b", "c"]
    assert alice.post("/sessions/import", json.loads(line)).status_code == 201


def test_the_commands_carry_it_and_read_files_of_the_previous_release(
    start, settings, provider, tmp_path
):
    alice = start(**settings).client()
    provider.script = [reply(thought(reasoning=THOUGHTS), "The answer.")]
    session = alice.create()
    figures, _ = thinking_of(alice, session)
    url, path = settings["DATABASE_URL"], tmp_path / "chats.ndjson"

    def run(*words):
        done = flask(tmp_path, "--app", APP, *map(str, words), DATABASE_URL=url)
        assert done.returncode == 0, done.stderr

    run("export", ALICE, path)
    header, line, end = path.read_text("utf-8").splitlines()
    assert json.loads(header)["parley"] == 3
    assert alice.delete(f"/sessions/{session['id']}").status_code == 204
    run("import", path, ALICE)
    [imported] = alice.get("/sessions").json()["data"]
    assert thinking_of(alice, imported) == (figures, THOUGHTS)

    assert alice.delete(f"/sessions/{imported['id']}").status_code == 204
    old = json.loads(line)
    for turn in old["turns"]:
        turn.pop("thinking", None)
    path.write_text(
        "\n".join([json.dumps(json.loads(header) | {"parley": 2}), json.dumps(old), end])
    )
    run("import", path, ALICE)
    [imported] = alice.get("/sessions").json()["data"]
    assert thinking_of(alice, imported) == (None, None)


def test_it_is_deleted_with_its_session(start, settings, provider):
    alice = start(**settings).client()
    provider.script = [reply(thought(reasoning=THOUGHTS), "The answer.")]
    session = alice.create()
    with tables_of(settings["DATABASE_URL"]) as tables:
        assert tables.value("SELECT count(*) FROM thought")
    assert alice.delete(f"/sessions/{session['id']}").status_code == 204
    with tables_of(settings["DATABASE_URL"]) as tables:
        wait_until(lambda: not tables.value("SELECT count(*) FROM thought"))


def test_it_counts_for_the_storage_limit(start, settings):
    alice = start(**settings, STORAGE_LIMIT=1000).client()
    large = session_with({"text": "x" * 1000})
    assert alice.post("/sessions/import", large).status_code == 413
    session = alice.post("/sessions/import", session_with({"text": "x" * 900})).json()
    refused = alice.post(f"/sessions/{session['id']}/fork")
    assert refused.status_code == 413
    has, stored = re.findall("[0-9]+ bytes|stored [0-9]+", refused.json()["errors"][0]["detail"])
    assert has == "916 bytes" and stored == "stored 916"


def test_it_is_in_no_search_and_no_preview(someone, thoughtful):
    assert someone.get("/sessions?query=世界").json()["data"] == []
    assert someone.get("/sessions").json()["data"][0]["last_message_preview"] == "More."


def test_a_document_of_the_session_has_only_the_answer(someone, thoughtful):
    document = someone.get(f"/sessions/{thoughtful['id']}", Accept="text/markdown").text
    assert "The answer." in document and "世界" not in document
