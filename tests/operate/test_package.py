"""What the package contains, and where an installed service keeps its settings and data.

Modules: `command.py`.
"""

import tarfile
import zipfile

import pytest

import command
from packages import STRAY, build
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
def test_an_installed_service_keeps_its_data_in_the_systems_folder(
    monkeypatch, environment, expected
):
    for name in ("PARLEY_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "/home/me"} | environment).items():
        monkeypatch.setenv(name, value)
    if expected:
        assert command.find_home() == expected
    else:
        with pytest.raises(SystemExit, match="^PARLEY_HOME: give a folder"):
            command.find_home()
