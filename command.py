"""The command `parley` of the installed package: all that `flask` does in a clone, and `serve`.

The package is the folder of this file. Its modules import each other by plain names, as in a clone.
So this file puts the folder first in the path, and nothing imports `parley.…`: that would load a
second copy of a module."""

import os
import shlex
import sys

import click
from flask.cli import FlaskGroup

FOLDER = os.path.dirname(os.path.abspath(__file__))


def main() -> None:
    """Run the command on the command line, by default `run`."""
    sys.path.insert(0, FOLDER)
    os.environ["FLASK_APP"] = os.path.join(FOLDER, "app.py")
    home, called = find_home(), "parley"
    if os.environ.get("PARLEY_HOME"):  # a command that is suggested must find the same data
        called = f"PARLEY_HOME={shlex.quote(home)} parley"
    os.environ |= {"PARLEY_HOME": home, "PARLEY_COMMAND": called}
    group = FlaskGroup(
        name="parley",
        help="Parley, a chat-session service. Without a command: run.",
        add_version_option=False,
        load_dotenv=False,  # Flask would also read `.env` of the working folder
    )
    click.version_option(package_name="parley-chat", message="%(prog)s %(version)s")(group)
    group.add_command(serve)
    group.main(sys.argv[1:] or ["run"], prog_name="parley")


def find_home() -> str:
    """The folder of the database, the key and `.env`: `$PARLEY_HOME`, else `parley` in the user's
    data folder (XDG Base Directory Specification)."""
    data = os.environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data):  # "consider the path invalid and ignore it"
        data = os.path.join("~", ".local", "share")
    path = os.path.expanduser(os.environ.get("PARLEY_HOME") or os.path.join(data, "parley"))
    if path.startswith("~"):
        raise SystemExit("PARLEY_HOME: give a folder, since this user has no home folder")
    return os.path.abspath(path)


@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def serve(options: tuple[str, ...]) -> None:
    """Serve by gunicorn, as on a server. OPTIONS are gunicorn's own."""
    if not os.access(".", os.X_OK):  # gunicorn enters the folder in which it is started
        os.chdir("/")
    configuration = os.path.join(FOLDER, "gunicorn.conf.py")
    os.execv(sys.executable, [sys.executable, configuration, *options])
