"""The description of the API, an OpenAPI 3.1 document: `python tools/openapi` makes
`static/openapi.json` from the code.

The routes give the paths, the methods, the operations' names, and the errors that follow from them.
The decorators of `api/contract.py` give what an operation takes and returns, the docstrings of
handlers their summaries and descriptions; the schemas give the bodies. `base.json` has the rest, in
the words of OpenAPI: `tags` name their operations, `errors` and `headers` are described there once.

Under 3.1 the schema of an event stream describes its whole body, a text; its `contentSchema` has
the events, from which generators make types. If JSON may come instead, the stream's media type
names its charset: for a plain `text/event-stream`, @hey-api/openapi-ts makes a function that can
only stream.
"""

import copy
import inspect
import json
import pathlib
import re
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin, OpenAPIConverter, resolver

import schemas
from api import answers, events, import_schema
from api.contract import BYTES, operation_of
from app import __version__, create_app

FILE = ROOT / "static" / "openapi.json"
BASE_TEXT = pathlib.Path(__file__).with_name("base.json").read_text("utf-8")
BASE = json.loads(BASE_TEXT)
ERRORS, HEADERS = BASE.pop("errors"), BASE.pop("headers")
TAGS = {operation: tag["name"] for tag in BASE["tags"] for operation in tag.pop("operations")}
# The names of the routes' arguments in docs/api.md.
NAMES_IN_PATHS = {"session_id": "id", "turn_id": "turn", "file_id": "file"}
# The errors of any request; of any that needs a token; and of any for a session.
ERRORS_OF_ALL = {406, 408}
ERRORS_OF_USERS = {400, 401, 403, 412, 413, 503}
NO_SUCH_SESSION, NO_JSON = 404, 415
# What a Text accepts. Many regular expression engines have no surrogates, and JavaScript's, unlike
# Python's, do not count U+001C to U+001F and U+0085 as white space.
TEXT = r"^[^\u0000]*[^\s\u0000\u001c-\u001f\u0085][^\u0000]*$"


class Converter(OpenAPIConverter):
    """Describes schemas as apispec does, with their docstrings and the metadata of their fields.
    What the metadata sets to None is left out, whatever apispec finds."""

    def schema2jsonschema(self, schema):
        description = paragraphs(type(schema).__doc__)
        described = {"description": description} | super().schema2jsonschema(schema)
        if described.get("additionalProperties"):
            del described["properties"]  # none of these schemas has any
        return described | getattr(schema.Meta, "besides", {})

    def metadata2properties(self, field, **kwargs):
        return {}  # apispec knows only some words, and would wrap the schema of a Nested in an allOf

    def field2property(self, field):
        described = super().field2property(field)
        if isinstance(field, schemas.Text):
            described["pattern"] = TEXT
        # apispec sets it on fields that are made by a function, as if others were not read-only.
        described.pop("readOnly", None)
        described |= field.metadata
        return {name: value for name, value in described.items() if value is not None}


def _name_of(schema):
    """The name of a schema in the document; None if it is described inline."""
    kind = schema if isinstance(schema, type) else type(schema)
    return resolver(schema) if getattr(kind.Meta, "named", True) else None


def paragraphs(text):
    """A docstring, each of its paragraphs in one line."""
    return "\n\n".join(" ".join(each.split()) for each in inspect.cleandoc(text).split("\n\n"))


def _add_referred(spec, converter):
    """Add the schemas that `base.json`, or the metadata of a field, refers to by name only."""
    known = vars(schemas) | vars(import_schema) | vars(events)
    while True:
        described = spec.to_dict()
        names = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(described)))
        if not (missing := names - described["components"]["schemas"].keys()):
            return
        for name in sorted(missing):
            converter.resolve_nested_schema(known[f"{name}Schema"])


def _describe_events(converter):
    """A schema for each kind of event, with its data parsed, and one for all of them."""
    schemas, mapping = {}, {}
    common = converter.schema2jsonschema(events.EventSchema())
    for kind in events.EVENTS:
        name = kind.name.title().replace("_", "") + "Event"
        mapping[kind.name] = f"#/components/schemas/{name}"
        schemas[name] = {
            "description": kind.description,
            "type": "object",
            "properties": common["properties"]
            | {
                "event": {"type": "string", "const": kind.name},
                "data": converter.resolve_nested_schema(kind.data),
            },
            "required": ["id", "event", "data"],
            "additionalProperties": False,
        }
    return schemas | {
        "Event": {
            "description": common["description"],
            "oneOf": [{"$ref": reference} for reference in mapping.values()],
            "discriminator": {"propertyName": "event", "mapping": mapping},
        }
    }


def _describe_headers(required, possible):
    """The headers of an answer: those that every such answer has, and others."""
    every = dict.fromkeys(["X-Request-ID", "Cache-Control", *required], True)
    every |= dict.fromkeys(possible, False)
    return {name: HEADERS[name] | {"required": always} for name, always in every.items()}


