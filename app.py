"""Parley, a chat-session service: the factory, the errors, the routes as a user meets them, the command line."""

import atexit
import functools
import hashlib
import json
import logging
import math
import os
import re
import secrets
import shlex
import time
import uuid

import click
from dotenv import dotenv_values
from flask import Blueprint, Flask, Response, current_app, g, jsonify, request, url_for
from flask.cli import with_appcontext
from gunicorn.http.errors import ParseException
from marshmallow import ValidationError
from werkzeug.exceptions import (
    BadRequest,
    Forbidden,
    HTTPException,
    NotAcceptable,
    RequestEntityTooLarge,
    Unauthorized,
    UnsupportedMediaType,
)
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.serving import is_running_from_reloader

import auth
import chat
import events
import llm
import logs
import models
import openapi
import schemas
import titles
from replies import Overloaded, Replies
from settings import SettingError, read_settings

__version__ = "1.0.0"

CHALLENGE = 'Bearer realm="parley"'  # RFC 6750, section 3

log = logging.getLogger("parley")

api = Blueprint("api", __name__)
public = Blueprint("public", __name__)


# The factory


def create_app(config=None):
    """The application. `config` has settings in place of the environment's and `.env`'s.

    Ends the process with one line that names the setting, where one is not understood.
    """
    app = Flask(__name__, static_folder=None)
    app.json.sort_keys = False
    if config is None:
        config = dotenv_values(os.path.join(app.root_path, ".env")) | os.environ
    try:
        settings = read_settings(config)
        app.config.update(settings)
        logs.set_up(settings["LOG_FORMAT"])
        app.tokens = open_tokens(settings, app.instance_path)
        served = open_models(settings)
        open_database(settings, app.instance_path)
    except SettingError as error:
        raise SystemExit(str(error)) from None
    app.replies = Replies(served, settings["MAX_TOKENS"], settings["TITLE_MODEL"])
    atexit.register(app.replies.stop, 0)
    app.register_blueprint(public)
    app.register_blueprint(api)
    for error, handler in ERROR_HANDLERS.items():
        app.register_error_handler(error, handler)
    app.before_request(begin_request)
    app.after_request(end_request)
    app.teardown_request(close_database)
    app.cli.add_command(print_token)
    app.cli.add_command(chat.chat_command)
    greet(app)
    return app


def open_database(settings, folder):
    try:
        models.open_database(settings["DATABASE_URL"] or f"sqlite:///{made(folder, 'DATABASE_URL')}/parley.db")
        models.migrate()
        models.database.close_idle()  # a connection must not be shared with the processes that fork from this one
    except (ValueError, models.NewerDatabase) as error:
        raise SettingError("DATABASE_URL", error) from None
    except models.Unavailable as error:
        raise SettingError("DATABASE_URL", f"the database cannot be opened ({type(error).__name__})") from None


def open_tokens(settings, folder):
    issuer, audience = settings["JWT_ISSUER"], settings["JWT_AUDIENCE"]
    if settings["JWT_JWKS_URL"]:
        return auth.RemoteTokens(settings["JWT_JWKS_URL"], issuer, audience)
    if settings["JWT_SECRET"]:
        pair = ("HS256", settings["JWT_SECRET"])
        return auth.Tokens([pair], pair, issuer, audience)
    if settings["JWT_PUBLIC_KEY"]:
        try:
            return auth.Tokens(auth.public_keys(settings["JWT_PUBLIC_KEY"]), None, issuer, audience)
        except ValueError:
            raise SettingError("JWT_PUBLIC_KEY", "give an Ed25519, EC or RSA public key, in PEM or base64 of PEM") from None
    path = os.path.join(made(folder, "JWT_PUBLIC_KEY"), "jwt_key.pem")
    try:
        key = auth.own_key(path)
    except (ValueError, TypeError, OSError):
        raise SettingError("JWT_PUBLIC_KEY", f"it is not set, and {path} is no Ed25519 key in PEM") from None
    return auth.Tokens([("EdDSA", key.public_key())], ("EdDSA", key), issuer, audience)


