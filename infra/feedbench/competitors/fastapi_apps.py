"""FastAPI in front of torch or ONNX Runtime. Factories: uvicorn calls the one it is given.

The endpoint is a coroutine: moving to a thread would cost more than the inference.
"""

from collections.abc import Callable, Mapping

from fastapi import FastAPI

from feedbench.competitors.candidates import BUNDLE, Candidates, PredictRequest, PredictResponse
from feedrank.domain import FloatArray

Score = Callable[[Mapping[str, FloatArray]], FloatArray]


def create(candidates: Candidates, score: Score) -> FastAPI:
    app = FastAPI()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    @app.post("/predict")
    async def predict(request: PredictRequest) -> PredictResponse:
        scores = score(candidates.inputs(request.user_id, request.item_ids, request.context))
        ranking = candidates.ranking(request.user_id, request.item_ids, scores)
        return PredictResponse(**ranking)

    return app


def on_torch() -> FastAPI:
    from feedbench.competitors.network import Network

    candidates = Candidates()
    return create(candidates, Network(BUNDLE, candidates.manifest.network).score)


def on_onnx_runtime() -> FastAPI:
    from feedbench.competitors.floor import session

    return create(Candidates(), lambda inputs: session.run(None, inputs)[0].reshape(-1))
