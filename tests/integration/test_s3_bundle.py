"""A bundle from S3, by way of moto's real HTTP server."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

import boto3
import pytest
from moto.server import ThreadedMotoServer

import fakes
from feedrank.aws import client as client_module
from feedrank.aws import connections
from feedrank.bundle import fetch as fetch_module
from feedrank.bundle import s3_source as s3_source_module
from feedrank.bundle import sources as source_module
from feedrank.bundle.fetch import fetch_bundle
from feedrank.bundle.layout import (
    DIGEST_SIDECAR,
    GOLDEN,
    MANIFEST,
    ONNX_MODEL,
    SNAPSHOT,
    TORCH_MODEL,
)
from feedrank.bundle.s3_source import S3Source
from feedrank.bundle.sources import Content
from feedrank.domain import Query
from feedrank.errors import BundleError, ModelUnavailableError
from feedrank.model.load import Model, load_model
from feedrank.model.slot import ModelSlot

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "models"
URI = f"s3://{BUCKET}/feed/one/"
SERVED = [MANIFEST, DIGEST_SIDECAR, ONNX_MODEL, SNAPSHOT, GOLDEN]


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedMotoServer]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _aws(server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    host, port = server.get_host_and_port()
    _point_at(monkeypatch, f"http://{host}:{port}")


def _point_at(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3(_aws: None, demo_bundle: Path) -> Iterator["S3Client"]:
    """A client, with the demo bundle at URI."""
    client = boto3.client("s3")
    client.create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    for name in SERVED:
        client.upload_file(str(demo_bundle / name), BUCKET, f"feed/one/{name}")
    yield client
    for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=entry["Key"])
    client.delete_bucket(Bucket=BUCKET)
    client.close()


def _load(tmp_path: Path, uri: str = URI, digest: str = "") -> Model:
    return load_model(uri, digest, fakes.settings(MODEL_CACHE_DIR=str(tmp_path / "cache")))


def _scores(model: Model) -> list[float]:
    query = Query(42, [1, 2, 300, 5_000], {"device": "mobile"}, 0.0)
    return [float(s) for s in model.score(query, model.features.look_up(query))]  # type: ignore[attr-defined]


def test_a_bundle_from_s3_scores_as_the_same_one_from_a_directory(
    s3: "S3Client", demo_bundle: Path, tmp_path: Path
) -> None:
    from_directory = load_model(str(demo_bundle), "", fakes.settings())
    assert _scores(_load(tmp_path)) == _scores(from_directory)


def test_only_what_serving_reads_is_fetched(
    s3: "S3Client", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    fetch = S3Source.fetch

    def noting(source: S3Source, name: str, largest: int) -> Content:
        fetched.append(name)
        return fetch(source, name, largest)

    monkeypatch.setattr(S3Source, "fetch", noting)
    _load(tmp_path)
    assert sorted(fetched) == sorted(SERVED)


def test_nothing_of_a_download_has_a_name_that_another_process_could_open(
    s3: "S3Client", tmp_path: Path
) -> None:
    model = _load(tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert _scores(model) == _scores(_load(tmp_path))


def test_two_workers_with_one_cache_never_serve_each_others_broken_download(
    s3: "S3Client", demo_bundle: Path, tmp_path: Path
) -> None:
    """One gets good bytes, the other broken ones of the same name, at the same time."""
    for name in SERVED:
        s3.upload_file(str(demo_bundle / name), BUCKET, f"feed/bad/{name}")
    broken = bytearray((demo_bundle / SNAPSHOT).read_bytes())
    broken[-1] ^= 1
    s3.put_object(Bucket=BUCKET, Key=f"feed/bad/{SNAPSHOT}", Body=bytes(broken))
    expected = _scores(load_model(str(demo_bundle), "", fakes.settings()))

    def load(number: int) -> list[float] | None:
        try:
            return _scores(_load(tmp_path, f"s3://{BUCKET}/feed/{'bad' if number % 2 else 'one'}/"))
        except BundleError:
            return None

    with ThreadPoolExecutor(4) as pool:
        served = list(pool.map(load, range(12)))
    assert served == [expected, None] * 6


def test_a_planted_link_is_not_written_through(s3: "S3Client", tmp_path: Path) -> None:
    cache, victim = tmp_path / "cache", tmp_path / "victim"
    victim.write_text("precious")
    names = [hashlib.sha256(URI.encode()).hexdigest()[:16], "serving"]
    (cache / "/".join(names)).mkdir(parents=True)
    for name in SERVED:
        for suffix in ("", f".{os.getpid()}"):
            (cache / names[0] / f"{name}{suffix}").symlink_to(victim)
    _load(tmp_path)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", [MANIFEST, DIGEST_SIDECAR, ONNX_MODEL, SNAPSHOT, GOLDEN])
def test_a_file_without_end_is_read_no_further_than_its_size(
    s3: "S3Client", endless_s3: "EndlessS3", tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:  # fmt: skip
    endless_s3.without_end = name
    _point_at(monkeypatch, endless_s3.endpoint)
    with pytest.raises(BundleError, match=rf"^{name}: more than the \d+ bytes that are allowed"):
        _load(tmp_path)
    assert endless_s3.sent < 64 << 20


@pytest.mark.parametrize(("name", "deadline_s"), [(MANIFEST, 0.5), (SNAPSHOT, 30.0)])
def test_an_s3_that_drips_is_not_waited_for(  # noqa: PLR0917
    s3: "S3Client", endless_s3: "EndlessS3", demo_bundle: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, name: str, deadline_s: float,
) -> None:  # fmt: skip
    endless_s3.without_end, endless_s3.drips = name, True
    _point_at(monkeypatch, endless_s3.endpoint)
    digest = hashlib.sha256((demo_bundle / MANIFEST).read_bytes()).hexdigest()
    # The manifest has half a minute to come, and what drips after it half a second.
    now_s = lambda: deadline_s - 0.5 if endless_s3.served else 0.0  # noqa: E731
    for module in (fetch_module, source_module, s3_source_module, connections, client_module):
        monkeypatch.setattr(module, "perf_counter", now_s)
    with pytest.raises(BundleError, match=f"^{name}: takes too long to fetch"):
        fetch_bundle(URI, digest, tmp_path / "cache", [SNAPSHOT], deadline_s)


def test_past_its_deadline_a_download_ends(
    s3: "S3Client", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BundleError, match=f"^{MANIFEST}: takes too long to fetch"):
        fetch_bundle(URI, "", tmp_path / "cache", SERVED, deadline_s=0.0)


class EndlessS3:
    """The demo bundle over HTTP; one of its files never ends."""

    def __init__(self, bundle: Path) -> None:
        self.without_end = ""
        self.drips = False
        self.over = Event()
        self.served: list[str] = []  # files with an end
        self.sent = 0
        outer = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.partition("/feed/one/")[2].partition("?")[0]
                self.send_response(200)
                if name != outer.without_end:
                    content = (bundle / name).read_bytes()
                    outer.served.append(name)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                    return
                self.end_headers()
                with suppress(OSError):  # the reader has had enough
                    while outer.drips and not outer.over.wait(0.1):
                        self.wfile.write(b" ")
                    while outer.sent < 256 << 20:
                        self.wfile.write(bytes(1 << 20))
                        outer.sent += 1 << 20

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def endless_s3(demo_bundle: Path) -> Iterator[EndlessS3]:
    served = EndlessS3(demo_bundle)
    with served.server:
        thread = Thread(target=served.server.serve_forever)
        thread.start()
        yield served
        served.over.set()
        served.server.shutdown()
        thread.join()


@pytest.mark.parametrize("uri", [URI, URI.rstrip("/"), f"{URI}/"])
def test_a_prefix_may_end_in_a_slash(s3: "S3Client", tmp_path: Path, uri: str) -> None:
    assert _load(tmp_path, uri).manifest.model_version == "feed_ranker-1"


def test_a_bundle_may_lie_at_the_top_of_a_bucket(
    s3: "S3Client", tmp_path: Path, demo_bundle: Path
) -> None:
    for name in SERVED:
        s3.upload_file(str(demo_bundle / name), BUCKET, name)
    for uri in (f"s3://{BUCKET}", f"s3://{BUCKET}/"):
        assert _load(tmp_path, uri).manifest.model_version == "feed_ranker-1"


def test_a_pinned_digest_needs_no_sidecar(
    s3: "S3Client", demo_bundle: Path, tmp_path: Path
) -> None:
    digest = hashlib.sha256((demo_bundle / MANIFEST).read_bytes()).hexdigest()
    for name in SERVED:
        s3.upload_file(str(demo_bundle / name), BUCKET, f"feed/sha256-{digest}/{name}")
        s3.delete_object(Bucket=BUCKET, Key=f"feed/one/{DIGEST_SIDECAR}")
    s3.delete_object(Bucket=BUCKET, Key=f"feed/sha256-{digest}/{DIGEST_SIDECAR}")
    assert _load(tmp_path, digest=digest).manifest.digest == digest
    assert _load(tmp_path, f"s3://{BUCKET}/feed/sha256-{digest}/").manifest.digest == digest
    with pytest.raises(BundleError, match=f"^{DIGEST_SIDECAR}: S3 responds with NoSuchKey"):
        _load(tmp_path)


@pytest.mark.parametrize("name", SERVED)
def test_a_missing_object_is_named(s3: "S3Client", tmp_path: Path, name: str) -> None:
    s3.delete_object(Bucket=BUCKET, Key=f"feed/one/{name}")
    with pytest.raises(BundleError, match=f"^{name}: S3 responds with NoSuchKey for {URI}"):
        _load(tmp_path)


@pytest.mark.parametrize("name", [ONNX_MODEL, SNAPSHOT, GOLDEN])
def test_one_wrong_bit_on_s3_names_the_object(
    s3: "S3Client", demo_bundle: Path, tmp_path: Path, name: str
) -> None:
    data = bytearray((demo_bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    s3.put_object(Bucket=BUCKET, Key=f"feed/one/{name}", Body=bytes(data))
    with pytest.raises(BundleError, match=f"^{name}: its SHA-256 is "):
        _load(tmp_path)


def test_a_half_uploaded_bundle_is_none(s3: "S3Client", demo_bundle: Path, tmp_path: Path) -> None:
    for name in (ONNX_MODEL, SNAPSHOT, GOLDEN):
        s3.upload_file(str(demo_bundle / name), BUCKET, f"feed/two/{name}")
    with pytest.raises(BundleError, match=f"^{MANIFEST}: S3 responds with NoSuchKey"):
        _load(tmp_path, f"s3://{BUCKET}/feed/two/")


def test_a_bucket_that_is_not_there_is_said_to_be_none(s3: "S3Client", tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=f"^{MANIFEST}: S3 responds with NoSuchBucket for s3://nobody"
    ):
        _load(tmp_path, "s3://nobody-has-this/feed/")


def test_a_refused_access_is_said_to_be_one(
    s3: "S3Client", tmp_path: Path, refusing_s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _point_at(monkeypatch, refusing_s3)
    with pytest.raises(BundleError, match=f"^{MANIFEST}: S3 responds with AccessDenied"):
        _load(tmp_path)


@pytest.fixture
def refusing_s3() -> Iterator[str]:
    """An S3 that answers as one whose policy says no; moto evaluates no IAM."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refuse) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_credentials_that_are_missing_are_said_to_be(
    s3: "S3Client", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers credentials
    with pytest.raises(BundleError, match=f"^{MANIFEST}: S3 can't be reached .*credentials"):
        _load(tmp_path)


