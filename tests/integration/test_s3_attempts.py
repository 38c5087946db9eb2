"""How often S3 is asked: Lambda gives init ten seconds, so twice and no more."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from answering import answering
from feedrank.aws import client
from feedrank.bundle.fetch import fetch_bundle
from feedrank.bundle.layout import GOLDEN, MANIFEST
from feedrank.errors import BundleError

ATTEMPTS = 2
URI = f"s3://models/feed/sha256-{'0' * 64}/"


class BusyS3:
    """Answers 503 to everything, or from the second try of a file on with what the bundle has."""

    def __init__(self, bundle: Path) -> None:
        self.recovers = False
        self.requests: Counter[str] = Counter()
        self._bundle = bundle

    def answer(self, request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        name = request.path.partition(f"/sha256-{'0' * 64}/")[2].partition("?")[0]
        self.requests[name] += 1
        if self.recovers and self.requests[name] == ATTEMPTS:
            return 200, (self._bundle / name).read_bytes()
        return 503, b"<Error><Code>SlowDown</Code></Error>"


@pytest.fixture
def busy_s3(demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BusyS3]:
    s3 = BusyS3(demo_bundle)
    monkeypatch.setattr(client, "sleep", lambda _: None)
    with answering(s3.answer) as url:
        for name, value in {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_MAX_ATTEMPTS": "7",  # an environment's, which must not count
        }.items():
            monkeypatch.setenv(name, value)
        yield s3


def test_a_busy_s3_is_asked_twice(busy_s3: BusyS3, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"^{MANIFEST}: S3 responds"):
        fetch_bundle(URI, "", tmp_path, [GOLDEN])
    assert busy_s3.requests == {MANIFEST: ATTEMPTS}


def test_the_second_try_of_each_file_counts(
    busy_s3: BusyS3, demo_bundle: Path, tmp_path: Path
) -> None:
    busy_s3.recovers = True
    digest = hashlib.sha256((demo_bundle / MANIFEST).read_bytes()).hexdigest()
    files = fetch_bundle(URI, digest, tmp_path, [GOLDEN]).files
    assert bytes(files[GOLDEN]) == (demo_bundle / GOLDEN).read_bytes()
    assert busy_s3.requests == {MANIFEST: ATTEMPTS, GOLDEN: ATTEMPTS}
