"""Engines on a GPU, without one: the program's devices, the order of copies, and refusals. What a
GPU would compute, and how fast, is not tested here."""

import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch.export import ExportedProgram

import fakes
from fakes import LogLines
from feedops.workspace import PROJECT
from feedrank.bundle.layout import ONNX_MODEL, TORCH_MODEL
from feedrank.domain import DEFAULT_MAX_ITEMS, MAX_BATCH_ITEMS, FloatArray
from feedrank.errors import BundleError
from feedrank.model.engines.cuda import CudaRunner
from feedrank.model.engines.onnx import CPU, CUDA, OnnxEngine
from feedrank.model.engines.torch import TorchEngine, load_program
from feedrank.model.load import load_model

ITEMS = 7
NO_CUDA = "ENGINE_DEVICE: cuda needs the package onnxruntime-gpu, or MODEL_ENGINE=torch"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the runner asks of CUDA, in order: PyTorch without a GPU has neither streams nor pinned
    memory, so the processor's memory stands in."""
    steps: list[str] = []
    copy, empty = torch.Tensor.copy_, torch.empty

    class Stream:
        def synchronize(self) -> None:
            steps.append("synchronize")

    @contextmanager
    def stream(_: Stream) -> Iterator[None]:
        steps.append("begin")
        yield
        steps.append("end")

    def pinned(tensor: torch.Tensor) -> torch.Tensor:
        steps.append("pin")
        return tensor

    def host(*shape: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        if pin_memory:
            steps.append("host")
        return empty(*shape, **options)

    def copied(to: torch.Tensor, of: torch.Tensor, *, non_blocking: bool = False) -> torch.Tensor:
        if non_blocking:
            steps.append("copy")
        return copy(to, of)

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    monkeypatch.setattr(torch.Tensor, "copy_", copied)
    monkeypatch.setattr(torch, "empty", host)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    return steps


def _matrix(items: int) -> FloatArray:
    return np.random.default_rng(items).normal(size=(items, 15)).astype(np.float32)


def _program(bundle: Path) -> ExportedProgram:
    return load_program(bundle / TORCH_MODEL)


def test_an_inference_is_queued_as_a_whole_and_waited_for_once(
    demo_bundle: Path, steps: list[str]
) -> None:
    runner = CudaRunner(_program(demo_bundle), "cpu")
    steps.clear()
    (scores,) = runner.run([_matrix(ITEMS)])
    assert steps == ["begin", "pin", "host", "copy", "end", "synchronize"]
    expected = TorchEngine(demo_bundle / TORCH_MODEL, 1, "cpu").score({"features": _matrix(ITEMS)})
    np.testing.assert_array_equal(scores.reshape(-1), expected)


def test_float32_keeps_its_digits_in_convolutions(demo_bundle: Path, steps: list[str]) -> None:
    assert steps == []
    CudaRunner(_program(demo_bundle), "cpu")
    assert torch.backends.cudnn.allow_tf32 is False


class _Numbers(torch.nn.Module):
    """Makes a tensor of its own, on the device on which it was traced."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        numbers = torch.arange(features.shape[1], dtype=torch.float32, device=torch.device("cpu"))
        return (features * numbers).sum(1)


@pytest.mark.usefixtures("steps")
def test_what_a_program_makes_itself_is_on_the_engines_device() -> None:
    """`meta` is a device that every PyTorch has."""
    items = torch.export.Dim("items", min=1, max=4_096)
    traced = torch.export.export(
        _Numbers(), (torch.zeros(3, 15),), dynamic_shapes={"features": {0: items}}
    )
    archive = BytesIO()
    torch.export.save(traced, archive)
    runner = CudaRunner(load_program(BytesIO(archive.getvalue())), "meta")
    result = runner._module(torch.zeros(ITEMS, 15, device="meta"))
    assert isinstance(result, torch.Tensor)
    assert (result.device.type, result.shape) == ("meta", (ITEMS,))


@pytest.mark.parametrize(
    ("fixture", "shapes"),
    [
        ("demo_bundle", [((1, 15),), ((2, 15),), ((4, 15),), ((5, 15),)]),
        ("two_tower_bundle", [((1, 10), (n, 4)) for n in (1, 2, 4, 5)]),
    ],
)
@pytest.mark.usefixtures("steps")
def test_a_warm_up_runs_every_size_that_may_come(
    request: pytest.FixtureRequest,
    fixture: str,
    shapes: list[tuple[tuple[int, int], ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = _program(request.getfixturevalue(fixture))
    runner, ran = CudaRunner(program, "cpu"), []
    run = runner.run

    def noting(matrices: list[FloatArray]) -> list[FloatArray]:
        ran.append(tuple(matrix.shape for matrix in matrices))
        return run(matrices)

    monkeypatch.setattr(runner, "run", noting)
    runner.warm_up(program, 5)
    assert ran == shapes


@pytest.mark.usefixtures("steps")
def test_a_size_that_fails_ends_the_warm_up_and_is_logged(
    demo_bundle: Path, monkeypatch: pytest.MonkeyPatch, log: LogLines
) -> None:
    program = _program(demo_bundle)
    runner = CudaRunner(program, "cpu")
    run = runner.run

    def limited(matrices: list[FloatArray]) -> list[FloatArray]:
        if len(matrices[0]) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return run(matrices)

    monkeypatch.setattr(runner, "run", limited)
    runner.warm_up(program, 100)
    assert [(line["message"], line["items"], line["reason"]) for line in log()] == [
        ("warm-up ended", 4, "out of memory")
    ]


@pytest.mark.parametrize(
    ("function", "most_items"),
    [("", MAX_BATCH_ITEMS + DEFAULT_MAX_ITEMS), ("feedrank", DEFAULT_MAX_ITEMS)],
)
def test_a_gpu_is_used_where_there_is_one_and_warmed_up_to_the_largest_batch(
    demo_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[str],
    function: str,
    most_items: int,
) -> None:
    """On Lambda a batch is one request."""
    sizes: list[int] = []

    class Runner(CudaRunner):
        def __init__(self, program: ExportedProgram) -> None:
            super().__init__(program, "cpu")

        def warm_up(self, program: ExportedProgram, most_items: int) -> None:
            sizes.append(most_items)

    monkeypatch.setattr("feedrank.model.engines.cuda.CudaRunner", Runner)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", function)
    for device in ("auto", "cuda"):
        load_model(str(demo_bundle), "", fakes.settings(MODEL_ENGINE="torch", ENGINE_DEVICE=device))
    assert sizes == [most_items] * 2
    assert steps.count("synchronize") > 2  # the golden requests, which had torch's scores
    steps.clear()
    load_model(str(demo_bundle), "", fakes.settings(MODEL_ENGINE="torch", ENGINE_DEVICE="cpu"))
    assert steps == []


@pytest.mark.parametrize(
    ("engine", "text"),
    [("torch", "ENGINE_DEVICE: PyTorch finds no GPU here"), ("onnx", NO_CUDA)],
)
def test_a_gpu_that_is_not_there_is_refused(
    demo_bundle: Path, monkeypatch: pytest.MonkeyPatch, engine: str, text: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BundleError, match=text):
        load_model(str(demo_bundle), "", fakes.settings(MODEL_ENGINE=engine, ENGINE_DEVICE="cuda"))


def test_onnx_runtime_does_not_fall_back_to_the_cpu(
    demo_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It warns where a provider can't be used, and goes on with the CPU's."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    with (
        pytest.warns(UserWarning, match=CUDA),
        pytest.raises(BundleError, match="ONNX Runtime can't use a GPU here"),
    ):
        OnnxEngine(demo_bundle / ONNX_MODEL, 1, "cuda")


def test_every_engine_is_measured_by_the_number_of_items(
    demo_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    measure = runpy.run_path(str(PROJECT / "infra" / "images" / "measure.py"))
    measure["main"](str(demo_bundle), 0.0)
    _, _, *rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows] == [
        *(["onnx, cpu", str(items)] for items in measure["SIZES"]),
        *(["torch, cpu", str(items)] for items in measure["SIZES"]),
        ["torch, cuda", "not measured: ENGINE_DEVICE: PyTorch finds no GPU here"],
        ["onnx, cuda", f"not measured: {NO_CUDA}"],
    ]
    for _, items, p50_ms, p99_ms, rate in rows[:-2]:
        assert 0 < float(p50_ms) <= float(p99_ms)
        rate_of_p50 = int(items) / float(p50_ms) * 1e3
        assert float(rate.replace(",", "")) == pytest.approx(rate_of_p50, rel=0.1)
