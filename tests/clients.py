"""Clients of the app around a fake model, and what all its errors have in common."""

from typing import Any

from httpx2 import Response
from starlette.testclient import TestClient

import fakes
from feedrank.http.schemas import Problem
from feedrank.model.load import Model

REQUEST: dict[str, Any] = {"user_id": 1, "item_ids": [10, 30, 20]}
TITLES = {
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Request body is too large",
    422: "Request is not valid",
    500: "Internal server error",
    503: "No model is available",
    504: "Request ran out of time",
}
LARGEST_PROBLEM_BYTES = 1_024


def client(loaded: Model | None, **env: str) -> TestClient:
    return TestClient(fakes.app(loaded, **env), raise_server_exceptions=False)


def problem(response: Response, status: int) -> dict[str, Any]:
    """The body of an error response, once what all of them have in common is checked."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert len(response.content) <= LARGEST_PROBLEM_BYTES
    body: dict[str, Any] = response.json()
    Problem.model_validate(body, strict=True)
    assert body.keys() == Problem.model_fields.keys()
    assert (body["type"], body["title"], body["status"]) == ("about:blank", TITLES[status], status)
    assert body["request_id"] == response.headers["x-request-id"]
    return body
