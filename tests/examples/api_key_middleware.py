"""An API key: a middleware before every route, and before paths that have none."""

import os
from hmac import compare_digest

from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

API_KEY = os.environ["TEAM_API_KEY"].encode()


class ApiKey:
    def __init__(self, app: ASGIApp, header: bytes) -> None:
        self.app = app
        self.header = header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = dict(scope.get("headers", ())).get(self.header, b"")
        if scope["type"] == "http" and not compare_digest(key, API_KEY):
            await JSONResponse({"title": "Unauthorized", "status": 401}, 401)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


MIDDLEWARE = [Middleware(ApiKey, header=b"x-api-key")]
