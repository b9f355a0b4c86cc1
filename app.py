"""Parley, a chat-session service: the application factory and the routes."""

import importlib.util
import sys

# Checked before any library is imported: this may be a Python that has Flask, but not the rest.
if __name__ == "__main__":
    raise SystemExit("This is not a command. Start the service with: .venv/bin/flask run")
if importlib.util.find_spec("marshmallow") is None:
    raise SystemExit(f"marshmallow is not installed for {sys.executable}. Use .venv/bin/flask")

import atexit
import contextlib
import functools
import os
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Flask, Response, current_app, g, request, url_for
from flask.typing import ResponseReturnValue
from marshmallow import ValidationError

import auth
import database
import llm
import logs
import models
import schemas
import start
import turns
from api import (
    answers,
    archive,
    errors,
    events,
    files,
    hints,
    hooks,
    metrics,
    receive,
    sign_in,
    usage,
    users,
)
from api.contract import (
    BYTES,
    EVENT_STREAM,
    EVENTS,
    TEXT,
    Handler,
    asks_model,
    gives,
    gives_reply,
    may_be_anonymous,
    may_fail,
    needs,
    takes,
    takes_bytes,
    takes_headers,
    takes_itself,
    takes_nothing,
    takes_query,
)
from api.import_schema import ImportedConversationSchema, ImportSchema
from api.receive import make_reply
from api.services import Services, release_slot, services
from api.static_files import StaticFiles
from maintenance import deletion, migrations, retention, storage, unused_files
from maintenance.sweeper import Sweeper
from replies import Replies, cancel
from settings import home, make_private, read_environment, read_settings, unknown_settings
from tables import search

__version__ = "2.1.0"

SMALL_PAGE = 2**18  # bytes; a page of turns up to this size reserves no memory

api = Blueprint("api", __name__)
public = Blueprint("public", __name__)

api.before_request(users.answer_anonymous)
api.before_request(users.authenticate)
api.before_request(hooks.read_body)
api.before_request(hooks.stand_in_line)
api.teardown_request(hooks.leave)


class App(Flask):
    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """No handler here is async. Flask would look at each of them for each request."""
        return func


def create_app(config: Mapping[str, str] | None = None) -> Flask:
    """The application, with the settings of the environment and `.env`, or else of `config`.
    Raises SettingError."""
    # `show_file` sends the static files.
    app = App(__name__, instance_path=home(), static_folder=None)
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
    if start.is_looking_for_commands():
        from terminal import COMMANDS  # a server needs none of them

        for command in COMMANDS:
            app.cli.add_command(command)
        return app  # a command opens what it needs
    environment = read_environment(app.root_path) if config is None else config
    settings = read_settings(environment)
    app.config.update(settings, VERSION=__version__)
    logs.set_up(settings["LOG_FORMAT"])
    for sentence in unknown_settings(environment, settings):
        logs.log.warning(sentence)
    make_private(app.instance_path)
    app.extensions["parley"] = open_services(settings, app)
    start.prepare_run(app)
    return app


def open_services(settings: dict[str, Any], app: Flask) -> Services:
    """The parts of the application, made from these settings. Raises SettingError."""
    folder = app.instance_path
    tokens = auth.open_tokens(settings, folder)
    catalog = llm.open_catalog(settings)
    database.open_database(settings, folder, migrations.MIGRATIONS)
    replies = Replies(catalog, settings)
    atexit.register(replies.stop)
    static_files = StaticFiles(os.path.join(app.root_path, "static"))
    retain = functools.partial(retention.sweep, settings["RETENTION_DAYS"])
    sweeps = [deletion.sweep, retain, storage.count_all, unused_files.sweep]
    return Services(tokens, catalog, replies, static_files, Sweeper(sweeps))


def get_session(session_id: uuid.UUID) -> models.Session:
    """The user's own session. Raises Missing, a 404, also for a session of another user. Leaves
    the request connected to the database."""
    database.db.connect(reuse_if_open=True)
    return models.Session.get_owned(g.user, session_id)


