"""The network from MLflow, as a plain module where its class is at hand.

MLflow returns an exported program, which checks its inputs at each call. The class doesn't, so the
weights go into the class: the faster of the two.
"""

from collections.abc import Mapping
from typing import Any

import mlflow.pytorch
import numpy as np
import torch
from torch import nn

from feedbench.competitors.candidates import BUNDLE, Candidates, Rank
from feedrank.domain import FloatArray


def torch_ranker(*, plain: bool = True) -> Rank:
    """Without `plain`, the exported program itself."""
    torch.set_num_threads(1)
    candidates, exported = Candidates(), mlflow.pytorch.load_model(str(BUNDLE))
    network = candidates.manifest.network if plain else None
    module: Any = plain_module(exported, network) or exported

    @torch.inference_mode()
    def score(inputs: Mapping[str, FloatArray]) -> FloatArray:
        scores: FloatArray = module(*map(torch.from_numpy, inputs.values())).numpy()
        return scores.reshape(-1)

    return candidates.ranked_by(score)


def plain_module(exported: Any, network: str | None) -> nn.Module | None:  # noqa: ANN401 MLflow's
    """None for a network other than the demo's."""
    if network != "deep_mlp":
        return None
    from feedmodel.demo import networks

    weights = exported.state_dict()
    widths = [len(value) for name, value in weights.items() if name.endswith("standardise.mean")]
    if len(widths) != 1:
        return None
    module = networks.DeepMLP(np.ones((2, widths[0]), dtype=np.float32))
    module.load_state_dict(weights)
    return module.eval()
