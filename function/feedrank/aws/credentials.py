"""The credentials of calls: of the environment, of a container's endpoint, or of boto3.

The order is boto3's: keys in the environment, then whatever profiles and web identities say, then
the endpoint that ECS, EKS and SnapStart name.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from math import inf
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import orjson

from feedrank.aws.errors import SERVER_ERRORS, CredentialsError
from feedrank.aws.profile import has_profiles, profile_session
from feedrank.aws.signing import Credentials

FULL_URI = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
RELATIVE_URI = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
TOKEN = "AWS_CONTAINER_AUTHORIZATION_TOKEN"  # noqa: S105 a variable's name
TOKEN_FILE = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"  # noqa: S105
ECS_HOST = "169.254.170.2"
HOSTS = (ECS_HOST, "169.254.170.23", "fd00:ec2::23", "localhost")  # by plain HTTP; botocore's list
RENEW_S = 300.0  # before they expire
RETRY_S = 10.0  # after a failure to renew credentials that are still valid
TIMEOUT_S = 2.0  # of one try
TRIES = 2
MAX_BYTES = 1 << 16
OK = 200


class CredentialSource(Protocol):
    def get(self) -> Credentials:
        """Credentials that are valid now. Raises CredentialsError."""


class Lease(NamedTuple):
    """Credentials for a while, with times in Unix seconds."""

    credentials: Credentials
    renew_at_s: float
    expires_at_s: float


NO_LEASE = Lease(Credentials("", ""), -inf, -inf)


def source_of(variables: Mapping[str, str]) -> CredentialSource:
    """`variables` is the environment itself: SnapStart may change a token later."""
    if variables.get("AWS_ACCESS_KEY_ID"):
        return KeysOfEnvironment(variables)
    in_container = variables.get(RELATIVE_URI) or variables.get(FULL_URI)
    if in_container and not has_profiles(variables):
        return RenewedCredentials(lambda: fetch_from_container(variables))
    return CredentialsOfBoto3()


class KeysOfEnvironment:
    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def get(self) -> Credentials:
        secret = self._variables.get("AWS_SECRET_ACCESS_KEY", "")
        if not secret:
            raise CredentialsError("AWS_SECRET_ACCESS_KEY is missing beside AWS_ACCESS_KEY_ID")
        token = self._variables.get("AWS_SESSION_TOKEN", "")
        return _checked(Credentials(self._variables["AWS_ACCESS_KEY_ID"], secret, token))


class RenewedCredentials:
    """Fetches credentials, and new ones before they expire. One thread fetches; while the old ones
    are valid the others don't wait for it, and a failure to renew them fails no call."""

    def __init__(self, fetch: Callable[[], Lease], clock: Callable[[], float] = time.time) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = Lock()
        self._lease = NO_LEASE

    def get(self) -> Credentials:
        lease, now_s = self._lease, self._clock()
        if now_s < lease.renew_at_s:
            return lease.credentials
        is_valid = now_s < lease.expires_at_s
        if not self._lock.acquire(blocking=not is_valid):
            return lease.credentials
        try:
            if self._lease is lease:  # else another thread was faster
                self._lease = self._renewed(lease, now_s, is_valid=is_valid)
            return self._lease.credentials
        finally:
            self._lock.release()

    def _renewed(self, lease: Lease, now_s: float, *, is_valid: bool) -> Lease:
        try:
            return self._fetch()
        except CredentialsError:
            if not is_valid:
                raise
            return lease._replace(renew_at_s=now_s + RETRY_S)


