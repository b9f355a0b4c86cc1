"""Names of libraries that are not documented, and are used all the same. An upgrade that takes one away
fails here, by its name."""

import ast
import http.client

import flask.json.provider
import marshmallow
import peewee
import psycopg
import pytest
from gunicorn import http as gunicorn_http
from gunicorn import sock
from gunicorn.http import body, errors, unreader, wsgi
from gunicorn.workers import base
from urllib3.util import ssltransport

from product import MODULES, ROOT

REACHES = {
    "api/hooks.py": [(flask.json.provider.DefaultJSONProvider, "_prepare_response_obj")],
    "api/usage.py": [(marshmallow.fields.Date, "_deserialize")],
    "schemas.py": [
        (marshmallow.fields.Integer, "_deserialize"),
        (marshmallow.fields.DateTime, "_serialize"),
        (marshmallow.fields.Nested, "_serialize"),
    ],
    "database/connection.py": [
        (peewee.Database, "_connect"),
        (peewee.Database, "_close"),
    ],
    "database/sqlite.py": [(peewee.SqliteDatabase, "_add_conn_hooks")],
    "database/postgresql.py": [
        (peewee, "__exception_wrapper__"),
        (peewee, "Psycopg3Adapter"),
        (peewee.PostgresqlDatabase, "psycopg3_adapter"),
        (psycopg.Connection, "wait"),
    ],
    "serving/worker.py": [
        *(
            (base.Worker, name)
            for name in ("load_wsgi", "init_signals", "handle_quit", "notify", "run")
        ),
        (sock, "ssl_context"),
        (errors, "ParseException"),
    ],
    "serving/clients.py": [
        (wsgi, "create"),
        *(
            (wsgi.Response, name)
            for name in ("start_response", "write", "force_close", "should_close")
        ),
        (errors, "NoMoreData"),
    ],
    "serving/connection.py": [
        (gunicorn_http, "Request"),
        (unreader.Unreader, "read"),
        (unreader.Unreader, "chunk"),
        (body.Body, "read"),
        (wsgi.Response, "close"),
    ],
    "wire/connection.py": [
        (http.client.HTTPConnection, "response_class"),
        (http.client.HTTPConnection("127.0.0.1"), "sock"),
    ],
    "wire/response.py": [(http.client.HTTPResponse, "begin")],
    "wire/sockets.py": [(ssltransport.SSLTransport, "makefile")],
}
# Names that begin like inner ones, and are documented.
DOCUMENTED = {"_meta", "_replace"}


@pytest.mark.parametrize(
    "room, holder, name",
    [(room, holder, name) for room, reaches in REACHES.items() for holder, name in reaches],
    ids=lambda each: each if isinstance(each, str) else getattr(each, "__name__", "an instance"),
)
def test_what_is_reached_for_is_there(room, holder, name):
    assert hasattr(holder, name), f"{room} uses it"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_else_is_reached_for(module):
    """Each underscored name that a module uses of something else is in the table."""
    tree = ast.parse((ROOT / module).read_text("utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and is_inner(node.attr) and reaches_out(node)
    }
    known = {name for _, name in REACHES.get(module, ())} | DOCUMENTED
    # What a class of ours sets itself on another one of the same module is ours.
    assert used - known <= own | set_in(tree)


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
