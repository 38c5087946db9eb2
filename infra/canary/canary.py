"""CodeDeploy's hook before a new version gets traffic: the version answers the golden requests.

A bundle brings requests with the scores that torch gave for them. The new version, called by its
own ARN and as the API would call it, must serve that very bundle, undegraded, and give the same
scores. Whatever goes wrong is reported as a failure: for a hook that is silent, CodeDeploy would
wait an hour.
"""

import hashlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

TOLERANCE = 1e-5
OK = 200
REQUEST_ID = "feedrank-canary"  # in the gateway's place: so its decision records can be left out
GOLDEN = "serving/golden.json"
MANIFEST = "serving/manifest.json"

log = logging.getLogger()
log.setLevel(logging.INFO)


class CanaryError(Exception):
    """The new version must not get traffic; the text says why."""


def handler(event: dict[str, str], _context: object) -> None:
    """Lambda's entry point, for CodeDeploy's event."""
    try:
        cases = judge(os.environ["VERSION_ARN"], os.environ["MODEL_URI"], os.environ["BASE_PATH"])
    except Exception:
        log.exception("the new version is refused")
        status = "Failed"
    else:
        log.info("the new version gives the golden scores, in %d requests", cases)
        status = "Succeeded"
    boto3.client("codedeploy").put_lifecycle_event_hook_execution_status(
        deploymentId=event["DeploymentId"],
        lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"],
        status=status,
    )


def judge(version_arn: str, model_uri: str, base_path: str) -> int:
    """How many golden requests it answered right. Raises CanaryError for one that it did not."""
    manifest, golden = read(model_uri, MANIFEST), read(model_uri, GOLDEN)
    listed = json.loads(manifest)
    if hashlib.sha256(golden).hexdigest() != listed["files"][GOLDEN]["sha256"]:
        raise CanaryError(f"{GOLDEN} is not the file that the manifest lists")
    cases = json.loads(golden)["cases"]
    drops = listed["feature_spec"].get("unknown_items") == "drop"
    function = Function(version_arn, base_path)
    card = function.ask("GET", "/model")
    digest = hashlib.sha256(manifest).hexdigest()
    if card["digest"] != digest:
        raise CanaryError(f"it serves the bundle {card['digest']}, not {digest}")
    compared = [
        compare(case, function.ask("POST", "/predict", request_for(case)), drops=drops)
        for case in cases
    ]
    if not any(compared):
        raise CanaryError("it ranks no item of the golden requests")
    return len(cases)


def request_for(case: dict[str, Any]) -> dict[str, Any]:
    moment = datetime.fromtimestamp(case["time_s"], UTC).isoformat()
    context = case["context"] | {"timestamp": moment}
    return {"user_id": case["user_id"], "item_ids": case["item_ids"], "context": context}


def compare(case: dict[str, Any], answer: dict[str, Any], *, drops: bool) -> int:
    """How many scores were right: by item, because unknown ones and nearly equal scores may stand
    elsewhere. A bundle that `drops` unknown items answers without them. Raises CanaryError."""
    if answer["degraded"]:
        raise CanaryError(f"it is degraded: {', '.join(answer['degraded'])}")
    given = _by_item((p["item_id"], p["score"]) for p in answer["predictions"])
    expected = _by_item(zip(case["item_ids"], case["scores"], strict=True))
    if drops:
        for item in answer.get("unknown", {}).get("items", ()):
            expected.pop(item, None)
    if {item: len(scores) for item, scores in given.items()} != {
        item: len(scores) for item, scores in expected.items()
    }:
        raise CanaryError(f"it ranks other items than the {len(case['item_ids'])} asked for")
    apart = [
        abs(one - other)
        for item, scores in expected.items()
        for one, other in zip(scores, given[item], strict=True)
    ]
    if not all(difference <= TOLERANCE for difference in apart):  # NaN is not
        raise CanaryError(f"its scores are {max(apart):.1e} from the golden ones")
    return len(apart)


class Function:
    """A version of the function, called with the event that the HTTP API would send."""

    def __init__(self, arn: str, base_path: str) -> None:
        self._arn = arn
        self._base_path = base_path
        # The first answer waits for an init. Seven times twice 14 s is within this hook's time.
        config = Config(connect_timeout=2, read_timeout=12, retries={"total_max_attempts": 2})
        self._lambda = boto3.client("lambda", config=config)

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The JSON of its answer. Raises CanaryError for any other than 200."""
        event = self._event(method, path, json.dumps(body) if body else None)
        answer = self._lambda.invoke(FunctionName=self._arn, Payload=json.dumps(event).encode())
        payload = answer["Payload"].read()
        if answer.get("FunctionError"):
            raise CanaryError(f"{method} {path} fails: {payload.decode(errors='replace')}")
        response = json.loads(payload)
        if response["statusCode"] != OK:
            raise CanaryError(f"{method} {path} answers {response['statusCode']}")
        result: dict[str, Any] = json.loads(response["body"])
        return result

    def _event(self, method: str, path: str, body: str | None) -> dict[str, Any]:
        raw_path = f"{self._base_path}{path}"
        return {
            "version": "2.0",
            "routeKey": f"{method} {path}",
            "rawPath": raw_path,
            "rawQueryString": "",
            "headers": {"content-type": "application/json", "host": "canary"},
            "requestContext": {
                "http": {
                    "method": method,
                    "path": raw_path,
                    "protocol": "HTTP/1.1",
                    "sourceIp": "127.0.0.1",
                },
                "requestId": REQUEST_ID,
                "stage": "$default",
            },
            "body": body,
            "isBase64Encoded": False,
        }


def read(model_uri: str, name: str) -> bytes:
    """A file of the bundle, on S3 or in the model layer."""
    if not model_uri.startswith("s3://"):
        return (Path(model_uri) / name).read_bytes()
    bucket, _, prefix = model_uri.removeprefix("s3://").partition("/")
    answer = boto3.client("s3").get_object(Bucket=bucket, Key=f"{prefix.rstrip('/')}/{name}")
    content: bytes = answer["Body"].read()
    return content


def _by_item(scored: Iterator[tuple[int, float]]) -> dict[int, list[float]]:
    scores: dict[int, list[float]] = defaultdict(list)
    for item, score in scored:
        scores[item].append(score)
    return {item: sorted(listed) for item, listed in scores.items()}
