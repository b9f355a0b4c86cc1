"""A client for the terminal, which knows Parley by its API alone: `flask chat`."""

import functools
import itertools
import json
import re
import sys
import time
import uuid

import click
import requests
import urllib3

import auth
import cli
import wire

TIMEOUT = (10, 40)  # seconds to connect, and of silence: a stream says something every 15 s
PAUSES = (0, 0.5, 1, 2, 4, 8, 8, 8)  # seconds before each try, until a lost connection is given up
LOST = (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError, wire.Fault)

# All of C0 but tab and line feed, all of C1, and what turns the direction of text around.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Refused(click.ClickException):
    """The server, or its model, refused; the text says why."""

    def __init__(self, message, status=400, session_id=None):
        super().__init__(clean(message))
        self.status, self.session_id = status, session_id


class Chat:
    """One user's session on a server; the first message creates it where there is no id yet."""

    def __init__(self, url, token, session_id=None):
        self.url = url.rstrip("/")
        self.session_id = session_id
        self.http = requests.Session()
        self.http.trust_env = False  # else ~/.netrc would have its say; what the environment says of the way is in `route`
        self.http.headers["Authorization"] = f"Bearer {token.strip()}".encode()
        self.http.auth = lambda request: request  # else a password in the URL would take the header's place
        self.route = wire.route(self.url)

    def call(self, method, path, body=None, **headers):
        """The response, its body yet to be read. Raises Refused, or one of LOST."""
        sent = {"json": body, "headers": headers, "timeout": TIMEOUT, "allow_redirects": False}
        response = self.http.request(method, self.url + path, **sent, **self.route)
        if response.is_redirect:
            raise Refused(f"{self.url} redirects to {response.headers['Location']}: give that as --url.")
        if response.ok:
            return response
        try:
            error = response.json()["errors"][0]
            message, session_id = error["detail"], error.get("meta", {}).get("session_id")
        except (ValueError, LookupError, TypeError):  # it is not Parley that answered
            message, session_id = f"{self.url} answered with the status {response.status_code}.", None
        raise Refused(message, response.status_code, session_id)

    def send(self, line, **fields):
        """Send a message, /retry or /continue, and print what comes; the fields are those of a new session."""
        if self.session_id and line in ("/retry", "/continue"):
            self.follow(f"/sessions/{self.session_id}{line}")
        elif self.session_id:
            self.follow(f"/sessions/{self.session_id}/messages", {"content": line})
        elif line in ("/retry", "/continue"):
            raise Refused("There is no reply yet.")
        else:
            self.follow("/sessions", {"content": line} | fields)

    def follow(self, post=None, body=None):
        """Print the latest reply as it comes, or what is new of it, however often the connection is lost. Ctrl-C cancels it.

        With `post`, a path, it is asked for first. What got no answer is sent again: under one key the server makes one reply.
        """
        headers = {"Accept": "text/event-stream", "Idempotency-Key": uuid.uuid4().hex}
        failures, has_thought = 0, False
        while True:
            try:
                time.sleep(PAUSES[failures])
                method, path = ("POST", post) if post else ("GET", f"/sessions/{self.session_id}/events")
                with self.call(method, path, body, **headers) as response:
                    if response.status_code == 204:  # nothing new has come, and the answer that would have said why was lost
                        return
                    if post:
                        location = re.fullmatch("/sessions/([0-9a-f-]{36})(/events)?", response.headers.get("Location", ""))
                        post, body, self.session_id = None, None, location[1]
                    chunks = iter(functools.partial(response.raw.read1, 65536, decode_content=True), b"")
                    for event in itertools.chain.from_iterable(wire.parse_sse(chunks)):
                        failures, self.http.headers["Last-Event-ID"] = 0, event["id"]
                        click.echo("\033[K" if has_thought else "", nl=False)  # on a terminal, it clears what was said of it
                        has_thought = event["event"] == "thinking"
                        if show(event["event"], json.loads(event["data"])):
                            return
            except KeyboardInterrupt:
                if not self.session_id:
                    raise
                return self.cancel()
            except Refused as error:
                if post and error.session_id:  # the answer was lost, but not the question
                    post, body, self.session_id = None, None, error.session_id
                elif post or error.status < 500:
                    raise
            except LOST:
                pass
            failures += 1
            if failures == len(PAUSES):
                raise Refused(f"{self.url} cannot be reached.")
            click.echo("No connection. Trying again.", err=True)

    def cancel(self):
        try:
            self.call("POST", f"/sessions/{self.session_id}/cancel")
        except Refused as error:
            if error.status != 409:  # else it has ended by itself
                raise
        click.echo(" [stopped]")
        if not sys.stdin.isatty():
            raise click.Abort  # there is nobody to say what comes next

    def show_turns(self):
        response = self.call("GET", f"/sessions/{self.session_id}")
        for turn in response.json()["turns"]:
            if turn.get("id") == response.headers.get("First-Turn-Sent", ""):
                click.echo("[The model no longer sees what is above.]")
            if turn["kind"] == "user":
                say("> " + turn["content"].replace("\n", "\n> "))
            elif turn["status"] == "in_progress":
                self.follow()
            else:
                say(turn["content"] + mark_of(turn))

    def show_list(self):
        for session in self.call("GET", "/sessions").json()["data"]:
            say(f"{session['id']}  {session['updated_at'][:10]}  {' '.join(session['title'].split())}")


