"""From a bundle on disk to S3, or to the folder that the model layer is made of."""

import hashlib
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedmodel.errors import PublishError
from feedrank.bundle.layout import MANIFEST, parse_manifest

S3_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?")
OTHER_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|s3:|s3//", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Published:
    uri: str
    uploaded: int  # files; 0 where the bundle was there already


def check_target(to: str) -> None:
    """Raises PublishError where a bundle can't be brought there, before one is made."""
    if to.startswith("s3://"):
        if not S3_URI.fullmatch(to):
            raise PublishError(f"--to {to}: names no S3 bucket; write it as s3://bucket/prefix/")
        return
    if OTHER_URI.match(to):
        raise PublishError(f"--to {to}: must be s3://bucket/prefix/ or a folder")
    folder = Path(to)
    if folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise PublishError(f"{to}: holds something that is no bundle, and would be replaced")


def upload(bundle: Path, to: str) -> Published:
    """Bring a built bundle to `s3://bucket/prefix/`, below which it is named by its digest, or to a
    folder, which then holds this bundle alone."""
    check_target(to)
    if to.startswith("s3://"):
        return _to_s3(bundle, to)
    folder = Path(to)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if _digest_of(folder) == _digest_of(bundle):
        return Published(to, uploaded=0)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".publish-") as scratch:
        copy = Path(shutil.copytree(bundle, Path(scratch) / "bundle"))
        put_in_place(copy, folder)
    return Published(to, uploaded=len(files_below(folder)))


def _to_s3(bundle: Path, to: str) -> Published:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    manifest = parse_manifest((bundle / MANIFEST).read_bytes())
    bucket, _, prefix = to.removeprefix("s3://").partition("/")
    base = "/".join(filter(None, [prefix.strip("/"), manifest.name, f"sha256-{manifest.digest}"]))
    try:
        uploaded = _put_missing(boto3.client("s3"), bundle, bucket, base)
    except (BotoCoreError, ClientError, OSError) as error:
        raise PublishError(f"{to}: {error}") from error
    return Published(f"s3://{bucket}/{base}/", uploaded)


def _put_missing(s3: Any, bundle: Path, bucket: str, base: str) -> int:  # noqa: ANN401 boto3
    """Number of files that were not there. Raises PublishError where a file is, and is another.

    The manifest goes last: without it nothing of a broken upload is a bundle.
    """
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{base}/")
    there = {item["Key"] for page in pages for item in page.get("Contents", ())}
    uploaded = 0
    for name in sorted(files_below(bundle), key=lambda name: name == MANIFEST):
        key = f"{base}/{name}"
        if key not in there and _put_new(s3, bundle / name, bucket, key):
            uploaded += 1
        elif not _is_same(s3, bundle / name, bucket, key):
            raise PublishError(
                f"s3://{bucket}/{key}: another file is there, under this bundle's digest\n"
                "nothing is overwritten: delete it, which BundleAdminRoleArn may, and publish again"
            )
    return uploaded


def _put_new(s3: Any, path: Path, bucket: str, key: str) -> bool:  # noqa: ANN401
    """False where the key exists, as S3 itself says: between a look and a write others can write.

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


def _is_same(s3: Any, path: Path, bucket: str, key: str) -> bool:  # noqa: ANN401
    with path.open("rb") as file, s3.get_object(Bucket=bucket, Key=key)["Body"] as body:
        ours, theirs = (hashlib.file_digest(each, "sha256").digest() for each in (file, body))
    return ours == theirs


def files_below(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def put_in_place(source: Path, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    source.rename(folder)


def _digest_of(folder: Path) -> str:
    try:
        return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    except OSError:
        return ""
