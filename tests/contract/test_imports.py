"""The order of imports, read from the source, and the modules that a serving process loads."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

from scripted import S3_URI, VARIABLES, scripted, served_bundle

REPOSITORY = Path(__file__).parents[2]
FUNCTION = REPOSITORY / "function"
# The rooms from the top down. A module imports from its own room and from those below.
ROOMS = (
    "feedbench",
    "feedops.cli",
    "feedops.cloudwatch",
    "feedops.plan",
    "feedops.release",
    "feedops.local",
    "feedops.models",
    "feedops.stack",
    "feedops.decisions",
    "feedops.features",
    "feedops",
    "feedmodel.demo",
    "feedmodel.training",
    "feedmodel.publish",
    "feedmodel",
    "feedrank.server",
    "handler",
    "feedrank.extensions",
    "feedrank.snapstart",
    "feedrank.http",
    "feedrank.ranking",
    "feedrank.model",
    "feedrank.features",
    "feedrank.decisions",
    "feedrank.bundle",
    "feedrank.aws",
    "feedrank.valkey",
    "feedrank.threads",
    "feedrank.telemetry",
    "feedrank.settings",
    "feedrank.libraries",
    "feedrank.shortcuts",
    "feedrank.errors",
    "feedrank.domain",
    "feedrank",
)
PACKAGES = {
    "feedrank": FUNCTION / "feedrank",
    "feedmodel": REPOSITORY / "layers/model/feedmodel",
    "feedops": REPOSITORY / "infra/feedops",
    "feedbench": REPOSITORY / "infra/feedbench",
}
HEAVY = {"torch", "mlflow", "pandas", "pyarrow", "onnx", "matplotlib", "boto3", "botocore"}
ABSENT = (HEAVY - {"botocore"}) | {
    "aws_xray_sdk", "safetensors", "sklearn", "scipy", "feedmodel", "feedops",
}  # fmt: skip

REQUEST = {
    "version": "2.0",
    "rawPath": "/predict",
    "rawQueryString": "",
    "headers": {},
    "requestContext": {
        "requestId": "r",
        "http": {"method": "POST", "path": "/predict", "sourceIp": "192.0.2.1"},
    },
    "body": '{"user_id": 42, "item_ids": [1, 2, 3]}',
    "isBase64Encoded": False,
}
ONE_REQUEST = """
import json, sys
from types import SimpleNamespace
sys.path.insert(0, sys.argv[1])
import handler
context = SimpleNamespace(
    function_name="f", memory_limit_in_mb=128, invoked_function_arn="arn", aws_request_id="r",
    get_remaining_time_in_millis=lambda: 9_000,
)
event = json.loads(sys.argv[2])
response = handler.lambda_handler(event, context)
loaded = sorted(sys.modules)
openapi = sys.modules["fastapi.openapi.models"].OpenAPI
built = [openapi.__pydantic_complete__]
event["requestContext"]["http"] = {"method": "GET", "path": "/openapi.json", "sourceIp": "::1"}
document = json.loads(handler.lambda_handler(event, context)["body"])
built.append(openapi.__pydantic_complete__)
print(json.dumps({"status": response["statusCode"], "modules": loaded, "built": built,
                  "paths": sorted(document["paths"])}))
"""


def _modules(package: str) -> Iterator[tuple[str, Path]]:
    root = PACKAGES[package]
    for path in sorted(root.rglob("*.py")):
        parts = (package, *path.relative_to(root).with_suffix("").parts)
        yield ".".join(parts).removesuffix(".__init__"), path


def _imports(path: Path, *, at_load: bool = False) -> set[str]:
    """Every module that the file imports; with `at_load`, only those that loading it imports."""
    modules: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            module = node.module or ""
            modules |= {f"{module}.{a.name}" for a in node.names if _is_module(module, a.name)} or {
                module
            }
        if not (at_load and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            todo += ast.iter_child_nodes(node)
    return modules


def _is_module(package: str, name: str) -> bool:
    """`from feedrank.features import matrix` imports a module, `import FeatureStore` doesn't."""
    directory = PACKAGES.get(package.split(".", maxsplit=1)[0])
    if directory is None:
        return False
    path = directory.joinpath(*package.split(".")[1:], name)
    return path.with_suffix(".py").is_file() or path.is_dir()


def _room(module: str) -> int:
    """The index of the module's room; a module outside the rooms belongs to its package."""
    room = ".".join(module.split(".")[:2])
    return ROOMS.index(room if room in ROOMS else module.split(".", maxsplit=1)[0])


ALL = [
    ("handler", FUNCTION / "handler.py"),
    *(m for package in PACKAGES for m in _modules(package)),
]


