"""`flask chat`: a conversation in the terminal, by Parley's API alone."""

import re
import sys
import uuid
from collections.abc import Callable
from typing import Any

import click
import requests

import auth
from clients.python.parley_client import Event, ParleyError, Reply
from providers.options import OPTIONS
from settings import SettingError, command
from terminal import commands
from terminal.attachments import STANDARD_INPUT, Attachments, completed
from terminal.choices import Choices
from terminal.client import Client, Refused, with_reason
from terminal.prompt import open_history, read_typed, unquoted
from terminal.screen import Screen
from terminal.sessions import Sessions, title_of
from terminal.transcript import Transcript, mark_of

# Exceptions after an answer that is not Parley's.
NOT_PARLEY = (ValueError, LookupError, TypeError, AttributeError)
DONE, FAILED, STOPPED = range(3)  # how an action ended; STOPPED by Ctrl-C
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

Images
  /attach FILE     send this JPEG or PNG with your next message
  /attach          list what goes with it; /attach none removes all

Settings, which apply from the next reply
  /model           list the models; /model ID chooses one
  /system TEXT     set the system prompt; /system default removes it
  /set temperature 0.7
                   set an option; /set lists them, and "default" resets one
  /set stop "END" "\\n\\n"
                   end a reply before one of these texts
  /show            show the model, the options and the system prompt

Typing
  \"""              start and end a message of several lines
  Tab              complete a command, a model, an option or a file
  /quit            leave (or /bye, /exit, Ctrl-D)
  To send a line that begins with /, put a space first."""


