"""The options of a training run, and its result. Imports neither torch nor MLflow: the command line
reads this at every start."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

from feedmodel.errors import OptionsError
from feedmodel.publish.names import ALIAS, CANDIDATE, REGISTERED_NAME

NetworkName = Literal["deep_mlp", "two_tower"]

MIN_USERS = 10
MIN_ITEMS = 200  # fewer would make slates too short; see feed.py
MIN_INTERACTIONS = 2_000  # so that each window has clicks to evaluate on
MAX_SEED = 2**32 - 1


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """The defaults train in about a minute on two cores. Raises OptionsError.

    `tracking_uri` None means MLFLOW_TRACKING_URI, and without that a database in data/mlflow.
    """

    users: int = 2_000
    items: int = 2_000
    interactions: int = 300_000
    seed: int = 7
    network: NetworkName = "deep_mlp"
    epochs: int = 8
    batch_size: int = 2_048
    learning_rate: float = 1e-3
    patience: int = 3  # epochs without improvement
    experiment: str = "feed_ranking"
    registered_name: str = "feed_ranker"
    alias: str = CANDIDATE
    tracking_uri: str | None = None

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise OptionsError("; ".join(problems))

    def _problems(self) -> Iterator[str]:
        minima = {
            "users": MIN_USERS,
            "items": MIN_ITEMS,
            "interactions": MIN_INTERACTIONS,
            "epochs": 1,
            "batch_size": 2,  # batch normalisation needs two rows
            "patience": 1,
        }
        for name, minimum in minima.items():
            if (value := getattr(self, name)) < minimum:
                yield f"{name} must be at least {minimum:,}, not {value:,}"
        if not 0 <= self.seed <= MAX_SEED:
            yield f"seed must be from 0 to {MAX_SEED:,}, not {self.seed:,}"
        if not (isfinite(self.learning_rate) and self.learning_rate > 0):
            yield f"learning_rate must be a positive number, not {self.learning_rate}"
        if self.network not in get_args(NetworkName):
            known = " or ".join(get_args(NetworkName))
            yield f"network must be {known}, not {self.network!r}"
        yield from self._wrong_names()

    def _wrong_names(self) -> Iterator[str]:
        if not self.experiment.strip():
            yield "experiment must have a name"
        if not REGISTERED_NAME.fullmatch(self.registered_name):
            yield (
                f"registered_name can't be {self.registered_name!r}: "
                "MLflow allows no space and none of / : . @ % and quotes"
            )
        if not ALIAS.fullmatch(self.alias):
            yield (
                f"alias can't be {self.alias!r}: it may hold letters, digits, - and _, "
                "but latest and v1, v2, ... are reserved by MLflow"
            )


@dataclass(frozen=True, slots=True)
class TrainResult:
    run_id: str
    model_uri: str  # models:/m-..., the logged model
    registered_name: str
    version: str  # of the registered name
    metrics: dict[str, float]  # of the test window
