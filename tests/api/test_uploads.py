"""Uploads and downloads, as a client sees them.

Modules: `files.py`, `api/files.py`, `transfer/uploads.py`, `tables/files.py`.
"""

import concurrent.futures
import hashlib
import json
import threading

import pytest

from client import BOB, wait_until
from exports import export_of
from pictures import chunk, png
from provider import reply

SMALL = png(64, 48)


def error_of(response):
    [error] = response.json()["errors"]
    return response.status_code, error["detail"], error.get("source")


@pytest.fixture(scope="module")
def limited(server_with):
    """A server with small limits."""
    return server_with(MAX_FILE=100_000, STORAGE_LIMIT=150_000, WEB_CONCURRENCY=1)


def test_a_file_is_stored_and_given_back(someone):
    response = someone.upload(SMALL, Content_Type="image/png")
    digest = hashlib.sha256(SMALL).hexdigest()
    described = {
        "id": digest,
        "media_type": "image/png",
        "width": 64,
        "height": 48,
        "size": len(SMALL),
    }
    assert (response.status_code, response.json()) == (201, described)
    assert response.headers["Location"] == f"/files/{digest}"
    again = someone.upload(SMALL)
    assert (again.status_code, again.json()) == (200, described)
    found = someone.get(response.headers["Location"])
    assert (found.status_code, found.content) == (200, SMALL)
    wanted = {
        "Content-Type": "image/png",
        "Content-Length": str(len(SMALL)),
        "Content-Disposition": "attachment",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "private, no-cache",
        "Vary": "Authorization",
        "ETag": f'"{digest}"',
    }
    assert wanted.items() <= found.headers.items()


def test_a_client_that_has_the_bytes_gets_none(someone):
    path = f"/files/{someone.uploaded(SMALL)}"
    same = someone.get(path, If_None_Match=f'"x", "{path[7:]}"')
    assert (same.status_code, same.content) == (304, b"")
    assert same.headers["ETag"] == f'"{path[7:]}"'
    assert someone.get(path, If_None_Match='"x"').status_code == 200


def test_what_is_not_the_picture_is_not_stored(someone):
    secret = chunk(b"tEXt", b"Comment\0where we live")
    data = SMALL[:33] + secret + SMALL[33:] + b"PK\x03\x04<script>"
    response = someone.upload(data)
    assert (response.status_code, response.json()["id"]) == (201, hashlib.sha256(SMALL).hexdigest())
    assert someone.get(response.headers["Location"]).content == SMALL


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"<svg xmlns='http://www.w3.org/2000/svg'/>", SMALL[:-1], b"\xff\xd8"]
)
def test_what_is_no_picture_is_refused(someone, data):
    response = someone.upload(data, Content_Type="image/png")
    assert response.status_code == 400 and response.json()["errors"][0]["detail"].endswith(".")


def test_another_users_file_is_a_404_and_no_file_of_a_message(someone, bob):
    digest = someone.uploaded(png(65, 48))
    assert error_of(bob.get(f"/files/{digest}"))[:2] == (404, "You have no such file.")
    refused = bob.post("/sessions", {"content": "What?", "files": [digest]})
    advice = "You have no such file. Upload it first, with POST /files."
    assert error_of(refused) == (400, advice, {"pointer": "/files/0"})
    assert bob.upload(png(65, 48)).status_code == 201


def test_a_file_above_the_limit_is_refused(limited):
    alice = limited.client()
    assert error_of(alice.upload(bytes(100_001)))[:2] == (413, "Send at most 100000 bytes.")


def test_files_count_for_the_storage_limit(limited):
    bob = limited.client(BOB)
    for color in (1, 2):
        first = bob.upload(png(200, 200, 60_000, color))
        assert first.status_code == 201
    used = sum(len(png(200, 200, 60_000, color)) for color in (1, 2))
    third = png(200, 200, 60_000, 3)
    refused = error_of(bob.upload(third))
    said = (
        f"This has {len(third):,} bytes, and you have stored {used:,} of 150,000. "
        "Delete chats that you do not need."
    )
    assert refused[:2] == (413, said)


def test_a_server_may_take_no_images(server_with):
    alice = server_with(MAX_FILE=0).client()
    said = "This server takes no images: its MAX_FILE is 0."
    assert error_of(alice.upload(SMALL))[:2] == (413, said)
    assert alice.get("/models").json()["meta"]["max_file"] == 0


