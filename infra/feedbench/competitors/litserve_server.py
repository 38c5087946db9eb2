"""LitServe, one worker: its HTTP side and the model are two processes. Argument: the port."""

import sys
from typing import Any

import litserve

from feedbench.competitors.candidates import PredictRequest
from feedbench.competitors.network import torch_ranker


class RankingAPI(litserve.LitAPI):  # type: ignore[misc,unused-ignore]  # LitServe's
    def setup(self, device: str) -> None:  # noqa: ARG002 always the CPU
        self._rank = torch_ranker()

    def predict(self, body: dict[str, Any]) -> dict[str, Any]:
        request = PredictRequest.model_validate(body)
        return self._rank(request.user_id, request.item_ids, request.context)


if __name__ == "__main__":
    api = RankingAPI(api_path="/predict")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    options: dict[str, Any] = {"num_api_servers": 1, "generate_client_file": False}
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", **options)
