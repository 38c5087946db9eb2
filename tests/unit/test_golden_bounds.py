"""The ends of the range that a golden request's scores may have."""

import numpy as np
import orjson
import pytest

from feedmodel.publish.tolerance import scale_of, within
from feedrank.errors import BundleError
from feedrank.model.self_test import check_golden


def golden(*scores: float) -> bytes:
    case = {
        "user_id": 1,
        "item_ids": list(range(len(scores))),
        "context": {},
        "time_s": 0.0,
        "scores": list(scores),
    }
    return orjson.dumps({"cases": [case]})


def check(*scores: float) -> None:
    """A model that gives exactly what the bundle expects."""
    check_golden(golden(*scores), lambda _query, _deadline_s: np.array(scores, np.float32))


def test_a_probability_may_be_0_or_1() -> None:
    check(0.0, 0.5, 1.0)


@pytest.mark.parametrize("score", [-1e-6, 1 + 1e-6, -1.0, 2.0])
def test_what_is_no_probability_is_refused_though_it_was_expected(score: float) -> None:
    with pytest.raises(BundleError):
        check(0.5, score)


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_scores_of_any_size_are_told_apart(size: float) -> None:
    """As publishing writes them: what each may be off, where the spec has no range."""
    scores = np.array([3.0, -1.0, 2.0, 0.5, 0.0]) * size
    case = orjson.loads(golden(*scores.tolist()))["cases"][0]
    case["allowed"] = within(scores, scale_of(scores, None)).tolist()
    raw = orjson.dumps({"cases": [case]})
    for variant, is_right in ((scores, True), (scores[::-1], False), (scores * np.nan, False)):
        scored = np.array(variant, np.float32)
        if is_right:
            check_golden(raw, lambda *_, scored=scored: scored, None)
        else:
            with pytest.raises(BundleError):
                check_golden(raw, lambda *_, scored=scored: scored, None)
    case["allowed"] = case["allowed"][:-1]
    with pytest.raises(BundleError):
        check_golden(orjson.dumps({"cases": [case]}), lambda *_: scores.astype(np.float32), None)
