"""A warm handler: compared with what it is made of, and by stage."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import cycle, islice, repeat
from pkgutil import resolve_name
from time import perf_counter, perf_counter_ns, time
from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime

from feedbench.probes.cold import LambdaContext
from feedrank.domain import Call
from feedrank.http import payload
from feedrank.http.fast_path import StraightCycle, run_through
from feedrank.http.lambda_adapter import Adapter

BUDGET_S = 2.0
WARM_UP_CALLS = 200

Contest = Callable[[int], list[int]]  # makes a number of calls; the nanoseconds of each

sessions: list[Any] = []
_new_session = onnxruntime.InferenceSession.__init__


def kept_session(self: object, *args: object, **options: object) -> None:
    _new_session(self, *args, **options)
    sessions.append(self)


onnxruntime.InferenceSession.__init__ = kept_session
import handler  # noqa: E402 with its session in our hands
from feedbench.probes.environment import read_events  # noqa: E402 it imports the handler


def contests(events: str, now_s: float, rounds: int, calls: int) -> dict[str, list[list[int]]]:
    """Nanoseconds of each call, by name and round: blocks of calls by turns.

    `run` is the model's `session.run` on the same matrix; `minimum` is JSON in, Pydantic,
    `session.run`, JSON out; `floor` is about the same as an app behind the handler's own adapter;
    `core` is all that the handler does between body and response, decision record included: no
    event, no log line, no metrics.
    """
    from feedbench.competitors import candidates, floor

    requests, context = read_events(events), LambdaContext()
    bodies = [event["body"] for event in requests]
    inputs = [floor.candidates.inputs(**json.loads(body), now_s=now_s) for body in bodies]
    run, outputs = sessions[0].run, floor.outputs
    responses = [json.loads(handler.lambda_handler(e, context)["body"]) for e in requests]

    def core(body: bytes) -> None:
        request, now = payload.parse(body), perf_counter()
        call = Call("no request id", time(), now, now + BUDGET_S, is_alone=True)
        ranking = run_through(handler.ranker.rank(payload.to_query(request, call.time_s), call))
        payload.response_body(ranking)

    def minimum(body: str, matrices: Any, response: Any) -> None:  # noqa: ANN401
        candidates.PredictRequest.model_validate(json.loads(body))
        run(outputs, matrices)
        json.dumps(response)

    floor_handler = Adapter(floor.app, ["application/"], StraightCycle)
    by_name = {
        "handler": _contest(handler.lambda_handler, zip(requests, repeat(context))),
        "core": _contest(core, ((body.encode(),) for body in bodies)),
        "floor": _contest(floor_handler, zip(requests, repeat(context))),
        "minimum": _contest(minimum, zip(bodies, inputs, responses, strict=True)),
        "run": _contest(run, zip(repeat(outputs), inputs)),
    }
    for contest in by_name.values():
        contest(WARM_UP_CALLS)
    spent_ns: defaultdict[str, list[list[int]]] = defaultdict(list)
    for _ in range(rounds):
        for name, contest in by_name.items():
            spent_ns[name].append(contest(calls))
    return spent_ns


def _contest(call: Callable[..., object], arguments: Iterable[tuple[Any, ...]]) -> Contest:
    supply = cycle(arguments)

    def calls(number: int) -> list[int]:
        spent_ns = []
        for each in islice(supply, number):
            start = perf_counter_ns()
            call(*each)
            spent_ns.append(perf_counter_ns() - start)
        return spent_ns

    return calls


def stages(events: str, stages: dict[str, list[str]], rounds: int, calls: int) -> dict[str, Any]:
    """Median nanoseconds of the whole, and of each stage's callables together.

    A stopwatch around each callable, on and off by turns: the whole is measured without it. What
    the stages' medians leave of the whole's is what stands between them, roughly: medians do not
    add up.
    """
    serve = _contest(handler.lambda_handler, zip(read_events(events), repeat(LambdaContext())))
    watched_ns: defaultdict[str, list[int]] = defaultdict(list)
    watches = [_watch(path, watched_ns[path]) for paths in stages.values() for path in paths]
    serve(WARM_UP_CALLS)
    whole_ns = []
    for _ in range(rounds):
        whole_ns += serve(calls)
        with ExitStack() as stack:
            for watch in watches:
                stack.enter_context(watch)
            serve(calls)
    medians = {path: float(np.median(spent_ns)) for path, spent_ns in watched_ns.items()}
    stages_ns = {name: sum(medians[path] for path in paths) for name, paths in stages.items()}
    return {"whole_ns": float(np.median(whole_ns)), "stages_ns": stages_ns}


def _watch(path: str, spent_ns: list[int]) -> Any:  # noqa: ANN401 a patch
    """A stopwatch around one callable or property; `path` is its owner and its name."""
    owner_name, name = path.split()
    owner = resolve_name(owner_name)
    real: Any = vars(owner)[name]
    function: Callable[..., Any] = getattr(real, "fget", real)

    def timed(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 whatever it takes and returns
        start = perf_counter_ns()
        value = function(*arguments, **named)
        spent_ns.append(perf_counter_ns() - start)
        return value

    return patch.object(owner, name, property(timed) if isinstance(real, property) else timed)
