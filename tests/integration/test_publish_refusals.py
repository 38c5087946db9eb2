"""A model that can't be published is refused in one line: what is wrong, and what to do."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import Tensor, nn
from typer.testing import CliRunner

from feedmodel.errors import PublishError
from feedmodel.publish import admission, precision
from feedmodel.publish.build import BuiltBundle, PublishOptions, build_bundle
from feedmodel.publish.upload import check_target
from feedmodel.training.runs import tracked_run
from feedops.cli.main import app
from shop import Registry

WIDTH = 4
SPEC: dict[str, Any] = {
    "inputs": [
        {
            "name": "x",
            "features": [
                {"name": f"c{at}", "source": "context", "expression": f"number(c{at})"}
                for at in range(WIDTH)
            ],
        }
    ]
}
TRAINING = r"training mode \(aten::.* is on\): call model.eval"
FLOAT = r"log model.float\(\), with an input_example of float32"
PT2 = r'log the torch.nn.Module by mlflow.pytorch.log_model\(..., serialization_format="pt2"\)'

CORRECT = "correct --tracking-uri or MLFLOW_TRACKING_URI, or train a model with `feedrank train`"


class Scores(nn.Module):
    """Ends in probabilities. `before` transforms the features, `after` the result."""

    def __init__(
        self, before: nn.Module | None = None, after: Callable[[Tensor], Any] = lambda y: y
    ) -> None:
        super().__init__()
        self.before = before or nn.Identity()
        self.after = after
        self.weights = nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Any:
        return self.after(torch.sigmoid(self.weights(self.before(x))).squeeze(-1))


class Attention(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        rows = x[None, None]
        return nn.functional.scaled_dot_product_attention(rows, rows, rows, dropout_p=dropout)[0, 0]


class Converted(nn.Module):
    """float32 in and out, but another type in between."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.weights = nn.Linear(WIDTH, WIDTH, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.weights(x.to(self.dtype)).float()
        return scores


class Store:
    """Logs models to MLflow and publishes them."""

    def __init__(self, uri: str, directory: Path) -> None:
        self.uri = uri
        spec = directory / "spec.json"
        spec.write_text(json.dumps(SPEC))
        self._options = PublishOptions("", uri, spec=spec, bundles=directory / "bundles")

    def log(self, model: nn.Module, dtype: str = "float32", how: str = "pt2") -> str:
        signature = ModelSignature(Schema([TensorSpec(np.dtype(dtype), (-1, WIDTH), "x")]))
        with tracked_run(self.uri, "refusals", "a run"):
            info = mlflow.pytorch.log_model(
                model,
                name="scores",
                signature=signature,
                input_example=np.zeros((6, WIDTH), dtype),
                pip_requirements=["torch"],
                serialization_format=how,
            )
        return str(info.model_uri)

    def artifact(self, model_uri: str) -> Path:
        return Registry(self.uri).artifact(model_uri)

    def publish(self, model_uri: str, *, allow_pickle: bool = False) -> float:
        parity = self.built(model_uri, allow_pickle=allow_pickle).parity
        assert parity is not None
        return parity

    def built(self, model_uri: str, *, allow_pickle: bool = False) -> BuiltBundle:
        options = replace(self._options, model_uri=model_uri, allow_pickle=allow_pickle)
        return build_bundle(options)

    def refuse(self, model_uri: str, message: str, *, allow_pickle: bool = False) -> None:
        with pytest.raises(PublishError, match=message) as refused:
            self.publish(model_uri, allow_pickle=allow_pickle)
        assert "\n" not in str(refused.value)


@pytest.fixture
def store(tracking_uri: str, tmp_path: Path) -> Store:
    return Store(tracking_uri, tmp_path)


@pytest.mark.parametrize("how", ["pt2", "pickle"])
@pytest.mark.parametrize(
    ("after", "message"),
    [
        (lambda y: (y, 2 * y), "forward returns a tuple: it must return one tensor"),
        (lambda y: (y,), "forward returns a tuple"),
        (lambda y: [y], "forward returns a list"),
        (lambda y: {"scores": y}, "forward returns a dict"),
        (lambda y: torch.stack([y, 1 - y], 1), "gives 2 values for an item, not one"),
        (lambda y: (y > 0).long(), "must return a tensor of floats"),
        (lambda y: y * torch.rand(y.shape[0]), "draws random numbers .aten::rand.: the same"),
    ],
    ids=["pair", "tuple", "list", "dict", "classes", "whole", "random"],
)
def test_outputs_other_than_one_score_an_item_are_refused(
    store: Store, after: Callable[[Tensor], Any], message: str, how: str
) -> None:
    model_uri = store.log(Scores(after=after).eval(), how=how)
    store.refuse(model_uri, message, allow_pickle=how == "pickle")


