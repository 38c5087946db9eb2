"""What `sam build` made is run: laid out as in Lambda, by Lambda's Python and runtime client, with
the environment variables of the template."""

import asyncio
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from rich.console import Console

import endless
from feedops.errors import BuildError
from feedops.local.emulator import ExecutionEnvironment, Function
from feedops.stack import sbom
from feedops.stack.budget import BAR_BYTES, measure, print_budget
from feedops.stack.build import build, find_python, runtime_packages
from feedops.workspace import EVENTS, PROJECT
from feedrank.bundle.layout import GOLDEN
from feedrank.http.schemas import Problem
from stack.hook import load_canary
from stack.transform import resolved, transformed

pytestmark = pytest.mark.slow

REFUSED = {"malformed_json", "negative_id", "too_many_items"}
# As `python -v` tells where a module's code is from: 'quoted' compiled, or not quoted a source.
COMPILED = re.compile(r"^# code object from '(?P<path>[^']+)'$", re.MULTILINE)
SOURCE = re.compile(r"^# code object from (?P<path>[^'\n]+)$", re.MULTILINE)
EXTENSION = re.compile(r"^# extension module .* loaded from '(?P<path>[^']+)'$", re.MULTILINE)
IN_NAMESPACE = """#!/bin/sh
# Lambda's places, for this process alone, and as there not to be written.
exec unshare {how} sh -c '
mount -t tmpfs tmpfs /var && mkdir /var/task /var/runtime
mount --bind -o ro "{task}" /var/task && mount --bind -o ro "{opt}" /opt
cd /var/task && exec "{python}" "$@"
' sh "$@"
"""


@dataclass(frozen=True)
class Lambda:
    """The build, and where a process sees its parts: /var/task and /opt, or where they lie."""

    build: Path
    python: Path
    runtime: Path
    interpreter: Path
    task: str
    opt: str


class Handled:
    """The deployed artifact, after an answer to each event."""

    def __init__(self, environment: ExecutionEnvironment, runner: asyncio.Runner) -> None:
        self._environment = environment
        self._runner = runner

    def __call__(self, event: bytes) -> dict[str, Any]:
        response: dict[str, Any] = json.loads(self._runner.run(self._environment.invoke(event)))
        return response

    @property
    def log(self) -> str:
        return self._environment.log.read_text(errors="replace")


Deploy = Callable[..., Handled]


