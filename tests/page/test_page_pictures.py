"""The page's exports and imports have the pictures of messages. What the server does not take
is drawn anew. Modules: `static/page/pictures.js`, `static/page/imported-pictures.js`."""

import base64
import hashlib
import json

import pytest

from archives import chatted, openwebui
from browser import Page
from page_files import chatgpt, finish, import_all, lines, node, open_panel, sessions, zipped
from pictures import png

pytestmark = [
    pytest.mark.parametrize("engine", ["sqlite"], indirect=True),  # the page does the same on both
    pytest.mark.usefixtures("engine"),
]

ONE, TWO, LARGE = png(64, 48), png(30, 20), png(600, 400, 600_000)
IDS = [hashlib.sha256(data).hexdigest() for data in (ONE, TWO, LARGE)]
LEFT_OUT = {1: "1 image or file was left out.", 2: "2 images and files were left out."}

MAKE = """
    const [width, height, type, done] = arguments;
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d").fillRect(0, 0, width / 2, height); // the rest is transparent
    canvas.convertToBlob({ type }).then(async (blob) => {
        const reader = new FileReader();
        reader.onload = () => done(reader.result);
        reader.readAsDataURL(blob);
    });
"""
CONVERT = """
    const [url, done] = arguments;
    const bytes = Uint8Array.from(atob(url.split(",")[1]), (sign) => sign.charCodeAt(0));
    import("/static/page/pictures.js").then(async ({ shrink }) => {
        const made = await shrink(new Blob([bytes])).catch(({ constructor }) => constructor.name);
        if (!made.blob) return done(made);
        const bitmap = await createImageBitmap(made.blob);
        const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(bitmap, 0, 0);
        const at = (x) => [...context.getImageData(x, bitmap.height / 2, 1, 1).data];
        done([made.blob.type, bitmap.width, bitmap.height, at(0), at(bitmap.width - 1)]);
    });
"""
BLACK, WHITE, CLEAR = [0, 0, 0, 255], [255, 255, 255, 255], [0, 0, 0, 0]


def made(page, width, height, kind="image/webp"):
    """A picture that is black on the left, and transparent on the right, as the browser writes it."""
    url = page.driver.execute_async_script(MAKE, width, height, kind)
    start, _, data = url.partition(",")
    assert start == f"data:{kind};base64"
    return base64.b64decode(data)


def url_of(data, kind="image/webp"):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize(
    "size, expected",
    [
        ((3136, 2000), ["image/jpeg", 1568, 1000, BLACK, WHITE]),
        ((100, 3136), ["image/jpeg", 50, 1568, BLACK, WHITE]),
        ((90, 60), ["image/png", 90, 60, BLACK, CLEAR]),
    ],
)
def test_a_picture_becomes_a_jpeg_on_white_or_a_smaller_png(page, size, expected):
    data = made(page, *size)
    assert page.driver.execute_async_script(CONVERT, url_of(data)) == expected


def test_what_is_no_picture_is_unreadable(page):
    converted = page.driver.execute_async_script(CONVERT, url_of(b"%PDF-1.7"))
    assert converted == "UnreadablePicture"


# Imports


def pointer(asset):
    return {"content_type": "image_asset_pointer", "asset_pointer": f"sediment://{asset}"}


def seen(*assets, title="Cats", **fields):
    """A conversation in which the user has sent these pictures."""
    parts = [*map(pointer, assets), "What is it?"]
    turns = node("user", *parts, of="multimodal_text"), node("assistant", "A cat.")
    return chatgpt(*turns, title=title, **fields)


def first_turn(page, title):
    [session] = [each for each in sessions(page) if each["title"] == title]
    return page.user.turns(session)[0]


