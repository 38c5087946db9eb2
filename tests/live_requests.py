"""A request to the handler with live features, and the scores in its response."""

import json
from pathlib import Path
from typing import Any

import fakes


def ranked(bundle: Path, body: Any, **env: str) -> Any:
    """With more time than a store may take on a busy machine."""
    event = fakes.http_event("POST", "/predict", body)
    settings = {"MODEL_URI": str(bundle), "FEATURES_TIMEOUT_MS": "60000", **env}
    settings |= {"REQUEST_TIMEOUT_MS": "120000", "AWS_LAMBDA_FUNCTION_NAME": "feedrank"}
    with fakes.container(**settings) as handler:
        response = handler.lambda_handler(event, fakes.LambdaContext(240_000))
    assert response["statusCode"] == 200, response
    return json.loads(response["body"])


def scores(response: Any) -> dict[int, float]:
    return {each["item_id"]: each["score"] for each in response["predictions"]}
