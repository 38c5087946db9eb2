"""Ranking models as they are known, in ten lines each, and the tables of a film shop for them.

Weights are random: what is tested is that serving gives what torch gives.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import onnx
import pandas as pd
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

USERS, ITEMS, LENGTH, WIDTH = 40, 60, 10, 8
COUNTRIES = ("DE", "FR", "JP", "BR")
GENRES = ("action", "drama", "comedy", "documentary")
SEED = 7

Spec = dict[str, Any]
Frames = Mapping[str, pd.DataFrame]
COUNTRY = {"name": "country", "source": "user", "vocabulary": "country"}
HISTORY = {"name": "history", "source": "user", "size": LENGTH, "vocabulary": "items"}
ITEM = {"name": "item_id", "source": "item", "vocabulary": "items"}
GENRE = {"name": "genres", "source": "item", "size": 2, "vocabulary": "genre"}
AGE = {"name": "age", "source": "user", "default": 35.0}
PRICE = {"name": "price", "source": "item", "default": 9.5}
EMBEDDING = {"name": "embedding", "source": "item", "size": WIDTH}
CLICKS = {"name": "clicks", "source": "pair"}
HOUR = {"name": "hour", "source": "context", "expression": "hour"}
DAYS = {"name": "age_days", "source": "item", "expression": "since(created_at)", "default": 30.0}
RETRIEVAL = {"name": "retrieval_score", "source": "candidate", "default": 0.5}
DENSE = [AGE, PRICE, HOUR, CLICKS, DAYS, RETRIEVAL]
COUNTS = {"country": len(COUNTRIES) + 1, "genre": len(GENRES) + 1, "items": ITEMS + 1}
VOCABULARIES: Mapping[str, list[Any]] = {
    "country": list(COUNTRIES), "genre": list(GENRES), "items": list(range(ITEMS))
}  # fmt: skip


def tables(*, text_ids: bool = False) -> dict[str, pd.DataFrame]:
    """Users, items and pairs; some cells are empty, histories of 0 to 15 items."""
    random = np.random.default_rng(SEED)
    users = pd.DataFrame(
        {
            "user_id": range(USERS),
            "country": [*random.choice(COUNTRIES, USERS - 1), "XX"],
            "age": random.integers(18, 80, USERS).astype(float),
            "history": [random.integers(0, ITEMS, n % 16).tolist() for n in range(USERS)],
        }
    )
    users.loc[3, "age"] = np.nan
    items = pd.DataFrame(
        {
            "item_id": range(ITEMS),
            "genres": [list(random.choice(GENRES, n % 4, replace=False)) for n in range(ITEMS)],
            "price": random.gamma(3, 4, ITEMS),
            "embedding": list(random.normal(size=(ITEMS, WIDTH)).astype(np.float32)),
            "created_at": pd.Timestamp("2026-01-01", tz="UTC")
            + pd.to_timedelta(random.integers(0, 10**7, ITEMS), unit="s"),
        }
    )
    items.loc[5, ["price", "created_at"]] = [np.nan, pd.NaT]
    user_ids = range(USERS)
    pairs = pd.DataFrame(
        {"user_id": user_ids, "item_id": user_ids, "clicks": random.integers(1, 9, USERS)}
    )
    if text_ids:
        users["history"] = [[film(item) for item in row] for row in users["history"]]
        for table in (users, pairs):
            table["user_id"] = table["user_id"].map("user-{}".format)
        for table in (items, pairs):
            table["item_id"] = table["item_id"].map(film)
    return {"users": users, "items": items, "pairs": pairs}


def film(item: int) -> str:
    return f"film {item} é"


def _input(name: str, features: list[Spec], **more: Any) -> Spec:
    return {"name": name, **more, "features": features}


def _spec(*inputs: Spec, **more: Any) -> Spec:
    used = {f["vocabulary"] for i in inputs for f in i["features"] if "vocabulary" in f}
    vocabularies = {"vocabularies": {name: VOCABULARIES[name] for name in sorted(used)}}
    return {"inputs": list(inputs), **(vocabularies if used else {}), **more}


SPARSE = _input("sparse", [COUNTRY, ITEM], type="int64")
SIZES = (COUNTS["country"], COUNTS["items"])


def _mlp(width: int, out: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, out))


class Embedded(nn.Module):
    """(rows, fields) whole numbers to (rows, fields, width)."""

    def __init__(self, sizes: tuple[int, ...], width: int = WIDTH) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in sizes)

    def forward(self, sparse: Tensor) -> Tensor:
        return torch.stack([t(sparse[:, n]) for n, t in enumerate(self.tables)], dim=1)


def scaled(dense: Tensor) -> Tensor:
    return torch.log1p(dense.abs()) / 4


class WideDeep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.embedded = Embedded(SIZES, 1), Embedded(SIZES)
        self.deep = _mlp(len(DENSE) + 2 * WIDTH)

    def forward(self, sparse: Tensor, dense: Tensor) -> Tensor:
        deep = torch.cat([scaled(dense), self.embedded(sparse).flatten(1)], dim=1)
        return torch.sigmoid(self.wide(sparse).sum((1, 2)) + self.deep(deep).squeeze(1))


class DeepFM(WideDeep):
    def forward(self, sparse: Tensor, dense: Tensor) -> Tensor:
        fields = self.embedded(sparse)
        fm = 0.5 * (fields.sum(1) ** 2 - (fields**2).sum(1)).sum(1)
        deep = self.deep(torch.cat([scaled(dense), fields.flatten(1)], dim=1)).squeeze(1)
        return torch.sigmoid(self.wide(sparse).sum((1, 2)) + fm / WIDTH + deep)


class DCNv2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width = len(DENSE) + 2 * WIDTH
        self.embedded = Embedded(SIZES)
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.last = nn.Linear(width, 1)

    def forward(self, sparse: Tensor, dense: Tensor) -> Tensor:
        first = x = torch.cat([scaled(dense), self.embedded(sparse).flatten(1)], dim=1)
        for layer in self.cross:
            x = first * layer(x) + x
        return torch.sigmoid(self.last(x)).squeeze(1)


class DLRM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedded, self.bottom = Embedded(SIZES), _mlp(len(DENSE), WIDTH)
        self.top = _mlp(WIDTH + 3)

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        bottom = self.bottom(scaled(dense))
        fields = torch.cat([bottom.unsqueeze(1), self.embedded(sparse)], dim=1)
        dots = fields @ fields.transpose(1, 2)
        pairs = torch.stack([dots[:, 0, 1], dots[:, 0, 2], dots[:, 1, 2]], dim=1)
        return torch.sigmoid(self.top(torch.cat([bottom, pairs], dim=1))).squeeze(1)


class DIN(nn.Module):
    """Attention of each candidate over the user's padded history; an empty one counts nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(COUNTS["items"], WIDTH, padding_idx=0)
        self.attention, self.top = _mlp(3 * WIDTH), _mlp(2 * WIDTH)

    def forward(self, history: Tensor, item: Tensor) -> Tensor:
        past, target = self.items(history), self.items(item)  # (1, length, w), (n, w)
        past = past.expand(target.shape[0], -1, -1)
        wide = target.unsqueeze(1).expand_as(past)
        weight = self.attention(torch.cat([past, wide, past * wide], dim=2)).squeeze(2)
        interest = ((weight * (history != 0)).unsqueeze(2) * past).sum(1)
        return torch.sigmoid(self.top(torch.cat([interest, target], dim=1))).squeeze(1)


