import asyncio
import threading
from collections.abc import Callable, Iterator
from threading import Event
from time import perf_counter

import pytest

import fakes
from feedrank.errors import BundleError, ModelUnavailableError
from feedrank.model import slot as model_module
from feedrank.model.load import Model
from feedrank.model.slot import ModelSlot


class Loader:
    """Returns or raises these outcomes, one after another, and counts its calls."""

    def __init__(self, *outcomes: Model | Exception) -> None:
        self._outcomes: Iterator[Model | Exception] = iter(outcomes)
        self.calls = 0

    def __call__(self) -> Model:
        self.calls += 1
        outcome = next(self._outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class FarStore(fakes.FakeStore):
    waits = True


def _refused(times: int = 1) -> list[Exception]:
    return [BundleError("serving/model.onnx: 5 bytes, the manifest says 9")] * times


def _slot(
    load: Callable[[], Model],
    fallback: Callable[[], Model] | None = None,
    retry_s: float = 5.0,
) -> tuple[ModelSlot, fakes.FakeClock]:
    clock = fakes.FakeClock()
    return ModelSlot(load, fallback, retry_s, clock, start=fakes.at_once), clock


def _wait_of(slot: ModelSlot) -> int:
    with pytest.raises(ModelUnavailableError) as error:
        slot.model()
    return error.value.retry_after_s


def test_a_model_is_loaded_once() -> None:
    loader = Loader(fakes.model())
    slot, clock = _slot(loader)
    slot.load()
    first = slot.model()
    clock.now_s += 10_000
    assert slot.model() is first
    assert loader.calls == 1


def test_a_slot_that_init_did_not_load_loads_at_the_first_request() -> None:
    loader = Loader(fakes.model())
    slot, _ = _slot(loader)
    assert slot.model().manifest.model_version == "feed_ranker-3"


def test_a_refusal_is_not_raised_but_logged_with_its_reason(log: fakes.LogLines) -> None:
    slot, _ = _slot(Loader(*_refused()))
    slot.load()
    (line,) = log()
    assert (line["level"], line["message"], line["reason"], line["retry_in_s"]) == (
        "ERROR",
        "model refused",
        "serving/model.onnx: 5 bytes, the manifest says 9",
        5.0,
    )


def test_any_other_error_is_a_refusal_too(log: fakes.LogLines) -> None:
    slot, _ = _slot(Loader(ZeroDivisionError("by zero")))
    slot.load()
    assert log()[0]["reason"] == "ZeroDivisionError: by zero"
    assert _wait_of(slot) == 5


def test_the_pause_doubles_up_to_five_minutes() -> None:
    loader = Loader(*_refused(20))
    slot, clock = _slot(loader)
    slot.load()
    pauses = []
    for _ in range(9):
        pauses.append(_wait_of(slot))
        clock.now_s += pauses[-1]
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_nothing_is_loaded_before_the_pause_is_over() -> None:
    loader = Loader(*_refused(2))
    slot, clock = _slot(loader)
    slot.load()
    clock.now_s += 4.999
    assert (_wait_of(slot), loader.calls) == (1, 1)
    clock.now_s += 0.001
    assert (_wait_of(slot), loader.calls) == (10, 2)


def test_after_a_short_pause_the_response_still_says_one_second() -> None:
    slot, _ = _slot(Loader(*_refused()), retry_s=0.01)
    slot.load()
    assert _wait_of(slot) == 1


def test_a_bundle_that_loads_at_a_later_attempt_is_served() -> None:
    loader = Loader(*_refused(2), fakes.model())
    slot, clock = _slot(loader)
    slot.load()
    clock.now_s += 5
    assert _wait_of(slot) == 10
    clock.now_s += 10
    assert slot.model().degraded == ()
    clock.now_s += 10_000
    slot.model()
    assert loader.calls == 3


def test_a_request_may_wait_until_a_model_is_ready_whose_store_does_not() -> None:
    slot, clock = _slot(Loader(*_refused(), fakes.model()), Loader(fakes.model()))
    waits = [slot.waits]
    slot.load()
    waits.append(slot.waits)  # the fallback's store doesn't wait, but the next model's may
    clock.now_s += 5
    slot.model()
    assert [*waits, slot.waits] == [True, True, False]


def test_a_request_may_wait_for_a_store_that_waits() -> None:
    slot, _ = _slot(Loader(fakes.model(store=FarStore())))
    slot.load()
    assert slot.waits


def test_a_loaded_model_is_logged_by_version_and_digest(log: fakes.LogLines) -> None:
    slot, _ = _slot(Loader(fakes.model()))
    slot.load()
    (line,) = log()
    assert (line["message"], line["model_version"], line["digest"]) == (
        "model loaded",
        "feed_ranker-3",
        "d" * 64,
    )


def test_the_fallback_serves_meanwhile_and_is_named_in_degraded(log: fakes.LogLines) -> None:
    slot, _ = _slot(Loader(*_refused()), Loader(fakes.model(version="2")))
    slot.load()
    model = slot.model()
    assert (model.manifest.model_version, model.degraded) == ("feed_ranker-2", ("model:layer",))
    assert [line["message"] for line in log()] == ["model refused", "fallback model loaded"]


def test_a_retry_replaces_the_fallback_by_the_configured_model() -> None:
    primary = Loader(*_refused(2), fakes.model(version="3"))
    fallback = Loader(fakes.model(version="2"))
    slot, clock = _slot(primary, fallback)
    slot.load()
    served = []
    for pause_s in (5, 10, 20):
        served.append(slot.model().manifest.version)
        clock.now_s += pause_s
    assert served == ["2", "2", "3"]
    assert slot.model().degraded == ()
    assert (primary.calls, fallback.calls) == (3, 1)


def test_a_broken_fallback_leaves_no_model(log: fakes.LogLines) -> None:
    fallback = Loader(BundleError("serving/manifest.json: not found"), fakes.model())
    slot, clock = _slot(Loader(*_refused(2)), fallback)
    slot.load()
    assert _wait_of(slot) == 5
    assert [line["message"] for line in log()] == ["model refused", "fallback model refused"]
    clock.now_s += 5
    assert slot.model().degraded == ("model:layer",)


def test_a_model_that_loads_needs_no_fallback() -> None:
    fallback = Loader()
    slot, _ = _slot(Loader(fakes.model()), fallback)
    slot.load()
    assert (slot.model().degraded, fallback.calls) == ((), 0)


def test_load_or_raise_loads_a_ready_model_not_again() -> None:
    loader = Loader(fakes.model())
    slot, _ = _slot(loader)
    slot.load()
    slot.load_or_raise()
    assert loader.calls == 1


def test_load_or_raise_waits_for_no_pause() -> None:
    slot, _ = _slot(Loader(*_refused(), fakes.model()))
    slot.load()
    slot.load_or_raise()
    assert slot.model().degraded == ()


def test_load_or_raise_accepts_no_fallback() -> None:
    slot, _ = _slot(Loader(*_refused(2)), Loader(fakes.model()))
    slot.load()
    with pytest.raises(ModelUnavailableError):
        slot.load_or_raise()


class HangingLoader:
    """Begins, and ends when it is released."""

    def __init__(self, *outcomes: Model | Exception) -> None:
        self._load = Loader(*outcomes)
        self.begun, self.released = Event(), Event()

    def __call__(self) -> Model:
        self.begun.set()
        assert self.released.wait(30)
        return self._load()


def _in_turn(*loads: Callable[[], Model]) -> Callable[[], Model]:
    remaining = iter(loads)

    def load() -> Model:
        return next(remaining)()

    return load


def _hanging(
    loader: Callable[[], Model], fallback: Callable[[], Model] | None = None
) -> tuple[ModelSlot, fakes.FakeClock]:
    """A slot that gave up its load at init."""
    clock = fakes.FakeClock()
    slot = ModelSlot(loader, fallback, 5.0, clock, load_s=0.01)
    slot.load()
    return slot, clock


def _due_again(
    again: Callable[[], Model], fallback: Callable[[], Model] | None = None
) -> ModelSlot:
    """A slot whose model was refused at init, and whose pause is over."""
    clock = fakes.FakeClock()
    slot = ModelSlot(_in_turn(Loader(*_refused()), again), fallback, 5.0, clock, load_s=30)
    slot.load()
    clock.now_s += 5
    return slot


def _join(slot: ModelSlot, *, ready: bool = True) -> None:
    """Waits for its threads."""
    for thread in threading.enumerate():
        if thread.name == "model load":
            thread.join(30)
    assert (slot.ready is not None) is ready


def test_a_load_that_hangs_is_given_up_and_the_fallback_serves(log: fakes.LogLines) -> None:
    loader = HangingLoader(fakes.model())
    slot, _ = _hanging(loader, Loader(fakes.model(version="2")))
    assert slot.model().degraded == ("model:layer",)
    assert [(line["message"], line.get("reason")) for line in log()] == [
        ("model refused", "it takes more than 0.01 s to load"),
        ("fallback model loaded", None),
    ]
    loader.released.set()
    _join(slot)
    assert slot.model().degraded == (), "a late load counts"


def test_a_load_that_hangs_without_a_fallback_is_503_at_once() -> None:
    loader = HangingLoader(fakes.model())
    slot, _ = _hanging(loader)
    assert _wait_of(slot) == 5
    with pytest.raises(ModelUnavailableError):
        asyncio.run(slot.wait_for_model(fakes.call(60)))
    loader.released.set()
    _join(slot)


def test_init_does_not_wait_for_a_fallback_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_module, "FALLBACK_S", 0.01)
    loader, fallback = HangingLoader(*_refused()), HangingLoader(fakes.model(version="2"))
    slot, _ = _hanging(loader, fallback)
    assert _wait_of(slot) == 5
    fallback.released.set()
    loader.released.set()
    _join(slot, ready=False)
    assert slot.model().manifest.version == "2"


