"""ONNX Runtime behind FastAPI: what one gets for the export alone."""

import onnxruntime
from fastapi import FastAPI

from feedbench.rivals.candidates import BUNDLE, Candidates
from feedbench.rivals.wire import PredictRequest, PredictResponse
from feedrank.bundle.layout import ONNX_MODEL

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(BUNDLE / ONNX_MODEL, options)
candidates = Candidates(BUNDLE)
app = FastAPI()


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}


@app.post("/predict")
async def predict(asked: PredictRequest) -> PredictResponse:
    (scores,) = session.run(None, candidates.inputs(asked.user_id, asked.item_ids, asked.context))
    return PredictResponse(**candidates.answer(asked.user_id, asked.item_ids, scores.reshape(-1)))
