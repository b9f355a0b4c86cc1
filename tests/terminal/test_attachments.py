"""Images in `flask chat`: those of the command line, and those of `/attach`."""

import contextlib
import itertools
import os
import subprocess

import pytest

from chats import first_session
from pictures import png
from provider import Provider, status

colors = itertools.count(1)


@pytest.fixture
def picture(tmp_path):
    """A function that writes a picture, which no server has yet, into a file of this name."""

    def picture(name, width=64, height=48):
        path = os.path.join(os.fsencode(tmp_path), os.fsencode(name))
        with open(path, "wb") as file:
            file.write(png(width, height, 100, next(colors)))
        return os.fsdecode(path)

    return picture


def seen(provider):
    """What the model gets of the last message: its texts, and None for an image."""
    content = provider.posts[-1].body["messages"][-1]["content"]
    is_text = isinstance(content, str)
    return [content] if is_text else [part.get("text") for part in content]


def names(client):
    """The alternative texts of each message in the last session."""
    turns = client.turns(first_session(client))
    return [[file.get("alt") for file in turn.get("files", ())] for turn in turns[::2]]


# On the command line


def test_images_of_the_command_line_go_with_the_message(run, alice, provider, picture):
    options = ["-a", picture("photo.jpg"), "--attach", picture("b.png")]
    done = run("piped\n", options=[*options, "/retry"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "The answer.\n", "")
    assert seen(provider) == [None, None, "/retry\n\npiped"]
    assert names(alice) == [["photo.jpg", "b.png"]]
    assert run(options=[*options, "-c", "/retry"]).stdout == "The answer.\n"
    assert seen(provider) == [None, None, "/retry"]


def test_an_image_may_come_from_standard_input(command, alice, provider):
    def run(*options):
        asked = command("-a", "-", *options) | {"encoding": None}
        return subprocess.run(**asked, input=png(65, 48), capture_output=True, timeout=60)

    done = run("")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"The answer.\n", b"")
    assert seen(provider) == [None]
    assert names(alice) == [[None]]
    done = run()
    problem = b'Error: Give a message, too, or "": standard input is the image.\n'
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", problem)


def test_an_image_of_the_command_line_goes_with_the_first_message_that_is_typed(
    terminal, provider, picture
):
    chat = terminal("-a", picture("photo.jpg"))
    chat.wait_for("/? for help\r\n[image 64×48 photo.jpg] goes with your next message.\r\nm-1> ")
    chat.type("What?\n")
    chat.wait_for("What? · m-1> ")
    assert seen(provider) == [None, "What?"]


@pytest.mark.parametrize(
    "name, problem",
    [
        ("none.png", " cannot be read: No such file or directory."),
        (".", " cannot be read: Is a directory."),
        ("text.png", ": This is neither a JPEG nor a PNG."),
        ("empty.png", ": This is neither a JPEG nor a PNG."),
    ],
)
def test_what_is_no_image_is_an_error(name, problem, run, provider, tmp_path):
    (tmp_path / "text.png").write_text("text")
    (tmp_path / "empty.png").touch()
    done = run(options=["-a", f"{tmp_path}/{name}", "What?"])
    said = f"Error: {tmp_path}/{name}{problem}\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
    assert not provider.posts


@pytest.mark.parametrize(
    "meta, problem",
    [
        ({"max_file": 4}, "/dev/zero is too large: this server takes at most 4 bytes."),
        ({"max_file": 0}, "This server takes no images."),
        ({}, "This server takes no images."),  # of an older release
    ],
)
def test_no_more_is_read_than_the_server_takes(meta, problem, run):
    with contextlib.closing(Provider()) as server:
        server.models = status(200, {"data": [], "meta": meta})
        done = run(options=["-a", "/dev/zero", "What?"], url=server.url)
        assert (done.returncode, done.stderr) == (1, f"Error: {problem}\n")
        assert not server.posts


# While chatting


@pytest.fixture
def chat(terminal):
    chat = terminal()
    chat.wait_for("m-1> ")
    return chat


def test_attached_images_go_with_the_next_message(chat, alice, provider, picture):
    paths = [picture(name) for name in ("my photo.jpg", "b.png", "it's.png")]
    chat.type(f"/attach {paths[0]}\n")
    chat.wait_for("\r\n[image 64×48 my photo.jpg] goes with your next message.\r\nm-1> ")
    chat.type("/attach '{}' {} \n".format(paths[1], paths[0].replace(" ", "\\ ")))
    chat.wait_for("[image 64×48 b.png] goes with your next message.\r\n")
    chat.wait_for("[image 64×48 my photo.jpg] goes with your next message.\r\nm-1> ")
    chat.type("/attach none\n")
    chat.wait_for("/attach none\r\nNo image goes with your next message.\r\nm-1> ")
    chat.type("/attach ~/it's.png\n")
    chat.wait_for("\r\n[image 64×48 it's.png] goes")
    chat.type("/attach -\n")
    chat.wait_for("Error: - cannot be read: No such file or directory.\r\nm-1> ")
    chat.type("/attach it's.png\n")
    chat.wait_for("Error: it's.png cannot be read: No such file or directory.\r\nm-1> ")
    chat.type("/new\n")
    chat.wait_for("begins a new chat.\r\nm-1> ")
    chat.type("/attach\n")
    chat.wait_for("/attach\r\n[image 64×48 it's.png] goes with your next message.\r\nm-1> ")
    chat.type("What?\n")
    chat.wait_for("What? · m-1> ")
    assert seen(provider) == [None, "What?"]
    chat.type("And now?\n")
    chat.wait_for("What? · m-1> ")
    assert seen(provider) == ["And now?"]
    assert names(alice) == [["it's.png"], []]
    chat.type("/history\n")
    chat.wait_for("/history\r\n> [image 64×48 it's.png] What?\r\nThe answer.\r\n> And now?\r\n")


