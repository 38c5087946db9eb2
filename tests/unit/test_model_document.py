"""The OpenAPI document of a model: what it reads and gives, and examples that it ranks."""

from pathlib import Path
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator, oas31_format_checker
from openapi_spec_validator import validate
from starlette.testclient import TestClient

import clients
import fakes
import fullspec
from feedrank.model.load import Model


@pytest.fixture(params=["numbers", "everything", "three items"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> TestClient:
    if request.param == "numbers":
        return clients.client(fakes.model(context={"device": ["tv"]}))
    most = "3" if request.param == "three items" else "1000"
    return clients.client(fullspec.model(tmp_path), MAX_ITEMS=most)


@pytest.fixture
def full(tmp_path: Path) -> Model:
    return fullspec.model(tmp_path)


def document_of(client: TestClient) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json()
    validate(document)
    return document


def request_examples(document: dict[str, Any]) -> dict[str, Any]:
    media = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    return {name: example["value"] for name, example in media["examples"].items()}


def breaches(document: dict[str, Any], schema: str, value: object) -> list[str]:
    validator = OAS31Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": document["components"]},
        format_checker=oas31_format_checker,
    )
    return [error.message for error in validator.iter_errors(value)]


def test_every_example_is_ranked_as_the_document_says(client: TestClient) -> None:
    document = document_of(client)
    for example in request_examples(document).values():
        assert breaches(document, "PredictRequest", example) == []
        response = client.post("/predict", json=example)
        assert response.status_code == 200, response.text
        assert breaches(document, "PredictResponse", response.json()) == []


def test_every_example_of_a_response_is_one(client: TestClient) -> None:
    document = document_of(client)
    response = document["paths"]["/predict"]["post"]["responses"]["200"]
    for example in response["content"]["application/json"]["examples"].values():
        assert breaches(document, "PredictResponse", example["value"]) == []


def test_the_examples_show_what_this_model_reads(full: Model) -> None:
    document = document_of(clients.client(full))
    examples = request_examples(document)
    assert examples["plain"] == {
        "user_id": "user-123",
        "item_ids": ["item-1001", "item-1002", "item-1003", "item-1004", "item-1005"],
    }
    assert examples["context"]["context"].keys() == {"recent", "device", "timestamp"}
    assert examples["features"]["features"] == {
        "retrieval_score": [0.5] * 5,
        "clip": [[0.5, 0.5]] * 5,
    }
    assert examples["explain"]["explain"] is True
    of_numbers = document_of(clients.client(fakes.model()))
    assert request_examples(of_numbers).keys() == {"plain", "context"}


@pytest.mark.parametrize(
    "changes",
    [
        {"user_id": 1},
        {"user_id": ""},
        {"user_id": "x" * 129},
        {"item_ids": [1]},
        {"item_ids": ["i"] * 101},
        {"features": {"unknown": [1]}},
        {"features": {"clip": [1]}},
        {"features": {"retrieval_score": ["1"]}},
        {"features": {"retrieval_score": [1e39]}},
        {"context": {"unknown": "x"}},
        {"context": {"device": 5}},
        {"explain": 1},
    ],
)
def test_the_document_refuses_what_the_service_refuses(
    full: Model, changes: dict[str, Any]
) -> None:
    client = clients.client(full)
    request = {"user_id": "ann", "item_ids": ["i"]} | changes
    assert breaches(document_of(client), "PredictRequest", request) != []
    assert client.post("/predict", json=request).status_code == 422


def test_what_a_model_gives_is_described(full: Model) -> None:
    schemas = document_of(clients.client(full))["components"]["schemas"]
    prediction = schemas["Prediction"]["properties"]
    assert prediction["outputs"]["properties"].keys() == {"click", "like"}
    assert "maximum" not in prediction["score"]
    assert prediction["item_id"]["type"] == "string"
    assert schemas["Unknown"]["properties"]["items"]["items"]["type"] == "string"
    probable = document_of(clients.client(fakes.model()))["components"]["schemas"]["Prediction"]
    score = probable["properties"]["score"]
    assert (score["minimum"], score["maximum"]) == (0, 1)
    assert "outputs" not in probable["properties"]


def test_the_document_of_one_model_leaves_no_trace_in_the_next(full: Model) -> None:
    client = clients.client(None)
    before = document_of(client)
    document_of(clients.client(full))
    assert document_of(client) == before


def test_a_context_that_is_not_checked_may_have_other_keys(full: Model) -> None:
    document = document_of(clients.client(full, CONTEXT_CHECK="warn"))
    request = {"user_id": "ann", "item_ids": ["i"], "context": {"other": "x"}}
    assert breaches(document, "PredictRequest", request) == []
