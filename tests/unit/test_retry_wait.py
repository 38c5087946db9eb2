"""How long the request that starts a retry waits for it on Lambda."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import pytest

import fakes
from feedrank.errors import BundleError
from feedrank.model.load import Model
from feedrank.model.slot import ModelSlot

BUDGET_S = 40.0


def test_a_request_leaves_half_its_budget_to_rank_by_the_fallback(
    log: fakes.LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def wait_for(load: Awaitable[Any], timeout_s: float) -> NoReturn:
        waits.append(timeout_s)
        raise TimeoutError

    def refused() -> Model:
        raise BundleError("gone")

    def start(work: Callable[[], None]) -> None:
        if not clock.now_s > retry_at_s:  # the retry hangs
            work()

    clock = fakes.FakeClock()
    retry_at_s = clock.now_s
    slot = ModelSlot(
        refused,
        fallback=fakes.model,
        retry_s=5.0,
        clock=clock,
        load_s=600.0,
        start=start,
    )
    slot.load()
    clock.now_s += 60
    monkeypatch.setattr(asyncio, "wait_for", wait_for)
    asyncio.run(slot.wait_for_model(fakes.call(BUDGET_S, limit_s=600)))
    (wait_s,) = waits
    assert BUDGET_S / 4 < wait_s <= BUDGET_S / 2
