"""BentoML, one worker."""

import bentoml

from feedbench.competitors.candidates import BUNDLE, Candidates, PredictResponse
from feedbench.competitors.network import Network


@bentoml.service(workers=1)  # type: ignore[untyped-decorator,unused-ignore]  # BentoML's
class Ranker:
    def __init__(self) -> None:
        self._candidates = Candidates()
        self._network = Network(BUNDLE, self._candidates.manifest.network)

    @bentoml.api  # type: ignore[untyped-decorator,unused-ignore]
    async def predict(
        self, user_id: int, item_ids: list[int], context: dict[str, str]
    ) -> PredictResponse:
        scores = self._network.score(self._candidates.inputs(user_id, item_ids, context))
        return PredictResponse(**self._candidates.ranking(user_id, item_ids, scores))
