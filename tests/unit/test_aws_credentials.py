"""Where credentials come from is boto3's answer; they are renewed before they expire."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from botocore.session import Session

import fakes
from answering import answering
from feedrank.aws import credentials as module
from feedrank.aws.credentials import Lease, RenewedCredentials, fetch_from_container, source_of
from feedrank.aws.errors import AwsError, CredentialsError
from feedrank.aws.profile import region_of
from feedrank.aws.signing import Credentials

NAMES = [name for name in os.environ if name.startswith("AWS_")]
KEYS = {"AWS_ACCESS_KEY_ID": "of-environment", "AWS_SECRET_ACCESS_KEY": "secret"}
PROFILES = """
[default]
aws_access_key_id = of-file
aws_secret_access_key = secret
[mine]
aws_access_key_id = of-profile
aws_secret_access_key = secret
"""


class Endpoint:
    """A container's endpoint: answers with `answers`, the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.requests: list[tuple[str, str | None]] = []  # path, authorization
        self.host = ""

    def answer(self, request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        self.requests.append((request.path, request.headers["Authorization"]))
        status, content = self.answers[0]
        if len(self.answers) > 1:
            self.answers.pop(0)
        return status, content if isinstance(content, bytes) else json.dumps(content).encode()

    @property
    def url(self) -> str:
        return f"http://{self.host}/creds?id=1"


def _answer(key: str = "of-container", seconds: float = 3_600) -> tuple[int, dict[str, str]]:
    expires = datetime.fromtimestamp(datetime.now(UTC).timestamp() + seconds, UTC)
    content = {
        "AccessKeyId": key,
        "SecretAccessKey": "secret",
        "Token": "token",
        "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return 200, content


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Endpoint]:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    endpoint = Endpoint()
    endpoint.answers = [_answer()]
    with answering(endpoint.answer) as url:
        endpoint.host = url.removeprefix("http://")
        yield endpoint


def _profile(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(PROFILES)


@pytest.mark.parametrize(
    ("variables", "has_files"),
    [
        (KEYS, False),
        (KEYS | {"AWS_SESSION_TOKEN": "token"}, False),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}"}, False),
        (KEYS | {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}"}, False),
        (KEYS | {"AWS_PROFILE": "mine"}, True),
        ({"AWS_PROFILE": "mine"}, True),
        ({}, True),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}"}, True),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "{url}", "AWS_PROFILE": "mine"}, True),
    ],
)
def test_of_several_sources_the_one_that_boto3_takes_is_taken(
    endpoint: Endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    variables: dict[str, str],
    has_files: bool,
) -> None:
    if has_files:
        _profile(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(url=endpoint.url))
    expected = Session().get_credentials().get_frozen_credentials()
    found = source_of(os.environ).get()
    assert tuple(found) == (expected.access_key, expected.secret_key, expected.token or "")


def test_the_endpoint_of_a_container_gets_the_token_as_it_is_now(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    """SnapStart may give another one after a restore, EKS writes a new one to a file."""
    variables = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": endpoint.url,
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "one",
    }
    fetch_from_container(variables)
    variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "two"
    fetch_from_container(variables)
    file = tmp_path / "token"
    variables["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = str(file)
    for text in ("three", "four"):
        file.write_text(text)
        fetch_from_container(variables)
    tokens = ["one", "two", "three", "four"]
    assert endpoint.requests == [("/creds?id=1", token) for token in tokens]


def test_the_path_of_an_ecs_task_is_below_a_fixed_address(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ECS_HOST", endpoint.host)
    lease = fetch_from_container({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/1"})
    assert lease.credentials == Credentials("of-container", "secret", "token")
    assert endpoint.requests == [("/v2/credentials/1", None)]


@pytest.mark.parametrize(
    ("answer", "reason", "requests"),
    [
        ((403, b"a-secret"), "responds with 403", 1),
        ((500, b"a-secret"), "can't be reached: it responds with 500", 2),
        ((200, b"<html>a-secret"), "responds with no credentials", 1),
        ((200, {"AccessKeyId": "a-secret"}), "responds with no credentials", 1),
        ((200, [1]), "responds with no credentials", 1),
        ((200, _answer()[1] | {"Expiration": "soon"}), "responds with no credentials", 1),
    ],
)
def test_an_endpoint_that_fails_is_named_and_its_answer_is_not_repeated(
    endpoint: Endpoint, answer: tuple[int, Any], reason: str, requests: int
) -> None:
    endpoint.answers = [answer]
    with pytest.raises(CredentialsError, match=reason) as error:
        fetch_from_container({"AWS_CONTAINER_CREDENTIALS_FULL_URI": endpoint.url})
    assert "a-secret" not in str(error.value)
    assert len(endpoint.requests) == requests


def test_the_second_try_of_an_endpoint_counts(endpoint: Endpoint) -> None:
    endpoint.answers = [(500, b""), _answer()]
    lease = fetch_from_container({"AWS_CONTAINER_CREDENTIALS_FULL_URI": endpoint.url})
    assert lease.credentials.access_key == "of-container"


@pytest.mark.parametrize("host", ["192.0.2.1", "credentials.example", "169.254.169.254"])
def test_a_token_is_sent_to_no_other_machine_by_plain_http(host: str) -> None:
    with pytest.raises(CredentialsError, match="for this machine alone"):
        fetch_from_container({"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://{host}/"})


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"AWS_ACCESS_KEY_ID": "a"}, "AWS_SECRET_ACCESS_KEY is missing"),
        (KEYS | {"AWS_SESSION_TOKEN": "of-nobody\n"}, "line break"),
        (KEYS | {"AWS_SESSION_TOKEN": "of-nobody\u2028"}, "no header may have"),
        (KEYS | {"AWS_ACCESS_KEY_ID": "of-nobody-\u00e9"}, "no header may have"),
        ({"AWS_PROFILE": "nobody"}, "no credentials: .*nobody"),
        ({}, "no credentials"),
        (
            {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN": "a\r\nb",
            },
            "line break",
        ),
        (
            {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/nowhere",
            },
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE can't be read",
        ),
        (
            {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN": "of-nobody-\u00e9",
            },
            "no header may have",
        ),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/"}, "can't be reached"),
        (
            {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:99999/"},
            "_URI: must make a URL",
        ),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://[::1"}, "_URI: must make a URL"),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/\u00e9"}, "must make a URL"),
    ],
)
def test_missing_credentials_are_named(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CredentialsError, match=reason) as error:
        source_of(os.environ).get()
    assert "of-nobody" not in str(error.value)


def test_a_file_that_has_no_token_is_named(endpoint: Endpoint, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"\xff")
    variables = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": endpoint.url,
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(file),
    }
    with pytest.raises(CredentialsError, match="_TOKEN_FILE can't be read: it is no text"):
        fetch_from_container(variables)


def test_a_user_without_a_home_has_no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the user of a container that is given by its number."""

    def nobody(user: int) -> None:
        raise KeyError(user)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert region_of({}, "us-east-1") == "us-east-1"


def test_settings_of_a_profile_that_would_not_be_followed_are_refused(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    _profile(tmp_path)
    (tmp_path / ".aws/config").write_text("[default]\nendpoint_url = http://localhost:4566\n")
    with pytest.raises(AwsError, match="endpoint_url is not read here"):
        source_of(os.environ).get()


def test_a_profile_has_a_region_too(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AwsError, match="AWS_REGION is not set"):
        region_of(os.environ)
    assert region_of(os.environ, "us-east-1") == "us-east-1"
    _profile(tmp_path)
    (tmp_path / ".aws/config").write_text("[default]\nregion = eu-north-1\n")
    assert region_of(os.environ) == region_of(os.environ, "us-east-1") == "eu-north-1"
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert region_of(os.environ) == "eu-west-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    assert region_of(os.environ) == Session().get_config_variable("region") == "eu-west-2"


# ---- Renewal -------------------------------------------------------------------------------------


def _leases(*answers: Lease | Exception) -> Callable[[], Lease]:
    left = list(answers)

    def fetch() -> Lease:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return fetch


FIRST = Lease(Credentials("first", "s"), 2_000.0, 2_300.0)
SECOND = Lease(Credentials("second", "s"), 5_000.0, 5_300.0)


def test_credentials_are_renewed_before_they_expire() -> None:
    clock = fakes.FakeClock()
    source = RenewedCredentials(_leases(FIRST, SECOND), clock)
    keys = [source.get().access_key]
    for clock.now_s in (1_999.0, 2_000.0, 4_999.0):
        keys.append(source.get().access_key)
    assert keys == ["first", "first", "second", "second"]


def test_an_endpoint_that_fails_harms_no_call_until_the_credentials_have_expired() -> None:
    clock, failure = fakes.FakeClock(), CredentialsError("down")
    source = RenewedCredentials(_leases(FIRST, failure, failure, failure, SECOND), clock)
    source.get()
    for clock.now_s in (2_000.0, 2_001.0, 2_000.0 + module.RETRY_S):  # two attempts
        assert source.get().access_key == "first"
    clock.now_s = 2_300.0
    with pytest.raises(CredentialsError, match="down"):
        source.get()
    assert source.get().access_key == "second"


@contextmanager
def _threads(count: int, work: Callable[[], None]) -> Iterator[None]:
    threads = [Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(30)


@pytest.mark.parametrize("is_valid", [True, False])
def test_one_thread_renews_and_others_wait_only_where_they_must(*, is_valid: bool) -> None:
    clock = fakes.FakeClock()
    fetching, release, answers = Event(), Event(), _leases(FIRST, SECOND)
    found: list[str] = []

    def fetch() -> Lease:
        lease = answers()
        if lease is SECOND:
            fetching.set()
            assert release.wait(30)
        return lease

    source = RenewedCredentials(fetch, clock)
    source.get()
    clock.now_s = 2_000.0 if is_valid else 2_300.0
    with _threads(1, lambda: found.append(source.get().access_key)):
        assert fetching.wait(30)
        with _threads(8, lambda: found.append(source.get().access_key)):
            if not is_valid:
                release.set()
        if is_valid:
            assert found == ["first"] * 8
        release.set()
    assert sorted(found) == (["first"] * 8 + ["second"] if is_valid else ["second"] * 9)


def test_a_short_lease_is_used_for_half_its_time(endpoint: Endpoint) -> None:
    endpoint.answers = [_answer(seconds=60)]
    lease = fetch_from_container({"AWS_CONTAINER_CREDENTIALS_FULL_URI": endpoint.url})
    assert 25 < lease.expires_at_s - lease.renew_at_s < 31
