"""The PostgreSQL on which the tests run, too; and new databases of both engines."""

import contextlib
import os
import uuid

import psycopg

POSTGRESQL = os.environ.get("TEST_DATABASE_URL")


LEFT_OUT = "PostgreSQL is left out: TEST_DATABASE_URL is not set"


@contextlib.contextmanager
def new_databases(engine, new_folder):
    """A function that returns the URL of an empty database; all of them are dropped in the end."""
    names = []

    def create():
        name = f"parley_{uuid.uuid4().hex}"
        if engine == "sqlite":
            return f"sqlite:///{new_folder('database')}/{name}.db"
        with psycopg.connect(POSTGRESQL, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        names.append(name)
        return POSTGRESQL.rpartition("/")[0] + "/" + name

    try:
        yield create
    finally:
        for name in names:
            with psycopg.connect(POSTGRESQL, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
