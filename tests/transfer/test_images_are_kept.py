"""Images of messages go into exports, and come back with imports. What is missing, or refused, leaves
`[image]`, and is counted.

Modules: `formats/own.py`."""

import base64
import hashlib
import json
import uuid
import zipfile

import pytest

import archives
from commands import flask
from exports import export_of, imported, turns_of, without_ids
from ledgers import APP
from pictures import png
from provider import reply
from raw_tables import tables_of

ONE, TWO, LARGE = png(64, 48), png(30, 20), png(600, 400, 600_000)
IDS = [hashlib.sha256(data).hexdigest() for data in (ONE, TWO, LARGE)]
NOBODYS = hashlib.sha256(b"nobody's").hexdigest()


def files_of(client, session):
    return [
        [file["id"] for file in turn["files"]]
        for turn in client.turns(session)
        if turn["kind"] == "user"
    ]


def texts_of(client, session):
    return [turn["content"] for turn in client.turns(session)]


def errors_of(response):
    assert response.status_code == 400, response.text
    return [error["source"]["pointer"] for error in response.json()["errors"]]


@pytest.fixture
def stranger(server):
    """Another user, who has nothing."""
    return server.client(f"https://github.com/{uuid.uuid4().hex}")


@pytest.fixture
def illustrated(someone, provider):
    """A session of two messages: two images and words, then an image alone."""
    provider.default = reply("Nice.")
    one, two = someone.uploaded(ONE), someone.uploaded(LARGE)
    session = someone.create("Look", files=[one, two])
    response = someone.post(f"/sessions/{session['id']}/messages", {"content": "", "files": [two]})
    assert response.status_code == 201, response.text
    return session


# Lines


def test_a_line_of_an_export_has_the_images_of_the_users_turns(someone, illustrated):
    [line] = export_of(someone)
    files = [turn.get("files") for turn in line["turns"]]
    small = {"id": IDS[0], "media_type": "image/png", "width": 64, "height": 48, "size": len(ONE)}
    large = {"id": IDS[2], "media_type": "image/png", "width": 600, "height": 400}
    large["size"] = len(LARGE)
    assert files == [[small, large], None, [large], None]


def test_a_line_is_imported_with_its_images_which_the_user_must_have(
    someone, stranger, illustrated
):
    [line] = export_of(someone)
    assert errors_of(stranger.post("/sessions/import", line)) == ["/turns/0/files/0"]
    stranger.uploaded(ONE)
    assert errors_of(stranger.post("/sessions/import", line)) == ["/turns/0/files/1"]
    assert stranger.get("/sessions").json()["data"] == []
    stranger.uploaded(LARGE)
    session = imported(stranger, **line)
    assert stranger.turns(session)[0]["files"] == someone.turns(illustrated)[0]["files"]
    [copied] = export_of(stranger)
    assert without_ids(copied) == without_ids(line)


def test_an_imported_image_is_kept_and_sent_to_the_model(start, settings, provider):
    alice = start(**settings).client()
    one = alice.uploaded(ONE)
    session = imported(alice, turns=[{"kind": "user", "content": "Look", "files": [one]}])
    with tables_of(settings["DATABASE_URL"]) as tables:
        assert tables.rows("SELECT unused_since FROM file") == [(None,)]
        assert tables.value("SELECT count(*) FROM turn_file") == 1
    assert alice.post(f"/sessions/{session['id']}/messages", {"content": "So?"}).ok
    [message] = provider.posts[-1].body["messages"]
    url = f"data:image/png;base64,{base64.b64encode(ONE).decode()}"
    assert url in json.dumps(message)


def test_ids_may_stand_alone_and_keep_their_order(someone):
    one, two = someone.uploaded(ONE), someone.uploaded(TWO)
    turns = [{"kind": "user", "content": "x", "files": [two, {"id": one, "odd": 1}, two]}]
    session = imported(someone, turns=turns)
    assert files_of(someone, session) == [[two, one, two]]


def test_a_message_without_words_has_its_image_for_a_preview_and_a_title(someone):
    one = someone.uploaded(ONE)
    turns = [{"kind": "user", "content": " \n", "files": [one]}, *turns_of("x", "")[1:]]
    assert imported(someone, turns=turns)["title"] == "Image"
    [listed] = someone.get("/sessions").json()["data"]
    assert listed["last_message_preview"].rstrip() == "[image 64×48]"
    turns += [{"kind": "user", "content": "What is it?", "files": [one]}]
    imported(someone, turns=turns)
    assert {row["last_message_preview"] for row in someone.get("/sessions").json()["data"]} == {
        listed["last_message_preview"],
        "[image 64×48] What is it?",
    }


