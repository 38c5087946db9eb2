"""Which model `feedrank serve` takes, and when it trains or builds."""

import io
import shutil
from contextlib import suppress
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from rich.console import Console

from feedmodel.demo.options import TrainOptions, TrainResult
from feedmodel.publish.build import BuiltBundle, PublishOptions
from feedmodel.publish.tracking import tracking_uri
from feedops.errors import ModelMissingError, OperationError
from feedops.models.bundles import local_bundle, manifest_of, model_to_serve, newest_bundle

CONSOLE = Console(quiet=True)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainOptions]:
    """Every training that was asked for. Of each, MLflow has a version without anything in it."""
    options_: list[TrainOptions] = []

    def train(options: TrainOptions, _console: Console) -> TrainResult:
        options_.append(options)
        mlflow.set_tracking_uri(tracking_uri())
        version = version_of(mlflow.MlflowClient(), options)
        return TrainResult("run", "models:/m-1", options.registered_name, version, {})

    monkeypatch.setattr("feedmodel.demo.train.train", train)
    return options_


def version_of(client: mlflow.MlflowClient, demo: TrainOptions) -> str:
    """A candidate, as training registers one."""
    with suppress(MlflowException):  # it is there
        client.create_registered_model(demo.registered_name)
    version = client.create_model_version(
        demo.registered_name, "file:///nowhere", tags={"network": demo.network}
    )
    client.set_registered_model_alias(demo.registered_name, demo.alias, version.version)
    return str(version.version)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[PublishOptions]:
    """Every bundle that was asked for; none is made."""
    options_: list[PublishOptions] = []

    def build(options: PublishOptions, _step: object) -> BuiltBundle:
        options_.append(options)
        return BuiltBundle(Path("built"), None, 0, 0.0, 0, {})  # type: ignore[arg-type]  # nobody reads it

    monkeypatch.setattr("feedmodel.publish.build.build_bundle", build)
    return options_


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """MLflow with `feed_ranker` in production, whose bundle is demo_bundle."""
    request.getfixturevalue("demo_bundle")
    uri: str = request.getfixturevalue("tracking_uri")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    database = tmp_path_factory.mktemp("empty") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{database}").search_registered_models()
    return database


@pytest.fixture
def client(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty_store: Path
) -> mlflow.MlflowClient:
    """Of a store of this test's own, where nothing was trained."""
    uri = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return mlflow.MlflowClient(uri)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def aliases(client: mlflow.MlflowClient) -> dict[str, str]:
    aliases_: dict[str, str] = client.get_registered_model("feed_ranker").aliases
    return {alias: str(version) for alias, version in aliases_.items()}


def test_what_is_in_production_is_served(store: str, trained: list[TrainOptions]) -> None:
    uri = model_to_serve(None, None, train=False, console=CONSOLE)
    assert (uri, trained) == ("models:/feed_ranker@production", [])


def test_a_newer_candidate_is_not_served(
    client: mlflow.MlflowClient, trained: list[TrainOptions]
) -> None:
    version_of(client, TrainOptions(alias="production"))
    version_of(client, TrainOptions())
    uri = model_to_serve(None, None, train=False, console=CONSOLE)
    assert (uri, trained) == ("models:/feed_ranker@production", [])
    assert aliases(client) == {"production": "1", "candidate": "2"}


def test_looking_for_a_model_makes_no_database(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_options: TrainOptions, _console: Console) -> TrainResult:
        raise ZeroDivisionError

    monkeypatch.setattr("feedmodel.demo.train.train", fail)
    with pytest.raises(ZeroDivisionError):
        model_to_serve(None, None, train=False, console=CONSOLE)
    assert list(directory.iterdir()) == []


def test_where_nothing_was_ever_trained_the_demo_is_and_goes_into_production(
    client: mlflow.MlflowClient, trained: list[TrainOptions]
) -> None:
    output = io.StringIO()
    uri = model_to_serve(None, None, train=False, console=Console(file=output))
    assert (uri, trained) == ("models:/feed_ranker/1", [TrainOptions()])
    assert aliases(client) == {"candidate": "1", "production": "1"}
    assert output.getvalue() == "Promoted models:/feed_ranker/1: nothing was in production\n"


