"""The threads that a setting or the memory size allows are those that the engine has."""

from pathlib import Path

import onnxruntime
import pytest
import torch

import fakes
from feedrank.model.load import load_model


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_engine_threads_reach_onnx_runtime(
    demo_bundle: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """As many within an operator, one operator at a time, and none that spins while it waits."""
    sessions: list[onnxruntime.SessionOptions] = []
    start = onnxruntime.InferenceSession

    def noting(
        model: bytes, options: onnxruntime.SessionOptions, providers: list[str]
    ) -> onnxruntime.InferenceSession:
        session = start(model, options, providers)
        sessions.append(session.get_session_options())
        return session

    monkeypatch.setattr(onnxruntime, "InferenceSession", noting)
    load_model(str(demo_bundle), "", fakes.settings(ENGINE_THREADS=str(threads)))
    (options,) = sessions
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize(("memory_mb", "threads"), [("1769", 1), ("3538", 2)])
def test_a_functions_vcpus_reach_onnx_runtime(
    demo_bundle: Path, monkeypatch: pytest.MonkeyPatch, memory_mb: str, threads: int
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory_mb)
    engine = load_model(str(demo_bundle), "", fakes.settings()).engine
    options = engine._session.get_session_options()  # type: ignore[attr-defined]
    assert options.intra_op_num_threads == threads


def test_engine_threads_reach_torch(demo_bundle: Path) -> None:
    before = torch.get_num_threads()
    try:
        settings = fakes.settings(MODEL_ENGINE="torch", ENGINE_THREADS="3")
        load_model(str(demo_bundle), "", settings)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
