"""Files that users upload, as turns and requests to models refer to them. All are images."""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

FILES_MAX = 8  # of one message
ALT_MAX = 1000  # characters of an alternative text
LEFT_OUT = "[image]"  # what a model gets in place of an image that it is not sent


class FileRef(NamedTuple):
    """A file as a request names it."""

    id: str
    alt: str = ""  # alternative text, for people who do not see the image


@dataclasses.dataclass(frozen=True)
class File:
    """A file without its bytes, which never change. In a turn, it may have an alternative text."""

    id: str  # the SHA-256 of its bytes, in hexadecimal digits
    media_type: str  # image/jpeg or image/png
    width: int  # in pixels, as it is displayed
    height: int
    size: int  # in bytes
    alt: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Its JSON, which has an alternative text only if there is one."""
        fields = dataclasses.asdict(self)
        if not self.alt:
            del fields["alt"]
        return fields

    @property
    def tokens(self) -> int:
        """The tokens that it costs if the provider does not count them. Anthropic counts one for
        750 pixels, up to some 1,600 (docs.anthropic.com/en/docs/build-with-claude/vision), Ollama
        768 for any image (ollama/server/prompt.go)."""
        return min(1600, max(768, self.width * self.height // 750))

    @property
    def label(self) -> str:
        """What stands for it in a text."""
        return f"[image {self.width}×{self.height}]"


def files_of(column: str | None) -> list[File]:
    """The files of a turn, from its column `files`."""
    return [File(**each) for each in json.loads(column)] if column else []


def column_of(files: Iterable[File]) -> str | None:
    """The column `files` of a turn with these files; null if there are none."""
    listed = [file.to_dict() for file in files]
    return json.dumps(listed, separators=(",", ":")) if listed else None


def with_labels(content: str, files: Iterable[File]) -> str:
    """A message as a text, with the labels of its files before its words."""
    return " ".join(filter(None, [*(file.label for file in files), content]))
