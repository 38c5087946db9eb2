"""One model with all that a spec can say, and what its team would compute for it by hand."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import zoo
from zoo import AGE, CLICKS, DAYS, ITEM, ITEMS, PRICE, RETRIEVAL, WIDTH, Frames, Known

RECENT, CLIP = 3, 2
DEVICES, SOURCES = ("phone", "tv"), ("ann", "popular")
FILMS = [zoo.film(item) for item in range(ITEMS)]
BERLIN = ZoneInfo("Europe/Berlin")


class Everything(nn.Module):
    """Click and dwell of each candidate, after what the user saw recently."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.mlp = nn.Embedding(ITEMS + 1, WIDTH), zoo._mlp(4 * WIDTH + 10, 2)
        self.devices, self.sources = nn.Embedding(3, WIDTH), nn.Embedding(3, WIDTH)

    def forward(self, who: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        request = torch.cat(
            [self.items(who[:, :RECENT]).mean(1), self.devices(who[:, RECENT])], dim=1
        ).expand(sparse.shape[0], -1)
        known = torch.where(torch.isnan(dense), -1.0, zoo.scaled(dense))
        fields = [self.items(sparse[:, 0]), self.sources(sparse[:, 1])]
        heads = self.mlp(torch.cat([request, *fields, known], dim=1))
        return torch.sigmoid(heads[:, 0]), 10 * heads[:, 1]


EVERYTHING = Known(
    Everything,
    {
        "ids": "text",
        "inputs": [
            {"name": "who", "type": "int64", "per": "request", "features": [
                {"name": "recent", "source": "context", "expression": "list(recent)",
                 "size": RECENT, "vocabulary": "items"},
                {"name": "device", "source": "context", "expression": "text(device)",
                 "vocabulary": "device"}]},
            {"name": "sparse", "type": "int64", "features": [
                ITEM,
                {"name": "source", "source": "candidate", "vocabulary": "source"}]},
            {"name": "dense", "features": [
                {"name": "hour", "source": "context", "expression": "hour(Europe/Berlin)"},
                {"name": "weekday", "source": "context", "expression": "weekday(offset)"},
                {"name": "temp", "source": "context", "expression": "number(temp)",
                 "default": 7.5},
                AGE, PRICE | {"default": None}, DAYS, CLICKS, RETRIEVAL,
                {"name": "clip", "source": "candidate", "size": CLIP, "keep": "last",
                 "default": 0.25}]},
        ],
        "vocabularies": {
            "device": list(DEVICES), "items": FILMS, "source": list(SOURCES)
        },
        "outputs": [{"name": "click", "weight": 1.0}, {"name": "dwell", "weight": 0.5}],
        "range": None,
    },
    text_ids=True,
)  # fmt: skip


def scores(request: dict[str, Any], frames: Frames) -> dict[str, np.ndarray[Any, Any]]:
    """Of each item as sent: `click`, `dwell` and `score`, by torch over cells that are looked up
    one by one. The request has a timestamp with an offset."""
    context, sent = request.get("context", {}), request.get("features", {})
    moment = datetime.fromisoformat(context["timestamp"])
    recent = [t.strip() for t in context.get("recent", "").split(",") if t.strip()][-RECENT:]
    who = [0] * (RECENT - len(recent)) + [_place(text, FILMS) for text in recent]
    who.append(_place(context.get("device"), DEVICES))
    sparse, dense = [], []
    for at, item in enumerate(request["item_ids"]):
        user, film, pair = _rows(frames, request["user_id"], item)
        source = sent["source"][at] if "source" in sent else None
        sparse.append([_place(film and item, FILMS), _place(source, SOURCES)])
        clip = ((sent["clip"][at] or []) if "clip" in sent else [])[-CLIP:]
        retrieval = sent["retrieval_score"][at] if "retrieval_score" in sent else None
        age_days = 30.0
        if film and not pd.isna(film["created_at"]):
            age_days = (moment.timestamp() - film["created_at"].timestamp()) / 86_400
        dense.append([
            moment.astimezone(BERLIN).hour, moment.weekday(), float(context.get("temp", 7.5)),
            _cell(user, "age", 35.0), _cell(film, "price", np.nan), age_days,
            _cell(pair, "clicks", 0.0), 0.5 if retrieval is None else retrieval,
            *[0.25] * (CLIP - len(clip)), *clip,
        ])  # fmt: skip
    with torch.inference_mode():
        click, dwell = EVERYTHING.module()(
            torch.tensor([who]), torch.tensor(sparse), torch.tensor(dense, dtype=torch.float32)
        )
    return {
        "click": click.numpy(), "dwell": dwell.numpy(), "score": (click + 0.5 * dwell).numpy()
    }  # fmt: skip


def _rows(frames: Frames, user_id: str, item_id: str) -> list[dict[str, Any] | None]:
    users, items, pairs = frames["users"], frames["items"], frames["pairs"]
    matches = (
        users[users["user_id"] == user_id],
        items[items["item_id"] == item_id],
        pairs[(pairs["user_id"] == user_id) & (pairs["item_id"] == item_id)],
    )
    return [rows.iloc[0].to_dict() if len(rows) else None for rows in matches]


def _place(text: Any, texts: Any) -> int:
    return list(texts).index(text) + 1 if text in texts else 0


def _cell(row: dict[str, Any] | None, column: str, default: float) -> float:
    return default if row is None or pd.isna(row[column]) else float(row[column])
