"""Reads objects of one bucket into files: small ones by one GET, large ones by parallel ranges.

S3 serves one connection at some 90 MB/s, and as many connections as are opened:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-guidelines.html
"""

import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import NamedTuple, TypeVar
from urllib.parse import quote

from feedrank.aws.checksums import BodyChecksum
from feedrank.aws.client import Call, Client, Limits
from feedrank.aws.connections import MAX_CHUNK, Exchange
from feedrank.aws.credentials import source_of
from feedrank.aws.endpoints import bucket_endpoint, endpoint_url
from feedrank.aws.errors import ServiceError, TooLargeError, UnreachableError
from feedrank.aws.parts import PART_BYTES, Part, fetch_parts
from feedrank.aws.profile import region_of
from feedrank.settings import aws_variables

Result = TypeVar("Result")
GLOBAL_REGION = "us-east-1"  # boto3's where none is set: it knows where each bucket is
PARALLEL_BYTES = 2 * PART_BYTES  # an object of more is read by ranges
PARTIAL_CONTENT = 206
ACTION = "s3:GetObject"


class Object(NamedTuple):
    """What a file has now. `etag` is of the object whose ranges are still to be read."""

    size: int
    sha256: str
    etag: str = ""


class Bucket:
    """Safe for threads. `name` may be an access point's ARN."""

    def __init__(
        self, name: str, limits: Limits, variables: Mapping[str, str] | None = None
    ) -> None:
        """Raises AwsConfigError."""
        self._name = name
        self._limits = limits
        self._variables = aws_variables() if variables is None else variables
        self._credentials = source_of(self._variables)
        self._may_move = not (name.startswith("arn:") or endpoint_url("s3", self._variables))
        self._client = self._client_in(region_of(self._variables, GLOBAL_REGION))

    def download(self, key: str, file: int, max_bytes: int, deadline_s: float) -> str:
        """Writes the object to the empty `file`, a descriptor. The SHA-256 of what it then has.
        `deadline_s` is in `perf_counter()` seconds.

        Raises AwsError, TooLargeError among them, and OSError where the file can't be written.
        """
        headers = {"x-amz-checksum-mode": "ENABLED"}
        first = self._get(
            key, headers, lambda exchange: _begin(exchange, file, max_bytes), deadline_s
        )
        if not first.etag:
            return first.sha256

        def fetch(part: Part) -> None:
            """If the object has been replaced, S3 refuses the range: 412."""
            headers = {"range": f"bytes={part.begin}-{part.end - 1}", "if-match": first.etag}
            self._get(
                key, headers, lambda response: _read_part(response, file, part, first), deadline_s
            )

        return fetch_parts(fetch, file, first.size, deadline_s)

    def _get(
        self,
        key: str,
        headers: Mapping[str, str],
        read: Callable[[Exchange], Result],
        deadline_s: float,
    ) -> Result:
        client = self._client
        call = Call("GET", f"{self._path}/{quote(key, safe='/~')}", headers, ACTION)
        try:
            return client.call(call, read, deadline_s)
        except ServiceError as error:
            if not self._may_move or error.region in {"", client.region}:
                raise
            self._client = client = self._client_in(error.region)
            return client.call(call, read, deadline_s)

    def _client_in(self, region: str) -> Client:
        endpoint = bucket_endpoint(self._name, region, self._variables)
        self._path = endpoint.path
        return Client("s3", endpoint, self._credentials, self._variables, self._limits)


def _begin(exchange: Exchange, file: int, max_bytes: int) -> Object:
    """Reads a small object. Of a large one it reads nothing: the ranges come at once."""
    size, etag = exchange.length, exchange.header("etag")
    if size is not None and size > max_bytes:
        raise TooLargeError(f"more than the {max_bytes} bytes that are allowed")
    has_ranges = etag and exchange.header("accept-ranges") == "bytes"
    if size is not None and size > PARALLEL_BYTES and has_ranges:
        return Object(size, "", etag)
    digest, checksum, size = sha256(), BodyChecksum(exchange.header, exchange.length), 0
    buffer = memoryview(bytearray(MAX_CHUNK))
    while count := exchange.read_into(buffer):
        chunk = buffer[:count]
        if size + count > max_bytes:
            raise TooLargeError(f"more than the {max_bytes} bytes that are allowed")
        digest.update(chunk)
        checksum.update(chunk)
        _write(file, chunk, size)
        size += count
    if not checksum.is_right():
        raise UnreachableError("the response is damaged: its checksum is another one")
    os.ftruncate(file, size)  # an earlier try may have written more
    return Object(size, digest.hexdigest())


def _read_part(exchange: Exchange, file: int, part: Part, whole: Object) -> None:
    expected = f"bytes {part.begin}-{part.end - 1}/{whole.size}"
    if exchange.status != PARTIAL_CONTENT or exchange.header("content-range") != expected:
        raise UnreachableError("S3 responds with another range than was asked for")
    buffer, offset = memoryview(bytearray(MAX_CHUNK)), part.begin
    while count := exchange.read_into(buffer[: part.end - offset]):
        _write(file, buffer[:count], offset)
        offset += count
    if offset != part.end:
        raise UnreachableError("the response ended too early")


def _write(file: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(file, data, offset)
        data, offset = data[count:], offset + count
