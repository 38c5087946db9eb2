"""A bundle is published only where it gives what the team's own evaluation gave."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from feedmodel.errors import PublishError
from feedmodel.publish.build import PublishOptions, build_bundle
from feedops.cli.main import app
from shop import Shop

AGES, PRICES = {9: 51.0, 4: 30.0}, {10: 1.0, 20: 2.0, 30: 3.0, 77: 9.5}  # with the defaults
NOON = "2026-06-03T12:00:00Z"


def _scores(directory: Path, hour: float = 12.0) -> Path:
    """As the shop would compute them."""
    rows = [(user, item) for user in AGES for item in PRICES]
    x = torch.tensor([[PRICES[item], hour, AGES[user], 2.0] for user, item in rows])
    table = pd.DataFrame(rows, columns=["user_id", "item_id"])
    path = directory / "scores.parquet"
    table.assign(timestamp=NOON, basket=2, score=Shop()(x).detach().numpy()).to_parquet(path)
    return path


def test_a_bundle_that_gives_the_teams_scores_is_published(
    options: PublishOptions, tmp_path: Path
) -> None:
    scores = _scores(tmp_path)
    built = build_bundle(replace(options, expect=scores))
    assert built.agreement is not None
    assert (built.agreement.rows, built.agreement.requests) == (8, 2)
    assert 0 <= built.agreement.apart < 1e-6

    result = CliRunner().invoke(app, ["check", str(built.directory), "--expect", str(scores)])
    assert result.exit_code == 0
    *facts, last = result.stdout.splitlines()
    assert facts == [
        f"model     {built.manifest.model_version}",
        f"digest    {built.manifest.digest}",
        "golden    as torch",
    ]
    assert last.startswith("expected  ")
    assert last.endswith(" at most, 8 rows in 2 requests; 2 of an unknown item")


def test_a_bundle_that_gives_others_is_not(options: PublishOptions, tmp_path: Path) -> None:
    with pytest.raises(PublishError) as error:
        build_bundle(replace(options, expect=_scores(tmp_path, hour=14.0)))
    first, *_, last = str(error.value).splitlines()
    assert first.startswith("scores.parquet: 8 of 8 scores differ by more than 1e-05, by 0.02")
    assert last == "they would agree if hour were of +2 hours: is it another zone's time?"
    assert not [*options.bundles.iterdir()]


def test_a_larger_difference_may_be_allowed(options: PublishOptions, tmp_path: Path) -> None:
    built = build_bundle(replace(options, expect=_scores(tmp_path, hour=14.0), tolerance=0.05))
    assert built.agreement is not None
    assert built.agreement.apart > 0.02


def test_the_column_that_would_have_been_right_is_named(
    options: PublishOptions, tmp_path: Path
) -> None:
    items = tmp_path / "cents.parquet"
    pd.DataFrame(
        {"item_id": [30, 10, 20], "price": [2.9, 0.5, 1.7], "list_price": [3.0, 1.0, 2.0]}
    ).to_parquet(items)
    wrong = replace(options, tables={**options.tables, "items": items}, expect=_scores(tmp_path))
    with pytest.raises(PublishError) as error:
        build_bundle(wrong)
    last = str(error.value).splitlines()[-1]
    assert last == "they would agree if price were the column list_price of cents.parquet"


def test_a_file_that_is_not_there_is_named_before_anything_is_fetched(
    options: PublishOptions,
) -> None:
    with pytest.raises(PublishError, match=r"--expect missing\.parquet: there is no"):
        build_bundle(replace(options, model_uri="models:/no/1", expect=Path("missing.parquet")))
