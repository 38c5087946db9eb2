"""`feedrank spec --from`: drafts a feature spec of a model's inputs and tables.

What a draft can't know it doesn't guess: which column of a table is which column of the model's
input stands nowhere. It proposes the tables' order, and marks what doesn't add up with TODO, which
`parse_spec` refuses.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from feedrank.features.spec import FeatureSpec

TODO = "TODO"
MOST_CATEGORIES = 1_000  # of a text column, listed in the draft
SOURCES = {"users": "user", "items": "item", "pairs": "pair"}
KEYS = {"user_id", "item_id"}
INDEX = "Unnamed: "  # how pandas calls a CSV's column without a heading
ID_OF = {"users": "user_id", "items": "item_id"}


@dataclass(frozen=True, slots=True)
class TensorDescription:
    """An input or output as the model's signature has it: -1 in `shape` for rows that vary."""

    name: str
    type: str
    shape: tuple[int, ...]

    @property
    def per_item(self) -> bool:
        return bool(self.shape) and self.shape[0] == -1

    @property
    def width(self) -> int:
        fixed = [size for size in self.shape if size != -1]
        per_request_row = not self.per_item and len(fixed) > 1 and fixed[0] == 1
        return int(np.prod(fixed[1:] if per_request_row else fixed, initial=1))


@dataclass(frozen=True, slots=True)
class Draft:
    """`undecided` says in words what is left to do."""

    spec: dict[str, Any]
    undecided: list[str]


def draft(
    inputs: Sequence[TensorDescription],
    tables: Mapping[str, pd.DataFrame],
    outputs: Sequence[TensorDescription] = (),
) -> Draft:
    """One feature for each column of the tables: whole numbers for int64 inputs, the others for
    float32 inputs, in the order of the tables."""
    vocabularies = {
        name: _texts(frame[ID_OF[name]], name) for name, frame in tables.items() if name in ID_OF
    }
    item_ids = {str(id_) for id_ in tables["items"]["item_id"]} if "items" in tables else set()
    proposals = [
        _proposal(series, SOURCES[name], str(column), vocabularies, item_ids)
        for name, frame in tables.items()
        for column, series in frame.items()
        if column not in KEYS and not str(column).startswith(INDEX)
    ]
    undecided = [f"{p['name']}: {p.pop(TODO)}" for p in proposals if TODO in p]
    spec_inputs = []
    for tensor in inputs:
        whole = tensor.type == "int64"
        fitting = [
            p
            for p in proposals
            if ("vocabulary" in p) == whole and (tensor.per_item or p["source"] == "user")
        ]
        features, width = _up_to([*fitting, *(_ids(tables, tensor) if whole else [])], tensor.width)
        proposals = [p for p in proposals if p not in features]
        if width != tensor.width:
            undecided.append(
                f"input {tensor.name}: the model takes {tensor.width} columns, the tables have "
                f"{width} that fit: add what it reads of the context, such as hour, or the caller"
            )
            features.append({"name": f"{TODO} {tensor.width - width} more", "source": TODO})
        entry: dict[str, Any] = {"name": tensor.name}
        if whole:
            entry["type"] = tensor.type
        if not tensor.per_item:
            entry["per"] = "request"
        spec_inputs.append(entry | {"features": features})
        undecided.append(f"input {tensor.name}: check that the order is the model's")
    if rest := [f"{p['name']}{_so_many(p)}" for p in proposals]:
        undecided.append(f"no input has room for {', '.join(rest)}")
    spec: dict[str, Any] = {"inputs": spec_inputs}
    if any(map(_has_text_ids, tables.values())):
        spec["ids"] = "text"
    used = {f.get("vocabulary") for entry in spec_inputs for f in entry["features"]}
    if named := {name: texts for name, texts in vocabularies.items() if name in used}:
        spec["vocabularies"] = named
    undecided += [_order(name, texts) for name, texts in named.items()]
    if several := _several(outputs):
        spec["outputs"] = several
        undecided.append(
            "outputs: the weight of each in the score, or their names alone beside a score; they "
            "stand in the order in which forward returns them"
        )
    return Draft(spec, undecided)


