"""The command line: how it passes options on, and how it fails."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from feedmodel.demo.options import TrainOptions, TrainResult
from feedmodel.publish.expected import Agreement
from feedops.cli.main import app
from feedops.errors import OperationError, StartError
from feedops.local.serve_options import ServeOptions
from feedops.stack.budget import where_it_fits
from feedrank.errors import BundleError, SettingsError

HEAVY = {
    *("aiohttp", "asyncio", "boto3", "fastapi", "matplotlib", "mlflow", "numpy"),
    *("onnxruntime", "pandas", "pydantic", "torch"),
}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServeOptions]:
    """The options of each server that a command would have started."""
    servers: list[ServeOptions] = []
    monkeypatch.setattr(
        "feedops.local.serve.serve", lambda options, _console: servers.append(options)
    )
    return servers


def test_the_command_line_imports_nothing_heavy() -> None:
    code = f"import sys, feedbench.cli; print({HEAVY!r} & set(sys.modules))"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout == "set()\n"


def test_help_lists_the_commands_under_their_headings() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for heading in ("On this machine", "Models", "Deployed stack"):
        assert f"─ {heading} ─" in result.stdout
    commands = ("train", "publish", "serve", "run", "invoke", "dashboard", "release", "decisions")
    for command in commands:
        assert f" {command} " in result.stdout


def test_options_of_training_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[TrainOptions] = []

    def train(options: TrainOptions, _console: Console) -> TrainResult:
        runs.append(options)
        return TrainResult("run", "models:/m-1", options.registered_name, "4", {})

    monkeypatch.setattr("feedmodel.demo.train.train", train)
    result = CliRunner().invoke(app, ["train", "--network", "two_tower", "--epochs", "3"])
    assert result.exit_code == 0
    assert runs == [TrainOptions(network="two_tower", epochs=3)]
    assert result.stdout.startswith("models:/feed_ranker/4 is the candidate")
    again = CliRunner().invoke(app, ["train", "--alias", "production"])
    assert (again.exit_code, again.stdout, runs[-1].alias) == (0, "", "production")


@pytest.mark.parametrize(
    ("arguments", "uri"),
    [
        ([], "models:/feed_ranker@candidate"),
        (["12"], "models:/feed_ranker/12"),
        (["models:/shop/3"], "models:/shop/3"),
    ],
)
def test_promote_takes_a_number_a_uri_or_else_the_candidate(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], uri: str
) -> None:
    calls: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(
        "feedops.models.promote.promote", lambda name, **options: calls.append((name, options))
    )
    result = CliRunner().invoke(app, ["promote", *arguments, "--force"])
    assert result.exit_code == 0
    assert [(name, options["force"]) for name, options in calls] == [(uri, True)]


def test_publishing_to_s3_prints_the_command_that_deploys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Manifest:
        model_version = "mine-3"
        digest = "0" * 64
        batches = False
        trained_at = "2026-06-01T08:00:00Z"
        snapshot_as_of = None
        published_at = "2026-06-02T09:30:00Z"

    uri = f"s3://bucket/models/mine/sha256-{Manifest.digest}/"
    built = SimpleNamespace(
        directory=Path("built"),
        manifest=Manifest,
        size_bytes=2_500_000,
        container_bytes=1_100_000,
        parity=1.5e-7,
        rows=400,
        missing={"users.age": 1_200},
        unknown={"items.genres": 12},
        vector_width=0,
        notes={"up-cast": "from float16 to float32"},
        agreement=Agreement(3_000, 200, 1.2e-7),
    )
    monkeypatch.setattr("feedmodel.publish.build.build_bundle", lambda _options, _step: built)
    monkeypatch.setattr(
        "feedmodel.publish.upload.upload",
        lambda _directory, _to: SimpleNamespace(uri=uri, uploaded=0),
    )
    result = CliRunner().invoke(app, ["publish", "models:/mine/3", "--to", "s3://bucket/models"])
    assert result.stdout.splitlines() == [
        "model        mine-3",
        f"bundle       {uri}",
        f"digest       {Manifest.digest}",
        "trained      2026-06-01T08:00:00Z",
        "snapshot     no date; give it: --as-of 2026-11-24T00:00:00Z",
        "published    2026-06-02T09:30:00Z",
        "size         2.5 MB",
        "fits         1.1 MB on Lambda: a layer (about 144 MB are left) or S3 (/tmp has 512 MB)",
        "parity       1.5e-07 at most between torch and ONNX, 400 rows",
        "expected     1.2e-07 at most, 3,000 rows in 200 requests",
        "batches      no: one inference per request",
        "empty cells  users.age 1,200; filled with the spec's defaults",
        "unknown      items.genres 12; in no vocabulary, so 0",
        "up-cast      from float16 to float32",
        "uploaded     nothing new",
        f"To deploy it: feedrank release {uri} --stack NAME",
    ]


@pytest.mark.parametrize(
    ("megabytes", "says"),
    [
        (144, "144.0 MB on Lambda: a layer (about 144 MB are left) or S3"),
        (145, "145.0 MB on Lambda: S3 alone (/tmp has 512 MB)"),
        (512, "512.0 MB on Lambda: S3 alone"),
        (1_200, "1,200.0 MB on Lambda: S3, with EphemeralStorage=1280 (/tmp has 512 MB)"),
        (10_240, "10,240.0 MB on Lambda: S3, with EphemeralStorage=10240 (/tmp has"),
        (10_241, "10,241.0 MB on Lambda: nowhere; /tmp has 10,240 MB at most"),
    ],
)
def test_publishing_says_what_fits_where(megabytes: int, says: str) -> None:
    assert where_it_fits(megabytes * 1_000_000).startswith(says)


def test_run_is_serve_with_an_example_response(served: list[ServeOptions]) -> None:
    CliRunner().invoke(app, ["serve"], catch_exceptions=False)
    CliRunner().invoke(app, ["run"], catch_exceptions=False)
    assert served == [ServeOptions(), ServeOptions(show_answer=True)]


def test_options_of_serving_are_passed_on(served: list[ServeOptions]) -> None:
    arguments = (
        "serve --model models:/mine/3 --publish --front uvicorn --host 0.0.0.0 --port 9000 "
        "--concurrency 4 --memory 3008 --timeout 5 --env A=1 --env B=x=y"
    )
    CliRunner().invoke(app, arguments.split(), catch_exceptions=False)
    assert served == [
        ServeOptions(
            model="models:/mine/3",
            publish=True,
            front="uvicorn",
            host="0.0.0.0",
            port=9_000,
            concurrency=4,
            memory_mb=3_008,
            timeout_s=5,
            variables={"A": "1", "B": "x=y"},
        )
    ]


def test_a_variable_without_a_value_is_refused(served: list[ServeOptions]) -> None:
    result = CliRunner().invoke(app, ["serve", "--env", "A"])
    assert (result.exit_code, served) == (2, [])
    assert "'A' is not NAME=VALUE" in result.stderr


def test_an_error_prints_its_text_and_exits_with_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_options: ServeOptions, _console: Console) -> None:
        raise StartError("moto's server ended; the end of the log:\n  [red]boom")

    monkeypatch.setattr("feedops.local.serve.serve", fail)
    result = CliRunner().invoke(app, ["serve"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "moto's server ended; the end of the log:\n  [red]boom\n"


@pytest.mark.parametrize(
    "error", [SettingsError("MODEL_URI: is required"), BundleError("manifest.json: no JSON")]
)
def test_errors_of_the_function_itself_print_their_text_too(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_options: ServeOptions, _console: Console) -> None:
        raise error

    monkeypatch.setattr("feedops.local.serve.serve", fail)
    result = CliRunner().invoke(app, ["serve"])
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"{error}\n")


def test_an_operators_error_has_no_http_status() -> None:
    assert not hasattr(OperationError("text"), "status")


def test_with_debug_an_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_options: ServeOptions, _console: Console) -> None:
        raise StartError("no")

    monkeypatch.setattr("feedops.local.serve.serve", fail)
    result = CliRunner().invoke(app, ["--debug", "serve"])
    assert isinstance(result.exception, StartError)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("localhost", "http://localhost:8000"),
    ],
)
def test_the_url_is_one_that_this_machine_can_reach(host: str, url: str) -> None:
    assert ServeOptions(host=host).url == url


def test_two_servers_on_one_machine_have_different_log_directories() -> None:
    assert ServeOptions(port=8_001).logs == Path("data/logs/port-8001")