@pytest.mark.parametrize(
    ("layer", "without_effect"),
    [
        (nn.Dropout(0.5), nn.Dropout(0.0)),
        (nn.AlphaDropout(0.5), nn.AlphaDropout(0.0)),
        (nn.BatchNorm1d(WIDTH), nn.LayerNorm(WIDTH)),
        (Attention(0.5), Attention(0.0)),
    ],
    ids=["dropout", "alpha dropout", "batch norm", "attention"],
)
def test_training_mode_is_refused_if_it_changes_a_score(
    store: Store, layer: nn.Module, without_effect: nn.Module
) -> None:
    store.refuse(store.log(Scores(layer).train()), TRAINING)
    assert store.publish(store.log(Scores(layer).eval())) <= 1e-5
    assert store.publish(store.log(Scores(without_effect).train())) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits_become_float32(store: Store, dtype: torch.dtype) -> None:
    """In one layer or all of them; the inputs are float32 in any case."""
    kind = str(dtype).removeprefix("torch.")
    whole = Scores(after=Tensor.float)
    whole.weights = whole.weights.to(dtype)
    logged = [
        store.log(Scores(Converted(dtype)).eval()),
        store.log(Scores(after=lambda scores: scores.to(dtype)).eval()),
    ]
    if dtype == torch.float16:  # NumPy, and so MLflow, has no bfloat16
        logged.append(store.log(whole.eval(), kind))
    for uri in logged:
        built = store.built(uri)
        assert built.parity is not None
        assert built.parity <= 1e-5
        assert built.notes["up-cast"].startswith(f"from {kind} to float32: outputs ")


def test_a_model_that_torch_cant_run_in_16_bits_is_refused(store: Store) -> None:
    """float32 inputs meet weights of 16 bits, so there is nothing to compare with."""
    pickled = store.log(Scores().half().eval(), how="pickle")
    store.refuse(pickled, f"can't run the model in float16.*{FLOAT}", allow_pickle=True)


def test_scores_that_16_bits_change_too_much_are_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(precision.APART, "float16", 1e-9)
    model = store.log(Scores(Converted(torch.float16)).eval())
    store.refuse(model, f"in float16 and in float32 are .* 1e-09 is allowed.*{FLOAT}")


def test_inputs_of_another_type_are_refused(store: Store) -> None:
    model = Scores(after=Tensor.float)
    model.weights = model.weights.to(torch.float64)
    store.refuse(store.log(model.eval(), "float64"), FLOAT)


