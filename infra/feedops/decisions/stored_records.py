"""Where decision records are stored: a prefix of an S3 bucket, or the directory of daily files.

Each object is read, written again without a user's records where it has any, and read back. A pass
that was interrupted is repeated: what is done already has no such records.
"""

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from feedops.decisions.user_records import UnreadableError, UserRecords
from feedops.errors import OperationError

CALLS = 8  # objects at once; each is in memory, uncompressed, with up to 128 MB
KEPT_HEADERS = ("ContentType", "ContentEncoding", "Metadata", "StorageClass", "SSEKMSKeyId")
ATHENA = "athena-results/"  # query results, which hold no records; the stack's bucket expires them
GONE = {"NoSuchKey", "NoSuchVersion", "404"}  # expired during the pass
MEANINGS = {
    "InvalidObjectState": "is in an archive; restore it first",
    "PreconditionFailed": "was written by another program during the erasure",
    "AccessDenied": "may not be read, written or deleted with these credentials",
}


@dataclass
class PassCounts:
    """Of one pass over all objects. `records` are the user's."""

    objects: int = 0
    versions: int = 0  # earlier ones, of a versioned bucket
    changed: int = 0
    records: int = 0
    unread: dict[str, str] = field(default_factory=dict)  # reasons by name

    def add(self, other: "PassCounts") -> None:
        self.objects += other.objects
        self.versions += other.versions
        self.changed += other.changed
        self.records += other.records
        self.unread |= other.unread


class StoredRecords(Protocol):
    def pass_over(self, user: UserRecords, *, erase: bool) -> PassCounts:
        """Counts the user's records, and with `erase` erases them. Raises OperationError where the
        objects can't be listed."""


def stored_records(source: str) -> StoredRecords:
    """Raises OperationError where `source` is neither a bucket's prefix nor a directory."""
    if source.startswith("s3://"):
        bucket, _, prefix = source.removeprefix("s3://").partition("/")
        return S3Records(bucket, prefix)
    if not Path(source).is_dir():
        raise OperationError(f"--from {source}: must be s3://bucket/prefix/ or a directory")
    return DailyRecords(Path(source))


class S3Records:
    """All versions of all objects below a prefix, Firehose's error prefix included."""

    def __init__(self, bucket: str, prefix: str) -> None:
        import boto3
        from botocore.config import Config

        self._bucket, self._prefix = bucket, prefix
        retries: Any = {"mode": "standard", "total_max_attempts": 5}
        self._s3: Any = boto3.client(
            "s3", config=Config(max_pool_connections=CALLS, retries=retries)
        )

    def pass_over(self, user: UserRecords, *, erase: bool) -> PassCounts:
        from botocore.exceptions import BotoCoreError, ClientError

        total = PassCounts()
        try:
            with ThreadPoolExecutor(CALLS) as pool:
                versions = list(self._versions())
                for counts in pool.map(lambda v: self._one(v, user, erase=erase), versions):
                    total.add(counts)
        except ClientError as error:
            reason = f"S3 responds with {error.response['Error']['Code']}"
            raise OperationError(f"s3://{self._bucket}/{self._prefix}: {reason}") from error
        except BotoCoreError as error:
            raise OperationError(f"s3://{self._bucket}/{self._prefix}: {error}") from error
        return total

    def _versions(self) -> Iterator[dict[str, Any]]:
        """A bucket without versioning has one of each object."""
        pages = self._s3.get_paginator("list_object_versions")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
            versions: list[dict[str, Any]] = page.get("Versions", [])
            yield from (each for each in versions if not each["Key"].startswith(ATHENA))

    def _one(self, version: dict[str, Any], user: UserRecords, *, erase: bool) -> PassCounts:
        from botocore.exceptions import ClientError

        is_latest = version["IsLatest"]
        counts = PassCounts(objects=int(is_latest), versions=int(not is_latest))
        try:
            stored = self._get(version["Key"], version["VersionId"])
            rest = user.without(stored["Body"])
            counts.records = rest.removed
            if rest.removed and erase:
                self._erase(version, stored, rest.body, user)
                counts.changed = 1
        except UnreadableError as error:
            counts.unread[self._name(version)] = str(error)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in GONE:
                return PassCounts()
            counts.unread[self._name(version)] = MEANINGS.get(code, f"S3 responds with {code}")
        return counts

    def _name(self, version: dict[str, Any]) -> str:
        uri = f"s3://{self._bucket}/{version['Key']}"
        return uri if version["IsLatest"] else f"{uri}?versionId={version['VersionId']}"

    def _erase(
        self, version: dict[str, Any], stored: dict[str, Any], rest: bytes, user: UserRecords
    ) -> None:
        """Replaces the latest version by the rest, and deletes this one."""
        key, old = version["Key"], version["VersionId"]
        if version["IsLatest"]:
            new = self._put(key, stored, rest)
            back = self._get(key, new)["Body"]
            if back != rest or user.without(back).removed:
                raise UnreadableError("does not read back as it was written")
            if new == old:  # overwritten: the bucket keeps no versions
                return
        self._s3.delete_object(Bucket=self._bucket, Key=key, VersionId=old)

    def _put(self, key: str, stored: dict[str, Any], body: bytes) -> str:
        """Returns the new version's id."""
        headers = {name: stored[name] for name in KEPT_HEADERS if stored.get(name)}
        if "SSEKMSKeyId" in headers:
            headers["ServerSideEncryption"] = stored["ServerSideEncryption"]
        response = self._s3.put_object(
            Bucket=self._bucket, Key=key, Body=body, IfMatch=stored["ETag"], **headers
        )
        version: str = response.get("VersionId", "null")
        return version

    def _get(self, key: str, version: str) -> dict[str, Any]:
        stored = self._s3.get_object(Bucket=self._bucket, Key=key, VersionId=version)
        return {**stored, "Body": stored["Body"].read()}


class DailyRecords:
    """The daily files of `DECISION_LOG_DIR`, which functions may be appending to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def pass_over(self, user: UserRecords, *, erase: bool) -> PassCounts:
        total = PassCounts()
        for path in sorted(self._directory.glob("*.jsonl")):
            counts = PassCounts(objects=1)
            try:
                counts.records = _erase_from(path, user) if erase else _count(path, user)
                counts.changed = int(erase and counts.records > 0)
            except UnreadableError as error:
                counts.unread[str(path)] = str(error)
            except FileNotFoundError:  # removed during the pass
                continue
            except OSError as error:
                counts.unread[str(path)] = f"can't be read or replaced: {error.strerror}"
            total.add(counts)
        return total


def _count(path: Path, user: UserRecords) -> int:
    return user.without(path.read_bytes()).removed


def _erase_from(path: Path, user: UserRecords) -> int:
    """Holds the lock of those who append, who then open the new file."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        status = os.fstat(file.fileno())
        if status.st_nlink:
            rest = user.without(file.read())
            if rest.removed:
                _replace(path, rest.body, status)
            return rest.removed
    return _erase_from(path, user)  # another erasure replaced the file


def _replace(path: Path, body: bytes, status: os.stat_result) -> None:
    """By a file of the same owner and mode, so that the function can go on appending."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as copy:
        try:
            copy.write(body)
            copy.flush()
            os.fchown(copy.fileno(), status.st_uid, status.st_gid)
            os.fchmod(copy.fileno(), stat.S_IMODE(status.st_mode))
            os.fsync(copy.fileno())
            Path(copy.name).replace(path)
        except OSError:
            Path(copy.name).unlink(missing_ok=True)
            raise
