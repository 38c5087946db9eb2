"""`feedrank spec`: a draft of a model in MLflow, and a spec in words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from typer.testing import CliRunner

from feedmodel.errors import PublishError
from feedmodel.publish import signature
from feedmodel.publish.build import PublishOptions
from feedmodel.publish.drafts import TensorDescription
from feedops.cli.main import app
from shop import SHOP_SPEC, Registry


def _run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["spec", *map(str, arguments)])


def _tables(options: PublishOptions) -> list[Any]:
    return [part for name, path in options.tables.items() for part in (f"--{name}", path)]


def test_a_draft_has_the_models_inputs_and_marks_what_it_can_not_know(
    options: PublishOptions, registry: Registry
) -> None:
    result = _run("--from", options.model_uri, "--tracking-uri", registry.uri, *_tables(options))
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "inputs": [
            {"name": "x", "features": [
                {"name": "age", "source": "user", "default": 51.0},
                {"name": "price", "source": "item", "default": 2.0},
                {"name": "TODO 2 more", "source": "TODO"}]}
        ]
    }  # fmt: skip
    assert "To decide: input x: the model takes 4 columns, the tables have 2" in result.stderr
    assert "To decide: no input has room for name" in result.stderr


def test_a_spec_is_explained_and_compared_with_model_and_tables(
    options: PublishOptions, registry: Registry
) -> None:
    from_model = ["--from", options.model_uri, "--tracking-uri", registry.uri]
    result = _run("--check", options.spec, *_tables(options), *from_model)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-2:] == [
        "Table users: 2 rows; age 1 empty",
        "Table items: 3 rows",
    ]
    assert "  age: users.age; 30 where it isn't known" in result.stdout.splitlines()


def test_what_is_wrong_with_a_spec_is_said(
    options: PublishOptions, registry: Registry, tmp_path: Path
) -> None:
    narrow = {"inputs": [{"name": "x", "features": SHOP_SPEC["inputs"][0]["features"][:3]}]}
    path = tmp_path / "narrow.json"
    path.write_text(json.dumps(narrow))
    result = _run("--check", path, "--from", options.model_uri, "--tracking-uri", registry.uri)
    assert result.exit_code == 1
    assert "input x has 3 columns in the spec, 4 in the model" in result.stderr

    path.write_text(json.dumps(narrow | {"inputs": [{"name": "x", "features": [{"name": "a"}]}]}))
    result = _run("--check", path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("inputs[0].features[0].source must be one of user, item")

    path.write_text("{")
    assert _run("--check", path).stderr.startswith("narrow.json: not JSON: ")
    path.write_text('{"inputs": [{"name": "x", "name": "y"}]}')
    assert "narrow.json: not JSON: an object has the key name twice" in _run("--check", path).stderr
    assert _run("--check", "no.json").stderr == "no.json: No such file or directory\n"
    assert _run().stderr.startswith("give a model with --from, or a spec with --check")


@pytest.mark.parametrize(
    ("inputs", "described"),
    [
        (
            [TensorSpec(np.dtype("int64"), (-1, 2), "a"), TensorSpec(np.dtype("f4"), (1, 3), "b")],
            [
                TensorDescription("a", "int64", (-1, 2)),
                TensorDescription("b", "float32", (1, 3)),
            ],
        ),
        (
            [TensorSpec(np.dtype("f4"), (-1, 2))],
            [TensorDescription("TODO the name of input 0", "float32", (-1, 2))],
        ),
        ([ColSpec("double", "price")], "its signature has columns, not tensors"),
        (None, "has no signature: log the model with signature="),
    ],
)
def test_a_signature_is_read_or_the_remedy_named(
    inputs: Any, described: Any, registry: Registry, shop_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature_ = inputs and ModelSignature(Schema(inputs))
    monkeypatch.setattr(
        signature.Model, "load", lambda _uri: type("Logged", (), {"signature": signature_})
    )
    if isinstance(described, list):
        assert signature.read_signature(shop_uri, registry.uri) == (described, [])
        return
    with pytest.raises(PublishError) as error:
        signature.read_signature(shop_uri, registry.uri)
    assert described in str(error.value)


def test_a_model_that_mlflow_does_not_have_is_named(registry: Registry, shop_uri: str) -> None:
    assert shop_uri
    with pytest.raises(PublishError, match="models:/no/1: MLflow at sqlite"):
        signature.read_signature("models:/no/1", registry.uri)


def test_a_table_may_be_wide(tmp_path: Path, options: PublishOptions, registry: Registry) -> None:
    wide = tmp_path / "wide.csv"
    pd.DataFrame({"item_id": [1], **{f"f{n}": [n] for n in range(6)}}).to_csv(wide, index=False)
    result = _run(
        "--from", options.model_uri, "--tracking-uri", registry.uri, "--items", wide
    )  # fmt: skip
    assert [f["name"] for f in json.loads(result.stdout)["inputs"][0]["features"]] == [
        "f0", "f1", "f2", "f3",
    ]  # fmt: skip
    assert "To decide: no input has room for f4, f5" in result.stderr
