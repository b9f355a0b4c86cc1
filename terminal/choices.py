"""What the user of `flask chat` chooses for replies: the model, the system prompt, options."""

import json
import re
from typing import Any

from clients.python.parley_client import ParleyError
from logs import CONTROLS
from providers.options import OPTIONS
from terminal.client import Client, Refused
from terminal.screen import Screen

DEFAULT = "default"  # the word that resets a choice
NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,15})?")
TEXT = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')  # in quotes, or without spaces


class Choices:
    """The choices are stored in the session. Before there is one, they are kept here, and sent with
    the first message, which creates it. A new chat keeps the choices."""

    def __init__(self, client: Client, screen: Screen, **fields: Any) -> None:
        self._client, self._screen = client, screen
        # As in `POST /sessions`; the model is the one that answers.
        self.fields = {name: value for name, value in fields.items() if value}
        self._models: list[str] | None = None  # for Tab

    @property
    def model(self) -> str:
        return self.fields.get("model", "")

    def store(self, **fields: Any) -> None:
        """Store these choices. Raises ParleyError, with the server's reason."""
        if self._client.session_id:
            self._client.change(self._client.session_id, **fields)
        if "options" in fields:
            fields["options"] = self.fields.get("options", {}) | fields["options"]
        self.fields |= fields

    def load_from(self, session: dict[str, Any]) -> None:
        """Take over the choices of this session."""
        chosen = {name: session.get(name) for name in ("system", "options")}
        self.fields = {name: value for name, value in chosen.items() if value}
        self.fields["model"] = session["model"]["id"]

    # What is typed

    def choose_model(self, model: str) -> None:
        if model:
            if " " in model:
                raise Refused("A model's id has no spaces.")
            self.store(model=model)
            return
        for each in self._client.models()["data"]:
            mark = "*" if each["id"] == self.model else " "
            self._screen.say(f"{mark} {each['id']}")

    def choose_system(self, text: str) -> None:
        if text:
            self.store(system=None if text == DEFAULT else text)
            self._screen.say("Applies from the next reply.", err=True)
        else:
            self._screen.say(self._current().get("system") or "There is no system prompt.")

    def choose_option(self, words: str) -> None:
        """`temperature 0.7` and `stop "END" "###"` set an option. A name shows it, and no name all.
        `parameter` may come first, as in `ollama run`."""
        name, _, value = words.removeprefix("parameter ").partition(" ")
        if name and name not in OPTIONS:
            raise Refused(f"There is no such option. There are: {', '.join(OPTIONS)}.")
        if value:
            self.store(options={name: value_of(name, value.strip())})
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
        texts = value if isinstance(value, list) else ()
        shown = " ".join(json.dumps(text, ensure_ascii=False) for text in texts) or value
        self._screen.say(f"{name} {DEFAULT if value is None else shown}")

    def _current(self) -> dict[str, Any]:
        if not self._client.session_id:
            return self.fields
        return self._client.session(self._client.session_id, limit=1)

    # Tab

    def models(self) -> list[str]:
        """The ids of the models, fetched once."""
        try:
            if self._models is None:
                models = self._client.models()["data"]
                self._models = [CONTROLS.sub("", model["id"]) for model in models]
        except (ParleyError, LookupError, TypeError):
            return []
        return self._models


def value_of(name: str, typed: str) -> Any:
    """The JSON value of an option. The server checks it."""
    if typed == DEFAULT:
        return None
    if OPTIONS[name].kind is list:
        return [_text_of(each) for each in TEXT.findall(typed)]
    is_number = OPTIONS[name].kind is not str and NUMBER.fullmatch(typed)
    return json.loads(typed) if is_number else typed


def _text_of(typed: str) -> str:
    """A text in quotes, in which `\\n` is a new line as in JSON, or as it is."""
    try:
        return str(json.loads(typed)) if typed.startswith('"') else typed
    except ValueError:
        return typed
