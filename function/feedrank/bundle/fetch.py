"""Fetching a bundle: every file that is asked for is compared with the manifest, the manifest with
the digest that is expected. A byte that differs refuses the whole bundle."""

import math
import mmap
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from time import perf_counter
from typing import TypeVar

from feedrank.bundle.layout import DIGEST_SIDECAR, MANIFEST, Manifest, parse_manifest
from feedrank.bundle.sources import BundleSource, Copies, FolderSource, S3Source
from feedrank.errors import BundleError

Fetched = TypeVar("Fetched")
LONGEST_WAIT_S = 3_600.0
LARGEST_MANIFEST_BYTES = 1 << 20
LARGEST_SIDECAR_BYTES = 1 << 10
_SIDECAR = re.compile(rb"([0-9a-f]{64})  manifest\.json\n")
_DIGEST_IN_URI = re.compile(r"sha256-([0-9a-f]{64})/?$")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle: the content, mapped, of every file that was asked for."""

    manifest: Manifest
    files: Mapping[str, mmap.mmap]


def fetch_bundle(
    uri: str, digest: str, cache_dir: Path, names: Iterable[str], deadline_s: float = math.inf
) -> Bundle:
    """Compare each of the named files with the manifest, and the manifest with `digest`.

    Without a digest, the one in the URI (`.../sha256-<digest>/`) counts, then the sidecar.
    Raises BundleError that names the file. `deadline_s` is of `perf_counter()`.
    """
    copies = Copies(cache_dir, deadline_s)
    source: BundleSource = (
        S3Source(uri, copies) if uri.startswith("s3://") else FolderSource(Path(uri), copies)
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


def _fetch_verified(source: BundleSource, manifest: Manifest, name: str) -> mmap.mmap:
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


def _digest_in(uri: str) -> str:
    match = _DIGEST_IN_URI.search(uri)
    return match[1] if match else ""


def _digest_beside(source: BundleSource, deadline_s: float) -> str:
    found = _each(
        [DIGEST_SIDECAR], lambda name: source.fetch(name, LARGEST_SIDECAR_BYTES), deadline_s
    )
    line = bytes(found[DIGEST_SIDECAR].data)
    match = _SIDECAR.fullmatch(line)
    if not match:
        raise BundleError(f"{DIGEST_SIDECAR}: must be `<SHA-256>  manifest.json` and a line end")
    return match[1].decode()
