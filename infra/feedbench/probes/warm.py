"""One warm environment: what a request takes and is made of, its scores, its memory."""

import json
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from itertools import cycle, islice, repeat
from pathlib import Path
from time import perf_counter, perf_counter_ns, process_time_ns, time
from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime

import handler
from feedbench.probes.cold import context, watched
from feedbench.stats import by_turns
from feedrank.domain import Call, Query
from feedrank.features.matrix import MatrixBuilder
from feedrank.features.snapshot import SnapshotStore
from feedrank.features.spec_reader import parse_spec
from feedrank.features.vocabulary import keys_of
from feedrank.http import payload
from feedrank.http.fast_path import StraightCycle, run_through
from feedrank.http.lambda_adapter import Adapter

BUDGET_S = 2.0
WARM_UP_CALLS = 200
MEMORY_WARM_UP_CALLS = 2_000
READINGS = 50

Contest = Callable[[int], list[int]]  # makes a number of calls; the nanoseconds of each
Spent = dict[str, list[list[int]]]  # by name and round


def read_events(*files: str) -> list[dict[str, Any]]:
    return [event for file in files for event in json.loads(Path(file).read_bytes())]


def contests(events: str, now_s: float, rounds: int, calls: int) -> Spent:
    """Nanoseconds of each call, by name and round: blocks of calls by turns.

    `run` is the model's `session.run` on the same matrix; `minimum` is JSON in, Pydantic,
    `session.run`, JSON out; `floor` is about the same as an app behind the handler's own adapter;
    `core` is all that the handler does between body and response, decision record included: no
    event, no log line, no metrics.
    """
    from feedbench.competitors import candidates, floor

    requests = read_events(events)
    bodies = [event["body"] for event in requests]
    inputs = [floor.candidates.inputs(**json.loads(body), now_s=now_s) for body in bodies]
    model: Any = handler.slot.ready
    run, outputs = model.engine._session.run, floor.outputs  # noqa: SLF001
    responses = [json.loads(handler.lambda_handler(each, context)["body"]) for each in requests]

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
        "handler": _serve(requests),
        "core": _contest(core, ((body.encode(),) for body in bodies)),
        "floor": _contest(floor_handler, zip(requests, repeat(context))),
        "minimum": _contest(minimum, zip(bodies, inputs, responses, strict=True)),
        "run": _contest(run, zip(repeat(outputs), inputs)),
    }
    return _by_turns(by_name, rounds, calls)


def latency(events: list[str], rounds: int, calls: int) -> Spent:
    """Nanoseconds of each call of the handler, by file of events and round."""
    return _by_turns({file: _serve(read_events(file)) for file in events}, rounds, calls)


def fetches(events: str, rounds: int, calls: int, *, reads_user: bool) -> list[float]:
    """Nanoseconds that all threads compute for a fetch of a request's features: means, by round."""
    model: Any = handler.slot.ready
    store = model.features
    if not reads_user:
        store._users = None  # noqa: SLF001

    def fetch(query: Query) -> None:
        rows = run_through(store.fetch(query, perf_counter() + BUDGET_S))
        if rows.degraded:
            sys.exit(f"not all rows were read: {rows.degraded}")

    bodies = [payload.parse(event["body"].encode()) for event in read_events(events)]
    queries = [(payload.to_query(body, time()),) for body in bodies]
    fetches = _contest(fetch, queries)

    def mean_ns() -> float:
        start_ns = process_time_ns()
        fetches(calls)
        return (process_time_ns() - start_ns) / calls

    return by_turns({"CPU": mean_ns}, rounds)["CPU"]


def inputs(
    specs: dict[str, tuple[Any, str]], items: int, texts: list[str], rounds: int, calls: int
) -> Spent:
    """Nanoseconds from ids to inputs, by each spec with its snapshot; as `keys`, to make of ids
    that are text what tables find them by."""
    query = Query(0, list(range(items)), {}, time())
    by_name = {"keys": _contest(keys_of, [(texts,)])}
    for name, (entries, snapshot) in specs.items():
        spec = parse_spec(entries)
        build, look_up = MatrixBuilder(spec).build, SnapshotStore(Path(snapshot), spec).look_up
        by_name[name] = _contest(lambda q, b=build, r=look_up: b(q, r(q)), [(query,)])
    return _by_turns(by_name, rounds, calls)


