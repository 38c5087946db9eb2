"""A warm handler against the model's bare run and against the least that any handler must do; and
where its time goes."""

from collections.abc import Mapping, Sequence
from typing import Any

from feedbench import stats, traffic
from feedbench.plan import Plan
from feedbench.probe import run_probe
from feedbench.results import Measurement, row

EVENTS = 64
MANY, FEW = 100, 5  # items
# What a request is made of: callables and properties, by module. None is within another, but for
# the scope, which Mangum builds again for its answer.
STAGES: Mapping[str, Sequence[tuple[str, str]]] = {
    "Mangum: event to scope": [("mangum.handlers.api_gateway", "HTTPGateway.scope")],
    "JSON in, validated": [("feedrank.http.endpoints", "parse")],
    "query": [("feedrank.http.endpoints", "to_query")],
    "feature look-up": [("feedrank.features.snapshot", "SnapshotStore.look_up")],
    "matrix": [("feedrank.features.matrix", "MatrixBuilder.build")],
    "engine": [("feedrank.model.engines.onnx", "OnnxEngine.score")],
    "ranking": [("feedrank.ranking.pipeline", "best_first")],
    "decision record": [("feedrank.decisions.log", "DecisionLog._print")],
    "JSON out": [("feedrank.http.endpoints", "response_body")],
    "request line, metrics": [
        ("feedrank.http.observer", "request_metrics"),
        ("feedrank.http.observer", "log_request"),
    ],
    "Mangum: answer to event": [("mangum.handlers.api_gateway", "HTTPGateway.__call__")],
}
REST = "all else"
CONTESTS = {  # the probe's, as the report names them
    "handler": "the handler",
    "core": "without event, log line and metrics",
    "floor": "parse, run, answer behind the same adapter",
    "minimum": "json.loads, Pydantic, session.run, json.dumps",
    "run": "session.run",
}


def measure(plan: Plan) -> Measurement:
    many, few = _by_turns(plan, MANY), _by_turns(plan, FEW)
    p50_us = {
        items: {name: stats.summary(_all(taken[name]))["p50"] for name in CONTESTS}
        for items, taken in ((FEW, few), (MANY, many))
    }
    rows = (
        row(
            "warm, 100 items / session.run",
            "Warm handler, 100 items, decision record written: p50 against the bare `session.run` "
            "on the same matrix",
            stats.ratio(many["handler"], many["run"]),
            bar=2.0,
            note=_note(p50_us[MANY]["handler"], many, "run"),
        ),
        row(
            "warm, 100 items, p99 / p50",
            "Its p99 against its own p50",
            stats.tail_ratio(many["handler"]),
            bar=3.0,
        ),
        row(
            "warm, 5 items / minimum",
            "Warm handler, 5 items: p50 against json.loads + Pydantic + `session.run` + json.dumps",
            stats.ratio(few["handler"], few["minimum"]),
            bar=2.5,
            note=_note(p50_us[FEW]["handler"], few, "minimum"),
        ),
    )
    details = {
        "warm_us": {
            f"handler, {MANY} items": _described(many["handler"]),
            f"session.run, {MANY} items": _described(many["run"]),
            f"handler, {FEW} items": _described(few["handler"]),
            f"minimum, {FEW} items": _described(few["minimum"]),
        },
        "warm_parts_us": {
            str(items): {CONTESTS[name]: round(us, 1) for name, us in taken.items()}
            for items, taken in p50_us.items()
        },
        "warm_stages_us": {str(items): _stages(plan, items) for items in (FEW, MANY)},
    }
    return Measurement(rows, details)


def _note(p50_us: float, taken: Mapping[str, list[list[float]]], yardstick: str) -> str:
    core, floor = (stats.ratio(taken[name], taken[yardstick]).value for name in ("core", "floor"))
    return (
        f"{p50_us / 1_000:.2f} ms; without event, log line and metrics: {core:.2f} x; an app "
        f"behind the same adapter that would only parse, run the model and answer: {floor:.2f} x"
    )


def _stages(plan: Plan, items: int) -> dict[str, float]:
    """Median microseconds of each, and what is left of the whole request."""
    plan.say(f"stages of a warm request, {items} items")
    bodies = traffic.requests(plan.bundle, items, EVENTS)
    options = {
        "events": str(traffic.write_events(plan.scratch / "warm.json", bodies)),
        "stages": STAGES,
        "rounds": plan.effort.warm_rounds // 2,
        "calls": plan.effort.warm_calls,
    }
    found = run_probe(plan, plan.target, "warm_stages.py", options)
    stages = {name: ns / 1_000 for name, ns in found["stages_ns"].items()}
    rest = found["whole_ns"] / 1_000 - sum(stages.values())
    return {name: round(us, 1) for name, us in (stages | {REST: rest}).items()}


def _by_turns(plan: Plan, items: int) -> dict[str, list[list[float]]]:
    """Microseconds of each call, by contestant and round."""
    bodies = traffic.requests(plan.bundle, items, EVENTS)
    inputs = traffic.model_inputs(plan.bundle, bodies)
    options = {
        "events": str(traffic.write_events(plan.scratch / "warm.json", bodies)),
        "inputs": str(traffic.write_inputs(plan.scratch / "warm.npz", inputs)),
        "contests": list(CONTESTS),
        "rounds": plan.effort.warm_rounds,
        "calls": plan.effort.warm_calls,
    }
    found: dict[str, list[list[int]]] = run_probe(plan, plan.target, "warm.py", options)
    return {
        name: [[ns / 1_000 for ns in calls] for calls in rounds] for name, rounds in found.items()
    }


def _described(rounds: list[list[float]]) -> dict[str, Any]:
    """The summary, and the curve that a plot of the distribution needs."""
    return stats.summary(_all(rounds)) | {"curve": stats.curve(_all(rounds))}


def _all(rounds: list[list[float]]) -> list[float]:
    return [sample for samples in rounds for sample in samples]
