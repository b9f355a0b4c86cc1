"""The turns of a session, printed in a terminal."""

from collections.abc import Callable
from typing import Any

import requests

from files import File
from terminal.attachments import label_of
from terminal.client import Client, Refused, with_reason
from terminal.screen import Screen

PAGE = 100  # turns


class Transcript:
    """Prints turns. Calls `follow` to print a reply in progress as it comes."""

    def __init__(self, client: Client, screen: Screen, follow: Callable[[], None]) -> None:
        self._client, self._screen, self._follow = client, screen, follow

    def show_last(self) -> None:
        """Show the last message of the user, and its reply."""
        response = self._turns(limit=2)
        session = response.json()
        turns = session["turns"]
        asked = [place for place, turn in enumerate(turns) if turn["kind"] == "user"]
        begin = asked[-1] if asked else 0
        if begin or session.get("meta", {}).get("has_more"):
            self._screen.say("[There is more before this: /history shows all.]")
        self._show(turns[begin:], response.headers.get("First-Turn-Sent", ""))

    def show_all(self) -> None:
        """Show all turns of the session."""
        turns: list[dict[str, Any]] = []
        has_more = self._client.session_id is not None
        while has_more:
            response = self._turns(limit=PAGE, before=turns[0]["id"] if turns else None)
            session = response.json()
            turns = session["turns"] + turns
            has_more = session.get("meta", {}).get("has_more")
        if not turns:
            self._screen.say("Nothing has been said yet.")
        else:
            self._show(turns, response.headers.get("First-Turn-Sent", ""))

    def show_thinking(self) -> None:
        """Show what the model thought before and during the last reply."""
        session_id, turns = self._client.session_id, []
        if session_id:
            turns = self._client.session(session_id, limit=2)["turns"]
        replies = [turn for turn in turns if turn["kind"] == "assistant"]
        if not replies:
            raise Refused("There is no reply yet.")
        if not replies[-1].get("thinking"):
            self._screen.say("The last reply has no thinking.")
            return
        self._screen.say_dimmed(self._client.thinking(session_id, replies[-1]["id"]))

    def _turns(self, limit: int, before: str | None = None) -> requests.Response:
        """The session with these turns; its header `First-Turn-Sent` tells what the model sees."""
        params = {"turns[limit]": limit, "turns[before]": before}
        return self._client.request("GET", f"/sessions/{self._client.session_id}", params=params)

    def _show(self, turns: list[dict[str, Any]], first_sent: str) -> None:
        for turn in turns:
            if turn.get("id") == first_sent:
                self._screen.say("[The model no longer sees what is above.]")
            if turn["kind"] == "user":
                # A server of an older release has no files.
                labels = [label_of(File(**file)) for file in turn.get("files", ())]
                self._screen.quote(" ".join(filter(None, [*labels, turn["content"]])))
                continue
            is_in_progress = turn["status"] == "in_progress"
            self._screen.begin_reply(thinking=None if is_in_progress else turn.get("thinking"))
            if is_in_progress:
                self._follow()
            else:
                self._screen.write(turn["content"])
                if mark := mark_of(turn):
                    self._screen.say(mark)
                self._screen.end_line()


def mark_of(turn: dict[str, Any], hint: str = "") -> str:
    """The mark after a reply that was continued, or is not complete."""
    # A server of an older release does not have this field.
    mark = " [went on after an interruption]" if turn.get("continued") else ""
    if turn.get("stop_reason") == "length":
        return f"{mark} [cut at the limit{hint}]"
    if turn["status"] == "complete":
        return mark
    error = turn.get("error")
    why = f": {with_reason(error['message'], error)}" if error else ""
    return f"{mark} [{turn['status']}{why}]"
