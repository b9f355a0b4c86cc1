"""Parley, a chat-session service: the factory, the hooks around a request, and the routes as a user meets them."""

import atexit
import contextlib
import hashlib
import json
import pathlib
import re
import time
import tomllib
import uuid

from flask import Blueprint, Flask, Response, current_app, g, request, url_for
from marshmallow import ValidationError
from werkzeug import exceptions
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_dict_header, parse_list_header

import auth
import catalog
import chat
import cli
import database
import deletion
import errors
import events
import limits
import logs
import migrations
import models
import schemas
import search
import titles
import usage
from idempotency import IdempotencyKey
from replies import Replies
from settings import misspelt, mistake, read_environment, read_settings

__version__ = "1.0.0"

HEADERS = tomllib.loads(pathlib.Path(__file__).with_name("headers.toml").read_text("utf-8"))
api = Blueprint("api", __name__)
public = Blueprint("public", __name__)


def create_app(config=None):
    """The application. `config` has settings in place of the environment's and `.env`'s. Raises SettingError."""
    app = Flask(__name__)
    app.json.sort_keys = False
    app.register_blueprint(api)
    app.register_blueprint(public)
    for error, handler in errors.HANDLERS.items():
        app.register_error_handler(error, handler)
    app.before_request(begin_request)
    app.before_request(check_request)
    app.after_request(end_request)
    app.teardown_request(lambda error: database.db.close())  # gives the request's connection back to the pool, if it took one
    for command in (cli.print_token, chat.chat_command, cli.check_command, cli.usage_command, cli.forget_command):
        app.cli.add_command(command)
    if cli.is_looking_for_commands():  # the command opens what it needs
        return app
    environment = read_environment(app.root_path) if config is None else config
    settings = read_settings(environment)
    app.config.update(settings, VERSION=__version__)
    logs.set_up(settings["LOG_FORMAT"])
    for sentence in misspelt(environment, settings):
        logs.log.warning(sentence)
    app.tokens = auth.open_tokens(settings, app.instance_path)
    app.catalog = catalog.open_catalog(settings)
    database.open_database(settings, app.instance_path, migrations.MIGRATIONS)
    app.replies = Replies(app.catalog, settings)
    app.held, app.streams, app.searches = map(limits.Room, (limits.HELD, limits.STREAMS, limits.SEARCHES))
    atexit.register(app.replies.stop, 0)
    cli.prepare_run(app)
    return app


def begin_request():
    """Name the request, and know whether a page of its origin may read the answer. A preflight has its answer here."""
    g.began, g.user = time.monotonic(), None
    database.thread.reads = request.method == "GET"
    request_id = request.headers.get("X-Request-ID", "")
    g.id = request_id if re.fullmatch(r"[\w.:+/=-]{1,128}", request_id, re.ASCII) else uuid.uuid4().hex
    origin, allowed = request.headers.get("Origin", ""), current_app.config["ALLOWED_ORIGINS"] or []
    g.origin = "*" if origin and "*" in allowed else origin if origin.lower() in allowed else None  # of a page that may ask
    if g.origin and request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        return "", 204, HEADERS["preflight"]


def check_request():
    """Refuse what has no path here, wants a WebSocket, or accepts no answer that there is. A prefix alone leads to the page."""
    path, prefix = request.environ["PATH_INFO"], request.script_root
    if prefix and not path:
        return "", 308, {"Location": f"{prefix}/"}  # from there on, the page finds its files and the API
    if "//" in path or (prefix and path[0] != "/"):
        raise exceptions.NotFound  # werkzeug would redirect to the host that the client names, or add and take slashes
    if request.headers.get("Upgrade", "").lower() == "websocket":
        raise exceptions.BadRequest("This path takes no WebSocket. Send a plain request, Accept: text/event-stream for a stream.")
    # All is in UTF-8: "application/json; charset=utf-8", which werkzeug takes for another type, is none.
    types = [(kind.partition(";")[0].rstrip(), quality) for kind, quality in request.accept_mimetypes]
    accept = request.accept_mimetypes = MIMEAccept(types)
    page = request.endpoint == "static" or (request.path == "/" and accept["text/html"])
    text = request.path == "/metrics" and accept["text/plain"]
    if accept and not (accept["application/json"] or accept["text/event-stream"] or page or text):
        raise exceptions.NotAcceptable("Accept application/json or text/event-stream.")


