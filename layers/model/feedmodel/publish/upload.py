"""From a bundle on disk to S3, or to the directory that the model layer is built from."""

import hashlib
import re
import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from feedmodel.errors import PublishError
from feedrank.bundle.layout import MANIFEST, SERVING, Manifest, directory_name, parse_manifest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

S3_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?")
CHUNK_BYTES = 1 << 20  # of a download that is compared
OTHER_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|s3:|s3//", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Published:
    uri: str
    uploaded: int  # files; 0 if the bundle was there already


def check_target(to: str) -> None:
    """Raises PublishError where no bundle can be uploaded. Checked before one is built."""
    if to.startswith("s3://"):
        if not S3_URI.fullmatch(to):
            raise PublishError(f"--to {to}: names no S3 bucket; write it as s3://bucket/prefix/")
        return
    if OTHER_URI.match(to):
        raise PublishError(f"--to {to}: must be s3://bucket/prefix/ or a directory")
    target = Path(to)
    if target.exists() and not (target / MANIFEST).is_file() and any(target.iterdir()):
        raise PublishError(f"{to}: holds files that are no bundle, and would be replaced")


def upload(bundle: Path, to: str) -> Published:
    """Copy a bundle to `s3://bucket/prefix/`, below which its path ends in its digest, or to a
    directory, which then holds this bundle alone."""
    check_target(to)
    if to.startswith("s3://"):
        return _to_s3(bundle, to)
    target = Path(to)
    target.parent.mkdir(parents=True, exist_ok=True)
    if _digest_of(target) == _digest_of(bundle):
        return Published(to, uploaded=0)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".publish-") as scratch:
        copy = Path(scratch) / "bundle"
        twins = {bundle / name for name in twins_of(bundle)}
        shutil.copytree(
            bundle, copy, ignore=lambda at, names: [n for n in names if Path(at) / n in twins]
        )
        for name, served in twins_of(bundle).items():
            link(copy / served, copy / name)
        put_in_place(copy, target)
    return Published(to, uploaded=len(files_below(target)))


def destination(manifest: Manifest, to: str) -> str:
    """The URI that a bundle has below `to`, s3://bucket/prefix/."""
    bucket, _, prefix = to.removeprefix("s3://").partition("/")
    parts = [bucket, prefix.strip("/"), manifest.name, directory_name(manifest.digest)]
    return f"s3://{'/'.join(filter(None, parts))}/"


def _to_s3(bundle: Path, to: str) -> Published:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    uri = destination(parse_manifest((bundle / MANIFEST).read_bytes()), to)
    bucket, _, base = uri.removeprefix("s3://").rstrip("/").partition("/")
    try:
        uploaded = _put_missing(boto3.client("s3"), bundle, bucket, base)
    except (BotoCoreError, ClientError, OSError) as error:
        raise PublishError(f"{to}: {error}") from error
    return Published(uri, uploaded)


def _put_missing(s3: "S3Client", bundle: Path, bucket: str, base: str) -> int:
    """Upload the files that are absent, and return their number. A file of the artifact that is
    also in serving/ is stored there alone. Raises PublishError where a different file has a key
    already.

    The manifest goes last: an upload that breaks off leaves no bundle.
    """
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{base}/")
    present = {item["Key"] for page in pages for item in page.get("Contents", ())}
    uploaded = 0
    stored = set(files_below(bundle)) - twins_of(bundle).keys()
    for name in sorted(stored, key=lambda name: (name == MANIFEST, name)):
        key = f"{base}/{name}"
        if key not in present and _put_new(s3, bundle / name, bucket, key):
            uploaded += 1
        elif not _is_same(s3, bundle / name, bucket, key):
            raise PublishError(
                f"s3://{bucket}/{key}: another file is there, under this bundle's digest\n"
                "nothing is overwritten: delete it, which BundleAdminRoleArn may, and publish again"
            )
    return uploaded


def _put_new(s3: "S3Client", path: Path, bucket: str, key: str) -> bool:
    """False where the key exists. S3 itself decides: others can write after the listing.

    One request a file, which has to be below 5 GB: boto3's managed uploads take no IfNoneMatch.
    """
    from botocore.exceptions import ClientError

    with path.open("rb") as file:
        try:
            s3.put_object(Bucket=bucket, Key=key, Body=file, IfNoneMatch="*")
        except ClientError as error:
            if error.response["Error"]["Code"] != "PreconditionFailed":
                raise
            return False
    return True


def _is_same(s3: "S3Client", path: Path, bucket: str, key: str) -> bool:
    stored = hashlib.sha256()
    response = s3.get_object(Bucket=bucket, Key=key)
    with path.open("rb") as file, closing(response["Body"]) as body:
        for chunk in body.iter_chunks(CHUNK_BYTES):
            stored.update(chunk)
        return stored.digest() == hashlib.file_digest(file, "sha256").digest()


def twins_of(bundle: Path) -> dict[str, str]:
    """Files of the artifact whose content is also in serving/, with their names there."""
    files = parse_manifest((bundle / MANIFEST).read_bytes()).files
    served = {entry: name for name, entry in files.items() if name.startswith(f"{SERVING}/")}
    return {
        name: served[entry]
        for name, entry in files.items()
        if entry in served and not name.startswith(f"{SERVING}/")
    }


def size_of(manifest: Manifest) -> int:
    """In bytes, each content once."""
    return sum(entry.size for entry in {*manifest.files.values()})


def link(source: Path, target: Path) -> None:
    """The same file under another name, where the file system has that; else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def files_below(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def put_in_place(source: Path, target: Path) -> None:
    """Replaces what is there. Both have to be on one file system."""
    if target.exists():
        shutil.rmtree(target)
    source.rename(target)


def _digest_of(directory: Path) -> str:
    """Empty where there is no bundle."""
    try:
        return hashlib.sha256((directory / MANIFEST).read_bytes()).hexdigest()
    except OSError:
        return ""
