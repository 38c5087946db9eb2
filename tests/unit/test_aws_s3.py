"""Objects read into files: whole, by parallel ranges, and what goes wrong on the way."""

import hashlib
import os
import re
import tempfile
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from math import inf
from threading import Barrier, Event
from threading import enumerate as enumerate_threads
from typing import IO
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedrank.aws import client as client_module
from feedrank.aws import connections as connections_module
from feedrank.aws import parts as parts_module
from feedrank.aws import s3 as module
from feedrank.aws.checksums import crc64_nvme
from feedrank.aws.client import Limits
from feedrank.aws.endpoints import Endpoint
from feedrank.aws.errors import AwsError, ServiceError, TooLargeError, UnreachableError
from feedrank.aws.parts import MAX_THREADS, THREADS, Part, fetch_parts
from feedrank.aws.s3 import Bucket
from scripted import Answer, Scripted, Sent, scripted

LIMITS = Limits(connect_s=30.0, read_s=30.0, tries=2)
PART = 1_000
KEY = "serving/model.onnx"
ETAG = '"of-this-object"'
MOVED = Answer(
    301, b"<Error><Code>PermanentRedirect</Code></Error>", {"x-amz-bucket-region": "ap-south-1"}
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    monkeypatch.setattr(client_module, "sleep", lambda _: None)
    for part_module in (module, parts_module):
        monkeypatch.setattr(part_module, "PART_BYTES", PART)
    monkeypatch.setattr(module, "PARALLEL_BYTES", 2 * PART)
    with scripted() as server:
        yield server


@pytest.fixture
def file() -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile(buffering=0) as file:
        yield file


def _bucket(server: Scripted) -> Bucket:
    variables = {
        "AWS_ENDPOINT_URL_S3": server.url,
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "a-secret-key",
    }
    return Bucket("models", LIMITS, variables)


def _download(server: Scripted, file: IO[bytes], max_bytes: int = 1 << 30) -> bytes:
    """What the file has; its SHA-256 is compared."""
    digest = _bucket(server).download(KEY, file.fileno(), max_bytes, inf)
    content = os.pread(file.fileno(), 1 << 30, 0)
    assert digest == hashlib.sha256(content).hexdigest()
    return content


def _refused(
    server: Scripted, file: IO[bytes], error: type[AwsError], max_bytes: int = 1 << 30
) -> str:
    with pytest.raises(error) as caught:
        _bucket(server).download(KEY, file.fileno(), max_bytes, inf)
    return str(caught.value)


class Store:
    """One object, as S3 serves it."""

    def __init__(self, content: bytes, etag: str = ETAG) -> None:
        self.content = content
        self.etag = etag
        self.ranges: Counter[str] = Counter()
        self.headers: dict[str, str] = {}

    def __call__(self, sent: Sent) -> Answer:
        assert sent.path == f"/models/{KEY}"
        headers = {"ETag": self.etag, "Accept-Ranges": "bytes", **self.headers}
        if not (asked := sent.headers.get("range")):
            return Answer(200, self.content, headers)
        self.ranges[asked] += 1
        if sent.headers["if-match"] != self.etag:
            return Answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
        assert match
        begin, last = int(match[1]), min(int(match[2]), len(self.content) - 1)
        headers["Content-Range"] = f"bytes {begin}-{last}/{len(self.content)}"
        return Answer(206, self.content[begin : last + 1], headers)


def _content(size: int) -> bytes:
    return hashlib.shake_128(b"content").digest(size)


@pytest.mark.parametrize("size", [1, PART, 2 * PART, 2 * PART + 1, 9 * PART, 25 * PART + 7])
def test_an_object_of_any_size_arrives_as_it_is(
    server: Scripted, file: IO[bytes], size: int
) -> None:
    store = server.respond = Store(_content(size))
    assert _download(server, file) == store.content
    is_large = size > 2 * PART
    assert len(store.ranges) == (-(-size // PART) if is_large else 0)
    assert set(store.ranges.values()) <= {1}


def test_parts_come_side_by_side(server: Scripted, file: IO[bytes]) -> None:
    """Each of the first eight is answered when all of them have been asked for."""
    store, gate = Store(_content(20 * PART)), Barrier(MAX_THREADS)

    def respond(sent: Sent) -> Answer:
        answer = store(sent)
        if sum(store.ranges.values()) <= MAX_THREADS and answer.status == 206:
            gate.wait(30)
        return answer

    server.respond = respond
    assert _download(server, file) == store.content
    assert len(set(server.ports)) <= MAX_THREADS + 1, "their connections stay open"


def test_an_object_that_is_replaced_meanwhile_is_refused(server: Scripted, file: IO[bytes]) -> None:
    old, new = Store(_content(9 * PART)), Store(bytes(9 * PART), '"of-another"')
    server.respond = lambda sent: (
        new if sent.headers.get("range", "").startswith("bytes=3") else old
    )(sent)
    assert _refused(server, file, ServiceError) == "PreconditionFailed"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(206, _content(PART), fault="truncated"),
        Answer(206, _content(PART)),  # of nobody knows what
        Answer(206, _content(PART), {"Content-Range": f"bytes 0-{PART - 1}/8"}),
        Answer(200, _content(9 * PART)),
        Answer(503, b"<Error><Code>SlowDown</Code></Error>"),
        Answer(fault="reset"),
    ],
)
def test_a_part_that_fails_is_asked_for_once_more(
    server: Scripted, file: IO[bytes], answer: Answer
) -> None:
    store = Store(_content(9 * PART))
    is_always = False

    def respond(sent: Sent) -> Answer:
        good = store(sent)
        asked = sent.headers.get("range", "")
        fails = asked.startswith("bytes=4000-") and (is_always or store.ranges[asked] == 1)
        return answer if fails else good

    server.respond = respond
    assert _download(server, file) == store.content
    assert sorted(store.ranges.values()) == [*[1] * 8, 2]
    is_always = True
    _refused(server, file, AwsError)


@pytest.mark.parametrize("headers", [{"ETag": ""}, {"Accept-Ranges": "none"}])
def test_a_store_without_ranges_serves_large_objects_by_one_stream(
    server: Scripted, file: IO[bytes], headers: dict[str, str]
) -> None:
    store = server.respond = Store(_content(9 * PART))
    store.headers = headers
    assert _download(server, file) == store.content
    assert len(server.requests) == 1


def test_a_shorter_second_try_leaves_nothing_of_the_first(
    server: Scripted, file: IO[bytes]
) -> None:
    server.answers = [Answer(200, _content(1_500), fault="truncated"), Answer(200, b"short")]
    assert _download(server, file) == b"short"


@pytest.mark.parametrize("size", [PART + 1, 9 * PART])
def test_an_object_that_is_too_large_is_not_read(
    server: Scripted, file: IO[bytes], size: int
) -> None:
    server.respond = Store(_content(size))
    text = f"more than the {PART} bytes that are allowed"
    assert _refused(server, file, TooLargeError, PART) == text
    assert len(server.requests) == 1
    assert os.fstat(file.fileno()).st_size == 0


def test_no_thread_writes_after_a_failure(server: Scripted, file: IO[bytes]) -> None:
    """The file's number may be another file's by then."""
    store = Store(_content(20 * PART))

    def respond(sent: Sent) -> Answer:
        good = store(sent)
        return Answer(404) if sent.headers.get("range", "").startswith("bytes=0-") else good

    server.respond = respond
    _refused(server, file, ServiceError)
    assert THREADS not in {thread.name for thread in enumerate_threads()}


def test_past_the_deadline_no_part_is_waited_for(
    server: Scripted, file: IO[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    over = Event()

    def fetch(_: Part) -> None:
        assert over.wait(30)

    def now_s() -> float:  # who waits looks at the clock first
        over.set()
        return 1e9

    monkeypatch.setattr(parts_module, "perf_counter", now_s)
    with pytest.raises(UnreachableError, match="no time is left"):
        fetch_parts(fetch, file.fileno(), 9 * PART, deadline_s=0.0)


def test_a_part_that_comes_too_slowly_is_not_read_to_its_end(
    server: Scripted, file: IO[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread would still read when the bundle is fetched anew."""
    server.respond = Store(_content(9 * PART))
    times_s = iter([0.0] * 20)
    monkeypatch.setattr(module, "MAX_CHUNK", PART // 10)
    monkeypatch.setattr(connections_module, "perf_counter", lambda: next(times_s, 1e9))
    with pytest.raises(UnreachableError, match="no time is left"):
        _bucket(server).download(KEY, file.fileno(), 1 << 30, deadline_s=1e8)
    assert THREADS not in {thread.name for thread in enumerate_threads()}


# ---- Checksums -----------------------------------------------------------------------------------


def _crc(value: int, size: int) -> str:
    return b64encode(value.to_bytes(size, "big")).decode()


RIGHT = {
    "x-amz-checksum-crc32": lambda body: _crc(crc32(body), 4),
    "x-amz-checksum-crc64nvme": lambda body: _crc(crc64_nvme(body), 8),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_body_that_is_damaged_on_its_way_is_read_again(
    server: Scripted, file: IO[bytes], name: str
) -> None:
    content = _content(PART)
    headers = {name: RIGHT[name](content), "x-amz-checksum-type": "FULL_OBJECT"}
    damaged = bytes([content[0] ^ 1]) + content[1:]
    server.answers = [Answer(200, damaged, headers), Answer(200, content, headers)]
    assert _download(server, file) == content
    assert len(server.requests) == 2
    assert server.requests[0].headers["x-amz-checksum-mode"] == "ENABLED"


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-type": "COMPOSITE"},
        {"x-amz-checksum-crc32": "AAAAAA==-3"},
        {"x-amz-checksum-crc32c": "AAAAAA=="},
        {"x-amz-checksum-sha256": "AAAA"},
    ],
)
def test_checksums_of_parts_and_others_are_left_to_the_bundle(
    server: Scripted, file: IO[bytes], headers: dict[str, str]
) -> None:
    server.answers = [Answer(200, _content(PART), headers)]
    assert _download(server, file) == _content(PART)


def test_the_crc64_is_that_of_nvme() -> None:
    """The check value of the catalogue of parametrised CRC algorithms."""
    assert crc64_nvme(b"123456789") == 0xAE8B_1486_0A79_9888


@given(st.binary(max_size=300), st.integers(0, 300))
def test_the_crc64_is_that_of_the_library_of_aws(data: bytes, at: int) -> None:
    from awscrt.checksums import crc64nvme

    assert crc64_nvme(data[at:], crc64_nvme(data[:at])) == crc64nvme(data)


# ---- Refusals, and buckets elsewhere -------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Answer(403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"),
         "AccessDenied: the role may not s3:GetObject here"),
        (Answer(403, b"<Error><Code>AccessDenied</Code><Message>User: arn is not authorized to "
                     b"perform: kms:Decrypt on resource: x</Message></Error>"),
         "AccessDenied: the role may not kms:Decrypt here"),
        (Answer(404, b"<Error><Code>NoSuchKey</Code><Key>a-secret-key</Key></Error>"), "NoSuchKey"),
        (Answer(404, b"<Error><Code>NoSuchBucket</Code></Error>"), "NoSuchBucket"),
        (Answer(400, b"<Error><Code>ExpiredToken</Code></Error>"),
         "ExpiredToken: the credentials are not valid, or no longer"),
        (Answer(403, b"<Error><Code>InvalidObjectState</Code></Error>"), "InvalidObjectState"),
        (Answer(301, b"<Error><Code>PermanentRedirect</Code></Error>",
                {"x-amz-bucket-region": "ap-south-1"}),
         "PermanentRedirect: the bucket is in ap-south-1"),
        (Answer(400, b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-north-1</Region>"
                     b"</Error>"),
         "AuthorizationHeaderMalformed: the bucket is in eu-north-1"),
        (Answer(400, b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>evil.example/"
                     b"</Region></Error>"), "AuthorizationHeaderMalformed"),
        (Answer(503, b"<Error><Code>SlowDown</Code></Error>"), "SlowDown"),
        (Answer(500, b""), "500"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_is_wrong(
    server: Scripted, file: IO[bytes], answer: Answer, text: str
) -> None:
    server.respond = lambda _: answer
    assert _refused(server, file, ServiceError) == text


@pytest.mark.parametrize("is_found", [True, False])
def test_a_bucket_of_another_region_is_read_there(
    server: Scripted, file: IO[bytes], monkeypatch: pytest.MonkeyPatch, *, is_found: bool
) -> None:
    """As boto3 does. The region's own hosts are not at hand, so the hosts are the test's."""
    asked: list[str] = []

    def endpoint(bucket: str, region: str, _variables: object) -> Endpoint:
        asked.append(region)
        return Endpoint("http", "127.0.0.1", server.server_port, f"/{bucket}", region)

    def respond(sent: Sent) -> Answer:
        if is_found and "/ap-south-1/s3/aws4_request" in sent.headers["authorization"]:
            return Answer(200, b"found")
        return MOVED

    server.respond = respond
    monkeypatch.setattr(module, "bucket_endpoint", endpoint)
    monkeypatch.setattr(module, "endpoint_url", lambda *_: "")
    if is_found:
        assert _download(server, file) == b"found"
    else:
        reason = _refused(server, file, ServiceError)
        assert reason == "PermanentRedirect: the bucket is in ap-south-1"
    assert (asked, len(server.requests)) == (["eu-west-1", "ap-south-1"], 2)


def test_a_call_that_is_still_under_way_to_the_wrong_region_moves_too(
    server: Scripted, file: IO[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of a bundle are read side by side: here the second while the first one moves."""
    bucket, contents = _bucket(server), []

    def endpoint(name: str, region: str, _variables: object) -> Endpoint:
        if not contents:
            contents.append(b"")
            bucket.download(KEY, file.fileno(), 1 << 30, inf)
            contents.append(os.pread(file.fileno(), 1 << 30, 0))
        return Endpoint("http", "127.0.0.1", server.server_port, f"/{name}", region)

    def respond(sent: Sent) -> Answer:
        if "/ap-south-1/s3/aws4_request" in sent.headers["authorization"]:
            return Answer(200, b"found")
        return MOVED

    server.respond = respond
    monkeypatch.setattr(module, "bucket_endpoint", endpoint)
    monkeypatch.setattr(bucket, "_may_move", True)
    assert bucket.download(KEY, file.fileno(), 1 << 30, inf) == hashlib.sha256(b"found").hexdigest()
    assert contents == [b"", b"found"]
