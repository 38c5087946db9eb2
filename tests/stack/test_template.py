"""The template, compared with the code that it deploys and with what operators are promised."""

import os
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import orjson
import pytest
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from feedops.stack.budget import LARGEST_TMP_BYTES, TMP_BYTES
from feedops.workspace import PROJECT
from feedrank.domain import MAX_ITEMS
from feedrank.http.last_response import TIMEOUT_S
from feedrank.http.routes import ROUTES
from feedrank.model.inference import CHECK_S, HUNG_S
from feedrank.settings import Settings
from stack.iam import RECORD_ID_KEY_ARN
from stack.transform import Json, resolved, template, transformed

NESTED = {
    "Data": "infra/data.yaml",
    "Delivery": "infra/delivery.yaml",
    "Observability": "infra/observability.yaml",
}
TEMPLATES = ["template.yaml", *NESTED.values()]
# Settings that the template leaves at their defaults.
NOT_IN_LAMBDA = {
    "MODEL_ENGINE": "torch exceeds a zip function's size limit; it is for container images",
    "MODEL_LAYER_DIR": "Lambda decides where layers are",
    "MODEL_CACHE_DIR": "the default is the only writable directory",
    "MODEL_LOAD_SECONDS": "the default fits the ten seconds that Lambda allows for init",
    "ENGINE_THREADS": "derived from the memory size",
    "ENGINE_DEVICE": "a zip function has no GPU",
    "SAGEMAKER": "its routes are for a container that SageMaker calls; API Gateway has others",
    "DECISION_LOG_DIR": "a file is lost with its container",
    "FEATURES_PASSWORD": "it would be readable in the function's configuration",
    "FEATURES_SECRET": "of Valkey, which needs a VPC that the stack doesn't have",
    "RECORD_ID_KEY": "it would be readable in the function's configuration; it is in a secret",
}
# Actions without resources: https://docs.aws.amazon.com/service-authorization/
NO_RESOURCE = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}


def _of_type(stack: dict[str, Json], kind: str) -> dict[str, Json]:
    return {
        name: resource["Properties"]
        for name, resource in stack["Resources"].items()
        if resource["Type"] == kind
    }


def _stack(**parameters: str) -> dict[str, Json]:
    return resolved(transformed(**parameters), **parameters)


def _variables(**parameters: str) -> dict[str, str]:
    """The function's environment, with the ARN of the key that CloudFormation would fill in."""
    function = _stack(**parameters)["Resources"]["Function"]["Properties"]
    variables: dict[str, str] = function["Environment"]["Variables"]
    if variables["RECORD_ID_KEY_SECRET"]:
        variables["RECORD_ID_KEY_SECRET"] = RECORD_ID_KEY_ARN
    return variables


def test_every_variable_is_a_setting_and_every_setting_a_variable_or_exempt() -> None:
    fields = {field.alias or name.upper() for name, field in Settings.model_fields.items()}
    assert set(_variables()) == fields - set(NOT_IN_LAMBDA)
    assert set(NOT_IN_LAMBDA) <= fields


def test_the_function_accepts_the_template_variables() -> None:
    bundle = f"s3://bucket/feedrank/feed_ranker/sha256-{'ab' * 32}/"
    settings = Settings.from_environment(
        _variables(ModelUri=bundle, BasePath="/v1", DomainName="d", CertificateArn="arn:x")
    )
    assert settings == Settings.from_environment(
        {
            "MODEL_URI": bundle,
            "MODEL_DIGEST": "ab" * 32,
            "BASE_PATH": "/v1",
            "MAX_BODY_BYTES": "262144",  # for the most that MaxItems allows
            "API_AUTH": "iam",
            "POWERTOOLS_SERVICE_NAME": "feedrank-dev",
        }
    )


def test_a_model_uri_contains_exactly_one_digest() -> None:
    pattern, digest = template()["Parameters"]["ModelUri"]["AllowedPattern"], "ab" * 32
    assert re.fullmatch(pattern, f"s3://bundles/mirror/feed/sha256-{digest}/")
    assert not re.fullmatch(pattern, f"s3://bundles/sha256-old/feed/sha256-{digest}/")


@pytest.mark.parametrize(
    "name",
    [
        "ModelFallback",
        "LogLevel",
        "Tracing",
        "WarmStart",
        "Auth",
        "ContextCheck",
        "RecordIds",
        "RecordOutputs",
        "LiveFeatures",
    ],
)
def test_the_function_accepts_every_value_that_a_parameter_allows(name: str) -> None:
    for value in template()["Parameters"][name]["AllowedValues"]:
        Settings.from_environment(_variables(**{name: value}))


