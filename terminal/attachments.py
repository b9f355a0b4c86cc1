"""Images that the user of `flask chat` attaches to a message."""

import glob
import os
import shlex
import sys
from typing import Any

from clients.python.parley_client import ParleyError
from files import FILES_MAX, File
from logs import CONTROLS, one_line
from terminal.client import Client, Refused
from terminal.import_run import file_name
from terminal.screen import Screen

STANDARD_INPUT = "-"
NONE = "none"  # the word that removes what is attached


class Attachments:
    """The images that go with the next message, whichever chat that is in. They are uploaded at
    once, and stay attached until the server has stored a message with them."""

    def __init__(self, client: Client, screen: Screen) -> None:
        self._client, self._screen = client, screen
        self._attached: list[tuple[File, bytes]] = []

    @property
    def fields(self) -> dict[str, Any]:
        """As in a message to the API: no field if nothing is attached."""
        files = [
            {"id": file.id} | ({"alt": file.alt} if file.alt else {}) for file, _ in self._attached
        ]
        return {"files": files} if files else {}

    def choose(self, typed: str) -> None:
        """Attach the files that are typed after `/attach`. `none` removes all, and no word lists
        them."""
        if typed and typed != NONE:
            for path in paths_in(typed):
                self._tell(self._add(path))
            return
        if typed:
            self.clear()
        self.tell()
        if not self._attached:
            self._screen.say("No image goes with your next message.", err=True)

    def add(self, *paths: str) -> None:
        """Attach these files; `-` is standard input. Raises Refused, also if the server refuses."""
        for path in paths:
            self._add(path)

    def tell(self) -> None:
        """Say what goes with the next message."""
        for file, _ in self._attached:
            self._tell(file)

    def clear(self) -> None:
        self._attached = []

    def upload_again(self) -> None:
        """Upload what the server has deleted, as it does after a day without a message. The ids are
        the same, since they depend on the bytes alone."""
        for _, data in self._attached:
            self._client.patient.upload(data)

    def _add(self, path: str) -> File:
        is_input = path == STANDARD_INPUT and not sys.stdin.isatty()
        name = "Standard input" if is_input else file_name(path)
        if len(self._attached) == FILES_MAX:
            raise Refused(f"{name} was not attached: a message has at most {FILES_MAX} images.")
        data = self._read(0 if is_input else os.path.expanduser(path), name)
        try:
            described = self._client.patient.upload(data)
        except ParleyError as error:
            if error.status is None:
                raise
            raise Refused(f"{name}: {error.detail}") from None
        alt = "" if is_input else file_name(os.path.basename(path))
        file = File(**described | {"alt": alt})
        self._attached.append((file, data))
        return file

    def _tell(self, file: File) -> None:
        self._screen.say(f"{label_of(file)} goes with your next message.", err=True)

    def _read(self, path: str | int, name: str) -> bytes:
        """All bytes of a file. Raises Refused before it reads more than the server takes."""
        # A server of an older release has no such field.
        most = self._client.models().get("meta", {}).get("max_file", 0)
        if not most:
            raise Refused("This server takes no images.")
        try:
            with open(path, "rb", closefd=path != 0) as file:
                data = file.read(most + 1)
        except OSError as error:
            raise Refused(f"{name} cannot be read: {error.strerror}.") from None
        if len(data) > most:
            raise Refused(f"{name} is too large: this server takes at most {most:,} bytes.")
        return data


def label_of(file: File) -> str:
    """What stands for an image on the screen, with its alternative text if it has one."""
    return f"[image {file.width}×{file.height} {one_line(file.alt)}".rstrip() + "]"


def paths_in(typed: str) -> list[str]:
    """The path that this is, if there is such a file, or else the paths that a shell would find in
    it: a terminal quotes the names of files that are dragged into it."""
    if os.path.exists(os.path.expanduser(typed)):
        return [typed]
    try:
        return shlex.split(typed)
    except ValueError:  # a quote is not closed
        return [typed]


def completed(typed: str) -> list[str]:
    """The paths that begin with what is typed; those of folders with a slash at their end."""
    begun = os.path.expanduser(typed)
    found = [path for path in glob.glob(glob.escape(begun) + "*") if not CONTROLS.search(path)]
    return [typed + path.removeprefix(begun) + "/" * os.path.isdir(path) for path in sorted(found)]
