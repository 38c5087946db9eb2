"""Where a bundle lies: a folder or an S3 prefix. What is hashed is what is used.

A file that somebody could still write is copied into one without a name, which is hashed while it
is written, and mapped: nobody else can open it, change it or make it shorter.
"""

import hashlib
import mmap
import os
import stat
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import IO, NamedTuple, Protocol

from feedrank.errors import BundleError
from feedrank.settings import is_lambda

S3_CONNECT_TIMEOUT_S = 1
S3_READ_TIMEOUT_S = 3  # twice: Lambda gives init ten seconds
S3_CONNECTIONS = 8
CHUNK_BYTES = 1 << 20


class Content(NamedTuple):
    data: mmap.mmap
    sha256: str  # of these very bytes


class BundleSource(Protocol):
    """Where a bundle lies. `fetch` raises BundleError, also for a file of more bytes than that."""

    def fetch(self, name: str, largest: int) -> Content: ...


@dataclass(frozen=True, slots=True)
class Copies:
    """Files without a name, below a folder. `deadline_s` is of `perf_counter()`."""

    folder: Path
    deadline_s: float

    def copy(self, chunks: Iterable[bytes], name: str, largest: int) -> Content:
        """Raises BundleError, and whatever `chunks` raises."""
        digest, size = hashlib.sha256(), 0
        with self._open(name) as file:
            for chunk in chunks:
                size += len(chunk)
                if size > largest:
                    raise BundleError(f"{name}: more than the {largest} bytes that are allowed")
                if perf_counter() > self.deadline_s:
                    raise BundleError(f"{name}: takes too long to fetch")
                digest.update(chunk)
                self._write(file, chunk, name)
            return Content(_mapped(file, name), digest.hexdigest())

    def _open(self, name: str) -> IO[bytes]:
        from tempfile import TemporaryFile

        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return TemporaryFile(dir=self.folder, buffering=0)
        except OSError as error:
            raise self._unwritable(name, error) from error

    def _write(self, file: IO[bytes], chunk: bytes, name: str) -> None:
        left = memoryview(chunk)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError as error:
            raise self._unwritable(name, error) from error

    def _unwritable(self, name: str, error: OSError) -> BundleError:
        reason = f"can't be written to {self.folder}: {error.strerror} (MODEL_CACHE_DIR)"
        return BundleError(f"{name}: {reason}")


class FolderSource:
    """A bundle on disk. Links are followed, as mounted volumes and model stores are made of them:
    what they lead to is compared with the manifest like everything else."""

    def __init__(self, folder: Path, copies: Copies) -> None:
        self._folder = folder
        self._copies = copies

    def fetch(self, name: str, largest: int) -> Content:
        path = self._folder / name
        try:
            with open(path, "rb", buffering=0, opener=_open_at_once) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise BundleError(f"{name}: is no file in {self._folder}")
                if _is_of_a_layer(file):
                    return _in_place(file, name, largest)
                return self._copies.copy(iter(partial(file.read, CHUNK_BYTES), b""), name, largest)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise BundleError(f"{name}: not found in {self._folder}") from error
        except OSError as error:
            raise BundleError(f"{name}: can't be read: {error}") from error


class S3Source:
    """A bundle on S3."""

    def __init__(self, uri: str, copies: Copies) -> None:
        import boto3
        from botocore.config import Config

        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self._bucket, self._prefix, self._uri = bucket, prefix.rstrip("/"), uri
        self._copies = copies
        config = Config(
            connect_timeout=S3_CONNECT_TIMEOUT_S,
            read_timeout=S3_READ_TIMEOUT_S,
            max_pool_connections=S3_CONNECTIONS,
            retries={"total_max_attempts": 2, "mode": "standard"},
        )
        try:
            self._s3 = boto3.client("s3", config=config)
        except Exception as error:  # botocore's, or Python's own
            raise BundleError(f"{uri}: the AWS_* variables make no client: {error}") from error

    def fetch(self, name: str, largest: int) -> Content:
        from botocore.exceptions import BotoCoreError, ClientError

        key = f"{self._prefix}/{name}" if self._prefix else name
        try:
            body = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"]
            with closing(body):
                return self._copies.copy(body.iter_chunks(CHUNK_BYTES), name, largest)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            raise BundleError(f"{name}: S3 answers {code} for {self._uri}") from error
        except (BotoCoreError, OSError) as error:
            raise BundleError(f"{name}: S3 can't be reached for {self._uri}: {error}") from error


def _open_at_once(path: str, flags: int) -> int:
    """Without waiting for somebody to write, where it is a named pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _is_of_a_layer(file: IO[bytes]) -> bool:
    """Or of the function's code or image, which Lambda lets nobody write. Elsewhere a file system
    that is mounted for reading may be written from outside the container."""
    if not is_lambda():
        return False
    return bool(os.fstatvfs(file.fileno()).f_flag & os.ST_RDONLY)


def _in_place(file: IO[bytes], name: str, largest: int) -> Content:
    data = _mapped(file, name)
    if len(data) > largest:
        raise BundleError(f"{name}: more than the {largest} bytes that are allowed")
    return Content(data, hashlib.sha256(data).hexdigest())


def _mapped(file: IO[bytes], name: str) -> mmap.mmap:
    if not os.fstat(file.fileno()).st_size:
        raise BundleError(f"{name}: 0 bytes, no file of a bundle is empty")
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise BundleError(f"{name}: can't be mapped: {error.strerror}") from error
