"""parley-client, the npm package: its types, and its transport in the AI SDK 6 and 7. Modules:
`tools/npm.py`."""

import base64
import json
import shutil
import subprocess
import threading
import uuid

import pytest

import npm
from client import make_token, wait_until
from described import run
from pictures import png
from product import ROOT
from provider import REFUSED, fails, reply, stream, thought
from proxy import Proxy
from raw_tables import tables_of
from servers import Server, npm_folder

SDKS = ["ai-6", "ai-7"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the package is installed, with both releases of the SDK."""
    folder = tmp_path_factory.mktemp("app")
    packages = npm_folder("ai-client") / "node_modules"
    npm.make(folder / "node_modules" / "parley-client")
    for sdk in SDKS:
        (folder / "node_modules" / sdk).symlink_to(packages / sdk)
    for name in ("chat.mjs", "types.ts", "tsconfig.json", "package.json"):
        shutil.copy(packages.parent / name, folder)
    return folder


def test_the_package_has_the_version_of_this_release_and_no_other_files(folder):
    package = folder / "node_modules" / "parley-client"
    told = run("npm", "pack", "--dry-run", "--json", cwd=package).stdout
    [packed] = json.loads(told)
    assert {file["path"] for file in packed["files"]} == {
        "LICENSE",
        "README.md",
        "ai.d.ts",
        "ai.js",
        "openapi.d.ts",
        "package.json",
        "parley.d.ts",
        "parley.js",
    }
    assert (package / "parley.js").read_bytes() == (ROOT / "static" / "parley.js").read_bytes()
    assert packed["version"] == npm.version()
    assert "dependencies" not in json.loads((package / "package.json").read_text())


@pytest.mark.parametrize("sdk", SDKS)
def test_its_types_match_the_description_and_the_sdk(folder, sdk):
    """`types.ts` has code that must compile, and code that must not."""
    tools = npm_folder("openapi-client") / "node_modules" / ".bin"
    run(tools / "openapi-typescript", npm.DESCRIPTION, "--output", "schema.d.ts", cwd=folder)
    place = folder / "node_modules" / "ai"
    place.unlink(missing_ok=True)
    place.symlink_to(folder / "node_modules" / sdk)
    run(tools / "tsc", cwd=folder)


class Chat:
    """A chat of the SDK in Node.js, which gets a person's actions as commands."""

    def __init__(self, folder, *words):
        self.folder = folder
        name = str(uuid.uuid4())
        self.command = ["node", "chat.mjs", *words, f"kept-{name}.json", name]
        self.load()

    def load(self):
        """As when a page is loaded, or reloaded."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(self.command, cwd=self.folder, text=True, **pipes)

    def load_again(self):
        self.end()
        self.load()
        return self.do("look")

    def do(self, does, **options):
        """What it shows then."""
        self.process.stdin.write(json.dumps({"does": does, **options}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return json.loads(line)

    def wait_for(self, *messages, status="ready"):
        """What it shows once these are the last messages, and the chat has this status."""
        return self.wait_until(
            lambda shown: (
                shown["status"] == status and shown["messages"][-len(messages) :] == [*messages]
            )
        )

    def wait_for_parts(self, *parts, status="ready"):
        """What it shows once the last message has these parts. A part that still grows ends in
        an ellipsis."""
        return self.wait_until(
            lambda shown: shown["status"] == status and shown["parts"] == [*parts]
        )

    def wait_until(self, is_there):
        try:
            wait_until(lambda: is_there(self.do("look")))
        except AssertionError:
            raise AssertionError(self.do("look")) from None
        return self.do("look")

    def end(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module", params=SDKS)
def chat_with(request, folder):
    """A function that returns a chat of either SDK with the server at a URL."""
    chats = []

    def chat_with(url, token=None):
        chats.append(Chat(folder, request.param, url, token or make_token()))
        return chats[-1]

    yield chat_with
    for chat in chats:
        chat.end()


@pytest.fixture(scope="module")
def shared(server_with):
    return server_with(MAX_CONTENT_LENGTH="100000")


@pytest.fixture
def alice(shared):
    """A user without a session yet."""
    return shared.client(f"https://github.com/{uuid.uuid4().hex}")


@pytest.fixture
def chat(shared, alice, chat_with):
    chat = chat_with(shared.url, alice.token)
    yield chat
    chat.end()


def turns_of(user):
    """The content of this user's one session."""
    [session] = user.get("/sessions").json()["data"]
    return [f"{turn['kind']}: {turn['content']}" for turn in user.turns(session)]


def last_turn(user):
    [session] = user.get("/sessions").json()["data"]
    return user.turns(session)[-1]


def test_a_message_and_a_further_one_are_answered_word_by_word(chat, alice, provider):
    gate = threading.Event()
    provider.script = [reply("One ", gate, "two."), reply("Three.")]
    assert chat.do("send", text="Hello")["messages"] == ["user: Hello"]
    chat.wait_for("user: Hello", "assistant: One ", status="streaming")
    gate.set()
    shown = chat.wait_for("user: Hello", "assistant: One two.")
    assert shown["metadata"]["status"] == "complete"
    assert shown["metadata"]["model"] == {"id": "m-1"}
    chat.do("send", text="More")
    shown = chat.wait_for("user: More", "assistant: Three.")
    assert shown["messages"] == turns_of(alice)


def test_a_reply_is_complete_though_its_server_is_killed(
    new_database, provider, tmp_path, chat_with
):
    settings = {"DATABASE_URL": new_database(), "OPENAI_BASE_URL": provider.url + "/v1"}
    settings |= {"DEFAULT_MODEL": "m-1", "WEB_CONCURRENCY": 1}
    gates = [threading.Event() for _ in range(2)]
    provider.script = [
        reply(thought(reasoning="Hm."), "One ", gates[0]),
        reply(thought(reasoning="So."), gates[1], "two."),
    ]
    server = Server(tmp_path, **settings).wait_until_up()
    chat = chat_with(server.url)
    try:
        chat.do("send", text="Hello")
        chat.wait_for("user: Hello", "assistant: One ", status="streaming")
        server.kill()
        with tables_of(settings["DATABASE_URL"]) as tables:  # it would lapse by itself, but later
            tables.rows("UPDATE turn SET lease_until = 0 WHERE status = 'in_progress'")
        server.stop()
        server = Server(tmp_path, **settings, port=server.port).wait_until_up()
        parts = ["reasoning: Hm.", "text: One ", "reasoning: So."]
        chat.wait_for_parts(*parts[:2], "reasoning: So.…", status="streaming")
        gates[1].set()
        shown = chat.wait_for_parts(*parts, "text: two.")
        assert shown["messages"] == ["user: Hello", "assistant: One two."]
        assert shown["error"] is None
        assert shown["metadata"]["continued"] == 1
    finally:
        chat.end()
        server.kill()
        server.stop()
    assert len(provider.posts) == 2


def test_a_reloaded_page_has_the_reply_in_progress_from_its_beginning(chat, alice, provider):
    gate = threading.Event()
    provider.script = [reply("Before."), reply("One ", gate, "two.")]
    chat.do("send", text="Hello")
    chat.wait_for("assistant: Before.")
    chat.do("send", text="More")
    chat.wait_for("assistant: One ", status="streaming")
    assert chat.load_again()["messages"] == ["user: Hello", "assistant: Before.", "user: More"]
    chat.do("resumeTwice")  # the stop between them ends nothing
    chat.wait_for("user: More", "assistant: One ", status="streaming")
    gate.set()
    shown = chat.wait_for("user: More", "assistant: One two.")
    assert shown["messages"] == turns_of(alice)
    assert chat.do("resume") and chat.wait_for("assistant: One two.") == shown  # nothing comes


def test_thinking_comes_in_parts_of_its_own_and_is_there_later(chat, provider):
    gates = [threading.Event() for _ in range(3)]
    provider.script = [
        reply(
            *[thought(reasoning="Hm, 👩‍👩‍👧."), gates[0], "One ", gates[1]],
            *[thought(reasoning="So."), gates[2], "two."],
        )
    ]
    chat.do("send", text="Hello")
    chat.wait_for_parts("reasoning: Hm, 👩‍👩‍👧.…", status="streaming")
    gates[0].set()
    chat.wait_for_parts("reasoning: Hm, 👩‍👩‍👧.", "text: One …", status="streaming")
    gates[1].set()
    parts = ["reasoning: Hm, 👩‍👩‍👧.", "text: One ", "reasoning: So."]
    chat.wait_for_parts(*parts[:2], "reasoning: So.…", status="streaming")
    gates[2].set()
    shown = chat.wait_for_parts(*parts, "text: two.")
    thinking = shown["metadata"]["thinking"]
    assert thinking["characters"] == len("Hm, 👩‍👩‍👧.\n\nSo.")
    shown = chat.load_again()
    assert (shown["parts"], shown["metadata"]["thinking"]) == (["text: One two."], thinking)
    assert chat.do("think")["thinking"] == {"text": "Hm, 👩‍👩‍👧.\n\nSo."}


def test_thinking_continues_in_its_part_after_a_cut_connection(shared, alice, chat_with, provider):
    gate, proxy = threading.Event(), Proxy(shared.port)
    provider.script = [
        reply(thought(reasoning="Hm, 👩‍👩‍👧"), gate, thought(reasoning=", so."), "One.")
    ]
    chat = chat_with(proxy.url, alice.token)
    chat.do("send", text="Hello")
    chat.wait_for_parts("reasoning: Hm, 👩‍👩‍👧…", status="streaming")
    proxy.cut()
    wait_until(lambda: b"GET /sessions/" in proxy.sent)
    gate.set()
    chat.wait_for_parts("reasoning: Hm, 👩‍👩‍👧, so.", "text: One.")
    proxy.close()


def test_late_thinking_from_another_process_does_not_split_the_text(
    start, settings, provider, chat_with
):
    """That process sends what is stored: the last thinking may come after the first words."""
    writer, other = start(**settings, WEB_CONCURRENCY=1), start(**settings, WEB_CONCURRENCY=1)
    gates, proxy = [threading.Event() for _ in range(2)], Proxy(writer.port)
    provider.script = [
        reply(
            thought(reasoning="Hm"), gates[0], thought(reasoning=", so."), "One ", gates[1], "two."
        )
    ]
    chat = chat_with(proxy.url)
    chat.do("send", text="Hello")
    chat.wait_for_parts("reasoning: Hm…", status="streaming")
    proxy.target = other.port
    proxy.cut()
    wait_until(lambda: b"GET /sessions/" in proxy.sent)
    gates[0].set()

    def parts_of(kind, shown):
        return [part.strip("…") for part in shown["parts"] if part.startswith(kind)]

    def is_half_there(shown):
        thoughts = "".join(parts_of("reasoning", shown)).replace("reasoning: ", "")
        return thoughts == "Hm, so." and parts_of("text", shown) == ["text: One "]

    chat.wait_until(is_half_there)
    gates[1].set()
    shown = chat.wait_for("user: Hello", "assistant: One two.")
    assert parts_of("text", shown) == ["text: One two."]
    proxy.close()


def test_thinking_that_was_text_has_ended_when_the_text_comes(chat, provider):
    gate = threading.Event()
    provider.script = [reply("<think>Hm.", gate, " Hello.")]
    chat.do("send", text="Hello")
    chat.wait_for_parts("reasoning: Hm.…", status="streaming")
    gate.set()
    shown = chat.wait_for_parts("reasoning: Hm.", "text: <think>Hm. Hello.")
    assert shown["metadata"]["thinking"] is None


def test_thinking_that_is_replaced_has_another_part(provider, chat_with):
    """As from a process that has taken a reply over and lacks the last thinking."""

    def told(name, **data):
        return f"event: {name}\ndata: {json.dumps(data)}\nid: 7-0\n\n".encode()

    provider.script = [
        stream(
            told("thinking", characters=2, start=0, delta="Hm"),
            told("thinking", characters=2, start=0, delta="So"),
            told("thinking", characters=5, start=2, delta=" be"),
            told("content_delta", delta="One "),
            told("thinking", characters=7, start=0, delta="Ah.\n\nOh"),
            told("content_delta", delta="two."),
            told("error", status=502, message="No."),
        )
    ]
    chat = chat_with(provider.url)
    chat.do("send", text="Hello")
    parts = [
        "reasoning: Hm",
        "reasoning: So be",
        "text: One ",
        "reasoning: Ah.\n\nOh",
        "text: two.",
    ]
    chat.wait_for_parts(*parts, status="error")


def test_a_page_that_is_reloaded_before_the_answer_makes_one_session(
    shared, alice, chat_with, provider
):
    gate, proxy = threading.Event(), Proxy(shared.port)
    provider.script = [reply("One ", gate, "two.")]
    chat = chat_with(proxy.url, alice.token)
    proxy.cut_behind = b"HTTP/1.1 201"
    chat.do("send", text="Hello")
    wait_until(lambda: proxy.cut_behind is None)
    assert chat.load_again()["messages"] == ["user: Hello"]
    chat.do("resume")
    chat.wait_for("user: Hello", "assistant: One ", status="streaming")
    gate.set()
    chat.wait_for("user: Hello", "assistant: One two.")
    proxy.close()
    assert turns_of(alice) == ["user: Hello", "assistant: One two."]
    assert len(provider.posts) == 1


def test_a_stop_ends_the_reply_at_the_server(chat, alice, provider):
    provider.script = [reply("One ", threading.Event(), "two.")]
    chat.do("send", text="Hello")
    chat.wait_for("assistant: One ", status="streaming")
    chat.do("stop")
    chat.wait_for("user: Hello", "assistant: One ")
    assert provider.wait_for_request().hung_up.wait(5)
    wait_until(lambda: last_turn(alice)["status"] == "interrupted")


def test_a_stop_before_the_first_word_ends_the_reply_too(chat, alice, provider):
    provider.script = [reply(threading.Event(), "One.")]
    chat.do("send", text="Hello")
    chat.do("stop")  # most often before the server has the message
    chat.wait_for("user: Hello")
    assert provider.wait_for_request().hung_up.wait(5)
    wait_until(lambda: last_turn(alice)["status"] == "interrupted")


def test_the_transport_can_stop_a_reply_too_and_shows_it_as_stored(chat, provider):
    provider.script = [reply("One ", threading.Event(), "two.")]
    chat.do("send", text="Hello")
    chat.wait_for("assistant: One ", status="streaming")
    chat.do("cancel")
    assert chat.wait_for("assistant: One ")["metadata"]["status"] == "interrupted"


def test_a_stopped_reply_continues_in_its_place(chat, alice, provider):
    provider.script = [reply("One ", threading.Event()), reply("two.")]
    chat.do("send", text="Hello")
    chat.wait_for("assistant: One ", status="streaming")
    chat.do("stop")
    wait_until(lambda: last_turn(alice)["status"] == "interrupted")
    chat.do("goOn")
    shown = chat.wait_for("user: Hello", "assistant: One two.")
    assert shown["messages"] == turns_of(alice)


def test_a_new_answer_replaces_the_last(chat, alice, provider):
    provider.script = [reply("One."), reply("Two."), reply("Three.")]
    chat.do("send", text="Hello")
    chat.wait_for("assistant: One.")
    chat.do("regenerate")
    chat.wait_for("user: Hello", "assistant: Two.")
    chat.load_again()
    chat.do("regenerate")
    shown = chat.wait_for("user: Hello", "assistant: Three.")
    assert shown["messages"] == turns_of(alice)


def test_the_last_message_can_be_edited(chat, alice, provider):
    provider.script = [reply("One."), reply("Two."), reply("Three.")]
    chat.do("send", text="Hello")
    chat.wait_for("assistant: One.")
    chat.do("edit", text="Hallo", index=0)
    chat.wait_for("user: Hallo", "assistant: Two.")
    chat.load_again()
    chat.do("edit", text="Servus", index=0)
    shown = chat.wait_for("user: Servus", "assistant: Three.")
    assert shown["messages"] == turns_of(alice)


def test_an_earlier_message_cannot_be_edited(chat, alice, provider):
    provider.script = [reply("One."), reply("Two.")]
    for text, answer in [("Hello", "One."), ("More", "Two.")]:
        chat.do("send", text=text)
        chat.wait_for(f"assistant: {answer}")
    chat.do("edit", text="Hallo", index=0)
    shown = chat.wait_for("user: Hallo", status="error")
    assert shown["error"] == ["Only the last message can be changed, or answered again.", 409]
    assert turns_of(alice) == ["user: Hello", "assistant: One.", "user: More", "assistant: Two."]


def test_a_failure_is_reported_in_a_sentence_and_the_chat_continues(chat, alice, provider):
    provider.script = [fails("Some "), REFUSED, reply("One."), reply("Two.")]
    chat.do("send", text="Hello")
    shown = chat.wait_for("user: Hello", "assistant: Some ", status="error")
    assert "provider" in shown["error"][0] and shown["error"][0].endswith(".")
    chat.do("regenerate")
    chat.wait_for("user: Hello", "assistant: ", status="error")
    chat.do("regenerate")
    chat.wait_for("user: Hello", "assistant: One.")
    chat.do("send", text="More")
    shown = chat.wait_for("user: More", "assistant: Two.")
    assert shown["messages"] == turns_of(alice)


def test_a_refused_message_is_sent_after_an_edit(chat, alice, provider):
    provider.script = [reply("One."), reply("Two.")]
    chat.do("send", text="Hello")
    chat.wait_for("assistant: One.")
    chat.do("send", text="x" * 200_000)
    shown = chat.wait_for("user: " + "x" * 200_000, status="error")
    assert shown["error"][1] == 413 and shown["error"][0].endswith(".")
    chat.do("edit", text="More", index=-1)
    shown = chat.wait_for("user: More", "assistant: Two.")
    assert shown["messages"] == turns_of(alice)


# A picture, and its data URL.
HERON = png(64, 48)
URL = f"data:image/png;base64,{base64.b64encode(HERON).decode()}"


def images_of(user):
    """The ids of the images of each of this user's messages."""
    [session] = user.get("/sessions").json()["data"]
    turns = [turn for turn in user.turns(session) if turn["kind"] == "user"]
    return [[file["id"] for file in turn["files"]] for turn in turns]


def test_images_are_sent_and_stay_through_reload_retry_and_edit(shared, alice, chat_with, provider):
    proxy = Proxy(shared.port)
    chat = chat_with(proxy.url, alice.token)
    provider.script = [reply(f"{number}.") for number in range(5)]
    other = png(64, 48, color=7)
    urls = [URL, URL.replace(*(base64.b64encode(each).decode() for each in (HERON, other)))]
    chat.do("attach", urls=urls)
    chat.wait_for("user: ", "assistant: 0.")
    heron, both = alice.uploaded(HERON), [alice.uploaded(HERON), alice.uploaded(other)]
    assert images_of(alice) == [both]
    chat.load_again()
    told = chat.do("files")
    assert told["files"] == [
        {"type": "file", "mediaType": "image/png", "url": f"{proxy.url}/files/{id}"} for id in both
    ]
    assert [base64.b64decode(each) for each in told["bytes"]] == [HERON, other]
    chat.do("regenerate")
    chat.wait_for("user: ", "assistant: 1.")
    chat.do("edit", text="What?", index=0, keeps=True)
    chat.wait_for("user: What?", "assistant: 2.")
    assert images_of(alice) == [both]
    chat.do("edit", text="Hello", index=0)
    chat.wait_for("user: Hello", "assistant: 3.")
    assert images_of(alice) == [[]]
    assert proxy.sent.count(b"POST /files ") == 2  # all else names what the server has
    chat.do("attach", text="More", urls=[URL])
    chat.wait_for("user: More", "assistant: 4.")
    assert images_of(alice) == [[], [heron]]
    proxy.close()


def test_an_edit_keeps_the_alternative_text_of_an_image(alice, chat, provider):
    session = alice.create(files=[{"id": alice.uploaded(HERON), "alt": "A heron"}])
    chat.do("open", session=session["id"])
    chat.load_again()
    provider.script = [reply("One.")]
    chat.do("edit", text="What?", index=0, keeps=True)
    chat.wait_for("user: What?", "assistant: One.")
    assert alice.turns(session)[0]["files"][0]["alt"] == "A heron"


def test_a_message_without_an_answer_is_kept_without_the_bytes_of_its_images(
    shared, folder, alice, chat_with, provider
):
    """`localStorage` has room for about 5 MB."""
    heron, proxy = alice.uploaded(HERON), Proxy(shared.port)  # so an upload gets a 200
    provider.script = [reply("A heron.")]
    chat = chat_with(proxy.url, alice.token)
    proxy.cut_behind = b"HTTP/1.1 201"
    chat.do("attach", text="What?", urls=[URL])
    wait_until(lambda: proxy.cut_behind is None)
    kept = (folder / chat.command[-2]).read_text()
    assert heron in kept and URL[-40:] not in kept
    chat.load_again()
    chat.do("resume")
    chat.wait_for("user: What?", "assistant: A heron.")
    proxy.close()
    assert images_of(alice) == [[heron]]
    assert len(provider.posts) == 1


def test_a_stop_during_an_upload_sends_nothing(shared, alice, chat_with):
    proxy = Proxy(shared.port)
    chat = chat_with(proxy.url, alice.token)
    proxy.passes.clear()
    chat.do("attach", text="What?", urls=[URL])
    chat.do("stop")
    shown = chat.wait_for("user: What?")
    assert shown["error"] is None
    proxy.passes.set()
    proxy.close()
    assert alice.get("/sessions").json()["data"] == []


def test_unsupported_requests_are_refused_in_sentences(shared, chat, chat_with):
    for url, said in [
        ("data:,x", "This is neither a JPEG nor a PNG."),
        (
            "https://example.com/a.png",
            "Parley does not fetch images from other sites. Attach the image itself.",
        ),
        ("blob:nodedata:0", "The image cannot be read any more. Attach it again."),
    ]:
        chat.do("attach", urls=[url])
        chat.wait_until(lambda shown, said=said: shown["error"] == [said, 400])
    stranger = chat_with(shared.url, "none")
    stranger.do("send", text="Hello")
    shown = stranger.wait_for("user: Hello", status="error")
    assert shown["error"][1] == 401 and shown["error"][0].endswith(".")