@pytest.fixture(scope="module")
def built(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sam") / "build"
    try:
        find_python(os.environ)
    except BuildError as error:
        pytest.skip(str(error).partition("\n")[0])
    build(directory, demo_bundle)
    return directory


@pytest.fixture(scope="module")
def laid_out(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Lambda:
    python = find_python(os.environ)
    directory = tmp_path_factory.mktemp("lambda")
    opt, interpreter = directory / "opt", directory / "python3.13"
    shutil.copytree(built / "RuntimeLayer", opt)
    shutil.copytree(built / "ModelLayer", opt, dirs_exist_ok=True)
    task, runtime = built / "Function", runtime_packages(python)
    how = _namespace([python, opt, task, runtime])
    if how is None:  # no right to mount: the same files, where they are
        (directory / "python3.13").symlink_to(python)
        return Lambda(built, python, runtime, interpreter, str(task), str(opt))
    interpreter.write_text(IN_NAMESPACE.format(how=how, task=task, opt=opt, python=python))
    interpreter.chmod(0o755)
    return Lambda(built, python, runtime, interpreter, "/var/task", "/opt")


@pytest.fixture(scope="module")
def deploy(laid_out: Lambda, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deploy]:
    stack = resolved(transformed(Environment="prod"))
    variables = stack["Resources"]["Function"]["Properties"]["Environment"]["Variables"]
    variables |= {
        "MODEL_URI": f"{laid_out.opt}/model",
        "LAMBDA_TASK_ROOT": laid_out.task,
        "PYTHONPATH": f"{laid_out.task}:{laid_out.opt}/python:{laid_out.runtime}",
        "PYTHONNOUSERSITE": "1",
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
        "AWS_LAMBDA_LOG_LEVEL": "INFO",
    }
    with asyncio.Runner() as runner, ExitStack() as stack_of_environments:

        def deployed(**changes: str) -> Handled:
            function = Function(
                laid_out.build / "Function",
                variables | changes,
                python=laid_out.interpreter,
                runtime="python3.13",
                timeout_s=60,
            )
            directory = tmp_path_factory.mktemp("environment")
            environment = runner.run(
                ExecutionEnvironment.start(
                    function, log=directory / "environment.log", temporary=directory / "tmp"
                )
            )
            stack_of_environments.callback(lambda: runner.run(environment.stop()))
            return Handled(environment, runner)

        yield deployed


@pytest.fixture(scope="module")
def handled(deploy: Deploy) -> Handled:
    return deploy(PYTHONVERBOSE="1")


@pytest.fixture(scope="module")
def responses(handled: Handled) -> dict[str, dict[str, Any]]:
    events = {path.stem: path.read_bytes() for path in sorted(EVENTS.glob("*.json"))}
    assert events
    return {name: handled(event) for name, event in events.items()}


def test_it_answers_every_event(responses: dict[str, dict[str, Any]]) -> None:
    assert {name: response["statusCode"] for name, response in responses.items()} == {
        name: 422 if name in REFUSED else 200 for name in responses
    }


def test_the_canary_lets_it_pass(
    handled: Handled, demo_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = load_canary()
    cases = json.loads((demo_bundle / GOLDEN).read_bytes())["cases"]

    class Client:
        def invoke(self, FunctionName: str, Payload: bytes) -> dict[str, Any]:
            return {"Payload": io.BytesIO(json.dumps(handled(Payload)).encode())}

    monkeypatch.setattr(canary.boto3, "client", lambda _service, **_: Client())
    assert canary.judge("arn:version", str(demo_bundle), "", "number") == len(cases)


def test_a_request_is_answered_504_even_if_nobody_can_end_its_inference(
    deploy: Deploy, demo_bundle: Path, tmp_path: Path
) -> None:
    bundle = endless.for_desktops(demo_bundle, tmp_path / "bundle", endless.OPERATOR)
    deployed = deploy(MODEL_URI=str(bundle), REQUEST_TIMEOUT_MS="500")
    event = json.loads((EVENTS / "predict.json").read_bytes())
    late = event | {"body": '{"user_id": 1, "item_ids": [2], "context": {"device": "desktop"}}'}
    responses = [deployed(json.dumps(sent).encode()) for sent in (late, event)]
    assert [response["statusCode"] for response in responses] == [504, 200]
    assert Problem.model_validate_json(responses[0]["body"]).title == "Request ran out of time"
    assert "an inference hangs: the process ends" in deployed.log


@pytest.mark.parametrize("name", ["demo_bundle", "everything_bundle"])
def test_another_python_reads_the_same_of_a_bundle(
    name: str, laid_out: Lambda, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Published by this Python, read by Lambda's: the same inputs to the last bit."""
    bundle = request.getfixturevalue(name)
    script = [Path(__file__).parent / "read_bundle.py", bundle, tmp_path]
    artifact = {"PYTHONPATH": f"{laid_out.task}:{laid_out.opt}/python", "PYTHONNOUSERSITE": "1"}
    here = subprocess.check_output([sys.executable, *script])
    there = subprocess.check_output(
        [laid_out.interpreter, *script], env={"PATH": os.environ["PATH"], **artifact}
    )
    published, lambdas = json.loads(here), json.loads(there)
    assert (published["python"], lambdas["python"]) == ([*sys.version_info[:2]], [3, 13])
    assert len(published["requests"]) == len(lambdas["requests"]) > 4
    for mine, other in zip(published["requests"], lambdas["requests"], strict=True):
        assert other["inputs"] == mine["inputs"]
        assert other["scores"] == pytest.approx(mine["scores"], rel=0, abs=1e-6)


def test_every_module_is_of_the_artifact_or_of_lambda(
    handled: Handled, laid_out: Lambda, responses: dict[str, dict[str, Any]]
) -> None:
    prefix = subprocess.check_output(
        [laid_out.python, "-c", "import sys; print(sys.base_prefix)"], text=True
    ).strip()
    paths = [m["path"] for m in (*COMPILED.finditer(handled.log), *EXTENSION.finditer(handled.log))]
    ours = (f"{laid_out.task}/", f"{laid_out.opt}/python/")
    assert {path for path in paths if path.startswith(ours)}
    assert {
        path for path in paths if not path.startswith((*ours, f"{prefix}/", f"{laid_out.runtime}/"))
    } == set()
    assert {
        package
        for package in ("numpy", "onnxruntime", "fastapi", "mangum", "pydantic", "feedrank")
        if not any(f"/{package}/" in path for path in paths if path.startswith(ours))
    } == set()


def test_no_source_of_the_artifact_is_compiled_again(
    handled: Handled, laid_out: Lambda, responses: dict[str, dict[str, Any]]
) -> None:
    compiled = [m["path"] for m in COMPILED.finditer(handled.log)]
    assert f"{laid_out.task}/__pycache__/handler.cpython-313.pyc" in compiled
    sources = [m["path"] for m in SOURCE.finditer(handled.log)]
    assert [path for path in sources if path.startswith((laid_out.task, laid_out.opt))] == []


def test_a_compiled_file_is_taken_though_its_source_has_changed(laid_out: Lambda) -> None:
    """Archives change file times; Python would compile anew for that, on every cold start."""
    flags = {
        int.from_bytes(path.read_bytes()[4:8], "little")
        for part in ("Function", "RuntimeLayer")
        for path in (laid_out.build / part).rglob("*.pyc")
    }
    assert flags == {0b01}  # by hash, and unchecked (PEP 552)


def test_every_source_is_compiled(laid_out: Lambda) -> None:
    missing = [
        path
        for part in ("Function", "RuntimeLayer")
        for path in (laid_out.build / part).rglob("*.py")
        if not (path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc").is_file()
    ]
    assert missing == []


def test_tracebacks_name_lambdas_places(laid_out: Lambda) -> None:
    show = (
        "import marshal, sys\n"
        "for path in sys.argv[1:]:\n"
        "    print(marshal.loads(open(path, 'rb').read()[16:]).co_filename)"
    )
    files = [
        laid_out.build / "Function" / "feedrank/http/__pycache__/app.cpython-313.pyc",
        laid_out.build / "RuntimeLayer/python/mangum/__pycache__/adapter.cpython-313.pyc",
    ]
    paths = subprocess.check_output([laid_out.python, "-c", show, *files], text=True)
    assert paths.split() == ["/var/task/feedrank/http/app.py", "/opt/python/mangum/adapter.py"]


def test_a_decision_is_a_log_line_of_its_own(
    handled: Handled, responses: dict[str, dict[str, Any]]
) -> None:
    lines = [line for line in handled.log.splitlines() if line.startswith('{"record":"decision"')]
    ids = {json.loads(line)["request_id"] for line in lines}
    assert {json.loads(responses["predict"]["body"])["request_id"]} <= ids


def test_nothing_is_in_it_that_lambda_has_or_that_no_one_imports(built: Path) -> None:
    site = built / "RuntimeLayer" / "python"
    packages = {path.name for path in site.iterdir()}
    assert packages & {"boto3", "botocore", "urllib3", "torch", "mlflow", "pandas", "bin"} == set()
    names = {path.name for path in site.rglob("*")}
    assert names & {"tests", "RECORD"} == set()
    assert [name for name in names if name.endswith((".pyi", ".pyx", ".h", ".a"))] == []
    model = built / "ModelLayer"
    assert sorted(str(p.relative_to(model)) for p in model.rglob("*") if p.is_file()) == [
        "model/serving/features.safetensors",
        "model/serving/golden.json",
        "model/serving/manifest.json",
        "model/serving/manifest.sha256",
        "model/serving/model.onnx",
    ]


def test_it_is_within_the_bar(built: Path) -> None:
    budget = measure(built)
    print_budget(budget, Console(quiet=True))
    assert 0 < budget.total <= BAR_BYTES


def test_the_same_sources_make_the_same_artifact(built: Path, tmp_path: Path) -> None:
    """Else every build would publish a version. The runtime layer's wheels are the slow part, and
    pinned; the function goes through the same compiler."""
    artifact = tmp_path / "Function"
    artifact.mkdir()
    python = find_python(os.environ)
    subprocess.run(
        [
            "make",
            "--silent",
            "build-Function",
            f"ARTIFACTS_DIR={artifact}",
            f"LAMBDA_PYTHON={python}",
        ],
        cwd=PROJECT / "function",
        check=True,
    )
    assert _content(artifact) == _content(built / "Function")


def _content(directory: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()
    }


def _namespace(inside: list[Path]) -> str | None:
    """The options with which `unshare` may mount here, unless the mounts would hide a file."""
    if sys.platform != "linux" or any(str(path).startswith(("/var/", "/opt/")) for path in inside):
        return None
    for how in ("--mount", "--map-root-user --mount"):
        trial = ["unshare", *how.split(), "sh", "-c", "mount -t tmpfs tmpfs /var"]
        if shutil.which("unshare") and subprocess.run(trial, check=False).returncode == 0:
            return how
    return None


SBOMS = ("runtime-layer", "model-layer", "image-cpu", "image-gpu")


@pytest.mark.parametrize("name", SBOMS)
def test_a_bill_of_materials_is_what_its_schema_says(built: Path, name: str) -> None:
    text = (built.parent / "sbom" / f"{name}.cdx.json").read_text()
    schema = JsonStrictValidator(SchemaVersion.V1_6)
    assert schema.validate_str(text) is None
    assert schema.validate_str(text.replace('"type": "application"', '"type": "thing"'))


def _components(built: Path, name: str) -> list[dict[str, Any]]:
    bom = json.loads((built.parent / "sbom" / f"{name}.cdx.json").read_text())
    components: list[dict[str, Any]] = bom["components"]
    return components


def test_the_bill_of_the_runtime_layer_has_each_package_that_is_there(built: Path) -> None:
    packages = {
        re.sub(
            r"[-_.]+", "-", directory.name.removesuffix(".dist-info").rpartition("-")[0]
        ).lower(): (directory.name.removesuffix(".dist-info").rpartition("-")[2])
        for directory in (built / "RuntimeLayer" / "python").glob("*.dist-info")
    }
    listed = {part["name"]: part["version"] for part in _components(built, "runtime-layer")}
    assert listed == packages
    lock = (PROJECT / "layers" / "runtime" / "requirements.txt").read_text()
    pins = dict(re.findall(r"^([\w.-]+)==([^ ]+)", lock, re.MULTILINE))
    assert listed == pins


def test_the_bill_of_the_model_layer_has_each_file_by_its_hash(built: Path) -> None:
    model = built / "ModelLayer" / "model"
    packages = {
        path.relative_to(model).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in model.rglob("*")
        if path.is_file()
    }
    parts = _components(built, "model-layer")
    assert {part["name"]: part["hashes"][0]["content"] for part in parts} == packages
    (network,) = (part for part in parts if part["type"] == "machine-learning-model")
    assert network["name"] == "serving/model.onnx"


def test_the_list_of_licences_is_what_the_layers_packages_say(built: Path) -> None:
    licences = sbom.licences(built.parent / "sbom" / "runtime-layer.cdx.json")
    table = (PROJECT / "layers" / "runtime" / "LICENSES.md").read_text()
    listed = dict(re.findall(r"^\| (\S+ \S+) \| (.+) \|$", table, re.MULTILINE))
    assert listed == licences
