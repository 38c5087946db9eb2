"""AWS during a release, as its API reference describes the responses.

moto's CloudFormation has no alias, never fails an update and knows no roll-back, and its CodeDeploy
runs no deployment. Here the calls of boto3 are answered in this process, and both directions are
checked against botocore's models of the services: a parameter or a field that AWS doesn't have
fails the test.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import boto3
import botocore.loaders
import botocore.session
import pytest
from botocore import xform_name
from botocore.awsrequest import AWSResponse
from botocore.validate import ParamValidator

import fakes
from stack.transform import template

NAME, REGION, ACCOUNT = "feedrank-prod", "eu-west-1", "123456789012"
UUID = "1c2fa620-982a-11e3-aff7-50e2416294e0"
STACK_ID = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{NAME}/{UUID}"
DELIVERY_ID = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{NAME}-Delivery-1AB/5d"
CHANGE_SET = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:changeSet/feedrank-release/1"
DEPLOYMENT = "d-ABCDEF123"
BEGIN = datetime(2026, 11, 25, 9, 0, 0, tzinfo=UTC)
HOOK_LOG = f"/aws/lambda/CodeDeployHook_feedrank-{UUID}"
Json = Any


def _manifest(version: str, ids: str) -> bytes:
    document = asdict(fakes.manifest(version))
    del document["digest"]
    document["feature_spec"] = {**document["feature_spec"], "ids": ids}
    return json.dumps({"format": 4, **document}).encode()


def bundle(version: str, ids: str = "number") -> tuple[str, bytes]:
    """A published bundle's URI and its manifest."""
    raw = _manifest(version, ids)
    return f"s3://bundles/bundles/feed_ranker/sha256-{sha256(raw).hexdigest()}/", raw


LOADER = botocore.loaders.create_loader()  # reads the services' models once for all sessions
OLD, NEW, TEXTS = bundle("3"), bundle("4"), bundle("5", "text")


@dataclass(frozen=True)
class Frame:
    """What AWS shows at one moment of an update. Events are (resource, status, reason)."""

    events: tuple[tuple[str, str, str], ...] = ()
    hook: str = ""
    weight: float = 0.0
    status: str = "InProgress"
    error: str = ""
    alias: tuple[str, dict[str, float]] | None = None
    alarm: str = ""


