"""What the benchmark counts on: its own traffic, its stages, its clients, its reading of loads."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from feedbench import generator, traffic
from feedbench.load import drive
from feedbench.measures import servers, warm
from feedbench.probes.cold import watched
from feedbench.results import FLOOR, OURS, PLAN
from feedops.errors import OperationError
from feedops.local.artifact import is_current
from feedrank.http.schemas import PredictRequest
from scripted import Answer, scripted

STAGES = PLAN["stages"]["cold"]


@pytest.mark.parametrize("path", [path for paths in STAGES.values() for path in paths])
def test_every_stage_of_the_waterfall_is_there(path: str) -> None:
    owner, name, timed = watched(path, [])

    assert callable(getattr(owner, name))
    assert callable(timed) or isinstance(timed, classmethod)


def test_an_artifact_of_other_code_is_known(tmp_path: Path) -> None:
    source, built = tmp_path / "function", tmp_path / "build" / "Function"
    source.mkdir()
    (source / "handler.py").write_text("answer = 1\n")
    shutil.copytree(source, built)

    assert is_current(built, source)
    (source / "handler.py").write_text("answer = 2\n")
    assert not is_current(built, source)


def test_requests_are_valid_the_same_each_time_and_hold_new_items_too(demo_bundle: Path) -> None:
    bodies = traffic.requests(demo_bundle, 100, 20)

    assert bodies == traffic.requests(demo_bundle, 100, 20)
    for body in bodies:
        PredictRequest.model_validate_json(json.dumps(body))
    known = set(traffic.read_safetensors(demo_bundle / traffic.SNAPSHOT)["items.ids"].tolist())
    items = [item for body in bodies for item in body["item_ids"]]
    assert 0 < sum(item not in known for item in items) < len(items) / 5


def test_an_event_carries_its_request_as_api_gateway_has_it(demo_bundle: Path) -> None:
    (body,) = traffic.requests(demo_bundle, 5, 1)

    event = traffic.event(body)

    assert json.loads(event["body"]) == body
    assert (event["version"], event["rawPath"], event["isBase64Encoded"]) == (
        "2.0",
        "/predict",
        False,
    )


def test_a_leak_is_growth_and_a_warm_plateau_is_none() -> None:
    plateau = [90.0, 91.0, *([91.5] * 48)]
    leaking = [90.0 + n for n in range(50)]

    assert warm.growth(plateau) == 1.5
    assert warm.growth(leaking) > warm.GROWTH_BAR_MB


def test_a_load_has_what_wrk_says_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for wrk, which CI may lack: its own lines, and the environment that it had."""
    report = '{"requests": 300, "seconds": 2.0, "errors": %d, "latencies_ms": [1.0, 2.0]}'
    wrk = tmp_path / "wrk"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def loads(errors: int) -> None:
        wrk.write_text(f"#!/bin/sh\necho Running\necho '{report % errors}'\n")
        wrk.chmod(0o755)

    loads(errors=0)
    assert generator.drive("http://x", tmp_path / "bodies", 1, 100, 1_000) == {
        "requests": 300,
        "seconds": 2.0,
        "errors": 0,
        "latencies_ms": [1.0, 2.0],
    }
    assert generator.requests_per_s("http://x", tmp_path / "bodies", 1) == 150.0
    loads(errors=3)
    with pytest.raises(OperationError, match="3 of 300 requests to http://x failed"):
        generator.requests_per_s("http://x", tmp_path / "bodies", 1)


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
@pytest.mark.substituted_by("tests/unit/test_bench_parts.py")
def test_wrk_sends_the_bodies_in_turn_counts_what_is_no_200_and_times_the_rest(
    tmp_path: Path,
) -> None:
    bodies = [b'{"n": 1}', b'{"n": 2}']
    (tmp_path / "bodies").write_bytes(b"\n".join(bodies) + b"\n")
    with scripted() as server:
        server.answers = [Answer(status=503)]
        load = generator.drive(f"{server.url}/predict", tmp_path / "bodies", 1, 2, 50)

    assert load["errors"] == 1
    assert load["requests"] <= len(server.requests) <= load["requests"] + 2  # under way at the end
    assert {(sent.method, sent.path) for sent in server.requests} == {("POST", "/predict")}
    assert {sent.body for sent in server.requests} == {*bodies}
    latencies_ms = load["latencies_ms"]
    assert len(latencies_ms) == 1_000
    assert latencies_ms == sorted(latencies_ms)
    assert latencies_ms[0] > 0


