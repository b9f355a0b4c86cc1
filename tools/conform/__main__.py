"""The streaming protocol and the API as cases: the tool scripts what the server's model says, and
compares what its clients see with docs/streams.md and docs/api.md. It knows nothing of the server.

    .venv/bin/python tools/conform URL --token T [--other T2] [--restart COMMAND] [--client COMMAND]

It prints a line for each case: the number of the promise, what is tried, and `ok`, what was seen
instead, or why the case was left out. Its status is 1 if one fails.

The model is the tool itself. It listens on a port of the loopback interface (`--provider`), and
speaks OpenAI's Chat Completions. So the server is set up with

    OPENAI_BASE_URL=http://127.0.0.1:8765/v1 DEFAULT_MODEL=conform

and with neither MODELS nor TITLE_MODEL, RATE_LIMIT nor TOKEN_LIMIT. CONTINUE_LIMIT is 2,
as by default, and REPLY_WAIT at least 10. The user of the token has new sessions afterwards.

- `--other` is a token of another user, whose requests must be refused.
- `--restart` is a command that kills the server (kill -9), starts it again on the same database,
  and returns. The tool then waits until `/health` answers.
- `--client` is a program that is run on the list of readings (readings.toml), as the tool's own
  reader is. `'node reader.mjs'` is called with URL, token and a message. It sends that to a new
  session of this URL, and prints each event of the reply as a line of JSON, with the fields
  `event`, `data` and `id`. If its words have {url}, {token} and {message}, these are filled in.
  `parley.js` is the client that every server has, under node, and `parley_client.py` the one for
  Python. Several may be given.
- `--text` is one that prints the text of the reply alone, such as
  `'.venv/bin/flask chat --url {url} --token {token} {message}'`.

A server with THINKING=count or THINKING=live does not show, or does not keep, what its model thinks.
Cases that need that are then left out.

What a case needs is in its row (replies.toml, answers.toml, readings.toml) or in its function
(resuming.py, going_further.py, living.py, thinking.py, seeing.py, using.py). What holds of all
streams and answers is in stream_rules.py, and what no case can see in left_out.toml.
"""

import argparse
import contextlib
import http.client
import subprocess
import sys
import tempfile
import time
from urllib.parse import urlsplit

from calling import LOST, connect
from casebook import Place
from client_list import read_list
from coming_back import Own, Program
from conforming import broken, conform, left_out
from front_end import CLIENTS, write_reader
from scripted_model import ScriptedModel

UP = 60  # seconds until a server that was started again answers


def restarting(command, url):
    """A function that runs the command, and waits until the server is there."""

    def restart():
        subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + UP
        while not is_up(url):
            if time.monotonic() > deadline:
                raise TimeoutError(f"The server does not answer {UP} seconds behind its restart.")
            time.sleep(0.1)

    return restart


def is_up(url):
    place = urlsplit(url)
    try:
        with contextlib.closing(connect(place, 5)) as way:
            way.request("GET", place.path.rstrip("/") + "/health")
            return way.getresponse().status == http.client.OK
    except LOST:
        return False


def clients(options, folder):
    """The readers that are run on the list."""
    yield Own()
    for command in options.client:
        yield Program(write_reader(command, folder) if command in CLIENTS else command)
    for command in options.text:
        yield Program(command, is_text=True)


def tell(seen):
    for each in seen:
        print(each, flush=True)
        yield each


def main():
    parser = argparse.ArgumentParser(
        prog="python tools/conform",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url", metavar="URL")
    parser.add_argument("--token", required=True)
    parser.add_argument("--other", metavar="TOKEN", help="of another user")
    parser.add_argument("--provider", metavar="PORT", type=int, default=8765, help="(8765)")
    parser.add_argument("--restart", metavar="COMMAND")
    parser.add_argument("--client", metavar="COMMAND", action="append", default=[])
    parser.add_argument("--text", metavar="COMMAND", action="append", default=[])
    parser.add_argument("--only", metavar="NUMBERS", help="with commas: S-13,S-24")
    parser.add_argument("--quick", action="store_true", help="without what takes half a minute")
    options = parser.parse_args()
    if not is_up(options.url):
        sys.exit(f"No server answers at {options.url}/health. Start it as --help says.")
    restart = options.restart and restarting(options.restart, options.url)
    numbers = set(options.only.split(",")) if options.only else None
    with (
        contextlib.closing(ScriptedModel(options.provider)) as model,
        tempfile.TemporaryDirectory() as folder,
    ):
        place = Place(options.url, options.token, model, options.other, restart)
        seen = [*tell(conform(place, numbers, options.quick))]
        if not numbers:
            seen += tell(read_list(place, *clients(options, folder)))
    for number, why in left_out().items() if not numbers else ():
        print(f"{number:<10} left out: {why}")
    if found := broken(seen):
        print(f"What is not kept: {', '.join(sorted(found))}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
