"""The store that FEATURES_URI names, between the bundle's snapshot and a team's own stores."""

from math import inf
from typing import TYPE_CHECKING, cast

from feedrank.errors import SettingsError
from feedrank.features import FeatureStore, StoreChain
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec import FeatureSpec
from feedrank.settings import Settings

if TYPE_CHECKING:
    from feedrank.features.stored_rows import RowReader

USERS = "users:"
DYNAMODB, FEAST = "dynamodb://", "feast://"
MB = 1_000_000


def stores_of(settings: Settings, more: StoreChain) -> StoreChain:
    """A chain that begins with the snapshot, and goes on with `more`."""
    if settings.features_uri == "snapshot":
        return more

    def chain(snapshot: FeatureStore, spec: FeatureSpec) -> tuple[FeatureStore, ...]:
        live = _live_store(settings, cast("SnapshotStore", snapshot), spec)
        return (snapshot, *more(live, spec))

    return chain


def _live_store(settings: Settings, snapshot: SnapshotStore, spec: FeatureSpec) -> FeatureStore:
    """Raises SettingsError where there is no such reader, SpecError where a row can't hold a
    feature."""
    from feedrank.features.live import LiveStore
    from feedrank.features.live_rows import LayoutOf, LiveLimits, packed_layout

    limits = LiveLimits(
        budget_s=settings.features_timeout_ms / 1_000,
        cache_bytes=settings.features_cache_mb * MB,
        cache_s=settings.features_cache_s,
        max_age_s=settings.max_feature_age_s or inf,
    )
    uri = settings.features_uri
    reads_items, is_feast = not uri.startswith(USERS), FEAST in uri
    layout_of: LayoutOf = packed_layout
    if is_feast:
        from feedrank.features.feast_rows import feast_layout as layout_of
    reader = _reader_of(uri.removeprefix(USERS), spec, reads_items=reads_items)
    return LiveStore(
        reader,
        snapshot,
        spec,
        limits,
        reads_items=reads_items,
        layout_of=layout_of,
        sends_texts=is_feast,
    )


def _reader_of(uri: str, spec: FeatureSpec, *, reads_items: bool) -> "RowReader":
    """Raises SettingsError, SpecError."""
    from feedrank.aws.errors import AwsError

    try:
        if uri.startswith(FEAST):
            from feedrank.features.feast import FeastTables

            return FeastTables(uri.removeprefix(FEAST), spec, reads_items=reads_items)
        from feedrank.features.dynamodb import DynamoTable

        return DynamoTable(uri.removeprefix(DYNAMODB))
    except AwsError as error:
        reason = f"FEATURES_URI: the AWS_* variables make no client: {error}"
        raise SettingsError(reason) from error
