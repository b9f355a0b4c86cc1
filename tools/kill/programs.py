"""The four programs: how each is started, started again, and read.

Each keeps what it has in SQLite. Its reader is a program, too, which prints the text that it has so
far, as a line of JSON, each time that there is more, and ends when the reply is complete.
"""

import json
import pathlib
import re
import shlex
import sys
from typing import NamedTuple

import environments
from client import SECRET, make_token
from product import copy_of_the_service
from servers import free_port

HERE = pathlib.Path(__file__).parent

FROM_NPM = json.loads((HERE / "flue" / "package.json").read_text("utf-8"))["dependencies"]
FROM_PYPI = dict(
    re.findall(r"^([\w-]+).*==(.+)$", (HERE / "requirements.in").read_text("utf-8"), re.MULTILINE)
)
FLUE = f"Flue {FROM_NPM['@flue/runtime']}"
DBOS = f"DBOS {FROM_PYPI['dbos']}"
PYDANTIC_AI = f"Pydantic AI {FROM_PYPI['pydantic-ai-slim']} on DBOS"


class Program(NamedTuple):
    name: str
    start: list  # its command
    restart: list  # its command after the kill
    reader: list  # its reader's command
    port: int | None = None  # where it listens, if it does
    folder: pathlib.Path = HERE  # where it is started
    settings: dict = {}  # the variables of its environment


def parley(folder, model_url):
    """This clone, as its Procfile starts it."""
    port = free_port()
    settings = {
        "OPENAI_BASE_URL": model_url,
        "DEFAULT_MODEL": "stub",
        "JWT_SECRET": SECRET,
        "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port}",
    }
    service = copy_of_the_service(folder / "service")  # without an `.env`
    command = shlex.split((service / "Procfile").read_text("utf-8").partition(":")[2])
    reader = [sys.executable, HERE / "parley_reader.py", f"http://127.0.0.1:{port}", make_token()]
    return Program("Parley", command, command, reader, port, service, settings)


def flue(folder, model_url):
    node, port = environments.node(), free_port()
    place = environments.CACHE / "flue"
    command = [node, place / "flue.mjs", model_url, str(port), folder / "flue.db"]
    reader = [node, place / "reader.mjs", f"http://127.0.0.1:{port}/agents/chat/one"]
    return Program(FLUE, command, command, reader, port)


def dbos(folder, model_url):
    return on_dbos(DBOS, "dbos_step.py", folder, model_url)


def pydantic_ai(folder, model_url):
    return on_dbos(PYDANTIC_AI, "pydantic_dbos.py", folder, model_url)


def on_dbos(name, script, folder, model_url):
    python, database = environments.python(), f"sqlite:///{folder}/dbos.db"
    command = [python, HERE / script, model_url, database]
    return Program(name, [*command, "Count."], command, [python, HERE / "dbos_reader.py", database])


PROGRAMS = {"parley": parley, "flue": flue, "dbos": dbos, "pydantic-ai": pydantic_ai}
