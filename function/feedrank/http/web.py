"""FastAPI, from here and nowhere else, with the schemas of its own models not built until used.

Most of those models describe an OpenAPI document, which few containers are asked for, and to build
them all takes a sixth of a cold start.
"""

from pydantic import BaseModel

BaseModel.model_config["defer_build"] = True  # inherited by what is defined meanwhile
try:
    from fastapi import FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.openapi.utils import get_openapi
    from fastapi.params import Depends
    from fastapi.routing import APIRoute, APIRouter
finally:  # whoever goes on without FastAPI has models of its own
    del BaseModel.model_config["defer_build"]

__all__ = [
    "APIRoute",
    "APIRouter",
    "Depends",
    "FastAPI",
    "Request",
    "RequestValidationError",
    "Response",
    "get_openapi",
]
