"""One translator from errors to responses: RFC 9457, at most 1 KiB, no echo of the request."""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from feedrank.errors import InvalidRequestError, ModelUnavailableError, RequestError
from feedrank.http.request_context import request_context
from feedrank.http.web import APIRoute, Request, RequestValidationError, Response

PROBLEM_JSON = "application/problem+json"
PROBLEMS_SHOWN = 5
LONGEST_DETAIL_BYTES = 400  # an error body stays under 1 KiB, even if each one is escaped
WITHOUT_BODY = {204, 205, 304}
# Pydantic's messages that name no more than a limit or a type. Others, such as that of a custom
# validator, may hold the input.
SAFE_MESSAGES = {
    "missing", "extra_forbidden", "int_type", "int_parsing", "int_from_float", "float_type",
    "float_parsing", "finite_number", "bool_type", "bool_parsing", "string_type", "list_type",
    "dict_type", "model_type", "model_attributes_type", "greater_than", "greater_than_equal",
    "less_than", "less_than_equal", "multiple_of", "too_short", "too_long", "string_too_short",
    "string_too_long", "string_pattern_mismatch", "enum", "literal_error", "json_invalid",
}  # fmt: skip


async def problem(request: Request, error: Exception) -> Response:
    """The response to an error. The text of an unforeseen one stays in the log."""
    headers: dict[str, str] = {}
    match error:
        case HTTPException():
            status, title = error.status_code, _phrase(error.status_code)
            detail = _cut(error.detail) if isinstance(error.detail, str) else title
            headers |= error.headers or {}
        case RequestValidationError():
            status, title = InvalidRequestError.status, InvalidRequestError.title
            detail = _cut(listed(error.errors(), _names(request.scope.get("route"))))
        case InvalidRequestError():
            status, title, detail = error.status, error.title, _cut(str(error))
        case RequestError():
            status, title, detail = error.status, error.title, error.title
        case _:
            status, title, detail = 500, RequestError.title, RequestError.title
    if isinstance(error, ModelUnavailableError):
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    context = request_context(request.scope)
    context.error = error
    if status in WITHOUT_BODY:
        return Response(status_code=status, headers=headers)
    body = problem_body(status, title, detail, context.call.request_id)
    return Response(body, status, headers, PROBLEM_JSON)


def problem_body(status: int, title: str, detail: str, request_id: str) -> bytes:
    return orjson.dumps(
        {
            "type": "about:blank",
            "title": title,
            "status": status,
            "detail": detail,
            "request_id": request_id,
        }
    )


def listed(errors: Sequence[Mapping[str, Any]], names: set[str]) -> str:
    """The first of Pydantic's errors by their place, and how many others there are. A place shows
    only `names`: any other part of it comes from the request."""
    text = "; ".join(f"{_place(e['loc'], names)}: {_message(e)}" for e in errors[:PROBLEMS_SHOWN])
    return text + f"; and {len(errors) - PROBLEMS_SHOWN} more" * (len(errors) > PROBLEMS_SHOWN)


def _place(location: tuple[int | str, ...], names: set[str]) -> str:
    """`item_ids.3`."""
    known = [part for part in location if isinstance(part, int) or part in names]
    return ".".join(map(str, known)) or "body"


def _message(error: Mapping[str, Any]) -> str:
    return str(error["msg"]) if error["type"] in SAFE_MESSAGES else "Input is not valid"


def _names(route: object) -> set[str]:
    """A route's names of its parameters and of its body's fields."""
    names = {"body", "query", "path", "header", "cookie"}
    if isinstance(route, APIRoute):
        of = route.dependant
        for field in [
            *of.path_params, *of.query_params, *of.header_params, *of.cookie_params, *of.body_params
        ]:  # fmt: skip
            names.add(field.alias)
            kind = field.field_info.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                names |= kind.model_fields.keys()
    return names


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _cut(detail: str) -> str:
    return detail.encode(errors="replace")[:LONGEST_DETAIL_BYTES].decode(errors="ignore")