def test_pictures_of_a_zip_are_uploaded_and_others_are_drawn_anew(page, tmp_path):
    drawn = node("assistant", pointer("file_0d"), of="multimodal_text")
    conversations = [
        seen("file_0a", "file-B", title="Both"),
        seen("file_0a", "file-C", "file-Gone", title="One"),
        chatgpt(node("user", "Draw"), drawn, title="Drawn"),
    ]
    content = zipped(
        {
            "conversations.json": json.dumps(conversations),
            "file_0a-sanitized.png": ONE,
            "user-x/file-B-cat.webp": made(page, 2000, 1000),
            "file-C.dat": b"GIF89a",
            "dalle-generations/file_0d-x.png": TWO,
        }
    )
    open_panel(page)
    import_all(page, tmp_path, content, "3 chats imported.", "data.zip")
    assert page.texts("#transfer-list li") == ["3 images and files were left out."]
    turn = first_turn(page, "Both")
    assert turn["content"] == "What is it?"
    one, two = turn["files"]
    assert one["id"] == IDS[0]
    assert (two["media_type"], two["width"], two["height"]) == ("image/jpeg", 1568, 784)
    turn = first_turn(page, "One")
    assert turn["content"] == "[image]\n\n[image]\n\nWhat is it?"
    assert turn["files"] == [one]
    assert page.user.get(f"/files/{IDS[1]}").status_code == 404


def test_a_picture_that_is_too_large_for_the_server_is_made_smaller(browser, server_with, tmp_path):
    page = Page(browser, server_with(MAX_FILE="100000")).enter()
    page.wait_for_text("No chats yet.")
    wide = png(9000, 10)  # more pixels a side than the server takes
    content = zipped(
        {
            "conversations.json": json.dumps([seen("file-A", "file-B")]),
            "file-A.png": png(1600, 1200, 200_000),
            "file-B.png": wide,
        }
    )
    assert len(wide) < 100_000
    open_panel(page)
    import_all(page, tmp_path, content, "1 chat imported.", "data.zip")
    assert page.texts("#transfer-list li") == []
    files = first_turn(page, "Cats")["files"]
    assert [(each["media_type"], each["width"], each["height"]) for each in files] == [
        ("image/jpeg", 1568, 1176),
        ("image/png", 1568, 2),
    ]


def test_a_server_without_images_gets_none(browser, server_with, tmp_path):
    page = Page(browser, server_with(MAX_FILE="0")).enter()
    page.wait_for_text("No chats yet.")
    content = zipped({"conversations.json": json.dumps([seen("file-A")]), "file-A.png": ONE})
    open_panel(page)
    import_all(page, tmp_path, content, "1 chat imported.", "data.zip")
    assert page.texts("#transfer-list li") == [LEFT_OUT[1]]
    assert first_turn(page, "Cats")["content"] == "[image]\n\nWhat is it?"


def damaged():
    """A ZIP with a picture whose bytes do not match their checksum."""
    members = {"conversations.json": json.dumps([seen("file-A")]), "file-A.png": ONE}
    content = bytearray(zipped(members))
    content[content.index(b"file-A.png") + 30] ^= 0xFF
    return bytes(content)


BOMB = {"conversations.json": json.dumps([seen("file-A")]), "file-A.png": ONE + bytes(40_000_000)}


@pytest.mark.parametrize("content", [damaged(), zipped(BOMB)], ids=["damaged", "a bomb"])
def test_a_picture_that_cannot_be_unpacked_leaves_a_mark(page, tmp_path, content):
    open_panel(page)
    import_all(page, tmp_path, content, "1 chat imported.", "data.zip")
    assert page.texts("#transfer-list li") == [LEFT_OUT[1]]
    assert first_turn(page, "Cats")["content"] == "[image]\n\nWhat is it?"


