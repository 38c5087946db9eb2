"""A Feast repository of feature tables: to try a Feast store with the model that is there.

feature_store.yaml   SQLite, or DynamoDB in a region
features.py          an entity and a feature view of users, and of items
data/                the tables, each row with the time of its event
feature_spec.json    the spec, with what it reads from these views
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pandas.api import types
from rich.console import Console

from feedmodel.publish.files import read_frame
from feedmodel.publish.tables import TABLES, TableName, find_table
from feedops.display import print_facts
from feedops.errors import OperationError
from feedrank.features.feast_views import VERSION
from feedrank.features.spec import FeatureSpec, Source
from feedrank.features.spec_reader import parse_spec

SPEC = "feature_spec.json"
EVENT_TIME = "event_timestamp"
DAY_S = 86_400
NEXT = "feast apply && feast materialize-incremental $(date -u +%Y-%m-%dT%H:%M:%S)"
VIEWS: tuple[TableName, ...] = ("users", "items")
STORE = """\
project: {project}
registry: data/registry.db
provider: local
online_store:
{online_store}
offline_store:
    type: file
entity_key_serialization_version: {version}
"""
SQLITE = "    type: sqlite\n    path: data/online_store.db"
DYNAMODB = "    type: dynamodb\n    region: {region}"
DEFINITIONS = """\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Bool, Float32, Float64, Int64, UnixTimestamp

DATA = Path(__file__).parent / "data"
"""
DEFINITION = """
{source} = Entity(name="{source}", join_keys=["{key}"], value_type=ValueType.{key_type})
{view} = FeatureView(
    name="{view}",
    entities=[{source}],
    ttl=timedelta(days={ttl_days:g}),
    schema=[
{fields}
    ],
    source=FileSource(path=str(DATA / "{view}.parquet"), timestamp_field="{time}"),
)
"""


@dataclass(frozen=True, slots=True)
class RepoOptions:
    tables: Path  # with the spec, as a training run logs them
    directory: Path
    project: str
    as_of: str  # the moment that the tables describe, ISO 8601
    region: str = ""  # of DynamoDB; empty for SQLite
    ttl_days: float = 0.0  # 0: rows never expire


class View(NamedTuple):
    name: str
    source: Source
    key: str
    frame: pd.DataFrame
    columns: Mapping[str, str]  # by the feature that is read from each


def write_repo(options: RepoOptions, console: Console) -> None:
    """Raises OperationError, PublishError, SpecError."""
    data = json.loads((options.tables / SPEC).read_text())
    spec = parse_spec(data)
    views = [_view(spec, name, options.tables) for name in VIEWS if spec.columns(TABLES[name][0])]
    data |= {"feast": _mapping(views, options.ttl_days)}
    parse_spec(data)  # refuses what can't be read from Feast
    (options.directory / "data").mkdir(parents=True, exist_ok=True)
    for view in views:
        frame = view.frame.assign(**{EVENT_TIME: pd.Timestamp(options.as_of)})
        frame.to_parquet(options.directory / f"data/{view.name}.parquet", index=False)
    online_store = DYNAMODB.format(region=options.region) if options.region else SQLITE
    store = STORE.format(project=options.project, online_store=online_store, version=VERSION)
    definitions = [_definition(spec, view, options.ttl_days) for view in views]
    for name, text in {
        "feature_store.yaml": store,
        "features.py": DEFINITIONS + "\n".join(definitions),
        SPEC: json.dumps(data, indent=1) + "\n",
    }.items():
        (options.directory / name).write_text(text)
    print_facts(console, {"repository": str(options.directory), "then": NEXT})


def _view(spec: FeatureSpec, name: TableName, directory: Path) -> View:
    source, (key,) = TABLES[name]
    columns = {feature.name: feature.column for feature in spec.columns(source)}
    path = find_table(directory, name)
    if path is None:
        raise OperationError(f"{directory}: lacks {name}.parquet or {name}.csv")
    texts = {key} if spec.ids == "text" else set[str]()
    frame = read_frame(path, {key, *columns.values()}, texts)
    if absent := sorted({key, *columns.values()} - {*frame}):
        raise OperationError(f"{path}: lacks the column {absent[0]}")
    return View(name, source, key, frame, columns)


def _mapping(views: list[View], ttl_days: float) -> dict[str, Any]:
    """The spec's `feast`."""
    ttl = {"ttl_s": ttl_days * DAY_S} if ttl_days else {}
    return {
        "views": {view.name: {"join_key": view.key, **ttl} for view in views},
        "features": {
            feature: f"{view.name}:{column}"
            for view in views
            for feature, column in view.columns.items()
        },
    }


def _definition(spec: FeatureSpec, view: View, ttl_days: float) -> str:
    fields = [
        f'        Field(name="{name}", dtype={_type(view.frame[name])}),'
        for name in dict.fromkeys(view.columns.values())
    ]
    return DEFINITION.format(
        source=view.source,
        key=view.key,
        key_type="STRING" if spec.ids == "text" else "INT64",
        view=view.name,
        ttl_days=ttl_days,
        fields="\n".join(fields),
        time=EVENT_TIME,
    )


def _type(column: "pd.Series[Any]") -> str:
    """Feast's name for it."""
    if types.is_datetime64_any_dtype(column):
        return "UnixTimestamp"
    if types.is_bool_dtype(column):
        return "Bool"
    if types.is_integer_dtype(column):
        return "Int64"
    if types.is_float_dtype(column):
        return "Float32" if column.dtype == "float32" else "Float64"
    raise OperationError(
        f"{column.name}: a column of numbers or times is needed, not {column.dtype}"
    )
