"""The spec's `feast`: which feature of which Feast feature view a feature of the spec is.

    {"views": {"user_stats": {"join_key": "user_id", "ttl_s": 86400},
               "item_stats": {"join_key": "item_id"}},
     "features": {"user_ctr": "user_stats:ctr", "item_ctr": "item_stats:ctr"}}

What a view is, Feast's registry knows; a container has no registry. So a view's join key, the key's
type and the time to live stand here, beside what `feature_store.yaml` says of keys and tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from feedrank.bundle import documents
from feedrank.errors import BundleError, SpecError
from feedrank.features.packed_rows import check_storable
from feedrank.features.spec import Feature, FeatureSpec, Source

KeyType = Literal["int64", "int32", "string"]
VERSION = 3  # of the keys' serialisation
TEMPLATE = "{project}.{table_name}"
MAX_TTL_S = 1e10
SOURCES: tuple[Source, ...] = ("user", "item")

_NAME = documents.text("[A-Za-z0-9_.-]{1,255}", 255)  # what a table's name may hold
VIEW_KEYS: Mapping[str, documents.Rule] = {
    "join_key": documents.text(".+", 255),
    "join_key_type": documents.one_of("int64", "int32", "string"),
    "ttl_s": documents.number(0, MAX_TTL_S),
}
_VIEW = documents.fields({"join_key": VIEW_KEYS["join_key"]}, VIEW_KEYS)
REQUIRED_KEYS = {
    "views": documents.mapping(_NAME, _VIEW),
    "features": documents.mapping(documents.text(), documents.text("[^:]+:[^:]+", 512)),
}
FEAST_KEYS = REQUIRED_KEYS | {
    "entity_key_serialization_version": documents.anything,
    "table_name_template": documents.anything,
}
_FEAST = documents.fields(REQUIRED_KEYS, FEAST_KEYS)


@dataclass(frozen=True, slots=True)
class FeastView:
    """`ttl_s` is 0 for a view whose rows never expire."""

    name: str
    join_key: str
    join_key_type: KeyType
    ttl_s: float


@dataclass(frozen=True, slots=True)
class FeastColumn:
    view: FeastView
    name: str

    def __str__(self) -> str:
        return f"{self.view.name}:{self.name}"


def check_feast(data: object, spec: FeatureSpec) -> None:
    """Raises SpecError where `data` is not what `columns_of` reads."""
    for source in SOURCES:
        _columns(data, spec, source)


def columns_of(spec: FeatureSpec, source: Source) -> Mapping[str, FeastColumn]:
    """By feature. Raises SpecError where one of this source has none, or can't have one."""
    if not spec.feast:
        raise SpecError('feature spec: has no "feast", which maps its features to Feast\'s')
    check_storable(spec, source)
    columns = _columns(spec.feast, spec, source)
    for feature in spec.columns(source):
        if feature.name not in columns:
            raise SpecError(
                f"feature spec: feast.features lacks {feature.name!r}: map every feature of a "
                f"{source}, or leave all of them to the snapshot (users:feast:// leaves items)"
            )
    return columns


def views_of(columns: Mapping[str, FeastColumn]) -> dict[FeastView, list[str]]:
    """The features that are read from each view, in the order of a stored row's parts."""
    views: dict[FeastView, dict[str, None]] = {}
    for column in columns.values():
        views.setdefault(column.view, {})[column.name] = None
    return {view: [*names] for view, names in views.items()}


def _columns(data: object, spec: FeatureSpec, source: Source) -> dict[str, FeastColumn]:
    try:
        feast = _FEAST(data, "feature spec: feast")
    except BundleError as error:
        raise SpecError(str(error)) from error
    _check_store(feast)
    views = {name: _view(name, entry, spec) for name, entry in feast["views"].items()}
    _check_names(feast["features"], views, spec)
    columns = {}
    for feature in spec.columns(source):
        if reference := feast["features"].get(feature.name):
            _check_number(feature)
            view, _, name = reference.partition(":")
            columns[feature.name] = FeastColumn(views[view], name)
    return columns


def _check_store(feast: Mapping[str, Any]) -> None:
    version = feast.get("entity_key_serialization_version", VERSION)
    if version != VERSION:
        raise SpecError(
            f"feature spec: feast.entity_key_serialization_version is {version!r}: keys are "
            f"read in version {VERSION} alone; set it in feature_store.yaml, and materialize again"
        )
    template = feast.get("table_name_template", TEMPLATE)
    if template != TEMPLATE:
        raise SpecError(
            f"feature spec: feast.table_name_template is {template!r}: tables are read by the name "
            f"{TEMPLATE} alone"
        )


def _view(name: str, entry: Mapping[str, Any], spec: FeatureSpec) -> FeastView:
    is_text = spec.ids == "text"
    type_ = entry.get("join_key_type", "string" if is_text else "int64")
    if is_text and type_ != "string":
        raise SpecError(
            f"feature spec: feast.views.{name}.join_key_type is {type_}, and the spec's ids are "
            "texts"
        )
    return FeastView(name, entry["join_key"], cast("KeyType", type_), entry.get("ttl_s", 0.0))


def _check_names(
    references: Mapping[str, str], views: Mapping[str, FeastView], spec: FeatureSpec
) -> None:
    """Each reference is of one feature of a user or an item, each view of one of the two."""
    source_of = {f.name: source for source in SOURCES for f in spec.columns(source)}
    readers: dict[str, Source] = {}
    for name, reference in references.items():
        place = f"feature spec: feast.features.{name}"
        view = reference.partition(":")[0]
        if name not in source_of:
            raise SpecError(
                f"{place}: no feature of a user or an item has this name, and others are not read "
                "from Feast: pairs are the snapshot's"
            )
        if view not in views:
            raise SpecError(f"{place}: feast.views lacks {view!r}")
        if readers.setdefault(view, source_of[name]) != source_of[name]:
            raise SpecError(f"{place}: {view!r} is a view of users and of items")
    if unused := sorted(views.keys() - readers.keys()):
        raise SpecError(f"feature spec: feast.views.{unused[0]}: no feature is read from it")


def _check_number(feature: Feature) -> None:
    if feature.size:
        raise SpecError(
            f"feature spec: feast.features.{feature.name}: is a list, and Feast's lists are not "
            "read: leave this source to the snapshot"
        )
