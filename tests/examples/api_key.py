"""An API key: a dependency of every route except those that need no credentials."""

import os
from hmac import compare_digest
from typing import Annotated

from fastapi import Depends, HTTPException, Security
from fastapi.security import APIKeyHeader

API_KEY = os.environ["TEAM_API_KEY"].encode()
header = APIKeyHeader(name="x-api-key", auto_error=False, description="Ask the ranking team")


async def check_key(key: Annotated[str | None, Security(header)]) -> None:
    if not compare_digest((key or "").encode(), API_KEY):
        raise HTTPException(401, "x-api-key is missing or wrong")


DEPENDENCIES = [Depends(check_key)]
