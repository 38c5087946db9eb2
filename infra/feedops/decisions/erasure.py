"""A user's records, erased from where decision records are kept, and what proves it.

Each object is read, written again without them where it has any, and read back; then all are read
a second time. What was interrupted is run again: what is done has nothing left to do.
"""

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from feedops.decisions.user_records import UnreadableError, UserRecords
from feedops.display import print_facts, print_whole, steps
from feedops.errors import OperationError
from feedrank.settings import MIN_KEY_LENGTH

CALLS = 8  # objects at once; each is in memory, unpacked, up to 128 MB
KEPT_HEADERS = ("ContentType", "ContentEncoding", "Metadata", "StorageClass", "SSEKMSKeyId")
ATHENA = "athena-results/"  # which the stack's bucket keeps for days; they hold no records
GONE = {"NoSuchKey", "NoSuchVersion", "404"}  # expired meanwhile
MEANINGS = {
    "InvalidObjectState": "is in an archive; restore it first",
    "PreconditionFailed": "was written by somebody else meanwhile",
    "AccessDenied": "may not be read, written or deleted with these credentials",
}


@dataclass
class Pass:
    """One pass over a place. `records` are those of the user that it met."""

    objects: int = 0
    versions: int = 0  # earlier ones, of a versioned bucket
    changed: int = 0
    records: int = 0
    unread: dict[str, str] = field(default_factory=dict)

    def add(self, other: "Pass") -> None:
        self.objects += other.objects
        self.versions += other.versions
        self.changed += other.changed
        self.records += other.records
        self.unread |= other.unread


class Place(Protocol):
    def go_over(self, records: UserRecords, *, erase: bool) -> Pass:
        """Raises OperationError where the place itself can't be looked into."""


def place_of(source: str) -> Place:
    """Raises OperationError where it is neither a bucket's prefix nor a folder."""
    if source.startswith("s3://"):
        bucket, _, prefix = source.removeprefix("s3://").partition("/")
        return Bucket(bucket, prefix)
    if not Path(source).is_dir():
        raise OperationError(f"--from {source}: must be s3://bucket/prefix/ or a folder")
    return Folder(Path(source))


class Bucket:
    """All versions of all objects below a prefix, Firehose's error prefix like any other."""

    def __init__(self, bucket: str, prefix: str) -> None:
        import boto3
        from botocore.config import Config

        self._bucket, self._prefix = bucket, prefix
        self._uri = f"s3://{bucket}/{prefix}"
        retries: Any = {"mode": "standard", "total_max_attempts": 5}
        self._s3: Any = boto3.client(
            "s3", config=Config(max_pool_connections=CALLS, retries=retries)
        )

    def go_over(self, records: UserRecords, *, erase: bool) -> Pass:
        from botocore.exceptions import BotoCoreError, ClientError

        total = Pass()
        try:
            with ThreadPoolExecutor(CALLS) as pool:
                versions = list(self._versions())
                for one in pool.map(lambda each: self._one(each, records, erase=erase), versions):
                    total.add(one)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            raise OperationError(f"{self._uri}: S3 answers {code}") from error
        except BotoCoreError as error:
            raise OperationError(f"{self._uri}: {error}") from error
        return total

    def _versions(self) -> Iterator[dict[str, Any]]:
        """A bucket without versions has one of each object."""
        pages = self._s3.get_paginator("list_object_versions")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
            found: list[dict[str, Any]] = page.get("Versions", [])
            yield from (each for each in found if not each["Key"].startswith(ATHENA))

    def _one(self, version: dict[str, Any], records: UserRecords, *, erase: bool) -> Pass:
        from botocore.exceptions import ClientError

        latest = version["IsLatest"]
        name = f"s3://{self._bucket}/{version['Key']}"
        if not latest:
            name += f"?versionId={version['VersionId']}"
        seen = Pass(objects=int(latest), versions=int(not latest))
        try:
            stored = self._get(version["Key"], version["VersionId"])
            rest = records.without(stored["Body"])
            seen.records = rest.removed
            if rest.removed and erase:
                self._erase(version, stored, rest.body, records)
                seen.changed = 1
        except UnreadableError as error:
            seen.unread[name] = str(error)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in GONE:
                return Pass()
            seen.unread[name] = MEANINGS.get(code, f"S3 answers {code}")
        return seen

    def _erase(
        self, version: dict[str, Any], stored: dict[str, Any], rest: bytes, records: UserRecords
    ) -> None:
        """Write what is left in the place of the latest version, and delete this one."""
        key, old = version["Key"], version["VersionId"]
        if version["IsLatest"]:
            kept = {name: stored[name] for name in KEPT_HEADERS if stored.get(name)}
            if "SSEKMSKeyId" in kept:
                kept["ServerSideEncryption"] = stored["ServerSideEncryption"]
            put = self._s3.put_object(
                Bucket=self._bucket, Key=key, Body=rest, IfMatch=stored["ETag"], **kept
            )
            new = put.get("VersionId", "null")
            back = self._get(key, new)["Body"]
            if back != rest or records.without(back).removed:
                raise UnreadableError("does not read back as it was written")
            if new == old:  # overwritten: the bucket keeps no versions
                return
        self._s3.delete_object(Bucket=self._bucket, Key=key, VersionId=old)

    def _get(self, key: str, version: str) -> dict[str, Any]:
        got = self._s3.get_object(Bucket=self._bucket, Key=key, VersionId=version)
        return {**got, "Body": got["Body"].read()}


