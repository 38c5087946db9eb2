from dataclasses import replace

import numpy as np
import torch

from feedmodel.demo.networks import DeepMLP
from feedmodel.training.evaluation import auc, log_loss
from feedmodel.training.fit import Epoch, Examples, Schedule, best_of, fit, predict, seeded

SCHEDULE = Schedule(epochs=4, batch_size=64, learning_rate=1e-2, patience=4)


def examples(rows: int, seed: int) -> Examples:
    """Clicks that depend on the first feature alone."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, 3)).astype(np.float32)
    clicked = rng.random(rows) < 1 / (1 + np.exp(-4 * features[:, 0]))
    return Examples({"features": features}, clicked)


TRAIN, VALIDATION = examples(500, seed=1), examples(300, seed=2)
# The better TRAIN is fitted, the worse is its loss.
CONTRARY = Examples(VALIDATION.inputs, ~VALIDATION.clicked)


def fitted(
    seed: int,
    *,
    schedule: Schedule = SCHEDULE,
    train: Examples = TRAIN,
    validation: Examples = VALIDATION,
) -> tuple[DeepMLP, list[Epoch]]:
    with seeded(seed):
        network = DeepMLP(train.inputs["features"], hidden=(16, 8))
        return network, fit(network, train, validation, schedule)


def weights(network: DeepMLP) -> dict[str, list[object]]:
    return {name: tensor.tolist() for name, tensor in network.state_dict().items()}


def test_the_same_seed_gives_the_same_weights_and_epochs() -> None:
    (first, first_epochs), (second, second_epochs) = fitted(seed=1), fitted(seed=1)
    assert weights(first) == weights(second)
    assert first_epochs == second_epochs


def fitted_with_threads_outside(threads: int) -> tuple[dict[str, list[object]], set[int]]:
    """The weights of a network wide enough for torch to parallelise its sums, and the numbers of
    threads while it was fitted."""
    before, counts = torch.get_num_threads(), set()
    torch.set_num_threads(threads)
    try:
        with seeded(1):
            rows = examples(8_000, seed=1)
            network = DeepMLP(rows.inputs["features"], hidden=(256, 128))
            schedule = Schedule(epochs=1, batch_size=2_048, learning_rate=1e-2, patience=1)
            fit(
                *(network, rows, VALIDATION, schedule),
                on_batch=lambda: counts.add(torch.get_num_threads()),
            )
        assert torch.get_num_threads() == threads
        return weights(network), counts
    finally:
        torch.set_num_threads(before)


def test_weights_do_not_depend_on_the_callers_number_of_threads() -> None:
    one, two = fitted_with_threads_outside(1), fitted_with_threads_outside(2)
    assert one == two
    assert two[1] == {1}


def test_another_seed_gives_other_weights() -> None:
    assert weights(fitted(seed=1)[0]) != weights(fitted(seed=2)[0])


def test_a_seed_does_not_change_random_numbers_outside() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    first = torch.rand(1)
    fitted(seed=5)
    assert torch.equal(torch.cat((first, torch.rand(1))), expected)


def test_training_finds_the_signal() -> None:
    network, _ = fitted(seed=1)
    assert auc(VALIDATION.clicked, predict(network, VALIDATION)) > 0.9


def test_the_best_epochs_weights_are_kept() -> None:
    network, epochs = fitted(seed=1, validation=CONTRARY)
    loss = log_loss(CONTRARY.clicked, predict(network, CONTRARY))
    assert best_of(epochs).number == 1
    assert loss == epochs[0].validation_loss < epochs[-1].validation_loss


def test_training_stops_when_patience_runs_out() -> None:
    schedule = replace(SCHEDULE, epochs=50, patience=2)
    assert len(fitted(seed=1, schedule=schedule, validation=CONTRARY)[1]) == 3


def test_every_batch_and_every_epoch_is_reported() -> None:
    batches, reported = [], []
    with seeded(1):
        network = DeepMLP(TRAIN.inputs["features"], hidden=(8,))
        epochs = fit(
            network,
            TRAIN,
            VALIDATION,
            SCHEDULE,
            on_batch=lambda: batches.append(1),
            on_epoch=reported.append,
        )
    assert reported == epochs
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4]
    assert len(batches) == 4 * SCHEDULE.batches(500) == 4 * (500 // 64)


def test_fewer_rows_than_a_batch_are_one_batch() -> None:
    few = examples(20, seed=3)
    assert SCHEDULE.batches(len(few)) == 1
    assert len(fitted(seed=1, train=few)[1]) == 4


def test_a_fitted_network_is_in_evaluation_mode() -> None:
    assert not fitted(seed=1)[0].training
