"""A small model of the demo's shape: 15 features, 200 users, 305 items, weights from a seed.

Nothing is trained. What is here in plain Python (the spec, the tables, the networks) is what the
tests compare the served scores with.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

SEED = 7
USERS = 200
ITEMS = 300
SAMPLE = range(1001, 1006)  # the items of the requests in `events/`
PAIRS = 800
FEATURES: list[dict[str, Any]] = [
    {"name": "user_historical_ctr", "source": "user", "default": 0.12},
    {"name": "user_avg_dwell_time", "source": "user", "default": 21.5},
    {"name": "user_interaction_count", "source": "user", "default": 0.0},
    {"name": "user_days_active", "source": "user", "default": 0.0},
    {"name": "item_ctr", "source": "item", "default": 0.12},
    {"name": "item_avg_dwell_time", "source": "item", "default": 21.5},
    {"name": "item_popularity", "source": "item", "default": 0.0},
    {"name": "item_age_days", "source": "item", "default": 3.0},
    {"name": "hour_of_day", "source": "context", "expression": "hour"},
    {"name": "day_of_week", "source": "context", "expression": "weekday"},
    {
        "name": "device_mobile",
        "source": "context",
        "expression": "equals(device, mobile)",
        "default": 1.0,
    },
    {"name": "device_desktop", "source": "context", "expression": "equals(device, desktop)"},
    {"name": "device_tablet", "source": "context", "expression": "equals(device, tablet)"},
    {"name": "user_item_previous_interactions", "source": "pair", "default": 0.0},
    {"name": "is_weekend", "source": "context", "expression": "is_weekend"},
]
SPREAD = (0.1, 10, 40, 20, 0.1, 10, 2, 15, 12, 3, 1, 1, 1, 2, 1)  # of each feature, about
USER_AT = (0, 1, 2, 3, 8, 9, 10, 11, 12, 14)
ITEM_AT = (4, 5, 6, 7)


def demo_spec() -> dict[str, Any]:
    return {"inputs": [{"name": "features", "per": "item", "features": FEATURES}]}


def two_tower_spec() -> dict[str, Any]:
    """The user's features and the context once a request, the item's once an item."""
    return {
        "inputs": [
            {
                "name": "user_features",
                "per": "request",
                "features": [FEATURES[at] for at in USER_AT],
            },
            {"name": "item_features", "per": "item", "features": [FEATURES[at] for at in ITEM_AT]},
        ]
    }


def demo_tables() -> dict[str, pd.DataFrame]:
    """Users 1 to 200, items 1 to 300 and 1001 to 1005, and 800 pairs of the former."""
    random, sample = np.random.default_rng(SEED), np.random.default_rng(SEED + 1)
    users, items = np.arange(1, USERS + 1), np.arange(1, ITEMS + 1)
    pairs = np.sort(random.choice(USERS * ITEMS, PAIRS, replace=False))
    return {
        "users": pd.DataFrame(
            {
                "user_id": users,
                "user_historical_ctr": random.beta(2, 12, USERS).astype(np.float32),
                "user_avg_dwell_time": random.gamma(4, 6, USERS).astype(np.float32),
                "user_interaction_count": random.geometric(0.02, USERS).astype(np.float32),
                "user_days_active": random.integers(1, 60, USERS).astype(np.float32),
            }
        ),
        "items": pd.concat(
            [_items(items, random), _items(np.array(SAMPLE), sample)], ignore_index=True
        ),
        "pairs": pd.DataFrame(
            {
                "user_id": pairs // ITEMS + 1,
                "item_id": pairs % ITEMS + 1,
                "user_item_previous_interactions": random.integers(1, 6, PAIRS).astype(np.float32),
            }
        ),
    }


def _items(ids: NDArray[np.int64], random: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "item_id": ids,
            "item_ctr": random.beta(2, 12, len(ids)).astype(np.float32),
            "item_avg_dwell_time": random.gamma(4, 6, len(ids)).astype(np.float32),
            "item_popularity": np.log1p(random.geometric(0.01, len(ids))).astype(np.float32),
            "item_age_days": random.uniform(0, 45, len(ids)).astype(np.float32),
        }
    )


class Scaled(nn.Module):
    """Brings raw features to about one."""

    spread: Tensor

    def __init__(self, at: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("spread", torch.tensor([SPREAD[i] for i in at], dtype=torch.float32))

    def forward(self, rows: Tensor) -> Tensor:
        return rows / self.spread


class SmallMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Scaled(tuple(range(15))), nn.Linear(15, 32), nn.ReLU(), nn.Linear(32, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        return torch.sigmoid(3 * self.body(features)).squeeze(-1)


class SmallTwoTower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.user = nn.Sequential(Scaled(USER_AT), nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 8))
        self.item = nn.Sequential(Scaled(ITEM_AT), nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8))

    def forward(self, user_features: Tensor, item_features: Tensor) -> Tensor:
        user = functional.normalize(self.user(user_features), dim=-1)
        item = functional.normalize(self.item(item_features), dim=-1)
        return torch.sigmoid(5 * (user * item).sum(dim=-1))


def network(name: str) -> nn.Module:
    """The same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return (SmallMLP() if name == "deep_mlp" else SmallTwoTower()).eval()


def features_of(
    user_id: int, item_ids: list[int], device: str | None, hour: int, weekday: int
) -> torch.Tensor:
    """(items, 15) float32, looked up row by row in the plain tables."""
    tables = demo_tables()
    users = tables["users"].set_index("user_id").to_dict("index")
    items = tables["items"].set_index("item_id").to_dict("index")
    pairs = tables["pairs"].set_index(["user_id", "item_id"]).to_dict("index")
    defaults = {feature["name"]: feature.get("default", 0.0) for feature in FEATURES}
    moment = {
        "hour_of_day": hour,
        "day_of_week": weekday,
        "is_weekend": float(weekday >= 5),
    }
    if device is not None:
        moment |= {f"device_{d}": float(d == device) for d in ("mobile", "desktop", "tablet")}
    rows = [
        defaults
        | users.get(user_id, {})
        | items.get(item_id, {})
        | pairs.get((user_id, item_id), {})
        | moment
        for item_id in item_ids
    ]
    return torch.tensor([[row[f["name"]] for f in FEATURES] for row in rows], dtype=torch.float32)


def torch_scores(network_name: str, features: torch.Tensor) -> list[float]:
    """What eager PyTorch makes of (items, 15) features."""
    module = network(network_name)
    with torch.inference_mode():
        if network_name == "deep_mlp":
            scores: Tensor = module(features)
        else:
            scores = module(features[:1, list(USER_AT)], features[:, list(ITEM_AT)])
    return [float(score) for score in scores]


def write_features(directory: Path, spec: dict[str, Any]) -> None:
    """Spec and tables as a training run logs them."""
    import json

    directory.mkdir()
    (directory / "feature_spec.json").write_text(json.dumps(spec))
    for name, table in demo_tables().items():
        table.to_parquet(directory / f"{name}.parquet", index=False)
