"""The OpenAPI document: made of the routes and their examples when it is first requested."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from feedrank.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    MalformedEventError,
    ModelUnavailableError,
    RequestError,
    RequestTooLargeError,
)
from feedrank.http.problems import PROBLEM_JSON
from feedrank.http.routes import ROUTES, Route
from feedrank.http.schemas import Problem
from feedrank.http.web import FastAPI, get_openapi

DESCRIPTION = (
    "Ranks the items of a feed for a user, by predicted engagement. "
    "Every response carries its request's id, and every error is an RFC 9457 problem."
)
LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
REFERENCE = "#/components/schemas/{model}"
FASTAPIS_ERRORS = ("HTTPValidationError", "ValidationError")  # schemas of its own 422, unused here
ADDED = "OfAddedRoute"
TAGS = [
    {"name": "ranking", "description": "What the service is for"},
    {"name": "model", "description": "What ranks"},
    {"name": "service", "description": "How it is doing, and where its docs are"},
]
# The credentials that API Gateway wants, by the setting API_AUTH. Without them the gateway itself
# responds, in its own form: 403 or 401 and {"message": ...}.
SECURITY_SCHEMES: dict[str, dict[str, Any]] = {
    "none": {},
    "iam": {
        "sigv4": {  # as API Gateway exports it: OpenAPI has no type for it
            "type": "apiKey",
            "name": "Authorization",
            "in": "header",
            "x-amazon-apigateway-authtype": "awsSigv4",
            "description": "AWS Signature Version 4, for the service `execute-api`",
        }
    },
    "jwt": {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "A token of the issuer that the API trusts",
        }
    },
}
# By operation and status (or `request`): a media type's `example` or `examples`.
EXAMPLES: dict[str, dict[str, dict[str, Any]]] = orjson.loads(
    Path(__file__).with_name("examples.json").read_bytes()
)
REQUEST_ID = EXAMPLES["predict"]["200"]["examples"]["known"]["value"]["request_id"]
HEADERS: dict[str, Any] = {
    "X-Request-Id": {
        "description": "The id under which the log has this request",
        "schema": {"type": "string"},
        "example": REQUEST_ID,
    },
    "Retry-After": {
        "description": "Seconds until a model is tried again",
        "schema": {"type": "integer", "minimum": 1},
        "example": 5,
    },
    "Allow": {
        "description": "The methods that the path has",
        "schema": {"type": "string"},
        "example": "POST",
    },
}


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *names)}


def _body(model: type[BaseModel], examples: Mapping[str, Any]) -> dict[str, Any]:
    return {"schema": {"$ref": REFERENCE.format(model=model.__name__)}, **examples}


def _problem(
    status: int, title: str, description: str, *headers: str, detail: str = ""
) -> dict[str, Any]:
    example = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail or title,
        "request_id": REQUEST_ID,
    }
    return {
        "description": description,
        "headers": _headers(*headers),
        "content": {PROBLEM_JSON: _body(Problem, {"example": example})},
    }


PROBLEMS: dict[int, dict[str, Any]] = {
    400: _problem(400, MalformedEventError.title, "API Gateway's event holds no request"),
    413: _problem(413, RequestTooLargeError.title, "The request body is over the size cap"),
    422: _problem(
        422,
        InvalidRequestError.title,
        "The request is not valid; `detail` names the fields",
        detail="item_ids.0: Input should be a valid integer",
    ),
    500: _problem(
        500, RequestError.title, "Something unforeseen; the log has it under the request id"
    ),
    503: _problem(
        503,
        ModelUnavailableError.title,
        "No model serves; `Retry-After` says when to ask again",
        "Retry-After",
    ),
    504: _problem(504, DeadlineExceededError.title, "The request ran out of its time budget"),
}
GENERAL_PROBLEMS: dict[str, dict[str, Any]] = {
    "BadRequest": PROBLEMS[400],
    "NotFound": _problem(404, "Not Found", "There is no such path"),
    "MethodNotAllowed": _problem(
        405, "Method Not Allowed", "The path has another method; `Allow` names it", "Allow"
    ),
}


def document(app: FastAPI, own: Sequence[Route], auth: str, max_items: int) -> dict[str, Any]:
    """FastAPI's own copies hold limits as floats, and 2^63 - 1 is none, and drop the nulls in
    examples: so what our routes take and return replaces them. Routes that somebody added stand as
    FastAPI describes them, except for their 422, which is a problem like ours."""
    routes = list(app.routes)
    if app.openapi_schema and app.state.described_routes == routes:
        return app.openapi_schema
    _, schemas = models_json_schema([(m, "validation") for m in _models()], ref_template=REFERENCE)
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=DESCRIPTION,
        license_info=LICENSE,
        routes=routes,
    )
    document = _renamed(document, schemas["$defs"].keys())
    components = document.setdefault("components", {})
    models = schemas["$defs"] | {"PredictRequest": _for_any_model(schemas["$defs"], max_items)}
    components["schemas"] = {**components.get("schemas", {}), **models}
    components |= {"headers": HEADERS, "responses": GENERAL_PROBLEMS}
    document["tags"] = TAGS
    if schemes := SECURITY_SCHEMES[auth]:
        components["securitySchemes"] = {**components.get("securitySchemes", {}), **schemes}
        document["security"] = [{name: []} for name in schemes]
    _complete(document["paths"], own)
    for name in FASTAPIS_ERRORS:
        components["schemas"].pop(name, None)
    app.openapi_schema, app.state.described_routes = document, routes
    return document


def _for_any_model(models: Mapping[str, Any], max_items: int) -> dict[str, Any]:
    """The request where no model tells which kind its ids are: either."""
    request = models["PredictRequest"]
    either = {"anyOf": models["Prediction"]["properties"]["item_id"]["anyOf"]}
    user, items = (request["properties"][name] for name in ("user_id", "item_ids"))
    texts = {name: user[name] for name in ("title", "description")}
    ids = {
        "user_id": {**texts, **either},
        "item_ids": {**items, "items": either, "maxItems": max_items},
    }
    return {**request, "properties": {**request["properties"], **ids}}


def _models() -> list[type[BaseModel]]:
    models: dict[type[BaseModel], None] = {Problem: None}
    for route in ROUTES:
        if operation := route.operation:
            models |= dict.fromkeys(body for body, _ in operation.responses.values())
            if operation.request:
                models[operation.request] = None
    return list(models)


def _complete(paths: dict[str, dict[str, dict[str, Any]]], own: Sequence[Route]) -> None:
    for operations in paths.values():
        for operation in operations.values():
            if FASTAPIS_ERRORS[0] in str(operation.get("responses", {}).get("422")):
                operation["responses"]["422"] = PROBLEMS[422]
    for route in own:
        if route.operation:
            paths[route.path][route.method.lower()] |= _described(route)


def _described(route: Route) -> dict[str, Any]:
    operation, examples = route.operation, EXAMPLES[route.endpoint.__name__]
    assert operation
    responses = {status: PROBLEMS[status] for status in operation.problems} | {
        status: {
            "description": description,
            "headers": _headers(),
            "content": {"application/json": _body(model, examples[str(status)])},
        }
        for status, (model, description) in operation.responses.items()
    }
    for media_type in operation.texts:
        text = {"schema": {"type": "string"}, **examples[media_type]}
        responses[200]["content"][media_type] = text
    described: dict[str, Any] = {
        "tags": [operation.tag],
        "responses": {str(status): responses[status] for status in sorted(responses)},
    }
    if operation.request:  # the endpoint reads its own body, so FastAPI sees none
        body = {"application/json": _body(operation.request, examples["request"])}
        described["requestBody"] = {"required": True, "content": body}
    if route.auth == "open":
        described["security"] = []
    return described


def _renamed(document: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Models of added routes that have the name of one of ours get another."""
    models = document.get("components", {}).get("schemas", {})
    same = models.keys() & names
    if not same:
        return document
    document["components"]["schemas"] = {
        f"{name}{ADDED}" if name in same else name: model for name, model in models.items()
    }
    text = orjson.dumps(document).decode()
    for name in same:
        text = text.replace(
            f'"{REFERENCE.format(model=name)}"', f'"{REFERENCE.format(model=name + ADDED)}"'
        )
    renamed: dict[str, Any] = orjson.loads(text)
    return renamed
