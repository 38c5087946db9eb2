"""Spans of a request. X-Ray's SDK is imported only where tracing is on."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

LambdaHandler = Callable[[dict[str, Any], Any], dict[str, Any]]


class Tracing(Protocol):
    """The interface for X-Ray and its successor."""

    def span(self, name: str) -> AbstractContextManager[Any]: ...

    def handler(self, handler: LambdaHandler) -> LambdaHandler: ...


class NoTracing:
    _span = nullcontext()

    def span(self, _name: str) -> AbstractContextManager[Any]:
        return self._span

    def handler(self, handler: LambdaHandler) -> LambdaHandler:
        return handler


class XRayTracing:
    """Subsegments of Lambda's own segment. No response is captured: it holds the user's feed."""

    def __init__(self, service_name: str) -> None:
        from aws_lambda_powertools import Tracer

        self._tracer = Tracer(service=service_name)

    def span(self, name: str) -> AbstractContextManager[Any]:
        span: AbstractContextManager[Any] = self._tracer.provider.in_subsegment(name=name)
        return span

    def handler(self, handler: LambdaHandler) -> LambdaHandler:
        return self._tracer.capture_lambda_handler(handler, capture_response=False)
