"""FastAPI, from here and nowhere else, with the schemas of its own models not built until used.

Most of those models describe an OpenAPI document, which few containers ever serve.
"""

from pydantic import BaseModel

from feedrank import shortcuts

if shortcuts.DEFERRED_SCHEMAS:
    BaseModel.model_config["defer_build"] = True  # inherited by the classes defined meanwhile
try:
    from fastapi import FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.openapi.utils import get_openapi
    from fastapi.params import Depends
    from fastapi.routing import APIRoute, APIRouter, APIWebSocketRoute, iter_route_contexts
finally:  # also where FastAPI is missing: other models are built as usual
    BaseModel.model_config.pop("defer_build", None)


class ServiceRoute(APIRoute):
    """One of the service's own routes, which alone are in its metrics; those of a team's routers
    may have the same path below a prefix."""


__all__ = [
    "APIRoute",
    "APIRouter",
    "APIWebSocketRoute",
    "Depends",
    "FastAPI",
    "Request",
    "RequestValidationError",
    "Response",
    "ServiceRoute",
    "get_openapi",
    "iter_route_contexts",
]
