"""What stands between a model that scores almost right and a bundle."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import feedmodel.publish.build
from feedmodel.errors import PublishError
from feedmodel.publish.build import PublishOptions, build_bundle
from feedmodel.publish.export import Program
from feedrank.bundle.layout import GOLDEN
from feedrank.features.spec import FeatureSpec
from shop import Registry, Shop

UNKNOWN_ID = 2**63 - 1
PRICE = 0
ITEMS = 1_000
RARE_ITEM = 613


class Rare(Shop):
    """Scores of about 0.0025, as a purchase's probability may be."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(x) / 10 - 6)


class RareListwise(Rare):
    """Its scores move by up to 0.3 % with the other rows of the batch: by less than 1e-5."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 + 0.003 * x[:, PRICE].mean() / 10)


class Categories(nn.Module):
    """A score for each whole price."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Embedding.from_pretrained(torch.linspace(-2, 2, 10).reshape(-1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.scores(x[:, PRICE].long()).squeeze(-1))


@pytest.fixture
def exported_wrong(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float, Any], None]:
    """Adds to a weight while the ONNX file is written, as an exporter's mistake might."""
    write_onnx = feedmodel.publish.build.write_onnx

    def mistake(weight: str, added: float, at: Any = ...) -> None:
        def wrong(program: Program, spec: FeatureSpec, path: Path) -> None:
            tensor = {**program.exported.state_dict, **program.exported.constants}[weight]
            with torch.no_grad():
                tensor[at] += added
                write_onnx(program, spec, path)
                tensor[at] -= added

        monkeypatch.setattr(feedmodel.publish.build, "write_onnx", wrong)

    return mistake


@pytest.mark.parametrize(("added", "is_refused"), [(3e-5, False), (6e-5, True)])
def test_a_score_may_be_a_hundred_thousandth_from_torchs(
    options: PublishOptions, exported_wrong: Callable[..., None], added: float, *, is_refused: bool
) -> None:
    """Around 0.5 a sigmoid has a slope of a quarter: 7.5e-6 apart, and 1.5e-5."""
    exported_wrong("weights.bias", added)
    if is_refused:
        with pytest.raises(PublishError, match="1e-05 apart is allowed"):
            build_bundle(options)
    else:
        assert 5e-6 < build_bundle(options).parity <= 1e-5


@pytest.mark.parametrize(("added", "is_refused"), [(5e-4, False), (2e-3, True)])
def test_a_small_score_must_be_closer(
    options: PublishOptions,
    registry: Registry,
    exported_wrong: Callable[..., None],
    added: float,
    *,
    is_refused: bool,
) -> None:
    """By a thousandth of itself: items of small scores are ranked by them too."""
    exported_wrong("weights.bias", 10 * added)  # `Rare` divides logits by ten
    published = replace(options, model_uri=registry.log(Rare()))
    if is_refused:
        with pytest.raises(PublishError, match=r"[23]e-06 apart is allowed"):
            build_bundle(published)
    else:
        assert build_bundle(published).parity < 2.5e-6


def test_a_difference_in_one_row_that_no_request_meets_is_refused(
    options: PublishOptions, registry: Registry, exported_wrong: Callable[..., None], tmp_path: Path
) -> None:
    items = tmp_path / "many.parquet"
    prices = [8.0 if item == RARE_ITEM else float(item % 8) for item in range(ITEMS)]
    pd.DataFrame({"item_id": range(ITEMS), "price": prices}).to_parquet(items)
    published = replace(
        options,
        model_uri=registry.log(Categories()),
        tables={**options.tables, "items": items},
    )
    exported_wrong("scores.weight", 0.01, 8)
    place = f"table items, item_id {RARE_ITEM}"
    with pytest.raises(PublishError, match=rf"{place}: torch gives 0\.\d+, ONNX Runtime 0\.\d+"):
        build_bundle(published)


def test_small_scores_that_depend_on_the_batch_keep_requests_apart(
    options: PublishOptions, registry: Registry
) -> None:
    alone = replace(options, model_uri=registry.log(Rare()))
    crowded = replace(options, model_uri=registry.log(RareListwise()))
    assert build_bundle(alone).manifest.batches
    assert not build_bundle(crowded).manifest.batches


def test_golden_requests_mix_unknown_items_with_known_ones_for_a_known_user(
    demo_bundle: Path,
) -> None:
    """So that a container proves the defaults, and where they go in the matrix."""
    cases = json.loads((demo_bundle / GOLDEN).read_bytes())["cases"]
    known = [case for case in cases if case["user_id"] != UNKNOWN_ID]
    unknown = [np.array(case["item_ids"]) == UNKNOWN_ID for case in known]
    mixed = [flags for flags in unknown if flags.any() and not flags.all()]
    assert len(mixed) >= 4
    assert not any(flags[0] or flags[-1] for flags in mixed if len(flags) > 2)  # between known ones
