"""The description of the API: an OpenAPI 3.1 document.

The routes give the paths, the methods and the operations' names; the docstrings of their handlers give summaries (the
first line) and descriptions (the rest); the schemas give the bodies. `openapi.base.json` says what none of these does, in
the words of OpenAPI; an operation's parameters stand there by their names, and a response's headers only say whether they
are `required`. This module puts it all together.
"""

import copy
import inspect
import json
import pathlib
import re

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin, OpenAPIConverter

import schemas

BASE_TEXT = pathlib.Path(__file__).with_name("openapi.base.json").read_text("utf-8")
BASE = json.loads(BASE_TEXT)
FIELDS, HEADERS, OPERATIONS, WAYS_TO_RECEIVE = map(BASE.pop, ("fields", "headers", "operations", "ways_to_receive"))
# What it refers to and does not have itself is in `schemas`.
SCHEMAS = sorted({*re.findall(r"#/components/schemas/(\w+)", BASE_TEXT)} - BASE["components"]["schemas"].keys())


class Converter(OpenAPIConverter):
    """Describes schemas as apispec does, with their docstrings, and with what FIELDS has of them and of those they extend."""

    def schema2jsonschema(self, schema):
        return {"description": inspect.getdoc(schema)} | super().schema2jsonschema(schema)

    def field2property(self, field):
        described = super().field2property(field)
        for kind in reversed(type(field.parent).__mro__):
            described |= FIELDS.get(kind.__name__.removesuffix("Schema"), {}).get(field.name, {})
        return described


def _describe_headers(responses):
    """Say of each response what its headers are, and that it has the one that all have."""
    for response in responses.values():
        if "$ref" not in response:
            headers = {"X-Request-ID": {"required": True}} | response.get("headers", {})
            response["headers"] = {name: HEADERS[name] | header for name, header in headers.items()}


def _describe(rule, handler):
    """The Operation Object of a route. Raises KeyError where the route is not in OPERATIONS."""
    blueprint, _, name = rule.endpoint.rpartition(".")
    described = {"operationId": name, "parameters": []} | copy.deepcopy(OPERATIONS[name])
    _describe_headers(described["responses"])
    summary, _, text = inspect.getdoc(handler).partition("\n")
    errors = {404, 406} if rule.arguments else {406}
    if blueprint == "public":
        described["security"] = []
    else:
        errors |= {401, 403, 503}
    if "requestBody" in described:
        errors |= {400, 413, 415}
    if "Idempotency-Key" in described["parameters"]:  # it requests a reply from a model
        errors |= {404, 409, 422, 429, 502, 504}
        text = f"{text.strip()}\n\n{WAYS_TO_RECEIVE}"
    described["summary"] = summary.removesuffix(".")
    if text:
        described["description"] = text.strip()
    described["parameters"] = [*sorted(rule.arguments), *described["parameters"], "X-Request-ID"]
    described["responses"] |= {str(status): str(status) for status in sorted(errors)}
    return described


def document(app, version):
    """The document of this app."""
    plugin = MarshmallowPlugin()
    plugin.Converter = Converter
    base = copy.deepcopy(BASE)
    _describe_headers(base["components"]["responses"])
    spec = APISpec("Parley", version, "3.1.1", [plugin], **base)
    for name in SCHEMAS:
        plugin.converter.resolve_nested_schema(getattr(schemas, f"{name}Schema"))
    for rule in app.url_map.iter_rules():
        if rule.endpoint != "static":
            path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
            operation = _describe(rule, app.view_functions[rule.endpoint])
            methods = rule.methods - {"HEAD", "OPTIONS"}
            spec.path(path, operations={method.lower(): operation for method in methods})
    return spec.to_dict()