class SASRec(nn.Module):
    """Self-attention over a history that is one row a request, without the row."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(COUNTS["items"], WIDTH)
        self.places = nn.Parameter(torch.randn(LENGTH, WIDTH))
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, 0.0, batch_first=True)

    def forward(self, history: Tensor, item: Tensor) -> Tensor:
        encoded = self.layer((self.items(history) + self.places).unsqueeze(0))[0, -1]
        return torch.sigmoid(self.items(item) @ encoded / WIDTH)


class GRU4Rec(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.items, self.gru = nn.Embedding(COUNTS["items"], WIDTH), nn.GRU(WIDTH, WIDTH)

    def forward(self, history: Tensor, item: Tensor) -> Tensor:
        _, state = self.gru(self.items(history).transpose(0, 1))
        return torch.sigmoid((self.items(item) * state[0]).sum(1))


class MMoE(nn.Module):
    """Three tasks over shared experts, each with a gate of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(_mlp(len(DENSE), WIDTH) for _ in range(3))
        self.gates = nn.ModuleList(nn.Linear(len(DENSE), 3) for _ in range(3))
        self.towers = nn.ModuleList(_mlp(WIDTH) for _ in range(3))

    def forward(self, dense: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dense = scaled(dense)
        experts = torch.stack([expert(dense) for expert in self.experts], dim=1)
        heads = [
            tower((gate(dense).softmax(1).unsqueeze(2) * experts).sum(1)).squeeze(1)
            for gate, tower in zip(self.gates, self.towers, strict=True)
        ]
        return torch.sigmoid(heads[0]), torch.sigmoid(heads[1]), torch.exp(heads[2])


class Listwise(nn.Module):
    """Each candidate's score depends on the others of the request."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(len(DENSE) + WIDTH, WIDTH)
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, 0.0, batch_first=True)
        self.last = nn.Linear(WIDTH, 1)

    def forward(self, dense: Tensor) -> Tensor:
        x = self.first(torch.cat([scaled(dense[:, :-WIDTH]), dense[:, -WIDTH:]], dim=1))
        return torch.sigmoid(self.last(self.layer(x.unsqueeze(0))[0])).squeeze(1)


class TwoTower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = _mlp(2, WIDTH), _mlp(1 + WIDTH, WIDTH)

    def forward(self, user_features: Tensor, item_features: Tensor) -> Tensor:
        dots = self.item(item_features) @ self.user(scaled(user_features)).squeeze(0)
        return torch.sigmoid(dots / WIDTH)


class Regression(nn.Module):
    """Expected minutes; there is no upper end."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = _mlp(len(DENSE))

    def forward(self, dense: Tensor) -> Tensor:
        return 40 * self.mlp(scaled(dense)).squeeze(1)


class LearnedMissing(nn.Module):
    """What is missing comes as NaN and has weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.instead, self.mlp = nn.Parameter(torch.randn(2)), _mlp(2)

    def forward(self, dense: Tensor) -> Tensor:
        filled = torch.where(torch.isnan(dense), self.instead, scaled(dense))
        return torch.sigmoid(self.mlp(filled)).squeeze(1)


class Heads(nn.Module):
    """A dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = _mlp(len(DENSE), 2)

    def forward(self, dense: Tensor) -> dict[str, Tensor]:
        heads = torch.sigmoid(self.mlp(scaled(dense)))
        return {"click": heads[:, 0], "like": heads[:, 1]}


class LambdaMart(nn.Module):
    """Boosted trees as LightGBM's are, which are no torch: MLflow gets them as ONNX. Here they are
    walked in plain Python. A node is (feature, threshold, where NaN goes), a leaf its value."""

    DEPTH, TREES = 3, 12

    def __init__(self) -> None:
        super().__init__()
        random = np.random.default_rng(SEED)
        scales = [80.0, 25.0, 24.0, 9.0, 300.0, 1.0]
        self.nodes: dict[tuple[int, int], tuple[int, float, bool]] = {}
        self.leaves: dict[tuple[int, int], float] = {}
        for tree in range(self.TREES):
            for node in range(2**self.DEPTH - 1):
                feature = int(random.integers(len(scales)))
                threshold = float(np.float32(random.random() * scales[feature]))
                self.nodes[tree, node] = feature, threshold, bool(random.integers(2))
            for leaf in range(2**self.DEPTH - 1, 2 ** (self.DEPTH + 1) - 1):
                self.leaves[tree, leaf] = float(np.float32(random.normal()))

    def forward(self, dense: Tensor) -> Tensor:
        rows = dense.numpy().astype(np.float32).tolist()
        return torch.tensor([sum(self._leaf(t, row) for t in range(self.TREES)) for row in rows])

    def _leaf(self, tree: int, row: list[float]) -> float:
        node = 0
        while (tree, node) in self.nodes:
            feature, threshold, nan_goes_left = self.nodes[tree, node]
            value = row[feature]
            left = nan_goes_left if np.isnan(value) else value <= threshold
            node = 2 * node + (1 if left else 2)
        return self.leaves[tree, node]

    def to_onnx(self) -> onnx.ModelProto:
        """As onnxmltools converts LightGBM's: one TreeEnsembleRegressor."""
        every = sorted({**self.nodes, **self.leaves})
        splits = [self.nodes.get(each, (0, 0.0, False)) for each in every]
        node = helper.make_node(
            "TreeEnsembleRegressor", ["dense"], ["variable"], domain="ai.onnx.ml", n_targets=1,
            nodes_treeids=[tree for tree, _ in every], nodes_nodeids=[at for _, at in every],
            nodes_featureids=[feature for feature, _, _ in splits],
            nodes_values=[threshold for _, threshold, _ in splits],
            nodes_missing_value_tracks_true=[int(left) for _, _, left in splits],
            nodes_modes=["BRANCH_LEQ" if each in self.nodes else "LEAF" for each in every],
            nodes_truenodeids=[2 * n + 1 if (t, n) in self.nodes else 0 for t, n in every],
            nodes_falsenodeids=[2 * n + 2 if (t, n) in self.nodes else 0 for t, n in every],
            target_treeids=[tree for tree, _ in self.leaves],
            target_nodeids=[leaf for _, leaf in self.leaves],
            target_ids=[0] * len(self.leaves), target_weights=list(self.leaves.values()),
        )  # fmt: skip
        dense = helper.make_tensor_value_info("dense", TensorProto.FLOAT, [None, len(DENSE)])
        scores = helper.make_tensor_value_info("variable", TensorProto.FLOAT, [None, 1])
        opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3)]
        graph = helper.make_graph([node], "trees", [dense], [scores])
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


