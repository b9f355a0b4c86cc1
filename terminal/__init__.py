"""The command line of `flask`, and what a start says.

    commands ─ token, usage, forget
    backup ─ backup, restore
    moving, taking ─ export, import, and what becomes of the conversations of a file
    check ─ all that is set up is tried
    chat ─ a client, which knows the service by its API alone (client):
        choices ─ what its user sets
        sessions, transcript ─ the user's chats, and what has been said in one
        prompt ─ what is typed
        screen ─► markdown ─► spans, colours; rows ─ what is shown
    start ─ the banner, and the line of the log

`app.py` registers the commands.
"""

from terminal.backup import backup_command, restore_command
from terminal.chat import chat_command
from terminal.check import check_command
from terminal.commands import forget_command, print_token, usage_command
from terminal.moving import export_command, import_command
from terminal.start import announce, is_looking_for_commands, prepare_run

COMMANDS = (
    print_token,
    chat_command,
    check_command,
    usage_command,
    forget_command,
    backup_command,
    restore_command,
    export_command,
    import_command,
)

__all__ = ["COMMANDS", "announce", "is_looking_for_commands", "prepare_run"]
