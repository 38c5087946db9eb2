"""FastAPI in front of torch or ONNX Runtime. Factories: uvicorn calls the one it is given.

The endpoint is a coroutine: moving to a thread would cost more than the inference.
"""

from fastapi import FastAPI

from feedbench.competitors.candidates import PredictRequest, PredictResponse, Rank


def create(rank: Rank) -> FastAPI:
    app = FastAPI()

    @app.post("/predict")
    async def predict(request: PredictRequest) -> PredictResponse:
        return PredictResponse(**rank(request.user_id, request.item_ids, request.context))

    return app


def on_torch() -> FastAPI:
    from feedbench.competitors.network import torch_ranker

    return create(torch_ranker())


def on_onnx_runtime() -> FastAPI:
    from feedbench.competitors.floor import rank

    return create(rank)
