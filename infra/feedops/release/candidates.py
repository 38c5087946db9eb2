"""The bundle of a release: published now, or before, and whether the stack can serve it."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from feedops.errors import OperationError
from feedops.release.account import Account, code_of
from feedops.release.deployed import Deployed
from feedrank.bundle.layout import (
    GOLDEN,
    MANIFEST,
    ONNX_MODEL,
    SNAPSHOT,
    Manifest,
    digest_in,
    parse_manifest,
)
from feedrank.errors import BundleError

if TYPE_CHECKING:
    from feedmodel.publish.build import PublishOptions

DESTINATION = "BundleDestination"  # the output of the stack
# template.yaml's AllowedPattern and MaxLength of ModelUri; a test compares them.
URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]+/((?!sha256-)[^/*?$]+/)+sha256-[0-9a-f]{64}/?")
MAX_URI = 214
SERVED = (ONNX_MODEL, SNAPSHOT, GOLDEN)  # files that a container on Lambda reads
MISSING = {"NoSuchKey", "NoSuchBucket", "404"}


@dataclass(frozen=True, slots=True)
class Candidate:
    uri: str
    manifest: Manifest

    @property
    def container_bytes(self) -> int:
        """What a container copies to /tmp."""
        files = self.manifest.files
        return sum(files[name].size for name in SERVED if name in files)


def is_published(model: str) -> bool:
    """Whether it is a bundle's URI, as `feedrank publish` prints it, and not a model's."""
    return model.startswith("s3://")


def check_uri(uri: str) -> None:
    """Raises OperationError where the stack's parameter doesn't take the URI."""
    if not URI.fullmatch(uri):
        raise OperationError(
            f"{uri}: is no bundle's URI, s3://bucket/.../name/sha256-<digest>/\n"
            "give what `feedrank publish --to s3://...` printed, or a model in MLflow"
        )
    if len(uri) > MAX_URI:
        raise OperationError(f"{uri}: has {len(uri)} characters, of {MAX_URI} at most")


def published(account: Account, uri: str) -> Candidate:
    """The bundle at `uri`. Raises OperationError where there is none, or a different one."""
    from botocore.exceptions import ClientError

    check_uri(uri)
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    key = f"{prefix.rstrip('/')}/{MANIFEST}"
    try:
        raw: bytes = account.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if code_of(error) not in MISSING:
            raise
        raise OperationError(
            f"{uri}: there is no bundle\n"
            f"publish it: feedrank publish <model> --to s3://{bucket}/..."
        ) from error
    if hashlib.sha256(raw).hexdigest() != digest_in(uri):
        raise OperationError(f"{uri}: {MANIFEST} isn't the one that the digest is of")
    try:
        return Candidate(uri, parse_manifest(raw))
    except BundleError as error:
        raise OperationError(f"{uri}: {error}") from error


def publish(
    stack: Deployed, options: "PublishOptions", *, dry_run: bool, step: Callable[[str], None]
) -> Candidate:
    """Builds the bundle of a model in MLflow and, unless `dry_run`, uploads it to the stack's
    bucket."""
    from feedmodel.publish.build import build_bundle
    from feedmodel.publish.upload import destination, upload

    target = stack.outputs.get(DESTINATION)
    if not target:
        raise OperationError(
            f"{stack.name}: has no output {DESTINATION}; "
            "publish the model, and release the URI that this prints"
        )
    built = build_bundle(options, step)
    uri = destination(built.manifest, target)
    check_uri(uri)
    candidate = Candidate(uri, built.manifest)
    check(stack, candidate)
    if not dry_run:
        step(f"Uploading to {uri}")
        upload(built.directory, target)
    return candidate


def check(stack: Deployed, candidate: Candidate) -> None:
    """Raises OperationError that lists why the stack can't serve the bundle."""
    found = list(objections(stack.parameters, candidate))
    if found:
        raise OperationError("\n".join([f"{stack.name} can't serve {candidate.uri}", *found]))


def objections(parameters: Mapping[str, str], candidate: Candidate) -> Iterator[str]:
    """Why a stack with these parameters can't serve the bundle."""
    ids = str(candidate.manifest.feature_spec.get("ids", "number"))
    tables = parameters.get("IdType", "number")
    if ids != tables:
        yield (
            f"the bundle's ids are {ids}s and the stack's IdType is {tables}, so the hook would "
            f"refuse it: sam deploy with IdType={ids} first"
        )
    storage_mb = int(parameters.get("EphemeralStorage", "512"))
    if candidate.container_bytes > storage_mb * 1_000_000:
        yield (
            f"it takes {candidate.container_bytes / 1e6:,.0f} MB of /tmp, which has {storage_mb}: "
            "sam deploy with a larger EphemeralStorage first"
        )


def is_same(one: str, other: str) -> bool:
    """With or without a trailing slash, the same bundle is the same configuration."""
    return one.rstrip("/") == other.rstrip("/")
