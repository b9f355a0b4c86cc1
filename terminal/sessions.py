"""A user's chats, which the API calls sessions: list, search, open, rename and delete them."""

import sys
import uuid
from typing import Any

from terminal.client import Client, Refused
from terminal.screen import Screen


class Sessions:
    """`title` is that of the current chat, "" before its first message."""

    def __init__(self, client: Client, screen: Screen) -> None:
        self._client, self._screen = client, screen
        self.title = ""
        self._numbered: dict[str, str] = {}  # the ids of the last list, by their numbers

    # Lists

    def list_latest(self, with_ids: bool = False) -> None:
        answer = self._client.request("GET", "/sessions").json()
        self._list(answer, with_ids, "/search finds older ones")

    def search(self, words: str) -> None:
        if not words:
            raise Refused("Type what to look for: /search WORDS.")
        answer = self._client.request("GET", "/sessions", params={"query": words}).json()
        if not answer["data"]:
            self._screen.say("No chat has these words.", err=True)
        self._list(answer, False, "more words find fewer")

    def _list(self, answer: dict[str, Any], with_ids: bool, hint: str) -> None:
        """Print the sessions in an answer, with numbers for a person, or with ids for a program."""
        with_ids = with_ids or not sys.stdout.isatty()
        self._numbered = {}
        for number, session in enumerate(answer["data"], 1):
            self._numbered[str(number)] = session["id"]
            mark = "*" if session["id"] == self._client.session_id else " "
            name = session["id"] if with_ids else f"{mark} {number:2}"
            pin = "(pinned) " if session.get("pinned") else ""  # servers before 2.1 have no pins
            self._screen.say(f"{name}  {session['updated_at'][:10]}  {pin}{title_of(session)}")
        if answer.get("meta", {}).get("has_more") and not with_ids:
            self._screen.say(f"[There are more: {hint}.]")

    def find(self, typed: str) -> str:
        """The id of the chat with this number in the last list, or with this id."""
        if typed in self._numbered:
            return self._numbered[typed]
        try:
            return str(uuid.UUID(typed))
        except ValueError:
            message = "Give the number of a chat: /list and /search show them."
            raise Refused(message) from None

    # Changes

    def begin_new(self) -> None:
        self._client.session_id, self.title = None, ""
        self._screen.say("Your next message begins a new chat.", err=True)

    def rename(self, title: str) -> None:
        if not title:
            raise Refused("Type the new title, too: /rename TITLE.")
        self.title = title_of(self._client.change(self._current(), title=title))

    def delete(self, typed: str) -> None:
        """Delete the current chat, or one of the last list, after a question."""
        session_id = self.find(typed) if typed else self._current()
        if not sys.stdin.isatty():
            raise Refused("/delete asks before it deletes, and needs a terminal for that.")
        session = self._client.session(session_id, limit=1)
        if not self._screen.confirm(f'Delete "{title_of(session)}"?'):
            self._screen.say("It was not deleted.", err=True)
            return
        self._client.delete(session_id)
        if session["id"] == self._client.session_id:
            self.begin_new()

    def save(self, _words: str) -> None:
        self._screen.say("Chats are always saved. /rename TITLE names this one.", err=True)

    def _current(self) -> str:
        if not self._client.session_id:
            raise Refused("This chat has no message yet.")
        return self._client.session_id


def title_of(session: dict[str, Any]) -> str:
    """The title on one line: a user's title may have several."""
    return " ".join(session["title"].split())
