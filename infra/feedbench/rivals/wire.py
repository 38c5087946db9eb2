"""Requests and answers as the FastAPI rivals validate and document them."""

from typing import Annotated

from pydantic import BaseModel, Field

Id = Annotated[int, Field(ge=0, le=2**63 - 1)]


class PredictRequest(BaseModel):
    user_id: Id
    item_ids: list[Id] = Field(min_length=1, max_length=100)
    context: dict[str, str] = {}


class Prediction(BaseModel):
    item_id: int
    score: float
    rank: int


class PredictResponse(BaseModel):
    model_config = {"protected_namespaces": ()}

    user_id: int
    predictions: list[Prediction]
    model_version: str
