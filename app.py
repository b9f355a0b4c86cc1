"""Parley, a chat-session service: the factory, and the routes as a user meets them."""

import importlib.util
import sys

if __name__ == "__main__":  # before libraries are imported, which this Python may not have
    raise SystemExit("This is no command. Start the service with: .venv/bin/flask run")
if importlib.util.find_spec("marshmallow") is None:  # a Python that has Flask hardly has this
    raise SystemExit(f"marshmallow is not installed for {sys.executable}. Use .venv/bin/flask")

import atexit
import contextlib
import functools
import os
import uuid
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Flask, current_app, g, request, url_for
from flask.typing import ResponseReturnValue
from marshmallow import ValidationError

import auth
import database
import llm
import logs
import models
import schemas
import terminal
from api import archive, errors, events, hooks, metrics, receive, sign_in, usage, users
from api.receive import load_body, make_reply
from api.services import Services, services, step_aside
from api.static_files import StaticFiles
from limits import SMALL
from replies import Replies, cancel
from settings import home, make_private, read_environment, read_settings, unread
from tables import search, shown
from upkeep import deletion, migrations, retention, storage
from upkeep.sweeper import Sweeper

__version__ = "2.0.0"

SMALL_PAGE = 2**18  # bytes of turns that are shown without waiting for room

api = Blueprint("api", __name__)
public = Blueprint("public", __name__)

api.before_request(users.authenticate)
api.before_request(hooks.read_body)
api.before_request(hooks.stand_in_line)
api.teardown_request(hooks.leave)


def create_app(config: Mapping[str, str] | None = None) -> Flask:
    """The application. `config` has settings in place of the environment's and `.env`'s. Raises
    SettingError."""
    app = Flask(__name__, instance_path=home(), static_folder=None)  # `show_file` sends those
    app.json = hooks.JSON(app)
    app.register_blueprint(api)
    app.register_blueprint(public)
    for error, handler in errors.HANDLERS.items():
        app.register_error_handler(error, handler)
    app.before_request(hooks.begin_request)
    app.before_request(hooks.check_request)
    app.before_request(users.refuse_other_sites)
    app.after_request(hooks.end_request)
    app.teardown_request(hooks.close_database)
    for command in terminal.COMMANDS:
        app.cli.add_command(command)
    if terminal.is_looking_for_commands():  # the command opens what it needs
        return app
    environment = read_environment(app.root_path) if config is None else config
    settings = read_settings(environment)
    app.config.update(settings, VERSION=__version__)
    logs.set_up(settings["LOG_FORMAT"])
    for sentence in unread(environment, settings):
        logs.log.warning(sentence)
    make_private(app.instance_path)
    app.extensions["parley"] = open_services(settings, app)
    terminal.prepare_run(app)
    return app


def open_services(settings: dict[str, Any], app: Flask) -> Services:
    """The parts of the application by these settings. Raises SettingError."""
    folder = app.instance_path
    tokens = auth.open_tokens(settings, folder)
    catalog = llm.open_catalog(settings)
    database.open_database(settings, folder, migrations.MIGRATIONS)
    replies = Replies(catalog, settings)
    atexit.register(replies.stop, 0)
    static_files = StaticFiles(os.path.join(app.root_path, "static"))
    retain = functools.partial(retention.sweep, settings["RETENTION_DAYS"])
    return Services(
        tokens, catalog, replies, static_files, Sweeper([deletion.sweep, retain, storage.count_all])
    )


def get_session(session_id: uuid.UUID) -> models.Session:
    """The user's own session; anyone else's is a 404. Takes a connection to the database."""
    database.db.connect(reuse_if_open=True)
    return models.Session.get_owned(g.user, session_id)


# Routes. `tools/openapi` describes them, with their docstrings as summaries, and with what its
# `base.json` has to say.


@api.post("/sessions")
def create_session() -> ResponseReturnValue:
    """Start a session."""
    return make_reply(None, load_body(schemas.new_session_schema))


@api.get("/sessions")
def list_sessions() -> ResponseReturnValue:
    """List or search your sessions, the last used first."""
    query = schemas.page_schema.load(request.args.to_dict())
    page = min(max(query["limit"], 1), 100), query["offset"]
    words = search.words_of(query["query"])
    if len(words) > search.MAX_WORDS:
        raise ValidationError({"query": [f"Give at most {search.MAX_WORDS} words."]})
    with contextlib.ExitStack() as stack:
        if words:
            stack.enter_context(services().held.slot(g.user))
            step_aside()
            hooks.leave_line()
            stack.enter_context(services().searches.slot(g.user, search.TIMEOUT))
            stack.enter_context(search.limited())
        stack.enter_context(database.db.connection_context())
        sessions, has_more = models.Session.page(g.user, *page, words)
    return {"data": schemas.listed_session_schema.dump(sessions), "meta": {"has_more": has_more}}


@api.get("/sessions/<uuid:session_id>")
def show_session(session_id: uuid.UUID) -> ResponseReturnValue:
    """Show a session with its turns, oldest first."""
    if archive.wants_markdown():
        return archive.show_markdown(get_session(session_id))
    query = schemas.turns_page_schema.load(request.args.to_dict())
    if query:
        query["limit"] = min(max(query.get("limit", 50), 1), 200)
    session = get_session(session_id)
    small = SMALL_PAGE - session.system_size
    session.with_turns(**query, most=small, most_of_one=small)
    is_large = session.is_cut or small < 0
    if is_large:
        make_room(session.system_size + min(session.size_of_turns, models.LONGEST_PAGE))
        session = get_session(session_id).with_turns(**query)
    session.read_system()
    response = current_app.json.response(schemas.whole_session_schema.dump(session))
    response.headers.update({"First-Turn-Sent": session.trim} if session.trim else {})
    response.vary.add("Accept")
    if is_large:
        hooks.keep_room(response, response.content_length)
    return response