ALIAS = "FunctionAliaslive"
PASSES = (  # a release in prod
    Frame(((NAME, "UPDATE_IN_PROGRESS", "User Initiated"),)),
    Frame((("Function", "UPDATE_COMPLETE", ""), (ALIAS, "UPDATE_IN_PROGRESS", ""))),
    Frame(hook="InProgress"),
    Frame(hook="Succeeded", weight=10.0, alias=("42", {"43": 0.1})),
    Frame(hook="Succeeded", weight=10.0, alias=("42", {"43": 0.1})),
    Frame(
        (
            (ALIAS, "UPDATE_COMPLETE", ""),
            (NAME, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", ""),
        ),
        hook="Succeeded",
        weight=100.0,
        status="Succeeded",
        alias=("43", {}),
    ),
)


class RefusedError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.error = {"Code": code, "Message": message}


@dataclass
class RecordedAws:
    """`frames` follow each other whenever events are read after the update has begun."""

    frames: list[Frame] = field(default_factory=list)
    model: str = OLD[0]
    stack_status: str = "UPDATE_COMPLETE"
    stack_version: str = "42"
    alias: tuple[str, dict[str, float]] = ("42", {})
    versions: dict[str, str] = field(
        default_factory=lambda: {"40": "/opt/model", "41": "/opt/model", "42": OLD[0]}
    )
    alarm_states: dict[str, str] = field(
        default_factory=lambda: {"release-latency": "OK", "server-errors": "OK"}
    )
    hook_log: list[str] = field(default_factory=list)
    nested_events: list[tuple[str, str, str]] = field(default_factory=list)
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)  # by operation
    change_set_failure: str = ""
    quotas: dict[str, float] = field(
        default_factory=lambda: {"L-B99A9384": 1_000.0, "L-8A5B8E43": 10_000.0}
    )
    denied: set[str] = field(default_factory=set)  # actions, in IAM's simulation
    key_state: str = "Enabled"
    parameters: dict[str, str] = field(default_factory=dict)  # besides the defaults
    role: str = ""  # of the stack
    becomes: list[str] = field(default_factory=list)  # its states, whenever it is read
    template: str = ""  # as it was deployed
    # Of a version, one after the other; by default it is active.
    states: dict[str, list[str]] = field(default_factory=dict)
    calls: list[tuple[str, Json]] = field(default_factory=list)
    services: list[str] = field(default_factory=list)  # of the calls
    _frame: Frame = field(default_factory=Frame)
    _events: list[Json] = field(default_factory=list)
    _running: bool = False

    def __post_init__(self) -> None:
        self._add_event((NAME, self.stack_status, ""))

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "RecordedAws":
        session = botocore.session.Session()
        session.register_component("data_loader", LOADER)
        session.set_credentials("testing", "testing")
        session.register("before-parameter-build.*.*", self._remember)
        session.register("before-call.*.*", self._respond)
        monkeypatch.setattr(
            boto3, "DEFAULT_SESSION", boto3.Session(botocore_session=session, region_name=REGION)
        )
        for module in ("follow", "change_set", "ready", "release"):
            monkeypatch.setattr(f"feedops.release.{module}.POLL_S", 0)
        return self

    def called(self, operation: str) -> list[Json]:
        return [parameters for name, parameters in self.calls if name == operation]

    @property
    def actions(self) -> list[str]:
        """The operations, without those that only read."""
        reads = ("Describe", "Get", "List", "Filter", "BatchGet")
        return [name for name, _ in self.calls if not name.startswith(reads)]

    # ---- botocore ----

    def _remember(self, params: Json, context: Json, **_: Json) -> None:
        context["parameters"] = dict(params)

    def _respond(self, model: Json, context: Json, **_: Json) -> Json:
        parameters = context["parameters"]
        self.calls.append((model.name, parameters))
        self.services.append(model.service_model.service_name)
        try:
            response = self._answer(model.name, parameters)
        except RefusedError as refusal:
            return AWSResponse("", 400, {}, None), {"Error": refusal.error, "ResponseMetadata": {}}
        if model.output_shape:
            report = ParamValidator().validate(response, model.output_shape)
            assert not report.has_errors(), f"{model.name}: {report.generate_report()}"
        return AWSResponse("", 200, {}, None), {**response, "ResponseMetadata": {}}

    def _answer(self, operation: str, parameters: Json) -> Json:
        if operation in self.refused:
            raise RefusedError(*self.refused[operation])
        return getattr(self, xform_name(operation))(parameters)

    # ---- CloudFormation ----

    def describe_stacks(self, parameters: Json) -> Json:
        if self.becomes:
            self.stack_status = self.becomes.pop(0)
        if parameters["StackName"] != NAME:
            text = f"Stack with id {parameters['StackName']} does not exist"
            raise RefusedError("ValidationError", text)
        values = {
            name: str(parameter.get("Default", "prod"))
            for name, parameter in template()["Parameters"].items()
        } | {"ModelUri": self.model, **self.parameters}
        outputs = {
            "BundleDestination": "s3://bundles/bundles/",
            "FunctionVersion": self.stack_version,
        }
        stack = {
            "StackName": NAME,
            "StackId": STACK_ID,
            "CreationTime": BEGIN,
            "StackStatus": self.stack_status,
            "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            "Parameters": [{"ParameterKey": k, "ParameterValue": v} for k, v in values.items()],
            "Outputs": [{"OutputKey": k, "OutputValue": v} for k, v in outputs.items()],
        }
        return {"Stacks": [stack | ({"RoleARN": self.role} if self.role else {})]}

    def get_template(self, parameters: Json) -> Json:
        assert parameters == {"StackName": NAME, "TemplateStage": "Original"}
        return {"TemplateBody": self.template}

    def create_change_set(self, parameters: Json) -> Json:
        assert parameters["StackName"] == NAME
        return {"Id": CHANGE_SET, "StackId": STACK_ID}

    def describe_change_set(self, parameters: Json) -> Json:
        assert parameters["ChangeSetName"] == CHANGE_SET
        if self.change_set_failure:
            return {"Status": "FAILED", "StatusReason": self.change_set_failure}
        page = 2 if parameters.get("NextToken") else 1
        changes = {
            1: [("Function", "AWS::Lambda::Function", "False")],
            2: [("FunctionVersion1f", "AWS::Lambda::Version", "True")],
        }[page]
        described = {
            "Status": "CREATE_COMPLETE",
            "Changes": [
                {
                    "Type": "Resource",
                    "ResourceChange": {
                        "Action": "Modify",
                        "LogicalResourceId": name,
                        "ResourceType": kind,
                        "Replacement": replacement,
                    },
                }
                for name, kind, replacement in changes
            ],
        }
        return described | ({"NextToken": "2"} if page == 1 else {})

    def delete_change_set(self, parameters: Json) -> Json:
        assert parameters["ChangeSetName"] == CHANGE_SET
        return {}

    def execute_change_set(self, parameters: Json) -> Json:
        assert parameters["ChangeSetName"] == CHANGE_SET
        self._running = True
        return {}

    def cancel_update_stack(self, _: Json) -> Json:
        self._running = True
        return {}

    def describe_stack_events(self, parameters: Json) -> Json:
        if parameters["StackName"] == DELIVERY_ID:
            events = [
                self._event(at, each, DELIVERY_ID) for at, each in enumerate(self.nested_events)
            ]
            return {"StackEvents": events[::-1]}
        assert parameters["StackName"] == STACK_ID
        if self._running:
            self._next()
        return {"StackEvents": self._events[::-1]}

    def describe_stack_resources(self, _: Json) -> Json:
        names = {
            "ServerlessDeploymentApplication": ("AWS::CodeDeploy::Application", "app-1"),
            "FunctionDeploymentGroup": ("AWS::CodeDeploy::DeploymentGroup", "group-1"),
        }
        return {
            "StackResources": [
                {
                    "LogicalResourceId": logical,
                    "PhysicalResourceId": physical,
                    "ResourceType": kind,
                    "Timestamp": BEGIN,
                    "ResourceStatus": "CREATE_COMPLETE",
                }
                for logical, (kind, physical) in names.items()
            ]
        }

    def _next(self) -> None:
        if not self.frames:
            raise AssertionError("the update is over, and is followed all the same")
        self._frame = self.frames.pop(0)
        if self._frame.alias:
            self.alias = self._frame.alias
        for event in self._frame.events:
            self._add_event(event)

    def _add_event(self, event: tuple[str, str, str]) -> None:
        self._events.append(self._event(len(self._events), event, STACK_ID))

    @staticmethod
    def _event(number: int, event: tuple[str, str, str], stack_id: str) -> Json:
        resource, status, reason = event
        kinds = {
            NAME: ("AWS::CloudFormation::Stack", stack_id),
            "Delivery": ("AWS::CloudFormation::Stack", DELIVERY_ID),
            "FunctionAliaslive": ("AWS::Lambda::Alias", f"{NAME}:live"),
        }
        kind, physical = kinds.get(resource, ("AWS::Lambda::Function", resource.lower()))
        described = {
            "StackId": stack_id,
            "EventId": f"{stack_id}-{number}",
            "StackName": NAME,
            "LogicalResourceId": resource,
            "PhysicalResourceId": physical,
            "ResourceType": kind,
            "Timestamp": BEGIN + timedelta(seconds=number),
            "ResourceStatus": status,
        }
        return described | ({"ResourceStatusReason": reason} if reason else {})

    # ---- CodeDeploy ----

    def list_deployments(self, parameters: Json) -> Json:
        assert parameters["applicationName"] == "app-1"
        assert parameters["deploymentGroupName"] == "group-1"
        return {"deployments": ["d-ROLLBACK1", DEPLOYMENT] if self._frame.hook else []}

    def batch_get_deployments(self, parameters: Json) -> Json:
        """A roll-back is a deployment of its own, and later."""
        assert parameters["deploymentIds"] == ["d-ROLLBACK1", DEPLOYMENT]
        first = {"deploymentId": DEPLOYMENT, "status": self._frame.status, "createTime": BEGIN}
        if self._frame.error:
            first["errorInformation"] = {"code": "ALARM_ACTIVE", "message": self._frame.error}
        second = {
            "deploymentId": "d-ROLLBACK1",
            "status": "Succeeded",
            "createTime": BEGIN + timedelta(minutes=9),
            "creator": "codeDeployRollback",
        }
        return {"deploymentsInfo": [second, first]}

    def list_deployment_targets(self, parameters: Json) -> Json:
        assert parameters["deploymentId"] == DEPLOYMENT
        return {"targetIds": [f"{NAME}:live"]}

    def batch_get_deployment_targets(self, parameters: Json) -> Json:
        assert parameters == {"deploymentId": DEPLOYMENT, "targetIds": [f"{NAME}:live"]}
        target = {
            "deploymentId": DEPLOYMENT,
            "targetId": f"{NAME}:live",
            "status": "InProgress",
            "lifecycleEvents": [
                {"lifecycleEventName": "BeforeAllowTraffic", "status": self._frame.hook},
                {"lifecycleEventName": "AllowTraffic", "status": "InProgress"},
            ],
            "lambdaFunctionInfo": {
                "functionName": NAME,
                "functionAlias": "live",
                "currentVersion": "42",
                "targetVersion": "43",
                "targetVersionWeight": self._frame.weight,
            },
        }
        return {
            "deploymentTargets": [{"deploymentTargetType": "LambdaTarget", "lambdaTarget": target}]
        }

    # ---- Lambda ----

    def get_alias(self, parameters: Json) -> Json:
        assert parameters == {"FunctionName": NAME, "Name": "live"}
        version, extra = self.alias
        alias: dict[str, Json] = {"Name": "live", "FunctionVersion": version, "RevisionId": "r-1"}
        return alias | ({"RoutingConfig": {"AdditionalVersionWeights": extra}} if extra else {})

    def update_alias(self, parameters: Json) -> Json:
        assert parameters["RevisionId"] == "r-1"
        weights = parameters["RoutingConfig"]["AdditionalVersionWeights"]
        self.alias = (parameters["FunctionVersion"], weights)
        return {"FunctionVersion": parameters["FunctionVersion"]}

    def get_function_configuration(self, parameters: Json) -> Json:
        version = parameters["Qualifier"]
        left = self.states.get(version) or ["Active"]
        state = left.pop(0) if len(left) > 1 else left[0]
        return self._configuration(version) | {"State": state, "LastUpdateStatus": "Successful"}

    def invoke(self, parameters: Json) -> Json:
        if "Inactive" in self.states.get(parameters["Qualifier"], ()):
            raise RefusedError("SnapStartNotReadyException", "Lambda is initializing it.")
        return {"StatusCode": 200}

    def list_versions_by_function(self, _: Json) -> Json:
        return {"Versions": [self._configuration(v) for v in ("$LATEST", *self.versions)]}

    def _configuration(self, version: str) -> Json:
        variables = {"MODEL_URI": self.versions.get(version, self.model), "MODEL_DIGEST": ""}
        return {
            "FunctionName": NAME,
            "Version": version,
            "LastModified": "2026-11-20T08:00:00.000+0000",
            "Environment": {"Variables": variables},
        }

    # ---- the rest ----

    def describe_alarms(self, parameters: Json) -> Json:
        prefix = parameters["AlarmNamePrefix"]
        alarms = [
            {
                "AlarmName": f"{NAME}/{name}",
                "StateValue": "ALARM" if name == self._frame.alarm else state,
                "StateReason": f"Threshold Crossed: {name}",
            }
            for name, state in self.alarm_states.items()
        ]
        return {
            "MetricAlarms": [each for each in alarms if str(each["AlarmName"]).startswith(prefix)]
        }

    def filter_log_events(self, parameters: Json) -> Json:
        if parameters["logGroupName"] != HOOK_LOG:
            return {"events": []}
        return {"events": [{"message": line} for line in self.hook_log]}

    def get_object(self, parameters: Mapping[str, str]) -> Json:
        for uri, raw in (OLD, NEW, TEXTS):
            if f"s3://{parameters['Bucket']}/{parameters['Key']}" == f"{uri}serving/manifest.json":
                return {"Body": io.BytesIO(raw)}
        raise RefusedError("NoSuchKey", "The specified key does not exist.")

    def list_objects_v2(self, _: Json) -> Json:
        return {"KeyCount": 0}

    def put_object(self, _: Json) -> Json:
        return {}

    def get_caller_identity(self, _: Json) -> Json:
        return {"Account": ACCOUNT, "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/release/ci"}

    def get_service_quota(self, parameters: Json) -> Json:
        return {"Quota": {"Value": self.quotas[parameters["QuotaCode"]]}}

    def simulate_principal_policy(self, parameters: Json) -> Json:
        assert parameters["PolicySourceArn"] == f"arn:aws:iam::{ACCOUNT}:role/release"
        return {
            "EvaluationResults": [
                {
                    "EvalActionName": action,
                    "EvalDecision": "implicitDeny" if action in self.denied else "allowed",
                }
                for action in parameters["ActionNames"]
            ]
        }

    def describe_key(self, parameters: Json) -> Json:
        key_id = parameters["KeyId"].rpartition("/")[2]
        metadata = {"KeyId": key_id, "KeyState": self.key_state, "KeyUsage": "ENCRYPT_DECRYPT"}
        return {"KeyMetadata": metadata}
