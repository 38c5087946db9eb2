"""infra/pipeline/deploy-role.yaml: GitHub's role has the rights of the calls that `sam deploy`
makes, the first time too, CloudFormation's those that it publishes for the types of the stack."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from click.testing import CliRunner
from samcli.commands.deploy import command as sam_deploy

from stack.handlers import ARTIFACTS, HANDLERS, STACK, Call, all_resources
from stack.iam import ACCOUNT, ID, REGION, allowed
from stack.transform import PROJECT, resolved, template

PATH = "infra/pipeline/deploy-role.yaml"
GIVEN = {
    "StackName": STACK,
    "HostedZoneId": "Z1",
    "Repository": "shop/feedrank",
    "GitHubEnvironment": "dev",
    "ProviderArn": f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com",
}
UUIDS = ("*", ID)  # before the first deploy, and afterwards
STACK_ROLE = f"arn:aws:iam::{ACCOUNT}:role/pipeline/x-StackRole-1A"
DEPLOY_ROLE = f"arn:aws:iam::{ACCOUNT}:role/pipeline/x-DeployRole-1A"
STACK_ARN = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{STACK}/{ID}"
TRANSFORM = f"arn:aws:cloudformation:{REGION}:aws:transform/Serverless-2016-10-31"
# Of the account: no name in their ARNs tells whose they are.
OF_NO_STACK = re.compile(
    r"\*|.*:apigateway:.*|.*:scalable-target/.*|.*:deploymentconfig:.*|.*:catalog|.*:hostedzone/Z1"
    r"|.*:change/.*|.*:secret:RecordIdKey-.*|.*:role/aws-service-role/.*"
)


def _documents(role: str, uuid: str = ID) -> list[dict[str, Any]]:
    stack = resolved(template(PATH), **GIVEN, StackUuid=uuid)["Resources"]
    properties = stack[role]["Properties"]
    managed = [name[2:-1] for name in properties.get("ManagedPolicyArns", ())]  # of ${...}
    policies = [*properties["Policies"], *(stack[name]["Properties"] for name in managed)]
    text = json.dumps([policy["PolicyDocument"] for policy in policies])
    text = text.replace("${Artifacts.Arn}", f"arn:aws:s3:::{ARTIFACTS}")
    documents: list[dict[str, Any]] = json.loads(text.replace("${StackRole.Arn}", STACK_ROLE))
    return documents


def _actions(documents: list[dict[str, Any]]) -> set[str]:
    return {
        action
        for document in documents
        for statement in document["Statement"]
        for action in (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
    }


def _may(documents: list[dict[str, Any]], call: Call) -> bool:
    context = {"iam_PassedToService": call.passed_to} if call.passed_to else {}
    return allowed(documents, call.action, call.resource, **context)


# ---- CloudFormation's role ----


@pytest.fixture(scope="module")
def calls() -> set[Call]:
    return {call for resource in all_resources() for call in resource.calls()}


def test_every_type_of_the_stack_has_its_actions() -> None:
    assert {resource.kind for resource in all_resources()} == set(HANDLERS)


@pytest.mark.parametrize("uuid", UUIDS)
def test_cloudformation_may_create_and_change_every_resource(calls: set[Call], uuid: str) -> None:
    documents = _documents("StackRole", uuid)
    assert len(calls) > 300
    missing = {(each.action, each.resource) for each in calls if not _may(documents, each)}
    assert sorted(missing) == []


def test_cloudformation_may_do_nothing_else(calls: set[Call]) -> None:
    granted = _actions(_documents("StackRole"))
    nested = {"cloudformation:CreateChangeSet"}  # nested stacks have the transform too
    assert granted == {call.action for call in calls} | nested
    assert allowed(_documents("StackRole"), "cloudformation:CreateChangeSet", TRANSFORM)


def test_other_stacks_are_out_of_its_reach(calls: set[Call]) -> None:
    documents = _documents("StackRole")
    others = {
        Call(each.action, _renamed(each.resource), each.passed_to)
        for each in calls
        if not OF_NO_STACK.fullmatch(each.resource)
    }
    assert {call for call in others if _may(documents, call)} == set()


def _renamed(resource: str) -> str:
    for name in (STACK, STACK.replace("-", "_")):
        resource = resource.replace(name, "shop")
    return resource.replace(ID, "0" * 8)


def test_it_can_not_give_itself_rights_or_change_what_it_deploys(calls: set[Call]) -> None:
    documents = _documents("StackRole")
    for call in calls - {call for call in calls if call.resource == "*"}:
        for resource in (STACK_ROLE, DEPLOY_ROLE, f"arn:aws:s3:::{ARTIFACTS}"):
            if not call.action.startswith("s3:GetObject"):
                assert not _may(documents, Call(call.action, resource, call.passed_to)), call


def test_it_passes_roles_to_no_other_service() -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/{STACK}-FunctionRole-1A"
    for service in ("ec2.amazonaws.com", "cloudformation.amazonaws.com"):
        assert not _may(_documents("StackRole"), Call("iam:PassRole", role, service))


def test_its_policies_are_short_enough_for_iam() -> None:
    """Without white space, a role's own policies have 10,240 characters, a managed one 6,144."""
    longest = {**GIVEN, "StackName": "s" * 23, "HostedZoneId": "Z" * 32}
    stack = resolved(template(PATH), **longest, StackUuid=ID)["Resources"]
    for name, key, most in (
        ("StackRole", "Policies", 10_240),
        ("StackData", "PolicyDocument", 6_144),
    ):
        text = json.dumps(stack[name]["Properties"][key], separators=(",", ":"))
        assert len(text.replace("${Artifacts.Arn}", f"arn:aws:s3:::{'a' * 63}")) <= most, name


