"""The model bundle: a folder or an S3 prefix, immutable, named by its digest.

Below the prefix lie the MLflow artifact, byte for byte, and `serving/`, which is all that this
module reads. The manifest lists size and SHA-256 of every file; the digest is the SHA-256 of the
manifest. A byte that differs anywhere refuses the whole bundle. Nothing is ever unpickled.
"""

import hashlib
import math
import mmap
import os
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path, PurePosixPath
from threading import Thread
from time import perf_counter
from typing import IO, Any, NamedTuple, Protocol, TypeVar

from feedrank import documents
from feedrank.errors import BundleError

Fetched = TypeVar("Fetched")

SERVING = "serving"
MANIFEST = f"{SERVING}/manifest.json"
DIGEST_SIDECAR = f"{SERVING}/manifest.sha256"
ONNX_MODEL = f"{SERVING}/model.onnx"
TORCH_MODEL = f"{SERVING}/model.pt2"
SNAPSHOT = f"{SERVING}/features.safetensors"
GOLDEN = f"{SERVING}/golden.json"
FORMAT = 4
SHORT_DIGEST_DIGITS = 12

S3_CONNECT_TIMEOUT_S = 1
S3_READ_TIMEOUT_S = 3  # twice: Lambda gives init ten seconds
S3_CONNECTIONS = 8
CHUNK_BYTES = 1 << 20
LONGEST_WAIT_S = 3_600.0
LARGEST_MANIFEST_BYTES = 1 << 20
LARGEST_SIDECAR_BYTES = 1 << 10
LARGEST_FILE_BYTES = 1 << 40
LONGEST_NAME = 255  # characters, as a file system has it
_SIDECAR = re.compile(rb"([0-9a-f]{64})  manifest\.json\n")
_DIGEST_IN_URI = re.compile(r"sha256-([0-9a-f]{64})/?$")


@dataclass(frozen=True, slots=True)
class FileEntry:
    size: int  # bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Times are UTC in ISO 8601, such as 2026-11-25T09:30:00Z; None where nobody knows."""

    name: str
    version: str
    run_id: str
    network: str
    trained_at: str | None  # when the MLflow run ended
    snapshot_as_of: str | None  # the moment that the feature tables describe
    published_at: str | None
    batches: bool  # whether items of several requests may be scored in one run
    metrics: Mapping[str, float]
    feature_spec: Mapping[str, Any]
    built_with: Mapping[str, str]
    files: Mapping[str, FileEntry]  # by path from the bundle's root
    digest: str

    @property
    def model_version(self) -> str:
        """Name and version in one word that is safe in a path, such as `feed_ranker-3`."""
        return f"{self.name}-{self.version}"

    @property
    def short_digest(self) -> str:
        """Enough of the digest to tell two bundles of one version apart."""
        return self.digest[:SHORT_DIGEST_DIGITS]

    def snapshot_age_s(self, now: datetime) -> float | None:
        """None where nobody knows of when the feature tables are."""
        if self.snapshot_as_of is None:
            return None
        return now.timestamp() - _unix_s(self.snapshot_as_of)

    def public(self) -> dict[str, Any]:
        """What anybody may read: no file names, no place."""
        return {
            "name": self.name,
            "version": self.version,
            "network": self.network,
            "trained_at": self.trained_at,
            "snapshot_as_of": self.snapshot_as_of,
            "published_at": self.published_at,
            "batches": self.batches,
            "run_id": self.run_id,
            "digest": self.digest,
            "metrics": self.metrics,
            "feature_spec": self.feature_spec,
            "built_with": self.built_with,
        }


