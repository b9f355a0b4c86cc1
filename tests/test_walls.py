"""The house has floors and walls: which room may import which, and which rooms know a library."""

import ast
import functools
import graphlib
import pathlib
import re

import pytest

from product import MODULES, ROOT

# From the top down. A room is a folder, or a file beside the folders.
FLOORS = (
    ("command",),
    ("app",),
    ("gunicorn.conf",),
    ("terminal", "serving"),
    ("start",),
    ("api",),
    ("schemas",),
    ("transfer",),
    ("maintenance",),
    ("replies",),
    ("turns",),
    ("models",),
    ("tables",),
    ("database",),
    ("llm",),
    ("providers",),
    ("auth",),
    ("oidc",),
    ("keys",),
    ("formats",),
    ("wire",),
    ("limits", "logs", "processes"),
    ("settings",),
    ("files", "images", "well_known"),
    ("clients",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# A library → the only rooms that know it.
ONLY = {
    "gunicorn": {"serving", "gunicorn.conf"},
    "urllib3": {"wire", "clients"},
    "http": {"wire"},
    "requests": {"wire", "clients", "terminal"},
    "psycopg": {"database"},
    "jwt": {"auth", "keys"},
    "marshmallow": {"app", "api", "schemas"},
    "flask": {"app", "api", "command", "schemas", "terminal", "start", "logs"},
    "click": {"command", "terminal", "start"},
    "pygments": {"terminal"},
    "peewee": {
        "database",
        "tables",
        "models",
        "turns",
        "replies",
        "maintenance",
        "transfer",
        "schemas",
        "api",
    },
}
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def room_of(module: str) -> str:
    """`replies/keeper.py` is in `replies`, `app.py` is a room of its own."""
    return module.partition("/")[0] if "/" in module else module.removesuffix(".py")


@functools.cache
def imported_by(module: str) -> frozenset[str]:
    """What a module imports, at its beginning or later: our own files, and names of libraries."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / module).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return frozenset(filter(None, map(file_of, found)))


def file_of(dotted: str) -> str:
    """`replies.keeper.Keeper` is in `replies/keeper.py`, `flask.Flask` in `flask`."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        path = "/".join(parts[:count])
        for file in (f"{path}.py", f"{path}/__init__.py"):
            if file in MODULES:
                return file
    return parts[0]


def test_every_room_has_a_floor():
    assert {room_of(module) for module in MODULES} == FLOOR_OF.keys()


def test_a_module_imports_only_from_rooms_below_its_own():
    for module in MODULES:
        room = room_of(module)
        above = {
            other
            for other in imported_by(module) & MODULES
            if room_of(other) != room and FLOOR_OF[room_of(other)] <= FLOOR_OF[room]
        }
        assert not above, module


def test_no_modules_import_each_other_in_a_circle():
    """A package's own `__init__` may import its modules. Its modules import each other by their own
    names."""
    graph = {}
    for module in MODULES:
        folder = pathlib.PurePath(module).parent.as_posix()
        inits = {f"{folder}/__init__.py"}
        others = (imported_by(module) & MODULES) - inits if folder != "." else imported_by(module)
        graph[module] = others & MODULES
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(MODULES)


@pytest.mark.parametrize("library", ONLY)
def test_only_its_rooms_know_a_library(library):
    knowing = {room_of(module) for module in MODULES if library in imported_by(module)}
    assert knowing <= ONLY[library] and knowing


def test_the_drawing_of_the_rooms_is_true():
    table = {
        room: set(re.findall(r"`(.+?)`", others))
        for room, others in re.findall(r"^\| `(.+?)` \| (.*?) \|$", ARCHITECTURE, re.MULTILINE)
        if not room.startswith("tests/")
    }
    found = {room: set() for rooms in FLOORS for room in rooms}
    for module in MODULES:
        rooms = {room_of(other) for other in imported_by(module) & MODULES}
        found[room_of(module)] |= rooms - {room_of(module)}
    assert table == found


def test_every_modules_tests_are_found_by_its_name() -> None:
    """Those of `replies/claim.py` are in `tests/replies/test_claim.py`. A module without a file of its
    own there is named in the docstring of a file of tests."""
    files = set((ROOT / "tests").rglob("test_*.py"))
    documented = " ".join(ast.get_docstring(ast.parse(path.read_text())) or "" for path in files)
    for module in MODULES:
        folder, _, name = module.rpartition("/")
        if name == "__init__.py" or f"`{module}`" in documented:
            continue
        assert ROOT / "tests" / folder / f"test_{name}" in files, module


def test_no_test_imports_a_test_and_all_basenames_are_unique() -> None:
    """What two of them need is in `tests/support/`. Without packages, pytest tells files apart only by
    their basenames."""
    files = [path for pattern in ("*.py", "*/*.py") for path in (ROOT / "tests").glob(pattern)]
    names = [path.name for path in files if path.name != "conftest.py"]
    assert len(names) == len(set(names))
    assert "__init__.py" not in names
    for path in files:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        imported = {
            name.name for node in nodes if isinstance(node, ast.Import) for name in node.names
        }
        imported |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        assert not [name for name in imported if name.startswith(("test_", "conftest"))], path
