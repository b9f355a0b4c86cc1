"""The package that is installed: what is in it, and the command `parley`, from nothing to a reply.

Modules: `command.py`.
"""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile

import pytest
import requests

import app
import command
from client import Client, wait_until
from product import ROOT, copy_of_the_clone, files_of_the_page, files_of_the_service
from servers import children, end, free_port, wait_until_up

UV = pathlib.Path(sys.executable).with_name("uv")
STRAY = {  # what a clone may have, and no package
    ".env": "OPENAI_API_KEY=sk-secret",
    "private.pem": "a private key",
    "instance/parley.db": "chats",
    "backup-2026/parley.db": "chats",
    "secrets.toml": "a key",
    "local_secrets.py": "a key",
    "api/dump.sql": "chats",
    "static/private.pem": "a private key",
    "static/x.db": "chats",
    "static/icons/private.pem": "a private key",
}
ME = "https://github.com/you"


def clone_of_a_person(folder):
    """What git knows of this clone, and what a person's has besides."""
    copy_of_the_clone(folder)
    for name, text in STRAY.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The folder with a wheel and a source distribution."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    folder = tmp_path_factory.mktemp("package")
    build = [
        UV,
        "build",
        "--quiet",
        "--out-dir",
        folder / "dist",
        clone_of_a_person(folder / "clone"),
    ]
    made = subprocess.run(build, capture_output=True, text=True, timeout=300)
    if made.returncode and re.search("Failed to fetch|error sending request", made.stderr):
        pytest.skip("there is no network")
    assert made.returncode == 0, made.stderr
    return folder / "dist"


def expected_files():
    return files_of_the_service() | files_of_the_page()


def test_a_wheel_has_the_service_and_nothing_else(distributions):
    [wheel] = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    [facts] = {name.partition("/")[0] for name in names} - {"parley"}
    assert facts.endswith(".dist-info")
    assert {name for name in names if name.startswith("parley/")} == {
        f"parley/{name}" for name in expected_files()
    }


def test_a_source_distribution_has_the_service_and_nothing_secret(distributions):
    [source] = distributions.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert expected_files() | {"LICENSE", "README.md", "pyproject.toml"} <= names
    assert not [name for name in names if name in STRAY or name.startswith(("tests/", "tools/"))]


