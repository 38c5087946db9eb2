"""The checks of `feedrank doctor` that ask AWS. Each yields a state and a text."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from feedops.errors import OperationError
from feedops.release import candidates
from feedops.release.account import Account
from feedops.release.code import changed_parts
from feedops.release.deployed import MODEL, Deployed, read_stack, served
from feedops.stack.build import BUILD
from feedops.stack.template import ACCOUNT, REGION, load, resolved
from feedops.stack.values import TEMPLATE, declared
from feedops.workspace import PROJECT

Answer = tuple[Literal["ok", "warning", "wrong"], str]
Parameters = Mapping[str, str] | None
UNRESERVED = 100  # of the account's concurrency, which Lambda keeps for every other function
CONCURRENCY, API_RATE = ("lambda", "L-B99A9384"), ("apigateway", "L-8A5B8E43")
KEYS = ("BundleKeyArn", "LogKeyArn")
ROLE = "infra/pipeline/role.yaml"
DEPLOY_ROLE = "infra/pipeline/deploy-role.yaml"
OF_GITHUB = dict.fromkeys(("Repository", "GitHubEnvironment", "ProviderArn"), "none")
OWN_ROLE = "sam deploy --role-arn gives it a role of its own"
_ASSUMED = re.compile(r"arn:([^:]+):sts::(\d+):assumed-role/([^/]+)/.+")


@dataclass(frozen=True, slots=True)
class Caller:
    account: str
    arn: str


def caller(account: Account) -> Caller:
    identity = account.client("sts").get_caller_identity()
    return Caller(identity["Account"], identity["Arn"])


def quotas(account: Account, _: Caller, name: str, parameters: Parameters) -> Iterator[Answer]:
    """Those that a deploy with these parameters would meet."""
    given = _values(account, name, parameters)
    needed = _concurrency(given)
    allowed = _quota(account, CONCURRENCY)
    text = f"concurrency: {needed:,.0f} needed, {allowed:,.0f} allowed"
    if needed > allowed:
        yield "wrong", f"{text}; raise it: Service Quotas, lambda, {CONCURRENCY[1]}"
    else:
        yield "ok", text
    rate, allowed = float(given["ThrottleRate"]), _quota(account, API_RATE)
    text = f"requests/s of the API: ThrottleRate={rate:.0f}, {allowed:,.0f} allowed for all APIs"
    yield ("warning" if rate > allowed else "ok"), text


def _concurrency(given: Mapping[str, str]) -> float:
    """What is reserved or kept ready comes out of what is left of the account's."""
    reserved = max(0, int(given["ReservedConcurrency"]))
    provisioned = int(given["ProvisionedMax"]) if given["WarmStart"] == "provisioned" else 0
    most = max(reserved, provisioned)
    return most + UNRESERVED if most else 1


def _quota(account: Account, quota: tuple[str, str]) -> float:
    service, code = quota
    answer = account.client("service-quotas").get_service_quota(ServiceCode=service, QuotaCode=code)
    return float(answer["Quota"]["Value"])


def rights(account: Account, who: Caller, name: str, parameters: Parameters) -> Iterator[Answer]:
    """Of the principal for a deploy and for a release, by IAM's own simulation."""
    if not name:
        return
    if parameters is not None:
        yield _simulated(account, who, f"a deploy of {name}", _of_deploy(name), DEPLOY_ROLE)
    stack = _stack_or_none(account, name)
    if stack is None:
        return
    yield _simulated(account, who, f"a release of {name}", _of_release(stack), ROLE)
    if stack.role:
        yield "ok", f"CloudFormation changes {name} as {stack.role}"
    else:
        yield "warning", f"CloudFormation changes {name} with the caller's rights: {OWN_ROLE}"


def _simulated(
    account: Account, who: Caller, purpose: str, statements: list[Mapping[str, Any]], role: str
) -> Answer:
    here = json.dumps(statements).replace(ACCOUNT, who.account)
    denied = {
        result["EvalActionName"]
        for statement in json.loads(here.replace(f":{REGION}:", f":{account.region}:"))
        for result in account.client("iam").simulate_principal_policy(
            PolicySourceArn=_principal(who.arn),
            ActionNames=_list(statement["Action"]),
            ResourceArns=_list(statement["Resource"]),
        )["EvaluationResults"]
        if result["EvalDecision"] != "allowed"
    }
    if denied:
        return "wrong", f"{purpose} needs {', '.join(sorted(denied))}; see {role}"
    return "ok", f"enough for {purpose}"


def _principal(arn: str) -> str:
    """A session's role: IAM simulates users and roles."""
    match = _ASSUMED.fullmatch(arn)
    return f"arn:{match[1]}:iam::{match[2]}:role/{match[3]}" if match else arn


def _of_release(stack: Deployed) -> list[Mapping[str, Any]]:
    """The statements of the role that releases, for this stack."""
    bucket = stack.outputs.get("BundleDestination", "s3://bundles/").split("/")[2]
    given = {"StackName": stack.name, "StackUuid": stack.uuid, "BundleBucketName": bucket}
    policy = resolved(load(PROJECT / ROLE), {**given, **OF_GITHUB})["Resources"]["ReleasePolicy"]
    statements: list[Mapping[str, Any]] = policy["Properties"]["PolicyDocument"]["Statement"]
    return statements