def made(folder, setting):
    """The folder, which is made where there is none. Raises SettingError."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise SettingError(setting, f"it is not set, and {folder} cannot be made ({error.strerror})") from None
    return folder


def open_models(settings):
    timeout = settings["MODEL_TIMEOUT"]
    providers = []
    if settings["ANTHROPIC"]:
        providers.append(llm.Anthropic(settings["ANTHROPIC_BASE_URL"], settings["ANTHROPIC_API_KEY"], timeout))
    if settings["OPENAI"]:
        providers.append(llm.OpenAI(settings["OPENAI_BASE_URL"], settings["OPENAI_API_KEY"], timeout))
    served = llm.Models(providers, settings["MODELS"] or (), settings["DEFAULT_MODEL"])
    named = [("MODELS", model) for model in settings["MODELS"] or ()]
    named += [(name, settings[name]) for name in ("DEFAULT_MODEL", "TITLE_MODEL") if settings[name]]
    for name, model in named:
        try:
            served.provider_of(model, is_ours=name == "TITLE_MODEL")
        except llm.UnknownModel as error:
            raise SettingError(name, f"{model} is not served. {error}") from None
    return served


def greet(app):
    """Under `flask run`, show a request that can be pasted."""
    context = click.get_current_context(silent=True)
    if context is None or context.info_name != "run" or is_running_from_reloader() or not app.tokens.signing:
        return
    url = f"http://{context.params['host']}:{context.params['port']}/sessions"
    token = app.tokens.sign("https://github.com/you", 30)
    body = json.dumps({"content": "Hello, Parley!"})
    click.echo(
        f"Parley {__version__}. Try it:\n\n  curl -i {url} -H 'Authorization: Bearer {token}' "
        f"-H 'Content-Type: application/json' -d {shlex.quote(body)}\n"
    )


# Errors


class MissingToken(Unauthorized):
    def get_headers(self, *args):
        return [("WWW-Authenticate", CHALLENGE)]


def error_response(status, faults, headers=(), session_id=None):
    """The one shape of all errors; `faults` are (detail, source) pairs, and a source may be None."""
    errors = []
    for detail, source in faults:
        entry = {"status": str(status), "title": HTTP_STATUS_CODES[status], "detail": detail}
        if source:
            entry["source"] = source
        if session_id:
            entry["meta"] = {"session_id": str(session_id)}
        errors.append(entry)
    response = jsonify(errors=errors)
    response.status_code = status
    response.headers.extend(headers)
    if session_id:
        response.headers["Location"] = session_url(session_id)
    if status == 413:
        response.headers["Connection"] = "close"
    return response


def on_http_error(error):
    if error.code is None or error.code < 400:
        return error
    kept = [(name, value) for name, value in error.get_headers() if name.lower() != "content-type"]
    is_ours = error.description != type(error).description
    detail = error.description if is_ours else FRAMEWORK_DETAILS.get(error.code, error.description)
    return error_response(error.code, [(detail, None)], kept)


def on_invalid(error):
    return error_response(400, schemas.faults(error))


def on_broken_body(error):
    response = on_http_error(BadRequest("The body is broken: its chunks are not framed as RFC 9112 has it."))
    response.headers["Connection"] = "close"
    return response


def on_refused(error):
    status = {models.Missing: 404, models.Busy: 409, models.KeyReused: 422, models.TooMany: 429}[type(error)]
    wait = getattr(error, "retry_after", None)
    headers = {"Retry-After": str(wait)} if wait else {}
    return error_response(status, [(str(error), None)], headers, getattr(error, "session_id", None))


def on_unknown_model(error):
    return error_response(400, [(str(error), {"pointer": "/model"})])


def on_model_error(error):
    return model_failure(error.status, error.message, error.retry_after)


def model_failure(status, message, retry_after, session_id=None):
    headers = {"Retry-After": str(max(1, math.ceil(retry_after or 10)))} if status == 503 else {}
    return error_response(status, [(message, None)], headers, session_id)


def on_invalid_token(error):
    challenge = f'{CHALLENGE}, error="invalid_token", error_description="{error}"'
    return error_response(401, [(str(error), None)], {"WWW-Authenticate": challenge})


def on_unavailable(error):
    return error_response(503, [(str(error), None)], {"Retry-After": "5"})


def on_database_error(error):
    log.error("the database does not answer: %s", type(error).__name__, exc_info=error)
    return error_response(503, [("The database does not answer. Ask again in a moment.", None)], {"Retry-After": "5"})


FRAMEWORK_DETAILS = {
    404: "There is nothing at this path. GET / names the places to begin.",
    405: "This path does not take this method. Use one that the header Allow names.",
    500: "The server failed. Ask again; its log says more under this X-Request-ID.",
}

ERROR_HANDLERS = {
    HTTPException: on_http_error,
    ValidationError: on_invalid,
    ParseException: on_broken_body,
    models.Refused: on_refused,
    llm.UnknownModel: on_unknown_model,
    llm.ModelError: on_model_error,
    auth.InvalidToken: on_invalid_token,
    auth.KeysUnavailable: on_unavailable,
    Overloaded: on_unavailable,
    **dict.fromkeys(models.Unavailable, on_database_error),
}


# Hooks and getters


def begin_request():
    g.began, g.user = time.monotonic(), None
    wish = request.headers.get("X-Request-ID", "")
    g.id = wish if re.fullmatch(r"[\w.:+/=-]{1,128}", wish, re.ASCII) else uuid.uuid4().hex
    accept = request.accept_mimetypes
    page = request.path == "/" and accept["text/html"]
    if accept and not (accept["application/json"] or accept["text/event-stream"] or page):
        raise NotAcceptable("Accept application/json or text/event-stream.")


@api.before_request
def authenticate():
    authorization = request.authorization
    if authorization is None or authorization.type != "bearer":
        raise MissingToken("Send a token: Authorization: Bearer <token>.")
    g.user = current_app.tokens.verify(authorization.token or "")
    allowed = current_app.config["ALLOWED_USERS"]
    if allowed is not None and g.user.rstrip("/").rpartition("/")[2] not in allowed:
        raise Forbidden("This user is not allowed on this server. Ask whoever runs it.")
    models.database.connect()


def end_request(response):
    response.headers["X-Request-ID"] = g.id
    if response.status_code == 204:
        del response.headers["Content-Type"]
    line = {"method": request.method, "path": request.path, "status": response.status_code}
    response.call_on_close(functools.partial(log_request, line, g.began, {"user": g.user, "id": g.id}))
    return response


def log_request(line, began, who):
    log.info("request", line | {"seconds": round(time.monotonic() - began, 4)} | who)


def close_database(error=None):
    if not models.database.is_closed():
        models.database.close()


def get_session(session_id):
    """The user's own session; anyone else's is a 404."""
    return models.Session.get_owned(g.user, session_id)


def get_body(schema):
    """The request's body, loaded. Raises ValidationError, or what RFC 9110 has for a body that is not JSON."""
    limit = current_app.config["MAX_CONTENT_LENGTH"]
    request.max_content_length = limit + 1  # one byte more tells a chunked body that is too large from one that fits
    length = request.content_length or 0
    body = request.stream.read(limit + 1) if length <= limit else b""
    if max(length, len(body)) > limit:
        raise RequestEntityTooLarge(f"Send at most {limit} bytes.")
    if len(body) < length:
        raise BadRequest("The body ended before its Content-Length. Send it whole.")
    if not body and not schema.fields:
        return {}
    if not request.is_json:
        raise UnsupportedMediaType("Send JSON, with Content-Type: application/json.")
    return schema.load(schemas.parse_json(body))


