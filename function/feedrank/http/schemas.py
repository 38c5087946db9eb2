"""The wire format, as Pydantic sees it."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from feedrank.domain import MAX_ID, MAX_ID_LENGTH, MAX_ITEMS

Id = Annotated[int, Field(ge=0, le=MAX_ID)]


TextId = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]


class PredictRequest(BaseModel):
    """Who looks at the feed, and the items that could be shown.

    An id is a whole number, however it is written: `1000`, `1000.0` and `1e3` are the same one. A
    text or a boolean is none; but where the model's ids are texts, each is a text. JavaScript
    rounds whole numbers beyond 2^53: send those from another language, or use text ids.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    user_id: Id = Field(description="An unknown user gets the feature defaults, and is named")
    item_ids: list[Id] = Field(
        min_length=1,
        max_length=MAX_ITEMS,
        description="Candidates; duplicates keep their places, unknown items get the defaults and "
        "are named",
    )
    context: dict[str, str] = Field(
        default_factory=dict,
        description="What the model reads of the moment, for instance `device`; `/model` lists its "
        "keys and values. Others are refused, or with `CONTEXT_CHECK=warn` named in `warnings`. "
        "`timestamp` (ISO 8601, UTC where it has no offset) stands in for the time of the request",
    )
    features: dict[str, list[Any]] = Field(
        default_factory=dict,
        description="What the caller knows of each candidate, such as a retrieval score: by name a "
        "value for each of `item_ids`, null for the default. `/model` lists the names",
    )
    explain: bool = Field(
        default=False, description="Also return the model's outputs of which each score is made"
    )


class TextPredictRequest(PredictRequest):
    """Where the model's ids are texts."""

    user_id: TextId  # type: ignore[assignment]
    item_ids: list[TextId] = Field(min_length=1, max_length=MAX_ITEMS)  # type: ignore[assignment]


class ResponseModel(BaseModel):
    """Only documents a response, so its schema is built with the OpenAPI document."""

    model_config = ConfigDict(defer_build=True, protected_namespaces=())


class Prediction(ResponseModel):
    item_id: Id | TextId
    score: float = Field(
        description="Exact as a 32-bit float. A predicted probability of engagement, from 0 to 1, "
        "unless the model's feature spec has another range"
    )
    rank: int = Field(ge=1, description="1 is the best")
    outputs: dict[str, float | None] | SkipJsonSchema[None] = Field(
        default_factory=lambda: None,
        description="With `explain`, of a model with several outputs: what it predicts, by name, "
        "of which the score is made; null where that is not finite",
    )


class Unknown(ResponseModel):
    """What the model's feature tables don't have, and default values stand in for."""

    user: bool
    items: list[Id | TextId] = Field(description="Each once, in the request's order")


class PredictResponse(ResponseModel):
    """The items, best first; equal scores stay in the request's order."""

    user_id: Id | TextId
    predictions: list[Prediction] = Field(
        description="By score, from the best; unknown items stand where the model's feature spec "
        "has them: by their score too, behind all known items, or not here at all"
    )
    unknown: Unknown | SkipJsonSchema[None] = Field(
        default_factory=lambda: None,
        description="Only where the user or an item is unknown",
    )
    warnings: list[str] | SkipJsonSchema[None] = Field(
        default_factory=lambda: None,
        description="With `CONTEXT_CHECK=warn`: what `context` has that the model doesn't read",
    )
    model_version: str = Field(examples=["feed_ranker-3"])
    model_digest: str = Field(
        pattern="^[0-9a-f]{12}$", description="First digits of the digest that `/model` tells"
    )
    latency_ms: float = Field(ge=0, description="Time in the function, start-up excluded")
    timestamp: datetime = Field(description="UTC")
    request_id: str
    degraded: list[str] = Field(description="What stood in for something that was missing; or []")


class Health(ResponseModel):
    status: Literal["healthy", "degraded", "unhealthy"]
    model_version: str | None = Field(description="null while no model serves")
    model_digest: str | None = Field(description="First digits of the bundle's digest")
    trained_at: datetime | None
    snapshot_as_of: datetime | None = Field(description="The moment its feature tables describe")
    published_at: datetime | None
    model_loaded_at: datetime | None
    uptime_seconds: float
    last_prediction_at: datetime | None


class Probe(ResponseModel):
    status: Literal["ok", "hung", "unavailable"] = Field(
        description="`hung`: an inference goes on 3 s past its deadline; `unavailable`: no model"
    )


class ContainerMetrics(ResponseModel):
    """What this one container has served; CloudWatch has the sum over all of them."""

    scope: Literal["container"]
    requests_total: int = Field(description="Requests to /predict")
    requests_per_second: float = Field(description="Over the last minute")
    latency_p50_ms: float = Field(description="Over the last 2,048 requests")
    latency_p99_ms: float
    error_rate: float = Field(ge=0, le=1, description="Share of responses with 5xx")
    predictions_total: int = Field(description="Items scored")
    lines_lost: int = Field(description="Log lines and records that standard output did not take")


class ModelCard(ResponseModel):
    """The public part of the bundle's manifest."""

    name: str
    version: str
    network: str
    trained_at: datetime | None = Field(description="When its MLflow run ended")
    snapshot_as_of: datetime | None = Field(description="The moment its feature tables describe")
    published_at: datetime | None
    batches: bool = Field(description="Whether items of several requests may share a run")
    run_id: str = Field(description="The MLflow run that trained it")
    digest: str = Field(description="SHA-256 of the bundle's manifest")
    engine: Literal["onnx", "torch"]
    metrics: dict[str, float] = Field(description="On the test window, as MLflow has them")
    context: dict[str, Any] = Field(description="The context keys that it reads, and their values")
    features: dict[str, Any] = Field(
        description="What a request may say of each candidate, by name with its type"
    )
    feature_spec: dict[str, Any]
    built_with: dict[str, str]


class About(ResponseModel):
    name: str
    version: str
    docs: str


class Problem(ResponseModel):
    """An error as RFC 9457 has it. It never repeats what was sent."""

    type: str = Field(examples=["about:blank"])
    title: str
    status: int
    detail: str
    request_id: str


def time_of(context: dict[str, str], now_s: float) -> float:
    """The request's Unix time in seconds: the context's `timestamp`, else `now_s`.

    Raises ValueError where the timestamp is not ISO 8601, or its year in UTC not 1 to 9999.
    """
    if "timestamp" not in context:
        return now_s
    moment = datetime.fromisoformat(context["timestamp"])
    time_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    datetime.fromtimestamp(time_s, UTC)  # as the record tells it
    return time_s
