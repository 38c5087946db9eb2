"""Publishing compares what serves with torch, row by row, and says how to correct a difference."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import Tensor, nn

import feedmodel.publish.build
from feedmodel.errors import PublishError
from feedmodel.publish.build import PublishOptions, build_bundle
from feedmodel.publish.export import Program
from feedmodel.training.runs import tracked_run
from feedrank.bundle.layout import GOLDEN
from feedrank.features.spec import FeatureSpec
from shop import SHOP_SPEC, Registry, Shop

PRICE, HOUR, AGE, BASKET = range(4)


class Attentive(Shop):
    """Attends to age and basket where they are positive. For an empty history torch gives 0, the
    exported graph NaN."""

    def forward(self, x: Tensor) -> Tensor:
        history = x[:, None, AGE:, None]  # (rows, 1 head, 2, 1)
        mask = torch.where(x[:, None, None, AGE:] > 0, 0.0, float("-inf"))
        attended = nn.functional.scaled_dot_product_attention(
            x[:, None, None, :1], history, history, attn_mask=mask
        )
        return torch.sigmoid(0.01 * attended.flatten() + self.logits(x))


class Catalogue(nn.Module):
    """An embedding of the categories in one column."""

    def __init__(self, column: int, categories: int) -> None:
        super().__init__()
        self.column = column
        self.categories = nn.Embedding(categories, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.categories(x[:, self.column].long()).squeeze(-1))


class Revenue(Shop):
    """A regression: euros in hundreds."""

    def forward(self, x: Tensor) -> Tensor:
        return 500 + 10 * self.logits(x)


class Saturated(Shop):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(500 + 10 * self.logits(x))


class Undefined(Shop):
    """The logarithm of a price below 1 has no square root."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(torch.log(x[:, PRICE]).sqrt())


def with_table(options: PublishOptions, name: str, rows: dict[str, Any]) -> PublishOptions:
    assert options.spec
    path = options.spec.with_name(f"{name}-other.parquet")
    pd.DataFrame(rows).to_parquet(path)
    return replace(options, tables={**options.tables, name: path})  # type: ignore[dict-item]


def test_nan_that_only_the_exported_graph_gives_is_refused(
    options: PublishOptions, registry: Registry
) -> None:
    """For one user only, whom no parity request contains: all others have a history."""
    users = {"user_id": range(1_000), "age": [0.0 if n == 613 else 30.0 + n for n in range(1_000)]}
    published = with_table(replace(options, model_uri=registry.log(Attentive())), "users", users)
    with pytest.raises(PublishError, match=r"table users, user_id 613: its score is NaN.*history"):
        build_bundle(published)


def test_nan_in_a_parity_request_names_both_scores(
    options: PublishOptions, registry: Registry
) -> None:
    users = {"user_id": [1, 2], "age": [0.0, 0.0]}
    published = with_table(replace(options, model_uri=registry.log(Attentive())), "users", users)
    with pytest.raises(PublishError, match=r"torch gives 0\.\d+, ONNX Runtime nan; .*history"):
        build_bundle(published)


def test_nan_from_torch_is_named(options: PublishOptions, registry: Registry) -> None:
    items = {"item_id": [1, 2], "price": [0.5, 0.25]}
    published = with_table(replace(options, model_uri=registry.log(Undefined())), "items", items)
    with pytest.raises(PublishError, match="the model gives NaN"):
        build_bundle(published)


@pytest.mark.parametrize(
    ("table", "column", "rows", "place"),
    [
        (
            "items",
            PRICE,
            {"item_id": range(1_000), "price": [12.0 if n == 700 else 3.0 for n in range(1_000)]},
            "table items, item_id 700",
        ),
        (
            "users",
            AGE,
            {"user_id": range(900), "age": [99.0 if n == 899 else 7.0 for n in range(900)]},
            "table users, user_id 899",
        ),
        (  # in the first request
            "items",
            PRICE,
            {"item_id": [1, 2], "price": [12.0, 12.0]},
            "table items, item_id 1",
        ),
    ],
)
def test_a_row_beyond_the_models_vocabulary_is_named(
    options: PublishOptions,
    registry: Registry,
    *,
    table: str,
    column: int,
    rows: dict[str, Any],
    place: str,
) -> None:
    uri = registry.log(Catalogue(column, 10 if column == PRICE else 31))
    published = with_table(replace(options, model_uri=uri), table, rows)
    with pytest.raises(PublishError, match=f"{place}: ONNX Runtime can't score it; .*vocabulary"):
        build_bundle(published)


