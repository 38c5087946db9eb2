"""A warm handler against what it can't do without. Arguments: result, and options as JSON.

Blocks of calls by turns, in one process. The yardsticks: `run` is the model's `session.run` on the
same matrix, `minimum` is JSON in, Pydantic, `session.run`, JSON out. `floor` is about the latter as
an app behind the same adapter as the handler's. `core` is all that the handler does between body
and answer, decision record included: no event, no log line, no metrics.
"""

import json
import sys
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import Annotated, Any

import numpy as np
import onnxruntime
from pydantic import BaseModel, Field

from feedbench import floor
from feedbench.probes.lambda_context import LambdaContext
from feedrank.domain import Call
from feedrank.http import payload
from feedrank.http.fast_path import StraightCycle, run_through
from feedrank.http.lambda_adapter import Adapter

Id = Annotated[int, Field(ge=0, le=2**63 - 1)]
BUDGET_S = 2.0
WARM_UP_CALLS = 200

sessions: list[Any] = []
_new_session = onnxruntime.InferenceSession.__init__


def kept_session(self: object, *args: object, **options: object) -> None:
    _new_session(self, *args, **options)
    sessions.append(self)


onnxruntime.InferenceSession.__init__ = kept_session
import handler  # noqa: E402 with its session in our hands


class Request(BaseModel):
    user_id: Id
    item_ids: list[Id] = Field(min_length=1, max_length=100)
    context: dict[str, str] = {}


class Contestants:
    def __init__(self, events: list[dict[str, Any]], inputs: list[dict[str, Any]]) -> None:
        self._events = cycle(events)
        self._context = LambdaContext()
        (self._session,) = sessions
        self._outputs = [self._session.get_outputs()[0].name]
        answers = [handler.lambda_handler(event, self._context)["body"] for event in events]
        bodies = [event["body"] for event in events]
        self._bodies = cycle(body.encode() for body in bodies)
        self._inputs = cycle(inputs)
        self._minima = cycle(zip(bodies, inputs, map(json.loads, answers), strict=True))
        self._floor = Adapter(floor.app, ["application/"], StraightCycle)

    def handler(self, calls: int) -> list[int]:
        return self._calls(handler.lambda_handler, calls)

    def floor(self, calls: int) -> list[int]:
        return self._calls(self._floor, calls)

    def core(self, calls: int) -> list[int]:
        spent = []
        for body in islice(self._bodies, calls):
            begun = perf_counter_ns()
            asked, now = payload.parse(body), perf_counter()
            call = Call("no request id", time.time(), now, now + BUDGET_S, is_alone=True)
            ranking = run_through(handler.ranker.rank(payload.to_query(asked, call.time_s), call))
            payload.response_body(ranking)
            spent.append(perf_counter_ns() - begun)
        return spent

    def _calls(self, call: Callable[[dict[str, Any], Any], object], calls: int) -> list[int]:
        context = self._context
        spent = []
        for event in islice(self._events, calls):
            begun = perf_counter_ns()
            call(event, context)
            spent.append(perf_counter_ns() - begun)
        return spent

    def run(self, calls: int) -> list[int]:
        run, outputs = self._session.run, self._outputs
        spent = []
        for inputs in islice(self._inputs, calls):
            begun = perf_counter_ns()
            run(outputs, inputs)
            spent.append(perf_counter_ns() - begun)
        return spent

    def minimum(self, calls: int) -> list[int]:
        run, outputs = self._session.run, self._outputs
        spent = []
        for body, inputs, answer in islice(self._minima, calls):
            begun = perf_counter_ns()
            Request.model_validate(json.loads(body))
            run(outputs, inputs)
            json.dumps(answer)
            spent.append(perf_counter_ns() - begun)
        return spent


result, options_json = sys.argv[1:]
options = json.loads(options_json)
events = json.loads(Path(options["events"]).read_bytes())
inputs: list[dict[str, Any]] = [{} for _ in events]
for key, matrix in np.load(options["inputs"]).items():
    number, _, name = key.partition("/")
    inputs[int(number)][name] = matrix
contestants = Contestants(events, inputs)
contests = {name: getattr(contestants, name) for name in options["contests"]}
for contest in contests.values():
    contest(WARM_UP_CALLS)
rounds: dict[str, list[list[int]]] = {name: [] for name in contests}
for _ in range(options["rounds"]):
    for name, contest in contests.items():
        rounds[name].append(contest(options["calls"]))
Path(result).write_text(json.dumps(rounds))
