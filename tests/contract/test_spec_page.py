"""What the README and the page on the feature spec say of it is what the reader reads."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from feedmodel.publish.outputs import FUNCTIONS, REDUCTIONS
from feedrank.features import spec_reader
from feedrank.features.expressions import BUILT_IN
from feedrank.features.feast_views import FEAST_KEYS, VIEW_KEYS
from feedrank.features.spec import FeatureSpec, Ids, Source, Type, UnknownItems
from feedrank.features.spec_reader import FEATURE_KEYS, INPUT_KEYS, KEYS, parse_spec
from feedrank.http.schemas import TextPredictRequest
from zoo import ZOO

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "layers/model/SPEC.md").read_text()
JSON = re.findall(r"^(<!-- request -->\n)?```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SPECS = [text for request, text in JSON if not request]
REQUESTS = [text for request, text in JSON if request]
# What the README's table leaves to its example.
SHOWN_BY_THE_EXAMPLE = {"inputs", "name", "features", "shape", "limits"}


def _first_column(page: str, table: str) -> list[str]:
    rows = page.partition(f"<!-- {table} -->\n")[2].partition("\n\n")[0].splitlines()[2:]
    assert rows, f"there is no table {table!r}"
    return [name for row in rows for name in re.findall(r"`(\w+)", row.split(" | ")[0])]


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("spec", KEYS),
        ("input", INPUT_KEYS),
        ("feature", FEATURE_KEYS),
        ("feast", FEAST_KEYS),
        ("view", VIEW_KEYS),
        ("source", get_args(Source)),
        ("expression", BUILT_IN),
        ("function", {*FUNCTIONS, *REDUCTIONS}),
    ],
)
def test_the_page_has_every_name_of_the_code(table: str, names: set[str]) -> None:
    assert sorted(_first_column(PAGE, f"keys: {table}")) == sorted(names)


def test_the_readme_has_every_key() -> None:
    keys = KEYS | INPUT_KEYS | FEATURE_KEYS
    assert sorted(_first_column(README, "keys")) == sorted(keys - SHOWN_BY_THE_EXAMPLE)


@pytest.mark.parametrize("text", SPECS)
def test_every_spec_on_the_page_is_read(text: str) -> None:
    spec = parse_spec(json.loads(text))
    assert parse_spec(spec.to_json()) == spec


def test_the_first_spec_has_every_key_and_source() -> None:
    data = json.loads(SPECS[0])
    features = [feature for input_ in data["inputs"] for feature in input_["features"]]
    assert {*data} == KEYS - {"score", "feast"}  # which have specs of their own
    assert {key for input_ in data["inputs"] for key in input_} == INPUT_KEYS - {"shape", "limits"}
    assert {key for feature in features for key in feature} == FEATURE_KEYS
    assert {feature["source"] for feature in features} == {*get_args(Source)}


@pytest.mark.parametrize("text", REQUESTS)
def test_every_request_on_the_page_is_valid(text: str) -> None:
    request = TextPredictRequest.model_validate_json(text)
    spec = parse_spec(json.loads(SPECS[0]))
    assert request.features.keys() == {feature.name for feature in spec.columns("candidate")}


def test_defaults_and_limits_are_those_of_the_code() -> None:
    assert FeatureSpec(()).range == (0.0, 1.0)
    assert all(f'`"{value}"`' in PAGE for of in (Ids, Type, UnknownItems) for value in get_args(of))
    assert f"at most {spec_reader.MOST_VALUES:,}" in PAGE


def test_the_readme_names_no_model_that_is_not_tested() -> None:
    named = README.partition("<!-- models -->\n")[2].partition("\n<!-- /models -->")[0]
    names = " ".join(named.split()).rstrip(".").split(" · ")
    assert len(names) > 1
    assert [name for name in names if name not in ZOO] == []
