"""What the description of the API says, resolved, and operations to compare with it."""

import os
import subprocess

ONE = "/sessions/{id}"


SEED = {
    "content": "Add rate limiting to the auth endpoints using a sliding window approach with Redis, 10 requests per "
    "minute per IP.",
    "model": "claude-opus-4-6",
    "system": "You are a helpful coding assistant.",
}


def resolve(document, part):
    while "$ref" in part:
        target = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        part = target
    return part


def operations(document):
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


# Generated clients, in TypeScript and in Python, which do the same and tell the same


def run(*command, cwd, **environment):
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done