def test_the_function_accepts_the_fewest_and_the_most_items() -> None:
    """And a body of so many UUIDs, with ten numbers of sixteen digits each, is within its limit."""
    most = template()["Parameters"]["MaxItems"]["MaxValue"]
    assert most == MAX_ITEMS
    for items in (template()["Parameters"]["MaxItems"]["MinValue"], most):
        settings = Settings.from_environment(_variables(MaxItems=str(items)))
        assert settings.max_items == items
        body = {
            "item_ids": ["0" * 36] * items,
            "features": {n: [1 / 3] * items for n in "0123456789"},
        }
        assert len(orjson.dumps(body)) < settings.max_body_bytes


def test_a_pinned_layer_keeps_its_digest() -> None:
    assert _variables(ModelDigest="cd" * 32)["MODEL_DIGEST"] == "cd" * 32


def test_tmp_is_what_the_parameter_says_within_what_aws_allows_and_publishing_assumes() -> None:
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(
        "us-east-1", "AWS::Lambda::Function"
    ).schema
    size = schema["definitions"]["EphemeralStorage"]["properties"]["Size"]
    parameter = template()["Parameters"]["EphemeralStorage"]
    assert size["minimum"] == parameter["MinValue"] < parameter["MaxValue"] <= size["maximum"]
    assert parameter["Default"] * 1_000_000 == TMP_BYTES
    assert parameter["MaxValue"] * 1_000_000 == LARGEST_TMP_BYTES
    function = _stack(EphemeralStorage="1280")["Resources"]["Function"]["Properties"]
    assert function["EphemeralStorage"] == {"Size": "1280"}


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_lambda_never_drops_a_decision_or_a_metric(level: str) -> None:
    """It treats a line without a level as INFO."""
    logging = _stack(LogLevel=level)["Resources"]["Function"]["Properties"]["LoggingConfig"]
    assert (logging["LogFormat"], logging["SystemLogLevel"]) == ("JSON", "INFO")
    assert logging["ApplicationLogLevel"] in ("DEBUG", "INFO")


# ---- The API -------------------------------------------------------------------------------------


@pytest.mark.parametrize("docs", ["same", "open"])
@pytest.mark.parametrize("auth", ["iam", "jwt", "none"])
def test_every_route_of_the_app_has_its_auth(auth: str, docs: str) -> None:
    # Probes are for one process; Lambda replaces its own, and each call would be an invocation.
    served = {route.key: route.auth for route in ROUTES if not route.is_probe}
    stack = _stack(Auth=auth, DocsAccess=docs, JwtIssuer="https://i", JwtAudience="a,b")
    routes = {r["RouteKey"]: r for r in _of_type(stack, "AWS::ApiGatewayV2::Route").values()}
    closed = {"iam": "AWS_IAM", "jwt": "JWT", "none": "NONE"}[auth]
    opened = {"open", "docs"} if docs == "open" else {"open"}
    expected = {key: "NONE" if kind in opened else closed for key, kind in served.items()}
    assert {key for key, kind in served.items() if kind == "open"} == {"GET /health"}
    assert {key: route["AuthorizationType"] for key, route in routes.items()} == expected
    with_authorizer = {key for key, route in routes.items() if "AuthorizerId" in route}
    assert with_authorizer == {key for key, kind in expected.items() if kind == "JWT"}


def test_iam_is_the_default_everywhere() -> None:
    assert template()["Parameters"]["Auth"]["Default"] == "iam"
    assert template()["Parameters"]["DocsAccess"]["Default"] == "same"


def test_a_token_is_checked_for_issuer_and_audience() -> None:
    stack = _stack(Auth="jwt", JwtIssuer="https://issuer/", JwtAudience="a,b")
    (authorizer,) = _of_type(stack, "AWS::ApiGatewayV2::Authorizer").values()
    assert authorizer["JwtConfiguration"] == {"Issuer": "https://issuer/", "Audience": ["a", "b"]}


def test_the_api_calls_the_alias_with_payload_2() -> None:
    stack = _stack()
    (integration,) = _of_type(stack, "AWS::ApiGatewayV2::Integration").values()
    alias = stack["Resources"]["FunctionAliaslive"]["Properties"]
    arn = f"arn:aws:lambda:eu-west-1:123456789012:function:{alias['FunctionName']}:{alias['Name']}"
    assert integration["IntegrationUri"] == arn  # what a Ref of the alias gives
    assert integration["PayloadFormatVersion"] == "2.0"
    (permission,) = _of_type(stack, "AWS::Lambda::Permission").values()
    assert permission["FunctionName"] == "${FunctionAliaslive}"
    timeout_s = stack["Resources"]["Function"]["Properties"]["Timeout"]
    assert 1_000 * timeout_s < integration["TimeoutInMillis"] <= 30_000


