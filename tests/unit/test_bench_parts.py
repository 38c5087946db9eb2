"""What the benchmark counts on: its own traffic, its stages, its clients, its reading of loads."""

import asyncio
import importlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from aiohttp import web

from feedbench import generator, traffic
from feedbench.load import verdict
from feedbench.measures import servers, warm
from feedbench.results import FLOOR, OURS, PLAN
from feedops.errors import OperationError
from feedops.local.artifact import is_current
from feedops.local.processes import LOCALHOST, free_port
from feedrank.http.schemas import PredictRequest

STAGES = PLAN["stages"]["cold"]


@pytest.mark.parametrize("module", STAGES)
def test_every_stage_of_the_waterfall_is_there(module: str) -> None:
    imported = importlib.import_module(module)

    for path in STAGES[module]:
        stage = imported
        for name in path.split("."):
            stage = getattr(stage, name)
        assert callable(stage)


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


def test_the_open_loop_sends_all_and_counts_what_is_no_200() -> None:
    statuses = iter([200, 200, 503, 200])

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=next(statuses))

    load = asyncio.run(_against(answer, lambda url: generator.open_loop(url, [b"{}"], 200, 0.02)))

    assert load["statuses"] == {"200": 3, "503": 1}
    assert load["errors"] == 1
    assert len(load["latencies_ms"]) == 4  # type: ignore[arg-type]


def test_a_slow_answer_delays_no_other_request() -> None:
    """All are under way at once: none of the three waits for an answer to be sent."""
    all_here = asyncio.Event()
    arrived = 0

    async def answer(_request: web.Request) -> web.Response:
        nonlocal arrived
        arrived += 1
        if arrived == 3:
            all_here.set()
        await all_here.wait()
        return web.Response()

    load = asyncio.run(_against(answer, lambda url: generator.open_loop(url, [b"{}"], 300, 0.01)))

    assert load["statuses"] == {"200": 3}


def test_without_wrk_the_servers_measure_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(OperationError, match="apt-get install wrk"):
        generator.requests_per_s("http://127.0.0.1:9/predict", tmp_path / "bodies", 1)


def test_a_load_is_judged_by_phase() -> None:
    stats = {
        "steady": _phase(100.0, 103.0, {"2": 297, "8": 3}),
        "overload": _phase(103.0, 104.0, {"9": 40}),
        "overload, 429": _phase(103.0, 104.0, {"1": 60}),
        "recovery": _phase(104.0, 105.0, {"2": 80}),
        "recovery, 429": _phase(104.0, 104.19, {"1": 20}),
    }

    assert verdict.phases(stats).to_numpy().tolist() == [
        ["steady", 3.0, 300, 100.0, 2.0, 2.06, 0, 0],
        ["overload", 1.0, 100, 40.0, 9.0, 9.0, 60, 0],
        ["recovery", 1.0, 100, 80.0, 2.0, 2.0, 20, 0],
    ]
    assert verdict.saturation_per_s(stats) == 300.0  # of the first second, which has them all
    assert verdict.recovery_s(stats) == pytest.approx(0.19)
    assert list(verdict.problems(stats)) == []


def test_what_is_wrong_with_a_load_is_said() -> None:
    stats = {
        "steady": _phase(0.0, 1.0, {"2": 9}, failures=1),
        "steady, 429": _phase(0.0, 1.0, {"2": 2}),
        "overload": _phase(2.0, 3.0, {"2": 9}),
        "recovery": _phase(4.0, 11.0, {"2": 9}),
        "recovery, 429": _phase(4.0, 10.0, {"2": 9}),
    }

    assert list(verdict.problems(stats)) == [
        "1 errors other than 429 in the phase steady",
        "2 requests were throttled at a steady load",
        "the overload was not throttled",
        "recovery took 6.0 s, over 5 s",
    ]


def _phase(
    start_s: float, end_s: float, times_ms: dict[str, int], failures: int = 0
) -> dict[str, object]:
    """As Locust prints it with `--json`."""
    requests = sum(times_ms.values())
    return {
        "start_time": start_s,
        "last_request_timestamp": end_s,
        "num_requests": requests,
        "num_failures": failures,
        "response_times": times_ms,
        "num_reqs_per_sec": {str(int(start_s)): requests},
    }


async def _against(answer: object, load: object) -> Mapping[str, object]:
    """What the load found, with this handler behind every path."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)  # type: ignore[arg-type]
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, LOCALHOST, port).start()
    try:
        return await load(f"http://{LOCALHOST}:{port}")  # type: ignore[operator,no-any-return]
    finally:
        await runner.cleanup()


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
    others = {key: rate for key, rate in rates.items() if key[1] != servers.ONNX_FASTAPI}
    assert list(servers.rows_of(others)) == rows[:3]
