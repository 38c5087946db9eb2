"""Fetches a bundle: compares each requested file with the manifest, and the manifest with the
expected digest."""

import math
import mmap
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from time import perf_counter
from typing import TypeVar

from feedrank.bundle.layout import (
    DIGEST_SIDECAR,
    GOLDEN,
    MANIFEST,
    ONNX_MODEL,
    SNAPSHOT,
    TORCH_MODEL,
    Manifest,
    digest_in,
    parse_manifest,
    parse_sidecar,
)
from feedrank.bundle.sources import BundleSource, Content, Copies, DirectorySource
from feedrank.errors import BundleError
from feedrank.settings import Settings

Result = TypeVar("Result")
ENGINE_FILES = {"onnx": ONNX_MODEL, "torch": TORCH_MODEL}
FETCH_SHARE = 0.75  # of a load: the rest is for the engine, its self-test and the fallback
MAX_WAIT_S = 3_600.0
MAX_MANIFEST_BYTES = 1 << 20
MAX_SIDECAR_BYTES = 1 << 10


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle. `files` has the mapped content of each requested file."""

    manifest: Manifest
    files: Mapping[str, mmap.mmap]


def fetch_served(uri: str, digest: str, settings: Settings) -> Bundle:
    """Fetches what a process with these settings reads. Raises BundleError that names the file."""
    return fetch_bundle(
        uri,
        digest,
        settings.model_cache_dir,
        [ENGINE_FILES[settings.model_engine], SNAPSHOT, GOLDEN],
        perf_counter() + FETCH_SHARE * settings.model_load_seconds,
    )


def fetch_bundle(
    uri: str, digest: str, cache_dir: Path, names: Iterable[str], deadline_s: float = math.inf
) -> Bundle:
    """Fetches and verifies the named files. `deadline_s` is in `perf_counter()` seconds.

    The manifest must have this digest; without one, the digest in the URI, or in the sidecar.
    Raises BundleError that names the file.
    """
    source = _source(uri, Copies(cache_dir, deadline_s))
    content = _fetch_one(source, MANIFEST, MAX_MANIFEST_BYTES, deadline_s)
    expected = digest or digest_in(uri) or _sidecar_digest(source, deadline_s)
    if content.sha256 != expected:
        raise BundleError(f"{MANIFEST}: its SHA-256 is {content.sha256}, expected {expected}")
    manifest = parse_manifest(bytes(content.data))
    files = _each(names, lambda name: _fetch_verified(source, manifest, name), deadline_s)
    return Bundle(manifest, files)


def _source(uri: str, copies: Copies) -> BundleSource:
    if not uri.startswith("s3://"):
        return DirectorySource(Path(uri), copies)
    from feedrank.bundle.s3_source import S3Source

    return S3Source(uri, copies)


def _sidecar_digest(source: BundleSource, deadline_s: float) -> str:
    content = _fetch_one(source, DIGEST_SIDECAR, MAX_SIDECAR_BYTES, deadline_s)
    return parse_sidecar(bytes(content.data))


def _fetch_one(source: BundleSource, name: str, max_bytes: int, deadline_s: float) -> Content:
    return _each([name], lambda name: source.fetch(name, max_bytes), deadline_s)[name]


def _each(
    names: Iterable[str], fetch: Callable[[str], Result], deadline_s: float
) -> dict[str, Result]:
    """All at once. Raises BundleError past the deadline, whatever the source does then."""
    futures = {name: in_thread(partial(fetch, name)) for name in names}
    try:
        return {
            name: future.result(min(max(0.0, deadline_s - perf_counter()), MAX_WAIT_S))
            for name, future in futures.items()
        }
    except TimeoutError as error:
        pending = ", ".join(name for name, future in futures.items() if not future.done())
        raise BundleError(f"{pending}: takes too long to fetch") from error


def in_thread(fetch: Callable[[], Result]) -> Future[Result]:
    """Begins it in a daemon thread: a source that sends a byte a second would end neither in time
    nor with the process."""
    future: Future[Result] = Future()
    Thread(target=_fulfil, args=(future, fetch), name="fetch", daemon=True).start()
    return future


def _fulfil(future: Future[Result], fetch: Callable[[], Result]) -> None:
    try:
        future.set_result(fetch())
    except BaseException as error:
        future.set_exception(error)


def _fetch_verified(source: BundleSource, manifest: Manifest, name: str) -> mmap.mmap:
    entry = manifest.files.get(name)
    if entry is None and name == TORCH_MODEL:
        raise BundleError(
            f"{name}: the manifest doesn't list it: the bundle is of an ONNX model, or quantised, "
            "so MODEL_ENGINE must be onnx"
        )
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