def with_session(handler: Handler) -> Handler:
    """Pass `session` to the handler in place of its route's `session_id`: see `get_session`."""

    @functools.wraps(handler)
    def getting(session_id: uuid.UUID, **arguments: Any) -> Any:
        return handler(session=get_session(session_id), **arguments)

    return getting


# Routes. Decorators say what a route takes and gives. In the OpenAPI document, the first line of a
# docstring is the summary of the operation, and the rest its description (`tools/openapi`).


@api.post("/sessions")
@takes(schemas.NewSessionSchema, example={"content": schemas.FIRST_MESSAGE})
@gives(
    201,
    "Session created",
    schemas.CreatedSessionSchema,
    content={EVENTS: EVENT_STREAM},
    headers=["Location"],
    may_have=["Preference-Applied", "X-Accel-Buffering"],
    links=True,
)
@asks_model
def create_session(body: dict[str, Any]) -> Any:
    """Start a session.

    Start a new interactive chat session. The initial user prompt is required; a model may
    optionally be specified."""
    return make_reply(None, body)


@api.get("/sessions")
@takes_query(schemas.PageSchema)
@gives(200, "A page of your sessions.", answers.SessionsSchema)
def list_sessions(query: dict[str, Any]) -> dict[str, Any]:
    """List or search your sessions: pinned ones first, then the most recently used.

    A `query` finds the sessions that contain each of its words in the title or the turns, and gives
    the words around the newest match."""
    page = min(max(query["limit"], 1), 100), query["offset"]
    words = search.words_of(query["query"])
    if len(words) > search.MAX_WORDS:
        raise ValidationError({"query": [f"Give at most {search.MAX_WORDS} words."]})
    with contextlib.ExitStack() as stack:
        if words:
            stack.enter_context(services().held.slot(g.user))
            release_slot()
            hooks.leave_line()
            stack.enter_context(services().searches.slot(g.user, search.TIMEOUT))
            stack.enter_context(search.limited())
        with database.db.connection_context():
            sessions, has_more = models.Session.page(g.user, *page, words)
        if words:
            for session in sessions:
                session.found = search.excerpt(session.matching or "", words)
    return {"data": sessions, "meta": {"has_more": has_more}}


@api.get("/sessions/<uuid:session_id>")
@takes_query(schemas.TurnsPageSchema)
@gives(
    200,
    "The session with its turns.",
    schemas.WholeSessionSchema,
    content={archive.MARKDOWN: TEXT},
    may_have=["First-Turn-Sent"],
)
def show_session(session_id: uuid.UUID, query: dict[str, Any]) -> ResponseReturnValue:
    """Show a session with its turns, oldest first.

    All turns, or with `turns[limit]` or `turns[before]` a page of them. An answer has at most 8 MiB
    of contents in UTF-8: the newest turns that fit, or the newest alone if it is larger. With
    `Accept: text/markdown`, the whole session as a document."""
    if archive.wants_markdown():
        return archive.show_markdown(get_session(session_id))
    if query:
        query["limit"] = min(max(query.get("limit", 50), 1), 200)
    session = get_session(session_id)
    small = SMALL_PAGE - session.system_size
    page = turns.read_page(session, **query, most=small, most_of_one=small)
    is_large = page.is_cut or small < 0
    if is_large:
        hooks.reserve_memory(session.system_size + min(page.size_of_all, models.LONGEST_PAGE))
        session = get_session(session_id)
        page = turns.read_page(session, **query)
    session.read_system()
    shown = [turns.dump(turn, g.is_operator) for turn in page.turns]
    response = current_app.json.response(
        schemas.changed_session_schema.dump(session)
        | {"turns": shown, "meta": {"has_more": page.has_more}}
    )
    if session.context_start:
        response.headers["First-Turn-Sent"] = session.context_start
    response.vary.add("Accept")
    if is_large:
        hooks.keep_memory(response, response.content_length)
    return response


