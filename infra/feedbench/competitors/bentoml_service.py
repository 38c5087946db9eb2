"""BentoML, one worker."""

import bentoml

from feedbench.competitors.candidates import PredictResponse
from feedbench.competitors.network import torch_ranker


@bentoml.service(workers=1)  # type: ignore[untyped-decorator,unused-ignore]  # BentoML's
class Ranker:
    def __init__(self) -> None:
        self._rank = torch_ranker()

    @bentoml.api  # type: ignore[untyped-decorator,unused-ignore]
    async def predict(
        self, user_id: int, item_ids: list[int], context: dict[str, str]
    ) -> PredictResponse:
        return PredictResponse(**self._rank(user_id, item_ids, context))
