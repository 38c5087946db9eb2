"""Scores by PyTorch, from the same exported program. For container images: torch is too large
for a zip function. Imported only when it is chosen."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from feedrank.bundle.layout import TORCH_MODEL
from feedrank.domain import FloatArray
from feedrank.errors import BundleError, ScoringError
from feedrank.model.engines import one_per_item
from feedrank.model.engines.pt2 import checked_archive


def load_program(file: Path | BytesIO) -> ExportedProgram:
    """Raises BundleError for what is no such archive, or holds more than a program and tensors."""
    archive = checked_archive(file)
    try:
        program = torch.export.load(archive)
        # PyTorch checks sizes only where there are sample inputs, of which it reads the places.
        places = program.call_spec.in_spec
        program.example_inputs = pytree.tree_unflatten([0] * places.num_leaves, places)
    except Exception as error:
        raise BundleError(f"{TORCH_MODEL}: PyTorch refuses it: {error}") from error
    return program


class TorchEngine:
    """Runs on the GPU where there is one."""

    def __init__(self, archive: Path | BytesIO, threads: int) -> None:
        torch.set_num_threads(threads)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        program = load_program(archive)
        try:
            self._module = program.module().to(self._device)
        except Exception as error:
            raise BundleError(f"{TORCH_MODEL}: PyTorch refuses it: {error}") from error

    def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        try:
            tensors = [torch.from_numpy(matrix).to(self._device) for matrix in inputs.values()]
            with torch.inference_mode():
                scores: FloatArray = self._module(*tensors).cpu().numpy()
        except Exception as error:
            raise ScoringError("PyTorch could not run the model") from error
        return one_per_item(scores, inputs)
