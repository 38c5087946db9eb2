"""Packed rows, compared with `struct` and the tables that they were packed from."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmodel.publish.tables import FeatureTable
from feedops.features.packing import packed_pairs, packed_rows
from feedrank.domain import MAX_ID
from feedrank.errors import SpecError
from feedrank.features.packed_rows import (
    ITEM,
    NUMBER,
    ORDER,
    OTHER_LAYOUT,
    RANGE,
    WIDTH,
    RowLayout,
    check_storable,
)
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec

ENTRIES: dict[str, dict[str, Any]] = {
    "ctr": {"name": "ctr", "source": "item", "default": 0.05},
    "price": {"name": "price", "source": "item", "default": None},
    "vector": {"name": "vector", "source": "item", "size": 3},
    "half": {"name": "half", "source": "item", "size": 2, "store": "float16"},
    "made": {"name": "made", "source": "item", "expression": "since(made_at)"},
}
LISTS = {"name": "codes", "source": "item", "size": 2}


def _spec(*names: str, **more: Any) -> FeatureSpec:
    floats = {"name": "x", "features": [ENTRIES[name] for name in names], **more}
    whole = {"name": "n", "type": "int64", "features": [LISTS], "limits": {"codes": [[0, 9]]}}
    return parse_spec({"inputs": [floats, whole], "range": None})


ALL = _spec(*ENTRIES)
LAYOUT = RowLayout(ALL, "item")
PACKING = "<Id2q5f2e"  # mark, made; codes; ctr, price, vector; half
GOOD = (LAYOUT.mark, 1e9, 1, 9, 0.5, 2.0, 1.0, 2.0, 3.0, 0.25, -1.0)
NAMES = ["mark", "made", "code1", "code2", "ctr", "price", "v1", "v2", "v3", "h1", "h2"]
AT = {name: at for at, name in enumerate(NAMES)}


def _row(**cells: float) -> bytes:
    values = list(GOOD)
    for name, value in cells.items():
        values[AT[name]] = value
    return struct.pack(PACKING, *values)


_floats = st.floats(-(2.0**100), 2.0**100, width=32)
_cells = st.tuples(
    st.floats(-6e10, 2e11) | st.just(np.nan),
    *[st.integers(0, 9)] * 2,
    _floats,
    _floats | st.just(np.nan),
    *[_floats] * 3,
    *[st.floats(-60_000, 60_000, width=16)] * 2,
)


def _table(cells: list[tuple[float, ...]]) -> FeatureTable:
    array = np.array(cells, np.float64).reshape(-1, 10)
    return FeatureTable(
        ids=np.arange(len(cells), dtype=np.int64).reshape(-1, 1),
        times=array[:, :1],
        integers=array[:, 1:3].astype(np.int32),
        values=array[:, 3:8].astype(np.float32),
        halves=array[:, 8:].astype(np.float32),
    )


@given(st.lists(_cells, min_size=1, max_size=20))
def test_rows_are_what_struct_packs_and_are_read_as_they_were(
    cells: list[tuple[float, ...]],
) -> None:
    table = _table(cells)
    packed = packed_rows(LAYOUT, table)
    assert [row.tobytes() for row in packed] == [
        _row(**dict(zip([*AT][1:], row, strict=True))) for row in cells
    ]
    rows, reasons = LAYOUT.unpack([row.tobytes() for row in packed])
    assert reasons == [""] * len(cells)
    for block in ("times", "integers", "values", "halves"):
        np.testing.assert_array_equal(rows[block], getattr(table, block))


REFUSED = {
    "empty": (b"", WIDTH),
    "a byte less": (_row()[:-1], WIDTH),
    "a row more": (_row() * 2, WIDTH),
    "another layout": (_row(mark=LAYOUT.mark ^ 1), OTHER_LAYOUT),
    "zeros": (bytes(LAYOUT.dtype.itemsize), OTHER_LAYOUT),
    "NaN": (_row(ctr=np.nan), NUMBER),
    "infinity": (_row(price=np.inf), NUMBER),
    "a half that is NaN": (_row(h2=np.nan), NUMBER),
    "a time that is infinite": (_row(made=-np.inf), NUMBER),
    "a time in milliseconds": (_row(made=1.7e12), RANGE),
    "an index too small": (_row(code1=-1), RANGE),
    "an index too large": (_row(code2=10), RANGE),
}


@pytest.mark.parametrize(("row", "reason"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_row_that_is_wrong_is_refused_alone(row: bytes, reason: str, at: int) -> None:
    others = [_row(ctr=1), _row(ctr=2)]
    rows, reasons = LAYOUT.unpack([*others[:at], row, *others[at:]])
    assert reasons == [*[""] * at, reason, *[""] * (2 - at)]
    good = [row for row, reason in zip(rows, reasons, strict=True) if not reason]
    assert [row["values"][0] for row in good] == [1, 2]


@given(st.lists(st.binary(max_size=2 * len(_row())), min_size=1, max_size=5))
def test_any_bytes_are_refused_or_are_numbers_that_the_model_takes(rows: list[bytes]) -> None:
    marked = [LAYOUT.mark.to_bytes(4, "little") + row for row in rows]
    unpacked, reasons = LAYOUT.unpack(marked)
    for row, reason, data in zip(unpacked, reasons, marked, strict=True):
        if not reason:
            assert len(data) == LAYOUT.dtype.itemsize
            assert np.isfinite(row["values"][[0, 2, 3, 4]]).all()
            assert np.isfinite(row["halves"]).all()
            assert ((row["integers"] >= 0) & (row["integers"] <= 9)).all()


def test_what_gives_the_bytes_their_meaning_changes_the_mark() -> None:
    swapped = _spec("price", "ctr", "vector", "half", "made")
    renamed = parse_spec({"inputs": [{"name": "x", "features": [{**ENTRIES["ctr"], "name": "c"}]}]})
    alone = parse_spec({"inputs": [{"name": "x", "features": [ENTRIES["ctr"]]}]})
    texts = parse_spec({"inputs": [{"name": "x", "features": [ENTRIES["ctr"]]}], "ids": "text"})
    of_user = [{**ENTRIES["ctr"], "source": "user"}]
    user = parse_spec({"inputs": [{"name": "x", "features": of_user}]})
    marks = [RowLayout(spec, "item").mark for spec in (ALL, swapped, renamed, alone, texts)]
    assert len({*marks, RowLayout(user, "user").mark}) == 6


def test_the_mark_is_the_same_in_another_process_and_another_year() -> None:
    alone = parse_spec({"inputs": [{"name": "x", "features": [ENTRIES["ctr"]]}]})
    assert RowLayout(alone, "item").mark == MARK_OF_CTR


MARK_OF_CTR = 3_291_397_225  # by coreutils: b2sum -l 32


# ---- Pairs ---------------------------------------------------------------------------------------

PAIRS = parse_spec(
    {"inputs": [{"name": "x", "features": [{"name": "views", "source": "pair", "default": 0}]}]}
)
OF_PAIRS = RowLayout(PAIRS, "pair")
_ids = st.integers(0, MAX_ID)


@given(st.dictionaries(st.tuples(st.integers(0, 3), _ids), _floats, min_size=1))
def test_pairs_are_what_struct_packs_and_are_read_as_they_were(
    pairs: dict[tuple[int, int], float],
) -> None:
    pairs = dict(sorted(pairs.items()))
    values = np.array([*pairs.values()], np.float32).reshape(-1, 1)
    packed = dict(packed_pairs(OF_PAIRS, FeatureTable(np.array([*pairs], np.int64), values)))
    assert packed.keys() == {user for user, _ in pairs}
    for user, data in packed.items():
        of_user = [(item, views) for (whose, item), views in pairs.items() if whose == user]
        assert data == struct.pack("<I", OF_PAIRS.mark) + b"".join(
            struct.pack("<qf", *pair) for pair in of_user
        )
        rows, reason = OF_PAIRS.unpack_pairs(data)
        assert reason == ""
        assert [(row[ITEM], row["values"][0]) for row in rows] == of_user


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", WIDTH),
        (struct.pack("<Iqf", OF_PAIRS.mark, 1, 2)[:-1], WIDTH),
        (struct.pack("<Iqf", OF_PAIRS.mark ^ 1, 1, 2), OTHER_LAYOUT),
        (struct.pack("<Iqfqf", OF_PAIRS.mark, 2, 1, 1, 1), ORDER),
        (struct.pack("<Iqfqf", OF_PAIRS.mark, 1, 1, 1, 1), ORDER),
        (struct.pack("<Iqf", OF_PAIRS.mark, -1, 1), ORDER),
        (struct.pack("<Iqf", OF_PAIRS.mark, 1, np.nan), NUMBER),
    ],
)
def test_pairs_that_are_wrong_are_refused(data: bytes, reason: str) -> None:
    assert OF_PAIRS.unpack_pairs(data)[1] == reason


def test_a_user_without_pairs_has_an_empty_list() -> None:
    rows, reason = OF_PAIRS.unpack_pairs(struct.pack("<I", OF_PAIRS.mark))
    assert (len(rows), reason) == (0, "")


# ---- What can't be stored ------------------------------------------------------------------------


def test_a_source_with_a_vocabulary_is_refused() -> None:
    country = {"name": "country", "source": "user", "vocabulary": "countries"}
    spec = parse_spec(
        {
            "inputs": [
                {"name": "x", "features": [ENTRIES["ctr"]]},
                {"name": "n", "type": "int64", "features": [country]},
            ],
            "vocabularies": {"countries": ["de", "fr"]},
        }
    )
    check_storable(spec, "item")
    with pytest.raises(SpecError, match="country of a user has a vocabulary"):
        check_storable(spec, "user")


def test_a_time_with_limits_is_refused() -> None:
    with pytest.raises(SpecError, match="made of a item is a time that has limits"):
        check_storable(_spec("made", limits={"made": [[0, 100]]}), "item")
