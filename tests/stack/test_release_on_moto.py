"""A model from MLflow to a stack and back, over HTTP.

moto computes no changes of parameters, and its CloudFormation has no alias: what CodeDeploy does
after an update, publish the version and move the alias, is done here by the same API.
"""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from typer.testing import CliRunner

from feedops.cli.main import app
from feedrank.bundle.layout import MANIFEST, parse_manifest
from stack.transform import template

NAME = "feedrank-dev"
BUCKET = "feedrank-dev-bundles"
CODE = {"S3Bucket": "code", "S3Key": "code.zip"}
MODEL = "models:/feed_ranker@production"


@pytest.fixture(autouse=True)
def _unchanged_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    """moto's CloudFormation adds constructors for the whole process."""
    for loader in (yaml.Loader, yaml.FullLoader, yaml.UnsafeLoader):
        constructors = dict(loader.yaml_multi_constructors)
        monkeypatch.setattr(loader, "yaml_multi_constructors", constructors)


@pytest.fixture
def stack(aws_server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its function alone, with every parameter and the outputs of the real one."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    s3 = boto3.client("s3")
    for bucket in (BUCKET, CODE["S3Bucket"]):
        s3.create_bucket(Bucket=bucket)
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("index.py", "def handler(event, context): return 1")
    s3.put_object(Bucket=CODE["S3Bucket"], Key=CODE["S3Key"], Body=code.getvalue())
    trust = {"Version": "2012-10-17", "Statement": []}
    role = boto3.client("iam").create_role(
        RoleName="r", AssumeRolePolicyDocument=json.dumps(trust)
    )["Role"]["Arn"]
    function = {
        "FunctionName": NAME,
        "Code": CODE,  # moto can't update inline code
        "Handler": "index.handler",
        "Runtime": "python3.13",
        "Role": role,
        "Environment": {"Variables": {"MODEL_URI": {"Ref": "ModelUri"}}},
    }
    body = {
        "Parameters": template()["Parameters"],
        "Resources": {"Function": {"Type": "AWS::Lambda::Function", "Properties": function}},
        "Outputs": {"BundleDestination": {"Value": f"s3://{BUCKET}/bundles/"}},
    }
    cloudformation = boto3.client("cloudformation")
    cloudformation.create_stack(
        StackName=NAME,
        TemplateBody=json.dumps(body),
        Parameters=[
            {"ParameterKey": "Environment", "ParameterValue": "dev"},
            {"ParameterKey": "MemorySize", "ParameterValue": "2048"},
        ],
        Capabilities=["CAPABILITY_IAM"],
    )
    version = boto3.client("lambda").publish_version(FunctionName=NAME)["Version"]
    boto3.client("lambda").create_alias(FunctionName=NAME, Name="live", FunctionVersion=version)
    boto3.DEFAULT_SESSION.events.register("after-call.cloudformation.ExecuteChangeSet", _shift)
    return cloudformation


def _shift(**_: Any) -> None:
    functions = boto3.client("lambda")
    version = functions.publish_version(FunctionName=NAME)["Version"]
    functions.update_alias(FunctionName=NAME, Name="live", FunctionVersion=version)


def _parameters(cloudformation: Any) -> dict[str, str]:
    (described,) = cloudformation.describe_stacks(StackName=NAME)["Stacks"]
    return {each["ParameterKey"]: each["ParameterValue"] for each in described["Parameters"]}


def test_a_model_is_released_and_rolled_back(
    stack: Any,
    demo_bundle: Path,
    tracking_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # bundles go into data/ there
    before = _parameters(stack)
    options = ["--stack", NAME, "--tracking-uri", tracking_uri]

    dry = CliRunner().invoke(app, ["release", MODEL, "--dry-run", *options])
    assert dry.exit_code == 0, dry.output
    assert _parameters(stack) == before
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket=BUCKET)
    assert stack.list_change_sets(StackName=NAME)["Summaries"] == []

    done = CliRunner().invoke(app, ["release", MODEL, *options])
    assert done.exit_code == 0, done.output
    after = _parameters(stack)
    uri = after["ModelUri"]
    assert after == before | {"ModelUri": uri}
    key = f"{uri.removeprefix(f's3://{BUCKET}/')}{MANIFEST}"
    raw = boto3.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
    assert uri.endswith(f"/feed_ranker/sha256-{parse_manifest(raw).digest}/")
    shown = CliRunner().invoke(app, ["status", "--stack", NAME])
    digest = parse_manifest(raw).digest
    assert re.search(rf"100% +feed_ranker +{digest[:12]}", shown.output), shown.output

    again = CliRunner().invoke(app, ["release", uri, "--stack", NAME])
    assert "nothing to release" in again.output

    back = CliRunner().invoke(app, ["rollback", "--stack", NAME])
    assert back.exit_code == 0, back.output
    assert re.search("100% +layer +see /model", back.output), back.output