def test_a_session_that_is_there_already_needs_no_images(someone):
    body = {"origin": "x:1", "turns": turns_of("Hello")}
    session = imported(someone, **body)
    body["turns"][0]["files"] = [NOBODYS]
    again = someone.post("/sessions/import", body)
    assert (again.status_code, again.json()["id"]) == (200, session["id"])


FAULTS = [
    ([NOBODYS], "/turns/1/files/0"),
    ([IDS[0], {"id": NOBODYS}], "/turns/1/files/1"),
    ([IDS[1]], "/turns/1/files/0"),  # another user's
    ([IDS[0]] * 9, "/turns/1/files"),
    ({}, "/turns/1/files"),
    (IDS[0], "/turns/1/files"),
    ([7], "/turns/1/files/0"),
    (["\0"], "/turns/1/files/0"),
    (["\ud800"], "/turns/1/files/0"),
    ([IDS[0].upper()], "/turns/1/files/0"),
    ([{"media_type": "image/png"}], "/turns/1/files/0/id"),
    ([{"id": None}], "/turns/1/files/0/id"),
    ([], "/turns/1/content"),  # which is blank
    (None, "/turns/1/content"),
]


@pytest.mark.parametrize("files, pointer", FAULTS)
def test_an_import_with_other_files_is_refused_with_a_pointer(
    someone, stranger, provider, files, pointer
):
    stranger.uploaded(TWO)
    someone.uploaded(ONE)
    turns = [*turns_of("First"), {"kind": "user", "content": " ", "files": files}]
    assert errors_of(someone.post("/sessions/import", {"turns": turns})) == [pointer]
    assert someone.get("/sessions").json()["data"] == [] and not provider.requests


def test_a_reply_has_no_files(someone):
    turns = turns_of("Hello", "Hi")
    turns[1]["files"] = [someone.uploaded(ONE)]
    assert errors_of(someone.post("/sessions/import", {"turns": turns})) == ["/turns/1/files"]


# Conversations


def pointer(asset, kind="image_asset_pointer"):
    return {"content_type": kind, "asset_pointer": f"file-service://{asset}"}


SEEN = archives.chatgpt(
    archives.said("user", pointer("file-A"), "And?", pointer("file-B"), kind="multimodal_text"),
    archives.said("assistant", "A cat."),
)


def import_conversation(client, conversation, **body):
    response = client.post("/sessions/import", {"conversation": conversation} | body)
    assert response.status_code == 201, response.text
    return response.json(), response.headers.get("Left-Out")


def test_a_conversation_gets_the_images_that_are_uploaded_for_it(someone):
    one, two = someone.uploaded(ONE), someone.uploaded(TWO)
    session, left_out = import_conversation(someone, SEEN, files={"file-B": one})
    assert texts_of(someone, session) == ["[image]\n\nAnd?", "A cat."]
    assert (files_of(someone, session), left_out) == ([[one]], "files=1")
    other = SEEN | {"id": "c-2"}
    files = {"file-A": two, "file-B": one, "file-C": one}
    session, left_out = import_conversation(someone, other, files=files)
    assert texts_of(someone, session) == ["And?", "A cat."]
    assert (files_of(someone, session), left_out) == ([[two, one]], None)


UPLOADS = [
    ({"file-A": IDS[0], "file-B": NOBODYS}, "/files/file-B"),
    ({"file-A": 7}, "/files/file-A"),
    ({"a~/b": None}, "/files/a~0~1b"),
    ([], "/files"),
    ("file-A", "/files"),
]


@pytest.mark.parametrize("files, place", UPLOADS)
def test_other_files_of_a_conversation_are_refused_with_a_pointer(someone, files, place):
    someone.uploaded(ONE)
    body = {"conversation": SEEN, "files": files}
    assert errors_of(someone.post("/sessions/import", body)) == [place]
    assert someone.get("/sessions").json()["data"] == []


def test_a_line_that_is_sent_as_a_conversation_lacks_what_the_user_does_not_have(
    someone, stranger, illustrated
):
    [line] = export_of(someone)
    session, left_out = import_conversation(stranger, line)
    assert texts_of(stranger, session) == [
        "[image]\n\n[image]\n\nLook",
        "Nice.",
        "[image]",
        "Nice.",
    ]
    assert (files_of(stranger, session), left_out) == ([[], []], "files=3")
    stranger.delete(f"/sessions/{session['id']}")
    stranger.uploaded(LARGE)
    session, left_out = import_conversation(stranger, line, files={IDS[0]: stranger.uploaded(TWO)})
    assert texts_of(stranger, session) == ["Look", "Nice.", "", "Nice."]
    assert (files_of(stranger, session), left_out) == ([[IDS[1], IDS[2]], [IDS[2]]], None)


# The commands


def subject_of(client):
    """The user in a client's token."""
    payload = client.token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=="))["sub"]


