"""A client for the terminal, which knows Parley by its API alone: `flask chat`. What it prints, what is typed, and the talk."""

import contextlib
import json
import os
import re
import select
import signal
import sys
import time

import click
import requests
import urllib3

import auth
import cli
import wire
from settings import SettingError

TIMEOUT = (5, 40)  # seconds to connect, and of silence: a stream says something every 15 s
PAUSES = (0, 0.5, 1, 2, 4, 8, 8, 8)  # seconds before each try, until a lost connection is given up
LOST = (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError, wire.Fault)
ODD = (requests.RequestException, ValueError, LookupError, TypeError, AttributeError)  # what comes of an answer of no Parley
DONE, FAILED, STOPPED = range(3)  # what became of an action; stopped, which is by Ctrl-C
HISTORY = os.path.join(os.environ.get("HOME") or os.devnull, ".parley_history")  # readline makes it with mode 0600
PASTE_PAUSE = 0.05  # seconds; lines that come faster are pasted
QUOTED = re.compile(r'\A"""(.*)"""\s*\Z', re.DOTALL)
# All of C0 but tab and line feed, all of C1, and what turns the direction of text around.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
FAREWELLS = ("exit", "quit", "bye", "/exit", "/quit", "/bye")
HELP = """/retry has the last reply anew, /continue has it go on
/model lists the models, /model ID takes one
/new begins a new session, /list lists the latest
/quit, exit and Ctrl-D leave; Ctrl-C stops a reply, twice leaves
\""" begins and ends several lines; a blank before such a word sends it"""


class Screen:
    """Where text is printed. Within `with`, a terminal's empty line shows how long nothing has come; behind it, a line begins."""

    def __init__(self):
        self._line = ""  # the text on the cursor's line; None where the sign of life stands there

    def __enter__(self):
        self.end_line()  # which sets the clock, too
        signal.signal(signal.SIGALRM, self._draw)
        signal.setitimer(signal.ITIMER_REAL, 1, 1)

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.end_line()

    def say(self, text, nl=True, err=False):
        """Print this, or, with `err`, what is said of it: that has a line of its own, unless it begins with a blank."""
        self.awaits, self._since = "waiting", time.monotonic()  # so that no sign is drawn into what follows
        if self._line is None:
            click.echo("\r\033[K", nl=False, err=True)
            self._line = ""
        is_on_line = sys.stdout.isatty() or not err
        if err and is_on_line and not text.startswith(" "):
            self.end_line()
        text = CONTROLS.sub("", text)
        if is_on_line:
            self._line = "" if nl else (self._line + text).rpartition("\n")[2]
        click.echo(text, nl=nl, err=err)

    def end_line(self):
        """What comes next begins a line."""
        self.say("", nl=bool(self._line))

    def _draw(self, *_):
        seconds = int(time.monotonic() - self._since)
        if seconds and not self._line and sys.stderr.isatty():
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            sign = f"[{self.awaits}, {seconds} s]"[: columns - 1]  # only one row can be erased
            os.write(sys.stderr.fileno(), f"\r{sign}\033[K".encode())
            self._line = None


def open_history():
    """Python's readline, if it has one, by which `input` edits and calls back lines, also those of another day."""
    with contextlib.suppress(ImportError):
        import readline  # here: it changes what `input` does

        readline.parse_and_bind("set enable-bracketed-paste on")  # which Python switches off
        readline.set_history_length(1000)  # lines
        with contextlib.suppress(OSError):
            readline.read_history_file(HISTORY)
        return readline


def read_typed(model, readline):
    """A message for this model, typed or pasted; /quit at the end of all; None for a Ctrl-C where there was nothing to drop."""
    name, text = " ".join(CONTROLS.sub("", model).split()).rpartition("/")[2], ""
    try:
        text = input(f"{name if len(name) <= 20 else name[:19] + '…'}> ")
        while (text.startswith('"""') and not QUOTED.match(text)) or select.select([sys.stdin], [], [], PASTE_PAUSE)[0]:
            text += "\n" + input("... ")
    except EOFError:
        click.echo("\r\033[K", nl=False)  # GNU readline ends the line, others leave the prompt there
        return "/quit"
    except KeyboardInterrupt:
        click.echo()
        return "" if text or (readline and readline.get_line_buffer()) else None
    with contextlib.suppress(OSError, AttributeError):
        readline.write_history_file(HISTORY)
    return text.rstrip()


class Refused(Exception):
    """The server, or its model, refused; the text says why."""

    def __init__(self, message, status=400, session_id=None):
        super().__init__(message)
        self.status, self.session_id = status, session_id