def test_a_candidate_goes_into_production_where_nothing_is(
    client: mlflow.MlflowClient, trained: list[TrainOptions]
) -> None:
    version_of(client, TrainOptions())
    uri = model_to_serve(None, None, train=False, console=CONSOLE)
    assert (uri, trained) == ("models:/feed_ranker@candidate", [])
    assert aliases(client) == {"candidate": "1", "production": "1"}


def test_training_can_be_asked_for_and_leaves_production_as_it_is(
    client: mlflow.MlflowClient, trained: list[TrainOptions]
) -> None:
    version_of(client, TrainOptions(alias="production"))
    assert model_to_serve(None, None, train=True, console=CONSOLE) == "models:/feed_ranker/2"
    assert trained == [TrainOptions()]
    assert aliases(client) == {"production": "1", "candidate": "2"}


def test_the_newest_model_of_a_network_is_served_and_moves_no_alias(
    client: mlflow.MlflowClient, trained: list[TrainOptions]
) -> None:
    version_of(client, TrainOptions(network="two_tower"))
    version_of(client, TrainOptions())
    uri = model_to_serve(None, "two_tower", train=False, console=CONSOLE)
    assert (uri, trained) == ("models:/feed_ranker/1", [])
    assert aliases(client) == {"candidate": "2"}


def test_a_network_that_has_no_model_is_trained_and_not_promoted(
    client: mlflow.MlflowClient, trained: list[TrainOptions]
) -> None:
    uri = model_to_serve(None, "two_tower", train=False, console=CONSOLE)
    assert (uri, trained) == ("models:/feed_ranker/1", [TrainOptions(network="two_tower")])
    assert aliases(client) == {"candidate": "1"}


def test_a_model_and_a_network_are_too_much(trained: list[TrainOptions]) -> None:
    with pytest.raises(OperationError, match="leave out --network and --train"):
        model_to_serve("models:/mine/1", "two_tower", train=False, console=CONSOLE)


@pytest.mark.parametrize("uri", ["models:/nobody/1", "models:/feed_ranker@nothing"])
def test_a_model_that_is_not_there_is_named(store: str, uri: str) -> None:
    with pytest.raises(ModelMissingError, match=f"{uri}: MLflow has no such model"):
        local_bundle(uri, publish=False, console=CONSOLE)


def test_a_bundle_that_is_there_is_not_built_again(
    store: str, directory: Path, demo_bundle: Path, built: list[PublishOptions]
) -> None:
    there = directory / "data" / "bundles" / "feed_ranker-1"
    shutil.copytree(demo_bundle, there)
    uri = "models:/feed_ranker@production"
    assert local_bundle(uri, publish=False, console=CONSOLE).absolute() == there
    assert built == []
    assert local_bundle(uri, publish=True, console=CONSOLE) == Path("built")
    assert [options.model_uri for options in built] == [uri]


def test_a_bundle_of_the_same_version_from_another_store_is_built_anew(
    store: str, directory: Path, two_tower_bundle: Path, built: list[PublishOptions]
) -> None:
    shutil.copytree(two_tower_bundle, directory / "data" / "bundles" / "feed_ranker-1")
    local_bundle("models:/feed_ranker@production", publish=False, console=CONSOLE)
    assert len(built) == 1


def test_the_newest_bundle_is_the_one_built_last(directory: Path, demo_bundle: Path) -> None:
    with pytest.raises(ModelMissingError, match="no bundle in data/bundles"):
        newest_bundle()
    shutil.copytree(demo_bundle, directory / "data" / "bundles" / "a", copy_function=shutil.copy)
    shutil.copytree(demo_bundle, directory / "data" / "bundles" / "b", copy_function=shutil.copy)
    assert newest_bundle() == Path("data/bundles/b")


def test_a_directory_that_is_no_bundle_is_named(directory: Path) -> None:
    with pytest.raises(ModelMissingError, match="is no bundle"):
        manifest_of(directory)
