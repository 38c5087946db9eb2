"""The OpenAPI document: built when somebody asks for it, complete with examples and errors."""

from collections.abc import Collection, Mapping
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from feedrank.errors import (
    DeadlineExceededError,
    FeedrankError,
    InvalidRequestError,
    MalformedEventError,
    ModelUnavailableError,
    RequestTooLargeError,
)
from feedrank.http.schemas import (
    About,
    ContainerMetrics,
    Health,
    ModelCard,
    PredictRequest,
    PredictResponse,
    Probe,
    Problem,
)
from feedrank.http.web import FastAPI, get_openapi

DESCRIPTION = (
    "Ranks the items of a feed for a user, by predicted engagement. "
    "Every answer carries its request's id, and every error is an RFC 9457 problem."
)
LICENSE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
MODELS: list[type[BaseModel]] = [
    PredictRequest,
    PredictResponse,
    Health,
    Probe,
    ContainerMetrics,
    ModelCard,
    About,
    Problem,
]
REFERENCE = "#/components/schemas/{model}"
FASTAPIS_ERRORS = ("HTTPValidationError", "ValidationError")  # which nobody is answered
ADDED = "OfAddedRoute"
TAGS = [
    {"name": "ranking", "description": "What the service is for"},
    {"name": "model", "description": "What ranks"},
    {"name": "service", "description": "How it is doing, and where its docs are"},
]
# What API Gateway asks of a caller, by the setting API_AUTH. Without it the gateway itself answers,
# in its own form: 403 or 401 and {"message": ...}.
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
REQUEST_ID = "3f0c9a1e-6a52-4c0e-9a37-0d8a1f0f8c11"

PREDICT_EXAMPLES: dict[str, Any] = {
    "plain": {
        "summary": "Five items",
        "value": {"user_id": 42, "item_ids": [17, 256, 3, 1024, 88]},
    },
    "context": {
        "summary": "On a phone, at a given time",
        "value": {
            "user_id": 42,
            "item_ids": [17, 256, 3, 1024, 88],
            "context": {"device": "mobile", "timestamp": "2026-11-22T20:15:00Z"},
        },
    },
}
RANKED_EXAMPLE: dict[str, Any] = {
    "user_id": 42,
    "predictions": [
        {"item_id": 256, "score": 0.412077, "rank": 1},
        {"item_id": 17, "score": 0.190352, "rank": 2},
        {"item_id": 1024, "score": 0.145011, "rank": 3},
        {"item_id": 88, "score": 0.071846, "rank": 4},
        {"item_id": 3, "score": 0.032508, "rank": 5},
    ],
    "model_version": "feed_ranker-3",
    "model_digest": "9f2c4e7a1b3d",
    "latency_ms": 1.204,
    "timestamp": "2026-11-22T20:15:00.123Z",
    "request_id": REQUEST_ID,
    "degraded": [],
}
RANKED_EXAMPLES: dict[str, Any] = {
    "known": {"summary": "All known", "value": RANKED_EXAMPLE},
    "unknown": {
        "summary": "With an unknown item, ranked last",
        "value": {
            **RANKED_EXAMPLE,
            "predictions": [
                {"item_id": 256, "score": 0.412077, "rank": 1},
                {"item_id": 999999, "score": 0.47821304, "rank": 2},
            ],
            "unknown": {"user": False, "items": [999999]},
        },
    },
}
HEALTHY_EXAMPLE: dict[str, Any] = {
    "status": "healthy",
    "model_version": "feed_ranker-3",
    "model_digest": "9f2c4e7a1b3d",
    "trained_at": "2026-11-20T06:00:00Z",
    "snapshot_as_of": "2026-11-20T00:00:00Z",
    "published_at": "2026-11-21T08:30:00Z",
    "model_loaded_at": "2026-11-22T20:04:11.518220Z",
    "uptime_seconds": 649.107,
    "last_prediction_at": "2026-11-22T20:15:00.123Z",
}
UNHEALTHY_EXAMPLE: dict[str, Any] = {
    "status": "unhealthy",
    "model_version": None,
    "model_digest": None,
    "trained_at": None,
    "snapshot_as_of": None,
    "published_at": None,
    "model_loaded_at": None,
    "uptime_seconds": 3.412,
    "last_prediction_at": None,
}
METRICS_EXAMPLE: dict[str, Any] = {
    "scope": "container",
    "requests_total": 5120,
    "requests_per_second": 8.133,
    "latency_p50_ms": 1.198,
    "latency_p99_ms": 3.871,
    "error_rate": 0.000195,
    "predictions_total": 255950,
    "lines_lost": 0,
}
MODEL_EXAMPLE: dict[str, Any] = {
    "name": "feed_ranker",
    "version": "3",
    "network": "deep_mlp",
    "trained_at": "2026-11-20T06:00:00Z",
    "snapshot_as_of": "2026-11-20T00:00:00Z",
    "published_at": "2026-11-21T08:30:00Z",
    "batches": True,
    "run_id": "b8d1f0c2a9e44f6f8f5c1f6f0f3b7a52",
    "digest": "9f2c4e7a1b3d5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8",
    "engine": "onnx",
    "metrics": {"test/model/auc": 0.7431},
    "context": {
        "device": {"type": "text", "values": ["mobile", "desktop"]},
        "timestamp": {"type": "time"},
    },
    "feature_spec": {
        "inputs": [
            {
                "name": "dense",
                "per": "item",
                "features": [{"name": "age_days", "source": "item", "default": 30.0}],
            }
        ]
    },
    "built_with": {"torch": "2.13.0", "onnx": "1.23.2"},
}
ABOUT_EXAMPLE: dict[str, Any] = {"name": "feedrank", "version": "0.1.0", "docs": "/docs"}

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


