"""Private names of libraries, which begin with an underscore: a module uses only those in the table."""

import ast

from product import MODULES, ROOT

REACHES = {
    "api/hooks.py": {"_prepare_response_obj"},  # of Flask
    "api/usage.py": {"_deserialize"},  # of marshmallow, which documents it
    "schemas.py": {"_deserialize", "_serialize"},
    "database/connection.py": {"_connect", "_close"},  # of peewee
    "database/sqlite.py": {"_add_conn_hooks"},
}
# Names that look private, but are documented.
DOCUMENTED = {"_meta", "_fields", "_make", "_replace"}


def test_only_the_listed_names_are_used():
    for module in sorted(MODULES):
        assert not reached_for(module) - REACHES.get(module, set()), module


def reached_for(module):
    tree = ast.parse((ROOT / module).read_text("utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and is_inner(node.attr) and reaches_out(node)
    }
    # What our own class sets on an object of the same module is ours.
    return used - DOCUMENTED - own - set_in(tree)


def is_inner(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def reaches_out(node: ast.Attribute) -> bool:
    return not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))


def set_in(tree: ast.AST) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
