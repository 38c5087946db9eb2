"""LitServe, one worker: its HTTP side and the model are two processes. Argument: the port."""

import sys
from typing import Any

import litserve

from feedbench.rivals.candidates import BUNDLE, Candidates
from feedbench.rivals.network import Network
from feedbench.rivals.wire import PredictRequest


class RankingAPI(litserve.LitAPI):  # type: ignore[misc,unused-ignore]  # LitServe's
    def setup(self, device: str) -> None:  # noqa: ARG002 always the CPU
        self._candidates = Candidates(BUNDLE)
        self._network = Network(BUNDLE, self._candidates.manifest.network)

    def decode_request(self, request: dict[str, Any]) -> PredictRequest:
        return PredictRequest.model_validate(request)

    def predict(self, asked: PredictRequest) -> dict[str, Any]:
        inputs = self._candidates.inputs(asked.user_id, asked.item_ids, asked.context)
        scores = self._network.score(inputs)
        return self._candidates.answer(asked.user_id, asked.item_ids, scores)

    def encode_response(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer


if __name__ == "__main__":
    server = litserve.LitServer(
        RankingAPI(api_path="/predict"), accelerator="cpu", workers_per_device=1, fast_queue=True
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )
