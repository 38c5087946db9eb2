"""A published bundle is immutable: the bucket policy is evaluated, `publish` runs against moto.

moto ignores the conditions of bucket policies, so iam.py evaluates those for the requests that the
code sends. https://docs.aws.amazon.com/AmazonS3/latest/userguide/
conditional-writes-enforce.html has the condition keys of each request.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from moto.core import set_initial_no_auth_action_count

import fakes
from feedmodel.errors import PublishError
from feedmodel.publish.upload import files_below, upload
from feedrank.bundle.layout import FORMAT, MANIFEST
from stack.iam import ACCOUNT, BUNDLES, become, bucket_policy, denied
from stack.transform import Json, resolved, template, transformed

OBJECT = f"arn:aws:s3:::{BUNDLES}/bundles/feed_ranker/sha256-{'ab' * 32}/{MANIFEST}"
TO = f"s3://{BUNDLES}/bundles/"
ADMIN = f"arn:aws:iam::{ACCOUNT}:role/ops/bundle-admin"
PUBLISHER = {  # as the README lists it
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUNDLES}"},
        {
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject"],
            "Resource": f"arn:aws:s3:::{BUNDLES}/bundles/*",
        },
    ],
}
CREATES = {"s3_ObjectCreationOperation": "true"}
ADDS_A_PART = {"s3_ObjectCreationOperation": "false"}
IF_NONE_MATCH = {"s3_if_none_match": "*"}
OVER_TLS = {"aws_SecureTransport": "true"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A manifest and two other files, whose names sort before and after it."""
    manifest = {key: value for key, value in asdict(fakes.manifest()).items() if key != "digest"}
    directory = tmp_path / "bundle"
    for name, text in {
        MANIFEST: json.dumps({"format": FORMAT, **manifest}),
        "MLmodel": "flavors: {}",
        "serving/model.onnx": "weights",
    }.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory


@pytest.fixture
def s3(aws: None) -> Iterator[Any]:
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUNDLES)
    yield client
    boto3.DEFAULT_SESSION = None


def _contents(s3: Any) -> dict[str, bytes]:
    listed = s3.list_objects_v2(Bucket=BUNDLES).get("Contents", [])
    return {
        each["Key"]: s3.get_object(Bucket=BUNDLES, Key=each["Key"])["Body"].read()
        for each in listed
    }


# ---- Publishing ----------------------------------------------------------------------------------


