"""PyTorch on a GPU: one stream, memory that the GPU reads and writes by itself, and shapes that
have run before the first request. Imported only where there is a GPU.

A copy between pinned memory and the GPU goes on while the processor queues the next kernel. So an
inference is queued as a whole, and waited for once. The next batch is made of the requests that
wait meanwhile (`feedrank.ranking.batching`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from feedrank.domain import FloatArray
from feedrank.telemetry.logging import logger

LONGEST_REASON = 400  # characters
Module = Callable[..., torch.Tensor | Sequence[torch.Tensor]]


class CudaRunner:
    """Runs a program on a GPU in one stream."""

    def __init__(self, program: ExportedProgram, device: str = "cuda") -> None:
        # A tenth of float32's digits would be lost, and the golden scores are the processor's.
        torch.backends.cudnn.allow_tf32 = False
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            # Devices that the program names itself, too, as for a tensor that it makes.
            self._module: Module = move_to_device_pass(program, device).module()

    def run(self, matrices: Sequence[FloatArray]) -> list[FloatArray]:
        with torch.cuda.stream(self._stream), torch.inference_mode():
            tensors = [
                torch.from_numpy(matrix).pin_memory().to(self._device, non_blocking=True)
                for matrix in matrices
            ]
            result = self._module(*tensors)
            parts = [result] if isinstance(result, torch.Tensor) else result
            copies = [
                torch.empty(part.shape, dtype=part.dtype, pin_memory=True).copy_(
                    part, non_blocking=True
                )
                for part in parts
            ]
        self._stream.synchronize()  # until then the copies are not there
        return [copy.numpy() for copy in copies]

    def warm_up(self, program: ExportedProgram, most_items: int) -> None:
        """Runs 1, 2, 4 ... and `most_items` items: a kernel is chosen by the shape and loaded at
        its first use, and memory is reserved for the largest. Ends at a size that fails: the
        program may have a limit of its own, and no request may come to it."""
        values = _inputs(program)
        for items in sorted({2**power for power in range(most_items.bit_length())} | {most_items}):
            try:
                self.run([_zeros(value, items) for value in values])
            except Exception as error:  # noqa: BLE001 PyTorch's errors share no base class
                logger.warning("warm-up ended", items=items, reason=str(error)[:LONGEST_REASON])
                return


def _inputs(program: ExportedProgram) -> list[Any]:
    """The tensors of the program's inputs as they were traced, without data."""
    nodes = {node.name: node for node in program.graph.nodes}
    return [nodes[str(name)].meta["val"] for name in program.graph_signature.user_inputs]


def _zeros(value: Any, items: int) -> FloatArray:  # noqa: ANN401 PyTorch's fake tensor
    """Only the number of items varies."""
    shape = [size if isinstance(size, int) else items for size in value.shape]
    return np.zeros(shape, torch.empty(0, dtype=value.dtype).numpy().dtype)
