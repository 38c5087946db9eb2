"""What a training run can be told, and what it answers."""

import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from feedrank.errors import FeedrankError

NetworkName = Literal["deep_mlp", "two_tower"]

PRODUCTION, CANDIDATE = "production", "candidate"  # aliases of a registered model's versions
SNAPSHOT_AS_OF = "feedrank.snapshot_as_of"  # tag of a run: ISO 8601 UTC
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
DEFAULT_TRACKING_URI = "sqlite:///data/mlflow/mlflow.db"
CONNECT_TIMEOUT_S = 5.0
SQLITE_URI = re.compile(r"sqlite(?:\+\w+)?://(?:/([^?]*))?(?:\?.*)?")
SQLITE_HEADER = b"SQLite format 3\0"
DEFAULT_PORTS = {"http": 80, "https": 443}
MIN_USERS = 10
MIN_ITEMS = 200  # of fewer, slates would be too short; see data.py
MIN_INTERACTIONS = 2_000  # so that each window has clicks to be judged by
MAX_SEED = 2**32 - 1
# MLflow's own rules for names, which it would only apply after the training.
REGISTERED_NAME = re.compile(r"[^/:.%\"'@\s]+")
ALIAS = re.compile(r"(?!latest$|v\d+$)[A-Za-z0-9_-]+")


def tracking_uri(given: str | None = None) -> str:
    """Where MLflow keeps its runs: as given, else as the environment has it, else in data/.

    Raises UnreachableError where that is a server that takes no connection (MLflow itself would try
    for minutes), or a file that is no SQLite database.
    """
    uri = given or os.environ.get(TRACKING_VARIABLE) or DEFAULT_TRACKING_URI
    database = sqlite_database(uri)
    if database and database.exists() and not _is_sqlite(database):
        raise UnreachableError(
            f"{database} is no SQLite database: choose another by --tracking-uri or "
            f"{TRACKING_VARIABLE}"
        )
    try:
        address = urlsplit(uri)
    except ValueError as error:
        raise UnreachableError(
            f"--tracking-uri or {TRACKING_VARIABLE} is no address: {error}"
        ) from error
    host = address.hostname or ""
    if address.scheme in DEFAULT_PORTS and not _has_proxy(address.scheme, host):
        at = address.netloc.rpartition("@")[2]  # without a password
        try:
            port = address.port or DEFAULT_PORTS[address.scheme]
            socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
        except (OSError, ValueError) as error:  # the latter for a port that is none
            raise UnreachableError(
                f"MLflow can't be reached at {at}: {error}; start its "
                f"server, or choose another by --tracking-uri or {TRACKING_VARIABLE}"
            ) from error
    return uri


def sqlite_database(uri: str) -> Path | None:
    """The file of a SQLite store, None for another. Raises UnreachableError where it names none."""
    match = SQLITE_URI.fullmatch(uri)
    if match and not match[1]:
        raise UnreachableError(f"{uri} names no database file; one is sqlite:///data/mlflow.db")
    return Path(match[1]) if match else None


def _is_sqlite(file: Path) -> bool:
    """MLflow makes its tables in an empty file too."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(len(SQLITE_HEADER)) in (b"", SQLITE_HEADER)


def _has_proxy(scheme: str, host: str) -> bool:
    return scheme in getproxies() and not proxy_bypass(host)


class UnreachableError(FeedrankError):
    """No server answers where MLflow should be."""


class OptionsError(FeedrankError):
    """One or more training options are wrong; the text names all of them."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """The defaults train in about a minute on two cores. Raises OptionsError.

    `tracking_uri` None means MLFLOW_TRACKING_URI, and without that a database in data/mlflow.
    """

    users: int = 2_000
    items: int = 1_000
    interactions: int = 300_000
    seed: int = 7
    network: NetworkName = "deep_mlp"
    epochs: int = 8
    batch_size: int = 2_048
    learning_rate: float = 1e-3
    patience: int = 3  # epochs without a better one
    experiment: str = "feed_ranking"
    registered_name: str = "feed_ranker"
    alias: str = CANDIDATE
    tracking_uri: str | None = None

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise OptionsError("; ".join(problems))

    def _problems(self) -> Iterator[str]:
        at_least = {
            "users": MIN_USERS,
            "items": MIN_ITEMS,
            "interactions": MIN_INTERACTIONS,
            "epochs": 1,
            "batch_size": 2,  # batch normalisation needs two rows
            "patience": 1,
        }
        for name, least in at_least.items():
            if (value := getattr(self, name)) < least:
                yield f"{name} must be at least {least:,}, not {value:,}"
        if not 0 <= self.seed <= MAX_SEED:
            yield f"seed must be from 0 to {MAX_SEED:,}, not {self.seed:,}"
        if not (isfinite(self.learning_rate) and self.learning_rate > 0):
            yield f"learning_rate must be a positive number, not {self.learning_rate}"
        if self.network not in get_args(NetworkName):
            known = " or ".join(get_args(NetworkName))
            yield f"network must be {known}, not {self.network!r}"
        if not self.experiment.strip():
            yield "experiment must have a name"
        if not REGISTERED_NAME.fullmatch(self.registered_name):
            yield (
                f"registered_name can't be {self.registered_name!r}: "
                "MLflow allows no space and none of / : . @ % and quotes"
            )
        if not ALIAS.fullmatch(self.alias):
            yield (
                f"alias can't be {self.alias!r}: letters, digits, - and _ make one, "
                "but latest and v1, v2, ... are MLflow's own"
            )


@dataclass(frozen=True, slots=True)
class TrainResult:
    run_id: str
    model_uri: str  # models:/m-..., the logged model
    registered_name: str
    version: str  # of the registered name
    metrics: dict[str, float]  # of the test window
