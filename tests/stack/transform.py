"""The templates as SAM and CloudFormation process them, in this process and without an account."""

import copy
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from samtranslator.translator.transform import transform

from feedops.stack.template import load

PROJECT = Path(__file__).parents[2]
PSEUDO = {
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::Region": "eu-west-1",
    "AWS::StackName": "feedrank-dev",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackId": (
        "arn:aws:cloudformation:eu-west-1:123456789012:stack/feedrank-dev/"
        "1c2fa620-982a-11e3-aff7-50e2416294e0"
    ),
}
LOCAL_CODE = ("CodeUri", "ContentUri")
DROPPED = object()  # the value of AWS::NoValue
Json = Any


def template(path: str = "template.yaml") -> dict[str, Json]:
    """As it is written; a copy that the caller may change."""
    return copy.deepcopy(_read(path))


@cache
def _read(path: str) -> dict[str, Json]:
    return load(PROJECT / path)


def packaged(source: Mapping[str, Json], build: str = "0" * 32) -> dict[str, Json]:
    """As `sam package` leaves it: each code directory is an S3 object, named by its content."""
    fragment = copy.deepcopy(dict(source))
    for resource in fragment["Resources"].values():
        for key in LOCAL_CODE:
            if key in resource.get("Properties", {}):
                directory = str(resource["Properties"][key]).strip("/").replace("/", "-")
                resource["Properties"][key] = f"s3://artifacts/{directory}-{build}"
    return fragment


def transformed(source: str | Mapping[str, Json] = "template.yaml", **parameters: str) -> Json:
    """The CloudFormation template that SAM generates from `source`, a path or a template."""
    fragment = packaged(template(source) if isinstance(source, str) else source)
    with patch.dict(os.environ, {"AWS_DEFAULT_REGION": PSEUDO["AWS::Region"]}):
        return transform(fragment, values(fragment, parameters), _NoPolicies())


def values(source: Mapping[str, Json], parameters: Mapping[str, str]) -> dict[str, str]:
    """Every parameter's value: the given one, else its default, else its first allowed value, else
    its name."""
    declared = source.get("Parameters", {})
    assert not set(parameters) - set(declared), "no such parameter"
    return {
        name: parameters.get(name, str(_default(name, parameter)))
        for name, parameter in declared.items()
    }


def _default(name: str, parameter: Mapping[str, Json]) -> Json:
    return parameter.get("Default", parameter.get("AllowedValues", [name])[0])


def resolved(source: Mapping[str, Json], **parameters: str) -> dict[str, Json]:
    """The resources and outputs that CloudFormation would create, with conditions decided and
    functions computed. Run-time values remain: `${Function}`, `${Function.Arn}`."""
    resolver = _Resolver(source, PSEUDO | values(source, parameters))
    return {
        section: {
            name: resolver.value(body)
            for name, body in source.get(section, {}).items()
            if resolver.condition(body.get("Condition"))
        }
        for section in ("Resources", "Outputs")
    }


class _NoPolicies:
    """Without a loader, SAM would call AWS for the ARNs of managed policies."""

    def load(self) -> dict[str, str]:
        return {}


class _Resolver:
    def __init__(self, source: Mapping[str, Json], known: Mapping[str, str]) -> None:
        self._known = known
        self._conditions = source.get("Conditions", {})
        self._mappings = source.get("Mappings", {})

    def condition(self, name: str | None) -> bool:
        return name is None or self._holds(self._conditions[name])

    def value(self, node: Json) -> Json:  # noqa: C901, PLR0911 one case a function
        match node:
            case {"Ref": "AWS::NoValue"}:
                return DROPPED
            case {"Ref": name}:
                return self._known.get(name, f"${{{name}}}")
            case {"Fn::GetAtt": path}:
                return f"${{{path if isinstance(path, str) else '.'.join(path)}}}"
            case {"Fn::If": [name, yes, no]}:
                return self.value(yes if self.condition(name) else no)
            case {"Fn::Sub": [text, variables]}:
                return self._substituted(text, {k: self.value(v) for k, v in variables.items()})
            case {"Fn::Sub": text}:
                return self._substituted(text, {})
            case {"Fn::Join": [separator, parts]}:
                return separator.join(self.value(parts))
            case {"Fn::Split": [separator, text]}:
                return self.value(text).split(separator)
            case {"Fn::Select": [index, items]}:
                return self.value(items)[int(index)]
            case {"Fn::FindInMap": [name, first, second]}:
                return self._mappings[name][self.value(first)][self.value(second)]
            case dict():
                assert not any(key.startswith("Fn::") for key in node), node
                pairs = {key: self.value(child) for key, child in node.items()}
                return {key: child for key, child in pairs.items() if child is not DROPPED}
            case list():
                return [child for child in map(self.value, node) if child is not DROPPED]
        return node

    def _substituted(self, text: str, variables: Mapping[str, str]) -> str:
        known = {**self._known, **variables}
        return re.sub(r"\$\{([^!}]+)\}", lambda m: str(known.get(m[1], m[0])), text).replace(
            "${!", "${"
        )

    def _holds(self, node: Json) -> bool:
        match node:
            case {"Fn::Equals": [one, other]}:
                return str(self.value(one)) == str(self.value(other))
            case {"Fn::Not": [inner]}:
                return not self._holds(inner)
            case {"Fn::And": inner}:
                return all(self._holds(each) for each in inner)
            case {"Fn::Or": inner}:
                return any(self._holds(each) for each in inner)
            case {"Condition": name}:
                return self.condition(name)
        raise AssertionError(f"not a condition: {node}")