# ---- GitHub's role ----


class Aws:
    """Answers what `sam deploy` calls, and remembers it."""

    def __init__(self, status: str) -> None:
        """The stack's, empty where there is none."""
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self._status = status

    def call(self, client: BaseClient, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        service = client.meta.service_model.service_name
        self.calls.append((service, operation, given))
        answers: Mapping[str, dict[str, Any]] = {
            "CreateChangeSet": {"Id": "arn:change-set", "StackId": STACK_ARN},
            "DescribeChangeSet": {"Status": "CREATE_COMPLETE", "Changes": []},
            "DescribeStackEvents": {"StackEvents": self._events()},
            "GetTemplateSummary": {"Parameters": []},
            "PutObject": {"ETag": '"e"'},
        }
        if operation == "HeadObject" or (operation == "DescribeStacks" and not self._status):
            message = f"Stack with id {STACK} does not exist"
            raise ClientError({"Error": {"Code": "404", "Message": message}}, operation)
        if operation == "ExecuteChangeSet":
            self._status = self._status or "CREATE_COMPLETE"
            return {}
        if operation == "DescribeStacks":
            stack = {"StackName": STACK, "StackStatus": self._status, "StackId": STACK_ARN}
            return {"Stacks": [stack]}
        return answers[operation]

    def _events(self) -> list[dict[str, Any]]:
        """The stack's own, the newest first."""
        own = {
            "EventId": str(len(self.calls)),
            "StackId": STACK_ARN,
            "StackName": STACK,
            "LogicalResourceId": STACK,
            "PhysicalResourceId": STACK_ARN,
            "ResourceType": "AWS::CloudFormation::Stack",
        }
        return [
            own | {"ResourceStatus": self._status or "REVIEW_IN_PROGRESS", "Timestamp": _now()},
        ]


def _now() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=1)


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build of the stack, with hardly any code. Undoes sam's process-wide changes to PyYAML."""
    for parser, name in (
        (yaml.constructor.SafeConstructor, "yaml_constructors"),
        (yaml.SafeLoader, "yaml_constructors"),
        (yaml.SafeLoader, "yaml_multi_constructors"),
    ):
        monkeypatch.setattr(parser, name, dict(getattr(parser, name)))
    built = tmp_path / ".aws-sam" / "build"
    for code in ("function", "layers/runtime", "layers/model", "infra/canary"):
        (built / code).mkdir(parents=True)
        (built / code / "code.py").write_text("")
    for path in ("template.yaml", "infra/data.yaml", "infra/delivery.yaml"):
        shutil.copy(PROJECT / path, built / path)
    shutil.copy(PROJECT / "infra" / "observability.yaml", built / "infra")
    shutil.copy(PROJECT / "samconfig.toml", tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "SAM_CLI_TELEMETRY": "0",
        "SAM_CLI_POLL_DELAY": "0.01",  # seconds
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "__SAM_CLI_APP_DIR": str(tmp_path / "home"),
    }.items():
        monkeypatch.setenv(name, value)
    return built


