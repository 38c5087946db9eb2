"""Tests that a model is the published one: it scores its golden requests as torch did.

A model file is a program, which may never end or may allocate without limit. So the self-test has a
limit of time and one of memory.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from feedrank.bundle import documents
from feedrank.bundle.documents import Json
from feedrank.bundle.layout import GOLDEN
from feedrank.domain import MAX_ID, MAX_ID_LENGTH, MAX_ITEMS, FloatArray, Query
from feedrank.errors import (
    BundleError,
    DeadlineExceededError,
    InvalidRequestError,
    ScoringError,
)
from feedrank.features.expressions import FLOAT32_MAX
from feedrank.features.spec import PROBABILITY
from feedrank.settings import function_memory_mb

GOLDEN_TOLERANCE = 1e-5
MOST_GOLDEN_CASES = 100
LATEST_TIME_S = 253_402_300_799.0  # the end of the year 9999
LONGEST_S = 5.0  # for all golden requests: a hundred items take a millisecond, Lambda's init ten s
MOST_BYTES = 1 << 30  # beyond what the process has, and a few copies of the model
COPIES = 4  # of a model's weights: read, parsed, rearranged for the processor, and one to spare
BYTES_PER_MB = 1_000_000
LONGEST_CAUSE = 400  # characters


def check_golden(
    raw: bytes,
    score: Callable[[Query, float], FloatArray],
    range_: tuple[float, float] | None = PROBABILITY,
) -> None:
    """`score` takes a query and a deadline. Raises BundleError if a golden request's scores are not
    torch's."""
    deadline_s = perf_counter() + LONGEST_S
    for case in documents.read(raw, GOLDEN, _GOLDEN)["cases"]:
        try:
            scores = score(_query(case), deadline_s)
        except DeadlineExceededError as error:
            reason = f"the model runs for more than {LONGEST_S:g} s"
            raise BundleError(f"{GOLDEN}: {reason}") from error
        except ScoringError as error:
            raise BundleError(f"{GOLDEN}: {error}: {_cause(error)}") from error
        except InvalidRequestError as error:
            raise BundleError(f"{GOLDEN}: {error}") from error
        _compare(scores, case, range_)


@contextmanager
def bounded_memory(model_bytes: int) -> Iterator[None]:
    """Limits how much more memory the process may allocate, by Linux's own limit, which holds for
    all threads: an allocation beyond it fails. Elsewhere there is no such limit."""
    used = _data_bytes()
    if used is None:
        yield
        return
    import resource

    soft, hard = _limits_at_start()
    function_mb = function_memory_mb()
    more = min(MOST_BYTES, function_mb * BYTES_PER_MB or MOST_BYTES) + COPIES * model_bytes
    limit = used + more if soft == resource.RLIM_INFINITY else min(used + more, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@cache
def _limits_at_start() -> tuple[int, int]:
    """Read once, since the limit of another load may be in place."""
    import resource

    return resource.getrlimit(resource.RLIMIT_DATA)


def _data_bytes() -> int | None:
    """What Linux compares with the limit: the process's private writable memory."""
    try:
        status = Path("/proc/self/status").read_text("ascii", "replace")
    except OSError:
        return None
    _, label, rest = status.partition("VmData:")
    return 1_024 * int(rest.split(maxsplit=1)[0]) if label else None


def _query(case: dict[str, Any]) -> Query:
    if len(set(map(type, (case["user_id"], *case["item_ids"])))) > 1:
        raise BundleError(f"{GOLDEN}: ids are numbers, or texts, and not both")
    return Query(
        user_id=case["user_id"],
        item_ids=case["item_ids"],
        context=case["context"],
        time_s=case["time_s"],
        candidates=case.get("features", {}),
    )


def _compare(
    scores: FloatArray, case: Mapping[str, Any], range_: tuple[float, float] | None
) -> None:
    """What a score may be off is in the case, where a score has no range: publishing knows it."""
    expected = np.array(case["scores"], np.float32)
    if scores.shape != expected.shape:
        raise BundleError(f"{GOLDEN}: {len(expected)} scores for {len(scores)} items")
    low, high = range_ or (-FLOAT32_MAX, FLOAT32_MAX)
    if not (scores.min() >= low and scores.max() <= high):  # NaN is not
        raise BundleError(f"{GOLDEN}: the model gives a score outside [{low:g}, {high:g}]")
    allowed = np.array(case.get("allowed") or GOLDEN_TOLERANCE * np.maximum(1.0, np.abs(expected)))
    apart = np.abs(scores - expected)
    if allowed.shape != expected.shape or not (apart <= allowed).all():
        raise BundleError(f"{GOLDEN}: scores are {apart.max():.1e} from the expected ones")


def _cause(error: ScoringError) -> str:
    return str(error.__cause__ or error)[:LONGEST_CAUSE]


def _id(value: Json, place: str) -> int | str:
    rule = _text_id if isinstance(value, str) else _number_id
    id_: int | str = rule(value, place)
    return id_


def _cell(value: Json, place: str) -> Json:
    """A number, a text, or a list of them."""
    if isinstance(value, list):
        return documents.many(_cell)(value, place)
    return (documents.text() if isinstance(value, str) else _number)(value, place)


def _number(value: Json, place: str) -> int | float:
    number: int | float = documents.number()(value, place)
    return value if type(value) is int else number


_number_id = documents.whole(0, MAX_ID)
_text_id = documents.text(r"[\s\S]+", MAX_ID_LENGTH)
_GOLDEN = documents.fields(
    {
        "cases": documents.many(
            documents.fields(
                {
                    "user_id": _id,
                    "item_ids": documents.many(_id, 1, MAX_ITEMS),
                    "context": documents.mapping(documents.text(), documents.text()),
                    "time_s": documents.number(0, LATEST_TIME_S),
                    "scores": documents.many(documents.number(), 1, MAX_ITEMS),
                },
                {
                    "features": documents.mapping(
                        documents.text(), documents.many(_cell, 1, MAX_ITEMS)
                    ),
                    "allowed": documents.many(documents.number(0), 1, MAX_ITEMS),
                },
            ),
            1,
            MOST_GOLDEN_CASES,
        )
    }
)
