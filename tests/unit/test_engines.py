import json
import os
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archives
import demo
import fakes
from feedrank.bundle.layout import ONNX_MODEL, TORCH_MODEL
from feedrank.domain import FloatArray, Query
from feedrank.errors import BundleError, ScoringError
from feedrank.model.engines import one_per_item
from feedrank.model.engines.onnx import OnnxEngine
from feedrank.model.engines.torch import TorchEngine
from feedrank.model.load import Model, load_model, threads_for
from feedrank.ranking.pipeline import best_first

ITEMS = [17, 256, 3, 299, 88, 3, 300, 5_000, 1]


def _inputs(rows: int, *, two_tower: bool) -> dict[str, FloatArray]:
    random = np.random.default_rng(rows)
    matrix = (random.normal(size=(rows, 15)) * demo.SPREAD).astype(np.float32)
    if not two_tower:
        return {"features": matrix}
    return {
        "user_features": np.ascontiguousarray(matrix[:1, list(demo.USER_AT)]),
        "item_features": np.ascontiguousarray(matrix[:, list(demo.ITEM_AT)]),
    }


@pytest.mark.parametrize("name", ["demo_bundle", "two_tower_bundle"])
@pytest.mark.parametrize("rows", [1, 2, 7, 50, 100])
def test_both_engines_agree(request: pytest.FixtureRequest, name: str, rows: int) -> None:
    bundle: Path = request.getfixturevalue(name)
    inputs = _inputs(rows, two_tower=name == "two_tower_bundle")
    onnx = OnnxEngine(bundle / ONNX_MODEL, 1).score(inputs)
    torch = TorchEngine(bundle / TORCH_MODEL, 1).score(inputs)
    assert (onnx.shape, torch.shape) == ((rows,), (rows,))
    assert np.abs(onnx - torch).max() <= 1e-5
    assert rows == 1 or np.ptp(onnx) > 0.01, "scores that are all alike would prove nothing"


@pytest.mark.parametrize(
    ("fixture", "network"), [("demo_bundle", "deep_mlp"), ("two_tower_bundle", "two_tower")]
)
@pytest.mark.parametrize(
    ("user", "device"), [(42, "desktop"), (42, None), (9_999, "mobile"), (1, "fridge")]
)
def test_a_served_score_equals_eager_torch_on_plain_tables(
    request: pytest.FixtureRequest,
    fixture: str,
    network: str,
    user: int,
    device: str | None,
) -> None:
    context = {"device": device} if device else {}
    query = Query(user, ITEMS, context, 1_764_313_205.0)  # Friday 2025-11-28, 07:00:05
    expected = demo.torch_scores(network, demo.features_of(user, ITEMS, device, 7, 4))
    for engine in ("onnx", "torch"):
        model = _load(request.getfixturevalue(fixture), engine)
        assert _scores(model, query) == pytest.approx(expected, abs=1e-5)


_loaded: dict[tuple[Path, str], Model] = {}


def _load(bundle: Path, engine: str) -> Model:
    if (bundle, engine) not in _loaded:
        settings = fakes.settings(MODEL_ENGINE=engine)
        _loaded[bundle, engine] = load_model(str(bundle), "", settings)
    return _loaded[bundle, engine]


def _scores(model: Model, query: Query) -> list[float]:
    import asyncio

    scores = model.score(query, asyncio.run(model.features.fetch(query, inf)))
    return [float(score) for score in scores]


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"features": np.zeros((2, 14), np.float32)},
        {"features": np.zeros((2, 15), np.float64)},
        {"other": np.zeros((2, 15), np.float32)},
    ],
)
def test_an_input_that_the_model_can_not_read_is_a_scoring_error(
    demo_bundle: Path, inputs: Mapping[str, Any]
) -> None:
    with pytest.raises(ScoringError):
        OnnxEngine(demo_bundle / ONNX_MODEL, 1).score(inputs)


def test_a_failure_of_torch_is_a_scoring_error(demo_bundle: Path) -> None:
    with pytest.raises(ScoringError):
        TorchEngine(demo_bundle / TORCH_MODEL, 1).score({"features": np.zeros((2, 14), np.float32)})


def test_a_matrix_that_can_not_become_a_tensor_is_a_scoring_error(demo_bundle: Path) -> None:
    with pytest.raises(ScoringError):
        TorchEngine(demo_bundle / TORCH_MODEL, 1).score({"features": np.array([[object()]])})


def test_the_torch_engine_leaves_the_environment_as_it_was(demo_bundle: Path) -> None:
    before = dict(os.environ)
    TorchEngine(demo_bundle / TORCH_MODEL, 1)
    assert dict(os.environ) == before


def test_code_in_an_exported_program_does_not_reach_the_torch_engine(
    demo_bundle: Path, tmp_path: Path
) -> None:
    records = archives.read(demo_bundle / TORCH_MODEL)
    payload = f"__import__('pathlib').Path('{tmp_path}/ran').touch()"
    program = json.loads(records[archives.PROGRAM])
    program["guards_code"] = [payload]
    records[archives.PROGRAM] = json.dumps(program).encode()
    broken = tmp_path / "model.pt2"
    broken.write_bytes(archives.packed(records).getvalue())
    with pytest.raises(BundleError, match=r"guards_code\[0\]: must be arithmetic over sizes"):
        TorchEngine(broken, 1)
    assert not (tmp_path / "ran").exists()


def test_a_nan_input_gives_no_score(demo_bundle: Path) -> None:
    engine = OnnxEngine(demo_bundle / ONNX_MODEL, 1)
    matrix = np.zeros((3, 15), np.float32)
    matrix[1, 4] = np.nan
    with pytest.raises(ScoringError, match="outside"):
        best_first(engine.score({"features": matrix}))


@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 3)])
def test_scores_of_any_shape_are_flattened(shape: tuple[int, ...]) -> None:
    scores = np.array([0.0, 0.5, 1.0], np.float32).reshape(shape)
    assert one_per_item(scores, 3).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("shape", [(2,), (4,), (3, 2), ()])
def test_another_number_of_scores_than_items_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ScoringError, match="for 3 items"):
        one_per_item(np.zeros(shape, np.float32), 3)


@pytest.mark.parametrize(
    ("memory_mb", "setting", "threads"),
    [
        (None, "0", 1),
        ("128", "0", 1),
        ("1769", "0", 1),
        ("3537", "0", 1),
        ("3538", "0", 2),
        ("10240", "0", 5),
        ("10240", "3", 3),
        (None, "4", 4),
    ],
)
def test_threads_follow_the_memory_size_unless_they_are_set(
    monkeypatch: pytest.MonkeyPatch, memory_mb: str | None, setting: str, threads: int
) -> None:
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", raising=False)
    if memory_mb:
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory_mb)
    assert threads_for(fakes.settings(ENGINE_THREADS=setting)) == threads
