"""Schemas of the answers that are not sessions or turns: models, usage, the user, the server, and
errors."""

from marshmallow import EXCLUDE, INCLUDE, Schema, fields, validate

from schemas import ListedSessionSchema, MetaSchema, Timestamp, about

COUNT = validate.Range(min=0)


class AcceptedSchema(Schema):
    """The reply is being written."""

    accepted = fields.Boolean(required=True, metadata=about(const=True))


class SessionsSchema(Schema):
    """A page of sessions."""

    data = fields.List(fields.Nested(ListedSessionSchema), required=True)
    meta = fields.Nested(MetaSchema, required=True)


# Models


class ListedModelSchema(Schema):
    """A model that may be used."""

    id = fields.String(
        required=True,
        metadata=about("What a session's `model` is.", "claude-opus-4-6", "ollama/llama3.2"),
    )
    provider = fields.String(
        required=True, metadata=about("The name of the provider that runs it.", "anthropic")
    )
    default = fields.Boolean(
        required=True, metadata=about("Whether it is the model of sessions that name none.")
    )
    images = fields.Boolean(
        required=True,
        allow_none=True,
        metadata=about("Whether it sees images; null if its provider does not say."),
    )


class ModelsMetaSchema(Schema):
    """Facts about the list."""

    has_more = fields.Boolean(required=True)
    thinking = fields.String(
        required=True,
        validate=validate.OneOf(["keep", "live", "count"]),
        metadata=about("The server's setting `THINKING`."),
    )
    max_file = fields.Integer(
        required=True,
        validate=COUNT,
        metadata=about("Bytes of the largest image; 0: no images."),
    )
    hint = fields.String(
        metadata=about(
            "Sentences for the user, each a paragraph of Markdown: which providers could not be "
            "asked, or why there is no model, and what to do. Left out if all is well.",
            "The provider ollama could not be reached. Nothing listens at 127.0.0.1:11434. Start "
            "it there by `ollama serve`.",
        )
    )


class ModelsSchema(Schema):
    """All models that may be used."""

    data = fields.List(fields.Nested(ListedModelSchema), required=True)
    meta = fields.Nested(ModelsMetaSchema, required=True)


# Usage


class DailyUsageSchema(Schema):
    """Your usage of one model on one day."""

    day = fields.String(required=True, metadata=about(None, "2026-11-25", format="date"))
    model = fields.String(required=True, metadata=about("The id of the model.", "claude-opus-4-6"))
    replies = fields.Integer(
        required=True, validate=COUNT, metadata=about("Replies that have ended, in any way.")
    )
    input_tokens = fields.Integer(
        required=True,
        validate=COUNT,
        metadata=about("Counted by the provider, including cached ones."),
    )
    output_tokens = fields.Integer(
        required=True, validate=COUNT, metadata=about("Counted by the provider.")
    )
    cached_tokens = fields.Integer(
        required=True,
        validate=COUNT,
        metadata=about("Input tokens that were read from the provider's cache."),
    )
    estimated_tokens = fields.Integer(
        required=True,
        validate=COUNT,
        metadata=about("Tokens that no provider counted, in and out: one per four bytes."),
    )


class UsageMetaSchema(Schema):
    """The sum, and the limit."""

    used = fields.Integer(
        required=True,
        validate=COUNT,
        metadata=about(
            "All tokens, in and out, including estimated ones: in the limit's period or, without a "
            "limit, on the days above."
        ),
    )
    limit = fields.Integer(
        required=True,
        allow_none=True,
        validate=validate.Range(min=1),
        metadata=about(
            "How many you may use in a month, or a day, in UTC. Null if there is no limit."
        ),
    )
    resets_at = Timestamp(
        required=True,
        allow_none=True,
        metadata=about("When the next period begins. Null if there is no limit."),
    )


class UsageByDaySchema(Schema):
    """Your usage by day and model, the newest first."""

    data = fields.List(fields.Nested(DailyUsageSchema), required=True)
    meta = fields.Nested(UsageMetaSchema, required=True)


# The user, and the server


class MePageSchema(Schema):
    """How to answer if nobody is signed in."""

    class Meta:
        unknown = EXCLUDE  # other parameters are ignored

    anonymous = fields.String(
        metadata=about(
            "With any value: if the request has no token, and no proxy names its user, the answer "
            "is a 200 without a user, not a 401, which browsers report as an error.",
            "1",
        )
    )


class NobodySchema(Schema):
    """The answer to `GET /me?anonymous=1` without a user."""

    subject = fields.Raw(required=True, metadata=about(type="null"))
    name = fields.Raw(required=True, metadata=about(type="null"))
    by = fields.Raw(required=True, metadata=about(type="null"))
    advice = fields.String(required=True, metadata=about("A sentence: where to get a token."))
    sign_in = fields.Nested(lambda: SignInSchema(), required=True)