class Chat:
    """One user's session on a server; the first message creates it, with these fields, where there is no id yet."""

    def __init__(self, url, token, **fields):
        self.url = re.sub("//[^/]*@", "//", url).rstrip("/")  # a password in it would take the token's place
        self.fields = {name: value for name, value in fields.items() if value}  # its model is the one that answers
        self.session_id = None
        self.screen = Screen()
        self.http = requests.Session()
        self.http.trust_env = False  # else ~/.netrc would have its say; what the environment says of the way is in its route
        self.http.headers["Authorization"] = f"Bearer {''.join(token.split())}".encode(errors="replace")

    def run(self, action, *arguments):
        """Call this, and return what became of it: Ctrl-C cancels the reply under way, and what goes wrong is printed."""
        outcome, problem = FAILED, None
        try:
            with self.screen:
                try:
                    action(*arguments)
                    outcome = DONE
                except KeyboardInterrupt:  # a second one is not caught
                    outcome = STOPPED
                    self.screen.say(" [stopped]", err=True)
                    if self.session_id:  # else the reply, if one was asked for, is only left alone
                        self.call("POST", f"/sessions/{self.session_id}/cancel")
        except Refused as error:
            problem = error
        except requests.exceptions.SSLError:
            problem = f"{self.url} has no https:// that is trusted here. Is it http://?"
        except LOST:
            problem = f"{self.url} cannot be reached. Start it with `flask run`, or check --url, from http:// or https:// on."
        except ODD:
            problem = f"{self.url} is no Parley. Check --url, which begins with http:// or https://."
        if problem:
            self.screen.say(f"Error: {problem}", err=True)
        return outcome

    def call(self, method, path, body=None, **headers):
        """The response, its body yet to be read. Raises Refused, one of LOST, or one of ODD."""
        sent = {"json": body, "headers": headers, "timeout": TIMEOUT, "allow_redirects": False}
        response = self.http.request(method, self.url + path, **sent, **wire.route(self.url))
        if response.is_redirect:
            raise Refused(f"{self.url} redirects to {response.headers['Location']}: give --url as it is there.")
        if response.ok:
            return response
        if "json" not in response.headers.get("Content-Type", ""):  # it is a proxy's, or another program's
            if response.status_code >= 500:
                raise requests.ConnectionError  # the server behind it is away
            raise Refused(f"{self.url} answered with the status {response.status_code}, and not as Parley. Check --url.")
        error = response.json()["errors"][0]
        raise Refused(error["detail"], response.status_code, error.get("meta", {}).get("session_id"))

    def open(self, session_id, goes_on):
        """Take this session, the last one, or a new one. What is wrong with the server or the token shows here."""
        if not session_id:
            latest = self.call("GET", "/sessions?page[limit]=1").json()["data"]
            session_id = latest[0]["id"] if goes_on and latest else None
            if goes_on and not latest:
                self.screen.say("There is no session yet: this is a new one.", err=True)
        if session_id:
            path = f"/sessions/{session_id}?turns[limit]=1"
            session = self.call("PATCH" if self.fields else "GET", path, self.fields or None).json()
            self.session_id, self.fields["model"] = session["id"], session["model"]["id"]

    def greet(self):
        """Say where the user is, with which model, and show what has been said."""
        models = [] if "model" in self.fields else self.call("GET", "/models").json()["data"]
        self.fields |= {"model": model["id"] for model in models if model["default"]}
        self.screen.say(f"{self.url}, {self.fields.get('model', 'no model')}, /? for help")
        response = self.session_id and self.call("GET", f"/sessions/{self.session_id}")
        for turn in response.json()["turns"] if response else ():
            if turn.get("id") == response.headers.get("First-Turn-Sent", ""):
                self.screen.say("[The model no longer sees what is above.]")
            if turn["kind"] == "user":
                self.screen.say("> " + turn["content"].replace("\n", "\n> "))
            elif turn["status"] == "in_progress":
                self.follow()
            else:
                self.screen.say(turn["content"] + mark_of(turn))

    def obey(self, text):
        """Send what was typed, or do what it says: a command is a line that begins with a slash and one word."""
        is_command = "\n" not in text and re.match(r"/[a-z?]+(\s|$)", text, re.IGNORECASE)
        match text.split() if is_command else []:
            case []:
                path, fields = (f"/sessions/{self.session_id}/messages", {}) if self.session_id else ("/sessions", self.fields)
                self.follow(path, {"content": QUOTED.sub(r"\1", text).strip("\n")} | fields)
            case ["/retry" | "/continue" as command] if self.session_id:
                self.follow(f"/sessions/{self.session_id}{command}")
            case ["/retry" | "/continue"]:
                raise Refused("There is no reply yet.")
            case ["/model"]:
                for model in self.call("GET", "/models").json()["data"]:
                    self.screen.say(f"{'*' if model['id'] == self.fields.get('model') else ' '} {model['id']}")
            case ["/model", model]:
                if self.session_id:
                    self.call("PATCH", f"/sessions/{self.session_id}", {"model": model})
                self.fields["model"] = model
            case ["/new"]:
                self.session_id = None
                self.screen.say("Your next message begins a new session.", err=True)
            case ["/list"]:
                for session in self.call("GET", "/sessions").json()["data"]:
                    self.screen.say(f"{session['id']}  {session['updated_at'][:10]}  {' '.join(session['title'].split())}")
            case ["/?" | "/help"]:
                self.screen.say(HELP)
            case _:
                raise Refused("It was not sent: there is no such command, /? lists them. To send it, put a blank before it.")

    def follow(self, post=None, body=None):
        """Print the latest reply as it comes, or what is new of it, however often the connection is lost. With `post`, a path,
        it is asked for first, and again where no answer came: under one key the server makes one reply."""
        headers = {"Accept": "text/event-stream", "Idempotency-Key": os.urandom(16).hex()}
        failures = 0
        while failures < len(PAUSES):
            try:
                time.sleep(PAUSES[failures])
                method, path = ("POST", post) if post else ("GET", f"/sessions/{self.session_id}/events")
                with self.call(method, path, body, **headers) as response:
                    if response.status_code == 204:  # the answer that would have said why was lost
                        raise Refused("Nothing came of it.")
                    if post:
                        kind = response.headers.get("Content-Type", headers["Accept"]).partition(";")[0]
                        if kind == headers["Accept"] and "Location" not in response.headers:
                            raise requests.ConnectionError  # within the head, which the libraries take for a whole one
                        post, body, self.session_id = None, None, response.headers["Location"].rsplit("/sessions/", 1)[1][:36]
                    chunks = iter(lambda: response.raw.read1(65536, decode_content=True), b"")
                    for event in (event for events in wire.parse_sse(chunks) for event in events):
                        failures, self.http.headers["Last-Event-ID"] = 0, event["id"]
                        if self.show(event["event"], json.loads(event["data"])):
                            return
            except Refused as error:
                if post and error.session_id:  # the answer was lost, but not the question
                    post, body, self.session_id = None, None, error.session_id
                elif post or error.status < 500:
                    raise
            except LOST:
                pass
            failures += 1
            if failures == 1:
                self.screen.say("No connection. Trying again.", err=True)
        raise requests.ConnectionError

    def show(self, name, data):
        """Print what an event says; returns whether it is the last. Raises Refused where the reply failed."""
        if name == "session":
            self.fields["model"] = data["model"]["id"]
        elif name == "thinking":
            self.screen.awaits = f"thinking: {data['characters']} characters"
        elif name == "content_delta":
            self.screen.say(data["delta"], nl=False)
        elif name == "assistant_turn" and data["status"] != "complete":
            raise Refused(f"The reply is {data['status']}: /continue goes on.")
        elif name == "assistant_turn" and (mark := mark_of(data, ": /continue goes on")):
            self.screen.say(mark, err=True)
        elif name == "error":
            raise Refused(data["message"])
        return name == "done"

    def talk(self):
        """Do what is typed, until the user leaves: by a word, by Ctrl-D, or by Ctrl-C twice in a row."""
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