@api.before_request
def authenticate():
    """Know the user by the token alone: no database and no body is touched for a stranger."""
    authorization = request.authorization
    if authorization is None or authorization.type != "bearer":
        detail = f"Send a token: Authorization: Bearer <token>. {current_app.tokens.source}"
        raise exceptions.Unauthorized(detail, www_authenticate=[errors.CHALLENGE])
    g.user = current_app.tokens.verify(authorization.token or "")
    allowed = current_app.config["ALLOWED_USERS"]
    name = g.user.rpartition("/")[2]  # of the user: the last segment of `sub`; behind a slash at the end there is no name
    if allowed is not None and name not in allowed:
        g.why = f"ALLOWED_USERS lacks the name {name!r}."
        raise exceptions.Forbidden("This user is not allowed on this server. Ask whoever runs it.")


@api.before_request
def read_body():
    """Read the body, before any connection to the database is taken and its time begins: a client may send it slowly."""
    limit = current_app.config["MAX_CONTENT_LENGTH"]
    request.max_content_length = limit + 1  # one byte more tells a chunked body that is too large from one that fits
    length = request.content_length or 0
    try:
        g.body = request.stream.read(limit + 1) if length <= limit else b""
    except exceptions.ClientDisconnected:  # or its connection failed
        raise exceptions.BadRequest("The body did not arrive. Send it whole.") from None
    if max(length, len(g.body)) > limit:
        raise exceptions.RequestEntityTooLarge(f"Send at most {limit} bytes.")
    if len(g.body) < length:
        raise exceptions.BadRequest("The body ended before its Content-Length. Send it whole.")
    database.limit_time()


def end_request(response):
    response.headers.update({"X-Request-ID": g.id} | HEADERS["every"])
    response.headers.setdefault("Cache-Control", "no-store")  # files and event streams have their own
    if current_app.config["ALLOWED_ORIGINS"]:
        response.vary.add("Origin")
    if g.origin:
        response.headers.update({"Access-Control-Allow-Origin": g.origin} | HEADERS["other_origin"])
    if response.status_code == 204:
        del response.headers["Content-Type"]
    # Werkzeug never closes a response that it passes through, such as a file: it would have no line in the log.
    response.direct_passthrough = False
    line = {"method": request.method, "path": request.path, "status": response.status_code}
    began, who = g.began, {"user": g.user, "id": g.id} | ({"why": g.why} if "why" in g else {})
    response.call_on_close(lambda: logs.log.info("request", line | {"seconds": round(time.monotonic() - began, 4)} | who))
    return response


def get_session(session_id):
    """The user's own session; anyone else's is a 404. Takes a connection to the database."""
    database.db.connect()
    return models.Session.get_owned(g.user, session_id)


def load_body(schema, required=True):
    """The body as this schema loads it. Raises ValidationError, or UnsupportedMediaType where it is not called JSON."""
    if not g.body and not required:
        return {}
    if not request.is_json:
        raise exceptions.UnsupportedMediaType("Send JSON, with Content-Type: application/json.")
    try:
        return schema.loads(g.body.decode(), parse_constant=int)  # `int` refuses NaN and the infinities by a ValueError
    except (ValueError, RecursionError) as error:
        raise ValidationError(mistake("json", str(error) if g.body else "")) from None


def without_nulls(fields):
    """Those fields that are given: null is the same as leaving one out, also within another."""
    given = {name: without_nulls(value) if isinstance(value, dict) else value for name, value in fields.items()}
    return {name: value for name, value in given.items() if value not in (None, {})}


