"""Users of the feed, and the phases of a load. Locust runs this file in its own environment.

What it needs comes by environment variables: BODIES, a JSON file of `/predict` bodies by number of
items; LOG, where each request goes as a line; STEADY_S; PLAN, without which the web page decides.
"""

import json
import os
import random
import time
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
GENTLE_PER_S, SUDDEN_PER_S = 25, 1_000

bodies: dict[str, list[dict[str, Any]]] = json.loads(Path(os.environ["BODIES"]).read_bytes())
supply = {int(items): cycle(each) for items, each in bodies.items()}
log = Path(os.environ["LOG"]).open("w", buffering=1 << 16)  # noqa: SIM115 open to the end
started_s = time.time()
phase = "web"


class FeedUser(FastHttpUser):  # type: ignore[misc,unused-ignore]  # locust's
    """Mostly a screenful of candidates, at times few or the most that are allowed, and errors."""

    wait_time = between(*THINK_S)

    @task(60)  # type: ignore[untyped-decorator,unused-ignore]
    def screen(self) -> None:
        self._predict(50)

    @task(20)  # type: ignore[untyped-decorator,unused-ignore]
    def few(self) -> None:
        self._predict(5)

    @task(15)  # type: ignore[untyped-decorator,unused-ignore]
    def most(self) -> None:
        self._predict(100)

    @task(3)  # type: ignore[untyped-decorator,unused-ignore]
    def mistake(self) -> None:
        body = random.choice(  # noqa: S311 no secret
            ['{"user_id": 1, "item_ids": []}', '{"user_id": -1, "item_ids": [1]}', '{"user_id":']
        )
        self._send("POST", "/predict", "a mistake", body, UNPROCESSABLE)

    @task(2)  # type: ignore[untyped-decorator,unused-ignore]
    def lost(self) -> None:
        self._send("GET", "/nowhere", "lost", None, NOT_FOUND)

    def _predict(self, items: int) -> None:
        self._send("POST", "/predict", f"{items} items", json.dumps(next(supply[items])), OK)

    def _send(self, method: str, path: str, name: str, body: str | None, expected: int) -> None:
        headers = {"content-type": "application/json"}
        sent_in, sent_s, begun = phase, time.time(), time.perf_counter()
        with self.client.request(
            method, path, data=body, headers=headers, name=name, catch_response=True
        ) as response:
            status = response.status_code
            if status == expected:
                response.success()
            else:
                response.failure(f"status {status}")
        taken_ms = 1_000 * (time.perf_counter() - begun)
        line = [round(sent_s - started_s, 4), sent_in, name, status, expected, round(taken_ms, 3)]
        log.write(json.dumps(line) + "\n")


if os.environ.get("PLAN"):

    class Phases(LoadTestShape):  # type: ignore[misc,unused-ignore]
        """Steady, then step by step to saturation, then three times that, then steady again."""

        def __init__(self) -> None:
            super().__init__()
            self._steady_s = float(os.environ["STEADY_S"])
            self._users = STEADY_USERS
            self._phase_began_s = 0.0
            self._answers = 0
            self._best_per_s = 0.0

        def tick(self) -> tuple[int, float] | None:
            global phase  # noqa: PLW0603 locust makes the users, so this is how they know it
            now_s = self.get_run_time()
            spent_s = now_s - self._phase_began_s
            if phase == "web":
                phase = "steady"
            elif phase == "steady" and spent_s >= self._steady_s:
                self._enter("ramp", now_s)
            elif phase == "ramp" and spent_s >= STEP_S:
                self._step_up(now_s, spent_s)
            elif phase == "overload" and spent_s >= OVERLOAD_S:
                self._users = STEADY_USERS
                self._enter("recovery", now_s)
            elif phase == "recovery" and spent_s >= RECOVERY_S:
                return None
            return self._users, GENTLE_PER_S if phase in {"steady", "ramp"} else SUDDEN_PER_S

        def _step_up(self, now_s: float, spent_s: float) -> None:
            per_s = (good_answers() - self._answers) / spent_s
            if per_s < GAIN * self._best_per_s or self._users >= MOST_USERS:
                self._users *= OVERLOAD
                self._enter("overload", now_s)
                return
            self._best_per_s = per_s
            self._users += STEP_USERS
            self._enter("ramp", now_s)

        def _enter(self, name: str, now_s: float) -> None:
            global phase  # noqa: PLW0603
            phase = name
            self._phase_began_s = now_s
            self._answers = good_answers()


answered = 0


@events.request.add_listener  # type: ignore[untyped-decorator,unused-ignore]
def count(exception: Exception | None, **_others: Any) -> None:  # noqa: ANN401 locust's
    global answered  # noqa: PLW0603
    answered += exception is None


def good_answers() -> int:
    return answered


@events.quitting.add_listener  # type: ignore[untyped-decorator,unused-ignore]
def close(**_others: Any) -> None:  # noqa: ANN401
    log.close()
