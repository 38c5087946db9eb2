"""How often S3 is asked: Lambda gives init ten seconds, so twice and no more."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

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
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.partition(f"/sha256-{'0' * 64}/")[2].partition("?")[0]
                outer.requests[name] += 1
                is_served = outer.recovers and outer.requests[name] == ATTEMPTS
                status, body = 503, b"<Error><Code>SlowDown</Code></Error>"
                if is_served:
                    status, body = 200, (bundle / name).read_bytes()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def busy_s3(demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BusyS3]:
    s3 = BusyS3(demo_bundle)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3.server.server_port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_MAX_ATTEMPTS": "7",  # an environment's, which must not count
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(client, "sleep", lambda _: None)
    thread = Thread(target=s3.server.serve_forever)
    with s3.server:
        thread.start()
        yield s3
        s3.server.shutdown()
        thread.join()


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