def test_weights_beyond_what_one_onnx_file_holds_are_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shared weights count once."""
    layer = nn.Linear(WIDTH, WIDTH)
    model_uri = store.log(Scores(nn.Sequential(layer, layer)).eval())
    size = 4 * (WIDTH * WIDTH + WIDTH + WIDTH + 1)
    monkeypatch.setattr(admission, "MAX_WEIGHT_BYTES", size)
    assert store.publish(model_uri) <= 1e-5
    monkeypatch.setattr(admission, "MAX_WEIGHT_BYTES", size - 1)
    store.refuse(model_uri, "weights take 0.00 GB, and an ONNX file holds at most .* smaller embed")


@pytest.mark.parametrize(
    ("flavors", "name"),
    [
        (
            "{lightgbm: {lgb_version: 4.6.0, data: model.lgb, model_class: lightgbm.Booster}}",
            "lightgbm",
        ),
        ("{python_function: {}, tensorflow: {data: model}}", "tensorflow"),
        ("{python_function: {loader_module: mlflow.pyfunc.model}}", "python_function"),
    ],
)
@pytest.mark.parametrize("allow_pickle", [False, True])
def test_another_librarys_model_is_named(
    store: Store, flavors: str, name: str, *, allow_pickle: bool
) -> None:
    model_uri = store.log(Scores().eval(), how="pickle")
    (store.artifact(model_uri) / "MLmodel").write_text(f"flavors: {flavors}\n")
    how = "convert it to ONNX" if name == "lightgbm" else PT2
    store.refuse(
        model_uri, f"the flavour {name}, not pytorch or onnx: {how}", allow_pickle=allow_pickle
    )


@pytest.mark.parametrize("text", ["", "flavors", "flavors: 3", "{", "- flavors"])
def test_an_invalid_mlmodel_file_is_named(store: Store, text: str) -> None:
    model_uri = store.log(Scores().eval(), how="pickle")
    (store.artifact(model_uri) / "MLmodel").write_text(text)
    store.refuse(model_uri, "MLmodel can't be read; log the model again")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("allow_pickle", [False, True])
def test_torchscript_is_named(store: Store, *, allow_pickle: bool) -> None:
    model_uri = store.log(Scores().eval(), how="pickle")
    traced = torch.jit.trace(Scores().eval(), torch.zeros(6, WIDTH))
    torch.jit.save(traced, store.artifact(model_uri) / "data/model.pth")
    store.refuse(model_uri, f"is TorchScript.*{PT2}", allow_pickle=allow_pickle)


def test_a_pickle_of_something_else_is_named(store: Store) -> None:
    model_uri = store.log(Scores().eval(), how="pickle")
    torch.save(Scores().state_dict(), store.artifact(model_uri) / "data/model.pth")
    message = "loaded as a torch.nn.Module: 'collections.OrderedDict' object has no attribute"
    store.refuse(model_uri, message, allow_pickle=True)


def test_weights_alone_are_named(store: Store) -> None:
    with tracked_run(store.uri, "refusals", "a run") as run_id:
        mlflow.pytorch.log_state_dict(Scores().state_dict(), artifact_path="weights")
    store.refuse(f"runs:/{run_id}/weights", f"holds files, but no MLflow model.*{PT2}")
    client = mlflow.MlflowClient(store.uri)
    client.create_registered_model("weights")
    source = f"{client.get_run(run_id).info.artifact_uri}/weights"
    version = client.create_model_version("weights", source, run_id)
    store.refuse(f"models:/weights/{version.version}", f"state_dict.*{PT2}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--to s3:/bad", "--to s3:/bad: must be s3://bucket/prefix/ or a directory"),
        ("--to s3//bad/x", "--to s3//bad/x: must be s3://bucket/prefix/ or a directory"),
        ("--to S3://bad/x", "--to S3://bad/x: must be s3://bucket/prefix/ or a directory"),
        ("--to https://x/y", "--to https://x/y: must be s3://bucket/prefix/ or a directory"),
        ("--to gs://b/p", "--to gs://b/p: must be s3://bucket/prefix/ or a directory"),
        ("--to s3://", "--to s3://: names no S3 bucket; write it as s3://bucket/prefix/"),
        ("--to s3:///x", "--to s3:///x: names no S3 bucket; write it as s3://bucket/prefix/"),
        ("--to s3://A_b/x", "--to s3://A_b/x: names no S3 bucket; write it as s3://bucket/prefix/"),
        ("--to others", "others: holds files that are no bundle, and would be replaced"),
        ("--spec missing.json", "--spec missing.json: there is no such file"),
        ("--users missing.parquet", "--users missing.parquet: there is no such file"),
        ("--items others", "--items others: there is no such file"),
        ("--as-of today", "--as-of: 'today' is no ISO 8601 time, such as 2026-11-24T00:00:00Z"),
        ("", f"data/mlflow/mlflow.db: there is no MLflow database; {CORRECT}"),
        ("--tracking-uri sqlite:///a/b.db", f"a/b.db: there is no MLflow database; {CORRECT}"),
        ("--tracking-uri sqlite:///empty.db", f"empty.db: there is no MLflow database; {CORRECT}"),
        ("--tracking-uri sqlite:///a.db?mode=rwc", f"a.db: there is no MLflow database; {CORRECT}"),
        (
            "--tracking-uri sqlite:///text",
            "text is no SQLite database: choose another by --tracking-uri or MLFLOW_TRACKING_URI",
        ),
        (
            "--tracking-uri http://[x",
            "--tracking-uri or MLFLOW_TRACKING_URI is no address: Invalid IPv6 URL",
        ),
        (
            "--tracking-uri mssql+pymssql://me:SECRET@h/x",
            "models:/a/1: MLflow at mssql+pymssql://h/x: No module named 'pymssql'",
        ),
        (
            "--tracking-uri sqlite://",
            "sqlite:// names no database file; one is sqlite:///data/mlflow.db",
        ),
    ],
)
def test_a_mistyped_option_gives_one_line_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    (tmp_path / "others").mkdir()
    for name in ("text", "others/thesis"):
        (tmp_path / name).write_text("precious")
    (tmp_path / "empty.db").touch()
    result = CliRunner().invoke(app, ["publish", "models:/a/1", *line.split()])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == message
    assert "Traceback" not in result.output
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size] == [
        tmp_path / "text",
        tmp_path / "others/thesis",
    ]


@pytest.mark.parametrize(
    "directory", ["layers/model/bundle", "/srv/x", "a.b", "s3", "a:b", "./s3:/x"]
)
def test_a_path_is_not_mistaken_for_a_uri(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str
) -> None:
    monkeypatch.chdir(tmp_path)
    check_target(directory)


@pytest.mark.parametrize(
    "command", ["publish models:/a/1", "serve --model models:/a/1", "promote models:/a/1", "train"]
)
def test_a_server_that_never_responds_times_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """After one second here, five by default; without a second attempt or the password."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://me:SECRET@127.0.0.1:{silent.getsockname()[1]}"
        result = CliRunner().invoke(app, [*command.split(), "--tracking-uri", uri])
        requests = list(filter(None, received(silent)))
    assert result.exit_code == 1
    assert "Read timed out" in result.stderr.splitlines()[-1]
    assert "SECRET" not in result.output
    assert len(requests) == 1


def received(server: socket.socket) -> Iterator[bytes]:
    """The first byte of each connection; empty for one that only checked that the port is open."""
    server.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            connection, _ = server.accept()
            with connection:
                yield connection.recv(1)
