"""The numbers that a model takes: found by torch's own errors, and compared with each request."""

from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from feedmodel.errors import PublishError
from feedmodel.publish.limits import check_tables, with_limits
from feedmodel.publish.scorers import Scorers
from feedmodel.publish.tables import FeatureTable
from feedrank.domain import FeatureRows, FloatArray, Query
from feedrank.errors import InvalidRequestError, ScoringError, SpecError
from feedrank.features.candidates import CandidateFeatures
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.spec import FeatureSpec
from feedrank.features.spec_reader import parse_spec

ROWS = 7
TABLE = nn.Embedding(ROWS, 1)
DAY_S = 86_400.0


def spec_of(feature: dict[str, Any], type_: str = "int64", **more: Any) -> FeatureSpec:
    entry = {"name": "f", "source": "candidate", **feature}
    return parse_spec({"inputs": [{"name": "x", "type": type_, "features": [entry]}], **more})


def found(spec: FeatureSpec, forward: Callable[[Tensor], Tensor], truth: str = "torch") -> Any:
    def score(inputs: Mapping[str, FloatArray]) -> FloatArray:
        try:
            scores: FloatArray = forward(torch.from_numpy(inputs["x"])).detach().numpy()
        except (IndexError, RuntimeError) as error:
            raise ScoringError("torch could not run the model") from error
        return scores

    scorers = Scorers.__new__(Scorers)  # without a bundle's files
    scorers.spec, scorers.torch, scorers.truth = spec, score, truth
    ones = {"x": np.ones((2, spec.inputs[0].width), spec.inputs[0].type)}
    with patch.object(Scorers, "inputs", lambda _self, _query: ones):
        return with_limits(scorers, [Query(1, [1, 2], {}, 0.0)]).inputs[0].limits


