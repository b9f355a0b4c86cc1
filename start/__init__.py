"""Messages of a start: what is set up, what looks wrong, and how to begin.

    banner ─ for a person on the terminal, and for an operator in the log
    summary ─ what is set up, in a few words
    warnings ─ what looks wrong, a sentence each; also for `flask check`

Every process of the server imports this, but nothing of `terminal`.
"""

from start.banner import announce, is_looking_for_commands, prepare_run

__all__ = ["announce", "is_looking_for_commands", "prepare_run"]
