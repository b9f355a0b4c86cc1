"""Files that users upload, as turns and requests to models refer to them. All are images."""

import dataclasses
import json
from collections.abc import Iterable

FILES_MAX = 8  # of one message
LEFT_OUT = "[image]"  # what a model gets in place of an image that it is not sent


@dataclasses.dataclass(frozen=True)
class File:
    """A file without its bytes, which never change."""

    id: str  # the SHA-256 of its bytes, in hexadecimal digits
    media_type: str  # image/jpeg or image/png
    width: int  # in pixels, as it is displayed
    height: int
    size: int  # in bytes

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
    listed = [dataclasses.asdict(file) for file in files]
    return json.dumps(listed, separators=(",", ":")) if listed else None


def with_labels(content: str, files: Iterable[File]) -> str:
    """A message as a text, with the labels of its files before its words."""
    return " ".join(filter(None, [*(file.label for file in files), content]))
