"""The README's table of stores of features: what each adds to a request, and costs."""

from collections.abc import Sequence
from dataclasses import dataclass

from feedops.plan.prices import usd

BEGIN, END = "<!-- stores: made by `feedrank bench --readme` -->", "<!-- stores: end -->"
ITEMS = 100  # of a request
HIT_RATES = (0.0, 0.8, 0.95)  # of items, in the container's cache
READ_UNITS = 0.5  # of a row up to 4 KB, eventually consistent


@dataclass(frozen=True, slots=True)
class Store:
    """`added` is p50, p99 and CPU in ms beyond the snapshot's, with no item and with all items in
    the cache. The user's row is always read."""

    uri: str
    price: str  # in prices.toml, of a million units
    units: float  # of a row
    items: int  # that are read: none, or a request's
    rows: str
    freshness: str
    needs: str
    added: tuple[tuple[float, float, float], ...]


# On 2 cores of an AMD EPYC, Python 3.11, 2026-11-25: medians of 3 x 600 requests of 100 items
# through the handler. The server, a process of the same machine, has a fixed response (DynamoDB,
# Feast) or is redis-server (Valkey); neither TLS nor a network is in it.
STORES = (
    Store("snapshot", "", 0, 0, "what a bundle holds", "the bundle", "nothing", ((0, 0, 0),)),
    Store(
        "users:dynamodb://", "dynamodb_reads", READ_UNITS, 0,
        "any users, a bundle's items", "users: the table; items: the bundle", "a table",
        ((0.51, 0.62, 0.39),),
    ),
    Store(
        "dynamodb://", "dynamodb_reads", READ_UNITS, ITEMS,
        "any", "the table; items `FEATURES_CACHE_S` less", "a table",
        ((1.07, 1.64, 0.84), (0.55, 0.62, 0.42)),
    ),
    Store(
        "feast://", "dynamodb_reads", READ_UNITS, ITEMS,
        "any", "Feast's last write; items `FEATURES_CACHE_S` less",
        "Feast's tables, a view of each",
        ((1.33, 2.31, 1.09), (0.57, 1.17, 0.45)),
    ),
    Store(
        "valkey://", "valkey_serverless", 1.0, ITEMS,
        "what its memory holds", "the server; items `FEATURES_CACHE_S` less", "a server in the VPC",
        ((0.59, 0.75, 0.56), (0.26, 0.33, 0.25)),
    ),
)  # fmt: skip


def usd_of_a_million_requests(store: Store, hit_rate: float) -> float:
    """Reads alone, at list prices: the user's row, and the rows of items that aren't cached."""
    if not store.price:
        return 0.0
    rows = 1 + store.items * (1.0 - hit_rate)
    return usd(store.price, rows * store.units)


def block() -> str:
    """With the marks around it."""
    rates = " / ".join(f"{100 * rate:.0f}" for rate in HIT_RATES)
    head = (
        "| `FEATURES_URI` | users and items | added p50, p99, CPU, ms | the same from the cache | "
        f"USD a million requests, {rates} % of items cached | as fresh as | needs |"
    )
    lines = [head, "| --- " * 7 + "|", *(_line(store) for store in STORES)]
    return "\n".join([BEGIN, "", *lines, "", END])


def _line(store: Store) -> str:
    cold, cached = _times(store.added[0]), _times(store.added[-1])
    costs = [usd_of_a_million_requests(store, rate) for rate in HIT_RATES]
    cells = [
        f"`{store.uri}`",
        store.rows,
        cold,
        cached,
        _costs(costs),
        store.freshness,
        store.needs,
    ]
    return f"| {' | '.join(cells)} |"


def _times(times: Sequence[float]) -> str:
    return ", ".join(f"{each:.2f}" if each else "0" for each in times)


def _costs(costs: Sequence[float]) -> str:
    if len({*costs}) == 1:
        return f"{costs[0]:.2f}" if costs[0] else "0"
    return " / ".join(f"{cost:.2f}" for cost in costs)
