"""infra/pipeline/role.yaml: the rights of the recorded calls and no others."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from feedmodel.publish.upload import upload
from feedops.cli.main import app
from feedrank.bundle.layout import MANIFEST
from stack.iam import allowed
from stack.recorded import (
    ACCOUNT,
    ALIAS,
    NAME,
    NEW,
    OLD,
    PASSES,
    REGION,
    UUID,
    Frame,
    RecordedAws,
)
from stack.transform import resolved, template

PATH = "infra/pipeline/role.yaml"
GIVEN = {
    "StackName": NAME,
    "StackUuid": UUID,
    "BundleBucketName": "bundles",
    "Repository": "shop/feedrank",
    "GitHubEnvironment": "prod",
    "ProviderArn": f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com",
}
HERE = f"{REGION}:{ACCOUNT}"
FAILS = [
    Frame((("Delivery", "UPDATE_FAILED", "Embedded stack"), (NAME, "UPDATE_ROLLBACK_COMPLETE", "")))
]
REFUSED = [
    *PASSES[:3],
    Frame(((ALIAS, "UPDATE_FAILED", ""), (NAME, "UPDATE_ROLLBACK_COMPLETE", "")), hook="Failed"),
]
SCENARIOS: list[tuple[str, list[Frame], str]] = [
    (f"release {NEW[0]}", [*PASSES], "UPDATE_COMPLETE"),
    (f"release {NEW[0]}", FAILS, "UPDATE_COMPLETE"),
    (f"release {NEW[0]}", REFUSED, "UPDATE_COMPLETE"),
    (f"release {NEW[0]} --dry-run", [], "UPDATE_COMPLETE"),
    ("rollback --to 40", [], "UPDATE_COMPLETE"),
    ("rollback", [Frame(((NAME, "UPDATE_ROLLBACK_COMPLETE", ""),))], "UPDATE_IN_PROGRESS"),
    ("status", [], "UPDATE_IN_PROGRESS"),
    ("tail --no-follow", [], "UPDATE_COMPLETE"),
]
# Actions that are called otherwise than the operation.
NAMES = {"ListObjectsV2": "ListBucket", "Invoke": "InvokeFunction"}


def _properties(resource: str) -> dict[str, Any]:
    resources = resolved(template(PATH), **GIVEN)["Resources"]
    return dict(resources[resource]["Properties"])


def _documents() -> list[dict[str, Any]]:
    return [_properties("ReleasePolicy")["PolicyDocument"]]


def _resource(service: str, name: str, given: dict[str, Any]) -> str:  # noqa: PLR0911 one a service
    """The ARN that IAM evaluates, by the services' authorization references."""
    match service:
        case "cloudformation":
            stack = given.get("StackName", NAME)
            return (
                stack
                if stack.startswith("arn:")
                else f"arn:aws:cloudformation:{HERE}:stack/{stack}/{UUID}"
            )
        case "lambda":
            qualifier = f":{given['Qualifier']}" if "Qualifier" in given else ""
            return f"arn:aws:lambda:{HERE}:function:{given['FunctionName']}{qualifier}"
        case "codedeploy" if name in {"ListDeployments", "BatchGetDeployments"}:
            group = f"{NAME}-ServerlessDeploymentApplication-1AB/{NAME}-FunctionDeploymentGroup-2C"
            return f"arn:aws:codedeploy:{HERE}:deploymentgroup:{group}"
        case "codedeploy":
            return "*"
        case "cloudwatch":
            return f"arn:aws:cloudwatch:{HERE}:alarm:*"
        case "logs":
            return f"arn:aws:logs:{HERE}:log-group:{given['logGroupName']}:*"
        case "s3" if name == "ListObjectsV2":
            return f"arn:aws:s3:::{given['Bucket']}"
        case "s3":
            return f"arn:aws:s3:::{given['Bucket']}/{given['Key']}"
    raise AssertionError(service)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """Action and resource of every call of every scenario."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        calls = {call for each in SCENARIOS for call in _of_scenario(*each, monkeypatch)}
        aws = RecordedAws().install(monkeypatch)
        bundle = tmp_path_factory.mktemp("bundle")
        (bundle / MANIFEST).parent.mkdir()
        (bundle / MANIFEST).write_bytes(OLD[1])
        assert upload(bundle, "s3://bundles/bundles/").uri == OLD[0]
        return calls | set(_calls(aws))


def _of_scenario(
    line: str, frames: list[Frame], status: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, str]]:
    aws = RecordedAws(frames=[*frames], stack_status=status).install(monkeypatch)
    aws.versions["43"], aws.states["40"] = NEW[0], ["Inactive", "Active"]
    result = CliRunner().invoke(app, [*line.split(), "--stack", NAME])
    assert not isinstance(result.exception, AssertionError), result.exception
    return _calls(aws)


def _calls(aws: RecordedAws) -> Iterator[tuple[str, str]]:
    for service, (name, given) in zip(aws.services, aws.calls, strict=True):
        yield f"{service}:{NAMES.get(name, name)}", _resource(service, name, given)
        if name == "CreateChangeSet":
            transform = "aws:transform/Serverless-2016-10-31"
            yield f"{service}:{name}", f"arn:aws:cloudformation:{REGION}:{transform}"


def test_the_role_may_make_every_call(recorded: set[tuple[str, str]]) -> None:
    documents = _documents()
    assert [call for call in sorted(recorded) if not allowed(documents, *call)] == []


def test_the_role_may_do_nothing_else(recorded: set[tuple[str, str]]) -> None:
    granted = {
        action
        for document in _documents()
        for statement in document["Statement"]
        for action in (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
    }
    assert granted == {action for action, _ in recorded}


def test_every_statement_is_needed(recorded: set[tuple[str, str]]) -> None:
    (document,) = _documents()
    for statement in document["Statement"]:
        others = [each for each in document["Statement"] if each is not statement]
        without = [{**document, "Statement": others}]
        assert [call for call in recorded if not allowed(without, *call)], statement["Sid"]


def test_another_stack_of_the_account_is_out_of_reach(recorded: set[tuple[str, str]]) -> None:
    """Except for reading alarms and targets, which IAM knows no resources of."""
    documents = _documents()
    others = {
        (action, resource.replace(NAME, "shop").replace(UUID, "0").replace("bundles", "others"))
        for action, resource in recorded
    }
    reached = {call for call in others - recorded if allowed(documents, *call)}
    assert reached == set()


def test_the_policy_is_short_enough_for_iam_with_the_longest_names() -> None:
    """IAM counts a managed policy's characters without white space, 6,144 at most."""
    longest = {**GIVEN, "StackName": "s" * 64, "BundleBucketName": "b" * 63}
    policy = resolved(template(PATH), **longest)["Resources"]["ReleasePolicy"]["Properties"]
    assert len(json.dumps(policy["PolicyDocument"], separators=(",", ":"))) <= 6_144


def test_only_a_job_in_the_approved_environment_gets_the_role() -> None:
    (statement,) = _properties("ReleaseRole")["AssumeRolePolicyDocument"]["Statement"]
    issuer = "token.actions.githubusercontent.com"
    assert statement["Condition"] == {
        "StringEquals": {
            f"{issuer}:aud": "sts.amazonaws.com",
            f"{issuer}:sub": "repo:shop/feedrank:environment:prod",
        }
    }
