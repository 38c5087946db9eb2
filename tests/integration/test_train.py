"""`train()` against a real MLflow store, small."""

import io
import json
import re
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
from rich.console import Console

from feedmodel.demo.datasets import digest
from feedmodel.demo.expected_scores import SLATES
from feedmodel.demo.feed import generate_feed
from feedmodel.demo.options import NetworkName, TrainOptions, TrainResult
from feedmodel.demo.train import train
from feedmodel.demo.windows import split
from feedmodel.errors import TrackingError
from feedmodel.publish.build import PublishOptions, build_bundle
from feedmodel.publish.registry import LOAD_MARKER, tracking_at
from feedmodel.publish.tracking import DEFAULT_TRACKING_URI, tracking_uri
from feedmodel.training.runs import tracked_run
from feedrank.features.spec_reader import parse_spec

SMALL = TrainOptions(users=50, items=200, interactions=4_000, epochs=2, batch_size=256)
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of the training."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def results(home: Path) -> dict[NetworkName, TrainResult]:
    """Both networks, trained one after the other without any configuration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        two_tower = train(replace(SMALL, network="two_tower"), QUIET)
        return {"two_tower": two_tower, "deep_mlp": train(SMALL, QUIET)}


@pytest.fixture
def client(home: Path, results: dict[NetworkName, TrainResult]) -> mlflow.MlflowClient:
    assert results
    return mlflow.MlflowClient(f"sqlite:///{home}/data/mlflow/mlflow.db")


@pytest.fixture(params=["deep_mlp", "two_tower"])
def result(request: pytest.FixtureRequest, results: dict[NetworkName, TrainResult]) -> TrainResult:
    return results[request.param]


def test_a_bundle_gives_what_the_trainings_own_evaluation_gave(
    home: Path, results: dict[NetworkName, TrainResult], tmp_path: Path
) -> None:
    """Of known and unknown users and items, with and without a device."""
    uri = f"sqlite:///{home}/data/mlflow/mlflow.db"
    options = PublishOptions(results["two_tower"].model_uri, uri, bundles=tmp_path)
    built = build_bundle(options)
    assert built.agreement is not None
    assert built.agreement.requests == SLATES
    assert built.agreement.rows > 5 * SLATES
    assert 0 < built.agreement.apart < 1e-5


def test_everything_is_written_below_data(
    home: Path, results: dict[NetworkName, TrainResult]
) -> None:
    assert results
    assert [path.name for path in home.iterdir()] == ["data"]
    assert sorted(path.name for path in (home / "data/mlflow").iterdir()) == [
        "artifacts",
        "mlflow.db",
    ]


def test_the_latest_training_is_the_candidate_and_nothing_is_in_production(
    client: mlflow.MlflowClient, results: dict[NetworkName, TrainResult]
) -> None:
    assert list(client.get_registered_model("feed_ranker").aliases) == ["candidate"]
    version = client.get_model_version_by_alias("feed_ranker", "candidate")
    assert (str(version.version), version.run_id) == ("2", results["deep_mlp"].run_id)
    tags = {n: client.get_model_version("feed_ranker", r.version).tags for n, r in results.items()}
    assert tags == {"deep_mlp": {"network": "deep_mlp"}, "two_tower": {"network": "two_tower"}}


def test_the_run_holds_params_and_metrics_per_epoch_and_of_the_test(
    client: mlflow.MlflowClient, result: TrainResult
) -> None:
    run = client.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["interactions"] == "4000"
    assert "tracking_uri" not in run.data.params
    assert result.metrics.items() <= run.data.metrics.items()
    for metric in ("train/loss", "validation/loss", "validation/auc"):
        assert [m.step for m in client.get_metric_history(result.run_id, metric)] == [1, 2]


def test_the_run_names_the_command_and_not_its_path(
    client: mlflow.MlflowClient, result: TrainResult
) -> None:
    assert client.get_run(result.run_id).data.tags["mlflow.source.name"] == "feedrank train"


def test_the_run_holds_the_plots(client: mlflow.MlflowClient, result: TrainResult) -> None:
    assert [
        (a.path, a.file_size > 10_000) for a in client.list_artifacts(result.run_id, "plots")
    ] == [
        ("plots/calibration.png", True),
        ("plots/learning_curve.png", True),
        ("plots/ranking_quality.png", True),
    ]


def test_the_run_holds_the_spec_and_tables_with_its_columns(
    client: mlflow.MlflowClient, result: TrainResult, tmp_path: Path
) -> None:
    directory = Path(client.download_artifacts(result.run_id, "features", str(tmp_path)))
    spec = parse_spec(json.loads((directory / "feature_spec.json").read_text()))
    frames = {path.stem: pd.read_parquet(path) for path in directory.glob("*.parquet")}
    assert frames["users"].columns.tolist() == ["user_id", *(f.name for f in spec.columns("user"))]
    assert frames["items"].columns.tolist() == ["item_id", *(f.name for f in spec.columns("item"))]
    assert len(frames["items"]) == 200
    pair_columns = [f.name for f in spec.columns("pair")] or ["user_item_previous_interactions"]
    assert frames["pairs"].columns.tolist() == ["user_id", "item_id", *pair_columns]


def test_the_logged_model_is_free_of_pickle_and_of_this_machines_paths(
    home: Path,
    client: mlflow.MlflowClient,
    results: dict[NetworkName, TrainResult],
    result: TrainResult,
) -> None:
    model = client.get_logged_model(result.model_uri.removeprefix("models:/"))
    directory = Path(model.artifact_location.removeprefix("file://"))
    assert directory.is_relative_to(home / "data/mlflow/artifacts")
    files = sorted(
        str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()
    )
    is_alone = result is results["deep_mlp"]  # MLflow keeps no example of several inputs
    assert [file for file in files if file != LOAD_MARKER] == [
        "MLmodel",
        "conda.yaml",
        "data/model.pt2",
        *(("input_example.json",) if is_alone else ()),
        "python_env.yaml",
        "requirements.txt",
        *(("serving_input_example.json",) if is_alone else ()),
    ]
    program = (directory / "data/model.pt2").read_bytes()
    assert b"feedmodel/demo/networks.py" not in program
    assert all(
        "@" not in line for line in (directory / "requirements.txt").read_text().splitlines()
    )


@pytest.mark.parametrize("items", [1, 2, 100])
def test_the_logged_model_scores_any_number_of_items(
    home: Path, results: dict[NetworkName, TrainResult], items: int
) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{home}/data/mlflow/mlflow.db")
    deep_mlp = mlflow.pytorch.load_model(results["deep_mlp"].model_uri)
    two_tower = mlflow.pytorch.load_model(results["two_tower"].model_uri)
    mlflow.set_tracking_uri("")
    with torch.inference_mode():
        for score in (
            deep_mlp(torch.rand(items, 15)),
            two_tower(torch.rand(1, 10), torch.rand(items, 4)),
        ):
            assert score.shape == (items,)
            assert ((score >= 0) & (score <= 1)).all()


def test_the_signature_names_the_specs_inputs(
    home: Path, results: dict[NetworkName, TrainResult]
) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{home}/data/mlflow/mlflow.db")
    signatures = {
        name: mlflow.models.get_model_info(result.model_uri).signature.inputs
        for name, result in results.items()
    }
    mlflow.set_tracking_uri("")
    assert {
        name: [(tensor.name, tensor.shape) for tensor in inputs]
        for name, inputs in signatures.items()
    } == {
        "deep_mlp": [("features", (-1, 15))],
        "two_tower": [("user_features", (1, 10)), ("item_features", (-1, 4))],
    }


def test_training_again_gives_the_same_model_spec_tables_and_data(
    tmp_path: Path, client: mlflow.MlflowClient, results: dict[NetworkName, TrainResult]
) -> None:
    uri = f"sqlite:///{tmp_path}/m.db"
    again = train(replace(SMALL, tracking_uri=uri), QUIET)
    assert again.metrics == results["deep_mlp"].metrics
    assert again.version == "1"
    runs = []
    for place, run_id in (
        (client, results["deep_mlp"].run_id),
        (mlflow.MlflowClient(uri), again.run_id),
    ):
        directory = Path(place.download_artifacts(run_id, "features", str(tmp_path / run_id)))
        runs.append(
            {path.name: path.read_bytes() for path in directory.iterdir()}
            | {"as of": place.get_run(run_id).data.tags["feedrank.snapshot_as_of"]}
            | digests(place, run_id)
        )
    assert runs[0] == runs[1]


def digests(client: mlflow.MlflowClient, run_id: str) -> dict[str, str]:
    """Of the run's datasets, by context."""
    datasets = client.get_run(run_id).inputs.dataset_inputs
    assert len(datasets) == 2
    return {entry.tags[0].value: entry.dataset.digest for entry in datasets}