def test_a_pair_beyond_the_models_vocabulary_is_named(
    options: PublishOptions, registry: Registry
) -> None:
    features = [{**f, "source": "pair"} if f["name"] == "age" else f
                for f in SHOP_SPEC["inputs"][0]["features"]]  # fmt: skip
    assert options.spec
    options.spec.write_text(json.dumps({"inputs": [{"name": "x", "features": features}]}))
    pairs = {
        "user_id": [1] * 60 + [2] * 50,
        "item_id": list(range(110)),
        "age": [3.0] * 109 + [77.0],
    }
    published = with_table(
        replace(options, model_uri=registry.log(Catalogue(AGE, 31))), "pairs", pairs
    )
    with pytest.raises(PublishError, match="table pairs, user_id 2, item_id 109: ONNX Runtime"):
        build_bundle(published)


def test_a_negative_category_is_named_which_onnx_reads_as_the_last_one(
    options: PublishOptions, registry: Registry
) -> None:
    prices = [-1.0 if n == 250 else 3.0 for n in range(500)]
    uri = registry.log(Catalogue(PRICE, 10))
    rows = {"item_id": range(500), "price": prices}
    published = with_table(replace(options, model_uri=uri), "items", rows)
    with pytest.raises(PublishError, match="table items, item_id 250: torch can't score it"):
        build_bundle(published)


class Share(nn.Module):
    """The share of a user's clicks that were on the item: at most 1 for a real pair."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, BASKET] / x[:, AGE].clamp(min=1)


def test_a_pair_is_scored_with_its_own_user_and_item(
    options: PublishOptions, registry: Registry
) -> None:
    features = [
        {"name": "price", "source": "item", "default": 9.5},
        {"name": "hour", "source": "context", "expression": "hour"},
        {"name": "age", "source": "user"},
        {"name": "basket", "source": "pair"},
    ]
    assert options.spec
    options.spec.write_text(json.dumps({"inputs": [{"name": "x", "features": features}]}))
    published = replace(options, model_uri=registry.log(Share()))
    pairs = {"user_id": [9, 9], "item_id": [10, 20], "basket": [20.0, 5.0]}
    assert build_bundle(with_table(published, "pairs", pairs)).parity <= 1e-5


def test_a_regression_is_not_advised_to_use_the_sigmoid_which_would_merge_its_scores(
    options: PublishOptions, registry: Registry
) -> None:
    revenue = replace(options, model_uri=registry.log(Revenue()))
    with pytest.raises(
        PublishError, match=r"outside \[0, 1\], such as 5\d\d.*; let the model map"
    ) as refusal:
        build_bundle(revenue)
    assert "sigmoid" not in str(refusal.value)
    with pytest.raises(PublishError, match=r"--activation sigmoid leaves \d+ distinct scores of"):
        build_bundle(replace(revenue, activation="sigmoid"))


def test_a_saturated_model_is_refused(options: PublishOptions, registry: Registry) -> None:
    with pytest.raises(PublishError, match=r"\d+ of \d+ scores are 0 or 1 to the last digit"):
        build_bundle(replace(options, model_uri=registry.log(Saturated())))


def test_onnx_that_differs_from_torch_is_refused(
    options: PublishOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a ten-thousandth of a logit: the largest mistake that an exporter may make."""
    write_onnx = feedmodel.publish.build.write_onnx

    def wrong(program: Program, spec: FeatureSpec, path: Path) -> None:
        state = program.exported.state_dict
        with torch.no_grad():
            state["weights.bias"].add_(1e-4)
            write_onnx(program, spec, path)
            state["weights.bias"].sub_(1e-4)

    monkeypatch.setattr(feedmodel.publish.build, "write_onnx", wrong)
    with pytest.raises(PublishError, match=r"torch gives 0\.\d+, ONNX Runtime 0\.\d+; 1e-05 apart"):
        build_bundle(options)