@pytest.mark.parametrize(
    ("forward", "limits"),
    [
        (lambda x: TABLE(x[:, 0]), (0, ROWS - 1)),
        (lambda x: TABLE(x[:, 0] - 100 * (x[:, 0] > 3)), (0, 3)),
        (lambda x: TABLE(x[:, 0] + 2), (-2, ROWS - 3)),
        (lambda x: TABLE(x[:, 0] // 10), (0, 10 * ROWS - 1)),
        (lambda x: TABLE(x[:, 0].clamp(max=ROWS - 1)), (0, None)),
        (lambda x: TABLE(x[:, 0].clamp(min=0)), (None, ROWS - 1)),
        (lambda x: TABLE.weight[x[:, 0]], (-ROWS, ROWS - 1)),  # torch counts from the end, too
        (lambda x: TABLE(x[:, 0] % ROWS), None),
        (lambda x: x[:, 0].to(torch.float32), None),
    ],
)
def test_the_limits_are_those_of_torch(
    forward: Callable[[Tensor], Tensor], limits: tuple[int | None, int | None] | None
) -> None:
    assert found(spec_of({}), forward) == ({"f": (limits,)} if limits else {})


def test_a_float_that_becomes_an_index_is_limited_where_torch_is() -> None:
    (limits,) = found(spec_of({}, "float32"), lambda x: TABLE(x[:, 0].long()))["f"]
    low, high = map(np.float32, limits)
    assert (low, high) == (np.nextafter(np.float32(-1), 0), np.nextafter(np.float32(ROWS), 0))


def test_a_list_has_the_limits_of_each_cell() -> None:
    spec, small = spec_of({"size": 2}), nn.Embedding(3, 1)
    assert found(spec, lambda x: TABLE(x).sum(1))["f"] == ((0, ROWS - 1),) * 2
    of_each = found(spec, lambda x: small(x[:, 0]) + TABLE(x[:, 1]))["f"]
    assert of_each == ((0, 2), (0, ROWS - 1))
    shifted = found(spec, lambda x: small(x[:, 0] - 1) + TABLE(x[:, 1] + 1))["f"]
    assert shifted == ((1, 3), (-1, ROWS - 2))


def test_what_onnx_runtime_takes_from_the_end_is_no_index() -> None:
    """Where there is no torch: ONNX Runtime takes -7 to 6."""
    limits = found(spec_of({}), lambda x: TABLE.weight[x[:, 0]], truth="ONNX Runtime")
    assert limits == {"f": ((0, ROWS - 1),)}


def test_a_vocabulary_beyond_the_embedding_is_refused() -> None:
    spec = spec_of({"vocabulary": "v"}, vocabularies={"v": [*map(str, range(ROWS))]})
    with pytest.raises(PublishError, match=r"7 texts.* number 7 of f: its embedding needs 8 rows"):
        found(spec, lambda x: TABLE(x[:, 0]))
    assert found(spec, lambda x: TABLE(x[:, 0] - 1 + (x[:, 0] == 0))) == {}


def test_an_hour_beyond_the_embedding_is_refused() -> None:
    spec = spec_of({"source": "context", "expression": "hour(Europe/Berlin)"})
    with pytest.raises(PublishError, match="f goes up to 23, which the model can't score"):
        found(spec, lambda x: TABLE(x[:, 0]))
    assert found(spec, lambda x: TABLE(x[:, 0] % ROWS)) == {}


@pytest.mark.parametrize(
    ("cells", "default", "says"),
    [
        ([3, -1], 0, "table items, column f: 1 numbers, such as -1, "),
        ([9, 9], 0, "table items, column f: 2 numbers, such as 9, "),
        ([3, 4], -1, "feature spec: the default of f: 1 numbers, such as -1, "),
    ],
)
def test_a_tables_number_beyond_the_limits_is_refused(
    cells: list[int], default: int, says: str
) -> None:
    spec = limited({"source": "item", "default": default})
    ids, none = np.array([[1], [2]]), np.empty((0, 0), np.float32)
    nobody = FeatureTable(np.empty((0, 1), np.int64), none)
    items = FeatureTable(ids, none, integers=np.array(cells)[:, np.newaxis])
    with pytest.raises(PublishError, match=f"{says}are beyond what the model takes, 0 to 5"):
        check_tables(spec, {"users": nobody, "items": items, "pairs": nobody})


def limited(
    feature: dict[str, Any], type_: str = "int64", ends: Any = ((0, 5),), **more: Any
) -> FeatureSpec:
    spec = spec_of(feature, type_, **more).to_json()
    spec["inputs"][0]["limits"] = {"f": [list(pair) for pair in ends]}
    return parse_spec(spec)


def rows(integers: list[list[int]], times: list[list[float]]) -> FeatureRows:
    none = np.empty((len(integers), 0), np.float32)
    others: dict[tuple[str, str], Any] = {
        ("item", "integers"): np.array(integers), ("item", "times"): np.array(times)
    }  # fmt: skip
    unknown = np.zeros(len(integers), np.bool_)
    return FeatureRows(none[0], none, none, False, unknown, others=others)


def built(spec: FeatureSpec, query: Query, integer: int = 0, time_s: float = 0.0) -> list[Any]:
    builder = MatrixBuilder(spec, check_tables=True)
    cells = builder.build(query, rows([[1], [integer]], [[time_s], [time_s]]))
    column: list[Any] = cells["x"][:, 0].tolist()
    return column


@pytest.mark.parametrize("number", [-1, 6, 2**52])
def test_what_a_caller_sends_beyond_the_limits_is_refused(number: int) -> None:
    candidate = Query(1, [1, 2], {}, 0.0, {"f": np.array([5, number])})
    with pytest.raises(InvalidRequestError, match=r"^features\.f: must be from 0 to 5$"):
        built(limited({}), candidate)
    context = Query(1, [1, 2], {"key": str(number)}, 0.0)
    with pytest.raises(InvalidRequestError, match=r"^context\.key: must be "):
        built(limited({"source": "context", "expression": "number(key)"}), context)


def test_what_is_within_the_limits_is_taken() -> None:
    candidate = Query(1, [1, 2], {}, 0.0, {"f": np.array([5, 0])})
    assert built(limited({}), candidate) == [5, 0]
    assert built(limited({}, ends=[(None, 5)]), candidate) == [5, 0]
    assert built(limited({}, ends=[(0, None)]), candidate) == [5, 0]
    assert built(limited({"source": "item"}), candidate, 5) == [1, 5]


def test_nan_is_within_no_limits() -> None:
    query = Query(1, [1, 2], {}, 0.0)
    with pytest.raises(InvalidRequestError, match=r"features\.f: must be at most 5"):
        built(limited({"default": None}, "float32", [(None, 5)]), query)


def test_a_time_after_the_request_is_refused_where_days_are_an_index() -> None:
    spec = limited({"source": "item", "expression": "since(t)"}, "float32")
    assert built(spec, Query(1, [1, 2], {}, 3 * DAY_S)) == [3, 3]
    early = Query(1, [1, 2], {"timestamp": "1970-01-02"}, DAY_S)
    with pytest.raises(
        InvalidRequestError, match=r"context\.timestamp: the days of f must be from"
    ):
        built(spec, early, time_s=2 * DAY_S)
    with pytest.raises(ScoringError, match="item feature f: must be from 0 to 5"):
        built(spec, early._replace(context={}), time_s=2 * DAY_S)


def test_a_row_of_another_store_beyond_the_limits_fails() -> None:
    spec, query = limited({"source": "item"}), Query(1, [1, 2], {}, 0.0)
    with pytest.raises(ScoringError, match="item feature f: must be from 0 to 5"):
        built(spec, query, -1)


def test_the_schema_and_the_model_card_say_the_limits() -> None:
    features = CandidateFeatures(limited({}))
    of_item = features.schema(10)["f"]["items"]
    assert (of_item["minimum"], of_item["maximum"]) == (0, 5)
    assert features.described() == {"f": {"type": "int64", "minimum": 0, "maximum": 5}}
    half = CandidateFeatures(limited({"size": 2}, ends=[(0, None), (-3, 7)]))
    assert half.described() == {"f": {"type": "int64", "size": 2, "minimum": -3}}


def test_limits_survive_being_written_and_read_again() -> None:
    spec = limited({"size": 2}, ends=[(0, None), (-3, 7)])
    assert parse_spec(spec.to_json()) == spec
    same = limited({"size": 2}, ends=[(0, 5)])
    assert same.inputs[0].limits == {"f": ((0, 5), (0, 5))}
    assert same.to_json()["inputs"][0]["limits"] == {"f": [[0, 5]]}
    assert parse_spec(same.to_json()) == same


@pytest.mark.parametrize(
    "limits", [[0, 5], {"g": [[0, 5]]}, {"f": [0, 5]}, {"f": [[0, 5]] * 3}, {"f": [[0.5, 5]]},
               {"f": [[0]]}, {"f": [[True, 5]]}, {"f": [[0, 2**63]]}],
)  # fmt: skip
def test_limits_of_another_form_are_refused(limits: Any) -> None:
    data = spec_of({"size": 2}).to_json()
    data["inputs"][0]["limits"] = limits
    with pytest.raises(SpecError, match=r"inputs\[0\]\.limits"):
        parse_spec(data)
