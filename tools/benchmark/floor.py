"""The floor: the least that such a service can do. It verifies a token, inserts a row, calls the
model and answers.
"""

import functools
import os
import queue
import sqlite3
import threading
import time
import uuid

import jwt
import requests
from flask import Flask, Response, request

TABLE = "CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, owner TEXT, content TEXT, created_at BIGINT)"
CONNECTIONS = 8  # to PostgreSQL, as many as Parley's process has

own = threading.local()


class SQLite:
    """A connection for each thread; each statement is a transaction."""

    insert = "INSERT INTO session VALUES (?, ?, ?, ?)"

    def __init__(self, path):
        self.path = path

    def execute(self, statement, row=()):
        if not hasattr(own, "database"):
            own.database = sqlite3.connect(self.path, timeout=10, isolation_level=None)
            own.database.execute("PRAGMA journal_mode = wal")
            own.database.execute("PRAGMA synchronous = full")
        own.database.execute(statement, row)

    def close(self):
        own.database.close()
        del own.database


class PostgreSQL:
    """Some connections for all threads; each statement is a transaction, and one round trip."""

    insert = "INSERT INTO session VALUES (%s, %s, %s, %s)"

    def __init__(self, url):
        import psycopg  # only here, so that the floor's memory on SQLite is without it

        self.connect = functools.partial(psycopg.connect, url, autocommit=True)
        self.open()

    def open(self):
        self.connections = queue.LifoQueue()
        for _ in range(CONNECTIONS):
            self.connections.put(None)

    def execute(self, statement, row=()):
        connection = self.connections.get()
        try:
            connection = connection or self.connect()
            connection.execute(statement, row)
        finally:
            self.connections.put(connection)

    def close(self):
        self.connections.get().close()
        self.open()


database = (PostgreSQL if os.environ["DATABASE"].startswith("postgres") else SQLite)(
    os.environ["DATABASE"]
)


def create_app():
    app = Flask(__name__)
    database.execute(TABLE)
    database.close()  # a connection must not be shared with the processes that fork from this one
    app.add_url_rule("/health", view_func=show_health)
    app.add_url_rule("/sessions", view_func=create_session, methods=["POST"])
    return app


def show_health():
    return {"status": "ok"}


def create_session():
    token = request.headers["Authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, os.environ["JWT_SECRET"], ["HS256"], issuer="fabro-web")
    body = request.get_json()
    session = {"id": str(uuid.uuid4()), "title": body["content"], "created_at": int(time.time())}
    row = (session["id"], claims["sub"], body["content"], session["created_at"])
    database.execute(database.insert, row)
    is_stream = request.headers.get("Accept") == "text/event-stream"
    asked = {
        "model": body["model"],
        "messages": [{"role": "user", "content": body["content"]}],
        "stream": is_stream,
    }
    answer = requests.post(
        os.environ["OPENAI_BASE_URL"] + "/chat/completions",
        json=asked,
        stream=is_stream,
        timeout=60,
    )
    answer.raise_for_status()
    if is_stream:
        return Response(answer.iter_content(None), 201, mimetype="text/event-stream")
    answer.json()
    return session, 201
