"""The client of docs/front-ends.md, as a program for Node.js."""

import pathlib
import re

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "front-ends.md"
USE = """
const [url, token, content] = process.argv.slice(2);
for await (const event of reply(`${url}/sessions`, token, content))
  console.log(JSON.stringify(event));
"""


def write_reader(folder):
    """The command of it; its file is in this folder."""
    client = re.search(r"```js\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)[1]
    path = pathlib.Path(folder) / "reader.mjs"
    path.write_text(client + USE, "utf-8")
    return f"node {path}"
