"""Whether the templates take a value of a parameter, the nested ones too: CloudFormation compares
their limits only when it creates their stacks."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from feedops.stack.template import load
from feedops.workspace import PROJECT

TEMPLATE = "template.yaml"


def problems(given: Mapping[str, str]) -> Iterator[str]:
    """Of a first deploy with these parameters, the others at their defaults."""
    outer = declared(TEMPLATE)
    for name in given:
        if name not in outer:
            yield f"{TEMPLATE} has no parameter {name}"
    values = {name: str(given.get(name, each.get("Default", ""))) for name, each in outer.items()}
    for name, parameter in outer.items():
        if name not in given and "Default" not in parameter:
            yield f"{name} has no value, and no default"
        elif problem := refusal(values[name], parameter):
            yield f"{name}={values[name]}: {problem}"
        else:
            yield from _nested_problems(name, values[name])
    yield from _broken_rules(values)


def _nested_problems(name: str, value: str) -> Iterator[str]:
    for path, inner, outer in _passed_on():
        if outer == name and (problem := refusal(value, declared(path)[inner])):
            yield f"{name}={value}: {problem}, in {path}"


def refusal(value: str, parameter: Mapping[str, Any]) -> str:
    """Why CloudFormation doesn't take the value; empty where it does."""
    allowed = [str(each) for each in parameter.get("AllowedValues", ())]
    if allowed and value not in allowed:
        return f"must be one of {', '.join(allowed)}"
    if parameter["Type"] == "Number":
        return _refusal_of_number(value, parameter)
    if len(value) > int(parameter.get("MaxLength", len(value))):
        return f"has {len(value)} characters, of {parameter['MaxLength']} at most"
    if not re.fullmatch(str(parameter.get("AllowedPattern", ".*")), value, re.DOTALL):
        pattern = f"must match {parameter['AllowedPattern']}"
        return str(parameter.get("ConstraintDescription") or pattern)
    return ""


def _refusal_of_number(value: str, parameter: Mapping[str, Any]) -> str:
    if not re.fullmatch(r"-?\d+(\.\d+)?", value):
        return "must be a number"
    for key, word, is_beyond in (
        ("MinValue", "at least", float(value) < float(parameter.get("MinValue", value))),
        ("MaxValue", "at most", float(value) > float(parameter.get("MaxValue", value))),
    ):
        if is_beyond:
            return f"must be {word} {parameter[key]}"
    return ""


@cache
def declared(path: str) -> Mapping[str, Any]:
    """The parameters of a template below the project."""
    parameters: Mapping[str, Any] = load(PROJECT / path)["Parameters"]
    return parameters


@cache
def _passed_on() -> list[tuple[str, str, str]]:
    """A nested template, its parameter, and the outer one whose value it gets unchanged."""
    resources = load(PROJECT / TEMPLATE)["Resources"].values()
    return [
        (str(each["Properties"]["TemplateURL"]), inner, value["Ref"])
        for each in resources
        if each["Type"] == "AWS::CloudFormation::Stack"
        for inner, value in each["Properties"]["Parameters"].items()
        if isinstance(value, dict) and value.get("Ref") in declared(TEMPLATE)
    ]


def _broken_rules(values: Mapping[str, str]) -> Iterator[str]:
    """Of the template's Rules."""
    for rule in load(PROJECT / TEMPLATE).get("Rules", {}).values():
        if _holds(rule["RuleCondition"], values):
            for assertion in rule["Assertions"]:
                if not _holds(assertion["Assert"], values):
                    yield str(assertion["AssertDescription"])


def _holds(node: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    """Raises KeyError for a function that the template's rules don't use."""
    ((function, arguments),) = node.items()
    if function == "Fn::Not":
        return not _holds(arguments[0], values)
    assert function == "Fn::Equals", function
    one, other = (values[each["Ref"]] if isinstance(each, dict) else each for each in arguments)
    return str(one) == str(other)