class Installed:
    """The package in an environment of its own, and a user with a home of their own, who is in a
    folder that has modules of the same names."""

    def __init__(self, folder, environment):
        self.bin = environment / "bin"
        self.home, self.folder = folder / "home", folder / "somewhere"
        self.data = self.home / ".local" / "share" / "parley"
        self.home.mkdir()
        self.folder.mkdir()
        for name in ("app.py", "auth.py", "settings.py", "gunicorn.conf.py"):
            (self.folder / name).write_text("raise SystemExit('a module of somebody else')")
        (self.folder / ".env").write_text("DATABASE_URL=of somebody else")
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def run(self, *words, **settings):
        options = {"cwd": self.folder, "env": self.environment | settings, "timeout": 60}
        done = subprocess.run(
            [self.bin / "parley", *words], capture_output=True, text=True, **options
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def serving(self, *words, **settings):
        """`parley` with these words, once it answers; behind it, it was told to end."""
        log = self.home / "log"
        environment = self.environment | {"PYTHONUNBUFFERED": "1"} | settings
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [self.bin / "parley", *words],
                cwd=self.folder,
                env=environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        process.log = log.read_text
        try:
            wait_until_up(self.url, process)
            yield process
        finally:
            end(process)

    def client(self):
        return Client(self.url, self.run("token", ME).strip())


def python_of(version):
    """The command of this release of Python; skips the test where there is none."""
    known = pathlib.Path.home().glob(f".pyenv/versions/{version}.*/bin/python3")
    for place in (shutil.which(f"python{version}"), sys.executable, *known):
        asks = "import ensurepip, sys; print('%s.%s' % sys.version_info[:2])"
        if place is None:
            continue
        told = subprocess.run([place, "-c", asks], capture_output=True, text=True)
        if told.stdout.strip() == version:
            return place
    pytest.skip(f"Python {version} is not installed")


def install(folder, version, by, file):
    environment = folder / "environment"
    if by == "uv":
        run = {"check": True, "timeout": 300, "env": os.environ | {"UV_CACHE_DIR": str(folder)}}
        subprocess.run([UV, "venv", "--quiet", "-p", python_of(version), environment], **run)
        place = environment / "bin" / "python"
        subprocess.run([UV, "pip", "install", "--quiet", "-p", place, file], **run)
    else:
        subprocess.run([python_of(version), "-m", "venv", environment], check=True, timeout=60)
        options = ["install", "--quiet", "--disable-pip-version-check", file]
        subprocess.run([environment / "bin" / "pip", *options], check=True, timeout=300)
    return environment


@pytest.mark.parametrize(
    "version, by, kind",
    [("3.11", "pip", "whl"), ("3.12", "uv", "whl"), ("3.13", "pip", "tar.gz")],
)
def test_from_an_empty_environment_to_a_reply_that_stays(
    distributions, tmp_path, version, by, kind
):
    [file] = distributions.glob(f"*.{kind}")
    user = Installed(tmp_path, install(tmp_path, version, by, file))
    assert "FAILED" not in user.run("check")  # before the first start, and its folder
    assert user.run("--version") == f"parley {app.__version__}\n"
    with user.serving("run", "-p", str(user.port)) as server:
        wait_until(lambda: f"with its data in {user.data}\n" in server.log())
        session = user.client().create("Hello")
        refusal = requests.get(user.url + "/sessions", timeout=10).json()["errors"][0]["detail"]
        assert f"On the server, `parley token {ME}` prints one." in refusal
    assert stat.S_IMODE(user.data.stat().st_mode) == 0o700
    assert {"jwt_key.pem", "parley.db"} <= {path.name for path in user.data.iterdir()}
    with user.serving("serve", "--bind", f"127.0.0.1:{user.port}", "--workers", "1") as server:
        client = user.client()
        assert [turn["content"] for turn in client.turns(session)] == ["Hello", "Hello"]
        assert "stays" in user.run("chat", "--url", user.url, "It stays")
        assert "FAILED" not in user.run("check")
        for pid in [server.pid, *children(server.pid)]:
            os.kill(pid, signal.SIGKILL)
        server.wait()
    with user.serving("serve", "--bind", f"127.0.0.1:{user.port}"):
        assert len(user.client().get("/sessions").json()["data"]) == 2
        page = requests.get(user.url, headers={"Accept": "text/html"}, timeout=10)
        assert page.status_code == 200 and "<title>Parley" in page.text
    place = user.bin / "python"
    beside = "import importlib.util as u; print([n for n in 'app auth api settings'.split() if u.find_spec(n)])"
    told = subprocess.run([place, "-Pc", beside], capture_output=True, text=True, cwd=user.home)
    assert told.stdout == "[]\n"


def test_settings_and_data_are_in_the_folder_that_is_named(distributions, tmp_path):
    [wheel] = distributions.glob("*.whl")
    user = Installed(tmp_path, install(tmp_path, "3.11", "uv", wheel))
    home = tmp_path / "data" / "of parley"
    home.mkdir(parents=True)
    home.chmod(0o755)
    (home / ".env").write_text("LOG_FORMAT=json\nDATABASE_URL=sqlite:///parley.db\n")
    words = "serve", "--bind", f"127.0.0.1:{user.port}"
    with user.serving(*words, PARLEY_HOME=str(home), PYTHONSAFEPATH="1") as server:
        wait_until(lambda: '"start"' in server.log())
    assert {"jwt_key.pem", "parley.db"} <= {path.name for path in home.iterdir()}
    assert not user.data.exists() and not (user.folder / "parley.db").exists()
    assert stat.S_IMODE(home.stat().st_mode) == 0o755  # it may be anybody's


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, "/home/me/.local/share/parley"),
        ({"XDG_DATA_HOME": "/data"}, "/data/parley"),
        ({"XDG_DATA_HOME": "data"}, "/home/me/.local/share/parley"),
        ({"XDG_DATA_HOME": ""}, "/home/me/.local/share/parley"),
        ({"PARLEY_HOME": "/srv/parley", "XDG_DATA_HOME": "/data"}, "/srv/parley"),
        ({"PARLEY_HOME": "~/chats"}, "/home/me/chats"),
        ({"PARLEY_HOME": "~nobody-of-this-name/chats"}, None),
        ({"PARLEY_HOME": ""}, "/home/me/.local/share/parley"),
    ],
)
def test_data_stay_where_the_machine_keeps_data(monkeypatch, environment, expected):
    for name in ("PARLEY_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "/home/me"} | environment).items():
        monkeypatch.setenv(name, value)
    if expected:
        assert command.find_home() == expected
    else:
        with pytest.raises(SystemExit, match="^PARLEY_HOME: give a folder"):
            command.find_home()
