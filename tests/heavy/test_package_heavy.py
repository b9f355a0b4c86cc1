"""From nothing to a stored reply: the package is installed into an empty environment, by pip and
by uv."""

import os
import signal
import stat
import subprocess

import pytest
import requests

import app
from client import wait_until
from packages import ME, Installed, build, install
from servers import children


@pytest.mark.parametrize(
    "version, by", [pytest.param("3.11", "pip", marks=pytest.mark.long), ("3.13", "uv")]
)
def test_from_an_empty_environment_to_a_stored_reply(tmp_path, version, by):
    """The wheel was made from the source distribution, as uv makes it."""
    [file] = build(tmp_path).glob("*.whl")
    user = Installed(tmp_path, install(tmp_path, version, by, file))
    assert "FAILED" not in user.run("check")  # before the first start, and without its folder
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


def test_settings_and_data_are_in_the_named_folder(tmp_path):
    [wheel] = build(tmp_path).glob("*.whl")
    user = Installed(tmp_path, install(tmp_path, "3.12", "uv", wheel))
    home = tmp_path / "data" / "of parley"
    home.mkdir(parents=True)
    home.chmod(0o755)
    (home / ".env").write_text("LOG_FORMAT=json\nDATABASE_URL=sqlite:///parley.db\n")
    words = "serve", "--bind", f"127.0.0.1:{user.port}"
    with user.serving(*words, PARLEY_HOME=str(home), PYTHONSAFEPATH="1") as server:
        wait_until(lambda: '"start"' in server.log())
    assert {"jwt_key.pem", "parley.db"} <= {path.name for path in home.iterdir()}
    assert not user.data.exists() and not (user.folder / "parley.db").exists()
    assert stat.S_IMODE(home.stat().st_mode) == 0o755  # it could be another user's
