"""infra/pipeline/webhook.yaml: what MLflow itself sends starts one build, and nothing else does."""

import base64
import json
import logging
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any

import boto3
import pytest
import requests
from mlflow.entities.webhook import Webhook, WebhookEvent
from mlflow.webhooks import delivery
from requests.adapters import BaseAdapter
from typer.testing import CliRunner

from feedops.cli.main import app
from stack.iam import ACCOUNT, REGION, allowed
from stack.transform import PROJECT, resolved, template, transformed

PATH = "infra/pipeline/webhook.yaml"
NAME = "release-1A2B"
PROJECT_ARN = f"arn:aws:codebuild:{REGION}:{ACCOUNT}:project/{NAME}"
GIVEN = {
    "StackName": "feedrank-prod",
    "ReleasePolicyArn": f"arn:aws:iam::{ACCOUNT}:policy/release",
    "TrackingUri": "https://mlflow.example.com",
    "SourceLocation": "sources/feedrank.zip",
    "AlarmTopicArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:alarms",
    "TrackingTokenArn": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:token-AbCdEf",
}
URL = "https://abcdef.lambda-url.eu-west-1.on.aws/"
SECRET = "s3cret"
PROMOTED = {"name": "feed_ranker", "alias": "production", "version": "7"}
SET = WebhookEvent.from_str("model_version_alias.created")


def _load() -> ModuleType:
    """A separate Lambda function, not part of a package."""
    path = PROJECT / "infra" / "pipeline" / "webhook" / "webhook.py"
    spec = spec_from_file_location("webhook", path)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


webhook = _load()


class FunctionUrl(BaseAdapter):
    """Turns a request into Lambda's event for a function URL, and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:
        body = request.body
        event = {
            "version": "2.0",
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "requestContext": {"http": {"method": request.method, "path": "/"}},
            "body": body.decode() if isinstance(body, bytes) else body,
            "isBase64Encoded": False,
        }
        self.events.append(event)
        response = requests.Response()
        response.status_code = webhook.handler(event, None)["statusCode"]
        return response

    def close(self) -> None:
        pass


@pytest.fixture
def builds(aws: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """moto's build project and secret; yields what was asked of CodeBuild."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    boto3.DEFAULT_SESSION = None
    boto3.client("codebuild").create_project(
        name=NAME,
        source={"type": "S3", "location": GIVEN["SourceLocation"]},
        artifacts={"type": "NO_ARTIFACTS"},
        environment={
            "type": "LINUX_CONTAINER",
            "image": "i",
            "computeType": "BUILD_GENERAL1_SMALL",
        },
        serviceRole=f"arn:aws:iam::{ACCOUNT}:role/release",
    )
    secret = boto3.client("secretsmanager").create_secret(Name="s", SecretString=SECRET)
    for name, value in {
        "PROJECT": NAME,
        "SIGNATURE_ARN": secret["ARN"],
        "MODEL_NAME": "feed_ranker",
        "MODEL_ALIAS": "production",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(delivery, "_validate_webhook_url", lambda _: None)  # it asks the DNS
    webhook._secret.cache_clear()
    started: list[dict[str, Any]] = []
    boto3.setup_default_session()
    session = boto3.DEFAULT_SESSION
    session.events.register(
        "provide-client-params.codebuild.StartBuild", lambda params, **_: started.append(params)
    )
    yield started
    boto3.DEFAULT_SESSION = None


def _send(
    data: dict[str, Any] = PROMOTED, event: WebhookEvent = SET, secret: str | None = SECRET
) -> tuple[int, dict[str, Any]]:
    """The status that MLflow gets, and the event that its request was."""
    url = FunctionUrl()
    session = requests.Session()
    session.mount("https://", url)
    hook = Webhook("1", "release", URL, [event], 0, 0, secret=secret)
    response = delivery._send_webhook_request(hook, data, event, session)
    return response.status_code, url.events[0]


def test_a_promotion_starts_the_build(builds: list[dict[str, Any]]) -> None:
    status, event = _send()
    assert status == 202
    token = event["headers"]["x-mlflow-delivery-id"]
    assert builds == [{"projectName": NAME, "idempotencyToken": token}]
    assert len(boto3.client("codebuild").list_builds_for_project(projectName=NAME)["ids"]) == 1


@pytest.mark.parametrize(
    "data",
    [
        PROMOTED | {"name": "other"},
        PROMOTED | {"alias": "candidate"},
        {"name": "example_model", "alias": "example_alias", "version": "1"},  # MLflow's own test
    ],
)
def test_another_model_or_alias_is_accepted_and_starts_nothing(
    builds: list[dict[str, Any]], data: dict[str, Any]
) -> None:
    assert (_send(data)[0], builds) == (204, [])


def test_another_event_starts_nothing(builds: list[dict[str, Any]]) -> None:
    event = WebhookEvent.from_str("model_version_alias.deleted")
    assert (_send(PROMOTED, event)[0], builds) == (204, [])


@pytest.mark.parametrize("secret", ["other", None])
def test_a_wrong_signature_is_refused(builds: list[dict[str, Any]], secret: str | None) -> None:
    assert (_send(secret=secret)[0], builds) == (401, [])


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-mlflow-delivery-id", "6c6f3f1e-0000-4000-8000-000000000000"),
        ("x-mlflow-timestamp", "1"),
        ("x-mlflow-timestamp", "now"),
        ("x-mlflow-timestamp", ""),
        ("x-mlflow-signature", "v2,AAAA"),
        ("x-mlflow-signature", "v1,é"),
    ],
)
def test_a_changed_header_is_refused(builds: list[dict[str, Any]], header: str, value: str) -> None:
    _, event = _send(PROMOTED | {"alias": "candidate"})
    event["headers"][header] = value
    assert (webhook.handler(event, None), builds) == ({"statusCode": 401}, [])