def make_room(size: int) -> None:
    """Have room for a text of so many bytes until the request is answered. Other requests may have
    its connection to the database while it waits for that. Raises Overloaded."""
    if size > SMALL:
        database.db.close()
        hooks.make_room(size)
        database.db.connect()


@api.patch("/sessions/<uuid:session_id>")
def change_session(session_id: uuid.UUID) -> ResponseReturnValue:
    """Change title, model, system prompt or options of a session."""
    session = get_session(session_id)
    changes = load_body(schemas.change_schema)
    if "system" not in changes:
        make_room(session.system_size)  # the answer has it
    if "model" in changes:
        changes["provider"] = services().catalog.allow(changes["model"]).name
    return schemas.changed_session_schema.dump(session.change(**changes))


@api.delete("/sessions/<uuid:session_id>")
def delete_session(session_id: uuid.UUID) -> ResponseReturnValue:
    """Delete a session with its turns."""
    deletion.delete_later(get_session(session_id).id)
    services().sweeper.start()
    services().replies.poll()
    return "", 204


@api.post("/sessions/<uuid:session_id>/messages")
def add_message(session_id: uuid.UUID) -> ResponseReturnValue:
    """Send a message."""
    return make_reply(get_session(session_id), load_body(schemas.message_schema))


@api.post("/sessions/<uuid:session_id>/retry")
def retry_reply(session_id: uuid.UUID) -> ResponseReturnValue:
    """Request the last reply again."""
    session = get_session(session_id)
    return make_reply(session, load_body(schemas.retry_schema, required=False), retry=True)


@api.post("/sessions/<uuid:session_id>/continue")
def continue_reply(session_id: uuid.UUID) -> ResponseReturnValue:
    """Have the last reply go on where it stopped."""
    session = get_session(session_id)
    make_room(shown.size_of_newest(session.key))
    return make_reply(session, load_body(schemas.empty_schema, required=False), goes_on=True)


@api.post("/sessions/<uuid:session_id>/cancel")
def cancel_reply(session_id: uuid.UUID) -> ResponseReturnValue:
    """Stop the reply under way."""
    session = get_session(session_id)
    load_body(schemas.empty_schema, required=False)
    turn = cancel(session)
    services().replies.poll()
    return schemas.dump_turn(turn)


@api.get("/sessions/<uuid:session_id>/events")
def follow_events(session_id: uuid.UUID) -> ResponseReturnValue:
    """Follow the latest reply as an event stream."""
    session = get_session(session_id)
    try:
        feed = services().replies.follow_latest(session.id, make_room)
    except models.NoReply:  # and who follows it need not come back
        return "", 204
    resumed = events.position_after(request.headers.get("Last-Event-ID"), feed)
    if resumed is None:
        return "", 204
    with contextlib.ExitStack() as stack:
        stack.enter_context(services().streams.slot(g.user))
        frames = events.frames(feed, *resumed, patience=receive.patience())
        return receive.stream(stack, feed, frames)


@api.get("/sessions/<uuid:session_id>/turns/<turn_id>/thinking")
def show_thinking(session_id: uuid.UUID, turn_id: str) -> ResponseReturnValue:
    """Show what the model of a reply has thought."""
    turn = models.Turn.with_thinking(get_session(session_id).id, turn_id)
    make_room(models.Thought.size_of(turn.id))
    text = models.Thought.text_of(turn.id)
    if not text:
        raise models.Missing("What the model thought was not kept: see the setting THINKING.")
    return {"text": text}


@api.get("/models")
def list_models() -> ResponseReturnValue:
    """List the models."""
    data = [
        {"id": model, "provider": name, "default": default}
        for model, name, default in services().catalog.list()
    ]
    meta = {"has_more": False, "thinking": current_app.config["THINKING"]}
    if not data and (hint := services().catalog.lacks_models()):
        meta["hint"] = hint
    return {"data": data, "meta": meta}


api.post("/sessions/import")(archive.import_session)
api.post("/sessions/<uuid:session_id>/fork")(archive.fork_session)
api.get("/export")(archive.show_export)
api.get("/me")(users.show_me)
api.get("/usage")(usage.show_usage)
public.get("/metrics")(metrics.show_metrics)


@public.get("/health")
def show_health() -> ResponseReturnValue:
    """Tell whether the server and its database answer."""
    services().replies.start_keeper()
    services().sweeper.start()
    database.check()
    return {"status": "ok", "version": __version__}


@public.get("/openapi.json")
def show_openapi() -> ResponseReturnValue:
    """Describe the API."""
    return services().static_files.answer("openapi.json"), {"Cache-Control": "no-store"}


@public.get("/static/<path:name>")
def show_file(name: str) -> ResponseReturnValue:
    """Send a file of the page."""
    return services().static_files.answer(name)


@public.get("/")
def show_index() -> ResponseReturnValue:
    """Name the places to begin."""
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        response = services().static_files.answer("index.html", sign_in.origins())
        response.vary.add("Accept")
        return response
    urls = {
        "openapi_url": url_for("public.show_openapi"),
        "health_url": url_for("public.show_health"),
        "sessions_url": url_for("api.list_sessions"),
        "models_url": url_for("api.list_models"),
    }
    return {"urls": urls}, {"Vary": "Accept"}
