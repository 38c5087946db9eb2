"""A model's inputs against the spec's, whatever they are called and shaped."""

from typing import Any

import pytest

from feedmodel.errors import PublishError
from feedmodel.publish.inputs import Declared, in_model_terms
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec


def spec_of(**inputs: dict[str, Any]) -> FeatureSpec:
    price = {"name": "price", "source": "item"}
    entries = [{"name": name, "features": [price]} | entry for name, entry in inputs.items()]
    return parse_spec({"inputs": entries})


@pytest.mark.parametrize("written", ["userFeatures", "userfeatures", "USERFEATURES"])
@pytest.mark.parametrize("exported", ["userFeatures", "userfeatures"])
def test_an_input_may_be_written_as_in_the_code_or_as_exported(written: str, exported: str) -> None:
    spec = spec_of(item={}, **{written: {}})
    declared = {name: Declared("float32", (None, 1)) for name in (exported, "item")}
    assert [input_.name for input_ in in_model_terms(spec, declared).inputs] == [exported, "item"]


def test_two_descriptions_of_one_input_are_refused() -> None:
    with pytest.raises(PublishError, match="describes the model's input x twice"):
        in_model_terms(spec_of(X={}, x={}), {"x": Declared("float32", (None, 1))})


@pytest.mark.parametrize(
    ("type_", "shape", "written"),
    [("float32", (None,), (-1,)), ("float32", (None, 1), ()), ("int64", (None, 1, 1), (-1, 1, 1))],
)
def test_the_models_shape_is_kept_where_it_is_not_rows_and_columns(
    type_: str, shape: tuple[int | None, ...], written: tuple[int, ...]
) -> None:
    spec = in_model_terms(spec_of(x={"type": type_}), {"x": Declared(type_, shape)})
    assert spec.inputs[0].shape == written


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ({"x": Declared("float32", (None, 2))}, "takes 2 features, the spec describes 1"),
        ({"x": Declared("float32", (None, None))}, "more than the number of items varies"),
        ({"x": Declared("float32", (3, 1))}, r"takes exactly 3 row\(s\)"),
        ({"x": Declared("int64", (None, 1))}, 'takes int64, not float32: make it "type": "int64"'),
        ({"x": Declared("float64", (None, 1))}, r"takes float64.*model.float\(\)"),
        ({"y": Declared("float32", (None, 1))}, "lacks the model's input y"),
        ({}, "the model has no input x"),
    ],
)
def test_inputs_that_the_spec_does_not_describe_are_refused(
    declared: dict[str, Declared], says: str
) -> None:
    with pytest.raises(PublishError, match=says):
        in_model_terms(spec_of(x={}), declared)
