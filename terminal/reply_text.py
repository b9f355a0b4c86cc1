"""The text of a reply for a terminal: prose is wrapped, and code gets colours."""

from terminal.colours import Code
from terminal.rows import Rows


class ReplyText:
    """Markdown, whose characters stay as the model wrote them. `begun` is text that the reply
    already has, and that is not shown again."""

    def __init__(self, rows: Rows, is_coloured: bool, begun: str = "") -> None:
        self._rows, self._code = rows, Code(is_coloured)
        *lines, self._line = begun.split("\n")  # the line that is not finished yet
        self._code.paint(lines)

    def add(self, text: str) -> str:
        """What to write for new text. It is shown at once; a line of code gets its colours when it
        is complete."""
        pieces = text.split("\n")
        *lines, self._line = [self._line + pieces[0], *pieces[1:]]
        written = []
        for piece, line, code in zip(pieces, lines, self._code.paint(lines), strict=False):
            if code is None:
                written.append(self._rows.add(f"{piece}\n", wraps=not _is_in_table(line)))
            else:
                written.append(self._rows.finish(piece, line, code))
        wraps = not self._code.is_open and not _is_in_table(self._line)
        return "".join([*written, self._rows.add(pieces[-1], wraps)])


def _is_in_table(line: str) -> bool:
    """Whether this is a row of a table, which a user may want to copy as one line."""
    return line.startswith("|")
