"""GET /metrics for Prometheus: the format that it prefers, read by its own parsers."""

import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from httpx2 import Response
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from starlette.testclient import TestClient
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

import clients
import fakes
from clients import REQUEST
from feedops.workspace import EVENTS
from feedrank.http.negotiation import preferred
from feedrank.telemetry.container import LATENCY_BOUNDS_MS, ContainerStats
from feedrank.telemetry.exposition import FORMATS, OPENMETRICS, TEXT, exposition

JSON = "application/json"
WORKER = {"worker": str(os.getpid())}
# As they are sent: https://prometheus.io/docs/instrumenting/content_negotiation/
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROMETHEUS_2 = (
    "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROTOBUF_FIRST = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,"
    + PROMETHEUS_3
)
TELEGRAF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,"
    "text/plain;version=0.0.4;q=0.3"
)
CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"
ACCEPTS = {
    "": JSON,
    "*/*": JSON,
    "application/json": JSON,
    "application/json, text/plain, */*": JSON,
    CHROMIUM: JSON,
    "text/html": JSON,
    "text/plain;q=nonsense": JSON,
    "text/plain;q=0": JSON,
    "text/plain;version=0.0.4": TEXT,
    "TEXT/Plain; Version=0.0.4; Q=0.2": TEXT,
    "text/plain": TEXT,
    "text/plain;version=0.0.4;q=1,*/*;q=0.1": TEXT,
    TELEGRAF: TEXT,
    PROMETHEUS_2: TEXT,
    "application/openmetrics-text": OPENMETRICS,
    "application/openmetrics-text;version=1.0.0": OPENMETRICS,
    "application/openmetrics-text;version=2.0.0": JSON,
    PROMETHEUS_3: OPENMETRICS,
    PROTOBUF_FIRST: OPENMETRICS,
}

Parser = Callable[[str], Iterable[Metric]]
each_format = pytest.mark.parametrize(
    ("media_type", "parse"),
    [(TEXT, parse_text), (OPENMETRICS, parse_openmetrics)],
    ids=["text", "openmetrics"],
)


def scrape(client: TestClient, accept: str) -> Response:
    response = client.get("/metrics", headers={"accept": accept})
    assert response.status_code == 200
    assert response.headers["vary"] == "Accept"
    return response


def families(parse: Parser, text: str) -> dict[str, Metric]:
    """By name, as the parser has it: a counter's is without `_total`."""
    return {family.name: family for family in parse(text)}


def value(family: Metric, suffix: str = "", **labels: str) -> float:
    name = family.name + suffix
    (sample,) = (s for s in family.samples if (s.name, s.labels) == (name, labels | WORKER))
    return float(sample.value)


@pytest.mark.parametrize("accept", ACCEPTS)
def test_a_request_gets_the_format_that_it_prefers(accept: str) -> None:
    response = scrape(clients.client(fakes.model()), accept)
    assert response.headers["content-type"] == ACCEPTS[accept]
    assert (ACCEPTS[accept] == JSON) == response.text.startswith("{")


@pytest.mark.parametrize("accept", [accept for accept in ACCEPTS if "nonsense" not in accept])
def test_the_choice_is_werkzeugs_where_it_finds_one(accept: str) -> None:
    """It compares parameters as texts, so it gets those of one range without `escaping`."""
    plain = accept.replace(";escaping=allow-utf-8", "")
    offers = [JSON, "text/plain;version=0.0.4", "application/openmetrics-text;version=1.0.0"]
    theirs = parse_accept_header(plain, MIMEAccept)
    qualities = [theirs.quality(offer) for offer in offers]
    if "version" not in plain and max(qualities) == 0:
        return  # it takes `text/plain` for another type than one with a version
    best = offers[qualities.index(max(qualities))]
    assert preferred(accept, (JSON, *FORMATS)).replace(" ", "").startswith(best)


@given(st.text() | st.lists(st.sampled_from([*";,=/*q", "text", "plain", *ACCEPTS])).map("".join))
def test_any_text_is_a_preference(accept: str) -> None:
    assert preferred(accept, (JSON, *FORMATS)) in (JSON, *FORMATS)


def test_a_preference_that_no_client_has_is_not_read_to_its_end() -> None:
    assert preferred("a/b," * 1_000 + "text/plain", (JSON, *FORMATS)) == JSON


def test_the_document_has_the_formats() -> None:
    operation = clients.client(None).get("/openapi.json").json()["paths"]["/metrics"]["get"]
    json_type, *texts = operation["responses"]["200"]["content"].items()
    assert json_type[0] == JSON
    assert [name for name, _ in texts] == [text.partition(";")[0] for text in FORMATS]
    for (_, media), parse in zip(texts, (parse_text, parse_openmetrics), strict=True):
        assert families(parse, media["example"])["feedrank_requests"].type == "counter"


