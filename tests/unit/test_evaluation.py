from itertools import product
from math import log, log2

import numpy as np
import pytest

from feedmodel.demo.baselines import Evaluation, WithUnknown, evaluate
from feedmodel.training.evaluation import auc, log_loss, reliability

CLICKED = np.array([True, False, False, True, False, True])
SLATE = np.array([4, 4, 4, 9, 9, 9])


def evaluated(
    score: list[float],
    slate: np.ndarray = SLATE,
    clicked: np.ndarray = CLICKED,
    with_unknown: WithUnknown | None = None,
    click_rate: list[float] | None = None,
) -> Evaluation:
    model = np.array(score)
    flat = np.zeros(len(clicked))
    return evaluate(
        slate,
        clicked,
        model=model,
        with_unknown=with_unknown or WithUnknown(model, model, np.zeros(len(clicked), bool)),
        popularity=flat,
        click_rate=flat if click_rate is None else np.array(click_rate),
        probability=clicked * 0.9,
    )


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(0)
    clicked, score = rng.random(60) < 0.4, rng.integers(0, 8, 60) / 8
    pairs = list(product(score[clicked], score[~clicked]))
    expected = sum((above > below) + (above == below) / 2 for above, below in pairs) / len(pairs)
    assert auc(clicked, score) == pytest.approx(expected)


def test_auc_of_one_kind_of_row_is_nan() -> None:
    assert np.isnan(auc(np.ones(3, dtype=bool), np.arange(3.0)))
    assert np.isnan(auc(np.zeros(3, dtype=bool), np.arange(3.0)))


def test_log_loss_is_the_mean_negative_logarithm() -> None:
    clicked, probability = np.array([True, False]), np.array([0.8, 0.4])
    assert log_loss(clicked, probability) == pytest.approx(-(log(0.8) + log(0.6)) / 2)


def test_log_loss_of_a_certain_mistake_is_finite() -> None:
    certain = np.array([0.0, 1.0], dtype=np.float32)
    assert log_loss(np.array([True, False]), certain) == pytest.approx(-log(1e-7))


def test_the_right_order_has_ndcg_1() -> None:
    assert evaluated([0.9, 0.1, 0.2, 0.8, 0.1, 0.7]).model.ndcg_at_10 == 1.0


def test_ndcg_is_that_of_the_formula() -> None:
    # Slate 4 has its click at rank 3; slate 9 has its two clicks at ranks 1 and 3.
    expected = (1 / log2(4) + (1 + 1 / log2(4)) / (1 + 1 / log2(3))) / 2
    assert evaluated([0.1, 0.9, 0.5, 0.9, 0.5, 0.1]).model.ndcg_at_10 == pytest.approx(expected)


def test_rank_11_does_not_count() -> None:
    clicked = np.arange(12) == 0
    score = [0.05, *np.linspace(0.9, 0.1, 10), 0.01]
    model = evaluated(score, np.zeros(12, dtype=np.int64), clicked).model
    assert (model.ndcg_at_10, model.precision_at_10) == (0.0, 0.0)


def test_more_than_ten_clicks_can_still_be_ranked_perfectly() -> None:
    model = evaluated([0.5] * 15, np.zeros(15, dtype=np.int64), np.ones(15, dtype=bool)).model
    assert (model.ndcg_at_10, model.precision_at_10) == (pytest.approx(1.0), 1.0)


def test_precision_is_over_ten_ranks_or_a_short_slates_size() -> None:
    slate = np.array([0] * 20 + [1] * 3)
    clicked = np.isin(np.arange(23), [0, 1, 2, 20])
    score = np.linspace(0.9, 0.1, 23).tolist()
    assert evaluated(score, slate, clicked).model.precision_at_10 == pytest.approx(
        (3 / 10 + 1 / 3) / 2
    )


def test_a_slate_without_a_click_is_skipped() -> None:
    with_empty = np.append(SLATE, [11, 11, 11]), np.append(CLICKED, [False] * 3)
    score = [0.1, 0.9, 0.5, 0.9, 0.5, 0.1]
    without, with_ = evaluated(score), evaluated([*score, 0.3, 0.2, 0.1], *with_empty)
    assert with_.model.ndcg_at_10 == without.model.ndcg_at_10
    assert (with_.slates, with_.interactions) == (2, 9)


def test_equal_scores_are_in_random_order() -> None:
    slate = np.repeat(np.arange(500), 20)
    clicked = np.tile(np.arange(20) < 2, 500)  # the clicks always come first
    result = evaluated([0.5] * 10_000, slate, clicked)
    assert result.model.precision_at_10 == pytest.approx(0.1, abs=0.01)
    assert result.popularity.ndcg_at_10 == result.model.ndcg_at_10


def test_a_calibrated_score_has_no_error_and_a_shifted_one_its_shift() -> None:
    probability = np.repeat(np.arange(1, 21) / 40, 400)
    clicked = np.tile(np.arange(400), 20) / 400 < probability
    assert reliability(clicked, probability).error == pytest.approx(0, abs=1e-9)
    assert reliability(clicked, probability + 0.1).error == pytest.approx(0.1)


def test_every_row_is_in_one_bin_of_about_the_same_size() -> None:
    result = reliability(np.ones(1_010, dtype=bool), np.linspace(0, 1, 1_010))
    assert result.rows.sum() == 1_010
    assert set(result.rows.tolist()) == {50, 51}
    assert result.observed.tolist() == [1.0] * 20


def test_the_way_is_0_at_the_baseline_and_1_at_the_known_best() -> None:
    best, flat = evaluated((CLICKED * 0.9).tolist()), evaluated([0.0] * 6)
    assert (flat.way_from_popularity, best.way_from_popularity) == (0.0, 1.0)
    half = [0.9, 0.1, 0.2, 0.9, 0.5, 0.1]
    model, start = evaluated(half), evaluated(half, click_rate=half)
    assert 0 < model.way_from_click_rate == model.way_from_popularity < 1
    assert (start.way_from_click_rate, start.way_from_popularity) == (
        0.0,
        model.way_from_popularity,
    )


def test_unknown_items_are_ranked_last_and_unknown_users_by_their_scores() -> None:
    best, worst = CLICKED * 0.9, 0.9 - CLICKED * 0.9
    result = evaluated(best.tolist(), with_unknown=WithUnknown(worst, best, CLICKED))
    clicks_last = evaluated(worst.tolist()).model
    assert result.model.ndcg_at_10 == 1.0
    assert result.unknown_users == clicks_last
    assert result.unknown_items.ndcg_at_10 == clicks_last.ndcg_at_10
    assert result.unknown_items.auc == 1.0  # of the scores themselves


def test_metrics_are_grouped_and_a_mere_order_has_none_of_a_probability() -> None:
    quality = ["auc", "ndcg_at_10", "precision_at_10"]
    of_probability = [*quality, "calibration_error", "log_loss"]
    names = {
        *(
            f"test/{ranking}/{metric}"
            for ranking in ("model", "unknown_users", "unknown_items", "known_best")
            for metric in of_probability
        ),
        *(f"test/{o}/{m}" for o in ("random", "popularity", "click_rate") for m in quality),
        "test/way_to_known_best/from_popularity",
        "test/way_to_known_best/from_click_rate",
    }
    assert set(evaluated([0.5] * 6).metrics()) == names
