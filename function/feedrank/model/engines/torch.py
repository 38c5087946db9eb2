"""Scores by PyTorch, from the same exported program. For container images: torch is too large
for a zip function. Imported only if MODEL_ENGINE names it."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
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
            self._of_items = _input_of_items(program)
        except Exception as error:
            raise BundleError(f"{TORCH_MODEL}: PyTorch refuses it: {error}") from error

    def score(self, inputs: Mapping[str, FloatArray]) -> FloatArray:
        return self._run(inputs)[0]

    def explain(self, inputs: Mapping[str, FloatArray]) -> tuple[FloatArray, FloatArray]:
        """The scores, (items,), and the outputs that they are made of, (items, outputs)."""
        scores, *outputs = self._run(inputs)
        return scores, outputs[0] if outputs else scores[:, np.newaxis]

    def _run(self, inputs: Mapping[str, FloatArray]) -> list[FloatArray]:
        try:
            tensors = [torch.from_numpy(matrix).to(self._device) for matrix in inputs.values()]
            with torch.inference_mode():
                result = self._module(*tensors)
                parts = [result] if isinstance(result, torch.Tensor) else result
                scores, *outputs = [part.cpu().numpy() for part in parts]
        except Exception as error:
            raise ScoringError("PyTorch could not run the model") from error
        items = len(list(inputs.values())[self._of_items])
        return [one_per_item(scores, items), *outputs]


def _input_of_items(program: ExportedProgram) -> int:
    """The position of an input whose rows are items: their number is all that varies."""
    nodes = {node.name: node for node in program.graph.nodes}
    for position, name in enumerate(program.graph_signature.user_inputs):
        shape = nodes[str(name)].meta["val"].shape
        if shape and not isinstance(shape[0], int):
            return position
    return 0
