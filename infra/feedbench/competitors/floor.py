"""The minimum of feedrank's own parts: JSON in, Pydantic, `session.run`, JSON out.

An ASGI app. Features and ranking are those of the first request of the same size, so they cost
nothing; there is no record, no log line and no metric. What it leaves of a bar is what all these
may take.
"""

from typing import Any

import numpy as np
import onnxruntime
import orjson

from feedbench.competitors.candidates import BUNDLE, Candidates, PredictRequest
from feedrank.bundle.layout import ONNX_MODEL
from feedrank.domain import FloatArray

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(BUNDLE / ONNX_MODEL, options)
outputs = [session.get_outputs()[0].name]
candidates = Candidates()
prepared: dict[int, tuple[dict[str, FloatArray], dict[str, Any]]] = {}  # by number of items


def prepare(request: PredictRequest) -> tuple[dict[str, FloatArray], dict[str, Any]]:
    user_id, item_ids = request.user_id, request.item_ids
    inputs = candidates.inputs(user_id, item_ids, request.context)
    scores = session.run(outputs, inputs)[0].reshape(-1).astype(np.float64).round(6)
    prepared[len(item_ids)] = inputs, candidates.ranking(user_id, item_ids, scores)
    return prepared[len(item_ids)]


async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 ASGI's
    if scope["type"] != "http":
        return
    request = PredictRequest.model_validate_json((await receive())["body"])
    inputs, ranking = prepared.get(len(request.item_ids)) or prepare(request)
    session.run(outputs, inputs)
    body = orjson.dumps(ranking)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
