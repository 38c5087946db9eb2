"""A team's own routes, listed in /docs with the service's."""

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, Field

from feedrank.domain import MAX_ID

MAX_SAVED = 100


class Saved(BaseModel):
    item_id: int = Field(ge=0, le=MAX_ID)


saved: list[int] = []
router = APIRouter(prefix="/saved", tags=["saved items"])


@router.post("", status_code=201, summary="Save an item for later")
async def save(item: Saved) -> Saved:
    if len(saved) == MAX_SAVED:
        raise HTTPException(409, "the list is full")
    saved.append(item.item_id)
    return item


@router.get("", summary="The saved items")
async def list_saved() -> list[int]:
    return saved


ROUTERS = [router]