@api.patch("/sessions/<uuid:session_id>")
@with_session
@takes(schemas.ChangeSchema, example={"title": "Rate limits"})
@gives(200, "The session as changed, without its turns.", schemas.ChangedSessionSchema)
@may_fail(409)
def change_session(session: models.Session, body: dict[str, Any]) -> models.Session:
    """Change the title, model, system prompt or options of a session, or pin it.

    Model, system prompt and options apply from the next reply on. At most 20 sessions are pinned:
    one more is a 409."""
    if "system" not in body:
        hooks.reserve_memory(session.system_size)  # the answer contains the stored one
    if "model" in body:
        body["provider"] = services().catalog.allow(body["model"]).name
    return session.change(**body)


@api.delete("/sessions/<uuid:session_id>")
@with_session
@gives(204, "The session was deleted.")
def delete_session(session: models.Session) -> ResponseReturnValue:
    """Delete a session with its turns.

    A reply in progress stops."""
    reply = deletion.delete_later(session.id)
    services().sweeper.start()
    services().replies.on_ended(reply)
    return "", 204


@api.post("/sessions/<uuid:session_id>/messages")
@with_session
@takes(schemas.MessageSchema, example={"content": "And per user?"})
@gives_reply
def add_message(session: models.Session, body: dict[str, Any]) -> Any:
    """Send a message.

    The model answers it, and is sent the turns before it."""
    return make_reply(session, body)


@api.post("/sessions/<uuid:session_id>/retry")
@with_session
@takes(schemas.RetrySchema, required=False, example={})
@gives_reply
def retry_reply(session: models.Session, body: dict[str, Any]) -> Any:
    """Request the last reply again.

    The new reply replaces the old one when it is complete. If it ends in any other way, the old one
    stays, unless the message was changed."""
    return make_reply(session, body, retry=True)


@api.post("/sessions/<uuid:session_id>/continue")
@with_session
@takes_nothing
@gives_reply
def continue_reply(session: models.Session) -> Any:
    """Continue the last reply where it stopped.

    The last reply that is shown can be continued, in the same turn, if it was interrupted, failed,
    or is complete by `length`. A stream begins where it stopped. If nothing new comes, nothing
    changes."""
    hooks.reserve_memory(turns.size_of_newest(session.key))
    return make_reply(session, {}, continues_last=True)


@api.post("/sessions/<uuid:session_id>/cancel")
@with_session
@takes_nothing
@gives(200, "The reply as far as it got.", schemas.AssistantTurnSchema, dump=turns.SHOWN.dump)
@may_fail(409)
def cancel_reply(session: models.Session) -> models.Turn:
    """Stop the reply in progress.

    The connection to the provider is closed, and the text so far is kept."""
    turn = cancel(session)
    services().replies.on_ended(turn)
    return turn


@api.get("/sessions/<uuid:session_id>/events")
@with_session
@takes_headers("Last-Event-ID")
@gives(
    200,
    "The events of the reply, to its end.",
    content={"text/event-stream": EVENT_STREAM},
    headers=["X-Accel-Buffering"],
)
@gives(
    204,
    "Nothing is left to send: `Last-Event-ID` names the end, or the session has no reply yet.",
)
def follow_events(session: models.Session) -> ResponseReturnValue:
    """Follow the latest reply as an event stream.

    The stream begins at the reply's start, or after the event that `Last-Event-ID` names."""
    try:
        feed = services().replies.follow_latest(session.id, hooks.reserve_memory)
    except models.NoReply:  # 204 tells EventSource not to reconnect
        return "", 204
    hooks.reserve_memory(0)  # the stream reserves memory for the text itself
    resumed = events.position_after(request.headers.get("Last-Event-ID"), feed)
    if resumed is None:
        return "", 204
    with contextlib.ExitStack() as stack:
        stack.enter_context(services().streams.slot(g.user))
        frames = events.frames(
            feed, *resumed, patience=receive.patience(), for_operator=g.is_operator
        )
        return receive.stream(stack, feed, frames)


