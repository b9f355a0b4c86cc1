"""The client for Python as its package is installed: in an empty environment, with its ten lines."""

import subprocess

import pytest

from app import __version__
from client import make_token, wait_until
from packages import build, install
from product import ROOT
from servers import running


@pytest.mark.parametrize(
    "version, by, kind", [("3.11", "pip", "*.tar.gz"), ("3.13", "uv", "*.whl")]
)
def test_the_package_chats_in_an_environment_of_its_own(tmp_path, version, by, kind):
    [file] = build(tmp_path, "clients/python").glob(kind)
    assert file.name.startswith(f"parley_client-{__version__}")
    environment = install(tmp_path, version, by, file)
    chat_with(environment, tmp_path)


def test_pip_installs_it_from_a_clone(tmp_path):
    environment = install(tmp_path, "3.13", "pip", ROOT / "clients" / "python")
    chat_with(environment, tmp_path)
    typed = "import importlib.resources as r; print(r.files('parley_client').joinpath('py.typed').is_file())"
    words = [environment / "bin" / "python", "-c", typed]
    assert subprocess.check_output(words, text=True, cwd=tmp_path) == "True\n"


def chat_with(environment, folder):
    """Two messages of the ten lines, in one session."""
    with running(folder) as server:
        settings = {"PARLEY_URL": server.url, "PARLEY_TOKEN": make_token(), "PYTHONUTF8": "1"}
        words = [environment / "bin" / "python", ROOT / "examples" / "python" / "chat.py"]
        done = subprocess.run(
            words,
            input="Hellö\nAgain\n\n",
            capture_output=True,
            text=True,
            env=settings,
            timeout=60,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "> Hellö\n> Again\n> ", "")
        [session] = wait_until(lambda: server.client().get("/sessions").json()["data"])
        assert len(server.client().turns(session)) == 4
