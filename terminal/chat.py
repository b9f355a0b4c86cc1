"""`flask chat`: a talk in the terminal. It knows Parley by its API alone."""

import functools
import re
import sys
import uuid
from collections.abc import Callable
from typing import Any

import click
import requests

import auth
from settings import SettingError, command
from terminal import commands
from terminal.choices import OPTIONS, Choices
from terminal.client import LOST, ODD, Client, Event, Refused
from terminal.prompt import open_history, read_typed, unquoted
from terminal.screen import Screen
from terminal.sessions import Sessions, title_of
from terminal.transcript import Transcript, mark_of

DONE, FAILED, STOPPED = range(3)  # what became of an action; stopped, which is by Ctrl-C
COMMAND = re.compile(r"(/[a-z?]+)(?:\s+(.*))?", re.IGNORECASE | re.DOTALL)
FAREWELLS = ("exit", "quit", "bye", "/exit", "/quit", "/bye")
# As in `ollama run`.
SET_SYSTEM = re.compile(r"\A/set\s+system(?=\s|\Z)")
HELP = """Replies
  /retry           ask again
  /continue        finish the last reply
  /thinking        show what the model thought before the last reply
  Ctrl-C           stop a reply; press it twice to leave

Chats
  /new             begin a new chat (or /clear)
  /list            list the latest chats
  /search WORDS    list the chats that have these words
  /open 3          open number 3 of the last list (or /load 3)
  /history         show all of this chat
  /rename TITLE    give this chat another title
  /delete          delete this chat; /delete 3 deletes number 3 of the last list

Settings, which apply from the next reply
  /model           list the models; /model ID chooses one
  /system TEXT     set the system prompt; /system default removes it
  /set temperature 0.7
                   set an option; /set lists them, and "default" resets one
  /show            show the model, the options and the system prompt

Typing
  \"""              start and end a message of several lines
  Tab              complete a command, a model or an option
  /quit            leave (or /bye, /exit, Ctrl-D)
  To send a line that begins with /, put a space first."""


