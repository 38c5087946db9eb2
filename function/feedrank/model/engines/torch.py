"""Scores by PyTorch, from the same exported program. For container images: torch is too large
for a zip function. Imported only if MODEL_ENGINE names it."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from feedrank.bundle.layout import TORCH_MODEL
from feedrank.domain import DEFAULT_MAX_ITEMS, FloatArray
from feedrank.errors import BundleError, ScoringError
from feedrank.model.engines import Device, one_per_item
from feedrank.model.engines.pt2 import checked_archive

Run = Callable[[Sequence[FloatArray]], list[FloatArray]]


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
    """`auto` is the GPU where there is one. On a GPU sizes up to `most_items` run once before the
    first request."""

    def __init__(
        self,
        archive: Path | BytesIO,
        threads: int,
        device: Device = "auto",
        most_items: int = DEFAULT_MAX_ITEMS,
    ) -> None:
        torch.set_num_threads(threads)
        has_gpu = device != "cpu" and torch.cuda.is_available()
        if device == "cuda" and not has_gpu:
            raise BundleError("ENGINE_DEVICE: PyTorch finds no GPU here")
        program = load_program(archive)
        try:
            self._of_items = _input_of_items(program)
            self._run_program = _on_gpu(program, most_items) if has_gpu else _on_cpu(program)
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
            scores, *outputs = self._run_program([*inputs.values()])
        except Exception as error:
            raise ScoringError("PyTorch could not run the model") from error
        items = len(list(inputs.values())[self._of_items])
        return [one_per_item(scores, items), *outputs]


def _on_cpu(program: ExportedProgram) -> Run:
    module = program.module()

    def run(matrices: Sequence[FloatArray]) -> list[FloatArray]:
        with torch.inference_mode():
            result = module(*map(torch.from_numpy, matrices))
        parts = [result] if isinstance(result, torch.Tensor) else result
        return [part.numpy() for part in parts]

    return run


def _on_gpu(program: ExportedProgram, most_items: int) -> Run:
    from feedrank.model.engines.cuda import CudaRunner

    runner = CudaRunner(program)
    runner.warm_up(program, most_items)
    return runner.run


def _input_of_items(program: ExportedProgram) -> int:
    """The position of an input whose rows are items: their number is all that varies."""
    nodes = {node.name: node for node in program.graph.nodes}
    for position, name in enumerate(program.graph_signature.user_inputs):
        shape = nodes[str(name)].meta["val"].shape
        if shape and not isinstance(shape[0], int):
            return position
    return 0
