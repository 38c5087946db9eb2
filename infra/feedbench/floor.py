"""The least that can be made of feedrank's own parts: JSON in, Pydantic, `session.run`, JSON out.

An ASGI app. Features and ranking are those of the first request of the same size, so they cost
nothing; there is no record, no log line and no metric. What it leaves of a bar is what all these
may take.
"""

from typing import Any

import numpy as np
import onnxruntime
import orjson

from feedbench.rivals.candidates import BUNDLE, Candidates
from feedbench.rivals.wire import PredictRequest
from feedrank.bundle.layout import ONNX_MODEL
from feedrank.domain import FloatArray

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(BUNDLE / ONNX_MODEL, options)
outputs = [session.get_outputs()[0].name]
candidates = Candidates(BUNDLE)
prepared: dict[int, tuple[dict[str, FloatArray], dict[str, Any]]] = {}  # by number of items


def prepare(asked: PredictRequest) -> tuple[dict[str, FloatArray], dict[str, Any]]:
    inputs = candidates.inputs(asked.user_id, asked.item_ids, asked.context)
    (scores,) = session.run(outputs, inputs)
    shown = scores.reshape(-1).astype(np.float64).round(6)
    made = inputs, candidates.answer(asked.user_id, asked.item_ids, shown)
    prepared[len(asked.item_ids)] = made
    return made


async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 ASGI's
    if scope["type"] != "http":
        return
    asked = PredictRequest.model_validate_json((await receive())["body"])
    inputs, answer = prepared.get(len(asked.item_ids)) or prepare(asked)
    session.run(outputs, inputs)
    body = orjson.dumps(answer)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
