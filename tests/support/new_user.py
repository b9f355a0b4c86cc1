"""A new user in a fresh clone, who runs the commands of the documents."""

import contextlib
import os
import subprocess
import sys

from client import wait_until
from product import copy_bytecode, copy_of_the_clone
from servers import end, free_port


class NewUser:
    """A user in a fresh clone, with an empty home and nothing in the environment.

    Root gets a network of its own, in which no other program uses Parley's ports. Other users get
    other ports.
    """

    def __init__(self, folder):
        self.folder, home = folder / "parley", folder / "home"
        home.mkdir()
        copy_bytecode(copy_of_the_clone(self.folder))
        (self.folder / ".venv").mkdir()  # that of the Python that runs the tests
        for path in os.scandir(sys.prefix):
            (self.folder / ".venv" / path.name).symlink_to(path.path)
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
        self.port, self.enter, self.network, self.server = 5000, [], None, None
        command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat"]
        with contextlib.suppress(FileNotFoundError):
            pipes = {
                "stdin": subprocess.PIPE,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.DEVNULL,
                "text": True,
            }
            self.network = subprocess.Popen(command, **pipes)
        if self.network and self.network.stdout.readline():
            self.enter = ["nsenter", f"--net=/proc/{self.network.pid}/ns/net"]
        else:
            self.port = free_port()
            self.environment |= {
                "FLASK_RUN_PORT": str(self.port),
                "PARLEY_URL": f"http://127.0.0.1:{self.port}",
            }

    def command(self, text):
        return [*self.enter, "sh", "-ec", text.replace(":5000", f":{self.port}")]

    def run(self, text):
        """The output of these commands, which must not fail. If one asks at the terminal, the
        answer is to quit."""
        terminal, stdin = os.openpty()
        os.write(terminal, b"/quit\n")
        try:
            options = {"stdin": stdin, "capture_output": True, "text": True, "timeout": 60}
            done = subprocess.run(
                self.command(text), cwd=self.folder, env=self.environment, **options
            )
        finally:
            os.close(terminal)
            os.close(stdin)
        assert done.returncode == 0, (text, done.stdout, done.stderr)
        return done.stdout

    def serve(self, text):
        self.stop()
        with open(self.folder.parent / "log", "wb") as log:
            options = {"stdout": log, "stderr": log, "start_new_session": True}
            self.server = subprocess.Popen(
                self.command(f"exec {text}"), cwd=self.folder, env=self.environment, **options
            )
        health = self.command("curl -fsS http://127.0.0.1:5000/health")
        wait_until(
            lambda: (
                subprocess.run(health, capture_output=True).returncode == 0
                or self.server.poll() is not None
            )
        )
        assert self.server.poll() is None, self.log()

    def log(self):
        return (self.folder.parent / "log").read_text()

    def stop(self):
        if self.server is not None:
            self.server.terminate()
            assert self.server.wait(30) == 0, self.log()
            self.server = None

    def leave(self):
        for process in (self.server, self.network):
            if process is not None:
                end(process)
