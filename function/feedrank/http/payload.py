"""The bodies of /predict: from bytes to a request, from a ranking to bytes."""

import json
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from feedrank.domain import MAX_ITEMS, Query, Ranking
from feedrank.errors import InvalidRequestError
from feedrank.features.spec import IDS_ARE, Ids
from feedrank.http.problems import listed
from feedrank.http.schemas import PredictRequest, TextPredictRequest, time_of

IDS = ("user_id", "item_ids")
FIELDS = tuple(PredictRequest.model_fields)
UNKNOWN_FIELD = f"unknown field; the fields are {', '.join(FIELDS)}"
MOST_DIGITS = 30  # before the point; an id has 19


def parse(
    body: bytes,
    context_keys: Callable[[], Iterable[str]] = tuple,
    ids: Ids | None = "number",
    max_items: int = MAX_ITEMS,
) -> PredictRequest:
    """`ids` is the kind that the model has; None, where that isn't known yet, reads either.

    Raises InvalidRequestError, which names fields and none of their values. Of the context it
    names only `context_keys`, which are looked up only then.
    """
    try:
        request = _parsed(body, ids)
    except ValidationError as error:
        raise InvalidRequestError(_detail(error, context_keys, ids, max_items)) from None
    if len(request.item_ids) > max_items:
        raise InvalidRequestError(f"item_ids: {_at_most(max_items)}")
    return request


def _parsed(body: bytes, ids: Ids | None) -> PredictRequest:
    """Raises ValidationError, or InvalidRequestError."""
    schema = TextPredictRequest if ids == "text" else PredictRequest
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        if not ids and any(map(_is_text_for_number, errors)):
            schema = TextPredictRequest
        elif not any(e["type"] == "int_type" and isinstance(e["input"], float) for e in errors):
            raise
    try:
        data = json.loads(body, parse_float=whole_number)
    except ValueError:  # more digits than Python reads as a number
        raise InvalidRequestError("body: a number has too many digits") from None
    return schema.model_validate(data)


def whole_number(text: str) -> int | float:
    """JSON Schema's integer: `4376.0` and `1e3` are integers as `1000` is. Read as a decimal, since
    a 64-bit float rounds: 9007199254740993.0 would become another id."""
    try:
        value = Decimal(text)
    except InvalidOperation:  # an exponent past all bounds
        return float(text)
    is_whole = value.adjusted() < MOST_DIGITS and value == value.to_integral_value()
    return int(value) if is_whole else float(text)


def to_query(request: PredictRequest, now_s: float) -> Query:
    """Raises InvalidRequestError where the context's timestamp is not a time."""
    try:
        time_s = time_of(request.context, now_s)
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError("context.timestamp must be an ISO 8601 time") from error
    return Query(
        request.user_id,
        request.item_ids,
        request.context,
        time_s,
        request.features,
        request.explain,
    )


def response_body(ranking: Ranking) -> bytes:
    """`PredictResponse` as JSON, from plain data: a hundred validated models take longer than the
    inference. A test compares it with the schema."""
    query, scores = ranking.query, ranking.scores
    item_ids = query.item_ids
    response: dict[str, Any] = {
        "user_id": query.user_id,
        "predictions": [
            {"item_id": item_ids[at], "score": scores[at], "rank": rank}
            for rank, at in enumerate(ranking.order, 1)
        ],
        "model_version": ranking.model_version,
        "model_digest": ranking.model_digest,
        "latency_ms": ranking.latency_ms,
        "timestamp": ranking.timestamp,
        "request_id": ranking.call.request_id,
        "degraded": ranking.degraded,
    }
    if query.explain and ranking.outputs:
        names = tuple(ranking.outputs)
        rows = list(zip(*ranking.outputs.values(), strict=True))
        for at, prediction in zip(ranking.order, response["predictions"], strict=True):
            prediction["outputs"] = dict(zip(names, rows[at], strict=True))
    if ranking.unknown:
        response["unknown"] = ranking.unknown
    if ranking.warnings:
        response["warnings"] = ranking.warnings
    return orjson.dumps(response)


def _detail(
    refusal: ValidationError,
    context_keys: Callable[[], Iterable[str]],
    ids: Ids | None,
    max_items: int,
) -> str:
    """All unknown fields are one problem, the first: the message is the same for each. Before it
    stands the kind of ids, where one is of the other."""
    errors = refusal.errors(include_url=False, include_context=False)
    problems: list[Mapping[str, Any]] = [
        {**e, "msg": _at_most(max_items)} if e["type"] == "too_long" else e
        for e in errors
        if e["type"] != "extra_forbidden"
    ]
    if len(problems) < len(errors):
        problems.insert(0, {"type": "extra_forbidden", "loc": (), "msg": UNKNOWN_FIELD})
    is_other = _is_number_for_text if ids == "text" else _is_text_for_number
    kind = f"{IDS_ARE[ids]}; " if ids and any(map(is_other, errors)) else ""
    return kind + listed(problems, {*FIELDS, *context_keys()})


def _at_most(max_items: int) -> str:
    return f"at most {max_items:,} items"


def _is_text_for_number(error: ErrorDetails) -> bool:
    return error["type"] == "int_type" and isinstance(error["input"], str)


def _is_number_for_text(error: ErrorDetails) -> bool:
    is_number = isinstance(error["input"], int | float) and not isinstance(error["input"], bool)
    return error["type"] == "string_type" and error["loc"][0] in IDS and is_number
