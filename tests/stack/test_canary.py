"""What the hook reports to CodeDeploy for a version that is right, wrong, slow or missing."""

import hashlib
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
from botocore.exceptions import ReadTimeoutError
from moto import mock_aws

from stack.hook import load_canary

VERSION = "arn:aws:lambda:eu-west-1:123456789012:function:feedrank-dev:7"
EVENT = {"DeploymentId": "d-1", "LifecycleEventHookExecutionId": "e-1"}
CASES = [
    {
        "user_id": 7,
        "item_ids": [3, 5, 3],
        "context": {"device": "mobile"},
        "time_s": 1_767_571_200.0,
        "scores": [0.25, 0.5, 0.25],
    },
    {"user_id": 8, "item_ids": [9], "context": {}, "time_s": 1_767_591_000.0, "scores": [0.125]},
]
GOLDEN = json.dumps({"cases": CASES}).encode()


def _manifest(**spec: object) -> bytes:
    files = {"serving/golden.json": {"sha256": hashlib.sha256(GOLDEN).hexdigest()}}
    return json.dumps({"name": "feed_ranker", "feature_spec": spec, "files": files}).encode()


MANIFEST, DROPPING = _manifest(), _manifest(unknown_items="drop")
Respond = Callable[[dict[str, Any]], dict[str, Any]]


class NewVersion:
    """Fakes of Lambda and CodeDeploy, with a version that responds as configured."""

    def __init__(self, digest: str, predict: Respond) -> None:
        self.events: list[dict[str, Any]] = []
        self.arns: set[str] = set()
        self.statuses: list[dict[str, str]] = []
        self._digest = digest
        self._predict = predict

    def client(self, _service: str, **_options: object) -> "NewVersion":
        return self

    def invoke(self, FunctionName: str, Payload: bytes) -> dict[str, Any]:
        event = json.loads(Payload)
        self.arns.add(FunctionName)
        self.events.append(event)
        if event["rawPath"].endswith("/model"):
            return _payload({"statusCode": 200, "body": json.dumps({"digest": self._digest})})
        return self._predict(json.loads(event["body"]))

    def put_lifecycle_event_hook_execution_status(self, **status: str) -> None:
        self.statuses.append(status)


def _payload(response: object, **more: str) -> dict[str, Any]:
    return {"Payload": io.BytesIO(json.dumps(response).encode()), **more}


def _ranked(request: dict[str, Any], *, off: float = 0.0, degraded: tuple[str, ...] = ()) -> Any:
    """The right response, with `off` added to each score."""
    (case,) = (case for case in CASES if case["user_id"] == request["user_id"])
    scored = zip(case["item_ids"], case["scores"], strict=True)  # type: ignore[call-overload]
    ranking = sorted(scored, key=lambda pair: -pair[1])
    predictions = [
        {"item_id": item, "score": score + off, "rank": rank}
        for rank, (item, score) in enumerate(ranking, 1)
    ]
    body = json.dumps({"predictions": predictions, "degraded": degraded})
    return _payload({"statusCode": 200, "body": body})


