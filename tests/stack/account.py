"""Stacks as they exist in an account: the names of their resources and the policies of their roles.

Names that CloudFormation generates follow its pattern: stack, logical id, random letters.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any
from unittest.mock import patch

from stack.transform import PSEUDO, Json, resolved, transformed

NESTED = {
    "Data": "infra/data.yaml",
    "Delivery": "infra/delivery.yaml",
    "Observability": "infra/observability.yaml",
}
EVERY_OPTION = {
    "WarmStart": "provisioned",
    "DecisionDelivery": "direct",
    "AlarmEmail": "on-call@example.com",
    "ModelUri": f"s3://bundles/m/sha256-{'ab' * 32}/",
    "BundleKeyArn": f"arn:aws:kms:eu-west-1:{PSEUDO['AWS::AccountId']}:key/1",
    "Tracing": "on",
    "SnapshotAgeDays": "7",
}
HERE = f"{PSEUDO['AWS::Region']}:{PSEUDO['AWS::AccountId']}"
KINDS = {  # the property that names it, its ARN
    "AWS::Lambda::Function": ("FunctionName", f"arn:aws:lambda:{HERE}:function:{{}}"),
    "AWS::Lambda::LayerVersion": ("LayerName", f"arn:aws:lambda:{HERE}:layer:{{}}"),
    "AWS::Logs::LogGroup": ("LogGroupName", f"arn:aws:logs:{HERE}:log-group:{{}}:*"),
    "AWS::KinesisFirehose::DeliveryStream": (
        "DeliveryStreamName",
        f"arn:aws:firehose:{HERE}:deliverystream/{{}}",
    ),
    "AWS::CloudWatch::Alarm": ("AlarmName", f"arn:aws:cloudwatch:{HERE}:alarm:{{}}"),
    "AWS::CloudWatch::Dashboard": ("DashboardName", "arn:aws:cloudwatch:::dashboard/{}"),
    "AWS::Athena::WorkGroup": ("Name", f"arn:aws:athena:{HERE}:workgroup/{{}}"),
    "AWS::S3::Bucket": ("BucketName", "arn:aws:s3:::{}"),
    "AWS::CodeDeploy::Application": (
        "ApplicationName",
        f"arn:aws:codedeploy:{HERE}:application:{{}}",
    ),
    "AWS::IAM::Role": ("RoleName", f"arn:aws:iam::{PSEUDO['AWS::AccountId']}:role/{{}}"),
    "AWS::SNS::Topic": ("TopicName", f"arn:aws:sns:{HERE}:{{}}"),
}
BELOW = {  # resources of actions, below the resource that has the ARN
    "AWS::Lambda::Function": ("", ":live", ":7"),
    "AWS::Logs::LogGroup": ("", "log-stream:logs", "log-stream:2026/11/25/[7]0123456789abcdef"),
    "AWS::S3::Bucket": ("", f"/bundles/m/sha256-{'ab' * 32}/serving/manifest.json", "/decisions/a"),
}
_VARIABLE = re.compile(r"\$\{([^}!]+)\}")
_NAME, _ID = "Placeholder", "00000000-0000-0000-0000-000000000000"
_STACK_ID = f"arn:aws:cloudformation:{HERE}:stack/{_NAME}/{_ID}"


class Stack:
    """One stack with every optional resource. `uuid`: the last part of its id."""

    def __init__(self, name: str, uuid: str) -> None:
        self._templates: dict[str, Json] = json.loads(
            _templates().replace(_NAME, name).replace(_ID, uuid)
        )
        self._name = name
        self._values_by_name: dict[str, str] = {}
        for nested, logical_id, resource in self._resources():
            self._register(nested, logical_id, resource)

    @property
    def names(self) -> set[str]:
        """Kind and name of every resource whose name must be unique in an account's region."""
        databases = {
            f"AWS::Glue::Database {resource['Properties']['DatabaseInput']['Name'].lower()}"
            for _, _, resource in self._resources()
            if resource["Type"] == "AWS::Glue::Database"
        }
        return databases | {
            f"{resource['Type']} {self._resource_name(nested, logical_id, resource)}"
            for nested, logical_id, resource in self._resources()
            if resource["Type"] in KINDS
        }

    @property
    def arns(self) -> set[str]:
        arns: set[str] = set()
        for nested, logical_id, resource in self._resources():
            if resource["Type"] not in KINDS:
                continue
            arn = self._arn(nested, logical_id, resource)
            below = BELOW.get(resource["Type"], ("",))
            arns |= {arn.removesuffix("*" if end else "") + end for end in below}
            if resource["Type"] == "AWS::CodeDeploy::Application":
                arns.add(arn.replace(":application:", ":deploymentgroup:") + "/group")
        return arns

    @property
    def statements(self) -> list[dict[str, Json]]:
        """The policy statements of all its roles, Deny included."""
        return [
            self._substituted(statement)
            for _, _, resource in self._resources()
            if resource["Type"] == "AWS::IAM::Role"
            for policy in resource["Properties"]["Policies"]
            for statement in policy["PolicyDocument"]["Statement"]
        ]

    def _resources(self) -> Iterator[tuple[str, str, dict[str, Json]]]:
        for nested, stack in self._templates.items():
            for logical_id, resource in stack["Resources"].items():
                yield nested, logical_id, resource

    def _register(self, nested: str, logical_id: str, resource: dict[str, Json]) -> None:
        if resource["Type"] == "AWS::Lambda::Version":
            function = resource["Properties"]["FunctionName"]
            self._values_by_name[logical_id] = f"arn:aws:lambda:{HERE}:function:{function}:7"
        elif resource["Type"] in KINDS:
            self._values_by_name[logical_id] = self._resource_name(nested, logical_id, resource)
            self._values_by_name[f"{logical_id}.Arn"] = self._arn(nested, logical_id, resource)

    def _resource_name(self, nested: str, logical_id: str, resource: dict[str, Json]) -> str:
        property_name, _ = KINDS[resource["Type"]]
        generated = "-".join(filter(None, [self._name, nested, logical_id, "1AB2CD3EF4GH"]))
        name: str = resource["Properties"].get(property_name, generated)
        return name.lower() if resource["Type"] == "AWS::S3::Bucket" else name

    def _arn(self, nested: str, logical_id: str, resource: dict[str, Json]) -> str:
        return KINDS[resource["Type"]][1].format(self._resource_name(nested, logical_id, resource))

    def _substituted(self, node: Any) -> Any:
        text = json.dumps(node)
        while _VARIABLE.search(text):
            text = _VARIABLE.sub(lambda match: self._value(match[1]), text)
        return json.loads(text)

    def _value(self, variable: str) -> str:
        """Raises KeyError for a value that only AWS knows."""
        nested, _, output = variable.partition(".Outputs.")
        if output:
            value: str = self._templates[nested]["Outputs"][output]["Value"]
            return value
        return self._values_by_name[variable]


@cache
def _templates() -> str:
    """The outermost template under "", and each nested one under its logical id, as JSON."""
    with patch.dict(PSEUDO, {"AWS::StackName": _NAME, "AWS::StackId": _STACK_ID}):
        stacks = {"": resolved(transformed(**EVERY_OPTION), **EVERY_OPTION)}
        for nested, path in NESTED.items():
            parameters = stacks[""]["Resources"][nested]["Properties"]["Parameters"]
            stacks[nested] = resolved(transformed(path), **parameters)
    return json.dumps(stacks)