def _describe_error(error):
    return {
        "description": error["description"],
        "headers": _describe_headers(error.get("headers", []), error.get("may_have", [])),
        "content": {"application/json": {"schema": answers.ErrorsSchema}},
    }


def _describe_answer(answer, links):
    """The Response Object of an Answer."""
    content = {"application/json": answer.schema} if answer.schema else {}
    described = {
        "description": answer.description,
        "headers": _describe_headers(answer.headers, answer.may_have),
    }
    content |= answer.content
    if content:
        described["content"] = {kind: {"schema": schema} for kind, schema in content.items()}
    if answer.links:
        described["links"] = copy.deepcopy(links)
    return described


def _describe_body(body):
    """The Request Body Object of a Body."""
    if body.media_types:
        content = dict.fromkeys(body.media_types, {"schema": BYTES})
        return {"required": body.required, "content": content}
    one, *others = body.schemas
    content = {"schema": {"oneOf": [one, *others]} if others else one}
    if body.example is not None:
        content["example"] = body.example
    return {"required": body.required, "content": {"application/json": content}}


def _errors_of(rule, operation):
    found = ERRORS_OF_ALL | operation.errors
    if rule.endpoint.startswith("api."):
        found |= ERRORS_OF_USERS
    if "session_id" in rule.arguments:
        found.add(NO_SUCH_SESSION)
    if operation.body and operation.body.schemas:
        found.add(NO_JSON)
    return {str(status): str(status) for status in sorted(found)}


def _describe(rule, handler, links):
    """The Operation Object of a route. Raises KeyError if no tag has it, or if it returns nothing."""
    name, operation = rule.endpoint.rpartition(".")[2], operation_of(handler)
    tag = TAGS[name]
    if not operation.answers:
        raise KeyError(f"{name} gives nothing: see api/contract.py")
    summary, _, description = paragraphs(handler.__doc__).partition("\n\n")
    query = [{"in": "query", "schema": operation.query}] if operation.query else []
    in_path = sorted(NAMES_IN_PATHS[each] for each in rule.arguments)
    described = {
        "operationId": name,
        "tags": [tag],
        "summary": summary.removesuffix("."),
        "description": description,
        "parameters": [*in_path, *query, *operation.headers, "X-Request-ID"],
        "responses": {
            str(status): answer.name or _describe_answer(answer, links)
            for status, answer in sorted(operation.answers.items())
        }
        | _errors_of(rule, operation),
    }
    if operation.body:
        described["requestBody"] = _describe_body(operation.body)
    if operation.security:
        described["security"] = [{operation.security: []}]
    elif operation.is_anonymous:
        described["security"] = [*BASE["security"], {}]
    elif rule.endpoint.startswith("public."):
        described["security"] = []
    return described


def document(app):
    """The document of this app."""
    plugin = MarshmallowPlugin(schema_name_resolver=_name_of)
    plugin.Converter = Converter
    base = copy.deepcopy(BASE)
    spec = APISpec("Parley", __version__, "3.1.1", [plugin], **base)
    for name, described in _describe_events(plugin.converter).items():
        spec.components.schema(name, described)
    rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint != "public.show_file"]
    for status, error in ERRORS.items():
        spec.components.response(status, _describe_error(error))
    shared = {
        answer.name: answer
        for rule in rules
        for answer in operation_of(app.view_functions[rule.endpoint]).answers.values()
        if answer.name
    }
    for name, answer in shared.items():
        spec.components.response(name, _describe_answer(answer, {}))
    links = {
        rule.endpoint.removeprefix("api."): {
            "operationId": rule.endpoint.removeprefix("api."),
            "parameters": {"id": "$response.body#/id"},
        }
        for rule in rules
        if rule.arguments == {"session_id"}
    }
    for rule in rules:
        path = re.sub(
            r"<(?:\w+:)?(\w+)>", lambda found: f"{{{NAMES_IN_PATHS[found[1]]}}}", rule.rule
        )
        operation = _describe(rule, app.view_functions[rule.endpoint], links)
        methods = rule.methods - {"HEAD", "OPTIONS"}
        spec.path(path, operations={method.lower(): operation for method in methods})
    _add_referred(spec, plugin.converter)
    return spec.to_dict()


def text(app):
    """The document as the file has it, in lines, so that changes are easy to read."""
    return json.dumps(document(app), ensure_ascii=False, indent=2) + "\n"


def main():
    with tempfile.TemporaryDirectory() as folder:
        app = create_app({"DATABASE_URL": f"sqlite:///{folder}/empty.db", "JWT_SECRET": "-" * 32})
        FILE.write_text(text(app), "utf-8")


if __name__ == "__main__":
    main()
