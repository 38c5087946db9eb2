"""Which output of a model is which: by its own names, or by an order that somebody wrote down. The
truth is the torch module itself, before MLflow and this project had it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import Tensor, nn

from feedmodel.errors import PublishError
from feedmodel.publish.export import load_program
from feedmodel.publish.scorers import torch_scorer
from feedrank.features.spec_reader import parse_spec

FEATURES = [{"name": name, "source": "item"} for name in ("price", "age")]
FLOAT = np.dtype("float32")
ROWS = np.random.default_rng(3).random((5, 2), np.float32)
BY_NAME = {"click": 1.0, "like": 10.0}  # as sorted keys are; the model gives like first
IN_ORDER = [{"name": "like", "weight": 10.0}, {"name": "click", "weight": 1.0}]
OTHER_ORDER = IN_ORDER[::-1]


class Heads(nn.Module):
    """`give` makes what forward returns of like and click."""

    def __init__(self, give: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.give = give

    def forward(self, x: Tensor) -> Any:
        return self.give(torch.sigmoid(x[:, 0]), torch.sigmoid(-x[:, 1]))


def a_tuple(like: Tensor, click: Tensor) -> Any:
    return like, click


def columns(like: Tensor, click: Tensor) -> Any:
    return torch.stack([like, click], dim=1)


def a_dict(like: Tensor, click: Tensor) -> Any:
    return {"like": like, "click": click}


TRUTH = 10 / (1 + np.exp(-ROWS[:, 0])) + 1 / (1 + np.exp(ROWS[:, 1]))


def scores(
    directory: Path, give: Callable[..., Any], outputs: Any, names: tuple[str, ...] = ()
) -> Any:
    """Of a model that MLflow has saved with these names for its outputs."""
    heads = Schema([TensorSpec(FLOAT, (-1,), name) for name in names]) if names else None
    mlflow.pytorch.save_model(
        Heads(give).eval(),
        str(directory / "model"),
        serialization_format="pt2",
        signature=ModelSignature(Schema([TensorSpec(FLOAT, (-1, 2), "x")]), heads),
        input_example=ROWS,
        pip_requirements=["torch"],
    )
    spec = parse_spec({"inputs": [{"name": "x", "features": FEATURES}], "outputs": outputs})
    program = load_program(directory / "model", spec)
    return torch_scorer(program.exported, program.inputs)({"x": ROWS})


@pytest.mark.parametrize(
    ("give", "outputs", "names"),
    [
        (a_tuple, IN_ORDER, ()),
        (columns, IN_ORDER, ()),
        (a_dict, IN_ORDER, ()),
        (a_dict, OTHER_ORDER, ()),
        (a_dict, BY_NAME, ()),
        (a_tuple, BY_NAME, ("like", "click")),
        (a_tuple, IN_ORDER, ("like", "click")),
        (a_tuple, IN_ORDER, ("output_0", "output_1")),
    ],
)
def test_each_output_has_its_own_weight(
    give: Callable[..., Any], outputs: Any, names: tuple[str, ...], tmp_path: Path
) -> None:
    np.testing.assert_allclose(scores(tmp_path, give, outputs, names), TRUTH, rtol=1e-6)


@pytest.mark.parametrize(
    ("give", "outputs", "names", "says"),
    [
        (a_tuple, BY_NAME, (), r'in which forward returns them, such as "outputs": \[\{"name": '),
        (columns, BY_NAME, (), "gives its outputs without names"),
        (a_tuple, BY_NAME, ("output_0", "output_1"), "gives its outputs without names"),
        (a_tuple, OTHER_ORDER, ("like", "click"), "has the outputs click, like in this order"),
        (a_dict, {"click": 1, "share": 2}, (), "has no output 'share'; it gives "),
    ],
)
def test_what_does_not_tell_which_output_is_which_is_refused(
    give: Callable[..., Any], outputs: Any, names: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    with pytest.raises(PublishError, match=says):
        scores(tmp_path, give, outputs, names)
