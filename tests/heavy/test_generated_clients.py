"""Clients that are generated from the API description work."""

import json
import os
import pathlib
import shutil
import sys
import threading

import pytest

from described import run
from product import ROOT
from provider import fails, reply
from servers import npm_folder


def script(provider):
    """The provider's answer to such a client."""
    unended = threading.Event()
    provider.script = [
        reply("The answer."),
        reply("Two\u2028", "lines."),
        reply("Half ", unended, "whole."),
        reply("done."),
        reply("Changed."),
        fails("Some "),
        fails("Some "),
    ]


TOLD = {
    "created": ["Hello", True, True],
    "streamed": {
        "events": ["content_delta", "assistant_turn", "done"],
        "text": "Two\u2028lines.",
        "end": "complete",
    },
    "deferred": {"accepted": True},
    "cancelled": "m-1 (interrupted): Half ",
    "resumed": {"events": ["assistant_turn", "done"], "text": "", "end": "interrupted"},
    "continued": ["m-1 (complete): Half done.", 1, "stop", 7],
    "retried": "m-1 (complete): Changed.",
    "failed": {"status": 502, "title": "Bad Gateway", "source": None, "kept": True},
    "failing": {"events": ["content_delta", "error"], "text": "Some ", "end": 502},
    "turns": [
        "user: Hello",
        "m-1 (complete): The answer.",
        "user: As a stream?",
        "m-1 (complete): Two\u2028lines.",
        "user: Changed?",
        "m-1 (complete): Changed.",
        "user: And this?",
        "m-1 (failed): Some ",
    ],
    "options": {"temperature": 0.5},
    "page": [1, True],
    "listed": [[True], False],
    "changed": ["Mine", None],
    "models": [["m-1", "openai"]],
    "health": "ok",
    "faults": [
        {"status": 400, "title": "Bad Request", "source": {"pointer": "/content"}},
        {"status": 409, "title": "Conflict", "source": None},
        {"status": 404, "title": "Not Found", "source": None},
    ],
    "deleted": 204,
}


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)  # the description is the same on both
def test_types_of_openapi_typescript_make_a_client_that_compiles_and_works(
    server, provider, tmp_path
):
    folder = npm_folder("openapi-client")
    for name in ("client.ts", "tsconfig.json", "package.json"):
        shutil.copy(folder / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(folder / "node_modules")
    made = run(
        "node_modules/.bin/openapi-typescript",
        server.url + "/openapi.json",
        "--output",
        "schema.ts",
        cwd=tmp_path,
    )
    assert "warn" not in (made.stdout + made.stderr).lower()
    run("node_modules/.bin/tsc", cwd=tmp_path)
    script(provider)
    carol = server.client("https://github.com/carol")
    told = run("node", "client.js", server.url, carol.token, cwd=tmp_path)
    assert (json.loads(told.stdout), told.stderr) == (TOLD, "")


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)  # the description is the same on both
def test_a_client_of_openapi_python_client_works(server, provider, tmp_path):
    commands = pathlib.Path(sys.executable).parent
    # It knows neither lines of JSON nor images by itself, and would leave these operations out.
    config = tmp_path / "config.yaml"
    bytes_of_images = "image/jpeg: application/octet-stream, image/png: application/octet-stream"
    config.write_text(
        f"content_type_overrides: {{application/x-ndjson: text/plain, {bytes_of_images}}}"
    )
    options = ("--meta", "none", "--output-path", "parley_client", "--fail-on-warning")
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"  # it looks for ruff there
    run(
        commands / "openapi-python-client",
        "generate",
        "--url",
        server.url + "/openapi.json",
        *options,
        "--config",
        config,
        cwd=tmp_path,
        PATH=path,
    )
    shutil.copy(ROOT / "tests" / "support" / "openapi-client" / "client.py", tmp_path)
    script(provider)
    dave = server.client("https://github.com/dave")
    told = run(sys.executable, "-W", "error", "client.py", server.url, dave.token, cwd=tmp_path)
    assert (json.loads(told.stdout), told.stderr) == (TOLD, "")