class Chat:
    """One user's session on a server; the first message creates it, with what was chosen until
    then, where there is none yet."""

    def __init__(self, client: Client, hides_thinking: bool = False, **fields: str | None) -> None:
        self.client, self.screen = client, Screen(hides_thinking)
        self.choices = Choices(client, self.screen, **fields)
        self.transcript = Transcript(client, self.screen, self.follow)
        self.sessions = Sessions(client, self.screen)
        # The first are words alone, the others may have something after them.
        self.commands: dict[str, Callable[[], None]] = {
            "/retry": functools.partial(self.ask_again, "/retry"),
            "/continue": functools.partial(self.ask_again, "/continue"),
            "/history": self.transcript.show_all,
            "/thinking": self.transcript.show_thinking,
            "/new": self.sessions.begin_anew,
            "/clear": self.sessions.begin_anew,
            "/list": self.sessions.list_latest,
            "/help": self.help,
            "/?": self.help,
        }
        self.choosing: dict[str, Callable[[str], None]] = {
            "/model": self.choices.choose_model,
            "/system": self.choices.choose_system,
            "/set": self.choices.choose_option,
            "/show": self.choices.show,
            "/open": self.open_listed,
            "/load": self.open_listed,
            "/search": self.sessions.search,
            "/rename": self.sessions.rename,
            "/delete": self.sessions.delete,
            "/save": self.sessions.save,
        }

    def run(self, action: Callable[..., None], *arguments: Any) -> int:
        """Call this, and return what became of it: Ctrl-C cancels the reply under way, and what
        goes wrong is printed."""
        url, outcome = self.client.url, FAILED
        try:
            with self.screen:
                try:
                    action(*arguments)
                    return DONE
                except KeyboardInterrupt:  # a second one is not caught
                    outcome = STOPPED
                    self.cancel()
                    return STOPPED
        except Refused as error:
            problem = problem_of(error)
        except requests.exceptions.SSLError:
            problem = f"{url} has no https:// that is trusted here. Is it http://?"
        except LOST:
            advice = f"Start it with `{command()} run`, or check --url"
            problem = f"{url} cannot be reached. {advice}, from http:// or https:// on."
        except ODD:
            problem = f"{url} is no Parley. Check --url, which begins with http:// or https://."
        self.screen.say(f"Error: {problem}", err=True)
        return outcome

    def cancel(self) -> None:
        self.screen.skip("^C")
        self.screen.say(" [stopped]", nl=False, err=True)
        hint = ""
        try:
            if self.client.session_id:  # else the reply, if one was asked for, is only left alone
                hint = self.stop(f"/sessions/{self.client.session_id}")
        finally:
            self.screen.say(hint, err=True)

    def stop(self, session: str) -> str:
        """Stop the reply under way. Returns how it can go on, if it can."""
        try:
            self.client.call("POST", f"{session}/cancel")
        except Refused as error:
            if error.status == 409:  # there is none
                return ""
            raise
        # A retry that was stopped has given way to the reply that was there before.
        stored = self.client.get(f"{session}?turns[limit]=1")
        self.sessions.title = title_of(stored)  # it may have been stopped before the event told it
        [turn] = stored["turns"][-1:]
        is_whole = turn.get("status") == "complete" and turn["stop_reason"] != "length"
        return " /continue goes on." if turn["content"] and not is_whole else ""

    # How it begins

    def open(self, session_id: Any, goes_on: bool) -> None:
        """Take this session, the last one, or a new one. What is wrong with the server or the token
        shows here."""
        if not session_id:
            latest = self.client.get("/sessions?page[limit]=1")["data"]
            session_id = latest[0]["id"] if goes_on and latest else None
            if goes_on and not latest:
                self.screen.say("There is no chat yet: this is a new one.", err=True)
        if session_id:
            if self.choices.fields:
                self.client.call("PATCH", f"/sessions/{session_id}", self.choices.fields)
            self.enter(session_id)

    def enter(self, session_id: str) -> None:
        session = self.client.get(f"/sessions/{session_id}?turns[limit]=1")
        self.client.session_id, self.sessions.title = session["id"], title_of(session)
        self.choices.begin_with(session)
        for turn in session["turns"][-1:]:
            self.screen.begin_reply(turn["content"], turn.get("thinking"))  # it may go on

    def greet(self) -> None:
        """Say where the user is: in which chat, with which model, on which server. Show what was
        said last."""
        if not self.choices.model:
            for model in self.client.get("/models")["data"]:
                if model["default"]:
                    self.choices.fields["model"] = model["id"]
        title, model = self.sessions.title, self.choices.model or "no model"
        chat = f'"{title}"' if title else "A new chat"
        self.screen.say(f"{chat} with {model} at {self.client.url}, /? for help")
        if self.client.session_id:
            self.transcript.show_last()

    # What is typed

    def obey(self, text: str) -> None:
        """Send what was typed, or do what it says. A command is a line that begins with a slash and
        one word; the text of a system prompt may have several."""
        text = SET_SYSTEM.sub("/system", text)
        typed = COMMAND.fullmatch(text)
        if typed is None or ("\n" in text and typed[1] != "/system"):
            self.send(text)
            return
        name, words = typed[1], unquoted(typed[2] or "").strip()
        if name in self.choosing:
            self.choosing[name](words)
        elif name in self.commands and not words:
            self.commands[name]()
        else:
            raise Refused(
                "It was not sent: there is no such command, /? lists them. "
                "To send it, put a space first."
            )

    def complete(self, line: str) -> list[str]:
        """What the last word of a line may become."""
        *before, begun = line.split(" ")
        match before:
            case []:
                words = [f"{name} " for name in self.choosing] + [*self.commands, "/quit"]
            case ["/model"]:
                words = self.choices.models()
            case ["/set"]:
                words = [f"{name} " for name in OPTIONS]
            case _:
                words = []
        return [word for word in words if word.startswith(begun)]

    def send(self, text: str) -> None:
        message = {"content": unquoted(text).strip("\n")}
        session_id = self.client.session_id
        self.screen.begin_reply()
        if session_id:
            self.answer(f"/sessions/{session_id}/messages", message)
        else:
            self.answer("/sessions", message | self.choices.fields)
            if not self.sessions.title:  # the event that tells it was lost
                self.enter(self.client.session_id)

    def ask_again(self, command: str) -> None:
        if not self.client.session_id:
            raise Refused("There is no reply yet.")
        if command == "/retry":
            self.screen.begin_reply()
        self.answer(f"/sessions/{self.client.session_id}{command}")

    def open_listed(self, typed: str) -> None:
        self.enter(self.sessions.find(typed))
        self.screen.say(f'"{self.sessions.title}" with {self.choices.model}')
        self.transcript.show_last()

    def help(self) -> None:
        self.screen.say(HELP)

    def talk(self) -> int:
        """Do what is typed, until the user leaves: by a word, by Ctrl-D, or by Ctrl-C twice in a
        row."""
        outcome, readline = self.run(self.greet), open_history(self.complete)
        while True:
            text = read_typed(self.sessions.title, self.choices.model, readline)
            if text is None and outcome != STOPPED:
                self.screen.say("Ctrl-C again, or Ctrl-D, leaves.", err=True)
                outcome = STOPPED
            elif text is None or text.lower() in FAREWELLS:
                return DONE
            else:
                outcome = self.run(self.obey, text) if text else DONE

    # Replies

    def answer(self, path: str, body: dict | None = None) -> None:
        """Ask for a reply, and print it. Where the model of an old session is not served any more,
        the default takes its place."""
        is_old = self.client.session_id
        try:
            self.follow(path, body)
        except Refused as error:
            if not (is_old and self.take_default(error)):
                raise
            if error.reply_status:
                path, body = f"/sessions/{self.client.session_id}/retry", None
            self.follow(path, body)

    def take_default(self, error: Refused) -> bool:
        """Give the session the server's default model, where its own is gone: the server says so by
        its pointer, a provider by a 400 that names the model, which it does not list any more."""
        is_refused, gone = error.pointer == "/model", self.choices.model
        is_named = error.reply_status == 400 and gone.rpartition("/")[2] in str(error)
        if not is_refused and not is_named:
            return False
        models = self.client.get("/models")["data"]
        is_listed = any(model["id"] in (gone, f"{gone}:latest") for model in models)
        default = next((model["id"] for model in models if model["default"]), None)
        if default is None or (is_listed and not is_refused):
            return False
        self.choices.take(model=default)
        sentence = f"[{gone} is not served any more: {default} answers from here on.]"
        self.screen.say(sentence, err=True)
        return True

    def follow(self, post: str | None = None, body: dict | None = None) -> None:
        """Print the latest reply as it comes, or one that is asked for at this path. Raises Refused
        where it failed."""
        for event in self.client.events(self.say_lost, post, body):
            self.show(event)

    def say_lost(self) -> None:
        self.screen.say("No connection. Trying again.", err=True)

    def show(self, event: Event) -> None:
        """Print what an event says. Raises Refused where the reply is not whole."""
        data = event.data
        if event.name in ("content_delta", "assistant_turn", "error"):
            self.screen.end_thinking()
        match event.name:
            case "session":
                self.choices.fields["model"] = data["model"]["id"]
                self.sessions.title = title_of(data)
            case "thinking":
                self.screen.think(data["characters"], data.get("start", 0), data.get("delta", ""))
            case "waiting":
                self.screen.awaits = f"the provider asks to wait {data['seconds']} s"
            case "content_delta":
                self.screen.write(data["delta"])
            case "assistant_turn":
                if data["status"] != "complete":
                    raise Refused(f"The reply is {data['status']}: /continue goes on.")
                if mark := mark_of(data, ": /continue goes on"):
                    self.screen.say(mark, err=True)
            case "error":
                raise Refused(data["message"], reply_status=data["status"])


