"""A small live store for tests: a spec, its snapshot, rows packed by `struct`, and a reader that
fails as a test says."""

import struct
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, nan
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from safetensors.numpy import save

from feedrank.features.live import LiveStore
from feedrank.features.live_rows import LiveLimits
from feedrank.features.packed_rows import RowLayout
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec_reader import parse_spec
from feedrank.features.stored_rows import PROBED, StoredRow

TOO_LONG_S = 60.0
NOW_S = 1_800_000_000.0
AS_OF_S = NOW_S - 86_400.0
USER_DEFAULT, ITEM_DEFAULTS, PAIR_DEFAULT = -1.0, (-2.0, -3.0), -4.0
SPEC = parse_spec(
    {
        "inputs": [
            {
                "name": "x",
                "features": [
                    {"name": "u", "source": "user", "default": USER_DEFAULT},
                    {"name": "i1", "source": "item", "default": ITEM_DEFAULTS[0]},
                    {"name": "made", "source": "item", "expression": "since(made_at)"},
                    {"name": "i2", "source": "item", "default": ITEM_DEFAULTS[1]},
                    {"name": "p", "source": "pair", "default": PAIR_DEFAULT},
                ],
            }
        ]
    }
)
USER, ITEM, PAIR = (RowLayout(SPEC, source) for source in ("user", "item", "pair"))
# What the bundle's snapshot has: users, items and pairs below ten.
SNAPSHOT_USERS = {id_: 100.0 + id_ for id_ in range(10)}
SNAPSHOT_ITEMS = {id_: (200.0 + id_, 300.0 + id_) for id_ in range(10)}
SNAPSHOT_PAIRS = {(user, item): 400.0 + item for user in range(10) for item in range(10)}


def snapshot(directory: Path, as_of_s: float = AS_OF_S) -> SnapshotStore:
    path = directory / "features.safetensors"
    path.write_bytes(
        save(
            {
                "users.ids": np.array([*SNAPSHOT_USERS], np.int64),
                "users.values": np.array([[*SNAPSHOT_USERS.values()]], np.float32).T.copy(),
                "items.ids": np.array([*SNAPSHOT_ITEMS], np.int64),
                "items.values": np.array([*SNAPSHOT_ITEMS.values()], np.float32),
                "items.times": np.full((len(SNAPSHOT_ITEMS), 1), AS_OF_S),
                "pairs.users": np.arange(10, dtype=np.int64),
                "pairs.starts": np.arange(0, 101, 10, dtype=np.int64),
                "pairs.items": np.array([item for _, item in SNAPSHOT_PAIRS], np.int64),
                "pairs.values": np.array([[*SNAPSHOT_PAIRS.values()]], np.float32).T.copy(),
            }
        )
    )
    return SnapshotStore(path, SPEC, as_of_s)


def text(data: bytes) -> str:
    """As JSON has it."""
    return b64encode(data).decode()


def user_row(value: float) -> bytes:
    return struct.pack("<If", USER.mark, value)


def item_row(first: float, second: float, made: float = nan) -> bytes:
    return struct.pack("<Idff", ITEM.mark, made, first, second)


def pairs(of_items: Mapping[int, float]) -> bytes:
    return struct.pack("<I", PAIR.mark) + b"".join(
        struct.pack("<qf", item, value) for item, value in sorted(of_items.items())
    )


@dataclass
class Shelf:
    """A `RowReader` over dictionaries. `before` is called first by each read, and may raise."""

    users: dict[int, StoredRow] = field(default_factory=dict)
    items: dict[int, StoredRow] = field(default_factory=dict)
    before: Callable[[], object] = lambda: None
    fails_for: set[int] = field(default_factory=set)  # items, of which nothing is said
    reads: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    connected: int = 0
    max_keys = 100

    def connect(self) -> None:
        self.connected += 1

    def read_user(self, user: int, deadline_s: float) -> StoredRow | None:
        if user != PROBED:
            self.reads.append(("user", (user,)))
            self.before()
        return self.users.get(user)

    def read_items(
        self, items: Sequence[int], deadline_s: float, found: dict[int, StoredRow | None]
    ) -> None:
        if [*items] == [PROBED]:
            return
        self.reads.append(("items", tuple(items)))
        self.before()
        found.update({item: self.items.get(item) for item in items if item not in self.fails_for})
        if self.fails_for & {*items}:
            raise OSError("throttled")


class Clock:
    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


def store(
    directory: Path,
    shelf: Any,
    clock: Callable[[], float] | None = None,
    as_of_s: float = AS_OF_S,
    *,
    reads_items: bool = True,
    budget_s: float = 20.0,
    cache_s: float = 60.0,
    cache_bytes: int = 1_000_000,
    max_age_s: float = inf,
) -> LiveStore:
    limits = LiveLimits(budget_s, cache_bytes, cache_s, max_age_s)
    return LiveStore(
        shelf,
        snapshot(directory, as_of_s),
        SPEC,
        limits,
        clock or Clock(),
        reads_items=reads_items,
    )


class Hanging:
    """`before` of a shelf whose reads end when the test does."""

    def __init__(self) -> None:
        self.over = Event()

    def __call__(self) -> None:
        self.over.wait(TOO_LONG_S)
