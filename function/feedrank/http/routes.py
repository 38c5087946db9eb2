"""Every route of the service, each declared once: the app, the OpenAPI document and its docs page
are made of these, and a test compares template.yaml's routes with them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import BaseModel

from feedrank.http.endpoints import Endpoints
from feedrank.http.schemas import (
    About,
    ContainerMetrics,
    Health,
    ModelCard,
    PredictRequest,
    PredictResponse,
    Probe,
)
from feedrank.http.web import Response

Tag = Literal["ranking", "model", "service"]


@dataclass(frozen=True)
class Operation:
    """What the OpenAPI document says of a route; its examples are in examples.json."""

    tag: Tag
    summary: str
    responses: Mapping[int, tuple[type[BaseModel], str]]  # by status: body, description
    problems: tuple[int, ...] = (500,)  # statuses of problem responses
    request: type[BaseModel] | None = None
    texts: tuple[str, ...] = ()  # other media types of a 200, by the request's `Accept`


@dataclass(frozen=True)
class Route:
    """`auth` is `open` where callers need no credentials, `docs` where the stack's `DocsAccess`
    decides. A probe is for one process, so API Gateway has no route to it."""

    method: Literal["GET", "POST"]
    path: str
    endpoint: Callable[..., Awaitable[Response]]  # a method of `Endpoints`
    operation: Operation | None = None
    auth: Literal["caller", "docs", "open"] = field(kw_only=True)
    is_probe: bool = False

    @property
    def key(self) -> str:
        """As API Gateway has it: `POST /predict`."""
        return f"{self.method} {self.path}"

    @property
    def id(self) -> str:
        """The OpenAPI document's `operationId`."""
        return self.path.strip("/") or self.endpoint.__name__


PREDICT = Route(
    "POST",
    "/predict",
    Endpoints.predict,
    Operation(
        "ranking",
        "Rank items for a user",
        {200: (PredictResponse, "The items, best first")},
        problems=(413, 422, 500, 503, 504),
        request=PredictRequest,
    ),
    auth="caller",
)
READY = Route(
    "GET",
    "/ready",
    Endpoints.ready,
    Operation(
        "service",
        "Can this process rank now? A probe of a container",
        {
            200: (Probe, "A model serves, or its stand-in"),
            503: (Probe, "No model serves, or an inference hangs"),
        },
    ),
    auth="open",
    is_probe=True,
)
ROUTES = (
    PREDICT,
    Route(
        "GET",
        "/health",
        Endpoints.health,
        Operation(
            "service",
            "Does this container serve?",
            {
                200: (Health, "A model serves, or its stand-in does"),
                503: (Health, "No model serves, or an inference hangs"),
            },
        ),
        auth="open",  # uptime checks have no credentials
    ),
    Route(
        "GET",
        "/live",
        Endpoints.live,
        Operation(
            "service",
            "Can this process go on? A probe of a container",
            {
                200: (Probe, "It can, with a model or without"),
                503: (Probe, "An inference hangs: start another"),
            },
        ),
        auth="open",
        is_probe=True,
    ),
    READY,
    Route(
        "GET",
        "/metrics",
        Endpoints.metrics,
        Operation(
            "service",
            "What this container has served",
            {200: (ContainerMetrics, "Counts since the container started")},
            texts=("text/plain", "application/openmetrics-text"),  # Prometheus's
        ),
        auth="caller",
    ),
    Route(
        "GET",
        "/model",
        Endpoints.model,
        Operation(
            "model",
            "The model that serves",
            {200: (ModelCard, "Where it comes from, how good it is, what it reads")},
            problems=(500, 503),
        ),
        auth="caller",
    ),
    Route(
        "GET",
        "/",
        Endpoints.about,
        Operation("service", "Name, version and where the docs are", {200: (About, "The service")}),
        auth="caller",
    ),
    Route("GET", "/docs", Endpoints.docs, auth="docs"),
    Route("GET", "/openapi.json", Endpoints.openapi, auth="docs"),
)
# What SageMaker calls, with SAGEMAKER=on:
# https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
INVOCATIONS = replace(PREDICT, path="/invocations")
SAGEMAKER = (replace(READY, path="/ping"), INVOCATIONS)


def routes_of(*, sagemaker: bool) -> tuple[Route, ...]:
    return ROUTES + SAGEMAKER if sagemaker else ROUTES
