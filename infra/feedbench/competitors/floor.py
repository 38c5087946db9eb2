"""The minimum of feedrank's own parts: JSON in, Pydantic, `session.run`, JSON out.

An ASGI app. Features and ranking are those of the first request of the same size, so they cost
nothing; there is no record, no log line and no metric. What it leaves of a bar is what all these
may take.
"""

from collections.abc import Mapping
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


def score(inputs: Mapping[str, FloatArray]) -> FloatArray:
    scores: FloatArray = session.run(outputs, inputs)[0].reshape(-1)
    return scores


rank = candidates.ranked_by(score)
short_rank = candidates.ranked_by(lambda inputs: score(inputs).astype(np.float64).round(6))


def prepare(request: PredictRequest) -> tuple[dict[str, FloatArray], dict[str, Any]]:
    arguments = request.user_id, request.item_ids, request.context
    prepared[len(request.item_ids)] = candidates.inputs(*arguments), short_rank(*arguments)
    return prepared[len(request.item_ids)]


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