def test_publishing_counts_empty_cells(options: PublishOptions) -> None:
    assert build_bundle(options).missing == {"users.age": 1}


def test_golden_requests_contain_pairs_and_defaults(demo_bundle: Path) -> None:
    cases = json.loads((demo_bundle / GOLDEN).read_bytes())["cases"]
    pairs = pd.read_parquet(next((demo_bundle.parents[1]).rglob("pairs.parquet")))
    known = set(zip(pairs["user_id"], pairs["item_id"], strict=True))
    met = [sum((case["user_id"], item) in known for item in case["item_ids"]) for case in cases]
    assert max(met) > 1
    assert any(case["user_id"] == 2**63 - 1 and not case["context"] for case in cases)


def _logged(uri: str, model: nn.Module, example: Any, spec: TensorSpec) -> str:
    with tracked_run(uri, "shop", "a run"):
        return mlflow.pytorch.log_model(
            model.eval(),
            name="shop",
            signature=ModelSignature(Schema([spec])),
            input_example=example,
            pip_requirements=["torch"],
            serialization_format="pt2",
        ).model_uri


class Wide(Shop):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sum(-1))


@pytest.mark.parametrize(
    ("model", "shape", "dtype", "message"),
    [
        (Shop().double(), (6, 4), "float64", "input x: the model takes float64, not float32"),
        (Wide(), (6, 4, 2), "float32", "input x: the model takes 8 features, the spec describes 4"),
    ],
    ids=["type", "width"],
)
def test_inputs_of_another_type_or_width_are_refused(
    options: PublishOptions,
    registry: Registry,
    *,
    model: nn.Module,
    shape: tuple[int, ...],
    dtype: str,
    message: str,
) -> None:
    spec = TensorSpec(np.dtype(dtype), (-1, *shape[1:]), "x")
    uri = _logged(registry.uri, model, np.zeros(shape, dtype), spec)
    with pytest.raises(PublishError, match=message):
        build_bundle(replace(options, model_uri=uri))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no archive"])
def test_a_broken_archive_is_refused(
    options: PublishOptions, registry: Registry, content: bytes
) -> None:
    uri = registry.log(Shop())
    (registry.artifact(uri) / "data/model.pt2").write_bytes(content)
    with pytest.raises(PublishError, match=r"model\.pt2|exported model"):
        build_bundle(replace(options, model_uri=uri))


class Sized(Shop):
    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return self.size * self.logits(x)


@pytest.mark.parametrize("size", [1e-9, 1e9])
def test_columns_that_onnx_swaps_are_seen_whatever_the_size_of_the_scores(
    options: PublishOptions, registry: Registry, monkeypatch: pytest.MonkeyPatch, size: float
) -> None:
    assert options.spec
    options.spec.write_text(json.dumps(SHOP_SPEC | {"range": None}))
    sized = replace(options, model_uri=registry.log(Sized(size)))
    built = build_bundle(sized)
    assert built.parity <= 1e-5 * size
    cases = json.loads((built.directory / GOLDEN).read_bytes())["cases"]
    assert max(max(case["allowed"]) for case in cases) <= 1e-3 * size
    write_onnx = feedmodel.publish.build.write_onnx

    def swapped(program: Program, spec: FeatureSpec, path: Path) -> None:
        weights = program.exported.state_dict["weights.weight"]
        with torch.no_grad():
            weights.copy_(weights[:, [HOUR, PRICE, AGE, BASKET]].clone())
            write_onnx(program, spec, path)
            weights.copy_(weights[:, [HOUR, PRICE, AGE, BASKET]].clone())

    monkeypatch.setattr(feedmodel.publish.build, "write_onnx", swapped)
    with pytest.raises(PublishError, match=r"torch gives .*, ONNX Runtime .* apart is allowed"):
        build_bundle(sized)