def _without(
    *unknown: int, named: tuple[int, ...] | None = None
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The right response without the `unknown` items, which it lists as left out."""

    def respond(request: dict[str, Any]) -> Any:
        body = json.loads(json.loads(_ranked(request)["Payload"].read())["body"])
        body["predictions"] = [p for p in body["predictions"] if p["item_id"] not in unknown]
        listed = list(unknown if named is None else named)
        body["unknown"] = {"user": False, "items": [i for i in listed if i in request["item_ids"]]}
        return _payload({"statusCode": 200, "body": json.dumps(body)})

    return respond


def _times_out(_request: dict[str, Any]) -> Any:
    raise ReadTimeoutError(endpoint_url="https://lambda.eu-west-1.amazonaws.com")


@pytest.fixture
def canary() -> ModuleType:
    return load_canary()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "manifest.json").write_bytes(MANIFEST)
    (tmp_path / "serving" / "golden.json").write_bytes(GOLDEN)
    return tmp_path


@pytest.fixture
def run_hook(
    canary: ModuleType, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., NewVersion]:
    """Runs the hook against a version, and returns the calls that it and CodeDeploy received."""

    def run(
        predict: Respond,
        digest: str = "",
        base_path: str = "",
        id_type: str = "number",
        live: str = "none",
    ) -> NewVersion:
        version = NewVersion(digest or hashlib.sha256(MANIFEST).hexdigest(), predict)
        monkeypatch.setattr(canary.boto3, "client", version.client)
        for name, value in {
            "VERSION_ARN": VERSION,
            "MODEL_URI": str(bundle),
            "BASE_PATH": base_path,
            "ID_TYPE": id_type,
            "LIVE_FEATURES": live,
        }.items():
            monkeypatch.setenv(name, value)
        canary.handler(EVENT, None)
        return version

    return run


def _status(version: NewVersion) -> str:
    (status,) = version.statuses
    assert status["deploymentId"] == "d-1"
    assert status["lifecycleEventHookExecutionId"] == "e-1"
    return status["status"]


def test_golden_scores_let_the_version_pass(run_hook: Callable[..., NewVersion]) -> None:
    version = run_hook(_ranked)
    assert _status(version) == "Succeeded"
    assert version.arns == {VERSION}
    assert [json.loads(event["body"]) for event in version.events[1:]] == [
        {
            "user_id": 7,
            "item_ids": [3, 5, 3],
            "context": {"device": "mobile", "timestamp": "2026-01-05T00:00:00+00:00"},
        },
        {"user_id": 8, "item_ids": [9], "context": {"timestamp": "2026-01-05T05:30:00+00:00"}},
    ]


@pytest.mark.parametrize(("ids", "id_type"), [("number", "text"), ("text", "number")])
def test_a_bundle_whose_ids_the_tables_do_not_fit_fails_before_any_request(
    run_hook: Callable[..., NewVersion], bundle: Path, ids: str, id_type: str
) -> None:
    manifest = _manifest(ids=ids)
    (bundle / "serving" / "manifest.json").write_bytes(manifest)
    version = run_hook(_ranked, hashlib.sha256(manifest).hexdigest(), id_type=id_type)
    assert (_status(version), version.events) == ("Failed", [])


def test_text_ids_and_what_a_caller_knows_of_an_item_are_sent(
    run_hook: Callable[..., NewVersion], bundle: Path
) -> None:
    case = {
        "user_id": "zoë", "item_ids": ["b", "a"], "context": {}, "time_s": 0.0,
        "scores": [-300.0, 20.0], "features": {"retrieval_score": [0.5, 1]},
    }  # fmt: skip
    golden = json.dumps({"cases": [case]}).encode()
    files = {"serving/golden.json": {"sha256": hashlib.sha256(golden).hexdigest()}}
    manifest = json.dumps({"feature_spec": {"ids": "text"}, "files": files}).encode()
    (bundle / "serving" / "golden.json").write_bytes(golden)
    (bundle / "serving" / "manifest.json").write_bytes(manifest)

    def respond(request: dict[str, Any]) -> Any:
        assert request == {
            "user_id": "zoë", "item_ids": ["b", "a"],
            "context": {"timestamp": "1970-01-01T00:00:00+00:00"},
            "features": {"retrieval_score": [0.5, 1]},
        }  # fmt: skip
        scored = [("a", 20.0), ("b", -300.001)]  # 3e-6 of it apart
        body = {"predictions": [{"item_id": i, "score": s} for i, s in scored], "degraded": []}
        return _payload({"statusCode": 200, "body": json.dumps(body)})

    version = run_hook(respond, hashlib.sha256(manifest).hexdigest(), id_type="text")
    assert _status(version) == "Succeeded"


def test_its_requests_have_an_id_that_no_caller_can_set(
    run_hook: Callable[..., NewVersion],
) -> None:
    for event in run_hook(_ranked).events:
        assert event["requestContext"]["requestId"] == "feedrank-canary"


def test_a_version_with_a_base_path_is_called_there(run_hook: Callable[..., NewVersion]) -> None:
    version = run_hook(_ranked, base_path="/v1")
    assert [event["rawPath"] for event in version.events] == [
        "/v1/model",
        "/v1/predict",
        "/v1/predict",
    ]


@pytest.mark.parametrize("off", [0.0, 9e-6, -9e-6])
def test_scores_within_the_tolerance_pass(off: float, run_hook: Callable[..., NewVersion]) -> None:
    assert _status(run_hook(lambda request: _ranked(request, off=off))) == "Succeeded"


@pytest.mark.parametrize("off", [2e-5, -0.1, float("nan")])
def test_wrong_scores_fail(off: float, run_hook: Callable[..., NewVersion]) -> None:
    assert _status(run_hook(lambda request: _ranked(request, off=off))) == "Failed"


def test_one_score_that_is_no_number_fails(run_hook: Callable[..., NewVersion]) -> None:
    """Beside correct scores: in Python, max(0, NaN) is 0."""

    def respond(request: dict[str, Any]) -> Any:
        body = json.loads(json.loads(_ranked(request)["Payload"].read())["body"])
        body["predictions"][-1]["score"] = float("nan")
        return _payload({"statusCode": 200, "body": json.dumps(body)})

    assert _status(run_hook(respond)) == "Failed"


def test_unknown_items_may_be_left_out_by_a_bundle_that_drops_them(
    run_hook: Callable[..., NewVersion], bundle: Path
) -> None:
    assert _status(run_hook(_without(5))) == "Failed"
    (bundle / "serving" / "manifest.json").write_bytes(DROPPING)
    digest = hashlib.sha256(DROPPING).hexdigest()
    assert _status(run_hook(_without(5), digest)) == "Succeeded"
    assert _status(run_hook(_without(5, 9), digest)) == "Succeeded"
    assert _status(run_hook(_without(5, named=()), digest)) == "Failed"  # missing, but not listed
    assert _status(run_hook(_without(named=(5,)), digest)) == "Failed"  # listed, but present
    assert _status(run_hook(_without(3, 5, 9), digest)) == "Failed"  # nothing was compared


def test_an_unknown_item_may_be_last(run_hook: Callable[..., NewVersion]) -> None:
    def respond(request: dict[str, Any]) -> Any:
        body = json.loads(json.loads(_ranked(request)["Payload"].read())["body"])
        body["predictions"].sort(key=lambda prediction: prediction["item_id"] == 5)
        body["unknown"] = {"user": False, "items": [5]}
        return _payload({"statusCode": 200, "body": json.dumps(body)})

    assert _status(run_hook(respond)) == "Succeeded"


def test_other_items_fail(run_hook: Callable[..., NewVersion]) -> None:
    fewer = json.dumps({"predictions": [{"item_id": 3, "score": 0.25}], "degraded": []})
    assert _status(run_hook(lambda _: _payload({"statusCode": 200, "body": fewer}))) == "Failed"


def test_another_bundle_fails_before_any_ranking_is_requested(
    run_hook: Callable[..., NewVersion],
) -> None:
    version = run_hook(_ranked, digest="0" * 64)
    assert (_status(version), len(version.events)) == ("Failed", 1)


def test_a_version_that_serves_its_fallback_fails(run_hook: Callable[..., NewVersion]) -> None:
    version = run_hook(lambda request: _ranked(request, degraded=("model:layer",)))
    assert _status(version) == "Failed"


@pytest.mark.parametrize("status", [403, 422, 500, 503, 504])
def test_any_other_status_fails(status: int, run_hook: Callable[..., NewVersion]) -> None:
    assert _status(run_hook(lambda _: _payload({"statusCode": status, "body": "{}"}))) == "Failed"


def test_a_version_that_crashes_fails(run_hook: Callable[..., NewVersion]) -> None:
    crash = {"errorType": "Runtime.ImportModuleError"}
    assert _status(run_hook(lambda _: _payload(crash, FunctionError="Unhandled"))) == "Failed"


def test_an_unreachable_version_fails(run_hook: Callable[..., NewVersion]) -> None:
    assert _status(run_hook(_times_out)) == "Failed"


def test_a_malformed_response_fails(run_hook: Callable[..., NewVersion]) -> None:
    assert _status(run_hook(lambda _: _payload("what?"))) == "Failed"


def test_a_missing_bundle_fails(run_hook: Callable[..., NewVersion], bundle: Path) -> None:
    (bundle / "serving" / "golden.json").unlink()
    assert _status(run_hook(_ranked)) == "Failed"


def test_golden_requests_that_the_manifest_does_not_list_fail(
    run_hook: Callable[..., NewVersion], bundle: Path
) -> None:
    (bundle / "serving" / "golden.json").write_bytes(GOLDEN + b" ")
    assert _status(run_hook(_ranked)) == "Failed"


def test_the_golden_requests_are_read_from_s3(
    canary: ModuleType, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="bundles")
        s3.upload_file(str(bundle / canary.MANIFEST), "bundles", "m/sha256-1/serving/manifest.json")
        assert canary.read("s3://bundles/m/sha256-1/", canary.MANIFEST) == MANIFEST
        assert canary.read("s3://bundles/m/sha256-1", canary.MANIFEST) == MANIFEST


@pytest.mark.parametrize("off", [0.0, 2e-14])
def test_scores_of_any_range_may_be_off_by_what_their_case_says(
    canary: ModuleType, off: float
) -> None:
    """Items 3 and 5 have scores of 1e-9."""
    case = {"item_ids": [3, 5, 3], "scores": [1e-9, 3e-9, 2e-9], "allowed": [1e-14] * 3}
    right = zip(case["item_ids"], case["scores"], strict=True)
    predictions = [{"item_id": item, "score": score + off} for item, score in right]
    if not off:
        assert canary.compare(case, {"predictions": predictions, "degraded": []}, drops=False) == 3
        return
    with pytest.raises(canary.CanaryError, match="differ from the golden ones by up to 2"):
        canary.compare(case, {"predictions": predictions, "degraded": []}, drops=False)


# ---- Live features -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("live", "status"),
    [("none", "Failed"), ("table", "Failed"), ("users", "Succeeded"), ("all", "Succeeded")],
)
def test_live_features_may_give_other_scores(
    run_hook: Callable[..., NewVersion], live: str, status: str
) -> None:
    other = partial(_ranked, off=0.01, degraded=("features:snapshot 1/4",))
    assert _status(run_hook(other, live=live)) == status


def test_a_version_with_live_features_ranks_every_item(
    run_hook: Callable[..., NewVersion],
) -> None:
    assert _status(run_hook(_without(3, named=()), live="all")) == "Failed"
