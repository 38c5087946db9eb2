"""BentoML, one worker."""

from typing import Any

import bentoml

from feedbench.rivals.candidates import BUNDLE, Candidates
from feedbench.rivals.network import Network
from feedbench.rivals.wire import PredictResponse


@bentoml.service(workers=1)  # type: ignore[untyped-decorator,unused-ignore]  # BentoML's
class Ranker:
    def __init__(self) -> None:
        self._candidates = Candidates(BUNDLE)
        self._network = Network(BUNDLE, self._candidates.manifest.network)

    @bentoml.api  # type: ignore[untyped-decorator,unused-ignore]
    async def predict(
        self, user_id: int, item_ids: list[int], context: dict[str, str]
    ) -> PredictResponse:
        scores = self._network.score(self._candidates.inputs(user_id, item_ids, context))
        answer: dict[str, Any] = self._candidates.answer(user_id, item_ids, scores)
        return PredictResponse(**answer)
