"""Each role may do exactly what its code does, down to the key of an object, and nothing else.

Reads from S3 are made by the code itself, from moto with IAM enabled; other calls are intercepted
and evaluated (iam.py). What an AWS service does with a role is taken from its manual.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from moto.core import set_initial_no_auth_action_count

import fakes
from feedrank.bundle.layout import (
    DIGEST_SIDECAR,
    GOLDEN,
    MANIFEST,
    ONNX_MODEL,
    SNAPSHOT,
    TORCH_MODEL,
)
from feedrank.bundle.s3_source import S3Source
from feedrank.bundle.sources import Copies
from feedrank.decisions.record_ids import user_hash
from feedrank.decisions.sinks import DecisionRecord
from feedrank.decisions.sinks.firehose import FirehoseStream
from feedrank.errors import BundleError, SettingsError
from feedrank.features.dynamodb import DynamoTable
from feedrank.features.feast import FeastTables
from feedrank.features.spec_reader import parse_spec
from feedrank.settings import MIN_KEY_LENGTH
from scripted import Answer, Scripted, Sent, scripted
from stack.hook import load_canary
from stack.iam import (
    ACCOUNT,
    BUNDLES,
    CANARY_ARN,
    DECISIONS,
    ID,
    RECORD_ID_KEY_ARN,
    REGION,
    VERSION_ARN,
    allowed,
    become,
    policies,
)
from stack.transform import resolved, template, transformed

OWN, FOREIGN = BUNDLES, "models-of-another-team"
DIGEST, EARLIER = "ab" * 32, "cd" * 32
PREFIXES = {OWN: "bundles/feed_ranker", FOREIGN: "rankers/eu/feed.ranker v2"}
NAMES = [MANIFEST, DIGEST_SIDECAR, ONNX_MODEL, TORCH_MODEL, SNAPSHOT, GOLDEN]
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
HOOK_EVENT = {"DeploymentId": "d-1", "LifecycleEventHookExecutionId": "e-1"}
# CloudFormation generates its name, in which it truncates a long stack name.
APPLICATION = "feedrank-dev-ServerlessDeploymentApplication-1AB2CD3EF4GH"
TABLE = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{{TableName}}"
# The action and resource of each call that the code makes:
# https://docs.aws.amazon.com/service-authorization/latest/reference/
ACTIONS = {
    "Invoke": ("lambda:InvokeFunction", "{FunctionName}"),
    "PutRecord": (
        "firehose:PutRecord",
        f"arn:aws:firehose:{REGION}:{ACCOUNT}:deliverystream/{{DeliveryStreamName}}",
    ),
    "GetItem": ("dynamodb:GetItem", TABLE),
    "BatchGetItem": ("dynamodb:BatchGetItem", TABLE),
    "GetSecretValue": ("secretsmanager:GetSecretValue", "{SecretId}"),
    "PutLifecycleEventHookExecutionStatus": (
        "codedeploy:PutLifecycleEventHookExecutionStatus",
        (
            f"arn:aws:codedeploy:{REGION}:{ACCOUNT}:deploymentgroup:{APPLICATION}/"
            "feedrank-dev-FunctionDeploymentGroup-5IJ6KL7MN8OP"
        ),
    ),
}


def _uri(bucket: str, digest: str = DIGEST, end: str = "") -> str:
    return f"s3://{bucket}/{PREFIXES[bucket]}/sha256-{digest}{end}"


# ---- S3: the code's own reads, with IAM enabled --------------------------------------------------


@pytest.fixture
def account(aws_server: str) -> None:
    """Two buckets with two bundles each, and other objects."""
    boto3.setup_default_session()
    s3 = boto3.client("s3")
    for bucket, prefix in PREFIXES.items():
        s3.create_bucket(Bucket=bucket)
        for digest in (DIGEST, EARLIER):
            for name in NAMES:
                s3.put_object(Bucket=bucket, Key=f"{prefix}/sha256-{digest}/{name}", Body=b"{}")
        s3.put_object(Bucket=bucket, Key=f"{prefix}/notes.txt", Body=b"{}")
        s3.put_object(Bucket=bucket, Key="payroll.csv", Body=b"{}")
    s3.close()


@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize("bucket", [OWN, FOREIGN])
@pytest.mark.usefixtures("account")
def test_the_canary_reads_its_golden_requests_and_nothing_else(
    bucket: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = load_canary()
    uri = _uri(bucket, end=end)
    become(policies("infra/delivery.yaml", "CanaryRole", **_names(ModelUri=uri)), monkeypatch)
    read: list[bytes] = set_initial_no_auth_action_count(0)(
        lambda: [canary.read(uri, name) for name in (canary.MANIFEST, canary.GOLDEN)]
    )()
    assert read == [b"{}", b"{}"]
    for outside in (
        (_uri(bucket, EARLIER), canary.MANIFEST),
        (f"s3://{bucket}/{PREFIXES[bucket]}", "notes.txt"),
        (_uri(FOREIGN if bucket == OWN else OWN), canary.MANIFEST),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            set_initial_no_auth_action_count(0)(canary.read)(*outside)


@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize("bucket", [OWN, FOREIGN])
@pytest.mark.usefixtures("account")
def test_the_function_reads_its_bundle_and_earlier_ones_of_that_model(
    bucket: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions, with earlier bundles, start while traffic shifts and after a roll-back."""
    uri = _uri(bucket, end=end)
    become(policies("template.yaml", "FunctionRole", ModelUri=uri), monkeypatch)
    for bundle in (uri, _uri(bucket, EARLIER, end), _uri(OWN)):
        for name in NAMES:
            assert _fetched(bundle, name, tmp_path) == b"{}"
    outside = [(f"s3://{bucket}", "payroll.csv"), (f"s3://{FOREIGN}/rankers", "eu/notes.txt")]
    for place, name in outside:
        with pytest.raises(BundleError, match="AccessDenied"):
            _fetched(place, name, tmp_path)