def idempotency_key(body):
    """What names this request among the user's: (path, key, digest of the body), or None where it has no key."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 1 <= len(key) <= 255:
        raise schemas.HeaderFault({"Idempotency-Key": ["Give from 1 to 255 characters."]})
    given = {name: value for name, value in body.items() if value is not None}
    return request.path, key, hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


def session_url(session_id):
    return url_for("api.show_session", session_id=session_id)


def events_url(session_id):
    return url_for("api.follow_events", session_id=session_id)


# One reply, three ways to receive it


def ask_for_reply(body, **wish):
    """Ask for a reply, and answer in the way that the client wants to receive it."""
    wish |= {"key": idempotency_key(body), "limit": current_app.config["RATE_LIMIT"]}
    accepted = request.accept_mimetypes.best_match(["application/json", "text/event-stream"])
    streams = accepted == "text/event-stream"
    session, feed = current_app.replies.ask(models.Ask(g.user, **wish), streams)
    is_new = "new" in wish
    if streams:
        return stream_reply(session, feed, is_new)
    close_database()  # a request that waits must not keep others from the database
    over = not prefers_async() and feed.wait(current_app.config["REPLY_WAIT"])
    current_app.replies.leave(feed)
    if feed.gone:
        raise models.Missing("The session was deleted while its reply was being written.")
    if not over or feed.cut:
        return deferred(session, is_new)
    turn = feed.turn
    if turn.status == models.FAILED:
        return model_failure(turn.error_status, turn.error_message, turn.retry_after, session.id)
    if not is_new:
        return jsonify(schemas.dump_turn(turn)), 201
    session.title = feed.title or session.title
    return created(session)


def prefers_async():
    preferences = ",".join(request.headers.getlist("Prefer")).split(",")
    return any(preference.partition(";")[0].strip().lower() == "respond-async" for preference in preferences)


def deferred(session, is_new):
    """The answer of a reply that goes on, to be followed on the session's events."""
    if is_new:
        response = created(session)
    else:
        response = jsonify(accepted=True)
        response.status_code = 202
        response.headers["Location"] = events_url(session.id)
    if prefers_async():
        response.headers["Preference-Applied"] = "respond-async"
    return response


def created(session):
    response = jsonify(schemas.created_session_schema.dump(session))
    response.status_code = 201
    response.headers["Location"] = session_url(session.id)
    return response