def test_images_stay_attached_until_a_message_is_stored(chat, provider, picture):
    provider.script = [status(401, {})]
    chat.type(f"/attach {picture('a.png')}\n")
    chat.wait_for("goes with your next message.\r\nm-1> ")
    chat.type("/set temperature 9\n")
    chat.wait_for("temperature 9\r\nm-1> ")
    chat.type("What?\n")
    chat.wait_for("Error: temperature: ")
    chat.wait_for("m-1> ")
    assert not provider.posts
    chat.type("/set temperature default\n")
    chat.wait_for("temperature default\r\nm-1> ")
    chat.type("What?\n")
    chat.wait_for("Error: ")
    chat.wait_for("What? · m-1> ")
    assert seen(provider) == [None, "What?"]
    chat.type("/retry\n")
    chat.wait_for("The answer.\r\nWhat? · m-1> ")
    assert seen(provider) == [None, "What?"]
    chat.type("Next\n")
    chat.wait_for("The answer.\r\nWhat? · m-1> ")
    assert seen(provider) == ["Next"]


def test_a_retry_does_not_take_what_is_attached(chat, provider, picture):
    chat.type("Hello\n")
    chat.wait_for("Hello · m-1> ")
    chat.type(f"/attach {picture('a.png')}\n")
    chat.wait_for("goes with your next message.\r\n")
    chat.type("/retry\n")
    chat.wait_for("The answer.\r\nHello · m-1> ")
    assert seen(provider) == ["Hello"]
    chat.type('""""""\n')
    chat.wait_for("The answer.\r\nHello · m-1> ")
    assert seen(provider) == [None]


def test_images_that_the_server_has_deleted_are_uploaded_again(
    start, settings, tables, terminal, provider, picture
):
    chat = terminal(url=start(**settings, WEB_CONCURRENCY=1).url)
    chat.type(f"/attach {picture('a.png')}\n")
    chat.wait_for("goes with your next message.\r\nm-1> ")
    tables.rows("DELETE FROM file_part")
    tables.rows("DELETE FROM file")
    chat.type("What?\n")
    chat.wait_for("The answer.\r\nWhat? · m-1> ")
    assert seen(provider) == [None, "What?"]


def test_a_message_has_at_most_eight_images(chat, picture):
    paths = [picture(f"{number}.png") for number in range(9)]
    chat.type(f"/attach {' '.join(os.path.relpath(path) for path in paths)}\n")
    chat.wait_for("[image 64×48 7.png] goes with your next message.\r\nError: ")
    chat.wait_for("8.png was not attached: a message has at most 8 images.\r\nm-1> ")


def test_a_name_may_have_any_bytes(terminal, alice, picture):
    chat = terminal("-a", picture(b"odd\x1b[31m\n\xff.png"))
    chat.wait_for("\r\n[image 64×48 odd [31m �.png] goes with your next message.\r\nm-1> ")
    chat.type("What?\n")
    chat.wait_for("What? · m-1> ")
    assert names(alice) == [["odd [31m �.png"]]


def test_tab_completes_the_path_of_an_image(chat, picture, tmp_path):
    (tmp_path / "my photos").mkdir()
    picture("my photos/[1] of two.png")
    picture(b"my photos/\x1b[31m.png")
    chat.type("/attach ~/my\t[\t\n")
    chat.wait_for("[image 64×48 [1] of two.png] goes with your next message.\r\n")


# Uploads


@pytest.mark.parametrize("behind", [b" 201", b"media_type"])
def test_an_upload_whose_answer_is_lost_is_tried_again(behind, terminal, proxy, picture):
    chat = terminal(url=proxy.url)
    chat.wait_for("m-1> ")
    proxy.cut_behind = behind
    chat.type(f"/attach {picture('a.png')}\n")
    chat.wait_for("No connection. Trying again.\r\n[image 64×48 a.png] goes")
    assert proxy.cut_behind is None


def test_an_upload_waits_until_the_server_has_room(run, tmp_path):
    (tmp_path / "a.png").write_text("5")  # this stand-in for the server reads JSON
    file = {"id": "f", "media_type": "image/png", "width": 1, "height": 1, "size": 1}
    busy = status(503, {"errors": [{"detail": "Two are in progress."}]}, Retry_After=1)
    refused = status(400, {"errors": [{"detail": "Not today."}]})
    with contextlib.closing(Provider()) as server:
        server.models = status(200, {"data": [], "meta": {"max_file": 4}})
        server.script = [busy, busy, status(201, file), refused]
        done = run(options=["-a", f"{tmp_path}/a.png", "What?"], url=server.url)
        assert (done.returncode, done.stderr) == (1, "Error: Not today.\n")
        assert [request.path for request in server.posts] == ["/files"] * 3 + ["/sessions"]
        assert server.posts[-1].body["files"] == [{"id": "f", "alt": "a.png"}]