def test_no_request_waits_for_a_retry_while_the_fallback_serves() -> None:
    again = HangingLoader(fakes.model())
    slot = _due_again(again, Loader(fakes.model(version="2")))
    served = asyncio.run(slot.wait_for_model(fakes.call(60)))
    assert served.degraded == ("model:layer",)
    assert again.begun.wait(30)
    assert slot.model() is served, "one attempt at a time"
    again.released.set()
    _join(slot)
    assert slot.model().degraded == ()


def test_on_lambda_only_the_request_that_starts_a_retry_waits_for_it() -> None:
    """Lambda freezes threads between requests: a retry would never end."""
    again = HangingLoader(fakes.model())
    slot = _due_again(again, Loader(fakes.model(version="2")))
    brief = asyncio.run(slot.wait_for_model(fakes.call(0.05, limit_s=60)))
    assert again.begun.is_set()
    assert brief.degraded == ("model:layer",)
    assert asyncio.run(slot.wait_for_model(fakes.call(600, limit_s=600))) is brief, "at once"
    again.released.set()
    _join(slot)


def test_on_lambda_a_quick_retry_serves_the_request_that_starts_it() -> None:
    slot = _due_again(Loader(fakes.model()), Loader(fakes.model(version="2")))
    assert asyncio.run(slot.wait_for_model(fakes.call(60, limit_s=60))).degraded == ()


