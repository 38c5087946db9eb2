"""Services that speak JSON: Firehose, DynamoDB, Secrets Manager.

https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html
"""

from collections.abc import Mapping
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from feedrank.aws.client import Call, Client, Limits
from feedrank.aws.connections import Exchange
from feedrank.aws.credentials import source_of
from feedrank.aws.endpoints import service_endpoint
from feedrank.aws.errors import UnreachableError
from feedrank.aws.profile import region_of
from feedrank.settings import aws_variables

MAX_RESPONSE_BYTES = 16 << 20  # that of BatchGetItem


class Service(NamedTuple):
    name: str  # in hosts, signatures and rights
    target: str  # before the operation
    version: str  # of its JSON


DYNAMODB = Service("dynamodb", "DynamoDB_20120810", "1.0")
FIREHOSE = Service("firehose", "Firehose_20150804", "1.1")
SECRETS_MANAGER = Service("secretsmanager", "secretsmanager", "1.1")


class JsonClient:
    """Calls of one service. Safe for threads."""

    def __init__(
        self,
        service: Service,
        limits: Limits,
        region: str = "",
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """In the environment's region without another one. Raises AwsConfigError."""
        variables = aws_variables() if variables is None else variables
        endpoint = service_endpoint(service.name, region or region_of(variables), variables)
        self._service = service
        self._path = endpoint.path or "/"
        self._client = Client(service.name, endpoint, source_of(variables), variables, limits)

    def call(self, operation: str, content: Mapping[str, Any], deadline_s: float) -> Any:  # noqa: ANN401 JSON
        """The response. `deadline_s` is in `perf_counter()` seconds. Raises AwsError."""
        headers = {
            "content-type": f"application/x-amz-json-{self._service.version}",
            "x-amz-target": f"{self._service.target}.{operation}",
        }
        action = f"{self._service.name}:{operation}"
        call = Call("POST", self._path, headers, action, orjson.dumps(content))
        return self._client.call(call, _parsed, deadline_s)


def _parsed(exchange: Exchange) -> Any:  # noqa: ANN401 JSON
    body = exchange.read(MAX_RESPONSE_BYTES)
    expected = exchange.header("x-amz-crc32")
    if expected and expected != str(crc32(body)):
        raise UnreachableError("the response is damaged: its CRC32 is another one")
    try:
        return orjson.loads(body)
    except ValueError as error:
        raise UnreachableError("the response is not JSON") from error
