"""A DynamoDB table of packed rows, as an operator writes and reads it."""

import os
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

from feedops.errors import OperationError
from feedops.features.rows import WrittenRow
from feedrank.aws.client import Limits
from feedrank.aws.errors import AwsError, ServiceError
from feedrank.aws.services import DYNAMODB, JsonClient
from feedrank.features.batch_get import MAX_KEYS
from feedrank.features.dynamodb import EXPIRY, KEY, PAIRS, ROW, TIME, stored_row
from feedrank.features.stored_rows import StoredRow

SCHEME = "dynamodb://"
LIMITS = Limits(connect_s=5.0, read_s=10.0, tries=10)
COUNTS = "n"  # of a row that a stream keeps (infra/streaming)
IS_NEWER = f"(attribute_not_exists({KEY}) OR {TIME} < :t) AND attribute_not_exists({COUNTS})"
REFUSED = "ConditionalCheckFailedException"


class FeatureTable:
    """Safe for threads."""

    def __init__(self, uri: str, variables: Mapping[str, str] = os.environ) -> None:
        """Raises OperationError where the URI or the AWS_* variables make no client."""
        if not uri.startswith(SCHEME) or not uri[len(SCHEME) :]:
            raise OperationError(f"{uri}: must be dynamodb://table")
        self.name = uri[len(SCHEME) :]
        self._call = _calls(self.name, variables)

    def write(self, row: WrittenRow, time_s: float, expires_s: float | None) -> bool:
        """False where the table has a row of the same time or a newer one, or of a stream, which
        stays."""
        item = {KEY: {"S": row.key}, TIME: {"N": repr(time_s)}}
        if row.row:
            item[ROW] = {"B": _text(row.row)}
        if row.pairs:
            item[PAIRS] = {"B": _text(row.pairs)}
        if expires_s is not None:
            item[EXPIRY] = {"N": str(int(expires_s))}
        content = {
            "TableName": self.name,
            "Item": item,
            "ConditionExpression": IS_NEWER,
            "ExpressionAttributeValues": {":t": item[TIME]},
        }
        return self._call("PutItem", content) is not None

    def read(self, keys: Sequence[str], *, expired: bool = False) -> dict[str, StoredRow]:
        rows: dict[str, StoredRow] = {}
        for start in range(0, len(keys), MAX_KEYS):
            wanted = [{KEY: {"S": key}} for key in keys[start : start + MAX_KEYS]]
            request = {self.name: {"Keys": wanted, "ConsistentRead": True}}
            while request:
                answer = self._call("BatchGetItem", {"RequestItems": request})
                for item in answer.get("Responses", {}).get(self.name, []):
                    if row := stored_row({**item, EXPIRY: {}} if expired else item):
                        rows[item[KEY]["S"]] = row
                request = answer.get("UnprocessedKeys", {})
        return rows


def _calls(table: str, variables: Mapping[str, str]) -> Callable[[str, Mapping[str, Any]], Any]:
    """Calls of the table, None for a condition that isn't met. They raise OperationError."""
    try:
        client = JsonClient(DYNAMODB, LIMITS, variables=variables)
    except AwsError as error:
        raise OperationError(f"the AWS_* variables make no client: {error}") from error

    def call(operation: str, content: Mapping[str, Any]) -> Any:  # noqa: ANN401 JSON
        try:
            return client.call(operation, content, inf)
        except AwsError as error:
            if isinstance(error, ServiceError) and error.code == REFUSED:
                return None
            raise OperationError(f"dynamodb://{table}: {error}") from error

    return call


def _text(data: bytes) -> str:
    return b64encode(data).decode()