class CredentialsOfBoto3:
    """Of a profile, SSO, a web identity, an EC2 instance: boto3 knows them all, and renews them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._credentials: Any = None

    def get(self) -> Credentials:
        with self._lock:
            if self._credentials is None:
                self._credentials = _credentials_of_boto3()
        from botocore.exceptions import BotoCoreError

        try:
            frozen = self._credentials.get_frozen_credentials()
        except BotoCoreError as error:
            raise CredentialsError(f"no credentials: {error}") from error
        return _checked(Credentials(frozen.access_key, frozen.secret_key, frozen.token or ""))


def _credentials_of_boto3() -> Any:  # noqa: ANN401 boto3's
    try:
        session = profile_session()
        credentials = session.get_credentials()
    except ImportError as error:
        raise CredentialsError(
            "no credentials: AWS_ACCESS_KEY_ID is not set, and other sources need boto3"
        ) from error
    except Exception as error:  # botocore's, such as a profile that is missing
        raise CredentialsError(f"no credentials: {error}") from error
    if credentials is None:
        raise CredentialsError("no credentials: boto3 finds none either")
    return credentials


def fetch_from_container(variables: Mapping[str, str]) -> Lease:
    """From the endpoint that ECS, EKS or SnapStart names. Raises CredentialsError."""
    path = variables.get(RELATIVE_URI, "")
    url = f"http://{ECS_HOST}{path}" if path else variables[FULL_URI]
    name = RELATIVE_URI if path else FULL_URI
    headers = {"accept": "application/json", **_authorization(variables)}
    for attempt in range(TRIES):
        try:
            return _lease(_get(url, headers, name))
        except (OSError, HTTPException) as error:
            if attempt == TRIES - 1:
                raise CredentialsError(f"{name} can't be reached: {error}") from error
        except ValueError as error:  # of a port or a host, or a path beyond ASCII
            raise CredentialsError(f"{name}: must make a URL, as http://host:80/path") from error
    raise AssertionError


def _authorization(variables: Mapping[str, str]) -> dict[str, str]:
    token = variables.get(TOKEN, "")
    if file := variables.get(TOKEN_FILE):
        try:
            token = Path(file).read_text()
        except OSError as error:
            raise CredentialsError(f"{TOKEN_FILE} can't be read: {error.strerror}") from error
        except ValueError as error:
            raise CredentialsError(f"{TOKEN_FILE} can't be read: it is no text") from error
    _check_header(token, "the container's authorization token")
    return {"authorization": token} if token else {}


def _get(url: str, headers: Mapping[str, str], name: str) -> bytes:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        connection: HTTPConnection = HTTPSConnection(host, parts.port, timeout=TIMEOUT_S)
    elif host in HOSTS or _is_loopback(host):
        connection = HTTPConnection(host, parts.port, timeout=TIMEOUT_S)
    else:
        raise CredentialsError(f"{name}: plain HTTP is for this machine alone, not for {host}")
    with closing(connection):
        path = f"{parts.path or '/'}{'?' * bool(parts.query)}{parts.query}"
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        content = response.read(MAX_BYTES)
    if response.status >= SERVER_ERRORS:
        raise OSError(f"it responds with {response.status}")
    if response.status != OK:
        raise CredentialsError(f"{name} responds with {response.status}")
    return content


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _lease(content: bytes) -> Lease:
    try:
        document = orjson.loads(content)
        keys = document["AccessKeyId"], document["SecretAccessKey"], document.get("Token") or ""
        credentials = _checked(Credentials(*keys))
        expires_at_s = datetime.fromisoformat(document["Expiration"]).timestamp()
    except (ValueError, KeyError, TypeError) as error:
        raise CredentialsError("the container's endpoint responds with no credentials") from error
    early_s = min(RENEW_S, max(0.0, expires_at_s - time.time()) / 2)
    return Lease(credentials, expires_at_s - early_s, expires_at_s)


def _checked(credentials: Credentials) -> Credentials:
    _check_header("".join(credentials), "a key or the token of the credentials")
    return credentials


def _check_header(text: str, name: str) -> None:
    """Raises CredentialsError for what no header may have: `http.client` would repeat it."""
    if not (text.isascii() and text.isprintable()):
        raise CredentialsError(f"{name} has a line break, or a character that no header may have")
