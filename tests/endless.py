"""ONNX models that never end, or never have enough."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, parser

from feedrank.bundle.layout import DIGEST_SIDECAR, MANIFEST, ONNX_MODEL

WIDTH = 15
# Put before the demo's model; a desktop is its feature 11. The loop takes no turn or goes on.
LOOP = """
before (float[rows, 15] features) => (float[rows, 15] passed)
<int64[1] at = {11}, int64[1] past = {12}, int64[1] columns = {1}, float half = {0.5},
 int64 turns = {4611686018427387904}>
{
    desktop = Slice(features, at, past, columns)
    most = ReduceMax<keepdims = 0>(desktop)
    goes_on = Greater(most, half)
    passed = Loop<body = turn (int64 number, bool on, float[rows, 15] value)
        => (bool still_on, float[rows, 15] next) {
            still_on = Identity(on)
            next = Identity(value)
        }>(turns, goes_on, features)
}
"""
# One operator, within which ONNX Runtime doesn't look whether to end: for a desktop it compares a
# million boxes, none of which is in another's way, each with each other.
OPERATOR = """
before (float[rows, 15] features) => (float[rows, 15] passed)
<int64[1] at = {11}, int64[1] past = {12}, int64[1] columns = {1}, float half = {0.5},
 int64[1] many = {1000000}, int64[1] few = {0}, int64[1] four = {4}, float zero = {0.0},
 int64[3] placed = {1, -1, 4}, int64[3] scored = {1, 1, -1}, float[1] least = {-1.0},
 float[1] overlap = {1.0}>
{
    desktop = Slice(features, at, past, columns)
    most = ReduceMax<keepdims = 0>(desktop)
    goes_on = Greater(most, half)
    count = Where(goes_on, many, few)
    numbers = Mul(count, four)
    corners = ConstantOfShape(numbers)
    boxes = Reshape(corners, placed)
    flat = ConstantOfShape(count)
    scores_of_boxes = Reshape(flat, scored)
    kept = NonMaxSuppression(boxes, scores_of_boxes, many, overlap, least)
    size = Size(kept)
    as_float = Cast<to = 1>(size)
    nothing = Mul(as_float, zero)
    passed = Add(features, nothing)
}
"""


def for_desktops(bundle: Path, directory: Path, before: str) -> Path:
    """The demo's bundle, whose model never ends for a request from a desktop, which no golden
    request is."""
    shutil.copytree(bundle, directory)
    model, first = onnx.load(directory / ONNX_MODEL), parser.parse_graph(before)
    for node in model.graph.node:
        node.input[:] = ["passed" if name == "features" else name for name in node.input]
    nodes = [*first.node, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(first.initializer)
    content = model.SerializeToString()
    (directory / ONNX_MODEL).write_bytes(content)
    manifest = json.loads((directory / MANIFEST).read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"][ONNX_MODEL] = {"size": len(content), "sha256": digest}
    changed = json.dumps(manifest).encode()
    (directory / MANIFEST).write_bytes(changed)
    sidecar = f"{hashlib.sha256(changed).hexdigest()}  {MANIFEST.rpartition('/')[2]}\n"
    (directory / DIGEST_SIDECAR).write_text(sidecar)
    return directory


def in_time() -> bytes:
    """A loop whose condition stays true."""
    return _loop(helper.make_node("Identity", ["value"], ["next"]))


def in_memory() -> bytes:
    """A loop that doubles what it has each time."""
    return _loop(helper.make_node("Concat", ["value", "value"], ["next"], axis=0))


def _loop(step: NodeProto) -> bytes:
    floats, flag = TensorProto.FLOAT, TensorProto.BOOL
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still_on"]), step],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", flag, []),
            helper.make_tensor_value_info("value", floats, None),
        ],
        [
            helper.make_tensor_value_info("still_on", flag, []),
            helper.make_tensor_value_info("next", floats, None),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["features"], ["mean"], axes=[1], keepdims=0),
            helper.make_node("Loop", ["", "true", "mean"], ["end"], body=body),
            helper.make_node("Sigmoid", ["end"], ["scores"]),
        ],
        "endless",
        [helper.make_tensor_value_info("features", floats, ["rows", WIDTH])],
        [helper.make_tensor_value_info("scores", floats, ["rows"])],
        [numpy_helper.from_array(np.array(True), "true")],
    )
    model: ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    return bytes(model.SerializeToString())
