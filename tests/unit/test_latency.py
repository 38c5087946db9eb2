"""The latency of a request is a part of what its caller waited."""

from time import perf_counter

import pytest
from starlette.testclient import TestClient

import fakes


def test_no_latency_is_longer_than_the_caller_waited(printed: fakes.LogLines) -> None:
    client = TestClient(fakes.app(fakes.model()))
    started_s = perf_counter()
    response = client.post("/predict", json={"user_id": 1, "item_ids": [10, 30, 20]})
    waited_ms = 1_000 * (perf_counter() - started_s)
    (line,) = [line for line in printed() if line.get("message") == "request"]
    assert line["latency_ms"] == line["Latency"]
    for latency_ms in (response.json()["latency_ms"], line["Latency"]):
        assert 0 < latency_ms <= waited_ms
    parts_ms = line["FeaturesLatency"] + line["ScoringLatency"]
    assert parts_ms <= line["Latency"] + 0.01  # each is rounded


@pytest.mark.parametrize("path", ["/health", "/metrics"])
def test_a_route_without_metrics_has_its_latency_in_the_log(
    printed: fakes.LogLines, path: str
) -> None:
    client = TestClient(fakes.app(fakes.model()))
    started_s = perf_counter()
    client.get(path)
    waited_ms = 1_000 * (perf_counter() - started_s)
    (line,) = [line for line in printed() if line.get("message") == "request"]
    assert 0 < line["latency_ms"] <= waited_ms