def mark_of(turn, hint=""):
    """What is to be said behind a reply that went on, or is not whole."""
    mark = " [went on after an interruption]" if turn.get("continued") else ""  # a server of an older release says nothing of it
    if turn.get("stop_reason") == "length":
        return f"{mark} [cut at the limit{hint}]"
    return mark if turn["status"] == "complete" else f"{mark} [{turn['status']}]"


@click.command("chat", epilog="\b\n" + HELP)
@click.argument("message", required=False)
@click.option("--url", envvar="PARLEY_URL", default="http://127.0.0.1:5000", show_default=True, help="Or $PARLEY_URL.")
@click.option("--token", envvar="PARLEY_TOKEN", help="Or $PARLEY_TOKEN, or else one that this folder's server signs.")
@click.option("--model", help="The model that answers.")
@click.option("--system", help="The system prompt.")
@click.option("-c", "--continue", "goes_on", is_flag=True, help="Go on with the last session.")
@click.option("--session", "session_id", type=click.UUID, help="Go on with this session.")
@click.option("--list", "is_list", is_flag=True, help="Print the latest sessions, and leave.")
def chat_command(message, url, token, model, system, goes_on, session_id, is_list):
    """Chat in the terminal. With MESSAGE, or what is piped in, or with both, which are one message, print its reply only."""
    sys.stdout.reconfigure(errors="replace")  # for a terminal that is not in UTF-8
    sys.stdin.reconfigure(errors="surrogateescape")  # the server says so where a message is not
    message = "/list" if is_list else message or ""
    piped = "" if is_list or sys.stdin.isatty() else sys.stdin.read().rstrip()
    if piped:  # in quotes, it is no command
        message = f'"""{message}\n\n{piped}"""'
    if not (message or sys.stdin.isatty()):
        raise click.ClickException("There is no message: what was piped in is empty.")
    try:
        token = token or cli.open_tokens().sign(auth.LOCAL_USER, 1)
    except (auth.InvalidToken, SettingError, OSError) as error:
        raise click.ClickException(f"Give --token, or set PARLEY_TOKEN. {error}") from None
    chat = Chat(url, token, model=model, system=system)
    outcome = DONE if is_list else chat.run(chat.open, session_id, goes_on)
    if outcome == DONE:
        outcome = chat.run(chat.obey, message) if message else chat.talk()
    sys.exit(outcome != DONE)
