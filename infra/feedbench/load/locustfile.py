"""Users of the feed, and the phases of a load. Locust runs this file in its own environment.

What it needs comes by environment variables: BODIES, a JSON file of `/predict` bodies by number of
items; LOG, where each request goes as a line; STEADY_S.
"""

import json
import os
import random
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

from locust import FastHttpUser, LoadTestShape, between, events, task

OK, NOT_FOUND, UNPROCESSABLE = 200, 404, 422
THINK_S = (0.5, 1.5)  # so that a user makes about one request a second
STEADY_USERS = 100
OVERLOAD = 3  # times what saturated it
STEP_USERS, STEP_S = 60, 4
MOST_USERS = 1_500
GAIN = 1.05  # a step up that brings less than 5 % more has saturated it
OVERLOAD_S, RECOVERY_S = 15, 15
GENTLE_PER_S, SUDDEN_PER_S = 25, 1_000  # users that come or go in a second
MISTAKES = ('{"user_id": 1, "item_ids": []}', '{"user_id": -1, "item_ids": [1]}', '{"user_id":')
# Percent of the requests: mostly a screenful of candidates, at times few or the most that are
# allowed, and errors.
WEIGHTS = {"50": 60, "5": 20, "100": 15, "a mistake": 3, "lost": 2}

bodies: dict[str, list[dict[str, Any]]] = json.loads(Path(os.environ["BODIES"]).read_bytes())
supply = {items: cycle(each) for items, each in bodies.items()}
log = Path(os.environ["LOG"]).open("w", buffering=1 << 16)  # noqa: SIM115 open to the end
started_s = time.time()
phase = "steady"
good_responses = 0


class FeedUser(FastHttpUser):  # type: ignore[misc,unused-ignore]  # locust's
    wait_time = between(*THINK_S)

    @task  # type: ignore[untyped-decorator,unused-ignore]
    def request(self) -> None:
        (kind,) = random.choices(list(WEIGHTS), list(WEIGHTS.values()))  # noqa: S311 no secret
        if kind == "lost":
            self._send("GET", "/nowhere", kind, None, NOT_FOUND)
        elif kind == "a mistake":
            self._send("POST", "/predict", kind, random.choice(MISTAKES), UNPROCESSABLE)  # noqa: S311
        else:
            self._send("POST", "/predict", f"{kind} items", json.dumps(next(supply[kind])), OK)

    def _send(self, method: str, path: str, name: str, body: str | None, expected: int) -> None:
        options = {"headers": {"content-type": "application/json"}, "catch_response": True}
        sent_in, sent_s, start = phase, time.time(), time.perf_counter()
        with self.client.request(method, path, data=body, name=name, **options) as response:
            status = response.status_code
            if status == expected:
                response.success()
            else:
                response.failure(f"status {status}")
        taken_ms = 1_000 * (time.perf_counter() - start)
        line = [round(sent_s - started_s, 4), sent_in, name, status, expected, round(taken_ms, 3)]
        log.write(json.dumps(line) + "\n")


def schedule() -> Iterator[tuple[str, int, float]]:
    """Phase, users, seconds: steady, then step by step to saturation, then three times that, then
    steady again."""
    users, best_per_s = STEADY_USERS, 0.0
    yield "steady", users, float(os.environ["STEADY_S"])
    while True:
        before, start = good_responses, time.time()
        yield "ramp", users, STEP_S
        per_s = (good_responses - before) / (time.time() - start)
        if per_s < GAIN * best_per_s or users >= MOST_USERS:
            break
        best_per_s = per_s
        users += STEP_USERS
    yield "overload", OVERLOAD * users, OVERLOAD_S
    yield "recovery", STEADY_USERS, RECOVERY_S


class Phases(LoadTestShape):  # type: ignore[misc,unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self._schedule, self._users, self._end_s = schedule(), 0, 0.0

    def tick(self) -> tuple[int, float] | None:
        global phase
        if self.get_run_time() >= self._end_s:
            step = next(self._schedule, None)
            if not step:
                return None
            phase, self._users, seconds = step
            self._end_s = self.get_run_time() + seconds
        return self._users, GENTLE_PER_S if phase in {"steady", "ramp"} else SUDDEN_PER_S


@events.request.add_listener  # type: ignore[untyped-decorator,unused-ignore]
def count(exception: Exception | None, **_others: Any) -> None:  # noqa: ANN401 locust's
    global good_responses  # noqa: PLW0603
    good_responses += exception is None


@events.quitting.add_listener  # type: ignore[untyped-decorator,unused-ignore]
def close(**_others: Any) -> None:  # noqa: ANN401
    log.close()