class Chat:
    """One user's session on a server. If there is none yet, the first message creates it, with the
    settings chosen by then."""

    def __init__(
        self, url: str, token: str, hides_thinking: bool = False, **fields: str | None
    ) -> None:
        self.screen = Screen(hides_thinking)
        self.client = client = Client(url, token, self.screen.say_lost)
        self.choices = Choices(client, self.screen, **fields)
        self.transcript = Transcript(client, self.screen, self.follow_latest)
        self.sessions = Sessions(client, self.screen)
        self.attachments = Attachments(client, self.screen)
        # `commands` have no arguments, those in `commands_with_words` may have some.
        self.commands: dict[str, Callable[[], None]] = {
            "/retry": self.retry,
            "/continue": self.go_on,
            "/history": self.transcript.show_all,
            "/thinking": self.transcript.show_thinking,
            "/new": self.sessions.begin_new,
            "/clear": self.sessions.begin_new,
            "/list": self.sessions.list_latest,
            "/help": self.help,
            "/?": self.help,
        }
        self.commands_with_words: dict[str, Callable[[str], None]] = {
            "/attach": self.attachments.choose,
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
        """Call this, and return how it ended: DONE, FAILED or STOPPED. Ctrl-C cancels the reply in
        progress. Errors are printed."""
        outcome = FAILED
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
        except ParleyError as error:
            problem = problem_of(error, self.client.url)
        except NOT_PARLEY:
            problem = f"{self.client.url} is not Parley. Check --url."
        self.screen.say(f"Error: {problem}", err=True)
        return outcome

    def cancel(self) -> None:
        self.screen.skip("^C")
        self.screen.say(" [stopped]", nl=False, err=True)
        hint = ""
        try:
            if self.client.session_id:  # without an id, a reply can only be left alone
                hint = self.stop(self.client.session_id)
        finally:
            self.screen.say(hint, err=True)

    def stop(self, session_id: str) -> str:
        """Stop the reply in progress. Returns a hint how to continue it, if that is possible."""
        if not self.client.cancel(session_id):
            return ""
        # After a stopped retry, the old reply is shown again.
        stored = self.client.session(session_id, limit=1)
        self.sessions.title = title_of(stored)  # perhaps the event with it has not come
        [turn] = stored["turns"][-1:]
        is_whole = turn.get("status") == "complete" and turn["stop_reason"] != "length"
        return " /continue goes on." if turn["content"] and not is_whole else ""

    # How it begins

    def open(self, session_id: Any, goes_on: bool) -> None:
        """Open this session, the last one, or a new one. The first requests: errors of the server
        or the token show here."""
        if not session_id:
            params = {"page[limit]": 1}
            latest = self.client.request("GET", "/sessions", params=params).json()["data"]
            session_id = latest[0]["id"] if goes_on and latest else None
            if goes_on and not latest:
                self.screen.say("There is no chat yet: this is a new one.", err=True)
        if session_id:
            if self.choices.fields:
                self.client.change(str(session_id), **self.choices.fields)
            self.enter(str(session_id))

    def enter(self, session_id: str) -> None:
        session = self.client.session(session_id, limit=1)
        self.client.session_id, self.sessions.title = session["id"], title_of(session)
        self.choices.load_from(session)
        for turn in session["turns"][-1:]:
            self.screen.begin_reply(turn["content"], turn.get("thinking"))  # it may be continued

    def greet(self) -> None:
        """Say which chat this is, with which model, on which server. Show its last turns."""
        if not self.choices.model:
            for model in self.client.models()["data"]:
                if model["default"]:
                    self.choices.fields["model"] = model["id"]
        title, model = self.sessions.title, self.choices.model or "no model"
        chat = f'"{title}"' if title else "A new chat"
        self.screen.say(f"{chat} with {model} at {self.client.url}, /? for help")
        if self.client.session_id:
            self.transcript.show_last()
        self.attachments.tell()

    # What is typed

    def obey(self, text: str) -> None:
        """Send what was typed, or run the command that it is: one line that begins with a slash and
        a word. Only a system prompt may have several lines."""
        text = SET_SYSTEM.sub("/system", text)
        typed = COMMAND.fullmatch(text)
        if typed is None or ("\n" in text and typed[1] != "/system"):
            self.send(text)
            return
        name, words = typed[1], unquoted(typed[2] or "").strip()
        if name in self.commands_with_words:
            self.commands_with_words[name](words)
        elif name in self.commands and not words:
            self.commands[name]()
        else:
            raise Refused(
                "It was not sent: there is no such command, /? lists them. "
                "To send it, put a space first."
            )

    def complete(self, line: str) -> list[str]:
        """The completions of the last word of a line."""
        *before, begun = line.split(" ")
        match before:
            case []:
                with_words = [f"{name} " for name in self.commands_with_words]
                words = [*with_words, *self.commands, "/quit"]
            case ["/model"]:
                words = self.choices.models()
            case ["/set"]:
                words = [f"{name} " for name in OPTIONS]
            case ["/attach", *_]:  # a path may have spaces
                typed = line.removeprefix("/attach ")
                words = [path[len(typed) - len(begun) :] for path in completed(typed)]
            case _:
                words = []
        return [word for word in words if word.startswith(begun)]

    def send(self, text: str) -> None:
        content, session_id = unquoted(text).strip("\n"), self.client.session_id
        fields = self.attachments.fields | ({} if session_id else self.choices.fields)

        def send() -> Reply:
            reply = self.client.patient.send(content, session_id, **fields)
            self.attachments.clear()
            return reply

        self.screen.begin_reply()
        try:
            self.answer(send)
        except ParleyError as error:
            if not (error.pointer or "").startswith("/files/"):
                raise
            self.attachments.upload_again()
            self.answer(send)
        if not session_id and not self.sessions.title:  # the event with the title was lost
            self.enter(self.client.session_id)

    def retry(self) -> None:
        session_id = self.current()
        self.screen.begin_reply()
        self.answer(lambda: self.client.patient.retry(session_id))

    def go_on(self) -> None:
        session_id = self.current()
        self.answer(lambda: self.client.patient.continue_(session_id))

    def current(self) -> str:
        if not self.client.session_id:
            raise Refused("There is no reply yet.")
        return self.client.session_id

    def open_listed(self, typed: str) -> None:
        self.enter(self.sessions.find(typed))
        self.screen.say(f'"{self.sessions.title}" with {self.choices.model}')
        self.transcript.show_last()

    def help(self) -> None:
        self.screen.say(HELP)

    def talk(self) -> int:
        """Obey what is typed until the user leaves: by a command, by Ctrl-D, or by Ctrl-C twice in
        a row."""
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

    def answer(self, ask: Callable[[], Reply]) -> None:
        """Ask for a reply, and print it. If the model of an old session is no longer served, use
        the default."""
        session_id = self.client.session_id
        try:
            self.follow(ask())
        except ParleyError as error:
            if not (session_id and error.pointer == "/model" and self.take_default(True)):
                raise
            self.follow(ask())
        except Refused as error:
            if not (session_id and self.is_model_named(error) and self.take_default(False)):
                raise
            self.follow(self.client.patient.retry(session_id))

    def is_model_named(self, error: Refused) -> bool:
        """Whether the reply failed with a 400 whose message names the session's model."""
        return error.reply_status == 400 and self.choices.model.rpartition("/")[2] in str(error)

    def take_default(self, is_refused: bool) -> bool:
        """If the session's model is gone, give it the server's default. Returns whether it did. The
        model is gone if the server refuses it, or if its provider does not list it."""
        gone = self.choices.model
        models = self.client.models()["data"]
        is_listed = any(model["id"] in (gone, f"{gone}:latest") for model in models)
        default = next((model["id"] for model in models if model["default"]), None)
        if default is None or (is_listed and not is_refused):
            return False
        self.choices.store(model=default)
        sentence = f"[{gone} is not served any more: {default} answers from here on.]"
        self.screen.say(sentence, err=True)
        return True

    def follow(self, reply: Reply) -> None:
        """Print the reply as it comes. Raises Refused if it failed."""
        self.client.session_id = reply.session
        for event in reply.events():
            self.show(event)

    def follow_latest(self) -> None:
        self.follow(self.client.patient.follow(self.current()))

    def show(self, event: Event) -> None:
        """Print an event. Raises Refused if the reply is not complete."""
        data = event.data
        if event.event in ("content_delta", "assistant_turn", "error"):
            self.screen.end_thinking()
        match event.event:
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
                raise Refused(with_reason(data["message"], data), reply_status=data["status"])


def problem_of(error: ParleyError, url: str) -> str:
    """The error; with the name of the option, system prompt or title if the server refuses that."""
    if error.status is not None:
        name = (error.pointer or "").rpartition("/")[2]
        return f"{name}: {error.detail}" if name in (*OPTIONS, "system", "title") else error.detail
    if isinstance(error.__cause__, requests.exceptions.SSLError):
        return f"{url} has no https:// that is trusted here. Is it http://?"
    if error.retry_after is None:
        return f"{error.detail} Check --url."
    advice = f"Start it with `{command()} run`, or check --url"
    return f"{url} cannot be reached. {advice}, also its http:// or https://."


# Click does not rewrap a paragraph that begins with \b.
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
@click.option(
    "-a",
    "--attach",
    "attached",
    multiple=True,
    metavar="FILE",
    help="Send this image. May be repeated.",
)
@click.option("-c", "--continue", "goes_on", is_flag=True, help="Continue the last chat.")
@click.option("--session", "session_id", type=click.UUID, help="Continue this chat.")
@click.option("--list", "is_list", is_flag=True, help="Print the latest chats and their ids.")
@click.option("--hide-thinking", is_flag=True, help="Do not show what the model thinks.")
def chat_command(
    message: str | None,
    url: str,
    token: str | None,
    model: str | None,
    system: str | None,
    attached: tuple[str, ...],
    goes_on: bool,
    session_id: uuid.UUID | None,
    is_list: bool,
    hide_thinking: bool,
) -> None:
    """Chat in the terminal. With MESSAGE, or with text that is piped in, or both as one message,
    print only the reply."""
    sys.stdout.reconfigure(errors="replace")  # for a terminal that is not in UTF-8
    sys.stdin.reconfigure(errors="surrogateescape")  # the server refuses bytes that are not UTF-8
    message = "" if is_list else message_of(message, attached)
    try:
        if not token:
            tokens = commands.open_tokens()
            token = tokens.sign(tokens.local_user, 1)
    except (auth.InvalidToken, SettingError, OSError) as error:
        raise click.ClickException(f"Give --token, or set PARLEY_TOKEN. {error}") from None
    try:
        chat = Chat(url, token, hide_thinking, model=model, system=system)
    except ValueError:
        advice = "Check --url, which begins with http:// or https://."
        raise click.ClickException(f"{url} is not Parley. {advice}") from None
    if is_list:
        sys.exit(chat.run(chat.sessions.list_latest, True) != DONE)
    outcome = chat.run(chat.open, session_id, goes_on)
    if outcome == DONE:
        outcome = chat.run(chat.attachments.add, *attached)
    if outcome == DONE:
        outcome = chat.run(chat.obey, message) if message else chat.talk()
    sys.exit(outcome != DONE)


def message_of(words: str | None, attached: tuple[str, ...]) -> str:
    """The message of the command line with the text that is piped in; "" if a person will type. It
    is in quotes, so that it is never a command, if text is piped in or an image attached."""
    piped, is_typed = "", sys.stdin.isatty()
    if STANDARD_INPUT in attached:
        if words is None:
            raise click.ClickException('Give a message, too, or "": standard input is the image.')
    elif not is_typed:
        piped = sys.stdin.read().rstrip()
    if piped:
        return f'"""{words or ""}\n\n{piped}"""'
    if attached and words is not None:
        return f'"""{words}"""'
    if not words and not is_typed:
        raise click.ClickException("There is no message: the text that was piped in is empty.")
    return words or ""
