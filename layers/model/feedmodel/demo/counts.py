"""What a feed's events add up to, for one user or one item: sums and sets, whatever their order.
Imports nothing heavy, so that a stream's Lambda function can use it."""

import json
from dataclasses import asdict, dataclass
from typing import Literal, Self

from feedrank.features.expressions import DAY_S

Kind = Literal["created", "impression", "click"]


@dataclass(frozen=True, slots=True)
class Event:
    """`time_s` is the time of the interaction, in Unix seconds: when the item was shown, of a click
    on it as well; of `created`, which has no user, when the item was."""

    id: str
    kind: Kind
    item: int
    time_s: float
    user: int = 0
    dwell_ms: int = 0  # of a click


@dataclass(slots=True)
class Counts:
    interactions: int = 0
    clicks: int = 0
    dwell_ms: int = 0

    def add(self, event: Event) -> None:
        self.interactions += event.kind == "impression"
        self.clicks += event.kind == "click"
        self.dwell_ms += event.dwell_ms

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        return cls(**json.loads(text))


@dataclass(slots=True)
class UserCounts(Counts):
    first_day: int = 0  # UTC, since 1970
    day_bits: int = 0  # bit n: active on the day first_day + n

    @property
    def days(self) -> int:
        return self.day_bits.bit_count()

    def add(self, event: Event) -> None:
        Counts.add(self, event)
        if event.kind == "impression":
            self._mark(int(event.time_s // DAY_S))

    def _mark(self, day: int) -> None:
        if not self.day_bits:
            self.first_day = day
        earlier = max(0, self.first_day - day)
        self.first_day -= earlier
        self.day_bits = self.day_bits << earlier | 1 << (day - self.first_day)


@dataclass(slots=True)
class ItemCounts(Counts):
    created_s: float | None = None  # until `created` arrives, which may be late

    def add(self, event: Event) -> None:
        Counts.add(self, event)
        if event.kind == "created":
            known_s = event.time_s if self.created_s is None else self.created_s
            self.created_s = min(known_s, event.time_s)
