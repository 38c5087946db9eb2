"""`feedrank doctor` finds what CloudFormation would find later, and says what to do."""

import re
from pathlib import Path

import pytest
from samcli.lib.package.utils import make_zip_with_lambda_permissions, zip_folder
from typer.testing import CliRunner, Result

from feedops.cli.main import app
from feedops.release import account_checks
from feedops.release import doctor as doctor_module
from feedops.stack.values import problems, refusal
from feedrank.bundle.layout import MANIFEST
from stack.recorded import ACCOUNT, NAME, OLD, REGION, TEXTS, UUID, RecordedAws
from stack.transform import PROJECT, template

KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/1"
SOURCES = {
    "Function": "function/",
    "RuntimeLayer": "layers/runtime/",
    "ModelLayer": "layers/model/",
}
PROD = {"Environment": "prod"}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RecordedAws:
    """An account, and a machine with a bundle for the layer and without a build."""
    (tmp_path / MANIFEST).parent.mkdir()
    (tmp_path / MANIFEST).write_bytes(OLD[1])
    monkeypatch.setattr(doctor_module, "BUNDLE", tmp_path)
    for module in (doctor_module, account_checks):
        monkeypatch.setattr(module, "BUILD", tmp_path / "build")
    monkeypatch.setattr(doctor_module, "find_python", lambda _: "/usr/bin/python3.13")
    return RecordedAws().install(monkeypatch)


def _doctor(*options: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *options])


def _wrong(result: Result) -> list[str]:
    rows = [re.sub(r"\s+", " ", line).strip() for line in result.output.splitlines()]
    return [row for row in rows if re.match(r"[\w. ]+ wrong ", row)]


@pytest.mark.parametrize("environment", ["dev", "staging", "prod"])
def test_our_own_environments_are_in_order(aws: RecordedAws, environment: str) -> None:
    result = _doctor("--config-env", environment, "--stack", NAME)
    assert result.exit_code == 0, result.output
    assert f"{ACCOUNT} in {REGION}" in result.output
    assert f"serves 100% by version 42: {OLD[0]}" in result.output


def test_it_changes_nothing(aws: RecordedAws) -> None:
    _doctor("--config-env", "prod")
    assert [name for name in aws.actions if name != "SimulatePrincipalPolicy"] == []


@pytest.mark.parametrize(
    ("role", "text"),
    [
        ("", "with the caller's rights: sam deploy --role-arn gives it a role of its own"),
        (f"arn:aws:iam::{ACCOUNT}:role/stack", f"as arn:aws:iam::{ACCOUNT}:role/stack"),
    ],
)
def test_whose_rights_change_the_stack_is_said(aws: RecordedAws, role: str, text: str) -> None:
    aws.role = role
    assert f"CloudFormation changes {NAME} {text}" in _doctor("--stack", NAME).output


def _packaged(build: Path) -> str:
    """The template that `sam package` writes of a build, with the names that it uploads under."""
    for part in ("Function", "RuntimeLayer", "ModelLayer"):
        (build / part).mkdir(parents=True)
        (build / part / "code.py").write_text(f"# {part}")
    text = (PROJECT / "template.yaml").read_text()
    for part, source in SOURCES.items():
        digest = zip_name(build / part)
        assert text.count(f"Uri: {source}\n") == 1
        text = text.replace(f"Uri: {source}\n", f"Uri: s3://artifacts/feedrank-prod/{digest}\n")
    return text


def zip_name(directory: Path) -> str:
    """By sam itself."""
    with zip_folder(str(directory), zip_method=make_zip_with_lambda_permissions) as (_, digest):
        return str(digest)


def test_a_build_is_compared_with_what_is_deployed(aws: RecordedAws, tmp_path: Path) -> None:
    build = tmp_path / "build"
    aws.template = _packaged(build)
    output = _doctor("--config-env", "prod").output
    assert re.search("code +ok +the build is what is deployed", output), output
    (build / "ModelLayer" / "code.py").write_text("# other")
    output = _doctor("--config-env", "prod").output
    assert "a deploy would replace ModelLayer: the build differs" in output


def test_a_build_is_not_compared_with_an_image(aws: RecordedAws, tmp_path: Path) -> None:
    _packaged(tmp_path / "build")
    aws.template = "Resources: {Function: {Properties: {ImageUri: 1.dkr.ecr/f:1}}}"
    output = _doctor("--config-env", "prod").output
    assert "not checked: the deployed function is an image" in output


def test_what_a_deploy_would_change_is_listed(aws: RecordedAws) -> None:
    aws.parameters = {"WarmStart": "none", "Old": "1"}
    output = _doctor("--config-env", "prod").output
    assert "a deploy would change WarmStart: none to provisioned" in output
    assert "a deploy would remove the parameters Old" in output


def test_a_new_accounts_quota_is_too_small_for_prod(aws: RecordedAws) -> None:
    aws.quotas["L-B99A9384"] = 10.0
    result = _doctor("--config-env", "prod")
    assert result.exit_code == 1
    (row,) = _wrong(result)
    assert row.startswith("quotas wrong concurrency: 120 needed, 10 allowed; raise it: ")
    assert row.endswith("L-B99A9384")


