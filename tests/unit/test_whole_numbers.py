"""Whole numbers reach an int64 input as they are, or not at all."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feedmodel.publish.golden import context_examples
from feedmodel.publish.snapshot import write_snapshot
from feedmodel.publish.tables import read_tables
from feedrank.domain import Query
from feedrank.errors import BundleError, InvalidRequestError, SpecError
from feedrank.features.candidates import CandidateFeatures
from feedrank.features.expressions import parse
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec

ODD = 2**53 + 1  # float64 holds 2^53 and 2^53 + 2
FAR = 4_000_000_000  # int32 ends at half of it


def spec_of(**feature: Any) -> FeatureSpec:
    entry = {"name": "f", "source": "item", **feature}
    return parse_spec({"inputs": [{"name": "x", "type": "int64", "features": [entry]}]})


def stored(spec: FeatureSpec, tmp_path: Path) -> Path:
    path = tmp_path / "items.parquet"
    pd.DataFrame({"item_id": [1, 2], "f": [5, 6]}).to_parquet(path)
    write_snapshot(read_tables(spec, {"items": path}), tmp_path / "f.safetensors")
    return tmp_path / "f.safetensors"


def test_an_unknown_item_has_a_default_that_int32_does_not_hold(tmp_path: Path) -> None:
    spec = spec_of(default=FAR)
    store = SnapshotStore(stored(spec, tmp_path), spec)
    query = Query(1, [1, 99], {}, 0.0)
    assert MatrixBuilder(spec).build(query, store.look_up(query))["x"].tolist() == [[5], [FAR]]


def test_a_snapshot_that_can_not_hold_the_defaults_is_refused(tmp_path: Path) -> None:
    snapshot = stored(spec_of(), tmp_path)
    with pytest.raises(BundleError, match=r"items\.integers can't hold the spec's defaults"):
        SnapshotStore(snapshot, spec_of(default=FAR))


def test_a_default_that_a_float_would_change_is_refused() -> None:
    assert spec_of(default=-(2**53)).inputs[0].features[0].default == -(2**53)
    with pytest.raises(SpecError, match=r"a whole number of at most 2\^53"):
        spec_of(default=ODD)


def context(text: str) -> list[list[int]]:
    spec = spec_of(source="context", expression="number(f)", default=7)
    query = Query(1, [1], {"f": text} if text else {}, 0.0)
    rows: Any = None  # no table is read
    numbers: list[list[int]] = MatrixBuilder(spec).build(query, rows)["x"].tolist()
    return numbers


@pytest.mark.parametrize(("text", "number"), [("12", 12), ("-3.0", -3), ("1e3", 1_000), ("", 7)])
def test_a_number_of_the_context_is_whole(text: str, number: int) -> None:
    assert context(text) == [[number]]


@pytest.mark.parametrize("text", ["1.7", "-0.5", "1e30", str(ODD)])
def test_a_number_of_the_context_that_is_not_whole_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"context\.f must be a whole number"):
        context(text)


def test_an_example_of_the_context_is_whole_where_its_input_is() -> None:
    assert context_examples(spec_of(source="context", expression="number(f)")) == {"f": "1"}


def test_a_candidate_is_exact_in_a_list_too() -> None:
    one = CandidateFeatures(spec_of(source="candidate"))
    assert one.read({"f": [ODD, None]}, 2)["f"].tolist() == [ODD, 0]
    many = CandidateFeatures(spec_of(source="candidate", size=2, default=3))
    assert many.read({"f": [[ODD], [1, -ODD]]}, 2)["f"].tolist() == [[3, ODD], [1, -ODD]]
    # Beside a float NumPy would round it.
    assert one.read({"f": [ODD, 1.0]}, 2)["f"].tolist() == [ODD, 1]


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_the_first_and_the_last_moment_have_an_hour_in_each_zone(zone: str) -> None:
    hour = parse(f"hour({zone})").compute
    for time_s in (-62_135_596_800.0, 253_402_300_799.0):
        assert 0 <= hour({}, time_s) < 24
        assert np.isfinite(hour({}, np.array([time_s]))).all()
