"""CloudFormation templates with their parameters, conditions and functions resolved.

Implements what our own templates use: Ref, Sub, GetAtt, Join, If, Equals, Not, And, Or, Condition.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

Yaml = Any  # a scalar, a list or a mapping

REGION = "us-east-1"
ACCOUNT = "123456789012"
PSEUDO_PARAMETERS: Mapping[str, Any] = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::StackName": "feedrank",
    "AWS::NoValue": None,
}
_NAMES = {  # the property that Ref returns, if the template sets it
    "AWS::Athena::WorkGroup": "Name",
    "AWS::KinesisFirehose::DeliveryStream": "DeliveryStreamName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::Logs::LogStream": "LogStreamName",
}
_VARIABLE = re.compile(r"\$\{(!?)([^}]+)\}")


def load(path: Path) -> dict[str, Any]:
    """Unresolved, with `!Ref x` as {"Ref": "x"}."""
    return parse(path.read_text())


def parse(text: str) -> dict[str, Any]:
    template: dict[str, Any] = _Loader(text).get_single_data()
    return template


class _Loader(yaml.SafeLoader):
    """Reads `!Ref` and the like. SAM's own parser would change PyYAML for the whole process."""

    def function(self, name: str, node: yaml.Node) -> dict[str, Any]:
        value: Any
        match node:
            case yaml.ScalarNode():
                value = self.construct_scalar(node)
            case yaml.SequenceNode():
                value = self.construct_sequence(node, deep=True)
            case yaml.MappingNode():
                value = self.construct_mapping(node, deep=True)
        if name == "GetAtt" and isinstance(value, str):
            value = value.split(".", 1)
        return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _Loader.function)


def resolved(template: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Resources and outputs with these parameters, else their defaults; without those whose
    condition is false.

    GetAtt returns a made-up ARN: `arn:aws:<type>:us-east-1:123456789012:<logical id>`.
    Raises KeyError that names a parameter without a value.
    """
    resolver = _Resolver(template, parameters)
    parts = {name: template[name] for name in ("Resources", "Outputs") if name in template}
    return {
        name: {
            logical_id: resolver.value(part)
            for logical_id, part in entries.items()
            if "Condition" not in part or resolver.condition(part["Condition"])
        }
        for name, entries in parts.items()
    }


class _Resolver:
    def __init__(self, template: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        declared: Mapping[str, Any] = template.get("Parameters", {})
        defaults = {n: p["Default"] for n, p in declared.items() if "Default" in p}
        known = {n: v for n, v in parameters.items() if n in declared}
        self._values = {**PSEUDO_PARAMETERS, **defaults, **known}
        self._resources: Mapping[str, Any] = template["Resources"]
        self._conditions: Mapping[str, Any] = template.get("Conditions", {})
        self._functions: Mapping[str, Callable[[Yaml], Yaml]] = {
            "Ref": self._reference,
            "Condition": self.condition,
            "GetAtt": self._attribute,
            "Sub": self._sub,
            "Join": lambda args: args[0].join(self.value(args[1])),
            "If": lambda args: self.value(args[1 if self.condition(args[0]) else 2]),
            "Equals": lambda args: str(self.value(args[0])) == str(self.value(args[1])),
            "Not": lambda args: not self.value(args[0]),
            "And": lambda args: all(self.value(condition) for condition in args),
            "Or": lambda args: any(self.value(condition) for condition in args),
        }

    def condition(self, name: str) -> bool:
        return bool(self.value(self._conditions[name]))

    def value(self, node: Yaml) -> Yaml:
        """Raises KeyError for a function that is not implemented here."""
        if isinstance(node, list):
            return [value for value in map(self.value, node) if value is not None]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((name, argument),) = node.items()
            if name in ("Ref", "Condition") or name.startswith("Fn::"):
                return self._functions[name.removeprefix("Fn::")](argument)
        values = {key: self.value(value) for key, value in node.items()}
        return {key: value for key, value in values.items() if value is not None}

    def _reference(self, name: str) -> Yaml:
        if name in self._resources:
            resource = self._resources[name]
            if resource["Type"] == "AWS::Glue::Database":
                return self.value(resource["Properties"]["DatabaseInput"]["Name"])
            own_name = resource.get("Properties", {}).get(_NAMES.get(resource["Type"], ""))
            return self.value(own_name) if own_name else name.lower()
        return self._values[name]

    def _attribute(self, argument: Yaml) -> str:
        """`argument` is [logical id, attribute], or both with a dot between."""
        logical_id = (argument if isinstance(argument, list) else argument.split("."))[0]
        resource = self._resources[logical_id]
        if resource["Type"] == "AWS::S3::Bucket":
            return f"arn:aws:s3:::{logical_id.lower()}"
        service = resource["Type"].split("::")[1].lower()
        return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{logical_id}"

    def _sub(self, argument: Yaml) -> str:
        text, own = argument if isinstance(argument, list) else (argument, {})

        def fill(match: re.Match[str]) -> str:
            escaped, name = match.groups()
            if escaped:
                return f"${{{name}}}"
            if name in own:
                return str(self.value(own[name]))
            if "." in name:
                return self._attribute(name)
            return str(self._reference(name))

        return _VARIABLE.sub(fill, text)
