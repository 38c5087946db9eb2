import inspect

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from feedmodel.demo.networks import DeepMLP, Standardise, TwoTower
from feedmodel.demo.specs import Priors, deep_mlp_spec, two_tower_spec
from feedrank.domain import FloatArray
from feedrank.features.spec import FeatureSpec

PRIOR = Priors(ctr=0.1, dwell_s=20.0, device="mobile", age_days=25.0)


def rows(count: int, width: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(3.0, 2.0, (count, width)).astype(np.float32)


@pytest.fixture
def deep_mlp() -> DeepMLP:
    return DeepMLP(rows(50, 15)).eval()


@pytest.fixture
def two_tower() -> TwoTower:
    return TwoTower(rows(50, 10), rows(50, 4)).eval()


@pytest.mark.parametrize(
    ("network", "spec"), [(DeepMLP, deep_mlp_spec(PRIOR)), (TwoTower, two_tower_spec(PRIOR))]
)
def test_a_networks_parameters_are_named_like_the_specs_inputs(
    network: type[DeepMLP | TwoTower], spec: FeatureSpec
) -> None:
    for method in (network.forward, network.logits):
        parameters = list(inspect.signature(method).parameters)
        assert parameters == ["self", *(input_.name for input_ in spec.inputs)]


@pytest.mark.parametrize("count", [1, 2, 100])
def test_both_networks_give_one_probability_per_item(
    deep_mlp: DeepMLP, two_tower: TwoTower, count: int
) -> None:
    user = torch.from_numpy(rows(1, 10))
    for probability in (
        deep_mlp(torch.from_numpy(rows(count, 15))),
        two_tower(user, torch.from_numpy(rows(count, 4))),
    ):
        assert probability.shape == (count,)
        assert ((probability > 0) & (probability < 1)).all()


def test_the_deep_mlp_has_three_hidden_layers(deep_mlp: DeepMLP) -> None:
    widths = [m.out_features for m in deep_mlp.modules() if isinstance(m, torch.nn.Linear)]
    assert widths == [512, 256, 128, 1]


def test_each_tower_has_two_hidden_layers_and_128_outputs(two_tower: TwoTower) -> None:
    for tower in (two_tower.user_tower, two_tower.item_tower):
        widths = [m.out_features for m in tower.modules() if isinstance(m, torch.nn.Linear)]
        assert widths == [256, 128, 128]


def test_one_user_row_scores_items_as_the_same_row_repeated_does(two_tower: TwoTower) -> None:
    user, items = torch.from_numpy(rows(1, 10)), torch.from_numpy(rows(7, 4))
    assert_close(two_tower(user, items), two_tower(user.repeat(7, 1), items))


def test_the_two_towers_logit_lies_within_its_scale(two_tower: TwoTower) -> None:
    logits = two_tower.logits(torch.from_numpy(rows(100, 10)), torch.from_numpy(rows(100, 4)))
    assert (logits - two_tower.bias).abs().max() <= two_tower.scale + 1e-5


def test_standardised_training_rows_have_mean_0_and_deviation_1() -> None:
    training_rows = rows(1_000, 3)
    out = Standardise(training_rows)(torch.from_numpy(training_rows))
    assert_close(out.mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
    assert_close(out.std(dim=0, correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_a_constant_column_becomes_zero() -> None:
    constant = np.full((9, 1), 4.0, dtype=np.float32)
    assert Standardise(constant)(torch.tensor([[4.0]])).tolist() == [[0.0]]


def test_a_value_far_outside_the_training_rows_is_clipped() -> None:
    standardise = Standardise(np.array([[-1.0], [1.0]], dtype=np.float32))
    assert standardise(torch.tensor([[1e30], [-1e30], [2.0]])).tolist() == [[10.0], [-10.0], [2.0]]


def test_standardisation_is_part_of_the_state_dict() -> None:
    training_rows = rows(20, 15)
    trained, fresh = DeepMLP(training_rows).eval(), DeepMLP(rows(20, 15, seed=9)).eval()
    fresh.load_state_dict(trained.state_dict())
    inputs = torch.from_numpy(training_rows)
    assert_close(fresh(inputs), trained(inputs))