def test_the_run_names_its_training_and_test_data(
    client: mlflow.MlflowClient, result: TrainResult
) -> None:
    feed = generate_feed(SMALL.users, SMALL.items, SMALL.interactions, SMALL.seed)
    logged = digests(client, result.run_id)
    assert logged == {
        "training": digest(feed, split(feed).train),
        "test": digest(feed, split(feed).test),
    }
    assert len(set(logged.values())) == 2
    model = client.get_logged_model(result.model_uri.removeprefix("models:/"))
    evaluated_on = {m.dataset_digest for m in model.metrics if m.key == "test/model/ndcg_at_10"}
    assert evaluated_on == {logged["test"]}


def test_different_clicks_have_a_different_digest() -> None:
    feed = generate_feed(SMALL.users, SMALL.items, SMALL.interactions, SMALL.seed)
    window = split(feed).test
    clicked = feed.clicked.copy()
    clicked[-1] = not clicked[-1]
    assert digest(replace(feed, clicked=clicked), window) != digest(feed, window)
    assert digest(replace(feed, clicked=clicked), split(feed).train) == digest(
        feed, split(feed).train
    )


def test_the_run_dates_its_snapshot_by_the_end_of_the_feed(
    client: mlflow.MlflowClient, result: TrainResult
) -> None:
    feed = generate_feed(SMALL.users, SMALL.items, SMALL.interactions, SMALL.seed)
    as_of = client.get_run(result.run_id).data.tags["feedrank.snapshot_as_of"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", as_of)
    assert datetime.fromisoformat(as_of).timestamp() == feed.time_s[-1] + 1


def test_the_run_names_the_commit_of_the_code(
    client: mlflow.MlflowClient, result: TrainResult
) -> None:
    head = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    tags = client.get_run(result.run_id).data.tags
    assert tags.get("mlflow.source.git.commit", "") == head


def test_the_run_names_optimiser_and_widths(
    client: mlflow.MlflowClient, results: dict[NetworkName, TrainResult]
) -> None:
    params = {name: client.get_run(r.run_id).data.params for name, r in results.items()}
    assert (params["deep_mlp"]["layers/body"], params["deep_mlp"]["layers/head"]) == (
        *("512-256-128", "1"),
    )
    assert params["two_tower"]["layers/user_tower"] == "256-128-128"
    assert params["two_tower"]["layers/item_tower"] == "256-128-128"
    for each in params.values():
        assert each["optimizer"] == "Adam"
        assert each["adam/betas"] == "(0.9, 0.999)"
        assert each["dropout"] == "0.1"


def test_the_models_page_shows_the_registered_version_and_what_the_model_is(
    client: mlflow.MlflowClient, result: TrainResult
) -> None:
    """The page reads a tag of the model; MLflow's own registration appends in its format."""
    model_id = result.model_uri.removeprefix("models:/")
    ours = json.loads(client.get_logged_model(model_id).tags["mlflow.modelVersions"])
    with tracking_at(client.tracking_uri):
        beside = mlflow.register_model(result.model_uri, "registered_by_mlflow")
    both = json.loads(client.get_logged_model(model_id).tags["mlflow.modelVersions"])
    assert ours == [{"name": result.registered_name, "version": int(result.version)}]
    assert both == [*ours, {"name": "registered_by_mlflow", "version": beside.version}]
    assert type(both[0]["version"]) is type(both[1]["version"])
    version = client.get_model_version(result.registered_name, result.version)
    assert version.source == result.model_uri
    for description in (
        client.get_logged_model(model_id).tags["mlflow.note.content"],
        version.description,
        client.get_registered_model(result.registered_name).description,
    ):
        assert description.startswith("The probability that a user engages with an item")


def test_a_failed_training_is_a_failed_run(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(ZeroDivisionError), tracked_run(uri, "tests", "broken") as run_id:
        raise ZeroDivisionError
    assert mlflow.MlflowClient(uri).get_run(run_id).info.status == "FAILED"


def test_a_run_restores_mlflows_tracking_uri(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    with tracked_run(f"sqlite:///{tmp_path}/mlflow.db", "tests", "run"):
        assert tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_uri() == "sqlite:///elsewhere.db"
    mlflow.set_tracking_uri("")


def test_an_unusable_store_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file")
    with pytest.raises(TrackingError, match="occupied"):
        train(replace(SMALL, tracking_uri=f"sqlite:///{tmp_path}/occupied/mlflow.db"), QUIET)


def test_the_tracking_uri_is_the_option_the_environment_or_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///theirs.db")
    assert tracking_uri("sqlite:///mine.db") == "sqlite:///mine.db"
    assert tracking_uri() == "sqlite:///theirs.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking_uri() == DEFAULT_TRACKING_URI


def test_the_summary_shows_the_model_beside_its_baselines(tmp_path: Path) -> None:
    output = io.StringIO()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    train(replace(SMALL, tracking_uri=uri), Console(file=output, width=120))
    rankings = [
        line.split("│")[1].strip() for line in output.getvalue().splitlines() if "│" in line
    ]
    assert rankings == [
        *("random", "popularity", "click rate"),
        *("unknown items", "unknown users", "model", "known best"),
    ]
