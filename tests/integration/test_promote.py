"""`feedrank promote` against a real MLflow store, with runs that have metrics and no model."""

import io
import math
import re
from pathlib import Path

import mlflow
import pytest
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from rich.console import Console

from feedmodel.errors import PromotionError, PublishError
from feedmodel.publish.build import PublishOptions, build_bundle
from feedops.errors import ModelMissingError, OperationError
from feedops.models.promote import promote

NDCG = "test/model/ndcg_at_10"
CANDIDATE = "models:/shop@candidate"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def client(store: str, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    """A store in which `shop` has no version yet."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    client = mlflow.MlflowClient(store)
    if client.search_registered_models("name = 'shop'"):
        client.delete_registered_model("shop")
    client.create_registered_model("shop")
    return client


def add(
    client: mlflow.MlflowClient,
    alias: str,
    metrics: dict[str, float],
    test_data: str | None = "0123456789abcdef",
) -> str:
    mlflow.set_tracking_uri(client.tracking_uri)
    with mlflow.start_run() as run:
        mlflow.log_metrics(metrics)
        source = CodeDatasetSource({})
        mlflow.log_input(MetaDataset(source, digest="of_training"), context="training")
        if test_data:
            mlflow.log_input(MetaDataset(source, digest=test_data), context="test")
    version = client.create_model_version("shop", "file:///nowhere", run_id=run.info.run_id)
    client.set_registered_model_alias("shop", alias, version.version)
    return str(version.version)


def production(client: mlflow.MlflowClient) -> str | None:
    version = client.get_registered_model("shop").aliases.get("production")
    return version and str(version)


def promoted(uri: str = CANDIDATE, *, force: bool = False) -> str:
    """The printed text."""
    output = io.StringIO()
    promote(uri, tracking_uri=None, force=force, console=Console(file=output, width=120))
    return output.getvalue()


def test_the_first_version_is_promoted_without_a_comparison(client: mlflow.MlflowClient) -> None:
    add(client, "candidate", {NDCG: 0.5})
    assert "Promoted models:/shop/1: nothing was in production" in promoted()
    assert production(client) == "1"
    tags = client.get_model_version("shop", "1").tags
    assert tags["promoted_from"] == "none"


@pytest.mark.parametrize("ndcg", [0.6, 0.61])
def test_a_version_that_ranks_no_worse_is_promoted_and_names_what_it_replaced(
    client: mlflow.MlflowClient, ndcg: float
) -> None:
    add(client, "production", {NDCG: 0.6})
    add(client, "candidate", {NDCG: ndcg})
    assert promoted().endswith("Promoted models:/shop/2: models:/shop/1 was in production\n")
    assert production(client) == "2"
    tags = client.get_model_version("shop", "2").tags
    assert tags["promoted_from"] == "models:/shop/1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", tags["promoted_at"])


@pytest.mark.parametrize("ndcg", [0.587, math.nan])
def test_a_lower_ndcg_is_refused_unless_forced(client: mlflow.MlflowClient, ndcg: float) -> None:
    add(client, "production", {NDCG: 0.614})
    add(client, "candidate", {NDCG: ndcg})
    refusal = f"shop/2 is not promoted: its NDCG@10 is lower: {ndcg:.4f} instead of 0.6140\n--force"
    with pytest.raises(OperationError, match=refusal):
        promoted()
    assert production(client) == "1"
    assert client.get_model_version("shop", "2").tags == {}
    promoted(force=True)
    assert production(client) == "2"


@pytest.mark.parametrize(
    ("ours", "theirs"), [("aaaa", "bbbb"), (None, "bbbb"), ("aaaa", None), (None, None)]
)
def test_metrics_of_different_or_unknown_test_data_are_not_compared(
    client: mlflow.MlflowClient, ours: str | None, theirs: str | None
) -> None:
    add(client, "production", {NDCG: 0.5}, theirs)
    add(client, "candidate", {NDCG: 0.9}, ours)
    reason = f"can't be compared: their runs name {ours or 'no'} and {theirs or 'no'} test data"
    with pytest.raises(OperationError, match=reason):
        promoted()
    assert production(client) == "1"
    promoted(force=True)
    assert production(client) == "2"


def test_a_missing_metric_is_named(client: mlflow.MlflowClient) -> None:
    add(client, "production", {NDCG: 0.5})
    add(client, "candidate", {"test/model/auc": 0.9})
    with pytest.raises(OperationError, match=f"can't be compared: a run has no metric {NDCG}"):
        promoted()


def test_both_versions_are_shown_side_by_side_before_the_refusal(
    client: mlflow.MlflowClient,
) -> None:
    add(client, "production", {NDCG: 0.614, "test/random/auc": 0.5, "mine": 2})
    add(client, "candidate", {NDCG: 0.587, "train/loss": 0.1})
    output = io.StringIO()
    with pytest.raises(OperationError):
        promote(CANDIDATE, tracking_uri=None, force=False, console=Console(file=output, width=120))
    cells = [
        [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]
        for line in output.getvalue().splitlines()
        if line[0] in "│┃"
    ]
    assert cells == [
        ["", "candidate", "production", ""],
        ["", "version 2", "version 1", "difference"],
        ["test data", *("01234567",) * 2, ""],
        ["mine", "", "2.0000", ""],
        [NDCG, "0.5870", "0.6140", "-0.0270"],
    ]


def test_the_version_in_production_is_not_promoted_again(client: mlflow.MlflowClient) -> None:
    add(client, "production", {NDCG: math.nan})
    assert promoted("models:/shop/1").endswith("models:/shop/1 is in production already.\n")
    assert client.get_model_version("shop", "1").tags == {}


def test_publishing_before_a_promotion_names_the_command(
    client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    add(client, "candidate", {NDCG: 0.5})
    with pytest.raises(
        PublishError, match=r"alias production not found.*\n`feedrank promote` sets"
    ):
        build_bundle(PublishOptions("models:/shop@production", bundles=tmp_path / "bundles"))


@pytest.mark.parametrize("uri", ["models:/shop/9", "models:/nobody/1", "models:/shop@candidate"])
def test_a_missing_version_is_named(client: mlflow.MlflowClient, uri: str) -> None:
    with pytest.raises(PromotionError, match=f"{uri}: MLflow has no such version"):
        promoted(uri)


@pytest.mark.parametrize("uri", ["models:/m-0123", "runs:/0/model", "shop"])
def test_only_a_registered_version_can_be_promoted(client: mlflow.MlflowClient, uri: str) -> None:
    with pytest.raises(PromotionError, match="must be a version's number or models:/name/version"):
        promoted(uri)


def test_without_a_database_none_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ModelMissingError, match="nothing was trained here"):
        promoted()
    assert list(tmp_path.iterdir()) == []