def _body(model: type[BaseModel], **examples: object) -> dict[str, Any]:
    return {"schema": {"$ref": REFERENCE.format(model=model.__name__)}, **examples}


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *names)}


def _answer(model: type[BaseModel], description: str, **examples: object) -> dict[str, Any]:
    """With one `example` or several `examples`."""
    return {
        "description": description,
        "headers": _headers(),
        "content": {"application/json": _body(model, **examples)},
    }


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
        "content": {"application/problem+json": _body(Problem, example=example)},
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
        500, FeedrankError.title, "Something unforeseen; the log has it under the request id"
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


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: PROBLEMS[status] for status in statuses}


ROUTE_DOCS: dict[str, dict[str, Any]] = {
    "/predict": {
        "operation_id": "predict",
        "tags": ["ranking"],
        "summary": "Rank items for a user",
        "responses": {
            200: _answer(PredictResponse, "The items, best first", examples=RANKED_EXAMPLES),
            **_problems(413, 422, 500, 503, 504),
        },
        "openapi_extra": {  # the endpoint reads its own body, so FastAPI sees none
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"$ref": REFERENCE.format(model="PredictRequest")},
                        "examples": PREDICT_EXAMPLES,
                    }
                },
            }
        },
    },
    "/health": {
        "operation_id": "health",
        "tags": ["service"],
        "security": [],  # for health checks, which have no credentials
        "summary": "Does this container serve?",
        "responses": {
            200: _answer(Health, "A model serves, or its stand-in does", example=HEALTHY_EXAMPLE),
            **_problems(500),
            503: _answer(
                Health, "No model serves, or a model run hangs", example=UNHEALTHY_EXAMPLE
            ),
        },
    },
    "/live": {
        "operation_id": "live",
        "tags": ["service"],
        "security": [],
        "summary": "Can this process go on? A probe of a container",
        "responses": {
            200: _answer(Probe, "It can, with a model or without", example={"status": "ok"}),
            **_problems(500),
            503: _answer(Probe, "A model run hangs: start another", example={"status": "hung"}),
        },
    },
    "/ready": {
        "operation_id": "ready",
        "tags": ["service"],
        "security": [],
        "summary": "Can this process rank now? A probe of a container",
        "responses": {
            200: _answer(Probe, "A model serves, or its stand-in", example={"status": "ok"}),
            **_problems(500),
            503: _answer(
                Probe,
                "No model serves, or a model run hangs",
                example={"status": "unavailable"},
            ),
        },
    },
    "/metrics": {
        "operation_id": "metrics",
        "tags": ["service"],
        "summary": "What this container has served",
        "responses": {
            200: _answer(
                ContainerMetrics, "Counts since the container started", example=METRICS_EXAMPLE
            ),
            **_problems(500),
        },
    },
    "/model": {
        "operation_id": "model",
        "tags": ["model"],
        "summary": "The model that serves",
        "responses": {
            200: _answer(
                ModelCard,
                "Where it comes from, how good it is, what it reads",
                example=MODEL_EXAMPLE,
            ),
            **_problems(500, 503),
        },
    },
    "/": {
        "operation_id": "about",
        "tags": ["service"],
        "summary": "Name, version and where the docs are",
        "responses": {200: _answer(About, "The service", example=ABOUT_EXAMPLE), **_problems(500)},
    },
}