def test_pictures_within_a_conversation_of_open_webui_are_uploaded(page, tmp_path):
    def chat(number, *urls):
        files = [{"type": "image", "url": url} for url in urls]
        messages = {
            "q": chatted("user", "See", files=files),
            "a": chatted("assistant", "Ah.", parent="q", files=files),
        }
        return openwebui(messages, "a", id=f"w-{number}", title=f"Seas {number}")

    webp = url_of(made(page, 90, 60))
    chats = [chat(1, "data:image/png;base64,!", webp), chat(2, url_of(ONE, "image/png"))]
    open_panel(page)
    import_all(page, tmp_path, json.dumps(chats).encode(), "2 chats imported.")
    one, two = first_turn(page, "Seas 1"), first_turn(page, "Seas 2")
    assert one["content"] == "[image]\n\nSee" and two["content"] == "See"
    assert [(each["media_type"], each["width"]) for each in one["files"]] == [("image/png", 90)]
    assert [each["id"] for each in two["files"]] == [IDS[0]]


# Exports


@pytest.fixture
def exported(page, tmp_path):
    """The lines of the file that the page writes for two sessions with pictures."""
    one, large = page.user.uploaded(ONE), page.user.uploaded(LARGE)
    page.user.create("First", files=[one, large, one])
    page.user.create("Without")
    page.user.create("Second", files=[large, page.user.uploaded(TWO)])
    place = tmp_path / "downloads"
    place.mkdir()
    options = {"behavior": "allow", "downloadPath": str(place)}
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", options)
    try:
        open_panel(page)
        page.click("Download all chats")
        finish(page, "3 chats downloaded.")
        page.wait(lambda: list(place.glob("*.ndjson")))
    finally:
        page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "default"})
    [file] = place.iterdir()
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_download_has_each_picture_once_before_the_first_chat_that_needs_it(exported):
    header, *rest, end = exported
    assert header["parley"] == 3 and end == {"end": True, "sessions": 3}
    names = [line.get("file") or line["title"] for line in rest]
    assert names == [IDS[0], IDS[2], "First", "Without", IDS[1], "Second"]
    files = [line for line in rest if "file" in line]
    assert [base64.b64decode(line["data"]) for line in files] == [ONE, LARGE, TWO]
    assert {line["media_type"] for line in files} == {"image/png"}
    assert all(line.keys() == {"file", "media_type", "data"} for line in files)


def test_a_download_is_imported_by_another_user_with_its_pictures(
    page, exported, browser, server, tmp_path
):
    page.click("Sign out")
    other = Page(browser, server).enter()
    open_panel(other)
    import_all(other, tmp_path, lines(*exported), "3 chats imported.")
    assert other.texts("#transfer-list li") == []
    for title in ("First", "Second"):
        assert first_turn(other, title)["files"] == first_turn(page, title)["files"]
    assert other.user.get(f"/files/{IDS[2]}").content == LARGE
    import_all(other, tmp_path, lines(*exported), "0 chats imported, 3 were here already.")


def test_pictures_that_are_missing_or_refused_leave_marks(
    page, exported, browser, server, tmp_path
):
    header, one, large, first, without, two, second, end = exported
    page.click("Sign out")
    other = Page(browser, server).enter()
    open_panel(other)
    two["data"] = base64.b64encode(b"%PDF-1.7").decode()
    large["data"] += "A" * 17_000_000  # longer than a chat may be
    content = lines(header, large, first, without, two, second, end)
    import_all(other, tmp_path, content, "3 chats imported.")
    assert other.texts("#transfer-list li") == ["5 images and files were left out."]
    assert first_turn(other, "First")["content"] == "[image]\n\n[image]\n\n[image]\n\nFirst"
    for session in sessions(other):
        other.user.delete(f"/sessions/{session['id']}")
    two["data"] = one["data"]  # which has another id
    import_all(
        other, tmp_path, lines(header, one, first, without, two, second, end), "3 chats imported."
    )
    assert other.texts("#transfer-list li") == [LEFT_OUT[2]]
    assert [each["id"] for each in first_turn(other, "First")["files"]] == [IDS[0], IDS[0]]
    assert [each["id"] for each in first_turn(other, "Second")["files"]] == [IDS[0]]
