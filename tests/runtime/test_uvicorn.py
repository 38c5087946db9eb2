"""The app under uvicorn, as the container images and `feedrank serve --front uvicorn` run it."""

import json
from pathlib import Path

import httpx2

from uvicorns import uvicorn

ASKED = {"user_id": 42, "item_ids": [17, 256, 3]}
ROUTES = [("POST", "/predict"), ("GET", "/health"), ("GET", "/metrics"), ("GET", "/model"),
          ("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json")]  # fmt: skip


def test_behind_a_proxy_that_takes_a_prefix_away_every_route_is_served(demo_bundle: Path) -> None:
    with uvicorn(demo_bundle, "--root-path", "/x") as server:
        answers = {
            path: httpx2.request(method, server.url + path, json=ASKED) for method, path in ROUTES
        }
    assert {path: answer.status_code for path, answer in answers.items()} == {
        path: 200 for _, path in ROUTES
    }
    assert json.loads(answers["/openapi.json"].content)["servers"] == [{"url": "/x"}]
    assert json.loads(answers["/"].content)["docs"] == "/x/docs"