def openapi(app: FastAPI, auth: str) -> dict[str, Any]:
    """FastAPI's own copies hold limits as floats, and 2^63 - 1 is none, and drop the nulls in
    examples: so what our routes take and answer is put in as it is. Routes that somebody added
    stand as FastAPI describes them, but for their 422, which is a problem like ours."""
    routes = list(app.routes)
    if app.openapi_schema and app.state.described_routes == routes:
        return app.openapi_schema
    _, ours = models_json_schema([(m, "validation") for m in MODELS], ref_template=REFERENCE)
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=DESCRIPTION,
        license_info=LICENSE,
        routes=routes,
    )
    document = _renamed(document, ours["$defs"].keys())
    components = document.setdefault("components", {})
    components["schemas"] = {**components.get("schemas", {}), **ours["$defs"]}
    components |= {"headers": HEADERS, "responses": GENERAL_PROBLEMS}
    document["tags"] = TAGS
    if schemes := SECURITY_SCHEMES[auth]:
        components["securitySchemes"] = {**components.get("securitySchemes", {}), **schemes}
        document["security"] = [{name: []} for name in schemes]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _complete(operation, ROUTE_DOCS.get(path, {}))
    for name in FASTAPIS_ERRORS:
        components["schemas"].pop(name, None)
    app.openapi_schema, app.state.described_routes = document, routes
    return document


def with_context(
    document: dict[str, Any], keys: Mapping[str, Any], *, closed: bool
) -> dict[str, Any]:
    """The document with the context keys of the model that serves."""
    components = document["components"]
    request = components["schemas"]["PredictRequest"]
    context = {**request["properties"]["context"], "properties": dict(keys)}
    if closed:
        context["additionalProperties"] = False
    request = {**request, "properties": {**request["properties"], "context": context}}
    schemas = {**components["schemas"], "PredictRequest": request}
    return {**document, "components": {**components, "schemas": schemas}}


def _complete(operation: dict[str, Any], docs: dict[str, Any]) -> None:
    responses = operation.get("responses", {})
    refused = FASTAPIS_ERRORS[0] in str(responses.get("422"))
    if operation.get("operationId") == docs.get("operation_id", ""):
        operation["responses"] = {str(code): each for code, each in docs["responses"].items()}
        operation |= docs.get("openapi_extra", {})
        operation |= {name: docs[name] for name in ("tags", "security") if name in docs}
    if refused:
        operation["responses"]["422"] = PROBLEMS[422]


def _renamed(document: dict[str, Any], taken: Collection[str]) -> dict[str, Any]:
    """Models of added routes that are called like one of ours get another name."""
    models = document.get("components", {}).get("schemas", {})
    same = models.keys() & taken
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