def test_a_missing_right_is_named(aws: RecordedAws) -> None:
    aws.denied = {"codedeploy:ListDeployments"}
    (row,) = _wrong(_doctor("--stack", NAME))
    assert f"a release of {NAME} needs codedeploy:ListDeployments" in row


def test_a_right_that_a_first_deploy_lacks_is_named(aws: RecordedAws) -> None:
    aws.denied = {"cloudformation:ExecuteChangeSet"}
    (row,) = _wrong(_doctor("--config-env", "dev"))
    assert row == (
        "rights wrong a deploy of feedrank-dev needs cloudformation:ExecuteChangeSet; "
        "see infra/pipeline/deploy-role.yaml"
    )
    resources = {r for call in aws.called("SimulatePrincipalPolicy") for r in call["ResourceArns"]}
    assert resources == {
        f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/feedrank-dev/*",
        f"arn:aws:cloudformation:{REGION}:aws:transform/Serverless-2016-10-31",
    }


def test_rights_are_simulated_for_this_stack_and_account(aws: RecordedAws) -> None:
    _doctor("--stack", NAME)
    resources = {r for call in aws.called("SimulatePrincipalPolicy") for r in call["ResourceArns"]}
    assert f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{NAME}/*" in resources
    assert f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{NAME}" in resources
    assert "arn:aws:s3:::bundles/bundles/*" in resources
    hook = f"log-group:/aws/lambda/CodeDeployHook_feedrank-{UUID}:*"
    assert f"arn:aws:logs:{REGION}:{ACCOUNT}:{hook}" in resources


@pytest.mark.parametrize("operation", ["SimulatePrincipalPolicy", "GetServiceQuota"])
def test_a_check_that_is_not_allowed_stops_nothing(aws: RecordedAws, operation: str) -> None:
    aws.refused[operation] = ("AccessDenied", "no")
    result = _doctor("--stack", NAME)
    assert result.exit_code == 0, result.output
    assert f"not checked: these credentials may not call {operation}: no" in result.output


def test_a_key_that_is_to_be_deleted_is_found(aws: RecordedAws) -> None:
    aws.parameters, aws.key_state = {"BundleKeyArn": KEY}, "PendingDeletion"
    assert _wrong(_doctor("--stack", NAME)) == [
        "keys wrong BundleKeyArn: PendingDeletion, ENCRYPT_DECRYPT"
    ]


def test_a_bundle_with_the_other_kind_of_ids_is_found(aws: RecordedAws) -> None:
    aws.model = TEXTS[0]
    (row,) = _wrong(_doctor("--stack", NAME))
    assert "the bundle's ids are texts and the stack's IdType is number" in row


@pytest.mark.parametrize("status", ["UPDATE_ROLLBACK_FAILED", "ROLLBACK_COMPLETE"])
def test_a_stack_that_can_not_be_updated_is_wrong(aws: RecordedAws, status: str) -> None:
    aws.stack_status = status
    (row,) = _wrong(_doctor("--stack", NAME))
    assert f"{NAME} is {status}" in row


def test_a_stack_that_is_not_there_would_be_created(aws: RecordedAws) -> None:
    result = _doctor("--config-env", "dev")
    assert result.exit_code == 0, result.output
    assert f"there is no stack feedrank-dev in {REGION}" in result.output
    assert "not checked" not in result.output


def test_without_a_bundle_the_command_that_makes_one_is_named(
    aws: RecordedAws, tmp_path: Path
) -> None:
    (tmp_path / MANIFEST).unlink()
    (row,) = _wrong(_doctor("--config-env", "prod"))
    assert "feedrank publish --to layers/model/bundle" in row
    assert _wrong(_doctor("--stack", NAME)) == []  # a release needs no layer


def test_an_unknown_environment_is_refused_with_those_there_are(aws: RecordedAws) -> None:
    output = _doctor("--config-env", "production").output
    assert "samconfig.toml has no environment production; it has default, dev, staging" in output


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({}, "Environment has no value, and no default"),
        (PROD | {"Memory": "1"}, "template.yaml has no parameter Memory"),
        (PROD | {"MemorySize": "64"}, "MemorySize=64: must be at least 512"),
        (PROD | {"MemorySize": "20000"}, "MemorySize=20000: must be at most 10240"),
        (PROD | {"MemorySize": "1 GB"}, "MemorySize=1 GB: must be a number"),
        (PROD | {"Auth": "basic"}, "Auth=basic: must be one of iam, jwt, none"),
        (PROD | {"BasePath": "/" + "x" * 16}, "has 17 characters, of 16 at most"),
        (PROD | {"BundleKeyArn": "alias/a"}, "a policy can't name an alias"),
        (PROD | {"Auth": "jwt"}, "Auth=jwt needs JwtIssuer"),
        (PROD | {"DomainName": "a.example.com"}, "DomainName needs CertificateArn"),
        (PROD | {"DecisionRetentionDays": "30"}, "must be at least 61"),
    ],
)
def test_a_wrong_parameter_is_found_before_cloudformation_does(
    parameters: dict[str, str], problem: str
) -> None:
    assert problem in "\n".join(problems(parameters))


def test_the_defaults_and_every_allowed_value_are_accepted() -> None:
    assert [*problems(PROD)] == []
    for name, parameter in template()["Parameters"].items():
        for value in map(str, parameter.get("AllowedValues", ())):
            assert refusal(value, parameter) == "", name
