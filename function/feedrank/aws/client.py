"""One call of AWS: sign it, send it, check the response, and try again while that may help."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from random import random
from time import perf_counter, sleep
from typing import TypeVar

from feedrank.aws.connections import Connections, Exchange
from feedrank.aws.credentials import CredentialSource
from feedrank.aws.endpoints import Endpoint
from feedrank.aws.errors import AwsError, ServiceError, UnreachableError
from feedrank.aws.refusals import CLOCK_CODES, refusal
from feedrank.aws.signing import Request, Signer

Result = TypeVar("Result")
PAUSE_S = 0.1  # at most, before the second try; doubles
MAX_PAUSE_S = 1.0
SKEW_S = 240.0  # AWS accepts 300
MAX_ERROR_BYTES = 1 << 16
REDIRECT, ERROR = 300, 400


@dataclass(frozen=True, slots=True)
class Limits:
    connect_s: float
    read_s: float  # of each wait for bytes
    tries: int


@dataclass(frozen=True, slots=True)
class Call:
    """A request before it is signed. `action` is the right that it needs, for messages."""

    method: str
    path: str
    headers: Mapping[str, str]
    action: str
    body: bytes = b""


class Client:
    """Calls of one service at one endpoint. Safe for threads."""

    def __init__(
        self,
        service: str,
        endpoint: Endpoint,
        credentials: CredentialSource,
        variables: Mapping[str, str],
        limits: Limits,
    ) -> None:
        """Raises AwsConfigError."""
        self._endpoint = endpoint
        self._credentials = credentials
        self._limits = limits
        self._signer = Signer(service, endpoint.region)
        self._connections = Connections(endpoint, variables, limits.connect_s)
        self._skew_s = 0.0  # of this machine's clock

    @property
    def region(self) -> str:
        """Of the signature."""
        return self._endpoint.region

    def call(self, call: Call, read: Callable[[Exchange], Result], deadline_s: float) -> Result:
        """What `read` returns for a response that is no error. It may be called again where it
        raises UnreachableError. `deadline_s` is in `perf_counter()` seconds.

        Raises AwsError, and whatever else `read` raises.
        """
        tries, may_correct = 1, True
        while True:
            skew_s = self._skew_s
            try:
                return self._try(call, read, skew_s, deadline_s)
            except AwsError as error:
                if may_correct and self._corrected(error, skew_s):
                    may_correct = False
                    continue
                pause_s = random() * min(PAUSE_S * 2 ** (tries - 1), MAX_PAUSE_S)  # noqa: S311
                is_too_late = perf_counter() + pause_s > deadline_s
                if not error.is_temporary or tries >= self._limits.tries or is_too_late:
                    raise
            sleep(pause_s)
            tries += 1

    def _try(
        self, call: Call, read: Callable[[Exchange], Result], skew_s: float, deadline_s: float
    ) -> Result:
        left_s = deadline_s - perf_counter()
        if left_s <= 0:
            raise UnreachableError("no time is left")
        headers = {"host": self._endpoint.authority, "user-agent": "feedrank", **call.headers}
        request = self._signer.sign(
            Request(call.method, call.path, headers, call.body),
            self._credentials.get(),
            time.time() + skew_s,
        )
        timeout_s = min(self._limits.read_s, left_s)
        with self._connections.send(request, timeout_s, deadline_s) as exchange:
            if exchange.status >= REDIRECT:
                body = exchange.read(MAX_ERROR_BYTES)
                raise refusal(exchange.status, exchange.header, body, call.action)
            return read(exchange)

    def _corrected(self, error: AwsError, signed_skew_s: float) -> bool:
        """Whether the service refused the time of the signature, and its own is another one. The
        correction may be another thread's."""
        if not isinstance(error, ServiceError) or error.code not in CLOCK_CODES or not error.date:
            return False
        try:
            skew_s = parsedate_to_datetime(error.date).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return False
        if abs(skew_s - signed_skew_s) < SKEW_S:
            return False
        self._skew_s = skew_s
        return True
