"""Tables as files: texts as they are written, whatever pandas would make of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feedmodel.errors import PublishError
from feedmodel.publish.tables import FeatureTable, read_tables
from feedrank.features.spec_reader import parse_spec

CODES = ["03", "3", "NA", "true", "1001"]


def read(feature: dict[str, Any], path: Path, **more: Any) -> FeatureTable:
    type_ = "int64" if "vocabulary" in feature else "float32"
    entry = {"name": "f", "source": "item", **feature}
    vocabularies = {"vocabularies": {"v": CODES}} if "vocabulary" in feature else {}
    data = {"inputs": [{"name": "x", "type": type_, "features": [entry]}], **vocabularies, **more}
    return read_tables(parse_spec(data), {"items": path})["items"]


def csv(text: str, tmp_path: Path) -> Path:
    path = tmp_path / "items.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["03", "3"], [1, 2]),
        (["NA", ""], [3, 0]),
        (["true"], [4]),
        (["3.0", "1001.0", ""], [2, 5, 0]),
        (["3", "03.0"], [2, 0]),
    ],
    ids=str,
)
def test_a_csv_gives_a_vocabulary_its_texts_as_they_are_written(
    cells: list[str], numbers: list[int], tmp_path: Path
) -> None:
    rows = "".join(f"{row},{cell}\n" for row, cell in enumerate(cells))
    table = read({"vocabulary": "v"}, csv("item_id,f\n" + rows, tmp_path))
    assert table.integers[:, 0].tolist() == numbers
    assert table.missing.get("f", 0) == cells.count("")


def test_a_csv_gives_text_ids_as_they_are_written(tmp_path: Path) -> None:
    path = csv("item_id,f\n007,1\n7,2\nNA,3\n", tmp_path)
    assert len(np.unique(read({}, path, ids="text").ids)) == 3


def test_a_csv_whose_lists_are_all_empty_has_the_defaults(tmp_path: Path) -> None:
    table = read({"size": 2, "default": 0.5}, csv("item_id,f\n1,\n2,\n", tmp_path))
    assert table.values.tolist() == [[0.5, 0.5]] * 2


@pytest.mark.parametrize("rows", ["5,1,\n6,2,\n", "5,1,000\n6,2,000\n", "5,1\n6,2,000\n"])
def test_a_csv_row_with_more_cells_than_names_is_refused(rows: str, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"items\.csv: can't be read"):
        read({}, csv("item_id,f\n" + rows, tmp_path))


def test_a_parquet_file_may_have_its_ids_as_the_index_and_lists_of_pandas_own(
    tmp_path: Path,
) -> None:
    path = tmp_path / "items.parquet"
    frame = pd.DataFrame({"item_id": [2, 1], "f": [[1.0, 2.0], [3.0]]}).set_index("item_id")
    frame.to_parquet(path)
    plain = read({"size": 2, "keep": "last"}, path)
    assert (plain.ids.tolist(), plain.values.tolist()) == ([[1], [2]], [[0.0, 3.0], [1.0, 2.0]])
    frame.convert_dtypes(dtype_backend="pyarrow").to_parquet(path)
    assert read({"size": 2, "keep": "last"}, path).values.tolist() == plain.values.tolist()


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"items\.csv: has the column f more than once"):
        read({}, csv("item_id,f,f\n1,2,3\n", tmp_path))
    path = tmp_path / "items.parquet"
    columns = [pa.array([1]), pa.array([2.0]), pa.array([3.0])]
    pq.write_table(pa.Table.from_arrays(columns, names=["item_id", "f", "f"]), path)
    with pytest.raises(PublishError, match=r"items\.parquet: has the column f more than once"):
        read({}, path)
    without_headings = csv(",item_id,f,\n0,1,2,\n1,3,4,\n", tmp_path)
    assert read({}, without_headings).values.tolist() == [[2.0], [4.0]]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("wrong", [[7.0, 8.0, 9.0], [7.0]])
def test_a_vector_of_another_width_is_refused_with_its_row(
    wrong: list[float], suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"items.{suffix}"
    frame = pd.DataFrame({"item_id": [3, 1, 2], "f": [[1.0, 2.0], wrong, None]})
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    says = rf"column f, row 1: has {len(wrong)} values, where the feature spec has a size of 2"
    with pytest.raises(PublishError, match=says):
        read({"size": 2}, path)
    cut = read({"size": 2, "keep": "last", "default": 0.5}, path).values.tolist()
    assert cut == [[0.5, *wrong][-2:], [0.5, 0.5], [1.0, 2.0]]


def test_a_vector_may_be_missing_and_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pd.DataFrame({"item_id": [1, 2, 3], "f": [[1.0, 2.0], None, []]}).to_parquet(path)
    table = read({"size": 2, "default": [0.5, 0.25]}, path)
    assert table.values.tolist() == [[1.0, 2.0], [0.5, 0.25], [0.5, 0.25]]
    assert table.missing == {"f": 2}


def test_a_list_of_whole_numbers_or_texts_keeps_its_last(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pd.DataFrame({"item_id": [1, 2], "f": [["3", "03", "NA"], ["3"]]}).to_parquet(path)
    assert read({"vocabulary": "v", "size": 2}, path).integers.tolist() == [[1, 3], [0, 2]]