class Folder:
    """The daily files of `DECISION_LOG_DIR`, which functions may be writing to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def go_over(self, records: UserRecords, *, erase: bool) -> Pass:
        total = Pass()
        for path in sorted(self._folder.glob("*.jsonl")):
            seen = Pass(objects=1)
            try:
                seen.records = _erase_from(path, records) if erase else _count(path, records)
                seen.changed = int(erase and seen.records > 0)
            except UnreadableError as error:
                seen.unread[str(path)] = str(error)
            except FileNotFoundError:  # removed meanwhile
                continue
            except OSError as error:
                seen.unread[str(path)] = f"can't be read or replaced: {error.strerror}"
            total.add(seen)
        return total


def _count(path: Path, records: UserRecords) -> int:
    return records.without(path.read_bytes()).removed


def _erase_from(path: Path, records: UserRecords) -> int:
    """Under the lock of those who write to it; who waits for it opens the new file after that."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        status = os.fstat(file.fileno())
        if status.st_nlink:
            rest = records.without(file.read())
            if rest.removed:
                _replace(path, rest.body, status)
            return rest.removed
    return _erase_from(path, records)  # another erasure put a new file in its place


def _replace(path: Path, body: bytes, status: os.stat_result) -> None:
    """By a file of the same owner and mode, so that the function may go on writing to it."""
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


def erase(
    user: str,
    source: str,
    key_variables: Sequence[str],
    log_groups: str,
    console: Console,
    *,
    dry_run: bool,
) -> None:
    """Prints what was done, what is left and what it can't reach. Raises OperationError where a
    record is left, or something could not be read."""
    if not user.isascii() or not user.isdigit() or str(int(user)) != user:
        raise OperationError(f"--user {user!r}: must be a user's id, a whole number such as 42")
    records, place = UserRecords(user, _keys(key_variables)), place_of(source)
    with steps(console, f"Reading {source}"):
        first = place.go_over(records, erase=not dry_run)
    facts = {
        "read": f"{first.objects:,} objects, {first.versions:,} earlier versions",
        "records": f"{first.records:,} of this user's",
    }
    if not dry_run:
        with steps(console, "Reading it all again"):
            again = place.go_over(records, erase=False)
        facts["changed"] = f"{first.changed:,} objects and versions"
        facts["read again"] = f"{again.objects:,} objects, {again.versions:,} earlier versions"
        facts["left"] = f"{again.records:,} of this user's records"
    print_facts(console, facts)
    for line in _out_of_reach(source, log_groups):
        print_whole(console, f"not reached: {line}")
    last = first if dry_run else again
    unread = [f"{name} {reason}" for name, reason in sorted((first.unread | last.unread).items())]
    if unread or (last.records and not dry_run):
        left = 0 if dry_run else last.records
        head = f"not done: {left:,} records are left, {len(unread):,} objects were not read"
        raise OperationError("\n".join([head, *unread]))


def _keys(variables: Sequence[str]) -> list[str]:
    missing = [name for name in variables if len(os.environ.get(name, "").strip()) < MIN_KEY_LENGTH]
    if missing:
        raise OperationError(
            f"--key-env {missing[0]}: holds no key of {MIN_KEY_LENGTH} characters or more"
        )
    return [os.environ[name] for name in variables]


def _out_of_reach(source: str, log_groups: str) -> list[str]:
    if not source.startswith("s3://"):
        return ["what the function printed, and files of other names"]
    return [
        "records that Firehose still has: run this again after a quarter of an hour",
        "Athena's results, which the stack's bucket keeps for 7 days, and copies of your own",
        "the feature tables of bundles, and of runs in MLflow: publish without the user",
        *_log_groups(log_groups),
    ]


def _log_groups(prefix: str) -> list[str]:
    """Whose lines can't be erased one by one: each with how long it keeps them."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        pages = boto3.client("logs").get_paginator("describe_log_groups")
        groups = [g for p in pages.paginate(logGroupNamePrefix=prefix) for g in p["logGroups"]]
    except (BotoCoreError, ClientError) as error:
        return [f"the log groups {prefix}*, which can't be listed: {error}"]
    return [
        f"log group {group['logGroupName']}: its lines go after "
        + (f"{group['retentionInDays']} days" if "retentionInDays" in group else "no time at all")
        for group in groups
    ]