def show(name, data):
    """Print what an event says; returns whether it is the last. Raises Refused where the reply failed."""
    if name == "thinking" and sys.stdout.isatty():  # from where the cursor is, which goes back there
        return click.echo(f"\033[s[thinking: {data['characters']} characters]\033[u", nl=False)
    if name == "content_delta":
        say(data["delta"], nl=False)
    elif name == "assistant_turn":
        click.echo(mark_of(data, ": /continue goes on"), nl=False)
    elif name in ("done", "error"):
        click.echo()
    if name == "error":
        raise Refused(data["message"])
    return name == "done"


def mark_of(turn, hint=""):
    """What is to be said behind a reply that went on, or is not whole."""
    mark = " [went on after an interruption]" if turn.get("continued") else ""  # a server of an older release says nothing of it
    if turn.get("stop_reason") == "length":
        return f"{mark} [cut at the limit{hint}]"
    return mark if turn["status"] == "complete" else f"{mark} [{turn['status']}{hint}]"


def clean(text):
    """The text without what a terminal would obey."""
    return _CONTROLS.sub("", text)


def say(text, **options):
    """Print what a server sent."""
    click.echo(clean(text), **options)


def typed_lines():
    """What the user types, or pipes in, line by line, until its end or /quit."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(prompt).strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            if not prompt:
                raise
            line = ""  # it is dropped, as in a shell
            click.echo()
        if line == "/quit":
            return
        if line:
            yield line


@click.command("chat")
@click.option("--url", envvar="PARLEY_URL", default="http://127.0.0.1:5000", show_default=True, help="Or $PARLEY_URL.")
@click.option("--token", envvar="PARLEY_TOKEN", help="Or $PARLEY_TOKEN, or else one that this folder's server signs.")
@click.option("--model", help="The model that answers.")
@click.option("--system", help="The system prompt.")
@click.option("--session", "session_id", type=click.UUID, help="Continue this session.")
@click.option("--list", "is_list", is_flag=True, help="Print the latest sessions, and leave.")
def chat_command(url, token, model, system, session_id, is_list):
    """Chat in the terminal. Ctrl-C stops a reply, /retry asks again, /continue goes on, /quit or Ctrl-D leaves."""
    sys.stdout.reconfigure(errors="replace")  # for a terminal that is not in UTF-8
    fields = {name: value for name, value in (("model", model), ("system", system)) if value}
    try:
        chat = Chat(url, token or cli.open_tokens().sign(auth.LOCAL_USER, 1), session_id)
        if is_list:
            return chat.show_list()
        if session_id:
            if fields:
                chat.call("PATCH", f"/sessions/{session_id}", fields)
            chat.show_turns()
        for line in typed_lines():
            try:
                chat.send(line, **fields)
            except Refused as error:
                if not sys.stdin.isatty():
                    raise
                error.show()
    except auth.InvalidToken as error:
        raise click.ClickException(f"Give --token, or set PARLEY_TOKEN. {error}") from None
    except (requests.exceptions.JSONDecodeError, LookupError, TypeError, AttributeError):
        raise click.ClickException(f"{url} is no Parley.") from None
    except (requests.RequestException, ValueError, *LOST):
        raise click.ClickException(f"{url} cannot be reached.") from None
