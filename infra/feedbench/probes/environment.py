"""One warm environment: its memory, its scores, its throughput."""

import json
import os
import sys
from collections.abc import Iterator
from itertools import combinations, cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Any

import handler
from feedbench.probes.cold import LambdaContext

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
WARM_UP_CALLS = 2_000
READINGS = 50

context = LambdaContext()


def read_events(*files: str) -> list[dict[str, Any]]:
    return [event for file in files for event in json.loads(Path(file).read_bytes())]


def memory(events: list[str], requests: int, leak_bytes: int) -> dict[str, Any]:
    """Resident megabytes over many requests. With `leak_bytes` each request leaves as much behind:
    the control that the check must notice."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # gigabytes of log lines
    after_init_mb = _resident_mb()
    supply, leaked = cycle(read_events(*events)), []

    def readings(calls: int) -> float:
        for event in islice(supply, calls):
            handler.lambda_handler(event, context)
            if leak_bytes:
                leaked.append(bytearray(b"x" * leak_bytes))
        return _resident_mb()

    calls = [WARM_UP_CALLS, *[requests // READINGS] * READINGS]
    return {"after_init_mb": after_init_mb, "readings_mb": list(map(readings, calls))}


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * PAGE_BYTES / 1e6


def parity(events: str, now_s: float) -> dict[str, Any]:
    """How far apart the scores of the handler, ONNX Runtime and torch are for the same requests."""
    import numpy as np
    import onnxruntime
    import torch

    from feedbench.competitors.candidates import BUNDLE, Candidates

    session = onnxruntime.InferenceSession(BUNDLE / "serving" / "model.onnx")
    module: Any = torch.export.load(BUNDLE / "serving" / "model.pt2").module()
    candidates = Candidates()
    names = [" and ".join(pair) for pair in combinations(("torch", "ONNX", "handler"), 2)]
    apart, rows = dict.fromkeys(names, 0.0), 0
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


def throughput(answer_to: int, files: list[str]) -> None:
    """Serves when it is told to. Each line of standard input is `FILE SECONDS`, the number of a
    file of events; the answer, into a file descriptor, is calls a second."""
    supplies: list[Iterator[Any]] = [cycle(read_events(name)) for name in files]
    for line in sys.stdin:
        at, seconds = line.split()
        events, calls = supplies[int(at)], 0
        start = perf_counter()
        end = start + float(seconds)
        while perf_counter() < end:
            handler.lambda_handler(next(events), context)
            calls += 1
        os.write(answer_to, f"{calls / (perf_counter() - start)}\n".encode())