def _of_deploy(name: str) -> list[Mapping[str, Any]]:
    """The statements of the role that deploys, but for its own bucket and role."""
    template = load(PROJECT / DEPLOY_ROLE)
    policy = template["Resources"]["DeployRole"]["Properties"]["Policies"][0]
    ours = {"Statement": policy["PolicyDocument"]["Statement"][:2]}
    alone = {**template, "Resources": {"Policy": ours}, "Outputs": {}}
    policy = resolved(alone, {"StackName": name})["Resources"]["Policy"]
    statements: list[Mapping[str, Any]] = policy["Statement"]
    return statements


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def keys(account: Account, _: Caller, name: str, parameters: Parameters) -> Iterator[Answer]:
    """The KMS keys of bundles and logs."""
    given = _values(account, name, parameters)
    for parameter in KEYS:
        arn = given.get(parameter, "")
        if not arn:
            continue
        client = account.client("kms", arn.split(":")[3])
        key = client.describe_key(KeyId=arn)["KeyMetadata"]
        usable = key["KeyState"] == "Enabled" and key.get("KeyUsage") == "ENCRYPT_DECRYPT"
        text = f"{parameter}: {key['KeyState']}, {key.get('KeyUsage')}"
        yield ("ok" if usable else "wrong"), text


def bundle(account: Account, _: Caller, name: str, parameters: Parameters) -> Iterator[Answer]:
    """The one in S3, against /tmp and the kind of ids; that of the layer is checked here."""
    given = _values(account, name, parameters)
    if not candidates.is_published(given[MODEL]):
        return
    candidate = candidates.published(account, given[MODEL])
    wrong = [*candidates.objections(given, candidate)]
    for text in wrong:
        yield "wrong", text
    if not wrong:
        size = f"{candidate.container_bytes / 1e6:.1f} MB of {given['EphemeralStorage']} in /tmp"
        yield "ok", f"{candidate.manifest.model_version} in S3, {size}"


def change(account: Account, _: Caller, name: str, parameters: Parameters) -> Iterator[Answer]:
    """What is served now, and what a deploy would change."""
    stack = _stack_or_none(account, name)
    if stack is None:
        if name:
            yield "ok", f"there is no stack {name} in {account.region}: a deploy would create it"
        return
    state: Literal["ok", "wrong"] = "wrong" if "FAILED" in stack.status else "ok"
    if stack.status == "ROLLBACK_COMPLETE":
        state = "wrong"
    yield state, f"{name} is {stack.status}, {MODEL}={stack.model}"
    now = served(account, name)
    for version in now.versions:
        yield "ok", f"serves {version.weight:.0%} by {version}"
    if stack.is_moved(now):
        yield "wrong", f"the alias was moved from version {stack.version}; release with --realign"
    yield from _differences(stack, parameters or {})


def _differences(stack: Deployed, parameters: Mapping[str, str]) -> Iterator[Answer]:
    """Of parameters: a deploy keeps those that are not given."""
    for name, value in parameters.items():
        before = stack.parameters.get(name)
        if before is not None and before != value:
            yield "warning", f"a deploy would change {name}: {before} to {value}"
    template = declared(TEMPLATE)
    added = [name for name in template if name not in stack.parameters]
    if added:
        yield "ok", f"a deploy would add the parameters {', '.join(added)}"
    gone = [name for name in stack.parameters if name not in template]
    if gone:
        yield "warning", f"a deploy would remove the parameters {', '.join(gone)}"


def _values(account: Account, name: str, parameters: Parameters) -> dict[str, str]:
    """As they would be after a deploy: given, else those of the stack, else the defaults."""
    stack = _stack_or_none(account, name)
    defaults = {n: str(each.get("Default", "")) for n, each in declared(TEMPLATE).items()}
    return {**defaults, **(stack.parameters if stack else {}), **(parameters or {})}


def _stack_or_none(account: Account, name: str) -> Deployed | None:
    if not name:
        return None
    try:
        return read_stack(account, name)
    except OperationError as error:
        if "there is no such stack" in str(error):
            return None
        raise


def code(account: Account, _: Caller, name: str, parameters: Parameters) -> Iterator[Answer]:
    """The build against what the stack runs."""
    if parameters is None or not BUILD.is_dir() or _stack_or_none(account, name) is None:
        return
    parts = changed_parts(account, name, BUILD)
    if parts:
        yield "warning", f"a deploy would replace {', '.join(parts)}: the build differs"
    else:
        yield "ok", "the build is what is deployed"


Check = Callable[[Account, Caller, str, Parameters], Iterator[Answer]]
CHECKS: Mapping[str, Check] = {
    "quotas": quotas,
    "rights": rights,
    "keys": keys,
    "in S3": bundle,
    "stack": change,
    "code": code,
}
