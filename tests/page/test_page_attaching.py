"""Pictures are added to a message, uploaded, sent, and shown in its turn.

Modules: `static/page/attaching.js`, `static/page/unsent-pictures.js`, `static/page/picture-store.js`,
`static/page/picture-list.js`, `static/page/thumbnails.js`, `static/page/viewer.js`."""

import base64

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from browser import LOSE_ANSWERS, Page
from client import make_token
from pictures import DRAW, exif, give, png
from provider import status
from proxy import Proxy
from raw_tables import tables_of

pytestmark = [
    pytest.mark.parametrize("engine", ["sqlite"], indirect=True),  # the page does the same on both
    pytest.mark.usefixtures("engine"),
]

LIST = "#composer .pictures li"
STORED = """
    const [done] = arguments;
    const opening = indexedDB.open("parley /", 1);
    opening.onsuccess = () => {
        const asked = opening.result.transaction("pictures").objectStore("pictures").count();
        asked.onsuccess = () => { opening.result.close(); done(asked.result); };
    };
"""


def drawn(page, width, height, kind="image/jpeg", is_photo=False):
    data = page.driver.execute_async_script(DRAW, width, height, kind, is_photo)
    return base64.b64decode(data)


def choose(page, tmp_path, **files):
    """Choose files with these names in the system's dialog."""
    for name, data in files.items():
        (tmp_path / f"{name}.png").write_bytes(data)
    paths = [str(tmp_path / f"{name}.png") for name in files]
    page.find("#picture-files").send_keys("\n".join(paths))


def wait_for_uploads(page, count):
    """Wait until this many pictures are in the message, and uploaded."""
    page.wait(lambda: len(page.texts(LIST)) == count)
    page.wait(lambda: not page.run("[...document.querySelectorAll('#composer progress')].some((e) => e.checkVisibility())"))  # fmt: skip


def shown(page, place="article"):
    """The names and widths of the pictures in turns that are loaded."""
    page.wait(lambda: page.run("[...document.querySelectorAll(arguments[0] + ' img')].every((e) => e.naturalWidth)", place))  # fmt: skip
    return page.run("[...document.querySelectorAll(arguments[0] + ' img')].map((e) => [e.alt, e.naturalWidth, e.naturalHeight])", place)  # fmt: skip


def sent_images(provider, number=-1):
    """The bytes of the images that the model was sent, and the words after them."""
    [*images, words] = provider.posts[number].body["messages"][-1]["content"]
    urls = [image["image_url"]["url"] for image in images]
    return [base64.b64decode(url.partition(",")[2]) for url in urls], words["text"]


def first_message(page):
    [session] = page.user.get("/sessions").json()["data"]
    return page.user.turns(session)[0]


def test_chosen_pictures_are_sent_and_shown(page, provider, tmp_path):
    choose(page, tmp_path, one=png(64, 48), two=png(30, 20, color=90))
    wait_for_uploads(page, 2)
    assert [name for name, *_ in shown(page, LIST)] == ["one.png, 64×48", "two.png, 30×20"]
    page.say("Which is larger?")
    page.wait_for_turns("Which is larger?", "The answer.")
    assert page.texts(LIST) == []
    images, words = sent_images(provider)
    assert (len(images), words) == (2, "Which is larger?")
    assert [(file["width"], file["height"]) for file in first_message(page)["files"]] == [
        (64, 48),
        (30, 20),
    ]
    expected = [["Image, 64×48", 64, 48], ["Image, 30×20", 30, 20]]
    assert shown(page) == expected
    assert page.driver.execute_async_script(STORED) == 0
    page.driver.refresh()
    page.wait_for_turns("Which is larger?", "The answer.")
    assert shown(page) == expected


def test_a_turn_has_the_height_of_its_pictures_before_they_arrive(page, provider):
    files = [page.user.uploaded(png(1200, 300)), page.user.uploaded(png(200, 900))]
    session = page.user.create("See", files=files)
    page.driver.execute_script(
        """
        const ask = fetch;
        window.held = [];
        window.fetch = async (path, options) => {
            if (path.startsWith("files/")) await new Promise((resolve) => window.held.push(resolve));
            return ask(path, options);
        };
        """
    )
    page.run("location.hash = arguments[0]", session["id"])
    page.wait_for_turns("See", "The answer.")
    page.wait(lambda: page.run("window.held.length") == 2)
    tops = "[...document.querySelectorAll('article > .text')].map((e) => e.getBoundingClientRect().top)"
    before = page.run(tops)
    page.run("window.held.forEach((resolve) => resolve())")
    assert [size[1:] for size in shown(page)] == [[1200, 300], [200, 900]]
    assert page.run(tops) == before


