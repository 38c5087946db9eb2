"""The demo's two networks. Both read raw feature values and return probabilities.

`forward` takes the spec's inputs by position; its parameters have their names.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from feedmodel.training.fit import ClickNetwork
from feedrank.domain import FloatArray

MAX_DEVIATIONS = 10.0  # from the mean; a value further away is clipped


class Standardise(nn.Module):
    """Mean 0 and deviation 1 over the training rows. Part of the module, so that serving has it."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, rows: FloatArray) -> None:
        super().__init__()
        deviation = rows.std(axis=0, dtype=float)
        deviation[deviation == 0] = 1.0  # a constant column stays 0
        self.register_buffer("mean", torch.tensor(rows.mean(axis=0, dtype=float)).float())
        self.register_buffer("deviation", torch.tensor(deviation).float())

    def forward(self, rows: Tensor) -> Tensor:
        return ((rows - self.mean) / self.deviation).clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS)


class DeepMLP(ClickNetwork):
    """512-256-128, each with batch normalisation, ReLU and dropout; then one logit."""

    def __init__(
        self, features: FloatArray, hidden: tuple[int, ...] = (512, 256, 128), dropout: float = 0.1
    ) -> None:
        """`features` are training rows, (rows, features), for the standardisation."""
        super().__init__()
        self.standardise = Standardise(features)
        self.body = _dense(features.shape[1], hidden, dropout)
        self.head = nn.Linear(hidden[-1], 1)

    def logits(self, features: Tensor) -> Tensor:
        hidden = self.body(self.standardise(features))  # (rows, 128)
        logits: Tensor = self.head(hidden)  # (rows, 1)
        return logits.squeeze(-1)

    def forward(self, features: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(features))


class TwoTower(ClickNetwork):
    """A user tower and an item tower, 256-128 each; their normalised 128-d outputs' dot product.

    The item tower reads item features alone, so a catalogue's vectors can be precomputed. The user
    tower runs once a request: its one row is compared with every item row.
    """

    def __init__(
        self,
        user_features: FloatArray,
        item_features: FloatArray,
        hidden: tuple[int, ...] = (256, 128),
        size: int = 128,
        dropout: float = 0.1,
    ) -> None:
        """Both features are training rows, (rows, features), for the standardisation."""
        super().__init__()
        self.user_tower = _tower(user_features, hidden, size, dropout)
        self.item_tower = _tower(item_features, hidden, size, dropout)
        self.scale = nn.Parameter(torch.tensor(5.0))
        self.bias = nn.Parameter(torch.tensor(0.0))

    def logits(self, user_features: Tensor, item_features: Tensor) -> Tensor:
        user = functional.normalize(self.user_tower(user_features), dim=-1)  # (1 or items, 128)
        item = functional.normalize(self.item_tower(item_features), dim=-1)  # (items, 128)
        return self.scale * (user * item).sum(dim=-1) + self.bias  # (items,)

    def forward(self, user_features: Tensor, item_features: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(user_features, item_features))


def _tower(rows: FloatArray, hidden: tuple[int, ...], size: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        Standardise(rows), _dense(rows.shape[1], hidden, dropout), nn.Linear(hidden[-1], size)
    )


def _dense(width: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    widths = (width, *hidden)
    return nn.Sequential(
        *(
            nn.Sequential(
                nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(), nn.Dropout(dropout)
            )
            for before, after in zip(widths, hidden, strict=False)
        )
    )


Network = DeepMLP | TwoTower
