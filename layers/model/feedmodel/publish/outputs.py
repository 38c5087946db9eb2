"""A model's several outputs, made into one score within the exported program.

The score is a weighted sum, or an expression such as `click * (1 + 2 * like)`: numbers, the names
of outputs, + - * / **, min, max, log1p, exp and sigmoid. It is parsed into torch operations, so
that engines run it with the model, and is never evaluated as Python.
"""

import ast
import json
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor
from torch.export import ExportedProgram

from feedmodel.errors import PublishError
from feedrank.features.spec import FeatureSpec

OPERATORS: Mapping[type[ast.operator], Callable[[Tensor, Tensor], Tensor]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: torch.pow,
}
FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "log1p": torch.log1p,
    "exp": torch.exp,
    "sigmoid": torch.sigmoid,
}
REDUCTIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "min": torch.minimum,
    "max": torch.maximum,
}
NAMING = (dict, OrderedDict)  # what a forward returns that names its outputs


def parse_score(expression: str, names: Sequence[str]) -> ast.expr:
    """Raises PublishError that says what the expression may hold."""
    try:
        tree = ast.parse(expression, mode="eval").body
        used = set(_names(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise PublishError(
            f"feature spec: score {expression!r}: {error}; it may hold numbers, the outputs "
            f"{', '.join(names)}, + - * / **, {', '.join((*REDUCTIONS, *FUNCTIONS))}"
        ) from error
    if unknown := sorted(used - {*names}):
        raise PublishError(
            f"feature spec: score: no output is named {unknown[0]!r}; they are {', '.join(names)}"
        )
    if unused := [name for name in names if name not in used]:
        raise PublishError(
            f"feature spec: score doesn't use the output {unused[0]!r}; add `+ 0 * {unused[0]}` to "
            "show it without ranking by it"
        )
    return tree


class Wrapper(torch.nn.Module):
    """What publishing puts around a model."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model


class Combined(Wrapper):
    """A model that gives its score, (items,), and beside it its outputs, (items, outputs)."""

    def __init__(self, model: torch.nn.Module, spec: FeatureSpec) -> None:
        super().__init__(model)
        self._weights = dict(spec.outputs)
        self._shown = spec.output_names
        self._tree = parse_score(spec.score, tuple(spec.outputs)) if spec.score else None

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        outputs = named_outputs(self.model(*inputs), tuple(self._weights))
        if self._tree is None:
            weighted = [weight * outputs[name] for name, weight in self._weights.items()]
            score = reduce(operator.add, weighted)
        else:
            score = _computed(self._tree, outputs)
        return score, torch.stack([outputs[name] for name in self._shown], dim=1)


def in_model_order(
    spec: FeatureSpec, program: ExportedProgram, signature: Sequence[str]
) -> FeatureSpec:
    """The spec with its outputs in the order in which the program gives them. `signature` are their
    names in MLflow's signature, which has that order too, where it names them.

    Raises PublishError where the spec has no order and the model no names, or both have another."""
    names = tuple(spec.outputs)
    if len(names) <= 1 or program.call_spec.out_spec.type in NAMING:
        return spec
    if {*signature} == {*names}:
        if spec.has_order and names != tuple(signature):
            raise PublishError(
                f"the feature spec has the outputs {', '.join(names)} in this order, the model's "
                f"signature {', '.join(signature)}"
            )
        weights = {name: spec.outputs[name] for name in signature}
        return replace(spec, outputs=weights, has_order=True)
    if not spec.has_order:
        listed = json.dumps([{"name": n, "weight": w} for n, w in spec.outputs.items()])
        raise PublishError(
            "the model gives its outputs without names, and an object of JSON has no order: list "
            f'them in the order in which forward returns them, such as "outputs": {listed}'
        )
    return spec


def named_outputs(result: object, names: Sequence[str]) -> dict[str, Tensor]:
    """Each output as (items,) float32: of a dict by name, of a tuple, a list or the columns of one
    tensor in their order. Raises PublishError where the model's outputs are not those."""
    if isinstance(result, Mapping):
        if missing := [name for name in names if name not in result]:
            raise PublishError(
                f"the model has no output {missing[0]!r}; it gives {', '.join(map(str, result))}"
            )
        parts: Sequence[object] = [result[name] for name in names]
    elif isinstance(result, Tensor):
        parts = result.unbind(dim=1) if result.dim() > 1 else [result]
    elif isinstance(result, tuple | list):
        parts = result
    else:
        raise PublishError(f"the model gives a {type(result).__name__}, not tensors")
    if len(parts) != len(names):
        raise PublishError(
            f"the model gives {len(parts)} outputs, the spec names {len(names)}: {', '.join(names)}"
        )
    return {name: _flat(part, name) for name, part in zip(names, parts, strict=True)}


def _flat(part: object, name: str) -> Tensor:
    if not isinstance(part, Tensor):
        raise PublishError(f"output {name!r} is a {type(part).__name__}, not a tensor")
    return part.reshape(-1).to(torch.float32)


def _names(node: ast.expr) -> Iterator[str]:
    """The names of outputs in it. Raises ValueError for what no score may hold."""
    match node:
        case ast.Constant(value=bool() | str() | bytes() | complex() | None):
            raise ValueError(f"{node.value!r} is no number")
        case ast.Constant():
            float(node.value)  # type: ignore[arg-type]  # Ellipsis is a TypeError's
        case ast.Name():
            yield node.id
        case ast.BinOp() if type(node.op) in OPERATORS:
            if type(node.op) is ast.Pow and type(node.right) is not ast.Constant:
                raise ValueError("an exponent must be a number")
            yield from _names(node.left)
            yield from _names(node.right)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            yield from _names(node.operand)
        case ast.Call(func=ast.Name(id=name), keywords=[]) if (
            name in FUNCTIONS and len(node.args) == 1
        ) or (name in REDUCTIONS and len(node.args) > 1):
            for argument in node.args:
                yield from _names(argument)
        case _:
            raise ValueError(f"{ast.unparse(node)!r} can't stand in a score")


def _computed(node: ast.expr, outputs: Mapping[str, Tensor]) -> Tensor:
    match node:
        case ast.Constant():
            return torch.tensor(float(node.value), dtype=torch.float32)  # type: ignore[arg-type]
        case ast.Name():
            return outputs[node.id]
        case ast.BinOp():
            left, right = _computed(node.left, outputs), _computed(node.right, outputs)
            return OPERATORS[type(node.op)](left, right)
        case ast.UnaryOp():
            value = _computed(node.operand, outputs)
            return -value if isinstance(node.op, ast.USub) else value
        case ast.Call(func=ast.Name(id=name)):
            values = [_computed(argument, outputs) for argument in node.args]
            if name in FUNCTIONS:
                return FUNCTIONS[name](values[0])
            return reduce(REDUCTIONS[name], values)
    raise AssertionError(ast.dump(node))