def test_lambda_leaves_time_to_respond_to_an_inference_that_hangs() -> None:
    longest_s = template("template.yaml")["Parameters"]["RequestTimeoutMs"]["MaxValue"] / 1_000
    posted_s = longest_s + HUNG_S + CHECK_S + TIMEOUT_S
    assert posted_s < resolved(transformed())["Resources"]["Function"]["Properties"]["Timeout"]


def test_cors_is_off_until_origins_are_named() -> None:
    (api,) = _of_type(_stack(), "AWS::ApiGatewayV2::Api").values()
    assert "CorsConfiguration" not in api
    (api,) = _of_type(
        _stack(CorsOrigins="https://a.example,https://b.example"), "AWS::ApiGatewayV2::Api"
    ).values()
    assert api["CorsConfiguration"]["AllowOrigins"] == ["https://a.example", "https://b.example"]


def test_routes_are_throttled_and_their_access_logged() -> None:
    (stage,) = _of_type(_stack(ThrottleRate="7"), "AWS::ApiGatewayV2::Stage").values()
    assert stage["RouteSettings"]["POST /predict"]["ThrottlingRateLimit"] == "7"
    for settings in (stage["DefaultRouteSettings"], *stage["RouteSettings"].values()):
        assert int(settings["ThrottlingRateLimit"]) > 0
    assert stage["AccessLogSettings"]["DestinationArn"] == "${AccessLogs.Arn}"
    assert "sourceIp" not in stage["AccessLogSettings"]["Format"]


@pytest.mark.parametrize("key", ["v1", "feed/v1"])
def test_a_custom_domain_is_the_only_address(key: str) -> None:
    domain = {"DomainName": "api.example.com", "CertificateArn": "arn:x", "BasePath": f"/{key}"}
    stack = _stack(**domain, HostedZoneId="Z1")
    (api,) = _of_type(stack, "AWS::ApiGatewayV2::Api").values()
    assert api["DisableExecuteApiEndpoint"] is True
    (mapping,) = _of_type(stack, "AWS::ApiGatewayV2::ApiMapping").values()
    assert mapping["ApiMappingKey"] == key
    assert len(_of_type(stack, "AWS::Route53::RecordSet")) == 1
    assert stack["Outputs"]["Url"]["Value"] == f"https://api.example.com/{key}"
    (name,) = _of_type(stack, "AWS::ApiGatewayV2::DomainName").values()
    assert name["DomainNameConfigurations"][0]["SecurityPolicy"] == "TLS_1_2"


# ---- Start-up ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("warm", "snapshots", "provisioned"),
    [("none", "None", 0), ("snapstart", "PublishedVersions", 0), ("provisioned", "None", 1)],
)
def test_environments_are_warm_as_configured(warm: str, snapshots: str, provisioned: int) -> None:
    stack = _stack(WarmStart=warm)
    resources = stack["Resources"]
    assert resources["Function"]["Properties"]["SnapStart"]["ApplyOn"] == snapshots
    alias = resources["FunctionAliaslive"]["Properties"]
    assert ("ProvisionedConcurrencyConfig" in alias) == bool(provisioned)
    for kind in ("ScalableTarget", "ScalingPolicy"):
        assert len(_of_type(stack, f"AWS::ApplicationAutoScaling::{kind}")) == provisioned


def test_a_schedule_adds_ready_environments_and_removes_them() -> None:
    busy = {"BusyFrom": "cron(0 7 * * ? *)", "BusyMin": "8", "ProvisionedMin": "2"}
    stack = _stack(WarmStart="provisioned", **busy)
    (target,) = _of_type(stack, "AWS::ApplicationAutoScaling::ScalableTarget").values()
    assert target["ResourceId"] == "function:${Function}:live"
    assert [
        (action["Schedule"], action["ScalableTargetAction"]["MinCapacity"])
        for action in target["ScheduledActions"]
    ] == [("cron(0 7 * * ? *)", "8"), ("cron(0 22 * * ? *)", "2")]


# ---- Permissions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", TEMPLATES)
def test_no_policy_uses_wildcards(path: str) -> None:
    """Except where a service supports no resource, and below a name."""
    source = transformed(path)
    choices = {
        n: p["AllowedValues"] for n, p in source["Parameters"].items() if "AllowedValues" in p
    }
    stacks = [resolved(source, **{n: str(v[i]) for n, v in choices.items()}) for i in (0, -1)]
    for statement in (each for stack in stacks for each in _statements(stack)):
        actions = _as_list(statement["Action"])
        if statement["Effect"] == "Allow":
            assert not [action for action in actions if "*" in action]
            assert "*" not in _as_list(statement.get("Principal", {}))
            assert "*" not in _as_list(statement.get("Resource")) or set(actions) <= NO_RESOURCE


