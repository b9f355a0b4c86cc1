"""Parley's own clients, as programs that print the events of a reply: static/parley.js for Node.js,
and clients/python/parley_client.py."""

import pathlib
import shutil
import sys

ROOT = pathlib.Path(__file__).parents[2]
JAVASCRIPT = """
import { reply } from "./parley.mjs";

const [url, token, content] = process.argv.slice(2);
for await (const event of reply(`${url}/sessions`, { token, content }))
  console.log(JSON.stringify(event));
"""
PYTHON = """
import json
import sys

from parley_client import Parley

url, token, content = sys.argv[1:]
for event in Parley(url, token).send(content).events():
    print(json.dumps(event._asdict()), flush=True)
"""
CLIENTS = {  # name → the module, its name in the folder, the program that uses it, and its command
    "parley.js": (ROOT / "static" / "parley.js", "parley.mjs", JAVASCRIPT, "node"),
    "parley_client.py": (
        ROOT / "clients" / "python" / "parley_client.py",
        "parley_client.py",
        PYTHON,
        sys.executable,
    ),
}


def write_reader(name, folder):
    """The command of this client; its files are in this folder."""
    module, copy, program, command = CLIENTS[name]
    shutil.copy(module, pathlib.Path(folder, copy))
    path = pathlib.Path(folder, f"reader{pathlib.Path(copy).suffix}")
    path.write_text(program, "utf-8")
    return f"{command} {path}"
