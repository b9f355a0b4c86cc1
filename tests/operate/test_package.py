"""The package: what is in it, and where what is installed keeps settings and data.

Modules: `command.py`.
"""

import stat
import tarfile
import zipfile

import pytest

import command
from client import wait_until
from packages import STRAY, Installed, build, install
from product import files_of_the_page, files_of_the_service


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    return build(tmp_path_factory.mktemp("package"))


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


def test_settings_and_data_are_in_the_folder_that_is_named(distributions, tmp_path):
    [wheel] = distributions.glob("*.whl")
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