@pytest.mark.usefixtures("account")
def test_a_wrong_key_is_refused_so_signatures_are_checked_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(policies("template.yaml", "FunctionRole", ModelUri=_uri(OWN)), monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(BundleError, match=r"SignatureDoesNotMatch .*: the secret key is wrong"):
        _fetched(_uri(OWN), MANIFEST, tmp_path)


def _fetched(uri: str, name: str, cache_dir: Path) -> bytes:
    source = S3Source(uri, Copies(cache_dir, math.inf))
    return bytes(set_initial_no_auth_action_count(0)(source.fetch)(name, 100).data)


def test_a_function_with_its_model_in_the_layer_reads_only_the_stacks_own_bundles() -> None:
    documents = policies("template.yaml", "FunctionRole")
    earlier = f"arn:aws:s3:::{OWN}/{PREFIXES[OWN]}/sha256-{DIGEST}/{MANIFEST}"
    assert allowed(documents, "s3:GetObject", earlier)
    assert not allowed(documents, "s3:GetObject", earlier.replace(OWN, FOREIGN))
    assert not allowed(documents, "s3:PutObject", earlier)


@pytest.mark.parametrize(
    ("path", "role"),
    [("template.yaml", "FunctionRole"), ("infra/delivery.yaml", "CanaryRole")],
)
def test_an_encrypted_bundle_is_decrypted_only_through_s3(path: str, role: str) -> None:
    parameters = {"ModelUri": _uri(FOREIGN, end="/")}
    documents = policies(path, role, BundleKeyArn=KEY, **parameters)
    by_s3 = {"kms_ViaService": f"s3.{REGION}.amazonaws.com"}
    assert allowed(documents, "kms:Decrypt", KEY, **by_s3)
    assert not allowed(documents, "kms:Decrypt", KEY)
    assert not allowed(documents, "kms:Decrypt", KEY.replace("1234abcd", "ffffffff"), **by_s3)
    assert not allowed(documents, "kms:GenerateDataKey", KEY, **by_s3)
    assert not allowed(policies(path, role, **parameters), "kms:Decrypt", KEY, **by_s3)


# ---- The other calls of the code -----------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture
def calls(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Action and resource of each call that the code makes; none is executed."""
    intercepted: list[tuple[str, str]] = []

    def call(
        _client: BaseClient | None, operation: str, parameters: dict[str, Any]
    ) -> dict[str, Any]:
        action, resource = ACTIONS[operation]
        for table in parameters.get("RequestItems", ()):
            parameters["TableName"] = table
        intercepted.append((action, resource.format_map(parameters)))
        return {"Payload": None}

    def respond(sent: Sent) -> Answer:
        call(None, sent.headers["x-amz-target"].rpartition(".")[2], json.loads(sent.body))
        return Answer()

    server.respond = respond
    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    for service in ("DYNAMODB", "FIREHOSE", "SECRETS_MANAGER"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", server.url)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    return intercepted


def test_the_canary_invokes_only_the_new_version_and_reports_its_own_deployment(
    calls: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = load_canary()
    golden = b'{"cases": []}'
    files = {canary.GOLDEN: {"sha256": hashlib.sha256(golden).hexdigest()}}
    (tmp_path / "serving").mkdir()
    (tmp_path / canary.GOLDEN).write_bytes(golden)
    (tmp_path / canary.MANIFEST).write_text(json.dumps({"files": files, "feature_spec": {}}))
    for name, value in {
        "VERSION_ARN": VERSION_ARN,
        "MODEL_URI": str(tmp_path),
        "BASE_PATH": "",
        "ID_TYPE": "number",
        "LIVE_FEATURES": "none",
    }.items():
        monkeypatch.setenv(name, value)
    canary.handler(HOOK_EVENT, None)
    documents = policies("infra/delivery.yaml", "CanaryRole", **_names())
    assert [action for action, _ in calls] == [
        "lambda:InvokeFunction",
        "codedeploy:PutLifecycleEventHookExecutionStatus",
    ]
    for action, resource in calls:
        assert allowed(documents, action, resource)
        assert not allowed(documents, action, resource.replace("feedrank-dev", "feedrank-prod"))
    for another in (VERSION_ARN.removesuffix(":7"), VERSION_ARN.replace(":7", ":8")):
        assert not allowed(documents, "lambda:InvokeFunction", another)


def test_the_function_sends_decisions_to_its_own_stream(calls: list[tuple[str, str]]) -> None:
    stream = FirehoseStream(f"feedrank-{ID}-decisions-direct")
    stream.write(DecisionRecord(b"{}\n", "2026-11-22", math.inf))
    ((action, resource),) = calls
    direct = policies("template.yaml", "FunctionRole", DecisionDelivery="direct")
    assert allowed(direct, action, resource)
    assert not allowed(direct, action, resource.replace("-direct", "-logs"))
    assert not allowed(policies("template.yaml", "FunctionRole"), action, resource)


@pytest.mark.parametrize("name", ["", "rows-of-another-stack"])
def test_the_function_reads_rows_of_one_table(name: str, calls: list[tuple[str, str]]) -> None:
    """Its own, or the one that it is given."""
    given = {"FeaturesTable": name}
    stack = resolved(transformed(LiveFeatures="all", **given), LiveFeatures="all", **given)
    uri = stack["Resources"]["Function"]["Properties"]["Environment"]["Variables"]["FEATURES_URI"]
    table = DynamoTable(uri.removeprefix("dynamodb://"))
    assert table.read_user(1, math.inf) is None
    table.read_items([1], math.inf, {})
    assert [action for action, _ in calls] == ["dynamodb:GetItem", "dynamodb:BatchGetItem"]
    for action, resource in calls:
        for live in ("users", "all"):
            documents = policies("template.yaml", "FunctionRole", LiveFeatures=live, **given)
            assert allowed(documents, action, resource)
            assert not allowed(documents, action, f"{resource}-of-others")
            assert not allowed(documents, "dynamodb:PutItem", resource)
        for live in ("none", "table"):
            documents = policies("template.yaml", "FunctionRole", LiveFeatures=live, **given)
            assert not allowed(documents, action, resource)


def test_the_function_reads_the_views_of_one_feast_project(calls: list[tuple[str, str]]) -> None:
    given = {"FeaturesTable": "shop", "FeatureStore": "feast"}
    stack = resolved(transformed(LiveFeatures="all", **given), LiveFeatures="all", **given)
    uri = stack["Resources"]["Function"]["Properties"]["Environment"]["Variables"]["FEATURES_URI"]
    assert uri == "feast://shop"
    repository = {"views": {"items": {"join_key": "item_id"}}, "features": {"a": "items:a"}}
    feature = {"name": "a", "source": "item"}
    spec = parse_spec({"inputs": [{"name": "x", "features": [feature]}], "feast": repository})
    FeastTables(uri.removeprefix("feast://"), spec, reads_items=True).read_items([1], math.inf, {})
    ((action, resource),) = calls
    assert (action, resource.rpartition("/")[2]) == ("dynamodb:BatchGetItem", "shop.items")
    for live in ("users", "all"):
        documents = policies("template.yaml", "FunctionRole", LiveFeatures=live, **given)
        assert allowed(documents, action, resource)
        assert not allowed(documents, action, resource.replace("shop.", "shop-of-others."))
        assert not allowed(documents, "dynamodb:PutItem", resource)
    assert not allowed(policies("template.yaml", "FunctionRole", **given), action, resource)


def test_the_function_reads_only_the_key_that_ids_are_hashed_with(
    calls: list[tuple[str, str]],
) -> None:
    """The secret uses Secrets Manager's own KMS key, which every reader of the secret may use."""
    settings = fakes.settings(RECORD_IDS="hashed", RECORD_ID_KEY_SECRET=RECORD_ID_KEY_ARN)
    with pytest.raises(SettingsError):  # calls get no response here
        user_hash(settings)
    ((action, resource),) = calls
    documents = policies("template.yaml", "FunctionRole", RecordIds="hashed")
    assert allowed(documents, action, resource)
    assert not allowed(documents, action, resource.replace("-AbCdEf", "-AbCdEg"))
    assert not allowed(documents, "secretsmanager:PutSecretValue", resource)
    assert not allowed(policies("template.yaml", "FunctionRole"), action, resource)


def test_the_key_is_a_long_string_that_the_stack_retains() -> None:
    parameters = {"RecordIds": "hashed"}
    stack = resolved(transformed("infra/data.yaml", **parameters), **parameters)
    secret = stack["Resources"]["RecordIdKey"]
    generated = secret["Properties"]["GenerateSecretString"]
    assert generated["PasswordLength"] >= 2 * MIN_KEY_LENGTH
    assert secret["DeletionPolicy"] == secret["UpdateReplacePolicy"] == "Retain"


# ---- What AWS's services do with a role ----------------------------------------------------------

LOG = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group"
STREAM = f"arn:aws:firehose:{REGION}:{ACCOUNT}:deliverystream"
FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function"


@pytest.mark.parametrize(
    ("path", "role", "group"),
    [
        ("template.yaml", "FunctionRole", "/aws/lambda/feedrank-dev"),
        ("infra/delivery.yaml", "CanaryRole", f"/aws/lambda/CodeDeployHook_feedrank-{ID}"),
    ],
)
def test_lambda_writes_to_the_functions_own_log_group(path: str, role: str, group: str) -> None:
    documents = policies(path, role, **(_names() if role == "CanaryRole" else {}))
    for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
        stream = f"{LOG}:{group}:log-stream:2026/11/25/[7]0123456789abcdef"
        assert allowed(documents, action, stream)
        assert not allowed(documents, action, stream.replace(group, f"{group}-other"))
    assert not allowed(documents, "logs:CreateLogGroup", f"{LOG}:{group}:*")


def test_codedeploy_moves_the_alias_invokes_the_hook_and_reads_the_alarms() -> None:
    """As AWSCodeDeployRoleForLambdaLimited, restricted to one function."""
    documents = policies("infra/delivery.yaml", "DeploymentRole", **_names())
    for action in ("GetAlias", "UpdateAlias", "GetProvisionedConcurrencyConfig"):
        for resource in ("feedrank-dev", "feedrank-dev:live"):
            assert allowed(documents, f"lambda:{action}", f"{FUNCTION}:{resource}")
        assert not allowed(documents, f"lambda:{action}", f"{FUNCTION}:feedrank-dev-two:live")
    assert allowed(documents, "lambda:InvokeFunction", CANARY_ARN)
    assert not allowed(documents, "lambda:InvokeFunction", VERSION_ARN)
    alarms = f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:*"
    assert allowed(documents, "cloudwatch:DescribeAlarms", alarms)


@pytest.mark.parametrize("mode", ["logs", "direct"])
def test_firehose_may_do_what_its_manual_requires(mode: str) -> None:
    """https://docs.aws.amazon.com/firehose/latest/dev/controlling-access.html#using-iam-s3"""
    documents = policies(
        "infra/data.yaml", "DeliveryRole", DecisionDelivery=mode, Name="feedrank-dev"
    )
    bucket = f"arn:aws:s3:::{DECISIONS}"
    for action in ("GetBucketLocation", "ListBucket", "ListBucketMultipartUploads"):
        assert allowed(documents, f"s3:{action}", bucket)
    for key in (
        "decisions/day=2026-11-25/model=feed_ranker-4/a.jsonl.gz",
        "errors/metadata-extraction-failed/2026-11-25/a",
    ):
        for action in ("AbortMultipartUpload", "GetObject", "PutObject"):
            assert allowed(documents, f"s3:{action}", f"{bucket}/{key}")
    assert not allowed(documents, "s3:PutObject", f"{bucket}/athena-results/a")
    assert not allowed(documents, "s3:DeleteObject", f"{bucket}/decisions/a")
    for stream in ("logs", "direct"):
        group = f"{LOG}:/aws/kinesisfirehose/feedrank-dev-decisions"
        assert allowed(documents, "logs:PutLogEvents", f"{group}:log-stream:{stream}")


def test_cloudwatch_logs_forwards_to_one_stream() -> None:
    documents = policies("infra/data.yaml", "SubscriptionRole", Name="feedrank-dev", Id=ID)
    for action in ("PutRecord", "PutRecordBatch"):
        assert allowed(documents, f"firehose:{action}", f"{STREAM}/feedrank-{ID}-decisions-logs")
        assert not allowed(documents, f"firehose:{action}", f"{STREAM}/other")


def test_no_uri_can_widen_a_policy() -> None:
    pattern = re.compile(template()["Parameters"]["ModelUri"]["AllowedPattern"])
    assert all(pattern.fullmatch(_uri(bucket, end=end)) for bucket in PREFIXES for end in ("", "/"))
    for trick in ("*", "?", "${aws:username}", "a/*"):
        assert not pattern.fullmatch(f"s3://b/{trick}/sha256-{DIGEST}/")


def _names(**more: str) -> dict[str, str]:
    """The parameters that the parent stack passes to the canary's stack."""
    return {
        "Name": "feedrank-dev",
        "Id": ID,
        "VersionArn": VERSION_ARN,
        "DeploymentApplication": APPLICATION,
        **more,
    }
