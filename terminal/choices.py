"""What the user of a talk chooses for its replies: the model, the system prompt, options."""

import json
import re
from typing import Any

from logs import CONTROLS
from terminal.client import LOST, ODD, Client, Refused
from terminal.screen import Screen

OPTIONS = ("temperature", "max_tokens", "reasoning_effort")
DEFAULT = "default"  # the word that takes a choice back
NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?")


class Choices:
    """They are the session's, if there is one, else those of the first message, which creates it.
    A new session begins with what was chosen in this talk."""

    def __init__(self, client: Client, screen: Screen, **fields: Any) -> None:
        self._client, self._screen = client, screen
        # As in `POST /sessions`; the model is the one that answers.
        self.fields = {name: value for name, value in fields.items() if value}
        self._models: list[str] | None = None  # for Tab

    @property
    def model(self) -> str:
        return self.fields.get("model", "")

    def take(self, **fields: Any) -> None:
        """Choose these. Raises Refused, with the server's reason."""
        if self._client.session_id:
            self._client.call("PATCH", f"/sessions/{self._client.session_id}", fields)
        if "options" in fields:
            fields["options"] = self.fields.get("options", {}) | fields["options"]
        self.fields |= fields

    def begin_with(self, session: dict[str, Any]) -> None:
        """Choose what was chosen in this session."""
        chosen = {name: session.get(name) for name in ("system", "options")}
        self.fields = {name: value for name, value in chosen.items() if value}
        self.fields["model"] = session["model"]["id"]

    # What is typed

    def choose_model(self, model: str) -> None:
        if model:
            if " " in model:
                raise Refused("A model's id has no spaces.")
            self.take(model=model)
            return
        for each in self._client.get("/models")["data"]:
            mark = "*" if each["id"] == self.model else " "
            self._screen.say(f"{mark} {each['id']}")

    def choose_system(self, text: str) -> None:
        if text:
            self.take(system=None if text == DEFAULT else text)
            self._screen.say("Applies from the next reply.", err=True)
        else:
            self._screen.say(self._current().get("system") or "There is no system prompt.")

    def choose_option(self, words: str) -> None:
        """`temperature 0.7` sets one; without a value it is shown, and without a name all are.
        `parameter` may come first, as in `ollama run`."""
        name, _, value = words.removeprefix("parameter ").partition(" ")
        if name and name not in OPTIONS:
            raise Refused(f"There is no such option. There are: {', '.join(OPTIONS)}.")
        if value:
            self.take(options={name: value_of(name, value.strip())})
        options = self._current().get("options") or {}
        for each in [name] if name else OPTIONS:
            self._say(each, options.get(each))

    def show(self, _words: str) -> None:
        current = self._current()
        self._say("model", self.model or None)
        for each in OPTIONS:
            self._say(each, (current.get("options") or {}).get(each))
        self._say("system", current.get("system"))

    def _say(self, name: str, value: Any) -> None:
        self._screen.say(f"{name} {DEFAULT if value is None else value}")

    def _current(self) -> dict[str, Any]:
        if not self._client.session_id:
            return self.fields
        return self._client.get(f"/sessions/{self._client.session_id}?turns[limit]=1")

    # Tab

    def models(self) -> list[str]:
        """Their ids, as they were when they were first asked for."""
        try:
            if self._models is None:
                models = self._client.get("/models")["data"]
                self._models = [CONTROLS.sub("", model["id"]) for model in models]
        except (Refused, *LOST, *ODD):
            return []
        return self._models


def value_of(name: str, typed: str) -> Any:
    """What an option's value is in JSON. What it may be, the server knows."""
    if typed == DEFAULT:
        return None
    is_number = name != "reasoning_effort" and NUMBER.fullmatch(typed)
    return json.loads(typed) if is_number else typed
