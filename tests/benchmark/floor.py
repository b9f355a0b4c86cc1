"""The floor: the least that such a service can do. It verifies a token, inserts a row, asks the model and answers."""

import os
import sqlite3
import threading
import time
import uuid

import jwt
import requests
from flask import Flask, Response, request

own = threading.local()


def create_app():
    app = Flask(__name__)
    database().execute("CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, owner TEXT, content TEXT, created_at INTEGER)")
    own.database.close()  # a connection must not be shared with the processes that fork from this one
    del own.database
    app.add_url_rule("/health", view_func=show_health)
    app.add_url_rule("/sessions", view_func=create_session, methods=["POST"])
    return app


def database():
    """This thread's own connection; each statement is a transaction."""
    if not hasattr(own, "database"):
        own.database = sqlite3.connect(os.environ["DATABASE"], timeout=10, isolation_level=None)
        own.database.execute("PRAGMA journal_mode = wal")
        own.database.execute("PRAGMA synchronous = full")
    return own.database


def show_health():
    return {"status": "ok"}


def create_session():
    token = request.headers["Authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, os.environ["JWT_SECRET"], ["HS256"], issuer="fabro-web")
    body = request.get_json()
    session = {"id": str(uuid.uuid4()), "title": body["content"], "created_at": int(time.time())}
    row = (session["id"], claims["sub"], body["content"], session["created_at"])
    database().execute("INSERT INTO session VALUES (?, ?, ?, ?)", row)
    is_stream = request.headers.get("Accept") == "text/event-stream"
    asked = {"model": body["model"], "messages": [{"role": "user", "content": body["content"]}], "stream": is_stream}
    answer = requests.post(os.environ["OPENAI_BASE_URL"] + "/chat/completions", json=asked, stream=is_stream, timeout=60)
    answer.raise_for_status()
    if is_stream:
        return Response(answer.iter_content(None), 201, mimetype="text/event-stream")
    answer.json()
    return session, 201
