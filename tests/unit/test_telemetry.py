import json
import time
from typing import Any

import pytest
from aws_lambda_powertools.metrics import MetricUnit

import fakes
from feedrank.domain import RowSources
from feedrank.telemetry import metrics as telemetry
from feedrank.telemetry.container import ContainerStats
from feedrank.telemetry.logging import configure, request_ids
from feedrank.telemetry.metrics import METRICS, count_init, log_request, request_metrics
from feedrank.telemetry.tracing import NoTracing

REQUEST = {"level": "INFO", "message": "request", "service": "feedrank"}


@pytest.fixture(autouse=True)
def _configured() -> None:
    request_ids.set(None)  # of a request that another test has served
    configure(fakes.settings())


def _emf(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The one line printed, without the time that is put in."""
    (line,) = capsys.readouterr().out.splitlines()
    parsed: dict[str, Any] = json.loads(line)
    assert isinstance(parsed["_aws"].pop("Timestamp"), int)
    return parsed


def test_a_ranked_request_has_these_metrics() -> None:
    scores, order = [0.25, 0.75, 0.5], [1, 2, 0]
    ranking = fakes.ranking(
        scores=scores, order=order, unknown_items=2, degraded=("model:layer",), spilled=1
    )
    assert request_metrics(1.5, 200, ranking) == {
        "Latency": 1.5,
        "Errors": 0,
        "FeaturesLatency": 0.1,
        "ScoringLatency": 0.2,
        "ItemsScored": 3,
        "UnknownUsers": 0,
        "UnknownItems": 2,
        "Degraded": 1,
        "DecisionsSpilled": 1,
        "ScoreMean": 0.5,
        "ScoreSpread": 0.5,
    }


@pytest.mark.parametrize(("status", "errors"), [(422, 0), (413, 0), (405, 0), (500, 1), (504, 1)])
def test_only_server_errors_count_as_errors(status: int, errors: int) -> None:
    assert request_metrics(0.5, status, None) == {"Latency": 0.5, "Errors": errors}


def test_a_ranking_that_could_not_be_sent_is_an_error() -> None:
    assert request_metrics(1.5, 500, fakes.ranking())["Errors"] == 1


def test_a_request_without_a_model_is_counted_as_such() -> None:
    assert request_metrics(0.5, 503, None) == {"Latency": 0.5, "Errors": 1, "ModelUnavailable": 1}


def test_the_line_of_a_request_holds_its_metrics(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_795_348_800.1239)
    configure(fakes.settings(POWERTOOLS_SERVICE_NAME="s", POWERTOOLS_METRICS_NAMESPACE="n"))
    log_request({"request_id": "r", "status": 200}, {"Latency": 1.5, "ItemsScored": 3})
    assert _emf(capsys) == {
        "level": "INFO",
        "message": "request",
        "timestamp": "2026-11-22T12:00:00.123Z",
        "service": "s",
        "_aws": {
            "CloudWatchMetrics": [
                {
                    "Namespace": "n",
                    "Dimensions": [["service"]],
                    "Metrics": [
                        {"Name": "Latency", "Unit": "Milliseconds"},
                        {"Name": "ItemsScored", "Unit": "Count"},
                    ],
                }
            ]
        },
        "request_id": "r",
        "status": 200,
        "Latency": 1.5,
        "ItemsScored": 3,
    }


def test_every_metric_that_is_written_is_declared_and_every_declared_one_is_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ranking = fakes.ranking(
        snapshot_age_s=86_400.0,
        warnings=("context: unknown key",),
        row_sources=RowSources("scobdu", "mmmm--", refused=1, oldest_s=59.0),
    )
    log_request({}, request_metrics(1.0, 200, ranking))
    telemetry.output.lost += 1
    log_request({}, request_metrics(1.0, 503, None))
    count_init("on-demand", 1.0)
    assert {
        (metric["Name"], metric["Unit"], tuple(dimensions))
        for line in map(json.loads, capsys.readouterr().out.splitlines())
        for block in line["_aws"]["CloudWatchMetrics"]
        for dimensions in block["Dimensions"]
        for metric in block["Metrics"]
    } == {(name, metric.unit, metric.dimensions) for name, metric in METRICS.items()}


def test_every_metric_has_a_unit_of_cloudwatch_and_names_its_writer() -> None:
    units = {str(unit.value) for unit in MetricUnit} | {"None"}
    assert {metric.unit for metric in METRICS.values()} <= units
    assert all(callable(getattr(telemetry, metric.written_by)) for metric in METRICS.values())


@pytest.mark.parametrize(("level", "lines"), [("DEBUG", 1), ("INFO", 1), ("WARNING", 0)])
def test_a_line_without_metrics_obeys_the_log_level(
    capsys: pytest.CaptureFixture[str], level: str, lines: int
) -> None:
    configure(fakes.settings(POWERTOOLS_LOG_LEVEL=level))
    log_request({"route": "/health"}, {})
    assert len(capsys.readouterr().out.splitlines()) == lines


def test_metrics_are_written_at_every_log_level(capsys: pytest.CaptureFixture[str]) -> None:
    configure(fakes.settings(POWERTOOLS_LOG_LEVEL="ERROR"))
    log_request({"route": "/predict"}, {"Latency": 1.0})
    assert _emf(capsys)["Latency"] == 1.0


def test_an_init_is_counted_by_its_type(capsys: pytest.CaptureFixture[str]) -> None:
    count_init("snap-start", 123.4)
    parsed = _emf(capsys)
    (block,) = parsed.pop("_aws")["CloudWatchMetrics"]
    assert sorted(block["Dimensions"][0]) == ["init_type", "service"]
    assert parsed == {"service": "feedrank", "init_type": "snap-start", "InitDuration": 123.4}


def test_a_log_line_names_the_service_and_obeys_the_level(log: fakes.LogLines) -> None:
    configure(fakes.settings(POWERTOOLS_LOG_LEVEL="WARNING", POWERTOOLS_SERVICE_NAME="ranker"))
    telemetry.logger.info("not this")
    telemetry.logger.warning("this", extra={"items": 3})
    (line,) = log()
    line.pop("timestamp")
    line.pop("location")
    assert line == {"level": "WARNING", "message": "this", "service": "ranker", "items": 3}


def test_a_new_containers_counters_are_zero() -> None:
    clock = fakes.FakeClock()
    stats = ContainerStats(clock)
    assert stats.summary() == {
        "scope": "container",
        "requests_total": 0,
        "requests_per_second": 0.0,
        "latency_p50_ms": 0.0,
        "latency_p99_ms": 0.0,
        "error_rate": 0.0,
        "predictions_total": 0,
        "lines_lost": 0,
    }
    assert (stats.uptime_s, stats.last_prediction_at) == (0.0, None)


def test_the_container_counts_its_requests() -> None:
    clock = fakes.FakeClock()
    stats = ContainerStats(clock)
    for latency_ms in range(1, 101):
        clock.now_s += 0.1
        stats.count(float(latency_ms), 200, fakes.ranking())
    for status in (503, 500, 422, 413, 504):
        stats.count(1.0, status, None)
    assert stats.summary() == {
        "scope": "container",
        "requests_total": 105,
        "requests_per_second": 10.5,
        "latency_p50_ms": 48.0,
        "latency_p99_ms": 98.96,
        "error_rate": 0.028571,
        "predictions_total": 300,
        "lines_lost": 0,
    }
    assert stats.last_prediction_at == "2026-11-22T12:00:00.123Z"
    assert stats.uptime_s == pytest.approx(10.0)


def test_the_rate_is_that_of_the_last_minute() -> None:
    clock = fakes.FakeClock()
    stats = ContainerStats(clock)
    for _ in range(30):
        stats.count(1.0, 200, None)
    clock.now_s += 61
    for _ in range(12):
        stats.count(1.0, 200, None)
    assert stats.summary()["requests_per_second"] == 0.2
    clock.now_s += 61
    assert stats.summary()["requests_per_second"] == 0.0


def test_the_counters_use_bounded_memory() -> None:
    stats = ContainerStats(fakes.FakeClock())
    for latency_ms in range(3_000):
        stats.count(float(latency_ms), 200, None)
    assert (len(stats._latencies_ms), stats._recent.maxlen) == (2_048, 100_000)
    assert stats.summary()["latency_p50_ms"] == 1_975.5  # of the last 2,048


def test_a_restarted_containers_counters_are_zero() -> None:
    clock = fakes.FakeClock()
    stats, fresh = ContainerStats(clock), ContainerStats(clock)
    stats.count(5.0, 500, fakes.ranking())
    clock.now_s += 10
    stats.restart()
    assert (stats.summary(), stats.uptime_s) == (fresh.summary(), 0.0)
    assert stats.last_prediction_at is None


def test_without_tracing_a_span_and_a_handler_cost_nothing() -> None:
    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        return event

    tracing = NoTracing()
    with tracing.span("features"):
        pass
    assert tracing.handler(handler) is handler
