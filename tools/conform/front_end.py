"""The client that every server has, static/parley.js, as a program for Node.js."""

import pathlib
import shutil

MODULE = pathlib.Path(__file__).parents[2] / "static" / "parley.js"
PROGRAM = """
import { reply } from "./parley.mjs";

const [url, token, content] = process.argv.slice(2);
for await (const event of reply(`${url}/sessions`, { token, content }))
  console.log(JSON.stringify(event));
"""


def write_reader(folder):
    """Its command; its files are in this folder."""
    folder = pathlib.Path(folder)
    shutil.copy(MODULE, folder / "parley.mjs")
    path = folder / "reader.mjs"
    path.write_text(PROGRAM, "utf-8")
    return f"node {path}"
