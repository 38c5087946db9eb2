"""The OpenAPI document: built when somebody asks for it, complete with examples and errors."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from feedrank.schemas import (
    About,
    ContainerMetrics,
    Health,
    ModelCard,
    PredictRequest,
    PredictResponse,
    Problem,
)

DESCRIPTION = "Ranks the items of a feed for a user, by predicted engagement."
REFERENCE = "#/components/schemas/{model}"
PROBLEMS = {
    413: "The request body is over the size cap",
    422: "The request is not valid; `detail` names the fields",
    500: "Something unforeseen; the log has it under the request id",
    503: "No model serves; `Retry-After` says when to ask again",
    504: "The request ran out of its time budget",
}
PREDICT_EXAMPLES: dict[str, Any] = {
    "plain": {
        "summary": "Rank five items",
        "value": {"user_id": 42, "item_ids": [17, 256, 3, 1024, 88]},
    },
    "context": {
        "summary": "Rank for a phone, at a given time",
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
    ],
    "model_version": "feed_ranker-3",
    "latency_ms": 1.204,
    "timestamp": "2026-11-22T20:15:00.123Z",
    "request_id": "3f0c9a1e-6a52-4c0e-9a37-0d8a1f0f8c11",
    "degraded": [],
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {
            "description": PROBLEMS[status],
            "content": {
                "application/problem+json": {"schema": {"$ref": REFERENCE.format(model="Problem")}}
            },
        }
        for status in statuses
    }


ROUTE_DOCS: dict[str, dict[str, Any]] = {
    "/predict": {
        "summary": "Rank items for a user",
        "responses": {
            200: {
                "model": PredictResponse,
                "content": {"application/json": {"example": RANKED_EXAMPLE}},
            },
            **_problems(413, 422, 500, 503, 504),
        },
    },
    "/health": {
        "summary": "Does this container serve?",
        "responses": {
            200: {"model": Health},
            503: {"model": Health, "description": "No model serves"},
        },
    },
    "/metrics": {
        "summary": "What this container has served",
        "responses": {200: {"model": ContainerMetrics}},
    },
    "/model": {
        "summary": "The model that serves",
        "responses": {200: {"model": ModelCard}, **_problems(503)},
    },
    "/": {"summary": "Name, version and where the docs are", "responses": {200: {"model": About}}},
}


def openapi(app: FastAPI) -> dict[str, Any]:
    """Built once. `/predict` reads its own body, so its schema is put in here."""
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=DESCRIPTION,
        routes=app.routes,
        servers=[{"url": app.root_path}] if app.root_path else None,
    )
    document["components"]["schemas"]["PredictRequest"] = PredictRequest.model_json_schema()
    document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
    document["paths"]["/predict"]["post"]["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": REFERENCE.format(model="PredictRequest")},
                "examples": PREDICT_EXAMPLES,
            }
        },
    }
    app.openapi_schema = document
    return document