def _deploy_command() -> str:
    """The workflow's, with its variables."""
    workflow = yaml.safe_load(
        (PROJECT / "infra" / "pipeline" / "github-deploy-one.yaml").read_text()
    )
    (run,) = (
        step["run"]
        for step in workflow["jobs"]["deploy"]["steps"]
        if "sam deploy" in step.get("run", "")
    )
    command = " ".join(run.replace("\\\n", " ").split())
    variables = {"ENVIRONMENT": "dev", "ARTIFACTS": ARTIFACTS, "STACK_ROLE_ARN": STACK_ROLE}
    return re.sub(r"\$(\w+)", lambda name: variables[name[1]], command)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # sam calls its own deprecated code
@pytest.mark.parametrize("status", ["", "UPDATE_COMPLETE"])
def test_github_may_make_every_call_of_a_deploy_and_no_other(
    status: str, build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws = Aws(status)

    def call(client: BaseClient, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        return aws.call(client, operation, given)

    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    result = CliRunner().invoke(sam_deploy.cli, shlex.split(_deploy_command())[2:])
    assert result.exit_code == 0, result.output
    (change,) = [given for _, name, given in aws.calls if name == "CreateChangeSet"]
    assert change["ChangeSetType"] == ("UPDATE" if status else "CREATE")
    assert change["RoleARN"] == STACK_ROLE
    documents = _documents("DeployRole")
    made = {call for each in aws.calls for call in _evaluated(*each)}
    assert [call for call in made if not _may(documents, call)] == []
    assert _actions(documents) - {call.action for call in made} == {
        *(() if status else {"cloudformation:GetTemplateSummary"}),
    }


def _evaluated(service: str, operation: str, given: Mapping[str, Any]) -> Iterator[Call]:
    if service == "s3":
        action = {"HeadObject": "GetObject"}.get(operation, operation)
        yield Call(f"s3:{action}", f"arn:aws:s3:::{given['Bucket']}/{given['Key']}")
        return
    assert service == "cloudformation"
    yield Call(f"cloudformation:{operation}", STACK_ARN)
    if operation == "CreateChangeSet":
        yield Call("cloudformation:CreateChangeSet", TRANSFORM)
        yield Call("iam:PassRole", given["RoleARN"], "cloudformation.amazonaws.com")


def test_github_reaches_no_other_stack_and_no_resource() -> None:
    documents = _documents("DeployRole")
    other = STACK_ARN.replace(STACK, f"{STACK}-2")
    assert not allowed(documents, "cloudformation:CreateChangeSet", other)
    for call in {call for resource in all_resources() for call in resource.calls()}:
        if call.resource != f"arn:aws:s3:::{ARTIFACTS}/0cc175b9c0f1b6a831c399e269772661":
            assert not _may(documents, call), call


def test_only_a_job_in_the_approved_environment_gets_the_role() -> None:
    role = resolved(template(PATH), **GIVEN)["Resources"]["DeployRole"]["Properties"]
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    issuer = "token.actions.githubusercontent.com"
    assert statement["Condition"]["StringEquals"] == {
        f"{issuer}:aud": "sts.amazonaws.com",
        f"{issuer}:sub": "repo:shop/feedrank:environment:dev",
    }
