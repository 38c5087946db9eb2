"""The OpenAPI document is valid, complete, and its examples are what it says they are."""

import json
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from openapi_schema_validator import OAS31Validator, oas31_format_checker
from openapi_spec_validator import validate

from feedrank import errors
from feedrank.decisions.log import DecisionLog
from feedrank.domain import MAX_ID
from feedrank.http.app import create_app
from feedrank.http.openapi import EXAMPLES, GENERAL_PROBLEMS, PROBLEMS
from feedrank.http.routes import ROUTES
from feedrank.http.schemas import PredictRequest
from feedrank.model.load import Model
from feedrank.model.slot import ModelSlot
from feedrank.ranking.pipeline import Ranker
from feedrank.ranking.scorer import InlineScorer
from feedrank.settings import Settings
from feedrank.telemetry.container import ContainerStats


def no_model() -> Model:
    raise errors.ModelUnavailableError("none is needed")


def app(**env: str) -> FastAPI:
    settings = Settings.from_environment({"MODEL_URI": "unused", **env})
    slot = ModelSlot(no_model, fallback=None, retry_s=1.0)
    return create_app(
        settings, slot, Ranker(slot, InlineScorer(), DecisionLog([])), ContainerStats()
    )


APP = app()
DOCUMENT: dict[str, Any] = APP.openapi()
OPERATIONS = {
    (method.upper(), path): operation
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}
RESPONSES = [
    (f"{method} {path} {status}", int(status), response)
    for (method, path), operation in OPERATIONS.items()
    for status, response in operation["responses"].items()
] + [
    (name, response["content"]["application/problem+json"]["example"]["status"], response)
    for name, response in DOCUMENT["components"]["responses"].items()
]
each_response = pytest.mark.parametrize(
    ("status", "response"),
    [(status, response) for _, status, response in RESPONSES],
    ids=[name for name, _, _ in RESPONSES],
)


def breaches(schema: dict[str, Any], example: object) -> list[str]:
    """The document's components ride along, so that `#/components/...` leads somewhere."""
    validator = OAS31Validator(
        {**schema, "components": DOCUMENT["components"]}, format_checker=oas31_format_checker
    )
    return [error.message for error in validator.iter_errors(example)]


def test_the_document_is_valid_openapi() -> None:
    validate(DOCUMENT)


def test_every_declared_route_is_served_and_no_other() -> None:
    routes = [route for route in APP.routes if isinstance(route, APIRoute)]
    served = {(method, route.path) for route in routes for method in route.methods or ()}
    assert served == {(route.method, route.path) for route in ROUTES}
    assert len(APP.routes) == len(routes) == len(ROUTES)


def test_every_route_is_in_it_but_for_the_docs_own() -> None:
    assert set(OPERATIONS) == {(r.method, r.path) for r in ROUTES if r.auth != "docs"}


def test_every_example_is_shown() -> None:
    document = json.dumps(DOCUMENT)
    assert EXAMPLES.keys() == {operation["operationId"] for operation in OPERATIONS.values()}
    for by_place in EXAMPLES.values():
        for examples in by_place.values():
            assert json.dumps(examples)[1:-1] in document


def test_it_has_what_the_docs_page_draws_and_no_more() -> None:
    keys = {
        "operationId",
        "summary",
        "description",
        "requestBody",
        "responses",
        "tags",
        "security",
    }
    assert {key for operation in OPERATIONS.values() for key in operation} <= keys


def test_operations_have_short_ids() -> None:
    ids = {operation["operationId"] for operation in OPERATIONS.values()}
    assert ids == {"predict", "health", "live", "ready", "metrics", "model", "about"}


def test_every_error_that_the_service_knows_is_documented() -> None:
    known = [e for e in vars(errors).values() if isinstance(e, type) and hasattr(e, "status")]
    assert {error.status for error in known} == set(PROBLEMS)


def test_what_any_path_can_answer_is_documented_apart() -> None:
    assert {status for name, status, _ in RESPONSES if name in GENERAL_PROBLEMS} == {400, 404, 405}


@each_response
def test_every_response_has_an_example_that_fits_its_schema(
    status: int, response: dict[str, Any]
) -> None:
    for media in response["content"].values():
        examples = [each["value"] for each in media.get("examples", {}).values()]
        for example in examples or [media["example"]]:
            assert breaches(media["schema"], example) == []


@each_response
def test_an_errors_example_names_its_own_status(status: int, response: dict[str, Any]) -> None:
    problem = response["content"].get("application/problem+json")
    assert problem is None or problem["example"]["status"] == status


@each_response
def test_every_response_says_that_it_carries_the_request_id(
    status: int, response: dict[str, Any]
) -> None:
    assert response["headers"]["X-Request-Id"] == {"$ref": "#/components/headers/X-Request-Id"}


def test_a_problem_503_says_when_to_ask_again() -> None:
    headers = DOCUMENT["paths"]["/predict"]["post"]["responses"]["503"]["headers"]
    assert set(headers) == {"X-Request-Id", "Retry-After"}


@pytest.mark.parametrize("name", ["plain", "context"])
def test_the_requests_examples_are_requests(name: str) -> None:
    body = DOCUMENT["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    example = body["examples"][name]["value"]
    assert breaches(body["schema"], example) == []
    PredictRequest.model_validate(example)


def test_without_a_model_ids_are_of_either_kind_and_as_many_as_the_setting_allows() -> None:
    document = app(MAX_ITEMS="250").openapi()
    validate(document)
    schema = document["components"]["schemas"]["PredictRequest"]
    assert schema["properties"]["item_ids"]["maxItems"] == 250
    for ids in ([1, 2**63 - 1], ["item-1", "1"]):
        request = {"user_id": ids[0], "item_ids": ids}
        assert breaches(schema, request) == []
    for wrong in (-1, 2**63, "", "x" * 129, None):
        assert breaches(schema, {"user_id": wrong, "item_ids": [1]})
        assert breaches(schema, {"user_id": 1, "item_ids": [wrong]})


def test_limits_are_exact_integers() -> None:
    item_id = DOCUMENT["components"]["schemas"]["Prediction"]["properties"]["item_id"]
    assert item_id["anyOf"][0] == {"type": "integer", "minimum": 0, "maximum": MAX_ID}


def test_nulls_in_examples_stay() -> None:
    responses = DOCUMENT["paths"]["/health"]["get"]["responses"]
    assert responses["503"]["content"]["application/json"]["example"]["model_version"] is None


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ("none", None),
        ("iam", {"type": "apiKey", "in": "header", "name": "Authorization",
                 "x-amazon-apigateway-authtype": "awsSigv4"}),
        ("jwt", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}),
    ],
)  # fmt: skip
def test_it_says_how_callers_are_known(auth: str, expected: dict[str, Any] | None) -> None:
    document = app(API_AUTH=auth).openapi()
    validate(document)
    schemes = document["components"].get("securitySchemes", {})
    security = [
        {key: value for key, value in scheme.items() if key != "description"}
        for scheme in schemes.values()
    ]
    assert security == ([expected] if expected else [])
    assert document.get("security", []) == [{name: []} for name in schemes]
    opened = {
        path
        for path, each in document["paths"].items()
        if each.get("get", {}).get("security") == []
    }
    assert opened == {"/health", "/live", "/ready"}


def test_every_operation_has_a_tag_that_is_explained() -> None:
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    assert {tag for operation in OPERATIONS.values() for tag in operation["tags"]} == tags
