"""A row of a store as serving reads it, by the names of the spec."""

from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from feedops.display import print_facts
from feedops.errors import OperationError
from feedops.features.load import bundle_spec
from feedops.features.rows import store_of
from feedrank.features.packed_rows import RowLayout, Rows
from feedrank.features.spec import FeatureSpec, Source
from feedrank.features.stored_rows import item_key, user_key
from feedrank.features.vocabulary import text_key


def show(uri: str, bundle: Path, source: Source, id_: str, console: Console) -> None:
    """Raises OperationError where there is no such row, or serving refuses it."""
    spec = bundle_spec(bundle)
    key = (user_key if source == "user" else item_key)(_number(spec, id_))
    stored = store_of(uri).read([key]).get(key)
    if stored is None:
        raise OperationError(f"{uri} has no {source} {id_}: it is served with the spec's defaults")
    layout = RowLayout(spec, source)
    rows, (reason,) = layout.unpack([stored.row])
    if reason:
        raise OperationError(f"{source} {id_}: serving refuses this row: {reason}")
    facts = {"time": _text_of(stored.time_s), **_cells(spec, layout, rows)}
    if stored.pairs:
        pairs, wrong = RowLayout(spec, "pair").unpack_pairs(stored.pairs)
        facts["pairs"] = f"refused: {wrong}" if wrong else f"{len(pairs):,}"
    print_facts(console, facts)


def _number(spec: FeatureSpec, id_: str) -> int:
    if spec.ids == "text":
        return text_key(id_)
    if not (id_.isascii() and id_.isdigit()):
        raise OperationError(f"{id_}: this model's ids are whole numbers")
    return int(id_)


def _text_of(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")


def _cells(spec: FeatureSpec, layout: RowLayout, rows: Rows) -> dict[str, str]:
    facts: dict[str, str] = {}
    for block in layout.blocks:
        start, cells = 0, rows[block][0]
        for feature in spec.block(layout.source, block):
            own = cells[start : start + feature.width].tolist()
            start += feature.width
            facts[feature.name] = ", ".join(f"{cell:.7g}" for cell in own)
    return facts
