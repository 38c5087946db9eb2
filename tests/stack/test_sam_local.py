"""What `sam local` reads of the templates, by its own code; in containers: tests/containers."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from feedops.workspace import PROJECT
from feedrank.http.routes import ROUTES
from feedrank.settings import Settings
from stack.transform import Json, template, transformed

# In a process of its own: SAM's YAML parser changes PyYAML for the whole process.
READ = """
import json, sys
from samcli.lib.providers.api_provider import ApiProvider
from samcli.lib.providers.sam_function_provider import SamFunctionProvider
from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider
parameters = json.loads(sys.argv[1])
stacks, _ = SamLocalStackProvider.get_stacks("template.yaml", parameter_overrides=parameters)
functions = {function.full_path: function for function in SamFunctionProvider(stacks).get_all()}
api = ApiProvider(stacks, disable_authorizer=True).api
print(json.dumps({
    "stage": api.stage_name,
    "routes": [
        [f"{method} {route.path}", route.function_name, route.payload_format_version]
        for route in api.routes for method in route.methods if method != "OPTIONS"
    ],
    "layers": {path: [layer.name for layer in f.layers] for path, f in functions.items()},
    "variables": functions["Function"].environment["Variables"],
}))
"""
# What an update must not replace: an address, data, or what somebody else refers to by name.
KEPT = {
    "HttpApi": "AWS::ApiGatewayV2::Api",
    "Stage": "AWS::ApiGatewayV2::Stage",
    "Integration": "AWS::ApiGatewayV2::Integration",
    "Authorizer": "AWS::ApiGatewayV2::Authorizer",
    "Domain": "AWS::ApiGatewayV2::DomainName",
    "DomainMapping": "AWS::ApiGatewayV2::ApiMapping",
    "Function": "AWS::Lambda::Function",
    "FunctionAliaslive": "AWS::Lambda::Alias",
    "FunctionLogs": "AWS::Logs::LogGroup",
    "AccessLogs": "AWS::Logs::LogGroup",
    "Data": "AWS::CloudFormation::Stack",
    "Delivery": "AWS::CloudFormation::Stack",
    "Observability": "AWS::CloudFormation::Stack",
}


def _read(directory: Path, **parameters: str) -> dict[str, Json]:
    process = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(parameters)],
        cwd=PROJECT,
        env=os.environ | {"__SAM_CLI_APP_DIR": str(directory), "SAM_CLI_TELEMETRY": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    read: dict[str, Json] = json.loads(process.stdout)
    return read


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Json]:
    return _read(tmp_path_factory.mktemp("sam"))


def test_start_api_serves_every_route_of_the_app(read: dict[str, Json]) -> None:
    served = {route.key for route in ROUTES if not route.is_probe}
    assert sorted(read["routes"]) == sorted([key, "Function", "2.0"] for key in served)
    assert read["stage"] == "$default"


def test_start_api_serves_the_routes_under_every_auth(
    tmp_path: Path, read: dict[str, Json]
) -> None:
    jwt = {"Auth": "jwt", "JwtIssuer": "https://issuer.example.com/", "JwtAudience": "feed"}
    assert _read(tmp_path, **jwt)["routes"] == read["routes"]


def test_start_api_is_told_to_check_no_caller() -> None:
    """It reads none of the conditions that an authorizer is chosen by."""
    config = tomllib.loads((PROJECT / "samconfig.toml").read_text())
    assert config["default"]["local_start_api"]["parameters"] == {"disable_authorizer": True}


def test_every_function_can_be_started_with_the_layers_that_are_here(read: dict[str, Json]) -> None:
    """`--warm-containers EAGER` starts the hook of a release too, which a nested stack defines."""
    assert read["layers"] == {"Function": ["RuntimeLayer", "ModelLayer"], "Delivery/Canary": []}


def test_a_local_function_has_the_variables_of_the_template(read: dict[str, Json]) -> None:
    """What SAM can't compute, it sets to an empty text, which is a setting's default."""
    variables = {
        name: str(value) if isinstance(value, str | int) else ""
        for name, value in read["variables"].items()
    }
    function = template()["Resources"]["Function"]["Properties"]
    assert variables.keys() == function["Environment"]["Variables"].keys()
    assert Settings.from_environment(variables).model_uri == "/opt/model"
    empty = {name for name, value in variables.items() if not value}
    assert empty == {
        "BASE_PATH", "DECISION_STREAM", "EXTENSIONS", "MODEL_DIGEST", "RECORD_ID_KEY_SECRET",
    }  # fmt: skip


def test_no_resource_of_an_existing_stack_gets_another_logical_id() -> None:
    resources: dict[str, Any] = transformed()["Resources"]
    assert {name: resources[name]["Type"] for name in KEPT} == KEPT