def test_the_same_picture_at_once_is_one_file(someone):
    data = png(1000, 800, 2_000_000)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: someone.upload(data), range(2)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses in ([200, 201], [201, 503])
    assert len({answer.json().get("id") for answer in answers if answer.ok}) == 1


def test_a_third_upload_at_a_time_is_asked_to_wait(start, settings, tables):
    """Two hang while another transaction has the table."""
    server = start(**settings, WEB_CONCURRENCY=1)
    alice, bob = server.client(), server.client(BOB)
    tables.rows("BEGIN IMMEDIATE")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        two = [pool.submit(upload_at_last, alice, png(64, 48, color=color)) for color in (1, 2)]
        assert int(wait_until(lambda: _wait_for_third(alice))) > 0
        tables.rows("COMMIT")
        assert [each.result().status_code for each in two] == [201, 201]
    assert bob.upload(SMALL).status_code == 201


def upload_at_last(client, data):
    """The answer of the first try at which others have not taken all places."""
    while (response := client.upload(data)).status_code == 503:
        assert response.headers["Retry-After"]
    return response


def _wait_for_third(client):
    """How long a third upload is asked to wait, if it is."""
    return client.upload(b"GIF89a").headers.get("Retry-After")


def test_an_upload_that_is_killed_leaves_nothing_to_be_found(start, settings, tables):
    server = start(**settings, WEB_CONCURRENCY=1)
    alice = server.client()
    data = png(1500, 1000, 3_500_000)
    counting = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 500000)"
    tables.rows(
        "CREATE TRIGGER slow AFTER INSERT ON file_part "
        f"BEGIN SELECT count(*) FROM ({counting} SELECT x FROM c); END"
    )
    thread = threading.Thread(target=lambda: _ignoring(alice.upload, data))
    thread.start()
    wait_until(lambda: tables.value("SELECT count(*) FROM file_part") > 0)
    server.kill()
    thread.join()
    tables.rows("DROP TRIGGER slow")
    server = start(**settings, WEB_CONCURRENCY=1)
    alice = server.client()
    digest = hashlib.sha256(data).hexdigest()
    assert alice.get(f"/files/{digest}").status_code == 404
    assert alice.upload(data).status_code == 201
    assert alice.get(f"/files/{digest}").content == data


def _ignoring(function, *arguments):
    try:
        function(*arguments)
    except OSError:
        pass


# In messages


def test_a_message_has_its_files_in_order_and_the_model_sees_them_before_its_words(
    someone, provider
):
    first, second = someone.uploaded(SMALL), someone.uploaded(png(10, 20))
    session = someone.create("Which is larger?", files=[second, first, second])
    message = someone.turns(session)[0]
    assert [file["id"] for file in message["files"]] == [second, first, second]
    assert "files" not in someone.turns(session)[1]
    [sent] = provider.posts[-1].body["messages"]
    kinds = [part["type"] for part in sent["content"]]
    assert kinds == ["image_url", "image_url", "image_url", "text"]
    assert sent["content"][3] == {"type": "text", "text": "Which is larger?"}


def test_a_message_of_files_alone_has_a_title_and_a_preview(someone, provider):
    provider.default = reply("")
    session = someone.create("", files=[someone.uploaded(SMALL)])
    assert session["title"] == "Image"
    [listed] = someone.get("/sessions").json()["data"]
    assert listed["last_message_preview"] == "[image 64×48]"
    someone.post(f"/sessions/{session['id']}/messages", {"content": "", "files": []})
    provider.default = reply("Two.")
    path = f"/sessions/{session['id']}"
    assert someone.post(f"{path}/messages", {"content": "Hm?", "files": None}).status_code == 201
    text = someone.get(path, Accept="text/markdown").text
    assert "\n[image 64×48]\n\n" in text


