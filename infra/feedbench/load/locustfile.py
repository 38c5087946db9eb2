"""Users of the feed, and the phases of a load. Locust runs this file in its own environment, with
the variables BODIES, a JSON file of `/predict` bodies by number of items, STEADY_S, and STATS,
where its statistics go: with `--json`, Locust's own tables of them would be empty.

Locust's statistics have a name for each phase, and one for what was refused in it.
"""

import json
import os
import random
from itertools import cycle
from pathlib import Path
from typing import Any

from locust import FastHttpUser, LoadTestShape, between, events, task

OK, NOT_FOUND, UNPROCESSABLE, THROTTLED = 200, 404, 422, 429
THINK_S = (0.5, 1.5)  # so that a user makes about one request a second
# Phase, users, seconds, users that come or go in a second. Two cores are saturated by about 450.
PLAN = (
    ("steady", 100, float(os.environ["STEADY_S"]), 25),
    ("ramp", 900, 40, 20),
    ("overload", 1_500, 15, 1_000),
    ("recovery", 100, 15, 1_000),
)
MISTAKES = ('{"user_id": 1, "item_ids": []}', '{"user_id": -1, "item_ids": [1]}', '{"user_id":')
# Percent of the requests: mostly a screenful of candidates, at times few or the most that are
# allowed, and errors.
WEIGHTS = {"50": 60, "5": 20, "100": 15, "a mistake": 3, "lost": 2}
HEADERS = {"content-type": "application/json"}

bodies: dict[str, list[dict[str, Any]]] = json.loads(Path(os.environ["BODIES"]).read_bytes())
supply = {items: cycle(map(json.dumps, each)) for items, each in bodies.items()}
phase = "steady"


class FeedUser(FastHttpUser):  # type: ignore[misc,unused-ignore]  # locust's
    wait_time = between(*THINK_S)

    @task  # type: ignore[untyped-decorator,unused-ignore]
    def request(self) -> None:
        (kind,) = random.choices(list(WEIGHTS), list(WEIGHTS.values()))  # noqa: S311 no secret
        if kind == "lost":
            self._send("/nowhere", "{}", NOT_FOUND)
        elif kind == "a mistake":
            self._send("/predict", random.choice(MISTAKES), UNPROCESSABLE)  # noqa: S311
        else:
            self._send("/predict", next(supply[kind]), OK)

    def _send(self, path: str, body: str, expected: int) -> None:
        options = {"name": phase, "headers": HEADERS, "catch_response": True}
        with self.client.post(path, data=body, **options) as response:
            if response.status_code == THROTTLED:
                response.request_meta["name"] += f", {THROTTLED}"
                response.success()
            elif response.status_code == expected:
                response.success()
            else:
                response.failure(f"status {response.status_code}")


class Phases(LoadTestShape):  # type: ignore[misc,unused-ignore]
    def tick(self) -> tuple[int, float] | None:
        global phase
        left_s = self.get_run_time()
        for phase, users, seconds, per_s in PLAN:  # noqa: B007
            if left_s < seconds:
                return users, per_s
            left_s -= seconds
        return None


@events.quitting.add_listener  # type: ignore[untyped-decorator,unused-ignore]
def write(environment: Any, **_: object) -> None:  # noqa: ANN401 locust's
    stats = [entry.serialize() for entry in environment.stats.entries.values()]
    Path(os.environ["STATS"]).write_text(json.dumps(stats))