@pytest.mark.parametrize("change", [("candidate", "production"), ("{", "{ ")])
def test_a_changed_body_is_refused(builds: list[dict[str, Any]], change: tuple[str, str]) -> None:
    _, event = _send(PROMOTED | {"alias": "candidate"})
    event["body"] = event["body"].replace(*change)
    assert (webhook.handler(event, None), builds) == ({"statusCode": 401}, [])


def test_nothing_but_a_request_of_mlflow_reads_the_secret(
    builds: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The URL is open: what costs something comes after what is free."""
    monkeypatch.setenv("SIGNATURE_ARN", "none")
    for event in (
        {},
        {"headers": {}, "body": "{}"},
        {"headers": {"x-mlflow-timestamp": "1"}, "body": "x" * 20_000},
        {"headers": {}, "body": "é", "isBase64Encoded": True},
    ):
        assert webhook.handler(event, None) == {"statusCode": 401}


def test_a_recorded_request_starts_nothing(builds: list[dict[str, Any]]) -> None:
    """Within CodeBuild's five minutes it has the token of the first; afterwards it is refused."""
    _, event = _send()
    sent_s = int(event["headers"]["x-mlflow-timestamp"])
    assert webhook.handler(event, None) == {"statusCode": 202}
    first, second = builds
    assert first == second
    for now_s in (sent_s - webhook.MAX_AHEAD_S, sent_s + webhook.MAX_AGE_S):
        assert webhook.verified(event, now_s)[0] == first["idempotencyToken"]
    for now_s in (sent_s - webhook.MAX_AHEAD_S - 1, sent_s + webhook.MAX_AGE_S + 1):
        with pytest.raises(webhook.RefusedError):
            webhook.verified(event, now_s)
    assert webhook.MAX_AGE_S + webhook.MAX_AHEAD_S < 300


def test_a_body_in_base64_is_the_same(builds: list[dict[str, Any]]) -> None:
    _, event = _send()
    event |= {"body": base64.b64encode(event["body"].encode()).decode(), "isBase64Encoded": True}
    assert webhook.handler(event, None) == {"statusCode": 202}


def test_neither_the_log_nor_the_response_has_the_secret_or_the_body(
    builds: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, webhook.log.name)
    _send()
    _send(secret="other")
    text = " ".join(record.getMessage() for record in caplog.records if record.name == "root")
    assert text.count("refused: the signature is another") == 1
    assert SECRET not in text
    assert "feed_ranker" not in text


# ---- rights ----


def _documents(role: str) -> list[dict[str, Any]]:
    stack = resolved(transformed(PATH, **GIVEN), **GIVEN)["Resources"]
    text = json.dumps([p["PolicyDocument"] for p in stack[role]["Properties"]["Policies"]])
    for name, arn in {
        "${Release.Arn}": PROJECT_ARN,
        "${Secret}": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:s-*",
        "${WebhookLogs.Arn}": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:webhook:*",
        "${ReleaseLogs.Arn}": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:release:*",
    }.items():
        text = text.replace(name, arn)
    documents: list[dict[str, Any]] = json.loads(text)
    return documents


def test_the_functions_role_is_enough(builds: list[dict[str, Any]]) -> None:
    """moto evaluates no resources of these two services."""
    made: list[tuple[str, str]] = []

    def remember(params: dict[str, Any], model: Any, **_: Any) -> None:
        secret = params.get("SecretId")
        service = model.service_model.service_name
        made.append((f"{service}:{model.name}", secret or PROJECT_ARN))

    boto3.DEFAULT_SESSION.events.register("provide-client-params.*.*", remember)
    assert _send()[0] == 202
    assert [action for action, _ in made] == [
        "secretsmanager:GetSecretValue",
        "codebuild:StartBuild",
    ]
    documents = _documents("WebhookRole")
    assert [call for call in made if not allowed(documents, *call)] == []


def test_the_roles_may_do_no_more() -> None:
    documents = _documents("WebhookRole")
    for action, resource in (
        ("codebuild:StartBuild", PROJECT_ARN + "2"),
        ("codebuild:UpdateProject", PROJECT_ARN),
        ("secretsmanager:GetSecretValue", GIVEN["TrackingTokenArn"]),
        ("secretsmanager:PutSecretValue", f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:s-1"),
    ):
        assert not allowed(documents, action, resource), action
    documents = _documents("ReleaseRole")
    assert allowed(documents, "s3:GetObject", "arn:aws:s3:::sources/feedrank.zip")
    assert allowed(documents, "secretsmanager:GetSecretValue", GIVEN["TrackingTokenArn"])
    assert not allowed(documents, "s3:PutObject", "arn:aws:s3:::sources/feedrank.zip")
    assert not allowed(documents, "s3:GetObject", "arn:aws:s3:::sources/other.zip")


# ---- the template ----


def test_a_release_can_ask_for_the_models_signature() -> None:
    given = {**GIVEN, "VerifyKey": "infra/feedrank.pub"}
    project = resolved(transformed(PATH, **given), **given)["Resources"]["Release"]["Properties"]
    variable = {"Name": "FEEDRANK_VERIFY_KEY", "Value": "infra/feedrank.pub"}
    assert variable in project["Environment"]["EnvironmentVariables"]


def _resources() -> dict[str, Any]:
    resources: dict[str, Any] = resolved(transformed(PATH, **GIVEN), **GIVEN)["Resources"]
    return resources


def test_the_url_takes_both_permissions_that_lambda_asks_for() -> None:
    """Of a function URL without IAM, since October 2025."""
    permissions = [
        resource["Properties"]
        for resource in _resources().values()
        if resource["Type"] == "AWS::Lambda::Permission"
    ]
    assert sorted(each["Action"] for each in permissions) == [
        "lambda:InvokeFunction",
        "lambda:InvokeFunctionUrl",
    ]
    (through_url,) = (p for p in permissions if p["Action"] == "lambda:InvokeFunction")
    assert through_url["InvokedViaFunctionUrl"] is True


def test_the_builds_command_exists_and_its_model_is_not_of_the_request() -> None:
    project = _resources()["Release"]["Properties"]
    variables = {v["Name"]: v["Value"] for v in project["Environment"]["EnvironmentVariables"]}
    assert variables["MODEL"] == "models:/feed_ranker@production"
    assert variables["STACK"] == "feedrank-prod"
    assert "FEEDRANK_VERIFY_KEY" not in variables  # an empty one would be refused
    command = '.venv/bin/feedrank release "$MODEL" --stack "$STACK" --wait'
    assert command in project["Source"]["BuildSpec"]
    assert "--wait" in CliRunner().invoke(app, ["release", "--help"]).output


def test_the_parameters_are_all_used() -> None:
    text = (PROJECT / PATH).read_text()
    for name in template(PATH)["Parameters"]:
        assert f"!Ref {name}" in text or f"${{{name}}}" in text, name