def test_a_pasted_picture_is_sent_without_words_as_soon_as_it_is_uploaded(page, provider):
    webp = drawn(page, 3136, 2000, "image/webp", True)
    page.find("#text").click()
    give(page, "paste", ("image.png", "image/webp", webp))
    page.press(Keys.ENTER)
    page.wait_for_turns("", "The answer.")
    [file] = first_message(page)["files"]
    assert (file["media_type"], file["width"], file["height"]) == ("image/jpeg", 1568, 1000)
    assert page.titles == ["Image"]
    assert not page.shows("article.user .text")


def test_a_picture_next_to_a_pasted_text_is_left_out(page):
    page.find("#text").click()
    give(page, "paste", ("table.png", "image/png", png()), text="1\t2")
    page.find("#search").click()
    give(page, "paste", ("image.png", "image/png", png()))
    give(page, "#thread", ("b.png", "image/png", png(5, 5)))
    page.wait(lambda: page.texts(LIST))
    assert [name for name, *_ in shown(page, LIST)] == ["b.png, 5×5"]


def test_a_message_takes_eight_pictures(page, provider):
    files = [(f"{n}.png", "image/png", png(10 + n, 10)) for n in range(10)]
    give(page, "#list", *files, ("a.pdf", "application/pdf", b"%PDF-1.7"))
    page.wait_for_text("A message takes 8 images: 2 of these were left out.", "#notice")
    wait_for_uploads(page, 8)
    give(page, "#thread", ("a.pdf", "application/pdf", b"%PDF-1.7"))
    page.wait_for_text("Only images can be sent.", "#notice")
    page.click("Remove: 3.png")
    wait_for_uploads(page, 7)
    page.say("All")
    page.wait_for_turns("All", "The answer.")
    images, _ = sent_images(provider)
    assert len(images) == 7
    widths = [file["width"] for file in first_message(page)["files"]]
    assert widths == [10, 11, 12, 14, 15, 16, 17]


def test_a_photo_is_sent_upright_and_without_its_place(browser, server, provider):
    proxy = Proxy(server.port)
    try:
        page = Page(browser, server, proxy.url).enter()
        page.wait(lambda: page.shows("#text"))
        photo = exif(drawn(page, 400, 300), 6)  # its upper edge is on the right
        assert b"GPS 52.5" in photo
        give(page, "#thread", ("photo.jpg", "image/jpeg", photo))
        wait_for_uploads(page, 1)
        assert [size[1:] for size in shown(page, LIST)] == [[300, 400]]
        page.say("Where?")
        page.wait_for_turns("Where?", "The answer.")
        [file] = first_message(page)["files"]
        assert (file["width"], file["height"]) == (300, 400)
        assert b"GPS 52.5" not in proxy.sent and b"Exif" not in proxy.sent
    finally:
        proxy.close()


def test_what_cannot_be_read_is_told_and_can_be_removed(page, provider):
    page.wait_for_text("m-1", "#model")
    give(page, "#thread", ("a.heic", "", b"\0\0\0\x18ftypheic"), ("b.png", "image/png", png()))
    page.wait_for_text("This browser cannot read this image.", "#composer")
    page.say("See")
    page.wait_for_text("Remove the images that could not be uploaded", "#notice")
    assert page.run("document.getElementById('text').value") == "See"
    page.click("Remove: a.heic")
    wait_for_uploads(page, 1)
    page.press(Keys.ENTER)
    page.wait_for_turns("See", "The answer.")
    assert len(sent_images(provider)[0]) == 1


@pytest.fixture
def held(browser, server):
    """A page with a proxy that passes nothing on after the first bytes of an upload."""
    proxy = Proxy(server.port)
    page = Page(browser, server, proxy.url).enter()
    page.wait_for_text("m-1", "#model")
    page.wait_for_text("No chats yet.")
    page.proxy = proxy
    yield page
    proxy.passes.set()
    proxy.close()