class Operator:
    """Runs `flask export` and `flask import` on the server's database."""

    def __init__(self, server, folder):
        self.server, self.folder = server, folder

    def run(self, *words, **settings):
        settings = {name: str(value) for name, value in settings.items()}
        settings |= {"DATABASE_URL": self.server.database, "MODELS": "m-1", "OPENAI_API_KEY": "k"}
        done = flask(self.folder, "--app", APP, *map(str, words), **settings)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    def export(self, client, name="F"):
        """The lines of a user's file."""
        status, _, error = self.run("export", subject_of(client), name)
        assert (status, error) == (0, "")
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def write(self, *lines, name="F"):
        return archives.ndjson(self.folder / name, *lines)

    def imports(self, client, path="F", **settings):
        """Import this file. Returns what is printed, in lines."""
        status, told, error = self.run("import", path, subject_of(client), **settings)
        assert (status, error) == (0, ""), error
        return told.splitlines()


@pytest.fixture
def operator(server, tmp_path):
    return Operator(server, tmp_path)


IMPORTED = "1 imported, 0 there already, 0 not taken."


def left(count):
    rest = "tool calls and results 0, messages of other branches 0."
    return f"Left out of these: images and files {count}, {rest}"


def test_a_file_has_each_image_once_before_the_first_session_that_needs_it(
    someone, illustrated, operator
):
    someone.create("Without")
    someone.create("Again", files=[IDS[2], someone.uploaded(TWO)])
    header, *lines, end = operator.export(someone)
    assert header["parley"] == 3 and end == {"end": True, "sessions": 3}
    assert [line.get("file") or line["title"] for line in lines] == [
        *(IDS[0], IDS[2], "Look", "Without", IDS[1], "Again"),
    ]
    files = [line for line in lines if "file" in line]
    assert [base64.b64decode(line["data"]) for line in files] == [ONE, LARGE, TWO]
    assert {line["media_type"] for line in files} == {"image/png"}
    assert all(line.keys() == {"file", "media_type", "data"} for line in files)


def test_a_file_is_imported_with_its_images_once(someone, stranger, illustrated, operator):
    operator.export(someone)
    assert operator.imports(stranger) == [IMPORTED]
    [line] = export_of(stranger)
    assert without_ids(line) == without_ids(export_of(someone)[0])
    response = stranger.get(f"/files/{IDS[2]}")
    assert response.content == LARGE
    assert operator.imports(stranger) == ["0 imported, 1 there already, 0 not taken."]


def test_a_missing_image_leaves_a_mark_unless_the_user_has_it(
    someone, stranger, illustrated, operator
):
    header, _, large, line, end = operator.export(someone)
    operator.write(header, large, line, end, name="less")
    assert operator.imports(stranger, "less") == [IMPORTED, left(1)]
    [session] = stranger.get("/sessions").json()["data"]
    assert texts_of(stranger, session)[0] == "[image]\n\nLook"
    assert files_of(stranger, session) == [[IDS[2]], [IDS[2]]]
    stranger.delete(f"/sessions/{session['id']}")
    stranger.uploaded(ONE)
    assert operator.imports(stranger, "less") == [IMPORTED]


def damaged(line):
    return [
        line | {"data": "!" + line["data"]},
        line | {"data": base64.b64encode(b"GIF89a").decode()},
        line | {"data": None},
        {"file": line["file"]},
        line | {"data": line["data"] + "A" * 20_000_000},  # longer than a conversation may be
    ]


@pytest.mark.parametrize("kind", range(5))
def test_an_image_that_is_refused_leaves_a_mark(someone, stranger, illustrated, operator, kind):
    header, small, large, line, end = operator.export(someone)
    operator.write(header, damaged(small)[kind], large, line, end, name="odd")
    assert operator.imports(stranger, "odd") == [IMPORTED, left(1)]
    [session] = stranger.get("/sessions").json()["data"]
    assert texts_of(stranger, session)[0] == "[image]\n\nLook"
    assert files_of(stranger, session) == [[IDS[2]], [IDS[2]]]


def test_an_image_with_another_id_is_the_one_that_it_is(someone, stranger, illustrated, operator):
    header, small, large, line, end = operator.export(someone)
    small["data"] = base64.b64encode(TWO).decode()
    operator.write(header, small, large, line, end, name="other")
    assert operator.imports(stranger, "other") == [IMPORTED]
    [session] = stranger.get("/sessions").json()["data"]
    assert files_of(stranger, session) == [[IDS[1], IDS[2]], [IDS[2]]]


def test_the_limits_of_this_server_hold_for_images(server, someone, illustrated, operator):
    operator.export(someone)
    for settings, missing in (
        ({"MAX_FILE": 100_000}, 2),  # of the large one, which is there twice
        ({"MAX_FILE": 0}, 3),
        ({"STORAGE_LIMIT": 10_000}, 2),
        ({"MAX_CONTENT_LENGTH": 1024}, 0),  # is no limit of a line with an image
    ):
        user = server.client(f"https://github.com/{uuid.uuid4().hex}")
        told = operator.imports(user, **settings)
        assert told == [IMPORTED] + ([left(missing)] if missing else []), settings


