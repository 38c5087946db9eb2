"""A client to copy into a service: one connection pool, a time budget, retries that respect
`Retry-After`, and any of the stack's three kinds of `Auth`.

    ranker = Ranker("https://abc123.execute-api.eu-west-1.amazonaws.com", sigv4("eu-west-1"))
    ranking = ranker.rank({"user_id": 123, "item_ids": [1001, 1002]})

Needs urllib3 2, and boto3 for `sigv4`.
"""

import itertools
import json
import random
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import urllib3

Headers = dict[str, str]
Auth = Callable[[str, bytes, Headers], Headers]  # URL, body, headers -> headers with credentials

RETRIED = {429, 503}  # throttled; no model yet, or a container that is being replaced
PAUSE_S = 0.05  # at most, before the first repetition; doubles


def no_auth(_url: str, _body: bytes, headers: Headers) -> Headers:
    return headers


def bearer(token: Callable[[], str]) -> Auth:
    """`token` returns a valid JWT, such as a cached one that it renews before it expires."""
    return lambda _url, _body, headers: {**headers, "authorization": f"Bearer {token()}"}


def sigv4(region: str, service: str = "execute-api") -> Auth:
    """With the credentials of the environment; `service` is "lambda" for a function URL."""
    import boto3
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    credentials = boto3.Session().get_credentials()

    def sign(url: str, body: bytes, headers: Headers) -> Headers:
        request = AWSRequest("POST", url, headers, body)
        SigV4Auth(credentials.get_frozen_credentials(), service, region).add_auth(request)
        return dict(request.headers)

    return sign


class RefusedError(Exception):
    """The server's response is no ranking; `status` and `body` say why."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"status {status}: {body}")
        self.status, self.body = status, body


class Ranker:
    """Safe for threads."""

    def __init__(self, url: str, auth: Auth = no_auth, budget_s: float = 2.0) -> None:
        self._url = f"{url.rstrip('/')}/predict"
        self._auth = auth
        self._budget_s = budget_s
        self._pool = urllib3.PoolManager()

    def rank(self, request: dict[str, Any]) -> dict[str, Any]:
        """Raises RefusedError, or urllib3's HTTPError without a response. A ranking changes
        nothing, so that a repetition is safe."""
        body, end_s = json.dumps(request).encode(), time.monotonic() + self._budget_s
        for repetition in itertools.count():
            wait_s = random.uniform(0, PAUSE_S * 2**repetition)  # noqa: S311 no secret
            try:
                response = self._send(body, end_s)
            except urllib3.exceptions.HTTPError:
                if time.monotonic() + wait_s > end_s:
                    raise
            else:
                if response.status == HTTPStatus.OK:
                    return dict(response.json())
                wait_s = float(response.headers.get("retry-after", 0)) or wait_s
                if response.status not in RETRIED or time.monotonic() + wait_s > end_s:
                    raise RefusedError(response.status, response.data.decode())
            time.sleep(wait_s)
        raise AssertionError

    def _send(self, body: bytes, end_s: float) -> urllib3.BaseHTTPResponse:
        headers = self._auth(self._url, body, {"content-type": "application/json"})
        left = urllib3.Timeout(total=max(end_s - time.monotonic(), 0.001))
        return self._pool.request(
            "POST", self._url, body=body, headers=headers, timeout=left, retries=False
        )
