from collections.abc import Callable, Iterator

import pytest

import fakes
from feedrank.errors import BundleError, ModelUnavailableError
from feedrank.model import Model, ModelSlot


class Loader:
    """Gives what it was told to, one after another, and counts how often it was asked."""

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
    return ModelSlot(load, fallback, retry_s, clock), clock


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


def test_a_slot_that_nobody_loaded_loads_at_the_first_request() -> None:
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


def test_an_unforeseen_error_is_a_refusal_too(log: fakes.LogLines) -> None:
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


def test_before_the_pause_is_over_nothing_is_tried() -> None:
    loader = Loader(*_refused(2))
    slot, clock = _slot(loader)
    slot.load()
    clock.now_s += 4.999
    assert (_wait_of(slot), loader.calls) == (1, 1)
    clock.now_s += 0.001
    assert (_wait_of(slot), loader.calls) == (10, 2)


def test_a_short_pause_still_asks_for_a_whole_second() -> None:
    slot, _ = _slot(Loader(*_refused()), retry_s=0.01)
    slot.load()
    assert _wait_of(slot) == 1


def test_a_bundle_that_comes_back_is_served() -> None:
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


def test_a_request_may_wait_until_a_model_is_there_whose_features_do_not() -> None:
    slot, clock = _slot(Loader(*_refused(), fakes.model()), Loader(fakes.model()))
    waits = [slot.waits]
    slot.load()
    waits.append(slot.waits)  # the fallback's features don't, but the next load may bring others
    clock.now_s += 5
    slot.model()
    assert [*waits, slot.waits] == [True, True, False]


def test_a_request_may_wait_for_features_that_do() -> None:
    slot, _ = _slot(Loader(fakes.model(store=FarStore())))
    slot.load()
    assert slot.waits


def test_what_loaded_is_logged_by_version_and_digest(log: fakes.LogLines) -> None:
    slot, _ = _slot(Loader(fakes.model()))
    slot.load()
    (line,) = log()
    assert (line["message"], line["model_version"], line["digest"]) == (
        "model loaded",
        "feed_ranker-3",
        "d" * 64,
    )


def test_the_fallback_serves_meanwhile_and_says_so(log: fakes.LogLines) -> None:
    slot, _ = _slot(Loader(*_refused()), Loader(fakes.model(version="2")))
    slot.load()
    model = slot.model()
    assert (model.manifest.model_version, model.degraded) == ("feed_ranker-2", ("model:layer",))
    assert [line["message"] for line in log()] == ["model refused", "fallback model loaded"]


def test_a_retry_goes_back_from_the_fallback_to_the_real_model() -> None:
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


def test_a_fallback_that_is_broken_too_leaves_no_model(log: fakes.LogLines) -> None:
    fallback = Loader(BundleError("serving/manifest.json: not found"), fakes.model())
    slot, clock = _slot(Loader(*_refused(2)), fallback)
    slot.load()
    assert _wait_of(slot) == 5
    assert [line["message"] for line in log()] == ["model refused", "fallback model refused"]
    clock.now_s += 5
    assert slot.model().degraded == ("model:layer",)


def test_a_good_model_needs_no_fallback() -> None:
    fallback = Loader()
    slot, _ = _slot(Loader(fakes.model()), fallback)
    slot.load()
    assert (slot.model().degraded, fallback.calls) == ((), 0)


def test_a_model_that_is_loaded_is_proven_without_loading_it_again() -> None:
    loader = Loader(fakes.model())
    slot, _ = _slot(loader)
    slot.load()
    slot.prove()
    assert loader.calls == 1


def test_proving_tries_at_once_however_long_the_pause() -> None:
    slot, _ = _slot(Loader(*_refused(), fakes.model()))
    slot.load()
    slot.prove()
    assert slot.model().degraded == ()


def test_a_fallback_proves_nothing() -> None:
    slot, _ = _slot(Loader(*_refused(2)), Loader(fakes.model()))
    slot.load()
    with pytest.raises(ModelUnavailableError):
        slot.prove()