@cache
def _unix_s(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle: the content, mapped, of every file that was asked for."""

    manifest: Manifest
    files: Mapping[str, mmap.mmap]


class Content(NamedTuple):
    data: mmap.mmap
    sha256: str  # of these very bytes


class Source(Protocol):
    """Where a bundle lies. `fetch` raises BundleError, also for a file of more bytes than that."""

    def fetch(self, name: str, largest: int) -> Content: ...


class FolderSource:
    """A bundle on disk, served from where it lies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fetch(self, name: str, largest: int) -> Content:
        path = self._folder / name
        if not path.is_file():
            raise BundleError(f"{name}: not found in {self._folder}")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > largest:
                raise BundleError(f"{name}: {size} bytes, {largest} are allowed")
            data = _mapped(file, name)
        return Content(data, hashlib.sha256(data).hexdigest())


class S3Source:
    """A bundle on S3. A file is downloaded into one without a name, and used from there: nobody
    else can have it open, or put something else in its place."""

    def __init__(self, uri: str, cache_dir: Path, deadline_s: float) -> None:
        import boto3
        from botocore.config import Config

        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self._bucket, self._prefix, self._uri = bucket, prefix.rstrip("/"), uri
        self._cache_dir = cache_dir
        self._deadline_s = deadline_s
        self._s3 = boto3.client(
            "s3",
            config=Config(
                connect_timeout=S3_CONNECT_TIMEOUT_S,
                read_timeout=S3_READ_TIMEOUT_S,
                max_pool_connections=S3_CONNECTIONS,
                retries={"total_max_attempts": 2, "mode": "standard"},
            ),
        )

    def fetch(self, name: str, largest: int) -> Content:
        from botocore.exceptions import BotoCoreError, ClientError

        key = f"{self._prefix}/{name}" if self._prefix else name
        try:
            body = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"]
            with closing(body):
                return self._written(body.iter_chunks(CHUNK_BYTES), name, largest)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            raise BundleError(f"{name}: S3 answers {code} for {self._uri}") from error
        except BotoCoreError as error:
            raise BundleError(f"{name}: S3 can't be reached for {self._uri}: {error}") from error
        except OSError as error:
            reason = f"can't be written to {self._cache_dir}: {error.strerror}"
            raise BundleError(f"{name}: {reason}") from error

    def _written(self, chunks: Iterable[bytes], name: str, largest: int) -> Content:
        from tempfile import TemporaryFile

        self._cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        digest, size = hashlib.sha256(), 0
        with TemporaryFile(dir=self._cache_dir) as file:
            for chunk in chunks:
                size += len(chunk)
                if size > largest:
                    raise BundleError(f"{name}: more than the {largest} bytes that are allowed")
                if perf_counter() > self._deadline_s:
                    raise BundleError(f"{name}: S3 takes too long for {self._uri}")
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            return Content(_mapped(file, name), digest.hexdigest())


def fetch_bundle(
    uri: str, digest: str, cache_dir: Path, names: Iterable[str], deadline_s: float = math.inf
) -> Bundle:
    """Compare each of the named files with the manifest, and the manifest with `digest`.

    Without a digest, the one in the URI (`.../sha256-<digest>/`) counts, then the sidecar.
    Raises BundleError that names the file. `deadline_s` is of `perf_counter()`.
    """
    source: Source = (
        S3Source(uri, cache_dir, deadline_s) if uri.startswith("s3://") else FolderSource(Path(uri))
    )
    raw = _each([MANIFEST], lambda name: source.fetch(name, LARGEST_MANIFEST_BYTES), deadline_s)[
        MANIFEST
    ]
    expected = digest or _digest_in(uri) or _digest_beside(source, deadline_s)
    if raw.sha256 != expected:
        raise BundleError(f"{MANIFEST}: its SHA-256 is {raw.sha256}, expected {expected}")
    manifest = parse_manifest(bytes(raw.data))
    files = _each(names, lambda name: _fetch_verified(source, manifest, name), deadline_s)
    return Bundle(manifest, files)


def _each(
    names: Iterable[str], fetch: Callable[[str], Fetched], deadline_s: float
) -> dict[str, Fetched]:
    """All at once, each in a daemon's thread: what drips a byte a second ends neither in time nor
    when the process does."""
    futures: dict[str, Future[Fetched]] = {name: Future() for name in names}
    for name, future in futures.items():
        Thread(target=_fulfil, args=(future, fetch, name), daemon=True).start()
    try:
        return {
            name: future.result(min(max(0.0, deadline_s - perf_counter()), LONGEST_WAIT_S))
            for name, future in futures.items()
        }
    except TimeoutError as error:
        late = ", ".join(name for name, future in futures.items() if not future.done())
        raise BundleError(f"{late}: takes too long to fetch") from error


def _fulfil(future: Future[Fetched], fetch: Callable[[str], Fetched], name: str) -> None:
    try:
        future.set_result(fetch(name))
    except Exception as error:  # noqa: BLE001 it is raised where the result is asked for
        future.set_exception(error)


def parse_manifest(raw: bytes) -> Manifest:
    """Raises BundleError for anything that is not a manifest of this format."""
    data = documents.read(raw, MANIFEST, _manifest)
    del data["format"]
    files = {name: FileEntry(**entry) for name, entry in data.pop("files").items()}
    return Manifest(**data, files=files, digest=hashlib.sha256(raw).hexdigest())


def _manifest(data: Any, place: str) -> Any:  # noqa: ANN401
    found = data.get("format") if isinstance(data, dict) else FORMAT
    if found != FORMAT:
        raise BundleError(f"{MANIFEST}: format {found}, this code reads {FORMAT}; publish it anew")
    return _FIELDS(data, place)


def _file_name(value: Any, place: str) -> str:  # noqa: ANN401
    path = PurePosixPath(documents.text(longest=LONGEST_NAME)(value, place))
    if path.is_absolute() or ".." in path.parts or path.as_posix() != value:
        raise BundleError(f"{MANIFEST}: {value!r} leads out of the bundle")
    return path.as_posix()


def _moment(value: Any, place: str) -> str:  # noqa: ANN401
    found: str = documents.text(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", 20)(value, place)
    try:
        datetime.fromisoformat(found)
    except ValueError as error:
        raise documents.wrong(place, str(error)) from error
    return found


_name = documents.text(r"\w[\w .+@=()-]*", LONGEST_NAME)  # part of paths
_plain = documents.text(longest=LONGEST_NAME)
_FIELDS = documents.fields(
    {
        "format": documents.whole(FORMAT, FORMAT),
        "name": _name,
        "version": _name,
        "run_id": documents.text(r"[0-9A-Za-z_-]*", LONGEST_NAME),
        "network": _plain,
        "trained_at": documents.or_null(_moment),
        "snapshot_as_of": documents.or_null(_moment),
        "published_at": documents.or_null(_moment),
        "batches": documents.flag,
        "metrics": documents.mapping(_plain, documents.number()),
        "feature_spec": documents.anything,  # `parse_spec` reads it
        "built_with": documents.mapping(_plain, _plain),
        "files": documents.mapping(
            _file_name,
            documents.fields(
                {
                    "size": documents.whole(0, LARGEST_FILE_BYTES),
                    "sha256": documents.text("[0-9a-f]{64}", 64),
                }
            ),
        ),
    }
)


def _fetch_verified(source: Source, manifest: Manifest, name: str) -> mmap.mmap:
    entry = manifest.files.get(name)
    if entry is None:
        raise BundleError(f"{name}: the manifest doesn't list it")
    content = source.fetch(name, entry.size)
    if len(content.data) != entry.size:
        raise BundleError(f"{name}: {len(content.data)} bytes, the manifest says {entry.size}")
    if content.sha256 != entry.sha256:
        raise BundleError(
            f"{name}: its SHA-256 is {content.sha256}, the manifest says {entry.sha256}"
        )
    return content.data


def _mapped(file: IO[bytes], name: str) -> mmap.mmap:
    if not os.fstat(file.fileno()).st_size:
        raise BundleError(f"{name}: 0 bytes, no file of a bundle is empty")
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _digest_in(uri: str) -> str:
    match = _DIGEST_IN_URI.search(uri)
    return match[1] if match else ""


def _digest_beside(source: Source, deadline_s: float) -> str:
    found = _each(
        [DIGEST_SIDECAR], lambda name: source.fetch(name, LARGEST_SIDECAR_BYTES), deadline_s
    )
    line = bytes(found[DIGEST_SIDECAR].data)
    match = _SIDECAR.fullmatch(line)
    if not match:
        raise BundleError(f"{DIGEST_SIDECAR}: must be `<SHA-256>  manifest.json` and a line end")
    return match[1].decode()