def is_uploading(page, progress="#composer progress"):
    return page.run("document.querySelector(arguments[0])?.checkVisibility()", progress)


def test_an_upload_is_cancelled(held, provider):
    page = held
    page.proxy.passes.clear()
    give(page, "#thread", ("one.png", "image/png", png(64, 48)), ("two.png", "image/png", png()))
    page.wait(lambda: len(page.texts(LIST)) == 2)
    page.wait(lambda: is_uploading(page))
    page.click("Cancel: one.png")
    page.proxy.passes.set()
    wait_for_uploads(page, 1)
    page.say("See")
    page.wait_for_turns("See", "The answer.")
    assert len(sent_images(provider)[0]) == 1
    [file] = first_message(page)["files"]
    assert file["width"] == 640


def test_a_reload_in_the_middle_of_an_upload_goes_on(held, provider):
    page = held
    page.proxy.passes.clear()
    give(page, "#thread", ("one.png", "image/png", png(64, 48)))
    page.wait(lambda: is_uploading(page))
    page.wait(lambda: page.driver.execute_async_script(STORED) == 1)
    page.find("#text").send_keys("Half a")
    page.proxy.cut()
    page.proxy.passes.set()
    page.driver.refresh()
    wait_for_uploads(page, 1)
    assert [size[1:] for size in shown(page, LIST)] == [[64, 48]]
    page.press(" thought", Keys.ENTER)
    page.wait_for_turns("Half a thought", "The answer.")
    assert len(sent_images(provider)[0]) == 1


def test_a_lost_connection_only_delays_an_upload(held):
    page = held
    page.proxy.passes.clear()
    give(page, "#thread", ("one.png", "image/png", png(64, 48)))
    page.wait(lambda: is_uploading(page))
    # The page tries once more at once, since only another request can tell a redirect.
    page.wait(lambda: page.proxy.cut() or "is lost" in page.text("#connection"))
    page.proxy.passes.set()
    wait_for_uploads(page, 1)
    assert page.text("#connection") == ""


def test_pictures_stay_with_their_draft_through_an_expired_sign_in(page, server, provider):
    session = page.user.create("Before")
    page.run("location.hash = arguments[0]", session["id"])
    page.wait_for_turns("Before", "The answer.")
    give(page, "#thread", ("one.png", "image/png", png(64, 48)))
    wait_for_uploads(page, 1)
    page.click("New chat")
    page.wait(lambda: page.texts(LIST) == [])
    page.driver.execute_script(
        "sessionStorage.setItem('token', arguments[0])", make_token(page.subject, exp=1)
    )
    page.driver.refresh()
    page.wait_for_text("The token has expired.", "#sign-in-page")
    with tables_of(server.database) as tables:
        tables.rows("DELETE FROM file WHERE owner = ?", page.subject)
    page.enter()
    page.click("Before")
    page.wait_for_turns("Before", "The answer.")
    wait_for_uploads(page, 1)
    page.say("And this?")  # its file is gone: it is uploaded again
    page.wait_for_turns("Before", "The answer.", "And this?", "The answer.")
    assert [file["width"] for file in page.user.turns(session)[2]["files"]] == [64]
    assert len(sent_images(provider)[0]) == 1


def test_a_message_that_is_refused_comes_back_with_its_pictures(page, provider):
    page.wait_for_text("m-1", "#model")
    page.driver.execute_script(
        """
        const ask = fetch;
        window.fetch = async (path, options) => {
            const isMessage = options.method === "POST" && `${path}`.endsWith("/sessions");
            if (!isMessage || window.isOpen) return ask(path, options);
            const body = JSON.stringify({ errors: [{ detail: "Not now." }] });
            const headers = { "X-Request-ID": "1", "Content-Type": "application/json" };
            return new Response(body, { status: 429, headers });
        };
        """
    )
    give(page, "#thread", ("one.png", "image/png", png(64, 48)))
    wait_for_uploads(page, 1)
    page.say("See")
    page.wait_for_text("Not now.", "#notice")
    wait_for_uploads(page, 1)
    page.driver.execute_script("window.isOpen = true")
    page.press(Keys.ENTER)
    page.wait_for_turns("See", "The answer.")
    assert page.texts(LIST) == []


