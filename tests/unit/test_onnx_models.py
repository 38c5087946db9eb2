"""ONNX files that others made: admitted as they are, or refused with a reason."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

import zoo
from feedmodel.errors import PublishError
from feedmodel.publish.ahead import Served, compute_ahead
from feedmodel.publish.inputs import Declared
from feedmodel.publish.onnx_models import OnnxProgram, load_onnx, onnx_file
from feedmodel.publish.scorers import bounded_scorer
from feedrank.errors import ScoringError
from feedrank.features.spec_reader import parse_spec
from feedrank.model.engines.onnx import OnnxEngine

SPEC = parse_spec(
    {"inputs": [{"name": "X", "features": [{"name": "price", "source": "item", "size": 2}]}]}
)
FLOAT, INT64, DOUBLE = TensorProto.FLOAT, TensorProto.INT64, TensorProto.DOUBLE
WEIGHTS = numpy_helper.from_array(np.ones((2, 1), np.float32), "weights")


def info(name: str, type_: int = FLOAT, shape: Any = (None, 2)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, type_, shape)


def model(**changes: Any) -> ModelProto:
    """Adds two columns."""
    parts: dict[str, Any] = {
        "nodes": [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        "inputs": [info("x")],
        "outputs": [info("y", shape=(None, 1))],
        "initializer": [WEIGHTS],
        "opsets": [helper.make_opsetid("", 15)],
    } | changes
    graph: GraphProto = helper.make_graph(
        parts["nodes"], "g", parts["inputs"], parts["outputs"], parts["initializer"]
    )
    return helper.make_model(graph, opset_imports=parts["opsets"], ir_version=8)


def saved(model: ModelProto, directory: Path) -> Path:
    path = directory / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def external() -> TensorProto:
    tensor = TensorProto()
    tensor.CopyFrom(WEIGHTS)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def within_a_branch(initializer: TensorProto) -> ModelProto:
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["b"])], "b", [], [info("b", shape=None)],
        [initializer],
    )  # fmt: skip
    true = numpy_helper.from_array(np.ones((), np.bool_), "true")
    node = helper.make_node("If", ["true"], ["y"], then_branch=branch, else_branch=branch)
    return model(nodes=[node], initializer=[true])


def endless() -> ModelProto:
    """A loop of 2**62 rounds."""
    rounds = numpy_helper.from_array(np.array(2**62), "rounds")
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Identity", ["sum"], ["next"]),
        ],
        "body",
        [info("at", INT64, ()), info("go", TensorProto.BOOL, ()), info("sum", shape=(None, 1))],
        [info("on", TensorProto.BOOL, ()), info("next", shape=(None, 1))],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["first"]),
        helper.make_node("Loop", ["rounds", "", "first"], ["y"], body=body),
    ]
    return model(nodes=nodes, initializer=[WEIGHTS, rounds])


def test_a_model_is_admitted_with_its_inputs_as_it_declares_them(tmp_path: Path) -> None:
    path = saved(model(), tmp_path)
    assert load_onnx(path, SPEC) == OnnxProgram(path, {"x": Declared("float32", (None, 2))})
    trees = saved(zoo.LambdaMart().to_onnx(), tmp_path)
    assert load_onnx(trees, SPEC).inputs == {"dense": Declared("float32", (None, 6))}


RANDOM = helper.make_node("RandomUniformLike", ["x"], ["y"])
FOREIGN = helper.make_node("MatMul", ["x", "weights"], ["y"], domain="com.microsoft")
DECLARED = [helper.make_opsetid("", 15), helper.make_opsetid("com.microsoft", 1)]


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (model(initializer=[external()]), "keeps weights in another file"),
        (within_a_branch(external()), "keeps weights in another file"),
        (model(nodes=[FOREIGN], opsets=DECLARED), "needs operators of 'com.microsoft'"),
        (model(nodes=[RANDOM], outputs=[info("y")]), r"draws random numbers \(RandomUniformLike"),
        (model(nodes=[helper.make_node("None", ["x"], ["y"])]), "ONNX's checker refuses it"),
        (model(outputs=[info("y", shape=(None, 1)), info("x")]), "one output, .* gives y, x"),
        (model(outputs=[info("x")]), "is float of 2 dimensions: items x 2"),
        (model(inputs=[info("x", shape=(1, 2))]), r"exactly 1 row\(s\); convert it with None"),
        (
            model(
                nodes=[
                    helper.make_node("Cast", ["x"], ["c"], to=FLOAT),
                    helper.make_node("MatMul", ["c", "weights"], ["y"]),
                ],
                inputs=[info("x", DOUBLE)],
            ),
            "takes double; convert it with inputs of float32",
        ),
    ],
)
def test_what_could_not_be_served_as_it_is_is_refused(
    file: ModelProto, says: str, tmp_path: Path
) -> None:
    with pytest.raises(PublishError, match=says):
        load_onnx(saved(file, tmp_path), SPEC)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(PublishError, match="no ONNX model"):
        load_onnx(path, SPEC)


@pytest.mark.parametrize("data", ["../model.onnx", "", "absent.onnx"])
def test_mlflow_must_name_a_file_of_the_model(data: str, tmp_path: Path) -> None:
    saved(model(), tmp_path)
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    (artifact / "MLmodel").write_text(f"flavors: {{onnx: {{data: '{data}'}}}}")
    with pytest.raises(PublishError, match="names no ONNX file of the model"):
        onnx_file(artifact)


def test_a_model_that_never_ends_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(endless(), tmp_path)
    load_onnx(path, SPEC)
    monkeypatch.setattr("feedmodel.publish.scorers.LONGEST_S", 0.2)
    score = bounded_scorer(OnnxEngine(path, 1))
    with pytest.raises(ScoringError, match=r"runs for more than 0.2 s"):
        score({"x": np.ones((3, 2), np.float32)})


def test_vectors_ahead_are_for_torch(tmp_path: Path) -> None:
    program = load_onnx(saved(model(), tmp_path), SPEC)
    with pytest.raises(PublishError, match="--precompute is for a PyTorch model"):
        compute_ahead(Served(SPEC, program, {}), ["X"])
