"""The scanners of a template: Guard, cfn-lint, checkov and our own checks.

Ours cover what the scanners miss: TLS policies, wildcards with their exceptions, routes without
auth, the alias, the requirements of the decision log.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import guardpycfn
from cfnlint import api as cfnlint
from cfnlint.config import ManualArgs

from stack.transform import PSEUDO

RULES = (Path(__file__).parent / "rules.guard").read_text()
CHECKOV = Path(__file__).parents[2] / ".venv-scan" / "bin" / "checkov"
REGION = PSEUDO["AWS::Region"]
FUNCTION_ARN = f"arn:aws:lambda:{REGION}:{PSEUDO['AWS::AccountId']}:function"
OPEN_ROUTES = {"GET /health"}
WHOLE_TYPE = re.compile(r"arn:[^:]*:(?!s3:)[^:]*:[^:]*:[^:]*:(\*|[a-z-]+[:/]\*)")
LOG_LEVELS_THAT_KEEP_RECORDS = {"TRACE", "DEBUG", "INFO"}

Resources = Mapping[str, Any]


class Finding(NamedTuple):
    check: str
    resource: str  # logical id


def of_guard(template: Mapping[str, Any]) -> set[Finding]:
    """`template` with its conditions decided."""
    report = guardpycfn.validate_with_guard(json.dumps(template), RULES, verbose=False)
    assert report["success"], report
    return {
        Finding(violation["Rule"]["name"], resource)
        for violation in report["result"]["not_compliant"]
        for resource in set(re.findall(r"/Resources/(\w+)", json.dumps(violation))) or {"?"}
    }


def of_ours(template: Mapping[str, Any]) -> set[Finding]:
    """`template` with its conditions decided."""
    resources = template["Resources"]
    return {
        Finding(check.__name__, resource) for check in OUR_CHECKS for resource in check(resources)
    }


def of_cfnlint(template: Mapping[str, Any]) -> set[Finding]:
    """Errors and warnings; `template` after SAM, with its conditions undecided."""
    matches = cfnlint.lint(json.dumps(template, default=str), config=ManualArgs(regions=[REGION]))
    return {
        Finding(match.rule.id, str((match.path or ["", "?"])[1] if match.path else "?"))
        for match in matches
    }


def of_checkov(
    templates: Mapping[str, Mapping[str, Any]], directory: Path
) -> dict[str, set[Finding]]:
    """By the templates' names. One process for all, because most of its time is start-up."""
    for name, template in templates.items():
        (directory / f"{name}.json").write_text(json.dumps(template, default=str))
    command = [
        CHECKOV,
        "--directory",
        directory,
        "--framework",
        "cloudformation",
        "--output",
        "json",
    ]
    process = subprocess.run(
        [*command, "--skip-download", "--quiet", "--compact"],
        capture_output=True,
        text=True,
        check=False,  # it exits with 1 if there are findings
        env={"PATH": "/usr/bin:/bin", "HOME": str(directory)},
    )
    findings: dict[str, set[Finding]] = {name: set() for name in templates}
    report = json.loads(process.stdout)
    assert report["summary"]["parsing_errors"] == 0, process.stderr
    for failure in report["results"]["failed_checks"]:
        name = Path(failure["file_path"]).stem
        findings[name].add(Finding(failure["check_id"], failure["resource"].rpartition(".")[2]))
    return findings


# ---- Our own checks: each yields the logical ids of violations -----------------------------------


def _of_type(resources: Resources, *types: str) -> Iterator[tuple[str, Any]]:
    for name, resource in resources.items():
        if resource["Type"] in types:
            yield name, resource["Properties"]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _statements(resources: Resources) -> Iterator[tuple[str, dict[str, Any]]]:
    """The statements of every policy: inline ones of roles, and those of buckets and topics."""
    for name, resource in resources.items():
        properties = resource.get("Properties", {})
        documents = [policy["PolicyDocument"] for policy in properties.get("Policies", ())]
        documents += [properties[key] for key in ("PolicyDocument",) if key in properties]
        for document in documents:
            yield from ((name, statement) for statement in document["Statement"])


def _allowed(resources: Resources) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((name, one) for name, one in _statements(resources) if one["Effect"] == "Allow")


def a_bucket_accepts_tls_only(resources: Resources) -> Iterator[str]:
    denied: dict[str, set[str]] = {}
    for _, policy in _of_type(resources, "AWS::S3::BucketPolicy"):
        for statement in policy["PolicyDocument"]["Statement"]:
            insecure = statement.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}
            everything = (statement["Effect"], statement["Principal"], statement["Action"])
            if insecure and everything == ("Deny", "*", "s3:*"):
                denied.setdefault(policy["Bucket"], set()).update(_as_list(statement["Resource"]))
    for name, _ in _of_type(resources, "AWS::S3::Bucket"):
        if denied.get(f"${{{name}}}") != {f"${{{name}.Arn}}", f"${{{name}.Arn}}/*"}:
            yield name


def no_policy_allows_every_action(resources: Resources) -> Iterator[str]:
    for name, statement in _allowed(resources):
        if "NotAction" in statement or any("*" in one for one in _as_list(statement["Action"])):
            yield name


