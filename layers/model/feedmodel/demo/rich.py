"""A model that reads more than numbers: text ids, a history, int64 and float32 inputs, candidate
features, three outputs. It is untrained, its bundle as large as one likes: for measurements."""

from pathlib import Path
from time import time
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from feedmodel.publish.build import PublishOptions, build_bundle
from feedmodel.publish.tables import TableName
from feedmodel.training.runs import EXAMPLE_ROWS, log_features, log_network, tracked_run
from feedrank.features.spec_reader import parse_spec

SEED = 7
USERS, FILMS, HISTORY, WIDTH = 1_000, 2_000, 50, 16
GENRES = ["action", "comedy", "documentary", "drama"]
IDS = [f"film-{number:05}" for number in range(FILMS)]
SPEC = parse_spec(
    {
        "ids": "text",
        "inputs": [
            {"name": "who", "type": "int64", "per": "request", "features": [
                {"name": "history", "source": "user", "size": HISTORY, "vocabulary": "films"}]},
            {"name": "film", "type": "int64", "features": [
                {"name": "item_id", "source": "item", "vocabulary": "films"},
                {"name": "genre", "source": "item", "vocabulary": "genres"}]},
            {"name": "dense", "features": [
                {"name": "embedding", "source": "item", "size": WIDTH},
                {"name": "price", "source": "item"},
                {"name": "hour", "source": "context", "expression": "hour"},
                {"name": "retrieval_score", "source": "candidate", "default": 0.5}]},
        ],
        "vocabularies": {"films": IDS, "genres": GENRES},
        "outputs": [
            {"name": "click", "weight": 1.0},
            {"name": "like", "weight": 2.0},
            {"name": "dwell", "weight": 0.01}],
        "range": None,
    }
)  # fmt: skip


class RichModel(nn.Module):
    """Click, like and dwell of each candidate, (items,) each, after the user's history."""

    def __init__(self, films: int) -> None:
        super().__init__()
        self.films, self.genres = nn.Embedding(films, WIDTH), nn.Embedding(len(GENRES) + 1, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(4 * WIDTH + 3, 64), nn.ReLU(), nn.Linear(64, 3))

    def forward(self, who: Tensor, film: Tensor, dense: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        past = self.films(who).mean(1).expand(film.shape[0], -1)
        fields = [past, self.films(film[:, 0]), self.genres(film[:, 1]), dense]
        click, like, dwell = self.mlp(torch.cat(fields, dim=1)).unbind(1)
        return torch.sigmoid(click), torch.sigmoid(like), 100 * torch.sigmoid(dwell)


def publish(directory: Path, megabytes: int = 0) -> Path:
    """The model's bundle, with an embedding of so many megabytes where its films need fewer."""
    directory.mkdir(parents=True)
    torch.manual_seed(SEED)
    module = RichModel(max(FILMS + 1, megabytes * 1_000_000 // (4 * WIDTH))).eval()
    examples = {
        input_.name: np.zeros((EXAMPLE_ROWS, input_.width), input_.type) for input_ in SPEC.inputs
    }
    uri = f"sqlite:///{directory}/mlflow.db"
    with tracked_run(uri, "feedbench", "rich model"):
        log_features(SPEC, tables(), int(time()))
        model_uri = log_network(module, SPEC, examples)
    return build_bundle(PublishOptions(model_uri, uri, bundles=directory / "bundles")).directory


def tables() -> dict[TableName, pd.DataFrame]:
    random = np.random.default_rng(SEED)
    users = {
        "user_id": [f"user-{number}" for number in range(USERS)],
        "history": [list(random.choice(IDS, length)) for length in random.integers(0, 60, USERS)],
    }
    items = {
        "item_id": IDS,
        "genre": random.choice(GENRES, FILMS),
        "embedding": list(random.normal(size=(FILMS, WIDTH)).astype(np.float32)),
        "price": random.gamma(3, 4, FILMS),
    }
    return {"users": pd.DataFrame(users), "items": pd.DataFrame(items)}


def requests(items: int, count: int) -> list[dict[str, Any]]:
    """Bodies of `/predict`."""
    random = np.random.default_rng((SEED, items))
    return [
        {
            "user_id": f"user-{random.integers(USERS)}",
            "item_ids": random.choice(IDS, items, replace=False).tolist(),
            "features": {"retrieval_score": random.random(items).round(3).tolist()},
        }
        for _ in range(count)
    ]
