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
VALKEY = ("valkey://", "valkeys://")
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
    reads_items = not settings.features_uri.startswith(USERS)
    uri = settings.features_uri.removeprefix(USERS)
    is_feast = uri.startswith(FEAST)
    layout_of: LayoutOf = packed_layout
    if is_feast:
        from feedrank.features.feast_rows import feast_layout as layout_of
    if uri.startswith(VALKEY):
        reader = _valkey(uri, settings)
    else:
        reader = _tables(uri, spec, reads_items=reads_items)
    return LiveStore(
        reader,
        snapshot,
        spec,
        limits,
        reads_items=reads_items,
        layout_of=layout_of,
        sends_texts=is_feast,
    )


def _tables(uri: str, spec: FeatureSpec, *, reads_items: bool) -> "RowReader":
    """Of DynamoDB. Raises SettingsError, SpecError."""
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


def _valkey(uri: str, settings: Settings) -> "RowReader":
    from feedrank.features.valkey_rows import ValkeyRows
    from feedrank.valkey.connection import server_of

    password = settings.features_password
    who = user_and_password(
        password.get_secret_value() if password else "", settings.features_secret
    )
    return ValkeyRows(server_of(uri, *who))


def user_and_password(password: str, secret: str) -> tuple[str, str]:
    """Empty where there is none. The text of the secret in Secrets Manager is a password, or JSON
    with both, as Secrets Manager's own templates have it. Raises SettingsError."""
    if not secret:
        return "", password
    import json

    from feedrank.aws.secrets import read_secret

    text = read_secret(secret, "FEATURES_SECRET").strip()
    if not text.startswith("{"):
        return "", text
    try:
        both = json.loads(text)
        return str(both.get("username", "")), str(both["password"])
    except (ValueError, KeyError) as error:
        raise SettingsError(
            "FEATURES_SECRET: must be a password, or JSON with username and password"
        ) from error
