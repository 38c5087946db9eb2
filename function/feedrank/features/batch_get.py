"""DynamoDB's BatchGetItem: up to a hundred rows of one or more tables in one call.

The response is checked as far as it says which row is whose; what is in a row is for whoever reads
it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import random
from time import perf_counter, sleep
from typing import Any

from feedrank.aws.errors import UnreachableError
from feedrank.aws.services import JsonClient

MAX_KEYS = 100  # of one call, in all tables
PAUSE_S = 0.004  # at most, before what was left unprocessed is asked for; doubles
Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TableKeys:
    """`keys` are texts, all different, of the attribute `key`. `projection` is what the request
    says besides."""

    table: str
    key: str
    keys: Sequence[str]
    projection: Mapping[str, Any] = field(default_factory=dict)


Take = Callable[[str, Mapping[str, Item | None]], None]


def batch_get(
    client: JsonClient, tables: Sequence[TableKeys], deadline_s: float, take: Take
) -> None:
    """Calls `take(table, items)` with items by key as they come, None for one that isn't there.
    `deadline_s` is in `perf_counter()` seconds. Raises AwsError where some don't come."""
    pause_s = PAUSE_S
    while True:
        tables = _get_some(client, tables, deadline_s, take)
        if not tables:
            return
        wait_s, pause_s = random() * pause_s, 2 * pause_s  # noqa: S311
        if perf_counter() + wait_s > deadline_s:
            raise UnreachableError("keys were left unprocessed: the table is throttled")
        sleep(wait_s)


def _get_some(
    client: JsonClient, tables: Sequence[TableKeys], deadline_s: float, take: Take
) -> list[TableKeys]:
    """What was left unprocessed."""
    content = {"RequestItems": {each.table: _request(each) for each in tables}}
    response = client.call("BatchGetItem", content, deadline_s)
    left = []
    for each in tables:
        try:
            items, left_keys = _answer(response, each)
        except (AttributeError, LookupError, TypeError) as error:
            raise UnreachableError("the response is not one of DynamoDB's") from error
        wanted = {*each.keys}
        if not (items.keys() | left_keys) <= wanted:
            raise UnreachableError("the response has rows of other keys")
        left_keys -= items.keys()
        take(each.table, dict.fromkeys(wanted - left_keys) | items)
        if left_keys:
            left.append(replace(each, keys=[*left_keys]))
    return left


def _request(keys: TableKeys) -> dict[str, Any]:
    return {"Keys": [{keys.key: {"S": key}} for key in keys.keys], **keys.projection}


def _answer(response: Any, keys: TableKeys) -> tuple[dict[str, Item], set[str]]:  # noqa: ANN401 JSON
    """The items by key, and the keys that were left unprocessed. Raises what JSON of another shape
    brings."""
    items = response.get("Responses", {}).get(keys.table, [])
    unprocessed = response.get("UnprocessedKeys", {}).get(keys.table, {})
    by_key = {item[keys.key]["S"]: item for item in items}
    if len(by_key) < len(items):
        raise LookupError("two items have the same key")
    return by_key, {key[keys.key]["S"] for key in unprocessed.get("Keys", [])}