def test_images_of_a_zip_are_uploaded_if_a_conversation_shows_them(someone, operator):
    hidden = pointer("file-Hidden")
    conversation = archives.chatgpt(
        archives.said("user", pointer("file-A"), "First", kind="multimodal_text"),
        archives.said("assistant", pointer("file-Drawn"), "Here.", kind="multimodal_text"),
        archives.said(
            "user",
            {"content_type": "image_asset_pointer", "asset_pointer": "sediment://file_00b"},
            pointer("file-A"),
            pointer("file-Gone"),
            "Second",
            kind="multimodal_text",
        ),
        archives.said(
            "user",
            "",
            metadata={
                "attachments": [
                    {"id": "file-C", "mime_type": "image/png", "name": "c.png"},
                ]
            },
        ),
    )
    conversation["mapping"]["x"] = {
        "parent": "root",
        "message": archives.said("user", hidden, kind="multimodal_text"),
    }
    archives.packed(
        operator.folder / "data.zip",
        {
            "conversations.json": json.dumps([conversation]),
            "file-A-cat.png": ONE,
            "user-abc/file_00b-sanitized.png": TWO,
            "file-C.dat": LARGE,
            "file-Hidden-x.png": png(5, 5),
            "dalle-generations/file-Drawn-y.png": png(6, 6),
            "file-Aa-other.png": png(7, 7),
        },
    )
    told = operator.imports(someone, "data.zip")
    rest = "tool calls and results 0, messages of other branches 1."
    assert told == [IMPORTED, f"Left out of these: images and files 2, {rest}"]
    [session] = someone.get("/sessions").json()["data"]
    assert texts_of(someone, session) == ["First", "[image]\n\nHere.", "[image]\n\nSecond", ""]
    assert files_of(someone, session) == [[IDS[0]], [IDS[1], IDS[0]], [IDS[2]]]
    for data in (png(5, 5), png(6, 6), png(7, 7)):
        assert someone.get(f"/files/{hashlib.sha256(data).hexdigest()}").status_code == 404


def lying(data):
    """A ZIP whose directory says that a member is small."""
    size = len(data).to_bytes(4, "little")
    return lambda content: content.replace(size, (10).to_bytes(4, "little"))


CAT = json.dumps(
    [archives.chatgpt(archives.said("user", pointer("file-A"), kind="multimodal_text"))]
)
NOT_TAKEN = {
    "a GIF": (b"GIF89a" + bytes(100), None),
    "too large": (png(600, 400, 600_000), None),
    "not whole": (ONE[:-20], None),
    "nothing": (b"", None),
    "a bomb": (ONE + bytes(300_000), None),
    "damaged": (ONE, lambda content: content.replace(ONE, ONE[:50] + b"\xff" + ONE[51:])),
    "a bomb that lies": (bytes(3_000_000), lying(bytes(3_000_000))),
}


@pytest.mark.parametrize("data, change", NOT_TAKEN.values(), ids=NOT_TAKEN)
def test_an_image_of_a_zip_that_is_not_taken_leaves_a_mark(someone, operator, data, change):
    path = operator.folder / "data.zip"
    method = zipfile.ZIP_STORED if data == ONE else zipfile.ZIP_DEFLATED
    archives.packed(path, {"conversations.json": CAT, "file-A.png": data}, method)
    if change:
        content = path.read_bytes()
        assert change(content) != content
        path.write_bytes(change(content))
    assert operator.imports(someone, path, MAX_FILE=200_000) == [IMPORTED, left(1)]
    [session] = someone.get("/sessions").json()["data"]
    assert (texts_of(someone, session), files_of(someone, session)) == (["[image]"], [[]])


def test_images_within_a_conversation_of_open_webui_are_uploaded(someone, operator):
    url = f"data:image/png;base64,{base64.b64encode(ONE).decode()}"
    odd = "data:image/png;base64,!"
    conversations = [
        archives.openwebui(
            {
                "q": archives.chatted(
                    "user", "See", files=[{"type": "image", "url": each} for each in urls]
                )
            },
            "q",
            id=f"w-{number}",
        )
        for number, urls in enumerate([[odd, url], [url]])
    ]
    archives.array(operator.folder / "chats.json", *conversations)
    told = operator.imports(someone, "chats.json")
    assert told == ["2 imported, 0 there already, 0 not taken.", left(1)]
    sessions = someone.get("/sessions").json()["data"]
    assert {(texts_of(someone, one)[0], *files_of(someone, one)[0]) for one in sessions} == {
        ("[image]\n\nSee", IDS[0]),
        ("See", IDS[0]),
    }
