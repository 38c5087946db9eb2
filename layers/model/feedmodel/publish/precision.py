"""Weights of 16 bits become float32, which ONNX Runtime computes in: all of them fit exactly."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from math import inf
from typing import Any

import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.fx.node import Argument, map_aggregate
from torch.utils._pytree import tree_leaves

from feedmodel.errors import PublishError

HALF = (torch.float16, torch.bfloat16)
# How far the scores of a program in 16 bits may be from those in float32: its own rounding.
APART: dict[str, float] = {"float16": 5e-3, "bfloat16": 5e-2}


def half_of(program: ExportedProgram) -> str:
    """float16 or bfloat16, where a part of the program is in it; the coarser of two."""
    dtypes = {tensor.dtype for tensor in _tensors(program)}
    coarsest = [dtype for dtype in reversed(HALF) if dtype in dtypes]
    return str(coarsest[0]).removeprefix("torch.") if coarsest else ""


def as_float32(program: ExportedProgram) -> GraphModule:
    """The same computation with float32 wherever it was in 16 bits; other types stay."""
    module = program.module(check_guards=False)
    for node in module.graph.nodes:
        if node.op == "get_attr":
            _widen(module, str(node.target))
        node.args = map_aggregate(node.args, _widened)
        node.kwargs = map_aggregate(node.kwargs, _widened)
    module.recompile()
    return module


def widening(
    half: tuple[ExportedProgram, ExportedProgram],
    names: Sequence[str],
    samples: Iterable[Mapping[str, NDArray[Any]]],
) -> str:
    """How far the program in 16 bits and the widened one are apart, in words. `names` are the
    inputs in the program's order. Raises PublishError where that is too far, or NaN."""
    kind = half_of(half[0])
    modules = [program.module() for program in half]
    types = [_types(program) for program in half]
    apart = 0.0
    for inputs in samples:
        tensors = [torch.from_numpy(inputs[name]) for name in names]
        try:
            with torch.inference_mode():
                before, after = (
                    tree_leaves(
                        module(*(t.to(kind) for t, kind in zip(tensors, each, strict=True)))
                    )
                    for module, each in zip(modules, types, strict=True)
                )
        except Exception as error:  # torch lacks some operators in 16 bits
            raise PublishError(
                f"torch can't run the model in {kind}, so its scores can't be compared with those "
                "in float32: log model.float(), with an input_example of float32"
            ) from error
        for one, other in zip(before, after, strict=True):
            size = other.abs().clamp(min=1)
            apart = max(apart, float(((one.float() - other).abs() / size).nan_to_num(inf).max()))
    if not apart <= APART[kind]:
        raise PublishError(
            f"the model's outputs in {kind} and in float32 are {apart:.2g} apart; {APART[kind]:g} "
            "is allowed: log model.float(), with an input_example of float32"
        )
    return f"from {kind} to float32: outputs {apart:.1e} apart at most, {APART[kind]:g} is allowed"


def _types(program: ExportedProgram) -> list[torch.dtype]:
    nodes = {node.name: node for node in program.graph.nodes}
    return [nodes[str(n)].meta["val"].dtype for n in program.graph_signature.user_inputs]


def _widen(module: GraphModule, name: str) -> None:
    *path, last = name.split(".")
    owner = reduce(getattr, path, module)
    tensor = getattr(owner, last)
    if not isinstance(tensor, torch.Tensor) or tensor.dtype not in HALF:
        return
    if isinstance(tensor, torch.nn.Parameter):
        setattr(owner, last, torch.nn.Parameter(tensor.detach().float(), requires_grad=False))
    else:
        setattr(owner, last, tensor.float())


def _widened(argument: Argument) -> Argument:
    return torch.float32 if isinstance(argument, torch.dtype) and argument in HALF else argument


def _tensors(program: ExportedProgram) -> Iterator[torch.Tensor]:
    values = [node.meta.get("val") for node in program.graph.nodes]
    for value in (*program.state_dict.values(), *program.constants.values(), *values):
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, torch.Tensor):
                yield each
