"""A model's inputs, whatever its format, against those of the feature spec."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from feedmodel.errors import PublishError
from feedrank.features.spec import FeatureSpec, Input


@dataclass(frozen=True, slots=True)
class Declared:
    """An input as the model declares it. None is a size that varies."""

    type: str
    shape: tuple[int | None, ...]


def in_model_terms(spec: FeatureSpec, declared: Mapping[str, Declared]) -> FeatureSpec:
    """The spec with its inputs in the model's order, by its names, which torch.export writes in
    lower case, and with its shapes. Raises PublishError where the spec describes other inputs."""
    lower = {name.lower(): name for name in declared}
    named: dict[str, Input] = {}
    for input_ in spec.inputs:
        name = lower.get(input_.name.lower(), input_.name)
        if name in named:
            raise PublishError(f"the feature spec describes the model's input {name} twice")
        named[name] = replace(input_, name=name)
    _check_names(declared, named)
    for name, tensor in declared.items():
        _check_input(tensor, named[name])
    return replace(
        spec, inputs=tuple(_with_shape(named[name], tensor) for name, tensor in declared.items())
    )


def _with_shape(input_: Input, tensor: Declared) -> Input:
    shape = tuple(-1 if size is None else size for size in tensor.shape)
    plain = replace(input_, shape=(), limits={})  # both are the program's
    return plain if shape == plain.tensor_shape else replace(plain, shape=shape)


def _check_names(declared: Mapping[str, Declared], named: Mapping[str, Input]) -> None:
    if missing := [name for name in declared if name not in named]:
        raise PublishError(f"the feature spec lacks the model's input {', '.join(missing)}")
    if extra := [name for name in named if name not in declared]:
        known = ", ".join(declared)
        raise PublishError(f"the model has no input {', '.join(extra)}; it takes {known}")


def _check_input(tensor: Declared, input_: Input) -> None:
    """Of an input per item the first dimension is the items, and may vary; what is left of the
    shape has a column of the spec for each number."""
    place = f"input {input_.name}: the model takes"
    if tensor.type != input_.type:
        raise PublishError(
            f"{place} {tensor.type}, not {input_.type}: "
            + (
                f'make it "type": "{tensor.type}"'
                if tensor.type in {"float32", "int64"}
                else "log model.float(), with an input_example of float32"
            )
        )
    if input_.per == "request" and None in tensor.shape:
        raise PublishError(
            f"{place} as many rows of it as there are items; "
            'make it "per": "item" in the spec, or log the model with one row of it in the '
            "input_example"
        )
    shape = tensor.shape[1:] if input_.per == "item" else tensor.shape
    fixed = [size for size in shape if size is not None]
    if len(fixed) < len(shape):
        raise PublishError(f"input {input_.name}: more than the number of items varies in it")
    if math.prod(fixed) != input_.width:
        raise PublishError(
            f"{place} {math.prod(fixed)} features, the spec describes {input_.width}"
        )
    if input_.per == "item" and tensor.shape[:1] != (None,):
        rows = tensor.shape[0] if tensor.shape else 0
        raise PublishError(
            f"{place} exactly {rows} row(s); log it with two rows or more in the input_example and "
            "-1 rows in the signature"
        )
