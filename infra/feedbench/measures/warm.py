"""A warm handler compared with the model's bare run and with the minimum that any handler must do;
and where its time goes."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from feedbench import stats
from feedbench.bench import Bench
from feedbench.results import PLAN, Row, row
from feedbench.traffic import MOMENT_S

MANY, FEW = 100, 5  # items
REST = "all else"
CONTESTS = {  # the probe's, as the report names them
    "handler": "the handler",
    "core": "without event, log line and metrics",
    "floor": "parse, run, answer behind the same adapter",
    "minimum": "json.loads, Pydantic, session.run, json.dumps",
    "run": "session.run",
}
Microseconds = dict[str, list[list[float]]]  # of each call, by what is called and round


def measure(bench: Bench) -> Iterator[Row]:
    many, few = _by_turns(bench, MANY), _by_turns(bench, FEW)
    p50_us = {
        items: {name: stats.summary(_calls(us[name]))["p50"] for name in CONTESTS}
        for items, us in ((FEW, few), (MANY, many))
    }
    yield row(
        "warm, 100 items / session.run",
        stats.ratio(many["handler"], many["run"]),
        _note(p50_us[MANY]["handler"], many, "run"),
    )
    yield row("warm, 100 items, p99 / p50", stats.tail_ratio(many["handler"]))
    yield row(
        "warm, 5 items / minimum",
        stats.ratio(few["handler"], few["minimum"]),
        _note(p50_us[FEW]["handler"], few, "minimum"),
    )
    bench.details["warm_us"] = {
        f"handler, {MANY} items": _described(many["handler"]),
        f"session.run, {MANY} items": _described(many["run"]),
        f"handler, {FEW} items": _described(few["handler"]),
        f"minimum, {FEW} items": _described(few["minimum"]),
    }
    bench.details["warm_parts_us"] = {
        str(items): {CONTESTS[name]: round(us, 1) for name, us in parts.items()}
        for items, parts in p50_us.items()
    }
    bench.details["warm_stages_us"] = {str(items): _stages(bench, items) for items in (FEW, MANY)}


def _note(p50_us: float, us: Microseconds, yardstick: str) -> str:
    core, floor = (stats.ratio(us[name], us[yardstick]).value for name in ("core", "floor"))
    return (
        f"{p50_us / 1_000:.2f} ms; without event, log line and metrics: {core:.2f} x; an app "
        f"behind the same adapter that would only parse, run the model and answer: {floor:.2f} x"
    )


def _stages(bench: Bench, items: int) -> dict[str, float]:
    """Median microseconds of each, and what is left of the whole request."""
    bench.say(f"stages of a warm request, {items} items")
    options = {"stages": PLAN["stages"]["warm"], "rounds": bench.effort.warm_rounds // 2}
    calls = bench.effort.warm_calls
    medians = bench.probe("warm.stages", events=bench.events(items), calls=calls, **options)
    stages_ns = medians["stages_ns"]
    rest_ns = medians["whole_ns"] - sum(stages_ns.values())
    return {name: round(ns / 1_000, 1) for name, ns in {**stages_ns, REST: rest_ns}.items()}


def _by_turns(bench: Bench, items: int) -> Microseconds:
    options = {"rounds": bench.effort.warm_rounds, "calls": bench.effort.warm_calls}
    calls_ns = bench.probe("warm.contests", events=bench.events(items), now_s=MOMENT_S, **options)
    return {
        name: [[ns / 1_000 for ns in calls] for calls in rounds]
        for name, rounds in calls_ns.items()
    }


def _described(rounds: list[list[float]]) -> dict[str, Any]:
    """The summary, and the curve that a plot of the distribution needs."""
    return stats.summary(_calls(rounds)) | {"curve": stats.curve(_calls(rounds))}


def _calls(rounds: list[list[float]]) -> list[float]:
    return list(chain.from_iterable(rounds))
