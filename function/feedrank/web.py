"""FastAPI, from here and nowhere else, with the schemas of its own models not built until used.

Most of those models describe an OpenAPI document, which few containers are asked for, and to build
them all takes a sixth of a cold start.
"""

from pydantic import BaseModel

BaseModel.model_config["defer_build"] = True  # inherited by what is defined meanwhile
from fastapi import FastAPI, Request, Response  # noqa: E402 after the line above
from fastapi.openapi.utils import get_openapi  # noqa: E402

del BaseModel.model_config["defer_build"]

__all__ = ["FastAPI", "Request", "Response", "get_openapi"]
