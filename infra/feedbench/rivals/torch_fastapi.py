"""PyTorch behind FastAPI. The endpoint is a coroutine: a thread's hop would cost more than it."""

from fastapi import FastAPI

from feedbench.rivals.candidates import BUNDLE, Candidates
from feedbench.rivals.network import Network
from feedbench.rivals.wire import PredictRequest, PredictResponse

candidates = Candidates(BUNDLE)
network = Network(BUNDLE, candidates.manifest.network)
app = FastAPI()


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}


@app.post("/predict")
async def predict(asked: PredictRequest) -> PredictResponse:
    scores = network.score(candidates.inputs(asked.user_id, asked.item_ids, asked.context))
    return PredictResponse(**candidates.answer(asked.user_id, asked.item_ids, scores))
