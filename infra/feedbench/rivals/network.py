"""The network out of MLflow, as a plain module where its class is at hand.

MLflow gives back an exported program. That checks its inputs at each call, which the class itself
does not, so the weights go into the class: the faster of the two.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow.pytorch
import numpy as np
import torch
from torch import nn

from feedrank.domain import FloatArray


class Network:
    def __init__(self, bundle: Path, network: str) -> None:
        torch.set_num_threads(1)
        loaded = mlflow.pytorch.load_model(str(bundle))
        self._module: Any = plain(loaded, network) or loaded

    @torch.inference_mode()
    def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        scores: FloatArray = self._module(*map(torch.from_numpy, inputs.values())).numpy()
        return scores.reshape(-1)


def plain(exported: Any, network: str) -> nn.Module | None:  # noqa: ANN401 whatever MLflow holds
    """None for a network that isn't the demo's."""
    from feedmodel.demo import networks

    weights = exported.state_dict()
    widths = [len(value) for name, value in weights.items() if name.endswith("standardise.mean")]
    if network != "deep_mlp" or len(widths) != 1:
        return None
    module = networks.DeepMLP(np.ones((2, widths[0]), dtype=np.float32))
    module.load_state_dict(weights)
    return module.eval()
