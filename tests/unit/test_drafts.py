"""A feature spec, drafted of a signature and tables, and explained in words."""

import pandas as pd
import pytest

from feedmodel.publish.drafts import TODO, TensorDescription, differences, draft
from feedmodel.publish.explanation import explain
from feedrank.errors import SpecError
from feedrank.features.spec_reader import parse_spec

USERS = pd.DataFrame(
    {
        "user_id": [1, 2, 3],
        "age": [20, 30, None],
        "country": ["DE", "FR", None],
        "recent": [[1.0], [], [2.0, 3.0]],
    }
)
ITEMS = pd.DataFrame(
    {
        "item_id": [7, 8],
        "price": [1.5, 2.5],
        "created_at": pd.to_datetime(["2026-01-01", "2026-02-01"]),
    }
)
AGE_DAYS = {"name": "days_since_created_at", "source": "item", "expression": "since(created_at)"}


def test_columns_become_features_of_the_inputs_that_have_room() -> None:
    proposal = draft(
        [TensorDescription("dense", "float32", (-1, 5)), TensorDescription("who", "int64", (1, 1))],
        {"users": USERS, "items": ITEMS},
    )
    assert proposal.spec == {
        "inputs": [
            {"name": "dense", "features": [
                {"name": "age", "source": "user", "default": 25.0},
                {"name": "recent", "source": "user", "size": 2, "keep": "last"},
                {"name": "price", "source": "item", "default": 2.0},
                AGE_DAYS]},
            {"name": "who", "type": "int64", "per": "request", "features": [
                {"name": "country", "source": "user", "vocabulary": "country"}]},
        ],
        "vocabularies": {"country": ["DE", "FR"]},
    }  # fmt: skip
    parse_spec(proposal.spec)
    assert proposal.undecided == [
        (
            "recent: has lists of 1 to 2 values, of which the last count; if it is a vector, leave "
            "out keep, and mend the rows that are shorter"
        ),
        "input dense: check that the order is the model's",
        "input who: check that the order is the model's",
        "vocabulary country: its order must be that of the training: here it is sorted",
    ]


def test_whole_numbers_that_no_column_has_are_the_id_itself() -> None:
    proposal = draft([TensorDescription("item", "int64", (-1,))], {"items": ITEMS})
    feature = {"name": "item_id", "source": "item", "vocabulary": "items"}
    assert proposal.spec == {
        "inputs": [{"name": "item", "type": "int64", "features": [feature]}],
        "vocabularies": {"items": ["7", "8"]},
    }
    parse_spec(proposal.spec)


def test_many_texts_go_into_a_file() -> None:
    many = pd.DataFrame({"item_id": range(2_000), "brand": [f"b{n}" for n in range(2_000)]})
    proposal = draft([TensorDescription("x", "int64", (-1, 1))], {"items": many})
    assert proposal.spec["vocabularies"] == {"brand": "brand.txt"}
    assert proposal.undecided[-1] == (
        "vocabulary brand: its order must be that of the training: write brand.txt, a text a "
        "line, beside the spec"
    )


def test_a_spec_of_another_model_is_told_apart_input_by_input() -> None:
    features = [{"name": "price", "source": "item"}, {"name": "age", "source": "user"}]
    spec = parse_spec({"inputs": [{"name": "X", "features": features}]})
    assert list(differences(spec, [TensorDescription("x", "float32", (-1, 2))])) == []
    assert list(differences(spec, [])) == []
    assert list(differences(spec, [TensorDescription("x", "int64", (1, 3))])) == [
        "input x is float32 in the spec, int64 in the model",
        "input x is per item in the spec, not in the model",
        "input x has 2 columns in the spec, 3 in the model",
    ]
    assert list(differences(spec, [TensorDescription("y", "float32", (-1, 2))])) == [
        "the model's input y is not in the spec",
        "the model has no input X",
    ]


def test_what_does_not_add_up_is_marked_and_can_not_be_published() -> None:
    proposal = draft(
        [TensorDescription("x", "float32", (-1, 4))], {"items": ITEMS[["item_id", "price"]]}
    )
    assert proposal.spec["inputs"][0]["features"][-1] == {"name": f"{TODO} 3 more", "source": TODO}
    assert proposal.undecided[0].startswith("input x: the model takes 4 columns, the tables have 1")
    with pytest.raises(SpecError, match="source must be one of"):
        parse_spec(proposal.spec)


