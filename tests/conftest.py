"""Fixtures that all kinds of tests share. A test that needs no torch or MLflow imports none."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings
from starlette.testclient import TestClient

import clients
import fakes
from fakes import LogLines, StandardOutput, log_to
from feedrank.model.load import load_model
from feedrank.telemetry.output import output
from no_skips import pytest_runtest_makereport  # noqa: F401 a hook

# The same examples in every run, so that a failure can be repeated.
hypothesis_settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis_settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _lost_lines_of_this_test_alone() -> None:
    """The counter is the process's: what one test loses would be in another's metrics."""
    output.lost = output.reported = 0


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """AWS by moto, with credentials and a region."""
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The URL of moto's HTTP server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def aws_server(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty AWS by moto's HTTP server, which the environment names, with credentials
    and a region."""
    from urllib.request import Request, urlopen

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    urlopen(Request(f"{moto_url}/moto-api/reset", method="POST")).close()
    return moto_url


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """MLflow's tracking store of this session."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(scope="session")
def demo_bundle(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the demo's deep MLP, small and untrained. Copy it before you change it."""
    import demo

    return _published("deep_mlp", demo.demo_spec(), tracking_uri, tmp_path_factory)


@pytest.fixture(scope="session")
def two_tower_bundle(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two-tower network: user features are one row a request, item features one an item."""
    import demo

    return _published("two_tower", demo.two_tower_spec(), tracking_uri, tmp_path_factory)


@pytest.fixture(scope="module", params=["demo_bundle", "two_tower_bundle"])
def served(request: pytest.FixtureRequest) -> tuple[TestClient, Path]:
    """The app around a real bundle, and the bundle."""
    bundle: Path = request.getfixturevalue(request.param)
    return clients.client(load_model(str(bundle), "", fakes.settings())), bundle


@pytest.fixture(scope="session")
def everything_bundle(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a model with all that a spec can say: text ids, candidate features, lists,
    zones, two outputs."""
    import zoo
    from everything import EVERYTHING
    from zoo_bundles import publish

    directory = tmp_path_factory.mktemp("everything")
    return publish(EVERYTHING, zoo.tables(text_ids=True), tracking_uri, directory).directory


def _published(
    network: str, spec: dict[str, Any], tracking_uri: str, directories: pytest.TempPathFactory
) -> Path:
    """Logs a network to MLflow and publishes it, as `feedrank train` and `feedrank publish` do."""
    import mlflow

    import demo
    from feedmodel.publish.build import PublishOptions, build_bundle
    from feedmodel.training.runs import log_network, register, tracked_run
    from feedrank.features.spec_reader import parse_spec

    directory = directories.mktemp(network)
    parsed = parse_spec(spec)
    examples = {i.name: np.ones((4, len(i.features)), np.float32) for i in parsed.inputs}
    name = {"deep_mlp": "feed_ranker", "two_tower": "feed_ranker_two_tower"}[network]
    with tracked_run(tracking_uri, "tests", network) as run_id:
        mlflow.log_param("network", network)
        mlflow.log_metrics({"test/model/auc": 0.75, "test/model/ndcg_at_10": 0.5})
        demo.write_features(directory / "features", spec)
        mlflow.log_artifacts(str(directory / "features"), "features")
        model_uri = log_network(demo.network(network), parsed, examples)
        version = register(model_uri, run_id, name, "production", {})
    options = PublishOptions(
        f"models:/{name}/{version}", tracking_uri, bundles=directory / "bundles"
    )
    return build_bundle(options).directory


@pytest.fixture
def log() -> Iterator[LogLines]:
    """The function's log of this test, as parsed lines."""
    stream = io.StringIO()
    with log_to(stream):
        yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Iterator[LogLines]:
    """Standard output of this test, as parsed lines: log, metrics and decisions."""
    parsed: list[dict[str, Any]] = []

    def lines() -> list[dict[str, Any]]:
        parsed.extend(json.loads(line) for line in capsys.readouterr().out.splitlines())
        return parsed

    with log_to(StandardOutput()):
        yield lines