def _until(moment_s: float) -> None:
    while perf_counter() <= moment_s:
        pass


def test_on_lambda_a_wait_for_the_first_model_may_exceed_the_budget_of_a_request() -> None:
    again = HangingLoader(fakes.model())
    slot = _due_again(again)

    async def ask() -> Model:
        call = fakes.call(0.01, limit_s=60)
        waiting = asyncio.create_task(slot.wait_for_model(call))
        await asyncio.to_thread(_until, call.deadline_s)
        again.released.set()
        return await waiting

    assert asyncio.run(ask()).degraded == ()


def test_while_nothing_serves_requests_wait_for_the_load_without_blocking_the_event_loop() -> None:
    again = HangingLoader(fakes.model())
    slot = _due_again(again)

    async def both() -> list[Model]:
        waiting = [asyncio.create_task(slot.wait_for_model(fakes.call(60))) for _ in range(3)]
        await asyncio.to_thread(again.begun.wait, 30)
        assert not any(task.done() for task in waiting)
        again.released.set()
        return await asyncio.gather(*waiting)

    assert [model.degraded for model in asyncio.run(both())] == [()] * 3


def test_a_request_that_waited_in_vain_gets_the_seconds_until_the_next_attempt() -> None:
    again = HangingLoader(fakes.model())
    slot = _due_again(again)
    with pytest.raises(ModelUnavailableError) as error:
        asyncio.run(slot.wait_for_model(fakes.call(0.01)))
    assert error.value.retry_after_s == 30
    again.released.set()  # the end of the request did not cancel it
    _join(slot)


def test_a_retry_that_hangs_is_given_up_and_the_next_one_waits_for_its_pause() -> None:
    again = HangingLoader(fakes.model(version="4"), fakes.model(version="5"))
    clock = fakes.FakeClock()
    calls = []

    def load() -> Model:
        calls.append(clock.now_s)
        return (Loader(*_refused()) if len(calls) == 1 else again)()

    slot = ModelSlot(load, None, 5.0, clock, load_s=8.0)
    slot.load()
    clock.now_s += 5
    assert _wait_of(slot) == 8
    clock.now_s += 8
    assert _wait_of(slot) == 10
    clock.now_s += 10
    assert again.begun.wait(30)
    assert _wait_of(slot) == 8
    again.released.set()
    _join(slot)
    assert calls == [1_000.0, 1_005.0, 1_023.0]


def test_a_ready_model_costs_a_request_no_clock() -> None:
    slot, clock = _slot(Loader(fakes.model()))
    slot.load()
    del slot._clock
    assert slot.ready is slot.model()
    assert clock.now_s == 1_000.0