def test_publish_makes_only_calls_that_its_role_and_the_bucket_policy_allow(
    s3: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = bucket_policy("infra/data.yaml", "BundleBucketPolicy")
    become([PUBLISHER], monkeypatch)
    call = BaseClient._make_api_call
    puts: list[str] = []

    def evaluate(client: BaseClient, operation: str, parameters: dict[str, str]) -> Any:
        if operation == "PutObject":
            puts.append(parameters["Key"])
            header = {"s3_if_none_match": parameters.get("IfNoneMatch")}
            context = OVER_TLS | CREATES | {key: value for key, value in header.items() if value}
            resource = f"arn:aws:s3:::{BUNDLES}/{parameters['Key']}"
            assert not denied(policy, "s3:PutObject", resource, **context)
        return call(client, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", evaluate)
    published = set_initial_no_auth_action_count(0)(upload)(bundle, TO)
    prefix = published.uri.removeprefix(f"s3://{BUNDLES}/")
    assert puts == [prefix + name for name in ("MLmodel", "serving/model.onnx", MANIFEST)]
    assert published.uploaded == len(puts)


def test_publishing_again_finds_the_same_bundle(s3: Any, bundle: Path) -> None:
    first = upload(bundle, TO)
    before = _contents(s3)
    again = upload(bundle, TO)
    assert (first.uploaded, again.uploaded, again.uri) == (3, 0, first.uri)
    assert _contents(s3) == before


@pytest.mark.parametrize("name", ["MLmodel", "serving/model.onnx", MANIFEST])
def test_a_different_file_under_the_digest_is_kept_and_reported(
    s3: Any, bundle: Path, name: str
) -> None:
    prefix = upload(bundle, TO).uri.removeprefix(f"s3://{BUNDLES}/")
    s3.put_object(Bucket=BUNDLES, Key=prefix + name, Body=b"another")
    before = _contents(s3)
    with pytest.raises(PublishError, match=f"{prefix}{name}: another file is there"):
        upload(bundle, TO)
    assert _contents(s3) == before


@pytest.mark.parametrize("same", [True, False])
def test_concurrent_publishers_overwrite_nothing(s3: Any, bundle: Path, *, same: bool) -> None:
    """The other publisher writes between our check and our write."""
    boto3.setup_default_session()
    other = boto3.Session().client("s3")

    def write_first(params: Any, **_: Any) -> None:
        key = params["Key"]
        ours = (bundle / key.partition("/sha256-")[2].partition("/")[2]).read_bytes()
        other.put_object(Bucket=BUNDLES, Key=key, Body=ours if same else b"another")

    assert boto3.DEFAULT_SESSION
    boto3.DEFAULT_SESSION.events.register("before-parameter-build.s3.PutObject", write_first)
    if same:
        assert upload(bundle, TO).uploaded == 0
        assert {key.rpartition("/")[2] for key in _contents(s3)} == {
            name.rpartition("/")[2] for name in files_below(bundle)
        }
    else:
        with pytest.raises(PublishError, match="another file is there"):
            upload(bundle, TO)
        assert list(_contents(s3).values()) == [b"another"]


# ---- The bucket policy ---------------------------------------------------------------------------


def test_nobody_overwrites_a_bundle() -> None:
    """Not even the administrator, who can delete a bundle and publish it again."""
    for parameters in ({}, {"BundleAdminRoleArn": ADMIN}):
        policy = bucket_policy("infra/data.yaml", "BundleBucketPolicy", **parameters)
        for caller in (f"arn:aws:iam::{ACCOUNT}:root", ADMIN):
            context = OVER_TLS | {"aws_PrincipalArn": caller}
            # PutObject, CopyObject and CompleteMultipartUpload without the header
            assert denied(policy, "s3:PutObject", OBJECT, **context, **CREATES)
            # with it: S3 responds with 412 if the key exists
            assert not denied(policy, "s3:PutObject", OBJECT, **context, **CREATES, **IF_NONE_MATCH)
            # CreateMultipartUpload and UploadPart
            assert not denied(policy, "s3:PutObject", OBJECT, **context, **ADDS_A_PART)


def test_only_the_administrator_role_can_delete_a_bundle() -> None:
    nobody = bucket_policy("infra/data.yaml", "BundleBucketPolicy")
    administrator = bucket_policy("infra/data.yaml", "BundleBucketPolicy", BundleAdminRoleArn=ADMIN)
    root = f"arn:aws:iam::{ACCOUNT}:root"
    for action in (
        "s3:BypassGovernanceRetention",
        "s3:DeleteObject",
        "s3:DeleteObjectVersion",
        "s3:ReplicateDelete",
        "s3:ReplicateObject",
    ):
        for caller in (ADMIN, f"{ADMIN}-two", f"arn:aws:iam::{ACCOUNT}:role/role", root):
            context = OVER_TLS | {"aws_PrincipalArn": caller}
            assert denied(nobody, action, OBJECT, **context)
            assert denied(administrator, action, OBJECT, **context) is (caller != ADMIN)
        assert denied(administrator, action, OBJECT, **OVER_TLS)  # without credentials


def test_the_administrator_role_can_not_be_a_wildcard() -> None:
    for path in ("template.yaml", "infra/data.yaml"):
        pattern = re.compile(template(path)["Parameters"]["BundleAdminRoleArn"]["AllowedPattern"])
        assert pattern.fullmatch(ADMIN)
        assert pattern.fullmatch("")
        for trick in (ADMIN.replace("bundle", "*"), ADMIN.replace("admin", "?"), "*", f"{ADMIN}$"):
            assert not pattern.fullmatch(trick)


def test_reading_bundles_is_not_denied() -> None:
    policy = bucket_policy("infra/data.yaml", "BundleBucketPolicy")
    assert not denied(policy, "s3:GetObject", OBJECT, **OVER_TLS)
    assert not denied(policy, "s3:ListBucket", f"arn:aws:s3:::{BUNDLES}", **OVER_TLS)
    assert denied(policy, "s3:GetObject", OBJECT, aws_SecureTransport="false")


def test_s3_rejects_a_deletion_that_the_policy_denies(s3: Any, bundle: Path) -> None:
    upload(bundle, TO)
    before = _contents(s3)
    policy = bucket_policy("infra/data.yaml", "BundleBucketPolicy")
    statements = [one for one in policy["Statement"] if one["Sid"] == "NoDeletion"]
    s3.put_bucket_policy(Bucket=BUNDLES, Policy=json.dumps({**policy, "Statement": statements}))
    for key in before:
        with pytest.raises(ClientError, match="403"):
            s3.delete_object(Bucket=BUNDLES, Key=key)
    assert _contents(s3) == before


# ---- Object Lock ---------------------------------------------------------------------------------


def _bucket(**parameters: str) -> dict[str, Json]:
    stack = resolved(transformed("infra/data.yaml", **parameters), **parameters)
    properties: dict[str, Json] = stack["Resources"]["BundleBucket"]["Properties"]
    return properties


def test_zero_days_mean_no_lock() -> None:
    assert not [name for name in _bucket() if name.startswith("ObjectLock")]


def test_a_locked_bundle_can_not_be_deleted_for_its_days(s3: Any, bundle: Path) -> None:
    properties = _bucket(BundleLockDays="30")
    assert properties["ObjectLockEnabled"] is True
    s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    lock = properties["ObjectLockConfiguration"]
    lock["Rule"]["DefaultRetention"]["Days"] = int(lock["Rule"]["DefaultRetention"]["Days"])
    s3.put_object_lock_configuration(Bucket="locked", ObjectLockConfiguration=lock)
    upload(bundle, "s3://locked/bundles/")
    versions = s3.list_object_versions(Bucket="locked")["Versions"]
    for version in versions:
        with pytest.raises(ClientError, match="AccessDenied"):
            s3.delete_object(Bucket="locked", Key=version["Key"], VersionId=version["VersionId"])
    assert s3.list_object_versions(Bucket="locked")["Versions"] == versions
