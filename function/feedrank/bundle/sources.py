"""Reads a bundle's files from a directory; from S3 see `s3_source`. What is hashed is what is used.

A file that another process could write is copied into an unnamed one, which is hashed on the way
and mapped: nobody else can open it, change it or truncate it.
"""

import hashlib
import mmap
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import IO, NamedTuple, Protocol

from feedrank.errors import BundleError
from feedrank.settings import is_lambda

CHUNK_BYTES = 1 << 20


class Content(NamedTuple):
    data: mmap.mmap
    sha256: str  # of these very bytes


class BundleSource(Protocol):
    def fetch(self, name: str, max_bytes: int) -> Content:
        """Raises BundleError, also for a file of more than `max_bytes`."""


@dataclass(frozen=True, slots=True)
class Copies:
    """Makes unnamed files in a directory."""

    directory: Path
    deadline_s: float  # in `perf_counter()` seconds

    def copy(self, chunks: Iterable[bytes], name: str, max_bytes: int) -> Content:
        """Raises BundleError, and whatever `chunks` raises."""
        digest, size = hashlib.sha256(), 0
        with self.open(name) as file:
            for chunk in chunks:
                size += len(chunk)
                if size > max_bytes:
                    raise BundleError(f"{name}: more than the {max_bytes} bytes that are allowed")
                if perf_counter() > self.deadline_s:
                    raise BundleError(f"{name}: takes too long to fetch")
                digest.update(chunk)
                self._write(file, chunk, name)
            return Content(mapped(file, name), digest.hexdigest())

    def open(self, name: str) -> IO[bytes]:
        """An empty unnamed file. Raises BundleError."""
        from tempfile import TemporaryFile

        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            return TemporaryFile(dir=self.directory, buffering=0)
        except OSError as error:
            raise self.unwritable(name, error) from error

    def _write(self, file: IO[bytes], chunk: bytes, name: str) -> None:
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            raise self.unwritable(name, error) from error

    def unwritable(self, name: str, error: OSError) -> BundleError:
        reason = f"can't be written to {self.directory}: {error.strerror} (MODEL_CACHE_DIR)"
        return BundleError(f"{name}: {reason}")


class DirectorySource:
    """A bundle on disk. Follows links, which mounted volumes and model stores are made of: the
    manifest has the SHA-256 of what they lead to."""

    def __init__(self, directory: Path, copies: Copies) -> None:
        self._directory = directory
        self._copies = copies

    def fetch(self, name: str, max_bytes: int) -> Content:
        path = self._directory / name
        try:
            with open(path, "rb", buffering=0, opener=_open_without_waiting) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise BundleError(f"{name}: is not a file in {self._directory}")
                if _is_read_only_on_lambda(file):
                    return _map_in_place(file, name, max_bytes)
                return self._copies.copy(
                    iter(partial(file.read, CHUNK_BYTES), b""), name, max_bytes
                )
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise BundleError(f"{name}: not found in {self._directory}") from error
        except OSError as error:
            raise BundleError(f"{name}: can't be read: {error}") from error


def _open_without_waiting(path: str, flags: int) -> int:
    """Opening a named pipe would wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _is_read_only_on_lambda(file: IO[bytes]) -> bool:
    """Lambda mounts layers, code and image read-only for everybody. Elsewhere a file system that is
    mounted read-only may be written from outside the container."""
    if not is_lambda():
        return False
    return bool(os.fstatvfs(file.fileno()).f_flag & os.ST_RDONLY)


def _map_in_place(file: IO[bytes], name: str, max_bytes: int) -> Content:
    data = mapped(file, name)
    if len(data) > max_bytes:
        raise BundleError(f"{name}: more than the {max_bytes} bytes that are allowed")
    return Content(data, hashlib.sha256(data).hexdigest())


def mapped(file: IO[bytes], name: str) -> mmap.mmap:
    """Raises BundleError."""
    if not os.fstat(file.fileno()).st_size:
        raise BundleError(f"{name}: 0 bytes, no file of a bundle is empty")
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise BundleError(f"{name}: can't be mapped: {error.strerror}") from error