def idempotency_key(body):
    """The key under which the client asks, or None."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 1 <= len(key) <= 255:
        raise ValidationError({"Idempotency-Key": ["Give from 1 to 255 characters."]}, source="header")
    fingerprint = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    path = url_for(request.endpoint, **request.view_args)  # however the client spelled it: a UUID may be in capitals
    return IdempotencyKey(owner=g.user, path=path, key=key, fingerprint=fingerprint)


def preferences():
    """By the header Prefer (RFC 7240): whether the answer is deferred at once, and how many seconds the reply is waited for."""
    preferred, allowed = {}, current_app.config["REPLY_WAIT"]
    for each in reversed(parse_list_header(request.headers.get("Prefer", ""))):  # of two with one name, the first counts
        preferred |= parse_dict_header(each.lower().partition(";")[0])
    if "respond-async" in preferred:
        return True, 0
    wait = preferred.get("wait") or ""
    return False, min(allowed, int(wait)) if re.fullmatch("[0-9]{1,9}", wait) else allowed


def make_reply(session, body, retry=False, goes_on=False):
    """Have the model reply, in this session or in a new one (None), and answer in the way the client wants to receive it."""
    body = without_nulls(body)
    key = idempotency_key(body)
    chosen = choose_model(key, body, session)
    content, is_new = body.pop("content", None), session is None
    new = body | {"title": titles.local_title(content)} | chosen if is_new else None
    limits_of_user = current_app.config["RATE_LIMIT"], current_app.config["TOKEN_LIMIT"]
    wanted = models.ReplyRequest(g.user, content, new, session and session.id, retry, goes_on, key, *limits_of_user)
    streams = request.accept_mimetypes.best_match(["application/json", "text/event-stream"]) == "text/event-stream"
    is_async, wait = preferences()
    with contextlib.ExitStack() as leaving:
        try:
            if streams or wait:
                leaving.enter_context((current_app.streams if streams else current_app.held).place(g.user))
        except limits.Overloaded:
            if streams:
                raise
            wait = 0  # it is answered at once
        with database.db.connection_context():  # it is given back before the request waits
            session, feed = current_app.replies.start(wanted, watched=streams)
        headers = {"Location": url_for("api.show_session" if is_new else "api.follow_events", session_id=session.id)}
        if streams:
            status, position = 201 if is_new else 200, feed.start if goes_on else 0
            return stream(leaving, feed, position, session=session if is_new else None, status=status, headers=headers)
        return answer(session, feed, is_new, is_async, wait, headers)


def choose_model(key, body, session):
    """The model of a new session, and its provider's name; that of another session is held against what is served by now. Nothing
    where the key is known, whose outcome is there. Raises UnknownModel, or ModelError where no provider tells the default."""
    if key is not None and key.is_known():
        return {}
    if session:
        try:
            current_app.catalog.allow(session.model, session.provider)
        except catalog.UnknownModel as error:
            url = url_for("api.change_session", session_id=session.id)
            detail = f"{session.model}, the model of this session, is not served any more. Give it another one: PATCH {url}."
            raise exceptions.BadRequest(detail) from error
        return {}
    left = database.remaining()
    model = body.get("model") or current_app.catalog.default()
    provider = current_app.catalog.allow(model)
    database.limit_time(left)  # what a provider took that was asked for its list is none of the database's time
    return {"model": model, "provider": provider.name}


def answer(session, feed, is_new, is_async, wait, headers):
    """The answer once the reply is over; after so many seconds a deferred one: it is followed on the session's events."""
    turn = feed.wait(wait)
    if feed.over == "deleted":
        raise models.Missing("The session was deleted while its reply was being written.")
    if turn and not is_async:
        if turn.status == models.FAILED:
            return errors.model_failure(turn.error_status, turn.error_message, turn.retry_after, session.id)
        if not is_new:
            return schemas.dump_turn(turn), 201
    headers |= {"Preference-Applied": "respond-async"} if is_async else {}
    if not is_new:
        return {"accepted": True}, 202, headers
    session.title = feed.title or session.title
    return schemas.created_session_schema.dump(session), 201, headers


def stream(leaving, feed, *place, session=None, status=200, headers={}):
    """The event stream of this feed from a place on. What is in the stack `leaving` is left when it ends."""
    if wake := request.environ.get("parley.wake"):  # what serves it wants to be woken by news
        feed.followers.append(wake)
        leaving.callback(feed.followers.remove, wake)
    frames = events.frames(feed, *place, session=session, patience=0 if wake else events.KEEPALIVE_INTERVAL)
    response = Response(errors.guarded(frames, g.id), status, headers | HEADERS["stream"], mimetype="text/event-stream")
    response.call_on_close(leaving.pop_all().close)
    return response


# Routes. `tests/openapi` describes them, with their docstrings as summaries, and with what its `base.json` has to say.


@api.post("/sessions")
def create_session():
    """Start a session."""
    return make_reply(None, load_body(schemas.new_session_schema))


