"""Scores by PyTorch, from the same exported program. For container images: torch is too large
for a zip function. Imported only when it is chosen."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from feedrank.bundle import TORCH_MODEL
from feedrank.domain import FloatArray
from feedrank.engine import one_per_item
from feedrank.errors import BundleError, ScoringError


class TorchEngine:
    """Runs on the GPU where there is one."""

    def __init__(self, path: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        # torch.export.load unpickles parts of an archive; so it takes nothing but plain tensors.
        os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
        try:
            self._module = torch.export.load(path).module().to(self._device)
        except Exception as error:
            raise BundleError(f"{TORCH_MODEL}: PyTorch refuses it: {error}") from error

    def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        tensors = [torch.from_numpy(matrix).to(self._device) for matrix in inputs.values()]
        try:
            with torch.inference_mode():
                scores = self._module(*tensors)
        except Exception as error:
            raise ScoringError("PyTorch could not run the model") from error
        return one_per_item(scores.cpu().numpy(), inputs)
