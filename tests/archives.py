"""Models of many kinds as archives of torch.export, and a way to change what is in one."""

import io
import json
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

ROWS, WIDTH = 8, 6
PROGRAM = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
SAMPLES = "data/sample_inputs/model.pt"


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.bag, self.out = nn.Embedding(9, 4), nn.EmbeddingBag(9, 4), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        ids = x.long().clamp(0, 8)
        both = torch.cat([self.one(ids[:, 0]), self.bag(ids)], -1)
        return torch.sigmoid(self.out(both)).squeeze(-1)


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
        self.widen, self.out = nn.Linear(WIDTH, 8), nn.Linear(8, 1)
        self.encoder = nn.TransformerEncoder(layer, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.out(self.encoder(self.widen(x).unsqueeze(0)))).reshape(-1)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.LSTM | nn.GRU]) -> None:
        super().__init__()
        self.memory, self.out = kind(1, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.out(self.memory(x.unsqueeze(-1))[0][:, -1])).squeeze(-1)


class Convolved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm1d(WIDTH), nn.Conv1d(1, 2, 3, padding="same")
        self.towers = nn.ModuleDict({"a-b c": nn.Linear(12, 1)})

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.gelu(self.conv(self.norm(x).unsqueeze(1)), approximate="tanh")
        return torch.sigmoid(self.towers["a-b c"](hidden.flatten(1))).squeeze(-1)


class Shaped(nn.Module):
    """Arithmetic over sizes, constants, texts for operators, a branch on the number of rows."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        product = torch.einsum("bi,cj->b", x, x) / rows + (rows // 2) + rows % 3 + rows**2
        product = product + torch.div(x, 2, rounding_mode="floor").sum(-1)
        product = product + torch.full((rows,), float("-inf")).clamp(min=-1.0)
        lifted = torch.tensor([1.0, 2.0]).sum() + functional.pad(x, (1, 1), mode="reflect").sum(-1)
        flags = (x[:, 0] > 0) & (x[:, 1] > 0) | (x[:, 2] > 0)
        doubled = torch.cat([x, x]).reshape(2, -1, WIDTH).mean(0).sum(-1)
        if rows > 3:
            product = product * 2
        return torch.sigmoid(product + lifted + flags + doubled)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            scale = x.abs().max()
        branch = torch.cond(
            scale > 0,
            lambda x: torch.sigmoid(self.out(x)),
            lambda x: torch.sigmoid(-x[:, :1]),
            (x,),
        )
        return branch.squeeze(-1)


class Unbacked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        count = x[0, 0].long().abs().clamp(0, 3).item()
        torch._check(count >= 0)
        return torch.sigmoid(x.sum(-1) + count + torch.nonzero(x[:, 0] > 0).shape[0])


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self.out(x)
        return torch.sigmoid(logits.float()).squeeze(-1)


class Mapped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(torch.vmap(lambda row: (row * row).sum())(x) - x.shape[0] ** 0.5)


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"scores": torch.sigmoid(x.sum(-1))}


class Halves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x.view(-1, 2, WIDTH).sum((1, 2)))


KINDS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "embedding": lambda: (Embedded(), Dim.AUTO),
    "attention": lambda: (Attentive(), Dim.AUTO),
    "lstm": lambda: (Recurrent(nn.LSTM), Dim.AUTO),
    "gru": lambda: (Recurrent(nn.GRU), Dim.AUTO),
    "convolution": lambda: (Convolved(), Dim.AUTO),
    "shapes": lambda: (Shaped(), Dim.AUTO),
    "bounds": lambda: (Named(), Dim("rows", min=4, max=100)),
    "branches": lambda: (Branching(), Dim.AUTO),
    "autocast": lambda: (Autocast(), Dim.AUTO),
    "vmap": lambda: (Mapped(), Dim.AUTO),
    "unbacked": lambda: (Unbacked(), Dim.AUTO),
    "halves": lambda: (Halves(), 2 * Dim("half", min=2, max=600)),
}


def write(kind: str, path: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        module, rows = KINDS[kind]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what exporting does to an LSTM
        exported = torch.export.export(
            module.eval(), (torch.ones(ROWS, WIDTH),), dynamic_shapes=({0: rows},)
        )
    torch.export.save(exported, path)
    return path


def read(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def packed(records: dict[str, bytes]) -> io.BytesIO:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in records.items():
            archive.writestr(f"archive/{name}", content)
    written.seek(0)
    return written


def texts(data: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of every text."""
    if isinstance(data, str):
        yield place
    children: Iterator[tuple[str | int, Any]] = iter(())
    if isinstance(data, dict):
        children = iter(data.items())
    elif isinstance(data, list):
        children = enumerate(data)
    for key, value in children:
        yield from texts(value, (*place, key))


def replaced(record: bytes, place: tuple[str | int, ...], text: str) -> bytes:
    data = json.loads(record)
    at = data
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = text
    return json.dumps(data).encode()


def renamed(record: bytes, place: tuple[str | int, ...], name: str) -> bytes:
    """The key at this place under another name."""
    data = json.loads(record)
    at = data
    for key in place[:-1]:
        at = at[key]
    at[name] = at.pop(place[-1])
    return json.dumps(data).encode()


def keys(data: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of every key of every object."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield (*place, key)
            yield from keys(value, (*place, key))
    elif isinstance(data, list):
        for at, value in enumerate(data):
            yield from keys(value, (*place, at))
