"""CodeDeploy's part of a release: the hook before traffic, the shift of traffic, the alarms."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from feedops.release.account import DENIED, Account, code_of
from feedops.release.deployed import APPLICATION, GROUP, HOOK, Deployed

HOOK_EVENT = "BeforeAllowTraffic"
BATCH = 25  # what BatchGetDeployments takes
FINISHED = {"Succeeded", "Failed", "Stopped"}
UNFINISHED = ["Created", "Queued", "InProgress", "Baking", "Ready"]


@dataclass(frozen=True, slots=True)
class Shift:
    """One deployment. `weight` is the new version's share of traffic, in percent."""

    id: str
    status: str
    error: str  # CodeDeploy's reason; empty while there is none
    hook: str  # Pending, InProgress, Succeeded, Failed, Skipped
    version: str
    weight: float

    def lines(self) -> list[str]:
        """What there is to say of it; empty before anything happened."""
        if self.hook in ("", "Pending"):
            return []
        verdicts = {
            "InProgress": "the hook sends the golden requests to the new version",
            "Succeeded": "the hook accepts the new version",
            "Failed": "the hook refuses the new version",
        }
        lines = [verdicts.get(self.hook, f"the hook: {self.hook}")]
        if self.hook == "Succeeded":
            lines.append(f"version {self.version} gets {self.weight:.0f} % of the traffic")
        if self.status in FINISHED:
            lines.append(f"CodeDeploy: {self.id} {self.status.lower()}")
        return lines


class Shifts:
    """The deployments of a stack, of an update those since its `start`, by the clock of AWS."""

    def __init__(self, account: Account, stack: Deployed, start: datetime | None = None) -> None:
        self._account = account
        self._stack = stack
        self._start = start
        self._names: dict[str, str] = {}

    def first(self) -> Shift | None:
        """The one of the update: a roll-back is another. None before CodeDeploy has begun, and for
        a stack without an alias that it shifts."""
        return self._earliest({"createTimeRange": {"start": self._start}})

    def under_way(self) -> Shift | None:
        return self._earliest({"includeOnlyStatuses": UNFINISHED})

    def _earliest(self, those: Mapping[str, Any]) -> Shift | None:
        names = self._names or self._find_names()
        if not names:
            return None
        deployments = self._account.deployments
        ids = deployments.list_deployments(**names, **those)["deployments"]
        if not ids:
            return None
        infos = deployments.batch_get_deployments(deploymentIds=ids[:BATCH])["deploymentsInfo"]
        deployment = min(infos, key=lambda info: info["createTime"])
        return _shift(deployment, self._target(deployment["deploymentId"]))

    def _find_names(self) -> dict[str, str]:
        """CloudFormation made the names up."""
        resources = self._account.cloudformation.describe_stack_resources(
            StackName=self._stack.name
        )["StackResources"]
        found = {r["LogicalResourceId"]: r.get("PhysicalResourceId", "") for r in resources}
        if found.get(APPLICATION) and found.get(GROUP):
            self._names = {
                "applicationName": found[APPLICATION],
                "deploymentGroupName": found[GROUP],
            }
        return self._names

    def _target(self, deployment: str) -> Mapping[str, Any]:
        targets = self._account.deployments.list_deployment_targets(deploymentId=deployment)
        if not targets.get("targetIds"):
            return {}
        found = self._account.deployments.batch_get_deployment_targets(
            deploymentId=deployment, targetIds=targets["targetIds"][:1]
        )["deploymentTargets"]
        target: Mapping[str, Any] = found[0].get("lambdaTarget", {}) if found else {}
        return target


def _shift(deployment: Mapping[str, Any], target: Mapping[str, Any]) -> Shift:
    lifecycle = {
        event["lifecycleEventName"]: event["status"] for event in target.get("lifecycleEvents", ())
    }
    function = target.get("lambdaFunctionInfo", {})
    return Shift(
        id=deployment["deploymentId"],
        status=deployment["status"],
        error=deployment.get("errorInformation", {}).get("message", ""),
        hook=lifecycle.get(HOOK_EVENT, ""),
        version=function.get("targetVersion", ""),
        weight=function.get("targetVersionWeight", 0.0),
    )


def alarms(account: Account, stack: Deployed, part: str = "") -> dict[str, tuple[str, str]]:
    """State and its reason by the alarm's name, which begins with the stack's and a slash."""
    pages = account.alarms.get_paginator("describe_alarms")
    return {
        alarm["AlarmName"]: (alarm["StateValue"], alarm.get("StateReason", ""))
        for page in pages.paginate(AlarmNamePrefix=f"{stack.name}/{part}")
        for alarm in page["MetricAlarms"]
    }


def refusal_by_hook(account: Account, stack: Deployed, start: datetime) -> str:
    """Why the hook refused the version, as it has logged it; empty where its log says nothing or
    can't be read."""
    for line in _errors_of_hook(account, stack, start):
        with suppress(ValueError):
            record = json.loads(line)
            reason: str = record.get("errorMessage") or record.get("message", "")
            return reason
    return ""


def _errors_of_hook(account: Account, stack: Deployed, start: datetime) -> Iterator[str]:
    from botocore.exceptions import ClientError

    pages = account.logs.get_paginator("filter_log_events")
    try:
        for page in pages.paginate(
            logGroupName=f"/aws/lambda/{HOOK}{stack.uuid}",
            startTime=int(start.timestamp() * 1000),
            filterPattern='{ $.level = "ERROR" }',
        ):
            for event in page["events"]:
                yield event["message"]
    except ClientError as error:
        if code_of(error) not in DENIED | {"ResourceNotFoundException"}:
            raise
