"""A vocabulary has each of its texts once, as it is written."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from feedmodel.errors import PublishError
from feedmodel.publish.cells import TextNumbers, vocabulary_cells
from feedmodel.publish.vocabularies import read_spec
from feedrank.errors import SpecError
from feedrank.features.spec import Feature
from feedrank.features.spec_reader import parse_spec
from feedrank.features.vocabulary import vocabulary_of


def test_a_text_that_is_there_twice_is_refused() -> None:
    vocabulary_of(["news", "sport", "art"])
    with pytest.raises(ValueError, match="the same"):
        vocabulary_of(["news", "sport", "news"])


def read(texts: bytes, tmp_path: Path, expression: str = "text(k)", size: int = 0) -> Any:
    (tmp_path / "v.txt").write_bytes(texts)
    feature = {"name": "f", "source": "context", "expression": expression, "vocabulary": "v"}
    item = {"name": "price", "source": "item"}
    spec = {
        "inputs": [
            {"name": "x", "features": [feature | ({"size": size} if size else {})]},
            {"name": "y", "features": [item]},
        ],
        "vocabularies": {"v": "v.txt"},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    return read_spec(tmp_path / "spec.json").vocabularies["v"]


@pytest.mark.parametrize(
    ("lines", "texts"),
    [
        ("a\nb", ("a", "b")),
        ("a\r\nb\r\n", ("a", "b")),
        ("\ufeffDE\nFR\n", ("DE", "FR")),  # a byte order mark, as Excel writes it
        ("a\u2028b\nc\x85d\x0ce\n", ("a\u2028b", "c\x85d\x0ce")),  # str.splitlines divides those
        (" a\na \na\n", (" a", "a ", "a")),
    ],
    ids=ascii,
)
def test_a_file_has_a_text_a_line_as_it_is(
    lines: str, texts: tuple[str, ...], tmp_path: Path
) -> None:
    assert read(lines.encode(), tmp_path) == texts


def test_an_empty_line_is_refused_since_the_numbers_behind_it_would_move(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"v\.txt: line 2 is empty"):
        read(b"a\n\nb\n", tmp_path)


def test_an_empty_text_is_a_missing_cell_and_in_no_vocabulary() -> None:
    feature = {"name": "f", "source": "item", "vocabulary": "v"}
    spec = {"inputs": [{"name": "x", "features": [feature]}], "vocabularies": {"v": ["", "a"]}}
    with pytest.raises(SpecError, match=r"vocabularies\.v has an empty text"):
        parse_spec(spec)


@pytest.mark.parametrize("text", ["Paris, TX", " a"])
def test_a_text_that_no_list_of_a_request_can_have_is_refused(text: str, tmp_path: Path) -> None:
    assert read(text.encode(), tmp_path) == (text,)
    with pytest.raises(PublishError, match=r"which list\(k\) can't read"):
        read(text.encode(), tmp_path, "list(k)", 3)


@pytest.mark.parametrize("column", [["de", None], [["de"], ["fr"]]], ids=str)
def test_a_column_of_which_the_vocabulary_has_nothing_is_refused(column: Any) -> None:
    feature = Feature("f", "item", vocabulary="v", size=2 * isinstance(column[0], list))
    with pytest.raises(PublishError) as error:
        vocabulary_cells(pd.Series(column), feature, "items: column f", TextNumbers(["DE", "FR"]))
    assert "the vocabulary v has none of its values, such as 'de'; it has 'DE', 'FR'" in str(
        error.value
    )
