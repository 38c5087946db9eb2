"""The network from MLflow, as a plain module where its class is at hand.

MLflow returns an exported program, which checks its inputs at each call. The class doesn't, so the
weights of the demo's network go into its class: the faster of the two.
"""

from collections.abc import Mapping
from typing import Any

import mlflow.pytorch
import numpy as np
import torch

from feedbench.competitors.candidates import BUNDLE, Candidates, Rank
from feedrank.domain import FloatArray


def torch_ranker() -> Rank:
    torch.set_num_threads(1)
    candidates, module = Candidates(), mlflow.pytorch.load_model(str(BUNDLE))
    if candidates.manifest.network == "deep_mlp":
        module = plain_module(module.state_dict())

    @torch.inference_mode()
    def score(inputs: Mapping[str, FloatArray]) -> FloatArray:
        scores: FloatArray = module(*map(torch.from_numpy, inputs.values())).numpy()
        return scores.reshape(-1)

    return candidates.ranked_by(score)


def plain_module(weights: Mapping[str, Any]) -> torch.nn.Module:
    from feedmodel.demo import networks

    rows = np.ones((2, len(weights["standardise.mean"])), np.float32)  # whose values don't matter
    module = networks.DeepMLP(rows)
    module.load_state_dict(weights)
    return module.eval()
