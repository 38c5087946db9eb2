"""CloudFormation templates as CloudFormation would have them: parameters filled in.

Only what our own templates use: Ref, Sub, GetAtt, Join, If, Equals, Not, And, Or, Condition.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

REGION = "us-east-1"
ACCOUNT = "123456789012"
PSEUDO_PARAMETERS: Mapping[str, Any] = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::StackName": "feedrank",
    "AWS::NoValue": None,
}
_NAMES = {  # the property that Ref gives, where we set it
    "AWS::Athena::WorkGroup": "Name",
    "AWS::KinesisFirehose::DeliveryStream": "DeliveryStreamName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::Logs::LogStream": "LogStreamName",
}
_VARIABLE = re.compile(r"\$\{(!?)([^}]+)\}")


def load(path: Path) -> dict[str, Any]:
    """As it is written."""
    template: dict[str, Any] = yaml.load(path.read_text(), _Yaml)  # noqa: S506 it is safe
    return template


class _Yaml(yaml.SafeLoader):
    """Knows `!Ref` and its like. SAM's own parser would change PyYAML for the whole process."""

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


_Yaml.add_multi_constructor("!", _Yaml.function)


def resolved(template: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The template with these parameters, else their defaults, and without what isn't made then.

    An attribute becomes an ARN of a sort: `arn:aws:<type>:us-east-1:123456789012:<logical id>`.
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

    def condition(self, name: str) -> bool:
        return bool(self.value(self._conditions[name]))

    def value(self, node: Any) -> Any:  # noqa: ANN401 any YAML
        """Raises NotImplementedError for a function that is not on the list above."""
        if isinstance(node, list):
            return [value for value in map(self.value, node) if value is not None]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((name, argument),) = node.items()
            if name in ("Ref", "Condition") or name.startswith("Fn::"):
                return self._function(name.removeprefix("Fn::"), argument)
        values = {key: self.value(value) for key, value in node.items()}
        return {key: value for key, value in values.items() if value is not None}

    def _function(self, name: str, argument: Any) -> Any:  # noqa: ANN401, PLR0911 one line each
        match name:
            case "Ref":
                return self._reference(argument)
            case "Condition":
                return self.condition(argument)
            case "GetAtt":
                return self._attribute(
                    *(argument if isinstance(argument, list) else argument.split("."))
                )
            case "Sub":
                return self._sub(argument)
            case "Join":
                return argument[0].join(self.value(argument[1]))
            case "If":
                return self.value(argument[1 if self.condition(argument[0]) else 2])
            case "Equals":
                first, second = map(self.value, argument)
                return str(first) == str(second)
            case "Not":
                return not self.value(argument[0])
            case "And" | "Or":
                return (all if name == "And" else any)(self.value(item) for item in argument)
        raise NotImplementedError(f"Fn::{name}")

    def _reference(self, name: str) -> Any:  # noqa: ANN401
        if name in self._resources:
            resource = self._resources[name]
            if resource["Type"] == "AWS::Glue::Database":
                return self.value(resource["Properties"]["DatabaseInput"]["Name"])
            own_name = resource.get("Properties", {}).get(_NAMES.get(resource["Type"], ""))
            return self.value(own_name) if own_name else name.lower()
        return self._values[name]

    def _attribute(self, logical_id: str, *_attribute: str) -> str:
        resource = self._resources[logical_id]
        if resource["Type"] == "AWS::S3::Bucket":
            return f"arn:aws:s3:::{logical_id.lower()}"
        service = resource["Type"].split("::")[1].lower()
        return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{logical_id}"

    def _sub(self, argument: Any) -> str:  # noqa: ANN401
        text, own = argument if isinstance(argument, list) else (argument, {})

        def fill(match: re.Match[str]) -> str:
            escaped, name = match.groups()
            if escaped:
                return f"${{{name}}}"
            if name in own:
                return str(self.value(own[name]))
            if "." in name:
                return self._attribute(*name.split("."))
            return str(self._reference(name))

        return _VARIABLE.sub(fill, text)
