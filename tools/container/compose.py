"""`compose.yaml`: read by Docker's compose; with Docker also run by the commands of
docs/container.md, alone and with PostgreSQL.
"""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import uuid

import requests

from client import Client, wait_until
from engine import LABEL
from product import ROOT
from servers import free_port

DOCUMENT = (ROOT / "docs" / "container.md").read_text("utf-8")
LINES = "COMPOSE_PROFILES=postgres\nPOSTGRES_PASSWORD=x\n"
LINES_OF_ALL = LINES.replace("postgres\n", "postgres,tls\n") + "PARLEY_DOMAIN=chat.example.com\n"
STANDIN = "localhost/parley-test-postgres"


def check(engine, clone, base, image, say):
    """Read it with `.env` and without; and run it, in this folder, if the engine is Docker."""
    command = ["docker", "compose"] if engine.name == "docker" else ["docker-compose"]
    if not shutil.which(command[0]):
        return say("compose", "left out: docker-compose is not installed")
    for lines, services in (
        (None, {"parley"}),
        (LINES, {"parley", "postgres"}),
        (LINES_OF_ALL, {"parley", "postgres", "caddy"}),
    ):
        (clone / ".env").write_text(lines) if lines else (clone / ".env").unlink()
        told = subprocess.run(
            [*command, "config", "--services"], cwd=clone, capture_output=True, text=True
        )
        assert (told.returncode, set(told.stdout.split())) == (0, services), told
    say("compose", "its file is read, with PostgreSQL, with Caddy, and without")
    if engine.name == "docker":
        (clone / ".env").unlink()
        with Project(engine, clone, base, image) as project:
            project.check(say)


class Project:
    """What compose runs, with names, ports and volumes of its own."""

    def __init__(self, engine, folder, base, image):
        self.engine, self.folder, self.port = engine, folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        build = f"{{network: host, labels: [{LABEL}], args: {{BASE: {base}}}}}"
        override = f"services: {{parley: {{image: {image}, build: {build}}}"
        if engine.call("pull", "docker.io/library/postgres:17").returncode:
            dockerfile = pathlib.Path(__file__).with_name("PostgreSQL.Dockerfile")
            engine.run(
                "build",
                *engine.build_options,
                "--build-arg",
                f"BASE={base}",
                "-f",
                dockerfile,
                "-t",
                STANDIN,
                folder,
            )
            override += f", postgres: {{image: {STANDIN}}}"
        (folder / "override.yaml").write_text(override + "}")
        self.environment = os.environ | {
            "PARLEY_PORT": str(self.port),
            "COMPOSE_FILE": "compose.yaml:override.yaml",
        }
        self.environment["COMPOSE_PROJECT_NAME"] = f"parley-test-{uuid.uuid4().hex[:8]}"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.run("docker compose down --volumes")
        self.engine.call("image", "rm", "--force", STANDIN)

    def run(self, text):
        told = subprocess.run(
            ["sh", "-ec", text],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert told.returncode == 0, told
        return told.stdout

    def wait_until_up(self, client):
        """The same client, once it gets answers."""

        def is_up():
            with contextlib.suppress(requests.ConnectionError):
                return client.get("/health").status_code == 200

        wait_until(is_up)
        return client

    def check(self, say):
        """What was written survives new code, a backup and its restore; with PostgreSQL it is
        there."""
        start, with_postgresql, _, backup = re.findall(
            r"^```sh\n([^`]*^docker compose (?:up|stop)[^`]*)^```", DOCUMENT, re.MULTILINE
        )
        save, restore = backup.split("# To restore it\n")
        [dump] = re.findall(r"`(docker compose exec [^`]*)`", DOCUMENT)
        client = Client(self.url, self.run(start).split()[-1])
        session = self.wait_until_up(client).create("Hello")
        with open(self.folder / "app.py", "a") as code:
            code.write("# Newer code.\n")
        self.run(start)
        assert len(self.wait_until_up(client).turns(session)) == 2
        self.run(save)
        self.wait_until_up(client).delete(f"/sessions/{session['id']}")
        self.run(restore)
        assert len(self.wait_until_up(client).turns(session)) == 2
        self.run(with_postgresql)
        assert self.wait_until_up(client).get(f"/sessions/{session['id']}").status_code == 404
        client.create("Hello")
        self.run(dump)
        assert (self.folder / "parley.dump").read_bytes().startswith(b"PGDMP")
        say(
            "compose",
            "what is stored outlives new code, and returns from a backup; PostgreSQL is taken, and is saved",
        )