def test_without_wrk_the_servers_measure_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(OperationError, match="apt-get install wrk"):
        generator.requests_per_s("http://127.0.0.1:9/predict", tmp_path / "bodies", 1)


def test_a_load_that_is_throttled_only_where_it_is_too_much_is_fine() -> None:
    stats = _stats(
        _entry("steady", 100.0, 103.0, 300),
        _entry("overload", 103.0, 104.0, 40),
        _entry("overload, 429", 103.5, 104.0, 60),
        _entry("recovery", 104.0, 105.0, 80),
        _entry("recovery, 429", 104.1, 104.19, 20),
    )

    assert drive.saturation_per_s(stats) == 300.0  # of the first second, which has them all
    assert drive.recovery_s(stats) == pytest.approx(0.19)
    assert list(drive.problems(stats)) == []


def test_what_is_wrong_with_a_load_is_said() -> None:
    stats = _stats(
        _entry("steady", 0.0, 1.0, 9, failures=1),
        _entry("steady, 429", 0.0, 1.0, 2),
        _entry("overload", 2.0, 3.0, 9),
        _entry("recovery", 4.0, 11.0, 9),
        _entry("recovery, 429", 4.0, 10.0, 9),
    )

    assert list(drive.problems(stats)) == [
        "1 errors other than 429 in the phase steady",
        "2 requests were throttled at a steady load",
        "the overload was not throttled",
        "recovery took 6.0 s, over 5 s",
    ]


def test_phases_in_which_everything_was_refused_count_as_well() -> None:
    stats = _stats(
        _entry("steady, 429", 0.0, 3.0, 30),
        _entry("overload, 429", 3.0, 4.0, 100),
        _entry("recovery, 429", 4.0, 10.0, 20),
    )

    assert list(drive.problems(stats)) == [
        "30 requests were throttled at a steady load",
        "recovery took 6.0 s, over 5 s",
    ]


def test_a_recovery_begins_with_its_first_refusal() -> None:
    stats = _stats(_entry("recovery", 9.9, 19.0, 80), _entry("recovery, 429", 4.0, 10.0, 20))

    assert drive.recovery_s(stats) == 6.0


def _stats(*entries: dict[str, Any]) -> drive.Stats:
    return {entry["name"]: entry for entry in entries}


def _entry(
    name: str, start_s: float, end_s: float, requests: int, failures: int = 0
) -> dict[str, Any]:
    """Of Locust's statistics."""
    return {
        "name": name,
        "start_time": start_s,
        "last_request_timestamp": end_s,
        "num_requests": requests,
        "num_failures": failures,
        "num_reqs_per_sec": {str(int(start_s)): requests},
    }


def test_ours_is_compared_with_the_fastest_torch_server_and_with_onnx_runtime_behind_fastapi() -> (
    None
):
    per_second = {
        OURS: 3_000.0,
        FLOOR: 7_500.0,
        servers.ONNX_FASTAPI: 2_500.0,
        "torch + FastAPI": 1_500.0,
        "LitServe": 900.0,
    }
    rates = {(n, name): [rate] * 3 for n in (5, 50, 100) for name, rate in per_second.items()}

    rows = list(servers.rows_of(rates))

    assert [(row.value, row.bar) for row in rows] == [
        *((2.0, bar) for bar in (1.5, 2.0, 2.5)),
        *((1.2, bar) for bar in (1.25, 1.7, 2.0)),
    ]
    for row in rows:
        assert "no decision record, log line or metric (ours: all three)" in row.note
    assert "fastest: torch + FastAPI" in rows[0].note
