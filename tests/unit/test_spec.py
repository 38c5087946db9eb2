from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import demo
from feedrank.errors import SpecError
from feedrank.features.spec import Feature, FeatureSpec, Input
from feedrank.features.spec_reader import parse_spec

ITEM = {"name": "price", "source": "item"}
HOUR = {"name": "hour", "source": "context", "expression": "hour"}


def _one(*features: Any, **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "features": list(features)} | more]}


def test_a_spec_reads_as_it_was_written() -> None:
    spec = parse_spec(
        {
            "inputs": [
                {
                    "name": "user",
                    "per": "request",
                    "features": [{"name": "age", "source": "user", "default": 30}, HOUR],
                },
                {"name": "item", "features": [ITEM]},
            ]
        }
    )
    assert spec == FeatureSpec(
        (
            Input("user", "request", (Feature("age", "user", 30.0), _feature_hour())),
            Input("item", "item", (Feature("price", "item", 0.0),)),
        )
    )


def _feature_hour() -> Feature:
    return Feature("hour", "context", 0.0, "hour")


@pytest.mark.parametrize("data", [demo.demo_spec(), demo.two_tower_spec()])
def test_a_spec_is_the_same_after_writing_and_reading(data: dict[str, Any]) -> None:
    spec = parse_spec(data)
    assert parse_spec(spec.to_json()) == spec


def test_a_tables_columns_come_in_the_order_of_the_spec_and_once() -> None:
    shared = {"name": "age", "source": "user", "default": 7}
    spec = parse_spec(
        {
            "inputs": [
                {"name": "a", "features": [ITEM, {"name": "ctr", "source": "user"}, shared]},
                {"name": "b", "features": [shared, HOUR]},
            ]
        }
    )
    assert [feature.name for feature in spec.columns("user")] == ["ctr", "age"]
    assert spec.defaults("user").tolist() == [0.0, 7.0]
    assert spec.defaults("pair").shape == (0,)
    assert spec.defaults("user").dtype == np.float32


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "feature spec must be an object"),
        ([], "feature spec must be an object"),
        ({}, "feature spec.inputs must be a list with at least one entry"),
        ({"inputs": []}, "feature spec.inputs must be a list with at least one entry"),
        ({"inputs": {}}, "feature spec.inputs must be a list"),
        ({"inputs": ["x"]}, "inputs[0] must be an object"),
        ({"inputs": [{"features": [ITEM]}]}, "inputs[0].name must be a text"),
        ({"inputs": [], "more": 1}, "feature spec: unknown key 'more'"),
        (_one(ITEM, per="user"), "inputs[0].per must be 'item' or 'request', not 'user'"),
        (_one(ITEM, per=["item"]), "inputs[0].per must be"),
        (_one(), "inputs[0].features must be a list with at least one entry"),
        (_one(ITEM, ITEM), "inputs[0]: feature 'price' stands twice"),
        (_one(ITEM, width=3), "inputs[0]: unknown key 'width'"),
        (_one(HOUR, per="request"), "at least one input must be per item"),
        (_one(ITEM, per="request"), "'price' differs by item"),
        (_one({"name": "x", "source": "pair"}, per="request"), "'x' differs by item"),
        (_one({"name": "x", "source": "shop"}), "features[0].source must be one of user, item"),
        (_one({"name": "x", "source": ["item"]}), "features[0].source must be one of"),
        (_one({"name": "", "source": "item"}), "features[0].name must be a text"),
        (_one({"name": 5, "source": "item"}), "features[0].name must be a text"),
        (_one(ITEM | {"weight": 1}), "features[0]: unknown key 'weight'"),
        (_one(ITEM | {"expression": "hour"}), "a context feature, and no other, needs"),
        (_one({"name": "x", "source": "context"}), "a context feature, and no other, needs"),
        (_one(HOUR | {"expression": "minute"}), "features[0]: context expression 'minute'"),
        (_one(HOUR | {"expression": 5}), "inputs[0].features[0].expression must be a text"),
        (_one(ITEM | {"default": True}), "features[0].default must be a number"),
        (_one(ITEM | {"default": "1"}), "features[0].default must be a number"),
        (
            _one(ITEM | {"default": None}, type="int64"),
            "null is NaN, which an int64 input can't hold",
        ),
        (
            _one(ITEM | {"default": float("nan")}),
            "features[0].default must be a finite 32-bit number",
        ),
        (_one(ITEM | {"default": 1e39}), "features[0].default must be a finite 32-bit number"),
        (_one(ITEM | {"default": 10**400}), "features[0].default must be a finite"),
        ({"inputs": [*_one(ITEM)["inputs"], *_one(HOUR)["inputs"]]}, "inputs share a name: x, x"),
    ],
)
def test_an_invalid_spec_is_refused_with_its_place(data: Any, says: str) -> None:
    with pytest.raises(SpecError) as error:
        parse_spec(data)
    assert says in str(error.value)


def test_a_feature_name_has_one_definition() -> None:
    inputs = [
        {"name": "a", "features": [ITEM]},
        {"name": "b", "features": [ITEM | {"default": 2}]},
    ]
    with pytest.raises(SpecError, match="'price' is described in two ways"):
        parse_spec({"inputs": inputs})


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["inputs", "name", "per", "features", "source", "default", "expression"]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(_json)
def test_any_data_gives_a_spec_or_a_spec_error(data: object) -> None:
    with suppress(SpecError):
        parse_spec(data)


@given(_json, _json)
def test_any_feature_gives_a_spec_or_a_spec_error(first: object, second: object) -> None:
    with suppress(SpecError):
        parse_spec({"inputs": [{"name": "x", "per": first, "features": [second, ITEM]}]})