@pytest.mark.parametrize(
    "body, pointer",
    [
        ({"content": " "}, "/content"),
        ({"content": "", "files": []}, "/content"),
        ({"files": []}, "/content"),
        ({"content": "x", "files": "abc"}, "/files"),
        ({"content": "x", "files": [1]}, "/files/0"),
        ({"content": "x", "files": ["x"] * 9}, "/files"),
        ({"content": "x", "files": ["\0", "x"]}, "/files/0"),
        ({"content": "x", "files": [{"alt": "A cat"}]}, "/files/0/id"),
        ({"content": "x", "files": [{"id": "x", "alt": 5}]}, "/files/0/alt"),
        ({"content": "x", "files": [{"id": "x", "alt": "x" * 1001}]}, "/files/0/alt"),
        ({"content": "x", "files": [{"id": "x", "alt": "\0"}]}, "/files/0/alt"),
    ],
)
def test_bad_files_are_told_by_their_place(someone, body, pointer):
    status, _, source = error_of(someone.post("/sessions", body))
    assert (status, source) == (400, {"pointer": pointer})


def test_an_alternative_text_stays_with_its_message(someone, provider):
    first, second = someone.uploaded(SMALL), someone.uploaded(png(10, 20))
    refs = [{"id": first, "alt": " A heron\n"}, second, {"id": first, "alt": ""}]
    session = someone.create("What?", files=refs)

    def alts(of):
        return [file.get("alt") for file in someone.turns(of)[0]["files"]]

    assert alts(session) == ["A heron", None, None]
    path = f"/sessions/{session['id']}"
    fork = someone.post(f"{path}/fork", {}).json()
    line = next(line for line in export_of(someone) if line["id"] == session["id"])
    imported = someone.post("/sessions/import", {"conversation": line | {"id": "other"}}).json()
    shown = someone.turns(session)[0]["files"]
    someone.post(f"{path}/retry", {"content": "And now?", "files": list(reversed(shown))})
    assert alts(session) == [None, None, "A heron"]
    assert alts(fork) == alts(imported) == ["A heron", None, None]
    assert "heron" not in json.dumps(provider.posts[-1].body)


def test_a_key_is_looked_up_before_its_files(start, settings, tables):
    server = start(**settings, WEB_CONCURRENCY=1)
    alice = server.client()
    body = {"content": "What?", "files": [alice.uploaded(SMALL)]}
    first = alice.post("/sessions", body, Idempotency_Key="k")
    tables.rows("UPDATE file SET owner = 'somebody else'")
    again = alice.post("/sessions", body, Idempotency_Key="k")
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
    assert alice.post("/sessions", body, Idempotency_Key="other").status_code == 400


def test_a_retry_keeps_changes_or_drops_the_files(someone, provider):
    first, second = someone.uploaded(SMALL), someone.uploaded(png(10, 20))
    session = someone.create("What?", files=[first])
    path = f"/sessions/{session['id']}/retry"

    def after(body):
        assert someone.post(path, body).status_code == 201
        message = someone.turns(session)[0]
        return message["content"], [file["id"] for file in message["files"]]

    assert after({}) == ("What?", [first])
    assert after({"files": [second, first]}) == ("What?", [second, first])
    assert after({"content": "And now?"}) == ("And now?", [])
    assert after({"content": "", "files": [second]}) == ("", [second])
    blank = error_of(someone.post(path, {"files": []}))
    assert blank[:2] == (400, "Give some text, or files: the message would be empty.")
    assert after({"content": "Words", "files": [second]}) == ("Words", [second])
    assert after({"files": []}) == ("Words", [])
    assert provider.posts[-1].body["messages"] == [{"role": "user", "content": "Words"}]


def test_a_fork_has_the_same_files_after_its_original_is_gone(someone, provider):
    data = png(30, 40)
    session = someone.create("What?", files=[someone.uploaded(data)])
    fork = someone.post(f"/sessions/{session['id']}/fork").json()
    assert someone.delete(f"/sessions/{session['id']}").status_code == 204
    [file] = someone.turns(fork)[0]["files"]
    assert someone.get(f"/files/{file['id']}").content == data
    more = someone.post(f"/sessions/{fork['id']}/messages", {"content": "More"})
    assert more.status_code == 201
    assert provider.posts[-1].body["messages"][0]["content"][0]["type"] == "image_url"


def test_echo_says_what_it_was_sent(server_with):
    alice = server_with(OPENAI_BASE_URL="", DEFAULT_MODEL="").client()
    session = alice.create("Hello there", files=[alice.uploaded(SMALL)])
    assert alice.turns(session)[1]["content"] == "[image 64×48] Hello there"


def test_files_outlive_a_kill(start, settings):
    server = start(**settings)
    digest = server.client().uploaded(SMALL)
    server.kill()
    assert start(**settings).client().get(f"/files/{digest}").content == SMALL