def stream_reply(session, feed, is_new=False, position=0):
    """The event stream of this reply, from a position on; with the session's own events where it is new."""
    frames = events.frames(feed, position, session if is_new else None)
    response = Response(frames, 201 if is_new else 200, mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-cache, no-transform"
    response.headers["X-Accel-Buffering"] = "no"
    response.headers["Location"] = session_url(session.id) if is_new else events_url(session.id)
    response.call_on_close(functools.partial(current_app.replies.leave, feed))
    return response


# Routes


@api.post("/sessions")
def create_session():
    body = get_body(schemas.new_session_schema)
    served = current_app.replies.models
    model = body.get("model")
    if model is None:
        close_database()  # the provider may be slow to say what it has
        model = served.default()
        models.database.connect()
    served.provider_of(model)
    new = {"title": titles.local_title(body["content"]), "model": model, "system": body.get("system")}
    return ask_for_reply(body, content=body["content"], new=new)


@api.get("/sessions")
def list_sessions():
    query = schemas.page_schema.load(request.args.to_dict())
    limit = min(max(query["limit"], 1), 100)
    sessions, has_more = models.Session.page(g.user, limit, query["offset"], query["query"])
    return jsonify(data=schemas.listed_session_schema.dump(sessions), meta={"has_more": has_more})


@api.get("/sessions/<uuid:session_id>")
def show_session(session_id):
    return jsonify(schemas.whole_session_schema.dump(get_session(session_id).with_turns()))


@api.patch("/sessions/<uuid:session_id>")
def change_session(session_id):
    session = get_session(session_id)
    changes = get_body(schemas.change_schema)
    if "model" in changes:
        current_app.replies.models.provider_of(changes["model"])
    return jsonify(schemas.changed_session_schema.dump(session.change(**changes)))


@api.delete("/sessions/<uuid:session_id>")
def delete_session(session_id):
    get_session(session_id).delete_whole()
    current_app.replies.look()
    return "", 204


@api.post("/sessions/<uuid:session_id>/messages")
def add_message(session_id):
    session = get_session(session_id)
    body = get_body(schemas.message_schema)
    current_app.replies.models.provider_of(session.model)
    return ask_for_reply(body, content=body["content"], session_id=session.id)


@api.post("/sessions/<uuid:session_id>/retry")
def retry_reply(session_id):
    session = get_session(session_id)
    body = get_body(schemas.empty_schema)
    current_app.replies.models.provider_of(session.model)
    return ask_for_reply(body, session_id=session.id)


@api.post("/sessions/<uuid:session_id>/cancel")
def cancel_reply(session_id):
    session = get_session(session_id)
    get_body(schemas.empty_schema)
    turn = models.Turn.cancel(session)
    current_app.replies.look()
    return jsonify(schemas.dump_turn(turn))


@api.get("/sessions/<uuid:session_id>/events")
def follow_events(session_id):
    session = get_session(session_id)
    turn = models.Turn.latest(session.id)
    position = events.position_after(request.headers.get("Last-Event-ID"), turn)
    if position is None:
        return "", 204
    return stream_reply(session, current_app.replies.follow(turn, watched=True), position=position)


@api.get("/models")
def list_models():
    close_database()  # the providers may be slow to answer
    listed = current_app.replies.models.list()
    data = [{"id": model, "provider": provider, "default": default} for model, provider, default in listed]
    return jsonify(data=data, meta={"has_more": False})


@public.get("/health")
def show_health():
    models.check()
    return jsonify(status="ok", version=__version__)


@public.get("/openapi.json")
def show_openapi():
    return jsonify(openapi.document(__version__))


@public.get("/")
def show_index():
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        return show_page(), {"Vary": "Accept"}
    names = {
        "openapi_url": "public.show_openapi",
        "health_url": "public.show_health",
        "sessions_url": "api.list_sessions",
        "models_url": "api.list_models",
    }
    return jsonify(urls={name: url_for(endpoint) for name, endpoint in names.items()}), {"Vary": "Accept"}


def show_page():
    """The page for browsers, in which nothing may run but its own script."""
    nonce = secrets.token_urlsafe(16)
    with current_app.open_resource("page.html", "r", "utf-8") as file:
        response = Response(file.read().replace("{{ nonce }}", nonce), mimetype="text/html")
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    response.headers["Cache-Control"] = "no-store"
    return response


# The command line


@click.command("token")
@click.argument("subject")
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 36500), help="How long it is valid.")
@with_appcontext
def print_token(subject, days):
    """Print a token for SUBJECT, such as https://github.com/username."""
    try:
        click.echo(current_app.tokens.sign(subject, days))
    except auth.InvalidToken as error:
        raise click.ClickException(str(error)) from None
