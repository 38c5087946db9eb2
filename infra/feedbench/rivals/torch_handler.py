"""The model on Lambda the plain way: MLflow loads it, torch runs it, FastAPI behind Mangum."""

import asyncio
from typing import Any

import mlflow.pytorch
import torch
from fastapi import FastAPI
from mangum import Mangum

from feedbench.rivals.candidates import BUNDLE, Candidates
from feedbench.rivals.wire import PredictRequest, PredictResponse

torch.set_num_threads(1)
candidates = Candidates(BUNDLE)
module: Any = mlflow.pytorch.load_model(str(BUNDLE))
app = FastAPI()


@app.post("/predict")
async def predict(asked: PredictRequest) -> PredictResponse:
    inputs = candidates.inputs(asked.user_id, asked.item_ids, asked.context)
    with torch.inference_mode():
        scores = module(*map(torch.from_numpy, inputs.values())).numpy().reshape(-1)
    return PredictResponse(**candidates.answer(asked.user_id, asked.item_ids, scores))


asyncio.set_event_loop(asyncio.new_event_loop())
_asgi = Mangum(app, lifespan="off")


def lambda_handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401 Lambda's
    return _asgi(event, context)