@api.get("/sessions")
def list_sessions():
    """List or search your sessions, the last used first."""
    query = schemas.page_schema.load(request.args.to_dict())
    page = min(max(query["limit"], 1), 100), query["offset"]
    words = search.words_of(query["query"])
    if len(words) > search.MAX_WORDS:
        raise ValidationError({"query": [f"Give at most {search.MAX_WORDS} words."]})
    with contextlib.ExitStack() as leaving:
        if words:
            leaving.enter_context(current_app.held.place(g.user))
            leaving.enter_context(current_app.searches.place(g.user, search.TIMEOUT))
            leaving.enter_context(search.limited())
        leaving.enter_context(database.db.connection_context())
        sessions, has_more = models.Session.page(g.user, *page, words)
    return {"data": schemas.listed_session_schema.dump(sessions), "meta": {"has_more": has_more}}


@api.get("/sessions/<uuid:session_id>")
def show_session(session_id):
    """Show a session with its turns, oldest first."""
    query = schemas.turns_page_schema.load(request.args.to_dict())
    if query:
        query["limit"] = min(max(query.get("limit", 50), 1), 200)
    session = get_session(session_id).with_turns(**query)
    return schemas.whole_session_schema.dump(session), {"First-Turn-Sent": session.trim} if session.trim else {}


@api.patch("/sessions/<uuid:session_id>")
def change_session(session_id):
    """Change title, model, system prompt or options of a session."""
    session = get_session(session_id)
    changes = load_body(schemas.change_schema)
    if "model" in changes:
        changes["provider"] = current_app.catalog.allow(changes["model"]).name
    return schemas.changed_session_schema.dump(session.change(**changes))


@api.delete("/sessions/<uuid:session_id>")
def delete_session(session_id):
    """Delete a session with its turns."""
    deletion.delete_session(get_session(session_id).id)
    current_app.replies.poll()
    return "", 204


@api.post("/sessions/<uuid:session_id>/messages")
def add_message(session_id):
    """Send a message."""
    return make_reply(get_session(session_id), load_body(schemas.message_schema))


@api.post("/sessions/<uuid:session_id>/retry")
def retry_reply(session_id):
    """Request the last reply again."""
    return make_reply(get_session(session_id), load_body(schemas.retry_schema, required=False), retry=True)


@api.post("/sessions/<uuid:session_id>/continue")
def continue_reply(session_id):
    """Have the last reply go on where it stopped."""
    return make_reply(get_session(session_id), load_body(schemas.empty_schema, required=False), goes_on=True)


@api.post("/sessions/<uuid:session_id>/cancel")
def cancel_reply(session_id):
    """Stop the reply under way."""
    session = get_session(session_id)
    load_body(schemas.empty_schema, required=False)
    turn = models.Turn.cancel(session)
    current_app.replies.poll()
    return schemas.dump_turn(turn)


@api.get("/sessions/<uuid:session_id>/events")
def follow_events(session_id):
    """Follow the latest reply as an event stream."""
    session = get_session(session_id)
    turn = models.Turn.latest(session.id)
    resumed = events.position_after(request.headers.get("Last-Event-ID"), turn)
    if resumed is None:
        return "", 204
    with contextlib.ExitStack() as leaving:
        leaving.enter_context(current_app.streams.place(g.user))
        return stream(leaving, current_app.replies.follow(turn, watched=True), *resumed)


@api.get("/models")
def list_models():
    """List the models."""
    data = [{"id": model, "provider": name, "default": default} for model, name, default in current_app.catalog.list()]
    return {"data": data, "meta": {"has_more": False}}


api.get("/usage")(usage.show_usage)
public.get("/metrics")(usage.show_metrics)


@public.get("/health")
def show_health():
    """Tell whether the server and its database answer."""
    current_app.replies.start_keeper()
    database.check()
    return {"status": "ok", "version": __version__}


@public.get("/openapi.json")
def show_openapi():
    """Describe the API."""
    return current_app.send_static_file("openapi.json"), {"Cache-Control": "no-store"}


@public.get("/")
def show_index():
    """Name the places to begin."""
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        return current_app.send_static_file("index.html"), HEADERS["page"]
    urls = {"openapi_url": url_for("public.show_openapi"), "health_url": url_for("public.show_health")}
    urls |= {"sessions_url": url_for("api.list_sessions"), "models_url": url_for("api.list_models")}
    return {"urls": urls}, {"Vary": "Accept"}