class MeSchema(Schema):
    """The user of the request."""

    subject = fields.String(
        required=True,
        metadata=about(
            "The owner of your sessions: the `sub` of the token, or `proxy:/` and the name that "
            "the trusted proxy sent.",
            "https://github.com/username",
            "proxy:/alice",
        ),
    )
    name = fields.String(
        required=True,
        metadata=about(
            "What the page calls you: the last segment of `subject`, or the name that the identity "
            "provider gave.",
            "username",
            "alice",
        ),
    )
    by = fields.String(
        required=True,
        validate=validate.OneOf(["token", "proxy"]),
        metadata=about("How the server knows you."),
    )


class HealthSchema(Schema):
    """The server and its database answer."""

    status = fields.String(required=True, metadata=about(const="ok"))
    version = fields.String(required=True, metadata=about("The server's release."))


class DocumentSchema(Schema):
    """An OpenAPI document."""

    class Meta:
        unknown = INCLUDE


class Path(fields.String):
    """A path of this service, with its prefix."""

    def __init__(self) -> None:
        super().__init__(required=True, metadata=about(format="uri-reference"))


class UrlsSchema(Schema):
    """The paths of the places to begin, with the prefix of the service."""

    openapi_url = Path()
    health_url = Path()
    sessions_url = Path()
    models_url = Path()


class PlacesSchema(Schema):
    """The places to begin."""

    urls = fields.Nested(UrlsSchema, required=True)


# Errors, as `errors.py` writes them


class ErrorSourceSchema(Schema):
    """The part of the request that is at fault: one of these."""

    class Meta:
        besides = {"minProperties": 1, "maxProperties": 1}

    pointer = fields.String(metadata=about("A field of the body, as a JSON pointer.", "/content"))
    parameter = fields.String(metadata=about("A parameter of the query.", "page[limit]"))
    header = fields.String(metadata=about("A header.", "Idempotency-Key"))


class OIDCSchema(Schema):
    """An identity provider."""

    class Meta:
        named = False

    issuer = fields.String(
        required=True,
        metadata=about(
            "The identity provider.", "https://id.example.com/realms/home", format="uri"
        ),
    )
    client_id = fields.String(
        required=True, metadata=about("The page's client id there.", "parley")
    )
    scope = fields.String(
        required=True, metadata=about("The scopes to ask for.", "openid profile email")
    )
    authorization_endpoint = fields.String(
        required=True,
        allow_none=True,
        metadata=about(
            "Where the person signs in. Null: the identity provider cannot be reached, ask again "
            "later.",
            format="uri",
        ),
    )
    token_endpoint = fields.String(
        required=True,
        allow_none=True,
        metadata=about(
            "Where the page gets its tokens. Null: the identity provider cannot be reached.",
            format="uri",
        ),
    )
    end_session_endpoint = fields.String(
        required=True,
        allow_none=True,
        metadata=about(
            "Where the person signs out. Null: there is none, or the identity provider cannot be "
            "reached.",
            format="uri",
        ),
    )


class SignInSchema(Schema):
    """How a page can sign in: in the 401 of `GET /me`, and in the answer without a user."""

    oidc = fields.Nested(
        OIDCSchema,
        required=True,
        allow_none=True,
        metadata=about(
            "By OpenID Connect: authorization code with PKCE (S256), as a public client. Null: the "
            "server has no identity provider."
        ),
    )


class ErrorMetaSchema(Schema):
    """More about the error."""

    class Meta:
        besides = {"minProperties": 1}

    reason = fields.String(
        metadata=about(
            "The provider's own words, only for the operator: the user of `flask run`'s link, with "
            "a request from the same machine and not through a proxy."
        )
    )
    session_id = fields.UUID(metadata=about("The session, which is kept though the model failed."))
    sign_in = fields.Nested(SignInSchema)


class ErrorObjectSchema(Schema):
    """One thing that is wrong."""

    status = fields.String(
        required=True, metadata=about("The HTTP status.", "400", pattern="^[45][0-9]{2}$")
    )
    title = fields.String(required=True, metadata=about("The name of the status.", "Bad Request"))
    detail = fields.String(
        required=True,
        metadata=about("What is wrong, and what to do.", "The field content is missing."),
    )
    source = fields.Nested(ErrorSourceSchema)
    meta = fields.Nested(ErrorMetaSchema)


class ErrorsSchema(Schema):
    """The body of every error response, with one entry for each fault, up to the twentieth."""

    errors = fields.List(
        fields.Nested(ErrorObjectSchema), required=True, metadata=about(minItems=1, maxItems=20)
    )
