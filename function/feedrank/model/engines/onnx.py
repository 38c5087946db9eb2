"""Scores by ONNX Runtime, in the calling thread where there is one thread, or on a GPU with the
package `onnxruntime-gpu` in place of `onnxruntime`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime as ort

from feedrank.bundle.layout import ONNX_MODEL
from feedrank.domain import FloatArray
from feedrank.errors import BundleError, ScoringError
from feedrank.model.engines import Device, Stopper, one_per_item

ONNX_RUNTIME_ERROR = 3  # its log severities: 0 verbose ... 4 fatal

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class OnnxEngine:
    """`threads` comes from the function's memory: ONNX Runtime doesn't see a container's limits.
    `auto` is the CPU."""

    def __init__(self, model: Path | bytes, threads: int, device: Device = "auto") -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = ONNX_RUNTIME_ERROR
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = [_cuda_provider()] if device == "cuda" else [CPU]
        try:
            self._session = ort.InferenceSession(model, options, providers)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise BundleError(f"{ONNX_MODEL}: ONNX Runtime refuses it: {error}") from error
        if device == "cuda" and self._session.get_providers()[0] != CUDA:  # it goes on with the CPU
            raise BundleError("ENGINE_DEVICE: ONNX Runtime can't use a GPU here")
        self._outputs = [output.name for output in self._session.get_outputs()]
        # Only the number of items varies, so an input with rows of it tells how many there are.
        varying = [i.name for i in self._session.get_inputs() if i.shape and _varies(i.shape[0])]
        self._of_items = varying[0] if varying else self._session.get_inputs()[0].name

    def stopper(self) -> Stopper:
        """ONNX Runtime looks at it before each operator, also within a loop of the graph."""
        stopper: Stopper = ort.RunOptions()
        return stopper

    def score(self, inputs: Mapping[str, FloatArray], stopper: Stopper | None = None) -> FloatArray:
        (scores,) = self._run(self._outputs[:1], inputs, stopper)
        return one_per_item(scores, len(inputs[self._of_items]))

    def explain(
        self, inputs: Mapping[str, FloatArray], stopper: Stopper | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """The scores, (items,), and the outputs that they are made of, (items, outputs)."""
        scores, outputs = self._run(self._outputs[:2], inputs, stopper)
        return one_per_item(scores, len(inputs[self._of_items])), outputs

    def _run(
        self, names: Sequence[str], inputs: Mapping[str, FloatArray], stopper: Stopper | None
    ) -> list[FloatArray]:
        try:
            arrays: list[FloatArray] = self._session.run(names, inputs, stopper)
        except Exception as error:
            raise ScoringError("ONNX Runtime could not run the model") from error
        return arrays


def _cuda_provider() -> tuple[str, dict[str, str]]:
    """Without TF32, which loses digits. Raises BundleError where the package has no CUDA."""
    if CUDA not in ort.get_available_providers():
        raise BundleError(
            "ENGINE_DEVICE: cuda needs the package onnxruntime-gpu, or MODEL_ENGINE=torch"
        )
    ort.preload_dlls()  # CUDA's libraries, where they are packages beside it
    # By default each new shape is an exhaustive search, and every number of items is one.
    return CUDA, {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


def _varies(size: object) -> bool:
    """A dimension that varies has a name, or None."""
    return not isinstance(size, int)
