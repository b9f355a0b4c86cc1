"""A user's chats in `flask chat`: listed, found, opened, renamed and deleted.

The module is `terminal/sessions.py`."""

import uuid

import pytest


@pytest.fixture
def alice(server):
    """A user for each test, whose list has no other chats."""
    return server.client(f"https://github.com/alice-{uuid.uuid4().hex}")


@pytest.fixture
def three(alice):
    """Three chats, the newest first: their subjects and their ids."""
    sessions = [alice.create(f"About {topic}") for topic in ("cats", "dogs", "birds")]
    return {session["title"].split()[1]: session["id"] for session in reversed(sessions)}


@pytest.fixture
def chat(three, terminal):
    chat = terminal()
    chat.wait_for("m-1> ")
    return chat


def day(alice):
    return alice.get("/sessions").json()["data"][0]["updated_at"][:10]


def titles(alice):
    return [session["title"] for session in alice.get("/sessions").json()["data"]]


def test_a_chat_is_opened_by_its_number_in_the_list(chat, alice, three, provider):
    chat.type("/list\n")
    rows = ("birds", "dogs", "cats")
    listed = "".join(f"   {n}  {day(alice)}  About {row}\r\n" for n, row in enumerate(rows, 1))
    chat.wait_for(f"/list\r\n{listed}m-1> ")
    chat.type("/open 3\n")
    chat.wait_for('\r\n"About cats" with m-1\r\n> About cats\r\nThe answer.\r\nAbout cats · m-1> ')
    chat.type("More\n")
    chat.wait_for("The answer.\r\nAbout cats · m-1> ")
    turns = alice.turns({"id": three["cats"]})
    assert [turn["content"] for turn in turns][::2] == ["About cats", "More"]
    chat.type("/load 2\n")
    chat.wait_for("About dogs · m-1> ")
    chat.type("/list\n")
    chat.wait_for(f"   1  {day(alice)}  About cats\r\n")
    chat.wait_for(f"*  3  {day(alice)}  About dogs\r\n")
    chat.type(f"/open {three['birds']}\n")
    chat.wait_for("About birds · m-1> ")
    chat.type("/clear\n")
    chat.wait_for("Your next message begins a new chat.\r\nm-1> ")


def test_pinned_chats_come_first_and_say_so(chat, alice, three):
    alice.patch(f"/sessions/{three['cats']}", {"pinned": True})
    chat.type("/list\n")
    today = day(alice)
    chat.wait_for(f"   1  {today}  (pinned) About cats\r\n   2  {today}  About birds\r\n")


def test_chats_are_found_by_their_words(chat, alice, three):
    alice.post(f"/sessions/{three['cats']}/messages", {"content": "50 % & one+more?"})
    chat.type("/search 50 % & one+more?\n")
    chat.wait_for(f"\r\n   1  {day(alice)}  About cats\r\nm-1> ")
    chat.type("/open 1\n")
    chat.wait_for("About cats · m-1> ")
    chat.type("/search zebras\n")
    chat.wait_for("/search zebras\r\nNo chat has these words.\r\nAbout cats · m-1> ")
    chat.type("/open 1\n")
    chat.wait_for("Error: Give the number of a chat: /list and /search show them.\r\n")
    chat.type("/search\n")
    chat.wait_for("Error: Type what to look for: /search WORDS.\r\n")


def test_a_list_says_that_there_are_more(terminal, run, alice):
    for number in range(21):
        turns = [{"kind": "user", "content": f"Chat {number}"}]
        assert alice.post("/sessions/import", {"turns": turns}).status_code == 201
    chat = terminal()
    chat.wait_for("m-1> ")
    for line, hint in (("/list", "/search finds older ones"), ("/search chat", "more words find")):
        chat.type(f"{line}\n")
        chat.wait_for("  20  ")
        chat.wait_for(f"[There are more: {hint}")
    assert len(run(options=["--list"]).stdout.splitlines()) == 20


def test_a_new_chat_takes_the_choices_of_the_opened_one(chat, alice, provider):
    session = alice.create("Hello", system="Be kind.", options={"temperature": 0})
    alice.patch(f"/sessions/{session['id']}", {"model": "m-2"})
    chat.type("/system Be brief.\n")
    chat.wait_for("m-1> ")
    chat.type(f"/open {session['id']}\n")
    chat.wait_for("Hello · m-2> ")
    chat.type("/new\n")
    chat.wait_for("begins a new chat.\r\nm-2> ")
    chat.type("Hi\n")
    chat.wait_for("Hi · m-2> ")
    body = provider.posts[-1].body
    assert (body["model"], body["temperature"]) == ("m-2", 0)
    assert body["messages"][0]["content"] == "Be kind."


def test_a_chat_is_renamed(chat, alice, run):
    chat.type("/rename Nothing\n")
    chat.wait_for("Error: This chat has no message yet.\r\nm-1> ")
    chat.type("Hello\n")
    chat.wait_for("Hello · m-1> ")
    chat.type("/rename Trip to  Oslo\n")
    chat.wait_for("\r\nTrip to Oslo · m-1> ")
    assert titles(alice)[0] == "Trip to  Oslo"
    chat.type("/rename\n")
    chat.wait_for("Error: Type the new title, too: /rename TITLE.\r\n")
    chat.type(f"/rename {'x' * 201}\n")
    chat.wait_for("Error: title: Shorten this to at most 200 characters.\r\nTrip to Oslo · m-1> ")
    chat.type("/save\n")
    chat.wait_for("Chats are always saved. /rename TITLE names this one.\r\n")


def test_a_chat_is_deleted_after_a_yes(chat, alice):
    chat.type("/delete\n")
    chat.wait_for("Error: This chat has no message yet.\r\nm-1> ")
    chat.type("/list\n")
    chat.wait_for("About cats\r\nm-1> ")
    chat.type("/open 1\n")
    chat.wait_for("About birds · m-1> ")
    question = 'Delete "About birds"? [y/N] '
    for answer in ("\n", "n\n", "\x04"):
        chat.type("/delete\n")
        chat.wait_for(f"/delete\r\n{question}")
        chat.type(answer)
        chat.wait_for("\r\nIt was not deleted.\r\nAbout birds · m-1> ")
    chat.type("/delete\n")
    chat.wait_for(question)
    chat.press_ctrl_c()
    chat.wait_for("It was not deleted.\r\nAbout birds · m-1> ")
    assert len(titles(alice)) == 3
    chat.type("/delete 2\n")
    chat.wait_for('Delete "About dogs"? [y/N] ')
    chat.type("y\n")
    chat.wait_for("About birds · m-1> ")
    assert titles(alice) == ["About birds", "About cats"]
    chat.type("/delete\n")
    chat.wait_for(question)
    chat.type("yes\n")
    chat.wait_for("Your next message begins a new chat.\r\nm-1> ")
    assert titles(alice) == ["About cats"]
    chat.type("/open 2\n")
    chat.wait_for("Error: There is no such session. Look it up")


def test_nothing_is_deleted_without_a_terminal_to_ask(run, alice, three):
    done = run(options=["-c", "/delete"])
    problem = "Error: /delete asks before it deletes, and needs a terminal for that.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", problem)
    assert len(titles(alice)) == 3


def test_a_program_gets_ids(run, alice, terminal, three):
    lines = [f"{id}  {day(alice)}  About {topic}" for topic, id in three.items()]
    for options in (["--list"], ["/list"], ["-c", "/search about"]):
        assert run(options=options).stdout.splitlines() == lines
    chat = terminal("--list")
    assert chat.wait_for_end() == 0
    assert chat.screen.splitlines() == lines
