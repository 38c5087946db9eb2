"""The model bundle: a folder or an S3 prefix, immutable, named by its digest.

Below the prefix lie the MLflow artifact, byte for byte, and `serving/`, which is all that this
module reads. The manifest lists size and SHA-256 of every file; the digest is the SHA-256 of the
manifest. A byte that differs anywhere refuses the whole bundle. Nothing is ever unpickled.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from feedrank.errors import BundleError

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


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle: `root` holds every file that was asked for."""

    manifest: Manifest
    root: Path

    def path(self, name: str) -> Path:
        return self.root / name


class Source(Protocol):
    """Where a bundle lies. `fetch` brings a file below `root`; it raises BundleError."""

    root: Path

    def fetch(self, name: str) -> Path: ...


class FolderSource:
    """A bundle on disk, served from where it lies."""

    def __init__(self, folder: Path) -> None:
        self.root = folder

    def fetch(self, name: str) -> Path:
        path = self.root / name
        if not path.is_file():
            raise BundleError(f"{name}: not found in {self.root}")
        return path


class S3Source:
    """A bundle on S3, copied to a local folder file by file."""

    def __init__(self, uri: str, cache_dir: Path) -> None:
        import boto3
        from botocore.config import Config

        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self._bucket, self._prefix, self._uri = bucket, prefix.rstrip("/"), uri
        self.root = cache_dir / hashlib.sha256(uri.encode()).hexdigest()[:16]
        self._s3 = boto3.client(
            "s3",
            config=Config(
                connect_timeout=S3_CONNECT_TIMEOUT_S,
                read_timeout=S3_READ_TIMEOUT_S,
                max_pool_connections=S3_CONNECTIONS,
                retries={"total_max_attempts": 2, "mode": "standard"},
            ),
        )

    def fetch(self, name: str) -> Path:
        from botocore.exceptions import BotoCoreError, ClientError

        path = self.root / name
        arriving = path.with_name(f"{path.name}.{os.getpid()}")
        key = f"{self._prefix}/{name}" if self._prefix else name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            body = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"]
            with arriving.open("wb") as file:
                for chunk in body.iter_chunks(CHUNK_BYTES):
                    file.write(chunk)
            arriving.replace(path)  # a process that has the old file mapped keeps it whole
        except ClientError as error:
            code = error.response["Error"]["Code"]
            raise BundleError(f"{name}: S3 answers {code} for {self._uri}") from error
        except BotoCoreError as error:
            raise BundleError(f"{name}: S3 can't be reached for {self._uri}: {error}") from error
        except OSError as error:
            raise BundleError(f"{name}: can't be written to {path}: {error.strerror}") from error
        return path


def fetch_bundle(uri: str, digest: str, cache_dir: Path, names: Iterable[str]) -> Bundle:
    """Bring the named files here and hold each against the manifest, the manifest against `digest`.

    Without a digest, the one in the URI (`.../sha256-<digest>/`) counts, then the sidecar.
    Raises BundleError that names the file.
    """
    source = S3Source(uri, cache_dir) if uri.startswith("s3://") else FolderSource(Path(uri))
    raw = source.fetch(MANIFEST).read_bytes()
    actual = hashlib.sha256(raw).hexdigest()
    expected = digest or _digest_in(uri) or _digest_beside(source)
    if actual != expected:
        raise BundleError(f"{MANIFEST}: its SHA-256 is {actual}, expected {expected}")
    manifest = parse_manifest(raw)
    with ThreadPoolExecutor(S3_CONNECTIONS) as pool:
        for _ in pool.map(lambda name: _fetch_verified(source, manifest, name), names):
            pass
    return Bundle(manifest, source.root)


def parse_manifest(raw: bytes) -> Manifest:
    """Raises BundleError for anything that is not a manifest of this format."""
    try:
        data = json.loads(raw)
        if data["format"] != FORMAT:
            raise BundleError(
                f"{MANIFEST}: format {data['format']}, this code reads {FORMAT}; publish it anew"
            )
        return Manifest(
            name=data["name"],
            version=data["version"],
            run_id=data["run_id"],
            network=data["network"],
            trained_at=data["trained_at"],
            snapshot_as_of=data["snapshot_as_of"],
            published_at=data["published_at"],
            batches=data["batches"],
            metrics=data["metrics"],
            feature_spec=data["feature_spec"],
            built_with=data["built_with"],
            files={_safe(name): FileEntry(**entry) for name, entry in data["files"].items()},
            digest=hashlib.sha256(raw).hexdigest(),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{MANIFEST}: not a manifest: {error!r}") from error


def _fetch_verified(source: Source, manifest: Manifest, name: str) -> None:
    entry = manifest.files.get(name)
    if entry is None:
        raise BundleError(f"{name}: the manifest doesn't list it")
    with source.fetch(name).open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    if size != entry.size:
        raise BundleError(f"{name}: {size} bytes, the manifest says {entry.size}")
    if actual != entry.sha256:
        raise BundleError(f"{name}: its SHA-256 is {actual}, the manifest says {entry.sha256}")


def _digest_in(uri: str) -> str:
    match = _DIGEST_IN_URI.search(uri)
    return match[1] if match else ""


def _digest_beside(source: Source) -> str:
    return source.fetch(DIGEST_SIDECAR).read_text("ascii", "replace").partition(" ")[0]


def _safe(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise BundleError(f"{MANIFEST}: {name!r} leads out of the bundle")
    return name
