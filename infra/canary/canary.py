"""CodeDeploy's hook before a new version gets traffic: sends it the golden requests.

A bundle contains requests with the scores that torch computed for them. The new version, invoked
by its own ARN with the events of the API, must serve that same bundle, undegraded, and return the
same scores. Every error is reported as a failure, because CodeDeploy would wait an hour for a hook
that reports nothing.
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
REQUEST_ID = "feedrank-canary"  # marks the decision records, so that analyses can skip them
GOLDEN = "serving/golden.json"
MANIFEST = "serving/manifest.json"

log = logging.getLogger()
log.setLevel(logging.INFO)


class CanaryError(Exception):
    """The reason why the new version must not get traffic."""


def handler(event: dict[str, str], _context: object) -> None:
    """Lambda's entry point, for CodeDeploy's event."""
    try:
        cases = judge(
            os.environ["VERSION_ARN"],
            os.environ["MODEL_URI"],
            os.environ["BASE_PATH"],
            os.environ["ID_TYPE"],
            is_live=os.environ["LIVE_FEATURES"] in {"users", "all"},
        )
    except Exception:
        log.exception("the new version is refused")
        status = "Failed"
    else:
        log.info("the new version returns the golden scores, %d requests", cases)
        status = "Succeeded"
    boto3.client("codedeploy").put_lifecycle_event_hook_execution_status(
        deploymentId=event["DeploymentId"],
        lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"],
        status=status,
    )


def judge(
    version_arn: str, model_uri: str, base_path: str, id_type: str, *, is_live: bool = False
) -> int:
    """The number of golden requests, all with the right scores. Raises CanaryError otherwise.

    Where features are live their scores are not those of the bundle's snapshot: then each item has
    to have one. The version's init has compared the model with the golden scores.
    """
    manifest, golden = read(model_uri, MANIFEST), read(model_uri, GOLDEN)
    contents = json.loads(manifest)
    if hashlib.sha256(golden).hexdigest() != contents["files"][GOLDEN]["sha256"]:
        raise CanaryError(f"{GOLDEN} has another SHA-256 than in the manifest")
    cases = json.loads(golden)["cases"]
    drops = contents["feature_spec"].get("unknown_items") == "drop"
    ids = contents["feature_spec"].get("ids", "number")
    if ids != id_type:
        raise CanaryError(
            f"the bundle's ids are {ids}s, and the tables of decisions are for {id_type}s: deploy "
            f"with IdType={ids}"
        )
    version = FunctionVersion(version_arn, base_path)
    card = version.request("GET", "/model")
    digest = hashlib.sha256(manifest).hexdigest()
    if card["digest"] != digest:
        raise CanaryError(f"it serves the bundle {card['digest']}, not {digest}")
    scores = [
        compare(
            case,
            version.request("POST", "/predict", request_for(case)),
            drops=drops,
            is_live=is_live,
        )
        for case in cases
    ]
    if not any(scores):
        raise CanaryError("it ranks no item of the golden requests")
    return len(cases)


def request_for(case: dict[str, Any]) -> dict[str, Any]:
    moment = datetime.fromtimestamp(case["time_s"], UTC).isoformat()
    context = case["context"] | {"timestamp": moment}
    request = {"user_id": case["user_id"], "item_ids": case["item_ids"], "context": context}
    features = case.get("features")
    return {**request, "features": features} if features else request


def compare(
    case: dict[str, Any], response: dict[str, Any], *, drops: bool, is_live: bool = False
) -> int:
    """The number of scores, all right. Raises CanaryError.

    Compares by item, because unknown items and nearly equal scores may have other ranks. A bundle
    that `drops` unknown items returns no score for them.
    """
    degraded = [
        why for why in response["degraded"] if not (is_live and why.startswith("features:"))
    ]
    if degraded:
        raise CanaryError(f"it is degraded: {', '.join(degraded)}")
    actual = _by_item((p["item_id"], p["score"]) for p in response["predictions"])
    # Of scores without a range the case says what each may be off; others are in [0, 1].
    allowed = case.get("allowed") or [TOLERANCE * max(1.0, abs(score)) for score in case["scores"]]
    bounds = zip(case["scores"], allowed, strict=True)
    expected = _by_item(zip(case["item_ids"], bounds, strict=True))
    if drops:
        for item in response.get("unknown", {}).get("items", ()):
            expected.pop(item, None)
    if {item: len(scores) for item, scores in actual.items()} != {
        item: len(scores) for item, scores in expected.items()
    }:
        raise CanaryError(f"it ranks other items than the {len(case['item_ids'])} in the request")
    if is_live:
        return len(response["predictions"])
    differences = [
        (abs(score - other), most)
        for item, scores in expected.items()
        for (score, most), other in zip(scores, actual[item], strict=True)
    ]
    if not all(apart <= most for apart, most in differences):  # also false for NaN
        apart, _ = max(differences)
        raise CanaryError(f"its scores differ from the golden ones by up to {apart:.1e}")
    return len(differences)


class FunctionVersion:
    """A version of the function, invoked with the events that the HTTP API would send."""

    def __init__(self, arn: str, base_path: str) -> None:
        self._arn = arn
        self._base_path = base_path
        # The first response waits for an init. 7 requests x 2 attempts x 14 s < the hook's timeout.
        config = Config(connect_timeout=2, read_timeout=12, retries={"total_max_attempts": 2})
        self._lambda = boto3.client("lambda", config=config)

    def request(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The JSON body of the response. Raises CanaryError for any status but 200."""
        event = self._event(method, path, json.dumps(body) if body else None)
        invocation = self._lambda.invoke(FunctionName=self._arn, Payload=json.dumps(event).encode())
        payload = invocation["Payload"].read()
        if invocation.get("FunctionError"):
            raise CanaryError(f"{method} {path} fails: {payload.decode(errors='replace')}")
        response = json.loads(payload)
        if response["statusCode"] != OK:
            raise CanaryError(f"{method} {path} responds with status {response['statusCode']}")
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
    """A file of the bundle, in S3 or in the model layer."""
    if not model_uri.startswith("s3://"):
        return (Path(model_uri) / name).read_bytes()
    bucket, _, prefix = model_uri.removeprefix("s3://").partition("/")
    s3_object = boto3.client("s3").get_object(Bucket=bucket, Key=f"{prefix.rstrip('/')}/{name}")
    content: bytes = s3_object["Body"].read()
    return content


def _by_item(scored: Iterator[tuple[int | str, Any]]) -> dict[int | str, list[Any]]:
    scores: dict[int | str, list[Any]] = defaultdict(list)
    for item, score in scored:
        scores[item].append(score)
    return {item: sorted(values) for item, values in scores.items()}