def test_a_message_whose_answer_is_lost_leaves_no_pictures_in_the_draft(page, provider):
    page.wait_for_text("m-1", "#model")
    session = page.user.create("Before")
    page.run("location.hash = arguments[0]", session["id"])
    page.wait_for_turns("Before", "The answer.")
    give(page, "#thread", ("one.png", "image/png", png(64, 48)))
    wait_for_uploads(page, 1)
    page.driver.execute_script(LOSE_ANSWERS)
    page.say("See")
    page.wait(lambda: len(provider.posts) == 2)
    page.wait(lambda: len(page.user.turns(session)) == 4)
    page.driver.refresh()
    page.wait_for_turns("Before", "The answer.", "See", "The answer.")
    assert page.texts(LIST) == []
    assert page.run("document.getElementById('text').value") == ""


# Descriptions, and the viewer


def test_a_description_is_typed_and_stays(page, provider):
    give(page, "#thread", ("one.png", "image/png", png(64, 48)))
    wait_for_uploads(page, 1)
    page.click("ALT text: one.png")
    page.wait(lambda: page.texts("dialog"))
    page.press("A heron")
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.texts("dialog"))
    page.driver.refresh()
    wait_for_uploads(page, 1)
    assert shown(page, LIST) == [["A heron", 64, 48]]
    page.say("What?")
    page.wait_for_turns("What?", "The answer.")
    assert first_message(page)["files"][0]["alt"] == "A heron"
    page.driver.refresh()
    page.wait_for_turns("What?", "The answer.")
    assert shown(page) == [["A heron", 64, 48]]


def test_a_description_that_is_typed_after_a_reload_stays_too(page):
    give(page, "#thread", ("one.png", "image/png", png(64, 48)))
    wait_for_uploads(page, 1)
    page.driver.refresh()
    wait_for_uploads(page, 1)
    page.click("ALT text: one.png")
    page.wait(lambda: page.texts("dialog"))
    page.press("A heron", Keys.ESCAPE)
    page.wait(lambda: not page.texts("dialog"))
    page.driver.refresh()
    wait_for_uploads(page, 1)
    assert shown(page, LIST) == [["A heron", 64, 48]]


def test_a_click_opens_a_picture_and_arrows_lead_to_the_others(page):
    page.wait_for_text("m-1", "#model")
    files = [page.user.uploaded(png(width, 48)) for width in (64, 65)]
    session = page.user.create("Both", files=files)
    page.user.post(
        f"/sessions/{session['id']}/messages",
        {"content": "Third", "files": [page.user.uploaded(png(66, 48))]},
    )
    page.run("location.hash = arguments[0]", session["id"])
    page.wait(lambda: len(page.turns) == 4)
    shown(page)
    page.find("article .picture").click()
    page.wait(lambda: page.text("dialog h2") == "Image, 64×48")
    assert "1 of 3" in page.text("dialog") and not page.shows("dialog input")
    page.press(Keys.ARROW_LEFT)
    page.wait(lambda: page.text("dialog h2") == "Image, 66×48")
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    page.wait(lambda: page.text("dialog h2") == "Image, 65×48")
    assert shown(page, "dialog") == [["Image, 65×48", 65, 48]]
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.texts("dialog"))
    assert page.run("document.activeElement.className") == "picture"


def test_a_picture_that_is_gone_is_told(page, server):
    session = page.user.create("See", files=[page.user.uploaded(png(64, 48))])
    with tables_of(server.database) as tables:
        tables.rows("UPDATE file SET owner = 'another' || owner WHERE owner = ?", page.subject)
    page.run("location.hash = arguments[0]", session["id"])
    page.wait(lambda: page.shows("article .picture.broken"))
    assert page.run("document.querySelector('.picture').title") == "You have no such file."
    page.driver.get_log("browser")  # the console tells of the 404


# After sending


def test_an_edit_keeps_drops_and_adds_pictures(page, provider):
    ids = [page.user.uploaded(png(width, 48)) for width in (64, 65)]
    session = page.user.create("Both", files=[ids[0], {"id": ids[1], "alt": "A heron"}])
    page.run("location.hash = arguments[0]", session["id"])
    page.wait_for_turns("Both", "The answer.")
    page.click("Edit")
    page.wait(lambda: len(page.texts("article form .pictures li")) == 2)
    page.click("Remove: Image, 64×48")
    page.wait(lambda: len(page.texts("article form .pictures li")) == 1)
    give(page, "article textarea", ("new.png", "image/png", png(66, 48)))
    page.wait(lambda: len(page.texts("article form .pictures li")) == 2)
    assert page.texts(LIST) == []
    page.driver.refresh()
    page.wait(lambda: len(page.texts("article form .pictures li")) == 2)
    page.click("Send")
    page.wait_for_turns("Both", "The answer.")
    files = page.user.turns(session)[0]["files"]
    assert [(file["width"], file.get("alt")) for file in files] == [(65, "A heron"), (66, None)]
    assert [size[1] for size in shown(page)] == [65, 66]
    assert len(sent_images(provider)[0]) == 2