def _by_turns(contests: dict[str, Contest], rounds: int, calls: int) -> Spent:
    return by_turns({name: partial(contest, calls) for name, contest in contests.items()}, rounds)


def _serve(events: list[dict[str, Any]]) -> Contest:
    response = handler.lambda_handler(events[0], context)
    if response["statusCode"] != 200:  # noqa: PLR2004
        sys.exit(f"no ranking: {response}")
    return _contest(handler.lambda_handler, zip(events, repeat(context)))


def _contest(call: Callable[..., object], arguments: Iterable[tuple[Any, ...]]) -> Contest:
    supply = cycle(arguments)

    def calls(number: int) -> list[int]:
        spent_ns = []
        for each in islice(supply, number):
            start = perf_counter_ns()
            call(*each)
            spent_ns.append(perf_counter_ns() - start)
        return spent_ns

    calls(WARM_UP_CALLS)
    return calls


def stages(
    events: str, stages: dict[str, list[str]], rest: str, rounds: int, calls: int
) -> dict[str, float]:
    """Median nanoseconds of each stage's callables together, and of the rest.

    A stopwatch around each callable, on and off by turns: the whole is measured without it. What
    the stages' medians leave of the whole's is roughly what stands between them.
    """
    serve, whole_ns = _serve(read_events(events)), list[int]()
    watched_ns: dict[str, list[int]] = {path: [] for paths in stages.values() for path in paths}
    watches = [patch.object(*watched(path, ns)) for path, ns in watched_ns.items()]
    for _ in range(rounds):
        whole_ns += serve(calls)
        with ExitStack() as stack:
            for watch in watches:
                stack.enter_context(watch)
            serve(calls)
    medians = {path: float(np.median(ns)) for path, ns in watched_ns.items()}
    stages_ns = {name: sum(medians[path] for path in paths) for name, paths in stages.items()}
    return {**stages_ns, rest: float(np.median(whole_ns)) - sum(stages_ns.values())}


def parity(events: str, now_s: float) -> float:
    """How far apart torch's, ONNX Runtime's and the handler's scores are at most. NaN stays one."""
    import torch

    from feedbench.competitors.candidates import BUNDLE, Candidates
    from feedrank.bundle.layout import ONNX_MODEL, TORCH_MODEL

    session = onnxruntime.InferenceSession(BUNDLE / ONNX_MODEL)
    module: Any = torch.export.load(BUNDLE / TORCH_MODEL).module()
    apart, candidates = 0.0, Candidates()
    for event in read_events(events):
        request = json.loads(event["body"])
        inputs = candidates.inputs(**request, now_s=now_s)
        (by_onnx,) = session.run(None, inputs)
        with torch.inference_mode():
            by_torch = module(*map(torch.from_numpy, inputs.values())).numpy()
        response = json.loads(handler.lambda_handler(event, context)["body"])
        # An item that stands twice in a request has one score, wherever it is.
        scores = {each["item_id"]: each["score"] for each in response["predictions"]}
        by_handler = np.array([scores[item] for item in request["item_ids"]])
        together = np.stack([by_torch.ravel(), by_onnx.ravel(), by_handler])
        apart = float(np.maximum(apart, np.ptp(together, axis=0).max()))
    return apart


def memory(events: list[str], requests: int, leak_bytes: int) -> list[float]:
    """Resident megabytes over many requests. With `leak_bytes` each request leaves as much behind:
    the control that the check must notice."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # gigabytes of log lines
    leaked: list[bytearray] = []
    supply = cycle(read_events(*events))

    def reading(calls: int) -> float:
        for event in islice(supply, calls):
            handler.lambda_handler(event, context)
            if leak_bytes:
                leaked.append(bytearray(b"x" * leak_bytes))
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    return list(map(reading, [MEMORY_WARM_UP_CALLS, *[requests // READINGS] * READINGS]))


if __name__ == "__main__":
    result, probe, options = sys.argv[1:]
    Path(result).write_text(json.dumps(globals()[probe](**json.loads(options))))
