"""A bundle in a directory that others can write: what is hashed is what is served."""

import hashlib
import json
import os
import resource
import shutil
from collections.abc import Iterable
from math import inf
from pathlib import Path
from types import SimpleNamespace

import pytest

import fakes
from feedrank.bundle import sources as source
from feedrank.bundle.fetch import Bundle, fetch_bundle
from feedrank.bundle.layout import (
    DIGEST_SIDECAR,
    GOLDEN,
    MANIFEST,
    ONNX_MODEL,
    SNAPSHOT,
    TORCH_MODEL,
)
from feedrank.bundle.sources import Content, Copies, DirectorySource
from feedrank.errors import BundleError
from feedrank.model.load import load_model

NAMES = [ONNX_MODEL, TORCH_MODEL, SNAPSHOT, GOLDEN]


@pytest.fixture
def bundle(demo_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(demo_bundle, tmp_path / "bundle"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def _is_what_the_manifest_lists(fetched: Bundle) -> bool:
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in fetched.files.items()}
    return hashes == {name: fetched.manifest.files[name].sha256 for name in NAMES}


def test_overwriting_or_truncating_a_file_does_not_change_what_was_fetched(
    bundle: Path, cache: Path
) -> None:
    fetched = fetch_bundle(str(bundle), "", cache, NAMES)
    for name in NAMES:
        with (bundle / name).open("r+b") as file:
            file.write(bytes((bundle / name).stat().st_size))
    assert _is_what_the_manifest_lists(fetched)
    for name in NAMES:
        os.truncate(bundle / name, 0)
    assert _is_what_the_manifest_lists(fetched)


@pytest.mark.parametrize(("place", "fetched"), [(0, "original"), (-1, "refused")])
def test_a_file_that_is_overwritten_during_a_read_is_served_as_it_was_or_refused(
    bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, place: int, fetched: str
) -> None:
    """Its first byte has been read by then, its last one has not."""

    class Overwriting(Copies):
        def copy(self, chunks: Iterable[bytes], name: str, max_bytes: int) -> Content:
            def overwriting() -> Iterable[bytes]:
                for number, chunk in enumerate(chunks):
                    if number == 0:
                        with path.open("r+b") as file:
                            file.seek(place, os.SEEK_SET if place >= 0 else os.SEEK_END)
                            file.write(bytes([original[place] ^ 1]))
                    yield chunk

            return super().copy(overwriting(), name, max_bytes)

    path, original = bundle / SNAPSHOT, (bundle / SNAPSHOT).read_bytes()
    monkeypatch.setattr(source, "CHUNK_BYTES", 1_000)
    content = DirectorySource(bundle, Overwriting(cache, inf)).fetch(SNAPSHOT, len(original))
    assert path.read_bytes() != original
    assert content.sha256 == hashlib.sha256(content.data).hexdigest()
    assert ("original" if content.data[:] == original else "refused") == fetched


def test_a_copy_is_an_unnamed_file(bundle: Path, cache: Path) -> None:
    fetched = fetch_bundle(str(bundle), "", cache, NAMES)
    assert list(cache.iterdir()) == []
    assert cache.stat().st_mode & 0o777 == 0o700
    assert _is_what_the_manifest_lists(fetched)


@pytest.mark.parametrize("name", [MANIFEST, DIGEST_SIDECAR, *NAMES])
def test_a_named_pipe_is_refused_without_waiting(bundle: Path, cache: Path, name: str) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(BundleError, match=f"^{name}: is not a file in {bundle}"):
        fetch_bundle(str(bundle), "", cache, NAMES)


def test_a_link_to_an_endless_device_is_refused(bundle: Path, cache: Path) -> None:
    (bundle / SNAPSHOT).unlink()
    (bundle / SNAPSHOT).symlink_to("/dev/zero")
    with pytest.raises(BundleError, match=f"^{SNAPSHOT}: is not a file in {bundle}"):
        fetch_bundle(str(bundle), "", cache, NAMES)


def test_a_volume_made_of_links_is_a_bundle(bundle: Path, cache: Path) -> None:
    """Kubernetes mounts one so, to change all files at once."""
    bundle.joinpath("serving").rename(bundle / "..2026_11_25")
    (bundle / "..data").symlink_to("..2026_11_25")
    (bundle / "serving").mkdir()
    for path in bundle.joinpath("..2026_11_25").iterdir():
        (bundle / "serving" / path.name).symlink_to(f"../..data/{path.name}")
    assert _is_what_the_manifest_lists(fetch_bundle(str(bundle), "", cache, NAMES))


def test_a_full_cache_is_named(demo_bundle: Path, cache: Path) -> None:
    """A limit on the size of files fails a write as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    max_bytes = len((demo_bundle / MANIFEST).read_bytes())
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, limits[1]))
    try:
        with pytest.raises(BundleError, match=f"can't be written to {cache}: File too large"):
            fetch_bundle(str(demo_bundle), "", cache, NAMES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(cache.iterdir()) == []


def test_an_unwritable_cache_is_named(demo_bundle: Path, cache: Path) -> None:
    cache.touch()
    with pytest.raises(BundleError, match=f"^{MANIFEST}: can't be written to {cache}: File exists"):
        fetch_bundle(str(demo_bundle), "", cache, NAMES)


@pytest.mark.parametrize(("function", "is_copied"), [("feedrank", False), ("", True)])
def test_only_lambdas_read_only_files_are_mapped_in_place(
    demo_bundle: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    function: str,
    is_copied: bool,
) -> None:
    """A volume that is read-only in a container may be written from outside."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", function)
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    fetched = fetch_bundle(str(demo_bundle), "", cache, NAMES)
    assert _is_what_the_manifest_lists(fetched)
    assert cache.exists() is is_copied


def test_a_layers_file_that_is_too_long_is_refused(
    bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "feedrank")
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    size = json.loads((bundle / MANIFEST).read_bytes())["files"][GOLDEN]["size"]
    with (bundle / GOLDEN).open("ab") as file:
        file.write(b" ")
    with pytest.raises(BundleError, match=f"^{GOLDEN}: more than the {size} bytes that are"):
        load_model(str(bundle), "", fakes.settings(MODEL_CACHE_DIR=str(cache)))
