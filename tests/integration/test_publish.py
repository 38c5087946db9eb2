"""Any torch model in MLflow becomes a bundle that serves, or is refused with a helpful reason."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import boto3
import numpy as np
import pandas as pd
import pytest
import torch
from botocore.client import BaseClient
from botocore.exceptions import ConnectionClosedError
from moto.server import ThreadedMotoServer
from torch import Tensor, nn
from typer.testing import CliRunner

import archives
from feedmodel.errors import PublishError
from feedmodel.publish import quantized
from feedmodel.publish.build import PublishOptions, build_bundle
from feedmodel.publish.upload import upload
from feedops.cli.main import app
from feedrank.bundle.layout import MANIFEST, ONNX_MODEL, SERVING, TORCH_MODEL, parse_manifest
from feedrank.domain import Query
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec_reader import parse_spec
from feedrank.model.load import load_model
from feedrank.settings import Settings
from shop import SHOP_SPEC, Registry, Shop

BUCKET = "bundles"
WEDNESDAY_NOON_S = 1_780_488_000.0  # 2026-06-03T12:00:00Z


class ShopLogits(Shop):
    def forward(self, x: Tensor) -> Tensor:
        return 10 * self.logits(x)


class Unexportable(Shop):
    """Sorts by an operator that ONNX doesn't have."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(torch.linalg.eigvals(x @ x.T).real)


class Listwise(Shop):
    """The scores of a batch have the sum 1."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.logits(x), 0)


class ListwiseByUser(Shop):
    """The same among rows of one user, hour and basket; a batch may hold two such requests."""

    def forward(self, x: Tensor) -> Tensor:
        same = (x[:, None, 1:] == x[None, :, 1:]).float().prod(-1)
        raised = self.logits(x).exp()
        return raised / (same @ raised)


class Limited(Shop):
    """Scores 0 from the 1,001st row of a batch on."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(x)) * (torch.arange(x.shape[0]) < 1_000)


class FirstRowsUser(Shop):
    """Reads the user from the first row only, since all rows of a request have the same."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(x) + x[0, 2] / 100)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    urlopen(
        f"http://{host}:{port}/moto-api/reset", data=b""
    )  # moto keeps its state after the server stops
    server.stop()


def settings(uri: str, cache: Path) -> Settings:
    return Settings.from_environment({"MODEL_URI": uri, "MODEL_CACHE_DIR": str(cache)})


def test_another_teams_model_ranks_from_s3_without_code_changes(
    options: PublishOptions, s3: Any, tmp_path: Path
) -> None:
    built = build_bundle(options)
    published = upload(built.directory, f"s3://{BUCKET}/ranking/")

    model = load_model(published.uri, "", settings(published.uri, tmp_path / "cache"))
    query = Query(
        user_id=9,
        item_ids=[10, 20, 77],
        context={"basket": "2"},
        time_s=WEDNESDAY_NOON_S,
    )
    store = model.features
    assert isinstance(store, SnapshotStore)
    scores = model.score(query, store.look_up(query))

    rows = torch.tensor([[1.0, 12, 51, 2], [2.0, 12, 51, 2], [9.5, 12, 51, 2]])
    expected = Shop()(rows).detach().numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert model.manifest.name == "shop"
    assert published.uri == f"s3://{BUCKET}/ranking/shop/sha256-{built.manifest.digest}/"
    result = CliRunner().invoke(app, ["check", published.uri])
    assert (result.exit_code, result.stdout.splitlines()[0]) == (
        0,
        f"model   shop-{built.manifest.version}",
    )


def test_an_empty_cell_is_the_features_default(options: PublishOptions) -> None:
    built = build_bundle(options)
    spec = parse_spec(SHOP_SPEC)
    store = SnapshotStore(built.directory / SERVING / "features.safetensors", spec)
    bob = Query(4, [10], {"basket": "0"}, WEDNESDAY_NOON_S)
    row = MatrixBuilder(spec).build(bob, store.look_up(bob))["x"]
    assert row.tolist() == [[1.0, 12.0, 30.0, 0.0]]


def test_publishing_again_uploads_nothing(options: PublishOptions, s3: Any) -> None:
    to = f"s3://{BUCKET}/"
    first = upload(build_bundle(options).directory, to)
    again = upload(build_bundle(options).directory, to)
    assert first.uploaded > 0
    assert (again.uri, again.uploaded) == (first.uri, 0)


def test_a_broken_upload_leaves_no_manifest_and_the_next_one_completes_it(
    options: PublishOptions, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build_bundle(options)
    put = BaseClient._make_api_call

    def break_at_golden(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
        if operation == "PutObject" and parameters["Key"].endswith("golden.json"):
            raise ConnectionClosedError(endpoint_url="http://s3")
        return put(client, operation, parameters)

    with monkeypatch.context() as broken:
        broken.setattr(BaseClient, "_make_api_call", break_at_golden)
        with pytest.raises(PublishError, match="Connection was closed"):
            upload(built.directory, f"s3://{BUCKET}/")
    assert not [key for key in keys_of(s3) if key.endswith(MANIFEST)]

    published = upload(built.directory, f"s3://{BUCKET}/")
    prefix = published.uri.removeprefix(f"s3://{BUCKET}/")
    assert keys_of(s3) == [
        prefix + name for name in files_below(built.directory) if name != "data/model.pt2"
    ]


def test_the_mlflow_artifact_is_copied_byte_for_byte(
    options: PublishOptions, registry: Registry
) -> None:
    logged = registry.artifact(options.model_uri)
    built = build_bundle(options)
    copied = {
        n: built.directory / n
        for n in files_below(built.directory)
        if not n.startswith(f"{SERVING}/")
    }
    assert {name: path.read_bytes() for name, path in copied.items()} == {
        name: (logged / name).read_bytes() for name in files_below(logged)
    }
    assert (built.directory / TORCH_MODEL).read_bytes() == (logged / "data/model.pt2").read_bytes()


def test_the_weights_are_stored_once(options: PublishOptions, s3: Any, tmp_path: Path) -> None:
    """The manifest lists the artifact's file, whose bytes are under another name."""
    built = build_bundle(options)
    upload(built.directory, str(tmp_path / "layer"))
    for directory in (built.directory, tmp_path / "layer"):
        assert (directory / "data/model.pt2").samefile(directory / TORCH_MODEL)
    files = built.manifest.files
    assert files["data/model.pt2"] == files[TORCH_MODEL]
    stored = {name: entry.size for name, entry in files.items() if name != "data/model.pt2"}
    assert built.size_bytes == sum(stored.values())
    published = upload(built.directory, f"s3://{BUCKET}/once/")
    assert published.uploaded == len(stored) + 2  # the manifest and its digest
    assert upload(built.directory, f"s3://{BUCKET}/once/").uploaded == 0


