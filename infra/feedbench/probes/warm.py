"""One warm environment: what a request takes and is made of, its scores, its memory."""

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import combinations, cycle, islice, repeat
from pathlib import Path
from pkgutil import resolve_name
from time import perf_counter, perf_counter_ns, sleep, time
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
MEMORY_WARM_UP_CALLS = 2_000
READINGS = 50
LOAD_TRIES, LOAD_PAUSE_S = 60, 1.0  # a busy machine takes longer than an init may

Contest = Callable[[int], list[int]]  # makes a number of calls; the nanoseconds of each

sessions: list[Any] = []
_new_session = onnxruntime.InferenceSession.__init__


def kept_session(self: object, *args: object, **options: object) -> None:
    _new_session(self, *args, **options)
    sessions.append(self)


onnxruntime.InferenceSession.__init__ = kept_session
import handler  # noqa: E402 with its session in our hands

context = LambdaContext()


def read_events(*files: str) -> list[dict[str, Any]]:
    return [event for file in files for event in json.loads(Path(file).read_bytes())]


def contests(events: str, now_s: float, rounds: int, calls: int) -> dict[str, list[list[int]]]:
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
    run, outputs = sessions[0].run, floor.outputs
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
    the stages' medians leave of the whole's is roughly what stands between them.
    """
    serve = _contest(handler.lambda_handler, zip(read_events(events), repeat(context)))
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


def throughput(answer_to: int, files: list[str]) -> None:
    """Serves when it is told to. Each line of standard input is `FILE SECONDS`, the number of a
    file of events; the answer, into a file descriptor, is calls a second."""
    supplies = [cycle(read_events(name)) for name in files]
    for _ in range(LOAD_TRIES):  # a call that finds no model is faster than any other
        if handler.lambda_handler(next(supplies[0]), context)["statusCode"] == 200:  # noqa: PLR2004
            break
        sleep(LOAD_PAUSE_S)
    else:
        sys.exit("the handler ranks nothing; its log says why")
    for line in sys.stdin:
        at, seconds = line.split()
        events, calls = supplies[int(at)], 0
        start = perf_counter()
        end = start + float(seconds)
        while perf_counter() < end:
            handler.lambda_handler(next(events), context)
            calls += 1
        os.write(answer_to, f"{calls / (perf_counter() - start)}\n".encode())


def parity(events: str, now_s: float) -> dict[str, Any]:
    """How far apart the scores of the handler, ONNX Runtime and torch are for the same requests."""
    import torch

    from feedbench.competitors.candidates import BUNDLE, Candidates
    from feedrank.bundle.layout import ONNX_MODEL, TORCH_MODEL

    session = onnxruntime.InferenceSession(BUNDLE / ONNX_MODEL)
    module: Any = torch.export.load(BUNDLE / TORCH_MODEL).module()
    names = [" and ".join(pair) for pair in combinations(("torch", "ONNX", "handler"), 2)]
    apart, rows, candidates = dict.fromkeys(names, 0.0), 0, Candidates()
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
        pairs = combinations((by_torch, by_onnx, by_handler), 2)
        for name, (one, other) in zip(apart, pairs, strict=True):
            # np.maximum keeps a NaN, which max() may drop.
            apart[name] = float(np.maximum(apart[name], np.abs(one.ravel() - other.ravel()).max()))
        rows += len(request["item_ids"])
    return {"rows": rows, "apart": apart}


def memory(events: list[str], requests: int, leak_bytes: int) -> dict[str, Any]:
    """Resident megabytes over many requests. With `leak_bytes` each request leaves as much behind:
    the control that the check must notice."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # gigabytes of log lines
    after_init_mb, leaked = _resident_mb(), list[bytearray]()
    supply = cycle(read_events(*events))

    def reading(calls: int) -> float:
        for event in islice(supply, calls):
            handler.lambda_handler(event, context)
            if leak_bytes:
                leaked.append(bytearray(b"x" * leak_bytes))
        return _resident_mb()

    calls = [MEMORY_WARM_UP_CALLS, *[requests // READINGS] * READINGS]
    return {"after_init_mb": after_init_mb, "readings_mb": list(map(reading, calls))}


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
