"""A spec may use an expression of the team's own, in publishing and in serving."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import fakes
from feedmodel.publish.build import PublishOptions
from feedops.cli.main import app
from feedrank.domain import Query
from feedrank.errors import BundleError, SpecError
from feedrank.extensions import load_extensions_file
from feedrank.features import expressions as context
from feedrank.features.snapshot import SnapshotStore
from feedrank.model.load import load_model
from shop import SHOP_SPEC, Shop

LOCAL_HOUR = Path(__file__).parents[1] / "examples" / "local_hour.py"
NOON_S = 1_795_608_000.0  # 2026-11-25, 12:00 UTC: 17:45 in Kathmandu


@pytest.fixture
def command(
    options: PublishOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Sequence[str]:
    """Publishes the shop's model, whose hour is now that of Kathmandu."""
    monkeypatch.setattr(context, "_registered", {})
    monkeypatch.chdir(tmp_path)
    spec = copy.deepcopy(SHOP_SPEC)
    spec["inputs"][0]["features"][1]["expression"] = "local_hour(Asia/Kathmandu)"
    assert options.spec
    options.spec.write_text(json.dumps(spec))
    flags = {"spec": options.spec, "tracking-uri": options.tracking_uri} | options.tables
    return ["publish", options.model_uri, *(f"--{name}={value}" for name, value in flags.items())]


def test_a_bundle_with_an_expression_of_the_teams_own_scores_as_torch_does(
    command: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = CliRunner().invoke(app, [*command, f"--extensions={LOCAL_HOUR}"])
    assert result.exit_code == 0, result.output
    (directory,) = Path("data/bundles").glob("shop-*")
    model = load_model(str(directory), "", fakes.settings())
    assert isinstance(model.features, SnapshotStore)
    query = Query(9, [10, 20], {"basket": "2"}, NOON_S)
    scores = model.score(query, model.features.look_up(query))
    expected = Shop()(torch.tensor([[1.0, 17, 51, 2], [2.0, 17, 51, 2]])).detach().numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-6)

    monkeypatch.setattr(context, "_registered", {})  # a function without the file
    with pytest.raises(SpecError, match=r"local_hour\(Asia/Kathmandu\)' is none of .* has none"):
        load_model(str(directory), "", fakes.settings())


def test_a_function_whose_expression_differs_from_the_publishers_refuses_the_bundle(
    command: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "extensions.py"
    other.write_text(LOCAL_HOUR.read_text().replace("tz).hour", "tz).hour + 1"))
    monkeypatch.setenv("FEEDRANK_EXTENSIONS", str(LOCAL_HOUR))
    assert CliRunner().invoke(app, command).exit_code == 0
    (directory,) = Path("data/bundles").glob("shop-*")
    load_extensions_file(other)
    with pytest.raises(BundleError, match=r"scores are .* from the expected ones"):
        load_model(str(directory), "", fakes.settings())


def test_publishing_without_the_file_names_the_expression(command: Sequence[str]) -> None:
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "local_hour(Asia/Kathmandu)" in result.stderr
