"""`flask chat`: a talk in the terminal. It knows Parley by its API alone."""

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
from terminal.client import LOST, ODD, Client, Event, Refused
from terminal.screen import QUOTED, Screen, open_history, read_typed

DONE, FAILED, STOPPED = range(3)  # what became of an action; stopped, which is by Ctrl-C
COMMAND = re.compile(r"/[a-z?]+(\s|$)", re.IGNORECASE)
FAREWELLS = ("exit", "quit", "bye", "/exit", "/quit", "/bye")
HELP = """/retry has the last reply anew, /continue has it go on
/model lists the models, /model ID takes one
/new begins a new session, /list lists the latest
/quit, exit and Ctrl-D leave; Ctrl-C stops a reply, twice leaves
\""" begins and ends several lines; a blank before such a word sends it"""


class Chat:
    """One user's session on a server; the first message creates it, with these fields, where there
    is none yet."""

    def __init__(self, client: Client, **fields: str | None) -> None:
        self.client, self.screen = client, Screen()
        # Its model is the one that answers.
        self.fields = {name: value for name, value in fields.items() if value}

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
            problem = str(error)
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
        self.screen.say(" [stopped]", err=True)
        session_id = self.client.session_id
        if session_id:  # else the reply, if one was asked for, is only left alone
            self.client.call("POST", f"/sessions/{session_id}/cancel")

    # How it begins

    def open(self, session_id: Any, goes_on: bool) -> None:
        """Take this session, the last one, or a new one. What is wrong with the server or the token
        shows here."""
        if not session_id:
            latest = self.client.get("/sessions?page[limit]=1")["data"]
            session_id = latest[0]["id"] if goes_on and latest else None
            if goes_on and not latest:
                self.screen.say("There is no session yet: this is a new one.", err=True)
        if session_id:
            path = f"/sessions/{session_id}?turns[limit]=1"
            method = "PATCH" if self.fields else "GET"
            session = self.client.call(method, path, self.fields or None).json()
            self.client.session_id = session["id"]
            self.fields["model"] = session["model"]["id"]

    def greet(self) -> None:
        """Say where the user is, with which model, and show what has been said."""
        if "model" not in self.fields:
            for model in self.client.get("/models")["data"]:
                if model["default"]:
                    self.fields["model"] = model["id"]
        model = self.fields.get("model", "no model")
        self.screen.say(f"{self.client.url}, {model}, /? for help")
        if self.client.session_id:
            self.show_session()

    def show_session(self) -> None:
        response = self.client.call("GET", f"/sessions/{self.client.session_id}")
        session, first_sent = response.json(), response.headers.get("First-Turn-Sent", "")
        if session.get("meta", {}).get("has_more"):
            self.screen.say("[The beginning of this session is too long to be shown.]")
        for turn in session["turns"]:
            if turn.get("id") == first_sent:
                self.screen.say("[The model no longer sees what is above.]")
            if turn["kind"] == "user":
                self.screen.say("> " + turn["content"].replace("\n", "\n> "))
            elif turn["status"] == "in_progress":
                self.follow()
            else:
                self.screen.say(turn["content"] + mark_of(turn))

    # What is typed

    def obey(self, text: str) -> None:
        """Send what was typed, or do what it says: a command is a line that begins with a slash and
        one word."""
        if "\n" in text or not COMMAND.match(text):
            self.send(text)
            return
        match text.split():
            case ["/retry" | "/continue" as command]:
                self.ask_again(command)
            case ["/model"]:
                self.list_models()
            case ["/model", model]:
                self.take_model(model)
            case ["/new"]:
                self.client.session_id = None
                self.screen.say("Your next message begins a new session.", err=True)
            case ["/list"]:
                self.list_sessions()
            case ["/?" | "/help"]:
                self.screen.say(HELP)
            case _:
                raise Refused(
                    "It was not sent: there is no such command, /? lists them. "
                    "To send it, put a blank before it."
                )

    def send(self, text: str) -> None:
        message = {"content": QUOTED.sub(r"\1", text).strip("\n")}
        session_id = self.client.session_id
        if session_id:
            self.answer(f"/sessions/{session_id}/messages", message)
        else:
            self.answer("/sessions", message | self.fields)

    def ask_again(self, command: str) -> None:
        if not self.client.session_id:
            raise Refused("There is no reply yet.")
        self.answer(f"/sessions/{self.client.session_id}{command}")

    def list_models(self) -> None:
        for model in self.client.get("/models")["data"]:
            mark = "*" if model["id"] == self.fields.get("model") else " "
            self.screen.say(f"{mark} {model['id']}")

    def take_model(self, model: str) -> None:
        if self.client.session_id:
            self.client.call("PATCH", f"/sessions/{self.client.session_id}", {"model": model})
        self.fields["model"] = model

    def list_sessions(self) -> None:
        for session in self.client.get("/sessions")["data"]:
            day, title = session["updated_at"][:10], " ".join(session["title"].split())
            self.screen.say(f"{session['id']}  {day}  {title}")

    def talk(self) -> int:
        """Do what is typed, until the user leaves: by a word, by Ctrl-D, or by Ctrl-C twice in a
        row."""
        outcome, readline = self.run(self.greet), open_history()
        while True:
            text = read_typed(self.fields.get("model", ""), readline)
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
        is_refused, gone = error.pointer == "/model", self.fields.get("model", "")
        is_named = error.reply_status == 400 and gone.rpartition("/")[2] in str(error)
        if not is_refused and not is_named:
            return False
        models = self.client.get("/models")["data"]
        is_listed = any(model["id"] in (gone, f"{gone}:latest") for model in models)
        default = next((model["id"] for model in models if model["default"]), None)
        if default is None or (is_listed and not is_refused):
            return False
        self.take_model(default)
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
        match event.name:
            case "session":
                self.fields["model"] = data["model"]["id"]
            case "thinking":
                self.screen.awaits = f"thinking: {data['characters']} characters"
            case "waiting":
                self.screen.awaits = f"the provider asks to wait {data['seconds']} s"
            case "content_delta":
                self.screen.say(data["delta"], nl=False)
            case "assistant_turn":
                if data["status"] != "complete":
                    raise Refused(f"The reply is {data['status']}: /continue goes on.")
                if mark := mark_of(data, ": /continue goes on"):
                    self.screen.say(mark, err=True)
            case "error":
                raise Refused(data["message"], reply_status=data["status"])


