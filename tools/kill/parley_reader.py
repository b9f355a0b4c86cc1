"""Parley's reader. It asks for a reply, and follows it as docs/streams.md says, with
`Last-Event-ID`.

    python parley_reader.py URL TOKEN

Like the other readers, it prints the text that it has so far, as a line of JSON, each time that
there is more.
"""

import json
import sys
import time
from urllib.parse import urljoin

import requests


def events(response):
    """The fields of each event of a stream; comments have none."""
    fields = {}
    for line in response.iter_lines(chunk_size=None):
        if line.startswith(b":"):
            continue
        if line:
            name, _, value = line.decode().partition(": ")
            fields[name] = value
        elif fields:
            yield fields
            fields = {}


def follow(url, token):
    """Yield the text so far, until the reply is complete."""
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    asked = {"json": {"content": "Count."}, "headers": headers, "stream": True, "timeout": 40}
    response = requests.post(f"{url}/sessions", **asked)
    place = urljoin(url, response.headers["Location"]) + "/events"
    text, tries = "", 0
    while True:
        try:
            response = response or requests.get(place, headers=headers, stream=True, timeout=40)
            response.raise_for_status()
            for event in events(response):
                headers["Last-Event-ID"], tries = event["id"], 0
                if event["event"] == "content_delta":
                    text += json.loads(event["data"])["delta"]
                    yield text
                elif event["event"] in ("done", "error"):
                    return
        except requests.RequestException:
            pass  # the server was killed, or is not up again yet
        time.sleep(min(0.25 * 2**tries, 10))
        response, tries = None, tries + 1


if __name__ == "__main__":
    for each in follow(*sys.argv[1:]):
        print(json.dumps(each), flush=True)