def test_a_spec_is_explained_line_by_line() -> None:
    spec = parse_spec(
        {
            "inputs": [{"name": "x", "features": [
                {"name": "age", "source": "user", "default": 25},
                AGE_DAYS | {"name": "fresh", "default": None},
                {"name": "tv", "source": "context", "expression": "equals(device, tv)"},
                {"name": "hour", "source": "context", "expression": "hour"},
                {"name": "score", "source": "candidate"}]},
                {"name": "y", "type": "int64", "features": [
                    {"name": "genres", "source": "item", "size": 2, "vocabulary": "genre"}]}],
            "vocabularies": {"genre": ["a", "b"]},
            "outputs": [{"name": "like", "weight": 2.5}, {"name": "click", "weight": 1}],
            "range": None,
        }
    )  # fmt: skip
    assert list(explain(spec)) == [
        "Ids are whole numbers. An unknown item is ranked by the score of its defaults.",
        "Input x: float32, one row an item, 5 columns:",
        "  age: users.age; 25 where it isn't known",
        "  fresh: days since items.created_at; NaN where it isn't known",
        "  tv: equals(device, tv) of the request's context; 0 where it isn't known",
        "  hour: hour of the request's time; 0 where it isn't known",
        '  score: the request\'s "features": {"score": [...]}; 0 where it isn\'t known',
        "Input y: int64, one row an item, 2 columns:",
        (
            "  genres: items.genres; numbered by the vocabulary genre, 0 where it isn't in it; "
            "the last 2 of a list, filled in front"
        ),
        "Vocabulary genre: 2 entries, from 1",
        "Outputs, in the order in which the model gives them: like, click",
        "Score: 2.5 * like + 1 * click",
        "A score is any finite number.",
    ]


def test_several_outputs_are_listed_in_the_signatures_order_for_their_weights() -> None:
    x = TensorDescription("x", "float32", (-1, 1))
    heads = [TensorDescription(name, "float32", (-1,)) for name in ("like", "click")]
    proposal = draft([x], {"items": ITEMS[["item_id", "price"]]}, heads)
    assert proposal.spec["outputs"] == [
        {"name": "like", "weight": TODO}, {"name": "click", "weight": TODO}
    ]  # fmt: skip
    assert proposal.undecided[-1].startswith("outputs: the weight of each in the score")
    with pytest.raises(SpecError, match=r"outputs\.like must be a finite number"):
        parse_spec(proposal.spec)
    columns = [TensorDescription("y", "float32", (-1, 2))]
    names = [each["name"] for each in draft([x], {}, columns).spec["outputs"]]
    assert names == [f"{TODO} column 0", f"{TODO} column 1"]
    assert "outputs" not in draft([x], {}, [TensorDescription("y", "float32", (-1, 1))]).spec


def test_text_ids_and_a_history_of_them_are_seen() -> None:
    """The model takes fewer of the history than the longest has, so it has no room for that."""
    users = pd.DataFrame({"user_id": ["ann", "bob"], "history": [["b", "a", "b"], ["a"]]})
    items = pd.DataFrame({"item_id": ["b", "a"], "genre": ["crime", None]})
    frames = {"users": users, "items": items}
    made = draft([TensorDescription("x", "int64", (-1, 5))], frames)
    assert made.spec == {
        "inputs": [{"name": "x", "type": "int64", "features": [
            {"name": "history", "source": "user", "size": 3, "vocabulary": "items"},
            {"name": "genre", "source": "item", "vocabulary": "genre"},
            {"name": "item_id", "source": "item", "vocabulary": "items"}]}],
        "ids": "text",
        "vocabularies": {"items": ["a", "b"], "genre": ["crime"]},
    }  # fmt: skip
    parse_spec(made.spec)
    made = draft([TensorDescription("x", "int64", (-1, 2))], frames)
    assert [f["name"] for f in made.spec["inputs"][0]["features"]] == ["genre", "item_id"]
    assert "no input has room for history (3 values)" in made.undecided


def test_a_vector_is_explained_as_one() -> None:
    features = [
        {"name": "embedding", "source": "item", "size": 3},
        {"name": "dwell", "source": "user", "size": 2, "keep": "last"},
    ]
    lines = [*explain(parse_spec({"inputs": [{"name": "x", "features": features}]}))]
    assert "  embedding: items.embedding; exactly 3 numbers; 0 where it isn't known" in lines
    assert "  dwell: users.dwell; the last 2 of a list, filled in front; 0 where" in lines[3]