def differences(spec: FeatureSpec, inputs: Sequence[TensorDescription]) -> Iterator[str]:
    """What of the spec is not as the model's signature has it. Names count in lower case, as
    torch.export writes them. Without inputs there is nothing to compare."""
    by_name = {input_.name.lower(): input_ for input_ in spec.inputs}
    for tensor in inputs:
        input_ = by_name.pop(tensor.name.lower(), None)
        if input_ is None:
            yield f"the model's input {tensor.name} is not in the spec"
            continue
        if input_.type != tensor.type:
            yield f"input {tensor.name} is {input_.type} in the spec, {tensor.type} in the model"
        if (input_.per == "item") != tensor.per_item:
            yield f"input {tensor.name} is per {input_.per} in the spec, not in the model"
        if input_.width != tensor.width:
            yield (
                f"input {tensor.name} has {input_.width} columns in the spec, {tensor.width} in "
                "the model"
            )
    if inputs:
        yield from (f"the model has no input {input_.name}" for input_ in by_name.values())


def _proposal(
    series: pd.Series,
    source: str,
    column: str,
    vocabularies: dict[str, list[str] | str],
    item_ids: Collection[str],
) -> dict[str, Any]:
    kind = pd.api.types.infer_dtype(series, skipna=True)
    entry: dict[str, Any] = {"name": column, "source": source}
    present = series.dropna()
    if kind in {"string", "categorical"}:
        vocabularies[column] = _texts(present, column)
        return entry | {"vocabulary": column}
    if kind.startswith(("datetime", "date")):
        return entry | {"name": f"days_since_{column}", "expression": f"since({column})"}
    if len(present) and isinstance(present.iloc[0], list | tuple | np.ndarray):
        return entry | _of_lists(present, column, item_ids)
    if kind in {"integer", "floating", "boolean", "mixed-integer-float"}:
        median = float(present.median()) if len(present) else 0.0
        return entry | {"default": round(median, 6)}
    return entry | {TODO: f"holds {kind} values, which no feature can be"}


def _of_lists(lists: pd.Series, column: str, item_ids: Collection[str]) -> dict[str, Any]:
    """What a feature of lists has beside its name and source."""
    widths = [len(value) for value in lists if len(value)] or [1]
    size = max(widths)
    first = next((value for value in lists if len(value)), [0.0])[0]
    if isinstance(first, str | int | np.integer):
        if {str(value) for values in lists for value in values} <= {*item_ids}:
            return {"size": size, "vocabulary": "items"}
        todo = f"a list of ids or texts: name its vocabulary (a list, or {column}.txt)"
        return {"size": size, "vocabulary": column, TODO: todo}
    if min(widths) == size:
        return {"size": size}
    todo = (
        f"has lists of {min(widths)} to {size} values, of which the last count; if it is a vector, "
        "leave out keep, and mend the rows that are shorter"
    )
    return {"size": size, "keep": "last", TODO: todo}


def _texts(column: pd.Series, name: str) -> list[str] | str:
    """Sorted; where there are many, the name of a file for them."""
    texts = sorted(map(str, column.dropna().unique()))
    return texts if len(texts) <= MOST_CATEGORIES else f"{name}.txt"


def _several(outputs: Sequence[TensorDescription]) -> list[dict[str, Any]]:
    """Each output, or each column of one; nothing where that is the score alone."""
    names = [
        tensor.name if tensor.width == 1 else f"{TODO} column {column}"
        for tensor in outputs
        for column in range(tensor.width)
    ]
    return [{"name": name, "weight": TODO} for name in names] if len(names) > 1 else []


def _order(name: str, texts: list[str] | str) -> str:
    text = f"vocabulary {name}: its order must be that of the training"
    if isinstance(texts, str):
        return f"{text}: write {texts}, a text a line, beside the spec"
    return f"{text}: here it is sorted"


def _ids(tables: Mapping[str, pd.DataFrame], tensor: TensorDescription) -> list[dict[str, Any]]:
    """An embedding of the id itself, of the item first."""
    names = ["items", "users"] if tensor.per_item else ["users"]
    return [
        {"name": ID_OF[name], "source": SOURCES[name], "vocabulary": name}
        for name in names
        if name in tables
    ]


def _up_to(proposals: list[dict[str, Any]], width: int) -> tuple[list[dict[str, Any]], int]:
    """As many as there is room for, the first ones first, and how many columns they take."""
    fitting, columns = [], 0
    for proposal in proposals:
        if columns + proposal.get("size", 1) <= width:
            fitting.append(proposal)
            columns += proposal.get("size", 1)
    return fitting, columns


def _so_many(proposal: Mapping[str, Any]) -> str:
    return f" ({proposal['size']} values)" if "size" in proposal else ""


def _has_text_ids(frame: pd.DataFrame) -> bool:
    return any(
        pd.api.types.infer_dtype(frame[key], skipna=True) in {"string", "categorical"}
        for key in frame.columns.intersection([*KEYS])
    )
