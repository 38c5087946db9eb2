"""Signatures are botocore's, for whatever request."""

from datetime import UTC, datetime, timedelta
from string import ascii_letters, digits, printable
from urllib.parse import quote

import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import given, settings
from hypothesis import strategies as st

from feedrank.aws.signing import UNSIGNED, Credentials, Request, Signer

SERVICES = ("s3", "firehose", "dynamodb")
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=20).filter(
    # Those that signing itself adds
    lambda name: name not in {"host", "date", "authorization"} and not name.startswith("x-amz-")
)
VALUES = st.text("".join(sorted(set(printable) - set("\r\n\x0b\x0c"))), max_size=40)
HEADERS = st.dictionaries(NAMES | st.sampled_from(sorted(UNSIGNED)), VALUES, max_size=6)
KEYS = st.text(ascii_letters + digits + "/+=", min_size=1, max_size=80)
HOSTS = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,30}[a-z0-9](:[1-9][0-9]{0,3})?", fullmatch=True)
# Any text as an object's key or a path: botocore encodes keys so.
SEGMENTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
PATHS = st.lists(SEGMENTS, max_size=5).map(
    lambda segments: quote("/" + "/".join(segments), safe="/~")
)
REQUESTS = st.builds(
    lambda method, path, headers, host, body: Request(
        method, path, {**headers, "host": host}, body
    ),
    st.sampled_from(["GET", "POST", "PUT"]),
    PATHS.filter(lambda path: "//" not in path and not {".", ".."} & set(path.split("/"))),
    HEADERS,
    HOSTS,
    st.binary(max_size=200),
)
CREDENTIALS = st.builds(Credentials, KEYS, KEYS, KEYS | st.just(""))


def _by_botocore(
    service: str, region: str, request: Request, credentials: Credentials, now: datetime
) -> dict[str, str]:
    url = f"https://{request.headers['host']}{request.path}"
    signed = AWSRequest(request.method, url, request.headers, request.body)
    keys = BotocoreCredentials(*credentials[:2], credentials.token or None)
    auth = (S3SigV4Auth if service == "s3" else SigV4Auth)(keys, service, region)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: now)
        auth.add_auth(signed)
    return {name.lower(): value for name, value in signed.headers.items()}


@settings(max_examples=700)  # of three requests each
@given(
    request=REQUESTS,
    credentials=CREDENTIALS,
    region=st.sampled_from(["eu-west-1", "us-gov-west-1", "cn-north-1"]),
    second=st.integers(10**9, 4 * 10**9),
)
def test_a_request_is_signed_as_botocore_signs_it(
    request: Request, credentials: Credentials, region: str, second: int
) -> None:
    now = datetime.fromtimestamp(second, UTC)
    for service in SERVICES:
        expected = _by_botocore(service, region, request, credentials, now)
        assert Signer(service, region).sign(request, credentials, second).headers == expected


@given(path=PATHS, credentials=CREDENTIALS)
def test_the_path_of_an_object_is_signed_as_it_is(path: str, credentials: Credentials) -> None:
    """Its key may have empty and dot segments, which count."""
    request, now = Request("GET", path, {"host": "b.s3.amazonaws.com"}), datetime.now(UTC)
    expected = _by_botocore("s3", "us-east-1", request, credentials, now)
    assert Signer("s3", "us-east-1").sign(request, credentials, now.timestamp()).headers == expected


def test_one_signer_signs_on_with_other_keys_and_on_the_next_day() -> None:
    signer, request = Signer("firehose", "eu-west-1"), Request("POST", "/", {"host": "h"}, b"{}")
    for day in range(3):
        for secret in ("a", "b"):
            now = datetime.now(UTC) + timedelta(days=day)
            keys = Credentials("AKIA", secret)
            expected = _by_botocore("firehose", "eu-west-1", request, keys, now)
            assert signer.sign(request, keys, now.timestamp()).headers == expected


def test_credentials_never_show_themselves() -> None:
    keys = Credentials("AKIAIOSFODNN7EXAMPLE", "a-secret-key", "a-session-token")
    for text in (repr(keys), str(keys), f"{keys}", f"{[keys]}"):
        assert not any(part in text for part in keys)
