"""The description of the API, an OpenAPI 3.1 document: `python tools/openapi` makes `static/openapi.json` of the code.

The routes give the paths, the methods and the operations' names; the docstrings of their handlers give summaries; the
schemas give the bodies. `base.json` says what none of these does, in the words of OpenAPI; an operation's parameters stand
there by their names, its errors by their statuses, and a response's headers only say whether they are `required`.

Under 3.1 the schema of an event stream describes its whole body, a text; its `contentSchema` has the events, of which
generators make types. Where JSON may come instead, the stream's media type is said with its charset: a plain
`text/event-stream` has @hey-api/openapi-ts make a function that does nothing but stream.
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
from apispec.ext.marshmallow import MarshmallowPlugin, OpenAPIConverter
from marshmallow import Schema

import schemas
from api import import_schema
from app import __version__, create_app

FILE = ROOT / "static" / "openapi.json"
BASE_TEXT = pathlib.Path(__file__).with_name("base.json").read_text("utf-8")
BASE = json.loads(BASE_TEXT)
PARTS = ("descriptions", "events", "fields", "headers", "operations")
DESCRIPTIONS, EVENTS, FIELDS, HEADERS, OPERATIONS = map(BASE.pop, PARTS)
HEADERS_OF_ALL = {"X-Request-ID": {"required": True}, "Cache-Control": {"required": True}}
# What it refers to, and neither has itself nor makes of its events, is in `schemas`.
SCHEMAS = sorted(
    {*re.findall(r"#/components/schemas/(\w+)", BASE_TEXT)}
    - BASE["components"]["schemas"].keys()
    - {"Event"}
)
NAMES = vars(schemas) | vars(import_schema)
KINDS = NAMES | {
    type(each).__name__: type(each) for each in NAMES.values() if isinstance(each, Schema)
}
# What docs/api.md calls the arguments of the routes.
NAMES_IN_PATHS = {"session_id": "id", "turn_id": "turn"}
# What a Text takes. Many regular expression engines know no surrogates, and to those of JavaScript, other than to Python,
# U+001C to U+001F and U+0085 are no white space.
TEXT = r"^[^\u0000]*[^\s\u0000\u001c-\u001f\u0085][^\u0000]*$"


class Converter(OpenAPIConverter):
    """Describes schemas as apispec does, with what DESCRIPTIONS and FIELDS have of them, and of those they extend. What is null
    in FIELDS is left out."""

    def schema2jsonschema(self, schema):
        return {
            "description": DESCRIPTIONS[type(schema).__name__.removesuffix("Schema")]
        } | super().schema2jsonschema(schema)

    def field2property(self, field):
        described = super().field2property(field) | (
            {"pattern": TEXT} if isinstance(field, schemas.Text) else {}
        )
        described.pop(
            "readOnly", None
        )  # it is said of fields that are made by a function, as if others were not
        for kind in reversed(type(field.parent).__mro__):
            described |= FIELDS.get(kind.__name__.removesuffix("Schema"), {}).get(field.name, {})
        return {name: value for name, value in described.items() if value is not None}


def _describe_events():
    """A schema for each kind of event, with its data parsed, and one for them all."""
    schemas, mapping = {}, {}
    for event, described in EVENTS.items():
        name = event.title().replace("_", "") + "Event"
        mapping[event] = f"#/components/schemas/{name}"
        schemas[name] = {
            "description": described["description"],
            "type": "object",
            "properties": FIELDS["Event"]
            | {"event": {"type": "string", "const": event}, "data": described["data"]},
            "required": ["id", "event", "data"],
            "additionalProperties": False,
        }
    return schemas | {
        "Event": {
            "description": DESCRIPTIONS["Event"],
            "oneOf": [{"$ref": reference} for reference in mapping.values()],
            "discriminator": {"propertyName": "event", "mapping": mapping},
        }
    }


def _describe_headers(responses):
    """Say of each response what its headers are, and that it has those that all have."""
    for response in responses.values():
        if "$ref" not in response:
            headers = HEADERS_OF_ALL | response.get("headers", {})
            response["headers"] = {name: HEADERS[name] | header for name, header in headers.items()}


def _describe(rule, handler):
    """The Operation Object of a route. Raises KeyError where the route is not in OPERATIONS."""
    name = rule.endpoint.rpartition(".")[2]
    described = {"operationId": name, "parameters": []} | copy.deepcopy(OPERATIONS[name])
    _describe_headers(described["responses"])
    described["summary"] = inspect.getdoc(handler).removesuffix(".")
    in_path = sorted(NAMES_IN_PATHS[name] for name in rule.arguments)
    described["parameters"] = [*in_path, *described["parameters"], "X-Request-ID"]
    described["responses"] |= {str(status): str(status) for status in described.pop("errors")}
    return described


def document(app):
    """The document of this app."""
    plugin = MarshmallowPlugin()
    plugin.Converter = Converter
    base = copy.deepcopy(BASE)
    _describe_headers(base["components"]["responses"])
    base["components"]["schemas"] |= _describe_events()
    spec = APISpec("Parley", __version__, "3.1.1", [plugin], **base)
    for name in SCHEMAS:
        plugin.converter.resolve_nested_schema(KINDS[f"{name}Schema"])
    for rule in app.url_map.iter_rules():
        if rule.endpoint != "public.show_file":
            path = re.sub(
                r"<(?:\w+:)?(\w+)>", lambda found: f"{{{NAMES_IN_PATHS[found[1]]}}}", rule.rule
            )
            operation = _describe(rule, app.view_functions[rule.endpoint])
            methods = rule.methods - {"HEAD", "OPTIONS"}
            spec.path(path, operations={method.lower(): operation for method in methods})
    return spec.to_dict()


def text(app):
    """The document as it stands in the file, in lines: so a change of it can be read."""
    return json.dumps(document(app), ensure_ascii=False, indent=2) + "\n"


def main():
    with tempfile.TemporaryDirectory() as folder:
        app = create_app({"DATABASE_URL": f"sqlite:///{folder}/empty.db", "JWT_SECRET": "-" * 32})
        FILE.write_text(text(app), "utf-8")


if __name__ == "__main__":
    main()
