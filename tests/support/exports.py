"""A user's export, page by page."""

import json
import re


def pages_of(client):
    """The pages of an export, each as its lines."""
    path = "/export"
    while path:
        response = client.get(path, Accept="application/x-ndjson")
        assert response.status_code == 200, response.text
        assert response.headers["Content-Type"] == "application/x-ndjson"
        text = response.content.decode()
        assert text.endswith("\n") or not text
        yield [json.loads(line) for line in text.splitlines()]
        link = response.headers.get("Link")
        path = (
            re.fullmatch('<(/export\\?page%5Bafter%5D=[0-9a-f-]+)>; rel="next"', link)[1]
            if link
            else None
        )


def export_of(client):
    return [line for page in pages_of(client) for line in page]


def without_ids(line):
    """A line without what an import replaces."""
    turns = [
        {name: value for name, value in turn.items() if name != "id"} for turn in line["turns"]
    ]
    return {name: value for name, value in line.items() if name != "id"} | {"turns": turns}


def turns_of(*texts):
    """Turns of an import, the user's and the model's alternating."""
    kinds = ("user", "assistant")
    return [{"kind": kinds[place % 2], "content": text} for place, text in enumerate(texts)]


def imported(client, **body):
    """The session that this import made."""
    response = client.post("/sessions/import", body)
    assert response.status_code == 201, response.text
    session = response.json()
    assert response.headers["Location"] == f"/sessions/{session['id']}"
    return session
