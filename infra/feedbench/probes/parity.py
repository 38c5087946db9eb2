"""The handler's scores, ONNX Runtime's and torch's, for the same requests. Arguments: result,
options as JSON."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

import handler
from feedbench.probes.lambda_context import LambdaContext

result, options_json = sys.argv[1:]
options = json.loads(options_json)
serving = Path(options["bundle"]) / "serving"
inputs: dict[str, dict[str, Any]] = {}
for key, matrix in np.load(options["inputs"]).items():
    number, _, name = key.partition("/")
    inputs.setdefault(number, {})[name] = matrix
session = onnxruntime.InferenceSession(serving / "model.onnx")
module: Any = torch.export.load(serving / "model.pt2").module()
apart = {"torch and ONNX": 0.0, "torch and handler": 0.0, "ONNX and handler": 0.0}
rows = 0
for at, event in enumerate(json.loads(Path(options["events"]).read_bytes())):
    matrices = inputs[str(at)]
    (by_onnx,) = session.run(None, matrices)
    with torch.inference_mode():
        by_torch = module(*map(torch.from_numpy, matrices.values())).numpy()
    answer = json.loads(handler.lambda_handler(event, LambdaContext())["body"])
    ranked = [(each["item_id"], each["score"]) for each in answer["predictions"]]
    # An item that was asked for twice has one score, wherever it stands.
    by_handler = np.array([dict(ranked)[item] for item in json.loads(event["body"])["item_ids"]])
    pairs = (by_torch, by_onnx), (by_torch, by_handler), (by_onnx, by_handler)
    for name, (one, other) in zip(apart, pairs, strict=True):
        # np.maximum keeps a NaN, which max() may drop.
        apart[name] = float(np.maximum(apart[name], np.abs(one.ravel() - other.ravel()).max()))
    rows += len(ranked)
Path(result).write_text(json.dumps({"rows": rows, "apart": apart}))
