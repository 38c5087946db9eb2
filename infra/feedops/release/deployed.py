"""A deployed stack: its state, its parameters, and what its alias serves."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feedops.errors import OperationError
from feedops.release.account import Account, code_of, message_of
from feedrank.bundle.layout import digest_in

ALIAS = "live"
MODEL = "ModelUri"  # the parameter that names the bundle
# SAM's logical ids of CodeDeploy's resources.
APPLICATION, GROUP = "ServerlessDeploymentApplication", "FunctionDeploymentGroup"
HOOK = "CodeDeployHook_feedrank-"  # then the UUID of the stack


@dataclass(frozen=True, slots=True)
class Deployed:
    """`parameters` has every parameter of the template with its value."""

    name: str
    id: str  # the stack's ARN
    status: str
    parameters: Mapping[str, str]
    outputs: Mapping[str, str]
    capabilities: frozenset[str]
    role: str  # with which CloudFormation changes its resources; empty for the caller's own rights

    @property
    def model(self) -> str:
        return self.parameters[MODEL]

    @property
    def version(self) -> str:
        """The version that CloudFormation has given the alias; empty where the stack has none."""
        return self.outputs.get("FunctionVersion", "")

    @property
    def uuid(self) -> str:
        return self.id.rsplit("/", maxsplit=1)[-1]

    @property
    def is_changing(self) -> bool:
        return self.status.endswith("_IN_PROGRESS")

    def is_moved(self, now: "Served") -> bool:
        """Whether the alias points to another version than CloudFormation has given it."""
        return self.version not in ("", now.alias_version)


def read_stack(account: Account, name: str) -> Deployed:
    """Raises OperationError where there is no such stack, or where it isn't one of feedrank."""
    from botocore.exceptions import ClientError

    try:
        (stack,) = account.cloudformation.describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        if code_of(error) != "ValidationError" or "does not exist" not in message_of(error):
            raise
        raise OperationError(
            f"{name}: there is no such stack in {account.region}\n"
            "set AWS_REGION and AWS_PROFILE to where it is, or deploy it: "
            "make build && sam deploy --config-env dev"
        ) from error
    parameters = {p["ParameterKey"]: p["ParameterValue"] for p in stack.get("Parameters", ())}
    if MODEL not in parameters:
        raise OperationError(f"{name}: has no parameter {MODEL}, so it is no stack of feedrank")
    return Deployed(
        name=stack["StackName"],
        id=stack["StackId"],
        status=stack["StackStatus"],
        parameters=parameters,
        outputs={o["OutputKey"]: o["OutputValue"] for o in stack.get("Outputs", ())},
        capabilities=frozenset(stack.get("Capabilities", ())),
        role=stack.get("RoleARN", ""),
    )


@dataclass(frozen=True, slots=True)
class Version:
    """A published version of the function. `weight` is its share of the alias's traffic."""

    number: str
    model: str  # MODEL_URI
    digest: str  # empty where only GET /model can tell: the layer's bundle, not pinned
    published: str
    weight: float = 0.0
    state: str = ""  # Active, Pending, Inactive, Failed; empty in a list of versions
    state_reason: str = ""
    is_updating: bool = False

    def __str__(self) -> str:
        return f"version {self.number}: {self.model or 'no MODEL_URI'}"

    @property
    def is_ready(self) -> bool:
        return self.state == "Active" and not self.is_updating

    @property
    def model_name(self) -> str:
        """Of a bundle in S3 the directory above its digest."""
        return self.model.rstrip("/").split("/")[-2] if "/sha256-" in self.model else "layer"


@dataclass(frozen=True, slots=True)
class Served:
    """`alias_version` is the version that the alias points to; `versions` all that get traffic."""

    alias_version: str
    revision: str  # of the alias, so that a change in between is noticed
    versions: tuple[Version, ...]

    @property
    def models(self) -> set[str]:
        return {version.model.rstrip("/") for version in self.versions}


def served(account: Account, name: str) -> Served:
    """What the alias of the stack `name` serves."""
    alias = account.functions.get_alias(FunctionName=name, Name=ALIAS)
    routing = alias.get("RoutingConfig") or {}
    weights: dict[str, float] = dict(routing.get("AdditionalVersionWeights") or {})
    current: str = alias["FunctionVersion"]
    weights[current] = 1.0 - sum(weights.values())
    versions = [
        read_version(account, name, number, weight)
        for number, weight in weights.items()
        if weight > 0
    ]
    versions.sort(key=lambda version: -version.weight)
    return Served(current, alias["RevisionId"], tuple(versions))


def read_version(account: Account, name: str, number: str, weight: float = 0.0) -> Version:
    return _version(
        account.functions.get_function_configuration(FunctionName=name, Qualifier=number), weight
    )


def published_versions(account: Account, name: str) -> list[Version]:
    """All that are still there, the newest first."""
    pages = account.functions.get_paginator("list_versions_by_function")
    versions = [
        _version(configuration)
        for page in pages.paginate(FunctionName=name)
        for configuration in page["Versions"]
        if configuration["Version"].isdecimal()  # not $LATEST
    ]
    return sorted(versions, key=lambda version: -int(version.number))


def _version(configuration: Mapping[str, Any], weight: float = 0.0) -> Version:
    variables = configuration.get("Environment", {}).get("Variables", {})
    model = variables.get("MODEL_URI", "")
    return Version(
        number=configuration["Version"],
        model=model,
        digest=digest_in(model) or variables.get("MODEL_DIGEST", ""),
        published=re.sub(r"\.\d+(\+0000|Z)$", "Z", configuration.get("LastModified", "")),
        weight=weight,
        state=configuration.get("State", ""),
        state_reason=configuration.get("StateReason", ""),
        is_updating=configuration.get("LastUpdateStatus") == "InProgress",
    )