def test_a_cache_that_can_not_be_written_is_named(s3: "S3Client", tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(BundleError, match=f"^{MANIFEST}: can't be written to {tmp_path}/cache"):
        _load(tmp_path)


def test_a_second_load_leaves_what_is_mapped_as_it_is(s3: "S3Client", tmp_path: Path) -> None:
    model = _load(tmp_path)
    before = _scores(model)
    _load(tmp_path)
    assert _scores(model) == before


def test_an_s3_that_is_down_is_503_until_it_is_back(
    s3: "S3Client", tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: fakes.LogLines
) -> None:
    first = _started()  # moto's servers in one process share what they hold
    host, port = first.get_host_and_port()
    _point_at(monkeypatch, f"http://{host}:{port}")
    first.stop()

    clock = fakes.FakeClock()
    slot = ModelSlot(
        lambda: _load(tmp_path), fallback=None, retry_s=5.0, clock=clock, start=fakes.at_once
    )
    slot.load()
    with pytest.raises(ModelUnavailableError) as error:
        slot.model()
    assert error.value.retry_after_s == 5
    assert log()[0]["reason"].startswith(f"{MANIFEST}: S3 can't be reached for {URI}")

    second = _started(port)
    clock.now_s += 4
    with pytest.raises(ModelUnavailableError):
        slot.model()
    clock.now_s += 1
    model = slot.model()
    before = _scores(model)

    second.stop()
    shutil.rmtree(tmp_path / "cache")
    clock.now_s += 10_000
    assert slot.model() is model
    assert _scores(model) == before, "what was loaded goes on serving without S3 and its files"


def _started(port: int = 0) -> ThreadedMotoServer:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    return server


def test_a_new_container_says_503_and_recovers_while_an_old_one_goes_on(
    s3: "S3Client", tmp_path: Path
) -> None:
    event = {
        "version": "2.0",
        "rawPath": "/predict",
        "rawQueryString": "",
        "headers": {},
        "requestContext": {
            "requestId": "r",
            "http": {"method": "POST", "path": "/predict", "sourceIp": "192.0.2.1"},
        },
        "body": json.dumps({"user_id": 42, "item_ids": [1, 2, 3]}),
        "isBase64Encoded": False,
    }
    context = fakes.LambdaContext()
    cache = {"MODEL_URI": URI, "MODEL_CACHE_DIR": str(tmp_path / "cache")}
    manifest = s3.get_object(Bucket=BUCKET, Key=f"feed/one/{MANIFEST}")["Body"].read()
    with fakes.container(**cache) as old:
        assert old.lambda_handler(event, context)["statusCode"] == 200
        s3.delete_object(Bucket=BUCKET, Key=f"feed/one/{MANIFEST}")
        with fakes.container(**cache, MODEL_RETRY_SECONDS="0.000001") as new:
            assert new.lambda_handler(event, context)["statusCode"] == 503
            s3.put_object(Bucket=BUCKET, Key=f"feed/one/{MANIFEST}", Body=manifest)
            assert new.lambda_handler(event, context)["statusCode"] == 200
        assert old.lambda_handler(event, context)["statusCode"] == 200


def test_a_large_file_comes_in_pieces(
    s3: "S3Client", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedrank.aws.s3.MAX_CHUNK", 1_000)
    assert _load(tmp_path).manifest.model_version == "feed_ranker-1"


def test_the_torch_program_is_not_fetched_for_onnx(s3: "S3Client", tmp_path: Path) -> None:
    s3.delete_object(Bucket=BUCKET, Key=f"feed/one/{TORCH_MODEL}")
    _load(tmp_path)