class Wide(Shop):
    """Matrices that quantisation makes smaller."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.deep = nn.Sequential(nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
        self.weights = nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(20 * self.logits(self.deep(x / 20)))


@pytest.fixture
def many_items(options: PublishOptions, tmp_path: Path) -> PublishOptions:
    items = tmp_path / "many.parquet"
    prices = np.linspace(1, 40, 30)
    pd.DataFrame({"item_id": range(30), "price": prices}).to_parquet(items)
    return replace(options, tables={**options.tables, "items": items})


def test_int8_weights_rank_nearly_as_before_and_say_what_they_cost(
    many_items: PublishOptions, registry: Registry, tmp_path: Path
) -> None:
    exact = replace(many_items, model_uri=registry.log(Wide()))
    size = build_bundle(exact).manifest.files[ONNX_MODEL].size
    built = build_bundle(replace(exact, quantize="int8"))
    assert built.manifest.files[ONNX_MODEL].size < 0.6 * size
    assert TORCH_MODEL not in built.manifest.files
    assert re.match(r"keeps (9\d|100)\.\d% of the top 10, NDCG@10 (0\.9|1\.0)", built.notes["int8"])
    assert "apart at most, in 100 generated requests; " in built.notes["int8"]

    model = load_model(str(built.directory), "", settings(str(built.directory), tmp_path / "cache"))
    query = Query(9, list(range(30)), {"basket": "2"}, WEDNESDAY_NOON_S)
    store = model.features
    assert isinstance(store, SnapshotStore)
    scores = model.score(query, store.look_up(query))
    prices = np.linspace(1, 40, 30)
    rows = torch.tensor(np.column_stack([prices, [12.0] * 30, [51.0] * 30, [2.0] * 30])).float()
    expected = Wide()(rows).detach().numpy()
    assert 0 < np.abs(scores - expected).max() < 0.05


@pytest.mark.parametrize("items", [10, 25])
def test_int8_is_measured_on_the_teams_own_requests(
    many_items: PublishOptions, registry: Registry, tmp_path: Path, items: int
) -> None:
    """Three requests at noon, with what torch scores; of 10 items the top 10 are all."""
    expect = tmp_path / "own.parquet"
    prices, net = np.linspace(1, 40, 30), Wide()
    rows = [
        {"user_id": 9, "item_id": item, "timestamp": WEDNESDAY_NOON_S, "basket": str(basket),
         "score": net(torch.tensor([[prices[item], 12.0, 51.0, basket]]).float()).item()}
        for basket in (1.0, 2.0, 3.0) for item in range(items)
    ]  # fmt: skip
    pd.DataFrame(rows).to_parquet(expect)
    model = replace(many_items, model_uri=registry.log(Wide()), quantize="int8", expect=expect)
    note = build_bundle(model).notes["int8"]
    own = items > 10
    assert ("apart at most, in 3 requests of own.parquet; " in note) == own
    assert ("100 generated requests, as own.parquet has none of more than 10" in note) != own


def test_int8_is_refused_where_it_ranks_otherwise(
    many_items: PublishOptions, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = replace(many_items, model_uri=registry.log(Wide()), quantize="int8")
    monkeypatch.setattr(quantized, "MAX_CHANGED", -1.0)
    with pytest.raises(PublishError, match=r"changes \d+\.\d% of the places in the top 10"):
        build_bundle(model)


def test_int8_needs_items_to_rank(options: PublishOptions) -> None:
    with pytest.raises(PublishError, match=r"--quantize int8: needs more than 10 items"):
        build_bundle(replace(options, quantize="int8", model_uri=options.model_uri))


def test_the_manifest_lists_every_file_with_its_size_and_hash(options: PublishOptions) -> None:
    directory = build_bundle(options).directory
    raw = (directory / MANIFEST).read_bytes()
    manifest = parse_manifest(raw)
    beside = {MANIFEST, f"{SERVING}/manifest.sha256"}
    assert {name: (entry.size, entry.sha256) for name, entry in manifest.files.items()} == {
        name: (len(data), hashlib.sha256(data).hexdigest())
        for name in files_below(directory)
        if name not in beside
        for data in [(directory / name).read_bytes()]
    }
    assert manifest.digest == hashlib.sha256(raw).hexdigest()


def test_the_onnx_file_holds_no_path_of_the_machine_that_exported_it(
    options: PublishOptions,
) -> None:
    onnx = (build_bundle(options).directory / ONNX_MODEL).read_bytes()
    assert b".py" not in onnx
    assert str(Path.cwd()).encode() not in onnx


def test_a_directory_is_replaced_whole_and_only_if_it_holds_a_bundle(
    options: PublishOptions, tmp_path: Path
) -> None:
    built = build_bundle(options)
    layer, home = tmp_path / "layer", tmp_path / "home"
    layer.mkdir()
    home.mkdir()
    (home / "thesis.txt").write_text("precious")

    upload(built.directory, str(layer))
    (layer / "stale").write_text("of an older bundle")
    (layer / MANIFEST).write_text("{}")
    upload(built.directory, str(layer))
    assert files_below(layer) == files_below(built.directory)
    assert upload(built.directory, str(layer)).uploaded == 0

    with pytest.raises(PublishError, match="holds files that are no bundle"):
        upload(built.directory, str(home))
    assert files_below(home) == ["thesis.txt"]


def test_logits_are_refused_and_served_with_a_sigmoid(
    options: PublishOptions, registry: Registry
) -> None:
    logits = replace(options, model_uri=registry.log(ShopLogits()))
    with pytest.raises(PublishError, match=r"outside \[0, 1\].*--activation sigmoid"):
        build_bundle(logits)
    built = build_bundle(replace(logits, activation="sigmoid"))
    assert built.parity <= 1e-5
    program = archives.read(built.directory / TORCH_MODEL)[archives.PROGRAM]
    assert b".py" not in program  # whose paths would change the digest from machine to machine


@pytest.mark.parametrize(
    ("model", "batches"),
    [
        (Shop(), True),
        (Listwise(), False),
        (ListwiseByUser(), False),
        (FirstRowsUser(), False),
        (Limited(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_requests_share_a_batch_only_where_rows_are_scored_independently(
    options: PublishOptions, registry: Registry, model: nn.Module, *, batches: bool
) -> None:
    built = build_bundle(replace(options, model_uri=registry.log(model)))
    assert built.manifest.batches is batches


def test_code_in_an_exported_model_is_refused_and_does_not_run(
    options: PublishOptions, registry: Registry, tmp_path: Path
) -> None:
    """Without a pickle in it: PyTorch evaluates the sizes of tensors."""
    uri = registry.log(Shop())
    file = registry.artifact(uri) / "data/model.pt2"
    records = archives.read(file)
    program = records[archives.PROGRAM].decode()
    payload = f"__import__('pathlib').Path('{tmp_path}/ran').touch()"
    assert "Symbol('s77', positive=True, integer=True)" in program
    records[archives.PROGRAM] = program.replace(
        "Symbol('s77', positive=True, integer=True)", payload
    ).encode()
    file.write_bytes(archives.packed(records).getvalue())
    with pytest.raises(PublishError, match=r"model\.json.*expr_str: must be arithmetic over sizes"):
        build_bundle(replace(options, model_uri=uri))
    assert not (tmp_path / "ran").exists()


def test_a_pickled_model_is_refused_unless_it_is_trusted(
    options: PublishOptions, registry: Registry
) -> None:
    pickled = replace(
        options,
        model_uri=registry.log(
            nn.Sequential(nn.Linear(4, 1), nn.Sigmoid()), serialization_format="pickle"
        ),
    )
    spec = json.loads(json.dumps(SHOP_SPEC).replace('"x"', '"input"'))
    assert options.spec
    options.spec.write_text(json.dumps(spec))
    with pytest.raises(PublishError, match=r"unpickling runs whatever code.*--allow-pickle"):
        build_bundle(pickled)
    built = build_bundle(replace(pickled, allow_pickle=True))
    assert built.parity <= 1e-5
    assert not [name for name in files_below(built.directory / SERVING) if name.endswith(".pth")]


def test_an_operator_that_onnx_does_not_have_is_named(
    options: PublishOptions, registry: Registry
) -> None:
    with pytest.raises(PublishError, match=r"can't be exported to ONNX.*linalg_eig"):
        build_bundle(replace(options, model_uri=registry.log(Unexportable())))


def test_a_model_logged_for_one_row_only_is_refused(
    options: PublishOptions, registry: Registry
) -> None:
    with pytest.raises(PublishError, match=r"exactly 1 row\(s\); log it with two rows or more"):
        build_bundle(replace(options, model_uri=registry.log(Shop(), rows=1)))


def spec_with(**changes: Any) -> dict[str, Any]:
    return {"inputs": [SHOP_SPEC["inputs"][0] | changes]}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (spec_with(name="y"), "lacks the model's input x"),
        (
            {"inputs": [*SHOP_SPEC["inputs"], spec_with(name="z")["inputs"][0]]},
            "the model has no input z; it takes x",
        ),
        (
            spec_with(features=SHOP_SPEC["inputs"][0]["features"][:3]),
            "input x: the model takes 4 features, the spec describes 3",
        ),
        (spec_with(features=[{"name": "pairs", "source": "pair"}]), "there is no pairs table"),
    ],
)
def test_a_spec_that_does_not_fit_the_model_is_refused(
    options: PublishOptions, spec: dict[str, Any], message: str
) -> None:
    assert options.spec
    options.spec.write_text(json.dumps(spec))
    with pytest.raises(PublishError, match=message):
        build_bundle(options)
    assert not list(options.bundles.iterdir())


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"item_id": [1, 1], "price": [1.0, 2.0]}, "items.csv: item_id must be unique"),
        ({"item_id": [1, -1], "price": [1.0, 2.0]}, "items.csv: item_id must not be negative"),
        ({"item_id": [1.5], "price": [1.0]}, "items.csv: item_id must hold whole numbers"),
        ({"item_id": [1], "cost": [1.0]}, "items.csv: lacks the column price"),
        ({"item_id": [1], "price": ["cheap"]}, "items.csv: column price holds text"),
        (
            {"item_id": [1], "price": [float("inf")]},
            "column price: features must be finite",
        ),
    ],
)
def test_an_invalid_table_is_refused(
    options: PublishOptions, tmp_path: Path, items: dict[str, Any], message: str
) -> None:
    path = tmp_path / "items.csv"
    pd.DataFrame(items).to_csv(path, index=False)
    with pytest.raises(PublishError, match=message):
        build_bundle(replace(options, tables={**options.tables, "items": path}))


@pytest.mark.parametrize(
    "uri", ["models:/nobody@production", "models:/nobody/3", "models:/m-0", "runs:/0/model", "shop"]
)
def test_a_model_that_mlflow_lacks_is_named(options: PublishOptions, uri: str) -> None:
    with pytest.raises(PublishError, match=uri):
        build_bundle(replace(options, model_uri=uri))


def test_without_a_spec_the_two_ways_to_give_one_are_named(options: PublishOptions) -> None:
    with pytest.raises(PublishError, match=r"--spec, or log it to the run as features/"):
        build_bundle(replace(options, spec=None))


def keys_of(s3: Any) -> list[str]:
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def files_below(directory: Path) -> list[str]:
    return sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())