@api.get("/sessions/<uuid:session_id>/turns/<turn_id>/thinking")
@with_session
@gives(200, "What the model thought.", schemas.ThinkingTextSchema)
def show_thinking(session: models.Session, turn_id: str) -> dict[str, str]:
    """Show what the model thought before and during a reply.

    It is not part of the reply, and no promise about replies covers it. 404 if the model did not
    think, or the server did not keep it."""
    turn = models.Turn.find(session.id, turn_id, or_version=True)
    if turn.thinking_characters is None:
        raise models.Missing("This turn has no thinking.")
    hooks.reserve_memory(models.Thought.size_of(turn.id))
    text = models.Thought.text_of(turn.id)
    if not text:
        raise models.Missing("The server did not keep what the model thought: see its THINKING.")
    return {"text": text}


@api.get("/sessions/<uuid:session_id>/turns/<turn_id>/versions")
@with_session
@gives(200, "The versions, the newest first.", schemas.VersionsSchema)
def show_versions(session: models.Session, turn_id: str) -> ResponseReturnValue:
    """Show the complete replies that a reply has replaced, the newest first.

    A reply that completes after a retry replaces the one before it, which becomes a version: the
    last twenty are shown, and at most 8 MiB. If a retry changes the message, the versions start
    again. They are not searched, exported or sent to a model. A fork can go on from one."""
    turn = models.Turn.find(session.id, turn_id)
    page = turns.read_versions(session, turn, SMALL_PAGE)
    is_large = page.is_cut
    if is_large:
        hooks.reserve_memory(page.size_of_all)
        page = turns.read_versions(session, turn)
    shown = [turns.dump(version, g.is_operator) for version in reversed(page.turns)]
    response = current_app.json.response({"data": shown})
    if is_large:
        hooks.keep_memory(response, response.content_length)
    return response


@api.get("/models")
@gives(200, "All models that may be used.", answers.ModelsSchema)
def list_models() -> dict[str, Any]:
    """List the models.

    The models that the server's settings name, or else those that its providers list. A provider
    that does not answer is left out; `meta.hint` names it."""
    data = services().catalog.list(g.user)
    config = current_app.config
    meta = {"has_more": False, "thinking": config["THINKING"], "max_file": config["MAX_FILE"]}
    if hint := hints.about_models(bool(data)):
        meta["hint"] = hint
    return {"data": data, "meta": meta}


@api.get("/export")
@takes_query(archive.ExportPageSchema)
@gives(200, "Lines of JSON.", content={archive.NDJSON: TEXT}, may_have=["Link"])
def show_export(query: dict[str, Any]) -> Response:
    """Export your sessions, the oldest first.

    One session per line, as many as fit into 8 MiB, but at least one. A line can be imported."""
    return archive.export(query.get("after"))


@api.post("/sessions/import")
@takes_itself(ImportSchema, ImportedConversationSchema, example=archive.EXAMPLE)
@gives(
    200,
    "The session that you imported from this origin before.",
    schemas.SessionSchema,
    headers=["Location"],
)
@gives(201, "The new session.", schemas.SessionSchema, headers=["Location"], may_have=["Left-Out"])
@may_fail(502, 504)
def import_session() -> ResponseReturnValue:
    """Import a session; no model is asked.

    A line of an export, a session from elsewhere, or one conversation of another product's export.
    Missing fields get defaults, and no tokens are counted. The body may be sixteen times as large
    as another one. A user's imports and forks are made one at a time."""
    return archive.import_body()


@api.post("/sessions/<uuid:session_id>/fork")
@takes_headers("Idempotency-Key")
@takes(schemas.ForkSchema, required=False, example={})
@gives(201, "The copy.", schemas.SessionSchema, headers=["Location"])
@may_fail(409, 422, 429)
def fork_session(session_id: uuid.UUID, body: dict[str, Any]) -> ResponseReturnValue:
    """Copy a session up to a turn.

    The copy has the turns that are shown, up to that one, with the system prompt, options, model
    and what the model remembers. It counts against the rate limit. A user's imports and forks are
    made one at a time."""
    return archive.fork(session_id, body)


