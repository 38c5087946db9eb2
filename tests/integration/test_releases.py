"""Which model `feedrank serve` takes, and when it trains or builds."""

import shutil
from pathlib import Path

import mlflow
import pytest
from rich.console import Console

from feedmodel.options import TrainOptions, TrainResult
from feedmodel.publish import BuiltBundle, PublishOptions
from feedops.errors import ModelMissingError, OperationError
from feedops.releases import (
    local_bundle,
    manifest_of,
    model_to_serve,
    newest_bundle,
)

CONSOLE = Console(quiet=True)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainOptions]:
    """Every training that was asked for; none takes place."""
    asked: list[TrainOptions] = []

    def train(options: TrainOptions, _console: Console) -> TrainResult:
        asked.append(options)
        return TrainResult("run", "models:/m-1", options.registered_name, "7", {})

    monkeypatch.setattr("feedmodel.train.train", train)
    return asked


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[PublishOptions]:
    """Every bundle that was asked for; none is made."""
    asked: list[PublishOptions] = []

    def build(options: PublishOptions, _step: object) -> BuiltBundle:
        asked.append(options)
        return BuiltBundle(Path("built"), None, 0, 0.0, 0)  # type: ignore[arg-type]  # nobody reads it

    monkeypatch.setattr("feedmodel.publish.build_bundle", build)
    return asked


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tracking_uri: str, demo_bundle: Path) -> str:
    """MLflow with `feed_ranker` in production, whose bundle is demo_bundle."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    return tracking_uri


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def test_what_is_in_production_is_served(store: str, trained: list[TrainOptions]) -> None:
    uri = model_to_serve(None, None, train=False, console=CONSOLE)
    assert (uri, trained) == ("models:/feed_ranker@production", [])


def test_where_nothing_was_ever_trained_the_demo_is(
    folder: Path, trained: list[TrainOptions]
) -> None:
    uri = model_to_serve(None, None, train=False, console=CONSOLE)
    assert (uri, trained) == ("models:/feed_ranker/7", [TrainOptions()])
    assert list(folder.iterdir()) == []  # looking made no database


def test_training_can_be_asked_for(store: str, trained: list[TrainOptions]) -> None:
    assert model_to_serve(None, None, train=True, console=CONSOLE) == "models:/feed_ranker/7"
    assert trained == [TrainOptions()]


def test_the_newest_model_of_a_network_is_served(store: str, trained: list[TrainOptions]) -> None:
    client = mlflow.MlflowClient(store)
    client.set_model_version_tag("feed_ranker", "1", "network", "deep_mlp")
    uri = model_to_serve(None, "deep_mlp", train=False, console=CONSOLE)
    assert (uri, trained) == ("models:/feed_ranker/1", [])


def test_a_network_that_has_no_model_is_trained(store: str, trained: list[TrainOptions]) -> None:
    assert model_to_serve(None, "two_tower", train=False, console=CONSOLE) == (
        "models:/feed_ranker/7"
    )
    assert trained == [TrainOptions(network="two_tower")]


def test_a_model_and_a_network_are_too_much(trained: list[TrainOptions]) -> None:
    with pytest.raises(OperationError, match="leave out --network and --train"):
        model_to_serve("models:/mine/1", "two_tower", train=False, console=CONSOLE)


@pytest.mark.parametrize("uri", ["models:/nobody/1", "models:/feed_ranker@nothing"])
def test_a_model_that_is_not_there_is_named(store: str, uri: str) -> None:
    with pytest.raises(ModelMissingError, match=f"{uri}: MLflow has no such model"):
        local_bundle(uri, publish=False, console=CONSOLE)


def test_a_bundle_that_is_there_is_not_built_again(
    store: str, folder: Path, demo_bundle: Path, built: list[PublishOptions]
) -> None:
    there = folder / "data" / "bundles" / "feed_ranker-1"
    shutil.copytree(demo_bundle, there)
    uri = "models:/feed_ranker@production"
    assert local_bundle(uri, publish=False, console=CONSOLE).absolute() == there
    assert built == []
    assert local_bundle(uri, publish=True, console=CONSOLE) == Path("built")
    assert [options.model_uri for options in built] == [uri]


def test_a_bundle_of_the_same_version_from_another_store_is_built_anew(
    store: str, folder: Path, two_tower_bundle: Path, built: list[PublishOptions]
) -> None:
    shutil.copytree(two_tower_bundle, folder / "data" / "bundles" / "feed_ranker-1")
    local_bundle("models:/feed_ranker@production", publish=False, console=CONSOLE)
    assert len(built) == 1


def test_the_newest_bundle_is_the_one_built_last(folder: Path, demo_bundle: Path) -> None:
    with pytest.raises(ModelMissingError, match="no bundle in data/bundles"):
        newest_bundle()
    shutil.copytree(demo_bundle, folder / "data" / "bundles" / "a", copy_function=shutil.copy)
    shutil.copytree(demo_bundle, folder / "data" / "bundles" / "b", copy_function=shutil.copy)
    assert newest_bundle() == Path("data/bundles/b")


def test_a_folder_that_is_no_bundle_is_named(folder: Path) -> None:
    with pytest.raises(ModelMissingError, match="is no bundle"):
        manifest_of(folder)