class Ranked(nn.Module):
    """Inputs of one and of three dimensions: (rows,) ids, (rows, length, 1) of a history."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(COUNTS["items"], WIDTH)
        self.mlp = _mlp(WIDTH + 2)

    def forward(self, item: Tensor, genres: Tensor) -> Tensor:
        wide = torch.cat([self.items(item), genres.squeeze(2).to(torch.float32)], dim=1)
        return torch.sigmoid(self.mlp(wide)).squeeze(1)


@dataclass(frozen=True)
class Known:
    """A model with its spec. `shapes` are of those inputs that it takes as no (rows, width),
    `precompute` of the item alone, computed when the model is published."""

    make: Callable[[], nn.Module]
    spec: Spec
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    text_ids: bool = False
    precompute: tuple[str, ...] = ()

    def module(self) -> nn.Module:
        torch.manual_seed(SEED)
        return self.make().eval()


DENSE_INPUT = _input("dense", DENSE)
TARGET = _input("item", [ITEM], type="int64")
WEIGHTS = {"click": 1.0, "like": 2.0, "dwell": 0.01}  # in the order of the model's outputs
HEADS = {"outputs": [{"name": n, "weight": w} for n, w in WEIGHTS.items()], "range": None}
ZOO: Mapping[str, Known] = {
    "wide & deep": Known(WideDeep, _spec(SPARSE, DENSE_INPUT)),
    "DeepFM": Known(DeepFM, _spec(SPARSE, DENSE_INPUT)),
    "DCN-v2": Known(DCNv2, _spec(SPARSE, DENSE_INPUT)),
    "DLRM": Known(DLRM, _spec(DENSE_INPUT, SPARSE)),
    "DIN": Known(
        DIN,
        _spec(_input("history", [HISTORY], type="int64", per="request"), TARGET),
        shapes={"item": (-1,)},
    ),
    "SASRec": Known(
        SASRec,
        _spec(_input("history", [HISTORY], type="int64", per="request"), TARGET),
        shapes={"history": (LENGTH,), "item": (-1,)},
    ),
    "GRU4Rec": Known(
        GRU4Rec,
        _spec(_input("history", [HISTORY], type="int64", per="request"), TARGET),
        shapes={"item": (-1,)},
    ),
    "MMoE": Known(MMoE, _spec(DENSE_INPUT, **HEADS)),
    "MMoE by an expression": Known(
        MMoE,
        _spec(DENSE_INPUT, outputs=["click", "like", "dwell"],
              score="click * (1 + 2 * like) + log1p(dwell)", range=None),
    ),
    "listwise transformer": Known(Listwise, _spec(_input("dense", [*DENSE, EMBEDDING]))),
    "two-tower": Known(
        TwoTower,
        _spec(_input("user_features", [AGE, HOUR], per="request"),
              _input("item_features", [PRICE, EMBEDDING])),
    ),
    "two-tower, item vectors ahead": Known(
        TwoTower,
        _spec(_input("user_features", [AGE, HOUR], per="request"),
              _input("item_features", [PRICE, EMBEDDING])),
        precompute=("item_features",),
    ),
    "DIN, item vectors ahead": Known(
        DIN,
        _spec(_input("history", [HISTORY], type="int64", per="request"), TARGET),
        shapes={"item": (-1,)},
        precompute=("item",),
    ),
    "regression": Known(Regression, _spec(DENSE_INPUT, range=None)),
    "learned missing values": Known(
        LearnedMissing, _spec(_input("dense", [AGE | {"default": None}, PRICE | {"default": None}]))
    ),
    "LambdaMART": Known(
        LambdaMart,
        _spec(_input("dense", [f | {"default": None} if f["source"] in {"user", "item"} else f
                               for f in DENSE]), range=None),
    ),
    "a dict of heads": Known(Heads, _spec(DENSE_INPUT, outputs={"like": 0.5, "click": 0.5})),
    "one and three dimensions": Known(
        Ranked,
        _spec(TARGET, _input("genres", [GENRE], type="int64")),
        shapes={"item": (-1,), "genres": (-1, 2, 1)},
    ),
    "text ids": Known(
        DIN,
        _spec(_input("history", [HISTORY], type="int64", per="request"), TARGET, ids="text")
        | {"vocabularies": {"items": [film(item) for item in range(ITEMS)]}},
        shapes={"item": (-1,)},
        text_ids=True,
    ),
}  # fmt: skip


class Impression(NamedTuple):
    """What a request says, in plain Python."""

    user: Any
    items: list[Any]
    context: dict[str, str]
    time_s: float
    candidates: dict[str, list[float]]


def inputs(known: Known, frames: Frames, impression: Impression) -> list[Tensor]:
    """The model's inputs as a team would lay them out, cell by cell, with none of the code that
    publishes or serves."""
    tensors = []
    for entry in known.spec["inputs"]:
        per_item = entry.get("per", "item") == "item"
        items = enumerate(impression.items) if per_item else [(0, None)]
        rows = [
            [
                number
                for f in entry["features"]
                for number in _numbers(known, frames, impression, f, at)
            ]
            for at in items
        ]
        kind = torch.int64 if entry.get("type") == "int64" else torch.float32
        tensor = torch.tensor(rows, dtype=torch.float64).to(kind)
        shape = known.shapes.get(entry["name"])
        tensors.append(tensor.reshape(shape) if shape else tensor)
    return tensors


def truth(known: Known, frames: Frames, impression: Impression) -> dict[str, Any]:
    """What the model makes of them: its outputs and the score."""
    with torch.inference_mode():
        result = known.module()(*inputs(known, frames, impression))
    if isinstance(result, Tensor):
        return {"score": result.numpy()}
    weights = output_weights(known.spec)
    if isinstance(result, tuple):
        result = dict(zip(weights, result, strict=True))
    outputs = {name: tensor.numpy() for name, tensor in result.items()}
    if "score" not in known.spec:
        score = sum(weight * outputs[name] for name, weight in weights.items())
    else:  # as the expression says
        score = outputs["click"] * (1 + 2 * outputs["like"]) + np.log1p(outputs["dwell"])
    return {"score": score, **outputs}


def output_weights(spec: Spec) -> dict[str, float]:
    """By name, in the order of the spec; 1 where there is an expression instead."""
    outputs = spec["outputs"]
    if isinstance(outputs, dict):
        return outputs
    if "score" in spec:
        return dict.fromkeys(outputs, 1.0)
    return {each["name"]: each["weight"] for each in outputs}


def _numbers(
    known: Known,
    frames: Mapping[str, pd.DataFrame],
    impression: Impression,
    feature: Spec,
    at: tuple[int, Any],
) -> list[float]:
    """A feature of the item at a position of the request."""
    position, item = at
    default = np.nan if feature.get("default", 0.0) is None else feature.get("default", 0.0)
    source, name = feature["source"], feature["name"]
    if source == "candidate":
        return [impression.candidates[name][position] if name in impression.candidates else default]
    if source == "context":  # the hour is all that the models here read of it
        return [impression.time_s // 3_600 % 24]
    row = frames[f"{source}s"]
    if source in {"user", "pair"}:
        row = row[row["user_id"] == impression.user]
    if source in {"item", "pair"}:
        row = row[row["item_id"] == item]
    column = "created_at" if feature.get("expression") else name
    cell = row[column].iloc[0] if len(row) else None
    if size := feature.get("size", 0):
        values = [_number(known, feature, value) for value in ([] if cell is None else cell)]
        return [default] * (size - len(values[-size:])) + values[-size:]
    if "vocabulary" in feature:
        return [_number(known, feature, cell)]
    if cell is None or pd.isna(cell):
        return [default]
    return [(impression.time_s - cell.timestamp()) / 86_400 if feature.get("expression") else cell]


def _number(known: Known, feature: Spec, value: Any) -> float:
    if "vocabulary" not in feature:
        return float(value)
    texts = known.spec["vocabularies"][feature["vocabulary"]]
    return texts.index(value) + 1 if value in texts else 0