def test_an_edit_of_an_earlier_message_and_a_fork_keep_pictures(page, provider):
    session = page.user.create("See", files=[page.user.uploaded(png(64, 48))])
    page.user.post(f"/sessions/{session['id']}/messages", {"content": "More"})
    page.run("location.hash = arguments[0]", session["id"])
    page.wait_for_turns("See", "The answer.", "More", "The answer.")
    page.find("article:nth-child(1) .edit").click()
    page.press("!", Keys.ENTER)
    page.wait_for_turns("See!", "The answer.")
    assert [size[1] for size in shown(page)] == [64]
    page.find("article:nth-child(1) [value=fork]").click()
    page.wait_for_turns("See!")
    page.click("Retry")
    page.wait_for_turns("See!", "The answer.")
    assert [size[1] for size in shown(page)] == [64]
    assert len(sent_images(provider)[0]) == 1


def listed(name, *sees):
    return {"id": name, "architecture": {"input_modalities": ["text", *sees]}}


def test_a_model_that_sees_nothing_is_told(browser, server_with, provider):
    provider.models = status(200, {"data": [listed("m-1", "image"), listed("m-2")]})
    page = Page(browser, server_with(DEFAULT_MODEL="m-1", MODELS="")).enter()
    page.wait_for_text("m-2", "#model")
    page.wait(lambda: page.shows("#attach"))
    give(page, "#thread", ("one.png", "image/png", png(64, 48)))
    wait_for_uploads(page, 1)
    select = Select(page.find("#model"))
    select.select_by_visible_text("m-2")
    page.wait(lambda: page.shows("#blind"))
    assert page.text("#blind") == "m-2 sees no images. Choose another model, or remove them."
    assert not page.shows("#attach")
    give(page, "#thread", ("two.png", "image/png", png()))
    page.wait_for_text("m-2 sees no images. Choose another model to send one.", "#notice")
    select.select_by_visible_text("m-1")
    page.wait(lambda: not page.shows("#blind"))
    page.say("See")
    page.wait_for_turns("See", "The answer.")
    select.select_by_visible_text("m-2")
    page.wait(lambda: page.shows("#blind"))
    assert page.text("#blind") == "m-2 sees no images. It gets [image] in their place."


def test_what_a_refusal_teaches_is_shown_at_once(browser, server_with, provider):
    page = Page(browser, server_with(WEB_CONCURRENCY=1)).enter()
    page.wait_for_text("m-1", "#model")
    give(page, "#thread", ("one.png", "image/png", png(64, 48)))
    wait_for_uploads(page, 1)
    provider.script = [
        status(400, {"error": {"message": "this model does not support image input"}})
    ]
    page.say("See")
    page.wait(lambda: len(page.turns) == 2 and page.is_idle)
    page.wait(lambda: page.shows("#blind"))
    assert page.text("#blind") == "m-1 sees no images. It gets [image] in their place."
    assert not page.shows("#attach")


def test_signing_out_removes_the_pictures_of_drafts(page):
    give(page, "#thread", ("one.png", "image/png", png(64, 48)))
    wait_for_uploads(page, 1)
    assert page.driver.execute_async_script(STORED) == 1
    page.find("#account-button").click()
    page.click("Sign out")
    page.wait(lambda: page.shows("#token"))
    assert page.driver.execute_async_script(STORED) == 0


def test_a_server_without_images_offers_no_button(browser, server_with):
    page = Page(browser, server_with(MAX_FILE="0")).enter()
    page.wait_for_text("m-1", "#model")
    page.wait(lambda: not page.shows("#attach"))
    give(page, "#thread", ("one.png", "image/png", png(64, 48)))
    page.wait_for_text("This server takes no images.", "#notice")
    assert page.texts(LIST) == []
