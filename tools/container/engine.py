"""Podman or Docker, and what is made with it: a base of Debian's packages, the image, containers."""

import contextlib
import json
import os
import shutil
import subprocess
import time

import requests

from client import Client
from servers import free_port

CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
BASE, TRIAL = "localhost/parley-test-base", "localhost/parley-test-trial"
LABEL = "parley-test=yes"
ONCE = "run", "--rm", "--read-only", "--network", "host"
# A user that the image does not have, as a platform chooses one. Docker and Podman put it in group
# 0.
SOMEBODY = "54321"


class Unavailable(Exception):
    """A tool is missing, or this machine does not let it do its work; the text says which."""


class Failed(AssertionError):
    """A command failed that should not have; the text has its output."""


class Engine:
    """`podman` or `docker`. Podman has a storage of its own in this folder, so that nothing is left
    of what is made."""

    def __init__(self, name, folder):
        if not shutil.which(name):
            raise Unavailable(f"{name} is not installed")
        self.name, self.storage = name, folder / "storage"
        self.command, self.build_options = [name], ["--network", "host", "--label", LABEL]
        if name == "podman":
            # Podman's defaults, crun and systemd's cgroups, do not work in a sandbox without
            # systemd.
            self.command += [
                "--root",
                self.storage,
                "--runroot",
                folder / "run",
                "--cgroup-manager",
                "cgroupfs",
            ]
            self.command += ["--runtime", "runc"] if shutil.which("runc") else []
            # OCI's format has no health check.
            self.build_options += ["--isolation", "chroot", "--format", "docker"]
            self.build_options += [
                "--ulimit",
                "nofile=20000:20000",
                "--ulimit",
                "nproc=20000:20000",
            ]

    def run(self, *arguments, **options):
        """The output of this command. Raises Failed."""
        told = self.call(*arguments, **options)
        if told.returncode:
            raise Failed(
                f"{self.name} {' '.join(map(str, arguments))}:\n{told.stdout[-3000:]}{told.stderr[-3000:]}"
            )
        return told.stdout.strip()

    def call(self, *arguments, **options):
        environment = os.environ | {"PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}
        pipes = {"capture_output": True, "text": True, "env": environment, "timeout": 300}
        return subprocess.run([*self.command, *arguments], **pipes | options)

    def inspect(self, name):
        return json.loads(self.run("inspect", name))[0]

    def take(self, image):
        """This image, if it is here or can be pulled. Raises Unavailable."""
        if self.name == "podman" and self.call("image", "exists", image).returncode:
            with subprocess.Popen(
                ["podman", "save", image], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as saved:
                self.call("load", stdin=saved.stdout)  # from the user's own storage
        if self.call("image", "inspect", image).returncode and self.call("pull", image).returncode:
            raise Unavailable(f"there is no image {image}")
        return image

    def make_base(self, folder):
        """An image of Debian's Python, if there is no registry: the packages are Debian's. Raises
        Unavailable."""
        if os.geteuid() or not shutil.which("debootstrap"):
            raise Unavailable(
                "a base is made by debootstrap, as root: install it, or name an image with Python in it by --base"
            )
        packages = "--include=python3,python3-venv,ca-certificates"
        command = ["debootstrap", "--variant=minbase", packages, "trixie", folder / "base"]
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            raise Unavailable("debootstrap has not ended within five minutes") from None
        if told.returncode:
            raise Unavailable(f"debootstrap: {told.stdout[-300:]}{told.stderr[-300:]}")
        # An official image has none of these. And pip must trust the certificates that this machine
        # trusts, since its registry may be a mirror.
        for path in ("var/cache/apt", "var/lib/apt/lists", "var/log"):
            shutil.rmtree(folder / "base" / path)
            (folder / "base" / path).mkdir()
        shutil.copy(f"/{CERTIFICATES}", folder / "base" / CERTIFICATES)
        self.import_folder(folder / "base", BASE)
        shutil.rmtree(folder / "base")
        return BASE

    def import_folder(self, folder, name):
        """An image of what is in this folder. Raises Unavailable if the storage does not take it."""
        with subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE) as tar:
            told = self.call("import", "-", name, stdin=tar.stdout)
        if told.returncode:
            raise Unavailable(f"{self.name} import: {told.stderr[-300:]}")

    def build(self, folder, base, name):
        """Build the image of this folder's Dockerfile; returns the seconds that it took."""
        began = time.monotonic()
        self.run("build", *self.build_options, "--build-arg", f"BASE={base}", "--tag", name, folder)
        return time.monotonic() - began

    def try_out(self, image):
        """Raises Unavailable if nothing can be built or run at all."""
        run = (*ONCE, image, "true")
        build = ("build", *self.build_options, "--tag", TRIAL, "-")
        for told in self.call(*run), self.call(*build, input=f"FROM {image}\nRUN true\n"):
            if told.returncode:
                raise Unavailable(f"{self.name} cannot work here: {told.stderr[-300:]}")

    def clean(self, images):
        """Remove these images. For Podman, unmount the overlay in its folder instead, so that the
        folder can be removed."""
        if self.name == "podman":
            subprocess.run(["umount", self.storage / "overlay"], capture_output=True)
        else:
            self.call("image", "rm", "--force", *images)
            self.call("image", "prune", "--force", "--filter", f"label={LABEL}")


class Container:
    """A container of the image, read-only and without any capability, that listens on a port of the
    loopback interface."""

    def __init__(self, engine, image, volume=None, user=None, port=None, grace=None, **settings):
        self.engine, self.port = engine, port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        arguments = f"--bind 127.0.0.1:{self.port}" + (
            f" --graceful-timeout {grace}" if grace else ""
        )
        settings = {"PORT": self.port, "GUNICORN_CMD_ARGS": arguments} | settings
        options = [
            "--detach",
            "--network",
            "host",
            "--read-only",
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
        ]
        options += ["--volume", f"{volume}:/app/instance"] if volume else []
        options += ["--user", user] if user else []
        options += [
            part for name, value in settings.items() for part in ("--env", f"{name}={value}")
        ]
        self.id = engine.run("run", *options, image)

    def wait_until_up(self, seconds=30):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.ConnectionError, requests.Timeout):
                if requests.get(self.url + "/health", timeout=5).status_code == 200:
                    return self
            assert self.engine.inspect(self.id)["State"]["Running"], self.log()
            time.sleep(0.05)
        raise AssertionError("it did not start: " + self.log())

    def client(self, token=None):
        """A client with this token, by default one that the container prints."""
        return Client(self.url, token or self.exec("flask", "token", "https://github.com/you"))

    def exec(self, *command):
        return self.engine.run("exec", self.id, *command)

    def python(self, program):
        """The output of this program, in the container."""
        return self.exec("python", "-c", program)

    def health(self):
        """The status of the image's own health check: 0 if it is well."""
        kind, *command = self.engine.inspect(self.id)["Config"]["Healthcheck"]["Test"]
        assert kind == "CMD"
        return self.engine.call("exec", self.id, *command).returncode

    def stop(self, seconds=30):
        """SIGTERM, as for a deployment: the exit status, and how many seconds it took."""
        began = time.monotonic()
        self.engine.run("stop", "-t", str(seconds), self.id)
        took = time.monotonic() - began
        return self.engine.inspect(self.id)["State"]["ExitCode"], took

    def kill(self):
        self.engine.run("kill", "--signal", "KILL", self.id)

    def log(self):
        told = self.engine.call("logs", self.id)
        return told.stdout + told.stderr

    def remove(self):
        self.engine.call("rm", "--force", "--volumes", self.id)
