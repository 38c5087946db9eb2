"""Fitting a network: Adam on binary cross-entropy, stopped early, the best weights kept.

All of it runs in one thread. Two are a tenth faster on an idle machine and many times slower on a
busy one, where they wait for each other; and sums depend on their number. So on one kind of
processor the same seed gives the same weights, whatever the number of cores.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from feedmodel.threads import one_thread
from feedmodel.training.evaluation import auc, log_loss
from feedrank.domain import FloatArray

PREDICTED_AT_ONCE = 16_384  # rows; bounds the memory


class ClickNetwork(nn.Module):
    """What `fit` trains: `forward` returns click probabilities, `logits` what its sigmoid takes, so
    that the loss is stable where the sigmoid is flat. Both take the inputs in the order of the
    spec and return (rows,)."""

    logits: Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class Examples:
    """The model's inputs in the order of the spec, each (rows, features), and the rows' clicks."""

    inputs: Mapping[str, FloatArray]
    clicked: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.clicked)

    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(rows) for rows in self.inputs.values())


@dataclass(frozen=True, slots=True)
class Schedule:
    epochs: int
    batch_size: int
    learning_rate: float
    patience: int  # epochs without a lower validation loss, after which training stops

    def batches(self, rows: int) -> int:
        """A last batch that isn't full is skipped, unless it is the only one."""
        return max(rows // self.batch_size, 1)


@dataclass(frozen=True, slots=True)
class Epoch:
    """Losses are mean binary cross-entropies in nats, of training with dropout."""

    number: int  # from 1
    train_loss: float
    validation_loss: float
    validation_auc: float


def best_of(epochs: list[Epoch]) -> Epoch:
    return min(epochs, key=lambda epoch: epoch.validation_loss)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch draws its random numbers from `seed` inside the block; outside they are unaffected."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def optimizer_of(network: nn.Module, schedule: Schedule) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=schedule.learning_rate)


@one_thread()
def fit(
    network: ClickNetwork,
    train: Examples,
    validation: Examples,
    schedule: Schedule,
    *,
    on_batch: Callable[[], None] = lambda: None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> list[Epoch]:
    """Train the network in place, and leave it in evaluation mode with its best epoch's weights."""
    optimizer = optimizer_of(network, schedule)
    epochs: list[Epoch] = []
    weights = _copy_weights(network)
    while len(epochs) < schedule.epochs and not _out_of_patience(epochs, schedule.patience):
        loss = _run_epoch(network, optimizer, _shuffled(train, schedule), on_batch)
        probability = predict(network, validation)
        epochs.append(
            Epoch(
                number=len(epochs) + 1,
                train_loss=loss,
                validation_loss=log_loss(validation.clicked, probability),
                validation_auc=auc(validation.clicked, probability),
            )
        )
        if best_of(epochs) is epochs[-1]:
            weights = _copy_weights(network)
        on_epoch(epochs[-1])
    network.load_state_dict(weights)
    network.eval()
    return epochs


@one_thread()
def predict(network: nn.Module, examples: Examples) -> FloatArray:
    """The probability of a click, (rows,), in evaluation mode."""
    network.eval()
    inputs = examples.tensors()
    starts = range(0, len(examples), PREDICTED_AT_ONCE)
    with torch.inference_mode():
        parts = [network(*(rows[at : at + PREDICTED_AT_ONCE] for rows in inputs)) for at in starts]
        return torch.cat(parts).numpy()


def _shuffled(examples: Examples, schedule: Schedule) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Batches of inputs and clicks, in a new random order."""
    inputs, clicked = examples.tensors(), torch.from_numpy(examples.clicked).float()
    order = torch.randperm(len(examples))
    for number in range(schedule.batches(len(examples))):
        rows = order[number * schedule.batch_size :][: schedule.batch_size]
        yield [columns[rows] for columns in inputs], clicked[rows]


def _run_epoch(
    network: ClickNetwork,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[list[Tensor], Tensor]],
    on_batch: Callable[[], None],
) -> float:
    """Returns the mean loss of the batches, each before its optimiser step."""
    network.train()
    losses = []
    for inputs, clicked in batches:
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(network.logits(*inputs), clicked)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        optimizer.step()
        losses.append(loss.item())
        on_batch()
    return float(np.mean(losses))


def _out_of_patience(epochs: list[Epoch], patience: int) -> bool:
    return bool(epochs) and len(epochs) - best_of(epochs).number >= patience


def _copy_weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}
