"""A table of live features on moto, with the rows of a bundle's snapshot."""

import time
from pathlib import Path

from feedops.errors import OperationError
from feedops.features.load import bundle_spec, rows_of_tables
from feedops.features.rows import WrittenRow
from feedops.features.snapshot_tables import snapshot_tables
from feedops.features.table import SCHEME
from feedrank.bundle.layout import MANIFEST, parse_manifest
from feedrank.errors import SpecError
from feedrank.features.dynamodb import KEY, PAIRS, ROW, TIME

TABLE = "feedrank-local-features"


def fill_table(bundle: Path) -> str:
    """The URI of a new table on the endpoint that the environment names. Raises OperationError
    where a row can't hold one of the bundle's features."""
    import boto3

    manifest = parse_manifest((bundle / MANIFEST).read_bytes())
    time_s = max(manifest.snapshot_as_of_s, 0.0) or time.time()
    try:
        rows = [*rows_of_tables(bundle_spec(bundle), snapshot_tables(bundle))]
    except SpecError as error:
        raise OperationError(f"--features: {error}") from error
    table = boto3.resource("dynamodb").create_table(
        TableName=TABLE,
        KeySchema=[{"AttributeName": KEY, "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": KEY, "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with table.batch_writer() as writer:
        for row in rows:
            writer.put_item(Item=_item(row, int(time_s)))
    return f"{SCHEME}{TABLE}"


def _item(row: WrittenRow, time_s: int) -> dict[str, object]:
    values = {ROW: row.row, PAIRS: row.pairs}
    return {KEY: row.key, TIME: time_s, **{name: value for name, value in values.items() if value}}
