"""List prices, default quotas and assumptions, from prices.toml."""

import tomllib
from collections.abc import Mapping
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("prices.toml")
DATA: Mapping[str, Any] = tomllib.loads(PATH.read_text())
DAYS = 30  # of a month
HOURS = 24 * DAYS


def usd(name: str, amount: float = 1.0) -> float:
    """What an amount costs, in the unit that the price is `per`. Later tiers hold for what is
    above the earlier ones."""
    entry = DATA["price"][name]
    tiers = entry.get("tiers") or [{"usd": entry["usd"]}]
    ends = [0.0, *(tier.get("upto", inf) for tier in tiers)]
    parts = zip(tiers, pairwise(ends), strict=True)
    return float(
        sum(max(0.0, min(amount, end) - start) * tier["usd"] for tier, (start, end) in parts)
    )


def share(name: str) -> float:
    """A price that is a share of another."""
    return float(DATA["price"][name]["share"])


def quota(name: str) -> float:
    return float(DATA["quota"][name]["value"])


def assumption(name: str) -> float:
    return float(DATA["assumption"][name]["value"])


def unconfirmed() -> list[str]:
    """The names of prices and quotas that no other page was found to state."""
    entries = {**DATA["price"], **DATA["quota"]}
    return sorted(name for name, entry in entries.items() if not entry.get("confirmed", True))