@pytest.mark.parametrize(("module", "path"), ALL)
def test_imports_point_down(module: str, path: Path) -> None:
    ours = {name for name in _imports(path) if name.split(".")[0] in PACKAGES}
    assert [name for name in ours if _room(name) < _room(module)] == []


def test_there_is_no_import_cycle() -> None:
    names = {name for name, _ in ALL}
    needs = {name: _imports(path, at_load=True) & names for name, path in ALL}
    TopologicalSorter(needs).prepare()  # raises CycleError, which names them


def test_every_room_exists_and_contains_every_module_of_the_function() -> None:
    assert {ROOMS[_room(name)] for name, _ in ALL} == set(ROOMS)
    assert [n for n, _ in ALL if ROOMS[_room(n)] == "feedrank" and n != "feedrank"] == []


OF_TORCH = {"feedrank.model.engines.torch", "feedrank.model.engines.cuda"}


def test_feedrank_loads_nothing_heavy() -> None:
    wrong = [
        (module, imported)
        for module, path in _modules("feedrank")
        for imported in _imports(path, at_load=True)
        if imported.split(".")[0] in HEAVY and module not in OF_TORCH
    ]
    assert wrong == []


def test_the_torch_engine_is_imported_only_where_it_is_chosen() -> None:
    at_load = [
        module for module, path in _modules("feedrank") if OF_TORCH & _imports(path, at_load=True)
    ]
    assert at_load == []


def _serve_one(bundle: Path | str, **env: str) -> dict[str, Any]:
    """The report of a fresh process after a request and one for its OpenAPI document."""
    process = subprocess.run(
        [sys.executable, "-c", ONE_REQUEST, str(FUNCTION), json.dumps(REQUEST)],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "MODEL_URI": str(bundle), **env},
        check=False,
    )
    assert process.returncode == 0, process.stderr
    report: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    assert report["status"] == 200
    return report


def test_a_process_that_serves_from_a_directory_loads_nothing_heavy(demo_bundle: Path) -> None:
    loaded = {name.split(".")[0] for name in _serve_one(demo_bundle)["modules"]}
    assert sorted(loaded & ABSENT) == []


def test_a_process_that_serves_from_s3_and_records_to_firehose_loads_nothing_heavy(
    demo_bundle: Path,
) -> None:
    with served_bundle(demo_bundle) as s3, scripted() as firehose:
        report = _serve_one(
            S3_URI,
            **VARIABLES,
            AWS_ENDPOINT_URL_S3=s3.url,
            AWS_ENDPOINT_URL_FIREHOSE=firehose.url,
            DECISION_STREAM="decisions",
        )
    assert (len(s3.requests), len(firehose.requests)) == (5, 1)
    loaded = {name.split(".")[0] for name in report["modules"]}
    assert sorted(loaded & (ABSENT | {"urllib3", "requests"})) == []


def test_only_the_part_of_botocore_that_powertools_needs_is_loaded(demo_bundle: Path) -> None:
    """Powertools registers its name with botocore if that is installed: one small module."""
    loaded = {
        name for name in _serve_one(demo_bundle)["modules"] if name.split(".")[0] == "botocore"
    }
    assert loaded == {"botocore"}


def test_x_ray_is_loaded_only_if_tracing_is_on(demo_bundle: Path) -> None:
    traced = _serve_one(demo_bundle, TRACING="on", POWERTOOLS_TRACE_DISABLED="true")
    assert "aws_xray_sdk" in traced["modules"]


def test_only_the_module_that_defers_its_schemas_imports_fastapi() -> None:
    importing = [
        module
        for module, path in _modules("feedrank")
        if any(name.split(".")[0] == "fastapi" for name in _imports(path))
    ]
    assert importing == ["feedrank.http.web"]


def test_if_fastapi_can_not_be_imported_other_models_are_not_deferred() -> None:
    check = """
import sys
sys.modules["fastapi"] = None
from pydantic import BaseModel
try:
    import feedrank.http.web
except ImportError:
    print(BaseModel.model_config)
"""
    process = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=FUNCTION
    )
    assert process.stdout == "{}\n"


def test_the_documents_schemas_are_built_on_its_first_request(demo_bundle: Path) -> None:
    report = _serve_one(demo_bundle)
    assert report["built"] == [False, True]
    assert "/predict" in report["paths"]


def test_a_serving_process_writes_nothing_to_the_home_directory(
    demo_bundle: Path, tmp_path: Path
) -> None:
    """ONNX Runtime would write a machine id and usage data."""
    _serve_one(demo_bundle, HOME=str(tmp_path))
    assert list(tmp_path.rglob("*")) == []