def mark_of(turn: dict[str, Any], hint: str = "") -> str:
    """What is to be said behind a reply that went on, or is not whole."""
    # A server of an older release says nothing of it.
    mark = " [went on after an interruption]" if turn.get("continued") else ""
    if turn.get("stop_reason") == "length":
        return f"{mark} [cut at the limit{hint}]"
    return mark if turn["status"] == "complete" else f"{mark} [{turn['status']}]"


@click.command("chat", epilog="\b\n" + HELP)
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
@click.option("--model", help="The model that answers.")
@click.option("--system", help="The system prompt.")
@click.option("-c", "--continue", "goes_on", is_flag=True, help="Go on with the last session.")
@click.option("--session", "session_id", type=click.UUID, help="Go on with this session.")
@click.option("--list", "is_list", is_flag=True, help="Print the latest sessions, and leave.")
def chat_command(
    message: str | None,
    url: str,
    token: str | None,
    model: str | None,
    system: str | None,
    goes_on: bool,
    session_id: uuid.UUID | None,
    is_list: bool,
) -> None:
    """Chat in the terminal. With MESSAGE, or what is piped in, or with both, which are one message,
    print its reply only."""
    sys.stdout.reconfigure(errors="replace")  # for a terminal that is not in UTF-8
    sys.stdin.reconfigure(errors="surrogateescape")  # the server says so where a message is not
    message = "/list" if is_list else message_of(message or "")
    try:
        token = token or commands.open_tokens().sign(auth.LOCAL_USER, 1)
    except (auth.InvalidToken, SettingError, OSError) as error:
        raise click.ClickException(f"Give --token, or set PARLEY_TOKEN. {error}") from None
    chat = Chat(Client(url, token), model=model, system=system)
    outcome = DONE if is_list else chat.run(chat.open, session_id, goes_on)
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