def no_policy_allows_every_resource(resources: Resources) -> Iterator[str]:
    for name, statement in _allowed(resources):
        named = _as_list(statement.get("Resource", "*"))
        if any(one == "*" or WHOLE_TYPE.fullmatch(one) for one in named):
            yield name


def only_named_principals_are_trusted(resources: Resources) -> Iterator[str]:
    for name, role in _of_type(resources, "AWS::IAM::Role"):
        for statement in role["AssumeRolePolicyDocument"]["Statement"]:
            if set(statement["Principal"]) != {"Service"} or statement["Principal"] == "*":
                yield name
    for name, statement in _allowed(resources):
        if statement.get("Principal") in ("*", {"AWS": "*"}):
            yield name


def a_service_acts_for_this_account_only(resources: Resources) -> Iterator[str]:
    """For services that other accounts could direct at our role (the confused deputy)."""
    for name, role in _of_type(resources, "AWS::IAM::Role"):
        for statement in role["AssumeRolePolicyDocument"]["Statement"]:
            service = statement["Principal"].get("Service", "")
            if service in ("firehose.amazonaws.com", "logs.amazonaws.com"):
                conditions = json.dumps(statement.get("Condition", {}))
                if "aws:SourceAccount" not in conditions and "aws:SourceArn" not in conditions:
                    yield name
    for name, permission in _of_type(resources, "AWS::Lambda::Permission"):
        if not {"SourceAccount", "SourceArn"} & set(permission):
            yield name


def a_route_requires_auth(resources: Resources) -> Iterator[str]:
    for name, route in _of_type(resources, "AWS::ApiGatewayV2::Route"):
        if route["RouteKey"] not in OPEN_ROUTES and route.get("AuthorizationType") not in (
            "AWS_IAM",
            "JWT",
        ):
            yield name


def callers_reach_the_alias(resources: Resources) -> Iterator[str]:
    """By a reference or, where `sam local` has to find the function's name, by the ARN."""
    aliases = {f"${{{name}}}" for name, _ in _of_type(resources, "AWS::Lambda::Alias")}
    aliases |= {
        f"{FUNCTION_ARN}:{alias['FunctionName']}:{alias['Name']}"
        for _, alias in _of_type(resources, "AWS::Lambda::Alias")
    }
    for name, integration in _of_type(resources, "AWS::ApiGatewayV2::Integration"):
        if integration["IntegrationUri"] not in aliases:
            yield name
    for name, permission in _of_type(resources, "AWS::Lambda::Permission"):
        if permission["Principal"] == "apigateway.amazonaws.com" and (
            permission["FunctionName"] not in aliases
        ):
            yield name


def no_log_level_drops_decision_records(resources: Resources) -> Iterator[str]:
    """Lines without a level count as INFO; cost metrics derive from the platform's INFO lines."""
    for name, function in _of_type(resources, "AWS::Lambda::Function"):
        logging = function.get("LoggingConfig", {})
        ranks = "MODEL_FALLBACK" in function.get("Environment", {}).get("Variables", {})
        if ranks and (
            logging.get("ApplicationLogLevel", "INFO") not in LOG_LEVELS_THAT_KEEP_RECORDS
            or logging.get("SystemLogLevel", "INFO") not in ("DEBUG", "INFO")
        ):
            yield name


def a_subscribed_stream_unwraps(resources: Resources) -> Iterator[str]:
    """CloudWatch's envelopes need both processors; a stream with them accepts nothing else."""
    unwrapping = ["Decompression", "CloudWatchLogProcessing"]
    subscribed = {
        one["DestinationArn"] for _, one in _of_type(resources, "AWS::Logs::SubscriptionFilter")
    }
    for name, stream in _of_type(resources, "AWS::KinesisFirehose::DeliveryStream"):
        destination = stream["ExtendedS3DestinationConfiguration"]
        processors = [one["Type"] for one in destination["ProcessingConfiguration"]["Processors"]]
        expected = f"${{{name}.Arn}}" in subscribed
        if (processors[:2] == unwrapping) is not expected:
            yield name


NAMES_OF_SECRETS = {"RECORD_ID_KEY_SECRET"}


def no_secret_is_in_the_environment(resources: Resources) -> Iterator[str]:
    secret = re.compile("SECRET|PASSWORD|TOKEN|(API|ID)_KEY|CREDENTIAL")
    for name, function in _of_type(resources, "AWS::Lambda::Function"):
        variables = function.get("Environment", {}).get("Variables", {})
        if any(map(secret.search, variables.keys() - NAMES_OF_SECRETS)):
            yield name


OUR_CHECKS: Sequence[Callable[[Resources], Iterator[str]]] = (
    a_bucket_accepts_tls_only,
    no_policy_allows_every_action,
    no_policy_allows_every_resource,
    only_named_principals_are_trusted,
    a_service_acts_for_this_account_only,
    a_route_requires_auth,
    callers_reach_the_alias,
    no_log_level_drops_decision_records,
    a_subscribed_stream_unwraps,
    no_secret_is_in_the_environment,
)