def test_several_accept_headers_are_one() -> None:
    client = clients.client(fakes.model())
    headers = [("accept", "*/*;q=0.1"), ("accept", "text/plain;version=0.0.4")]
    assert client.get("/metrics", headers=headers).headers["content-type"] == TEXT


@each_format
def test_prometheus_reads_what_was_served(media_type: str, parse: Parser) -> None:
    client = clients.client(fakes.model())
    client.post("/predict", json=REQUEST)
    client.post("/predict", json={"user_id": 1, "item_ids": [10] * 50})
    client.post("/predict", content=b"")
    summary = client.get("/metrics").json()
    read = families(parse, scrape(client, media_type).text)
    assert {name: family.type for name, family in read.items()} == {
        "feedrank_requests": "counter",
        "feedrank_request_duration_seconds": "histogram",
        "feedrank_predictions": "counter",
        "feedrank_degraded": "counter",
        "feedrank_unknown_items": "counter",
        "feedrank_decisions_spilled": "counter",
        "feedrank_lines_lost": "counter",
        "feedrank_uptime_seconds": "gauge",
        "feedrank_model": "gauge",
    }
    requests = read["feedrank_requests"]
    assert value(requests, "_total", status="200") == 2
    assert value(requests, "_total", status="422") == 1
    assert len(requests.samples) == 2
    predictions = value(read["feedrank_predictions"], "_total")
    assert predictions == summary["predictions_total"] == 53
    assert value(read["feedrank_request_duration_seconds"], "_count") == summary["requests_total"]
    model = {"version": "feed_ranker-3", "digest": "d" * 12}
    assert value(read["feedrank_model"], **model) == 1


@each_format
def test_the_histogram_has_each_request_in_every_bucket_from_its_own_on(
    media_type: str, parse: Parser
) -> None:
    stats = ContainerStats()
    latencies_ms = [0.1, 0.5, 0.6, 2.5, 99.9, 100, 20_000]
    for latency_ms in latencies_ms:
        stats.count(latency_ms, 200, None)
    read = families(parse, exposition(stats, {}, media_type).decode())
    durations = read["feedrank_request_duration_seconds"]
    buckets = {
        float(sample.labels["le"]): sample.value
        for sample in durations.samples
        if sample.name.endswith("_bucket")
    }
    bounds_s = [bound / 1_000 for bound in LATENCY_BOUNDS_MS]
    assert buckets == {
        bound: sum(1 for ms in latencies_ms if ms / 1_000 <= bound)
        for bound in [*bounds_s, math.inf]
    }
    assert value(durations, "_count") == len(latencies_ms)
    assert value(durations, "_sum") == pytest.approx(sum(latencies_ms) / 1_000)


@each_format
def test_what_rankings_lacked_is_counted(media_type: str, parse: Parser) -> None:
    stats = ContainerStats()
    stats.count(1.0, 200, fakes.ranking(degraded=("model:layer",), unknown_items=2, spilled=1))
    stats.count(1.0, 200, fakes.ranking())
    read = families(parse, exposition(stats, {}, media_type).decode())
    assert value(read["feedrank_degraded"], "_total") == 1
    assert value(read["feedrank_unknown_items"], "_total") == 2
    assert value(read["feedrank_decisions_spilled"], "_total") == 1
    assert value(read["feedrank_predictions"], "_total") == 6


@each_format
def test_a_models_name_may_have_any_character(media_type: str, parse: Parser) -> None:
    labels = {"version": 'a"b\\c\nd\\n', "digest": "é"}
    read = families(parse, exposition(ContainerStats(), labels, media_type).decode())
    assert value(read["feedrank_model"], **labels) == 1


@each_format
def test_without_a_model_and_a_request_there_is_no_sample_of_either(
    media_type: str, parse: Parser
) -> None:
    read = families(parse, scrape(clients.client(None), media_type).text)
    assert read["feedrank_model"].samples == read["feedrank_requests"].samples == []
    assert value(read["feedrank_request_duration_seconds"], "_count") == 0


@each_format
def test_lambda_gives_it_as_text(media_type: str, parse: Parser, demo_bundle: Path) -> None:
    """REST APIs would hand base64 on as it is."""
    event = json.loads((EVENTS / "metrics.json").read_bytes())
    event["headers"]["accept"] = media_type
    with fakes.container(MODEL_URI=str(demo_bundle)) as handler:
        response = handler.lambda_handler(event, fakes.LambdaContext(10_000))
    assert (response["statusCode"], response["isBase64Encoded"]) == (200, False)
    assert response["headers"]["content-type"] == media_type
    assert "feedrank_model" in families(parse, response["body"])