def problem_of(error: Refused) -> str:
    """With the name of what was chosen before, if that is what the server refuses."""
    name = (error.pointer or "").rpartition("/")[2]
    return f"{name}: {error}" if name in (*OPTIONS, "system", "title") else str(error)


# Click keeps the lines of a paragraph that begins with \b.
@click.command("chat", epilog="\b\n" + HELP.replace("\n\n", "\n\n\b\n"))
@click.argument("message", required=False)
@click.option(
    "--url",
    envvar="PARLEY_URL",
    default="http://127.0.0.1:5000",
    show_default=True,
    help="Or $PARLEY_URL.",
)
@click.option(
    "--token",
    envvar="PARLEY_TOKEN",
    help="Or $PARLEY_TOKEN, or else one that this folder's server signs.",
)
@click.option("-m", "--model", help="The model that answers.")
@click.option("-s", "--system", help="The system prompt.")
@click.option("-c", "--continue", "goes_on", is_flag=True, help="Go on with the last chat.")
@click.option("--session", "session_id", type=click.UUID, help="Go on with this chat.")
@click.option("--list", "is_list", is_flag=True, help="Print the latest chats and their ids.")
@click.option("--hide-thinking", is_flag=True, help="Show nothing of what the model thinks.")
def chat_command(
    message: str | None,
    url: str,
    token: str | None,
    model: str | None,
    system: str | None,
    goes_on: bool,
    session_id: uuid.UUID | None,
    is_list: bool,
    hide_thinking: bool,
) -> None:
    """Chat in the terminal. With MESSAGE, or what is piped in, or with both, which are one message,
    print its reply only."""
    sys.stdout.reconfigure(errors="replace")  # for a terminal that is not in UTF-8
    sys.stdin.reconfigure(errors="surrogateescape")  # the server says so where a message is not
    message = "" if is_list else message_of(message or "")
    try:
        if not token:
            tokens = commands.open_tokens()
            token = tokens.sign(tokens.local_user, 1)
    except (auth.InvalidToken, SettingError, OSError) as error:
        raise click.ClickException(f"Give --token, or set PARLEY_TOKEN. {error}") from None
    chat = Chat(Client(url, token), hide_thinking, model=model, system=system)
    if is_list:
        sys.exit(chat.run(chat.sessions.list_latest, True) != DONE)
    outcome = chat.run(chat.open, session_id, goes_on)
    if outcome == DONE:
        outcome = chat.run(chat.obey, message) if message else chat.talk()
    sys.exit(outcome != DONE)


def message_of(words: str) -> str:
    """What was given, and what was piped in; "" where a person is to type."""
    if sys.stdin.isatty():
        return words
    piped = sys.stdin.read().rstrip()
    if piped:  # in quotes, it is no command
        return f'"""{words}\n\n{piped}"""'
    if not words:
        raise click.ClickException("There is no message: what was piped in is empty.")
    return words
