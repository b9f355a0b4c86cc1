"""The commands of `flask` and `parley`, for a person at a terminal. A server does not import this.

    commands ─ token, usage, forget
    backup ─ backup, restore
    files, import_run ─ export and import
    move ─ everything into another database
    check ─ tries all that is set up
    chat ─ a client that uses only the service's API (client):
        choices ─ its user's model, system prompt and options
        attachments ─ the images that go with the next message
        sessions, transcript ─ the user's chats, and the turns of one
        prompt ─ what is typed
        screen ─ what is shown ─► reply_text ─► rows, which wraps text; colours, for code

`app.py` registers them.
"""

from terminal.backup import backup_command, restore_command
from terminal.chat import chat_command
from terminal.check import check_command
from terminal.commands import forget_command, print_token, usage_command
from terminal.files import export_command, import_command
from terminal.move import move_command

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
    move_command,
)

__all__ = ["COMMANDS"]