def test_no_role_uses_managed_policies() -> None:
    for path in TEMPLATES:
        for role in _of_type(resolved(transformed(path)), "AWS::IAM::Role").values():
            assert "ManagedPolicyArns" not in role


def test_the_function_may_send_decisions_only_in_direct_mode() -> None:
    sids = {
        mode: {s["Sid"] for s in _statements(_stack(DecisionDelivery=mode)) if "Sid" in s}
        for mode in ("logs", "direct")
    }
    assert sids["direct"] - sids["logs"] == {"SendDecisions"}


# ---- The stack as a whole ------------------------------------------------------------------------


@pytest.mark.parametrize("name", NESTED)
def test_a_nested_stack_gets_the_parameters_that_it_declares(name: str) -> None:
    parameters = template()["Resources"][name]["Properties"]["Parameters"]
    declared = template(NESTED[name])["Parameters"]
    assert set(parameters) <= set(declared)
    assert {n for n, p in declared.items() if "Default" not in p} <= set(parameters)


@pytest.mark.parametrize("mode", ["logs", "direct"])
def test_every_output_that_is_read_exists(mode: str) -> None:
    text = str(_stack(DecisionDelivery=mode, WarmStart="provisioned"))
    read = set(re.findall(r"\$\{(\w+)\.Outputs\.(\w+)\}", text))
    assert {name for name, _ in read} == set(NESTED)
    for name, path in NESTED.items():
        parameters = {"DecisionDelivery": mode} if name != "Delivery" else {}
        outputs = resolved(transformed(path), **parameters)["Outputs"]
        assert {output for stack, output in read if stack == name} <= set(outputs)


def test_no_resource_depends_on_itself() -> None:
    """Alias -> deployment group -> alarms -> API -> alias would be a cycle."""
    source = transformed()
    names = set(source["Resources"])
    graph = {name: _names_in(body) & names - {name} for name, body in source["Resources"].items()}
    order = [*TopologicalSorter(graph).static_order()]  # raises CycleError
    assert order.index("Delivery") < order.index("FunctionAliaslive")


@pytest.mark.parametrize("path", TEMPLATES)
def test_every_parameter_is_used(path: str) -> None:
    source = template(path)
    used = _names_in({k: v for k, v in source.items() if k != "Parameters"})
    assert set(source["Parameters"]) - used == set()


def test_samconfig_contains_only_parameters_of_the_template_and_no_secret() -> None:
    config = tomllib.loads((PROJECT / "samconfig.toml").read_text())
    parameters = template()["Parameters"]
    for environment in ("default", "dev", "staging", "prod"):
        deploy = config[environment]["deploy"]["parameters"]
        overrides = dict(each.split("=", 1) for each in deploy["parameter_overrides"])
        assert set(overrides) <= set(parameters)
        for name, value in overrides.items():
            allowed = parameters[name].get("AllowedValues")
            assert not allowed or value in allowed
        expected = "dev" if environment == "default" else environment
        assert overrides["Environment"] == expected
        assert config[environment]["global"]["parameters"]["stack_name"] == f"feedrank-{expected}"
    assert not re.search(r"\d{12}|AKIA|secret_|password|arn:aws", str(config), re.IGNORECASE)


@pytest.mark.slow
def test_sam_validates_every_template(tmp_path: Path) -> None:
    environ = os.environ | {
        "SAM_CLI_TELEMETRY": "0",
        "__SAM_CLI_APP_DIR": str(tmp_path),
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    for path in TEMPLATES:
        process = subprocess.run(
            [sys.executable, "-m", "samcli", "validate", "--lint", "--template-file", path],
            cwd=PROJECT,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (process.returncode, process.stderr) == (0, ""), process.stdout


def _names_in(node: Any) -> set[str]:
    """The names that it refers to."""
    match node:
        case {"Ref": name}:
            return {name}
        case {"Fn::GetAtt": path}:
            return {(path if isinstance(path, str) else path[0]).split(".")[0]}
        case dict():
            below = set[str]().union(*(_names_in(child) for child in node.values()))
            waits = node.get("DependsOn", [])
            return below | set(waits if isinstance(waits, list) else [waits])
        case list():
            return set[str]().union(*(_names_in(child) for child in node))
        case str():
            return {name.split(".")[0] for name in re.findall(r"\$\{([^!}]+)\}", node)}
    return set()


def _statements(stack: dict[str, Json]) -> list[dict[str, Json]]:
    statements: list[dict[str, Json]] = []

    def walk(node: Json) -> None:
        if isinstance(node, dict):
            if "Effect" in node and "Action" in node:
                statements.append(node)
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    walk(stack)
    return statements


def _as_list(value: Json) -> list[str]:
    return list(value) if isinstance(value, list) else [value]
