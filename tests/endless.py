"""ONNX models that never end, or never have enough."""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

WIDTH = 15


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
        [numpy_helper.from_array(np.array(True), "true")],  # noqa: FBT003 NumPy's
    )
    model: ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    return bytes(model.SerializeToString())