@api.post("/files")
@takes_bytes("image/jpeg", "image/png")
@gives(200, "The image, which you have already.", schemas.FileSchema, headers=["Location"])
@gives(201, "The image.", schemas.FileSchema, headers=["Location"])
def upload_file() -> ResponseReturnValue:
    """Upload an image: the body is its bytes.

    The server keeps a JPEG or PNG without what is not the picture, such as the place where it was
    taken. It deletes an image that has been in no message for a day. Two uploads at a time."""
    return files.upload()


@api.get("/files/<file_id>")
@gives(
    200,
    "The bytes of the image.",
    content=dict.fromkeys(("image/jpeg", "image/png"), BYTES),
    headers=["ETag", "Content-Disposition", "Content-Security-Policy"],
)
@may_fail(404)
def download_file(file_id: str) -> Response:
    """Download an image that you have uploaded.

    A browser saves the answer, and does not show it as a page."""
    database.db.connect(reuse_if_open=True)
    return files.download(file_id)


@api.get("/me")
@may_be_anonymous
@takes_query(answers.MePageSchema)
@gives(
    200,
    "The user of the request; or nobody, if the query has `anonymous`.",
    answers.MeSchema,
    content={"application/json": {"oneOf": [answers.MeSchema, answers.NobodySchema]}},
)
def show_me(query: dict[str, Any]) -> dict[str, Any]:
    """Tell who you are to this server.

    Without a token, you are the user whom the server's trusted proxy names, if it has one. A 401
    says in the `meta.sign_in` of its error how a page can sign in."""
    # `users.answer_anonymous` has answered if there is no user, and the query has `anonymous`.
    by = "proxy" if g.is_by_proxy else "token"
    return {"subject": g.user, "name": g.identity.name, "by": by}


@api.get("/usage")
@takes_query(usage.UsagePageSchema)
@gives(200, "What you have used.", answers.UsageByDaySchema)
def show_usage(query: dict[str, Any]) -> dict[str, Any]:
    """Tell how many tokens you have used, by day and model, the newest first.

    Days are in UTC; a reply counts on the day on which it was asked for. Titles that a model wrote
    count, too. Deleted sessions stay counted."""
    return usage.of_days(g.user, **query)


@public.get("/metrics")
@needs("metrics_token")
@gives(
    200,
    "Prometheus's text format, 0.0.4.",
    content={metrics.FORMAT: TEXT | {"examples": [metrics.EXAMPLE]}},
)
@may_fail(403, 404, 503)
def show_metrics() -> Response:
    """Count the replies and tokens of all users, for Prometheus.

    The counts come from the database: they are the same from every process and host, and never
    fall. 404 if the server has no `METRICS_TOKEN`, or another one is sent."""
    return metrics.answer()


@public.get("/health")
@gives(200, "Both answer.", answers.HealthSchema)
@may_fail(503)
def show_health() -> dict[str, str]:
    """Tell whether the server and its database answer.

    It answers within 10 s, writes nothing and calls no model."""
    services().replies.start_keeper()
    services().sweeper.start()
    database.check()
    return {"status": "ok", "version": __version__}


@public.get("/openapi.json")
@gives(200, "This document.", answers.DocumentSchema)
def show_openapi() -> ResponseReturnValue:
    """Describe the API.

    The document is made from the routes and from the schemas that validate."""
    return services().static_files.answer("openapi.json"), {"Cache-Control": "no-store"}


@public.get("/static/<path:name>")
def show_file(name: str) -> ResponseReturnValue:
    """Send a file of the page."""
    return services().static_files.answer(name)


@public.get("/")
@gives(200, "The places to begin.", answers.PlacesSchema, content={"text/html": TEXT})
@may_fail(403)
def show_index() -> ResponseReturnValue:
    """Name the places to begin.

    A browser gets the page instead."""
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
    return {"urls": urls}, 200, {"Vary": "Accept"}
