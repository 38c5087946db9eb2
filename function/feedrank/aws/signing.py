"""AWS's Signature Version 4, for requests without a query.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hmac
from collections.abc import Mapping
from hashlib import sha256
from time import gmtime, strftime
from typing import NamedTuple
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"
# What a proxy or a tracer may change on the way. The same as botocore's.
UNSIGNED = frozenset(
    {
        "baggage",
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-amzn-trace-id",
    }
)


class Request(NamedTuple):
    method: str
    path: str  # as it is sent: encoded, without dot segments
    headers: Mapping[str, str]  # by names in lower case
    body: bytes = b""


class Credentials(NamedTuple):
    access_key: str
    secret_key: str
    token: str = ""

    def __repr__(self) -> str:
        return "Credentials(...)"


class Signer:
    """Signs for one service in one region."""

    def __init__(self, service: str, region: str) -> None:
        self._service = service
        self._region = region
        self._key = ("", "", b"")  # a secret key, a day, and the key for both

    def sign(self, request: Request, credentials: Credentials, now_s: float) -> Request:
        """The request with the headers that sign it, for some minutes around `now_s`. It has to
        have the header `host` already."""
        method, path, headers, body = request
        moment = strftime("%Y%m%dT%H%M%SZ", gmtime(now_s))
        payload = sha256(body).hexdigest()
        signed = {**headers, "x-amz-date": moment}
        if credentials.token:
            signed["x-amz-security-token"] = credentials.token
        if self._service == "s3":
            signed["x-amz-content-sha256"] = payload
        else:
            path = quote(path, safe="/~")  # once more; S3 alone takes it as it is
        scope = f"{moment[:8]}/{self._region}/{self._service}/aws4_request"
        names = sorted(signed.keys() - UNSIGNED)
        lines = [f"{name}:{' '.join(signed[name].split())}" for name in names]
        canonical = "\n".join([method, path, "", *lines, "", ";".join(names), payload])
        text = f"{ALGORITHM}\n{moment}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
        key = self._key_of(credentials.secret_key, moment[:8])
        signed["authorization"] = (
            f"{ALGORITHM} Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={';'.join(names)}, Signature={_hmac(key, text).hex()}"
        )
        return request._replace(headers=signed)

    def _key_of(self, secret_key: str, day: str) -> bytes:
        known_secret, known_day, key = self._key
        if (known_secret, known_day) != (secret_key, day):
            key = _hmac(f"AWS4{secret_key}".encode(), day)
            for part in (self._region, self._service, "aws4_request"):
                key = _hmac(key, part)
            self._key = (secret_key, day, key)  # in one step: threads sign side by side
        return key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
