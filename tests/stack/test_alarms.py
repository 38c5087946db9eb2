"""Alarms fire when they should, stay quiet otherwise, and describe what to do."""

import re
from collections import defaultdict
from typing import Any

import pytest

from feedops.cloudwatch.chart import Chart
from feedops.cloudwatch.dashboard import state_of
from feedops.cloudwatch.points import Key, Points
from feedops.stack.template import load, resolved
from stack.emitted import INFRA, NAME, PARAMETERS, Metric, resources, unknown

PAGES = {
    "server-errors",
    "slow-responses",
    "function-errors",
    "throttles",
    "model-unavailable",
    "decisions-lost",
    "stale-delivery",
    "stale-direct-delivery",
}
WARNINGS = {
    "delivery-errors",
    "decisions-spilled",
    "unknown-items",
    "snapshot-age",
    "live-features",
    "feature-throttles",
    "feature-age",
    "feature-cache",
    "flat-scores",
    "spillover",
    "slow-init",
}
LIVE = {"live-features", "feature-throttles", "feature-age", "feature-cache"}
ONLY_DIRECT = {"stale-direct-delivery", "decisions-spilled"}
MINUTES = 20


def _alarms(**parameters: str) -> dict[str, dict[str, Any]]:
    """By name, without the stack's prefix."""
    return {
        resource["Properties"]["AlarmName"].removeprefix(f"{NAME}/"): resource["Properties"]
        for resource in resources("observability.yaml", **parameters).values()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    }


def _watched(alarm: dict[str, Any]) -> set[Metric]:
    stats = [m["MetricStat"]["Metric"] for m in alarm.get("Metrics", ()) if "MetricStat" in m]
    return {
        (
            metric["Namespace"],
            metric["MetricName"],
            frozenset(dimension["Name"] for dimension in metric.get("Dimensions", ())),
        )
        for metric in stats or [alarm]
    }


ALL = _alarms()


def test_there_is_an_alarm_for_each_reason_to_page_or_warn() -> None:
    assert set(ALL) == PAGES | WARNINGS


@pytest.mark.parametrize("name", sorted(ALL))
def test_an_alarm_watches_metrics_that_exist(name: str) -> None:
    assert unknown(_watched(ALL[name])) == set()


@pytest.mark.parametrize("name", sorted(ALL))
def test_an_alarm_describes_its_urgency_and_what_to_do(name: str) -> None:
    description = ALL[name]["AlarmDescription"]
    assert description.startswith("Page. " if name in PAGES else "Warning. ")
    assert re.search(r"\. Runbook: \S.{15,}", description)
    assert len(description) <= 1_024


@pytest.mark.parametrize("name", sorted(ALL))
def test_missing_data_is_no_alarm_and_recovery_is_notified_too(name: str) -> None:
    alarm = ALL[name]
    assert alarm["TreatMissingData"] == "notBreaching"
    assert alarm["AlarmActions"] == alarm["OKActions"] == [PARAMETERS["AlarmTopicArn"]]
    assert alarm["DatapointsToAlarm"] <= alarm["EvaluationPeriods"]


def test_alarms_of_the_direct_stream_exist_only_with_it() -> None:
    assert set(_alarms(DecisionDelivery="logs")) == set(ALL) - ONLY_DIRECT


def test_the_age_of_the_features_is_watched_if_a_limit_is_set() -> None:
    assert set(_alarms(SnapshotAgeDays="0")) == set(ALL) - {"snapshot-age"}


def test_live_features_are_watched_where_the_stack_reads_them() -> None:
    assert set(_alarms(LiveFeatures="users")) == set(ALL) - {"feature-cache"}
    assert set(_alarms(FeatureAgeMinutes="0")) == set(ALL) - {"feature-age"}
    for value in ("none", "table"):
        assert set(_alarms(LiveFeatures=value)) == set(ALL) - LIVE


@pytest.mark.parametrize("warm_start", ["snapstart", "none"])
def test_spillover_is_watched_only_with_provisioned_concurrency(warm_start: str) -> None:
    assert set(_alarms(WarmStart=warm_start)) == set(ALL) - {"spillover"}


def _topics(**parameters: str) -> tuple[list[str], list[Any]]:
    """The topics that are created, and an alarm's actions."""
    created = resources("observability.yaml", **parameters)
    topics = [name for name, resource in created.items() if resource["Type"] == "AWS::SNS::Topic"]
    return topics, created["ThrottlesAlarm"]["Properties"].get("AlarmActions")


def test_a_topic_is_created_only_for_an_email_address_without_a_topic() -> None:
    existing = PARAMETERS["AlarmTopicArn"]
    assert _topics() == ([], [existing])
    assert _topics(AlarmEmail="on-call@example.com") == ([], [existing])
    with_email = _topics(AlarmTopicArn="", AlarmEmail="on-call@example.com")
    assert with_email == (["AlarmTopic"], ["alarmtopic"])
    assert _topics(AlarmTopicArn="") == ([], None)


@pytest.mark.parametrize(
    ("parameters", "output"),
    [({}, PARAMETERS["AlarmTopicArn"]), ({"AlarmTopicArn": ""}, "")],
)
def test_the_stack_outputs_the_topic_of_its_alarms(parameters: dict[str, str], output: str) -> None:
    outputs = resolved(load(INFRA / "observability.yaml"), PARAMETERS | parameters)["Outputs"]
    assert outputs["AlarmTopicArn"]["Value"] == output


# ---- What makes them fire: twenty minutes of metrics, one value per minute -------------------

OURS = {"service": NAME}
API = {"ApiId": "a1b2c3"}
FUNCTION = {"FunctionName": NAME}
ALIAS = {**FUNCTION, "Resource": f"{NAME}:live"}
LOGS, DIRECT = ({"DeliveryStreamName": f"{NAME}-decisions-{mode}"} for mode in ("logs", "direct"))
BELOW = f"feedrank/{NAME}"

Sample = tuple[
    str, str, dict[str, str], float
]  # namespace, metric, dimensions, the value of every minute


def _state(alarm: str, *samples: Sample, minutes: int = MINUTES) -> str:
    """The alarm's state after these values in each of the last minutes."""
    points: Points = defaultdict(list)
    for namespace, metric, dimensions, value in samples:
        key: Key = (namespace, metric, frozenset(dimensions.items()))
        points[key] += [(60.0 * minute, value) for minute in range(MINUTES - minutes, MINUTES)]
    return state_of(ALL[alarm], Chart(points, 0.0, MINUTES, 60.0))


@pytest.mark.parametrize(
    ("alarm", "samples"),
    [
        (
            "server-errors",
            [("AWS/ApiGateway", "Count", API, 100), ("AWS/ApiGateway", "5xx", API, 2)],
        ),
        ("slow-responses", [("AWS/ApiGateway", "Latency", API, 301)]),
        ("function-errors", [("AWS/Lambda", "Errors", FUNCTION, 1)]),
        ("throttles", [("AWS/Lambda", "Throttles", FUNCTION, 1)]),
        ("model-unavailable", [("feedrank", "ModelUnavailable", OURS, 1)]),
        (
            "decisions-lost",
            [("feedrank", "ItemsScored", OURS, 50), ("AWS/Firehose", "IncomingRecords", DIRECT, 0)],
        ),
        ("stale-delivery", [("AWS/Firehose", "DeliveryToS3.DataFreshness", LOGS, 1_801)]),
        ("stale-direct-delivery", [("AWS/Firehose", "DeliveryToS3.DataFreshness", DIRECT, 1_801)]),
        ("delivery-errors", [(BELOW, "DecisionDeliveryErrors", {}, 1)]),
        ("decisions-spilled", [("feedrank", "DecisionsSpilled", OURS, 1)]),
        (
            "unknown-items",
            [("feedrank", "UnknownItems", OURS, 21), ("feedrank", "ItemsScored", OURS, 100)],
        ),
        ("snapshot-age", [("feedrank", "SnapshotAge", OURS, 7 * 86_400 + 60)]),
        *[
            (
                "live-features",
                [("feedrank", "RowsFromStore", OURS, 94), ("feedrank", name, OURS, 6)],
            )
            for name in ("RowsFromOldCache", "RowsFromSnapshot", "RowsFromDefaults")
        ],
        ("feature-throttles", [("AWS/DynamoDB", "ReadThrottleEvents", {"TableName": "rows"}, 1)]),
        ("feature-age", [("feedrank", "OldestRow", OURS, 15 * 60 + 1)]),
        (
            "feature-cache",
            [
                ("feedrank", "RowsFromStore", OURS, 30_005),
                ("feedrank", "RowsFromCache", OURS, 20_000),
            ],
        ),
        ("flat-scores", [("feedrank", "ScoreSpread", OURS, 0.0005)]),
        (
            "spillover",
            [
                ("AWS/Lambda", "Invocations", ALIAS, 100),
                ("AWS/Lambda", "ProvisionedConcurrencySpilloverInvocations", ALIAS, 6),
            ],
        ),
        *[
            ("slow-init", [("feedrank", "InitDuration", OURS | {"init_type": kind}, 5_001)])
            for kind in ("on-demand", "provisioned-concurrency", "snap-start", "snap-start-restore")
        ],
    ],
)  # fmt: skip
def test_an_alarm_fires(alarm: str, samples: list[Sample]) -> None:
    assert _state(alarm, *samples) == "ALARM"


@pytest.mark.parametrize(
    ("alarm", "samples"),
    [
        (  # one in ten, but of only a few requests
            "server-errors",
            [("AWS/ApiGateway", "Count", API, 10), ("AWS/ApiGateway", "5xx", API, 1)],
        ),
        (
            "server-errors",
            [("AWS/ApiGateway", "Count", API, 1_000), ("AWS/ApiGateway", "5xx", API, 9)],
        ),
        ("slow-responses", [("AWS/ApiGateway", "Latency", API, 299)]),
        ("function-errors", [("AWS/Lambda", "Errors", FUNCTION, 0)]),
        ("decisions-spilled", [("feedrank", "DecisionsSpilled", OURS, 0)]),
        (
            "decisions-lost",
            [("feedrank", "ItemsScored", OURS, 50), ("AWS/Firehose", "IncomingRecords", DIRECT, 1)],
        ),
        ("stale-delivery", [("AWS/Firehose", "DeliveryToS3.DataFreshness", LOGS, 450)]),
        (
            "unknown-items",
            [("feedrank", "UnknownItems", OURS, 5), ("feedrank", "ItemsScored", OURS, 100)],
        ),
        ("snapshot-age", [("feedrank", "SnapshotAge", OURS, 7 * 86_400 - 60)]),
        ("snapshot-age", []),
        (
            "live-features",
            [("feedrank", "RowsFromCache", OURS, 96), ("feedrank", "RowsFromSnapshot", OURS, 4)],
        ),
        ("live-features", [("feedrank", "RowsFromStore", OURS, 100)]),
        ("live-features", []),
        ("feature-throttles", [("AWS/DynamoDB", "ReadThrottleEvents", {"TableName": "rows"}, 0)]),
        ("feature-age", [("feedrank", "OldestRow", OURS, 15 * 60 - 1)]),
        (
            "feature-cache",
            [
                ("feedrank", "RowsFromStore", OURS, 30_000),
                ("feedrank", "RowsFromCache", OURS, 20_001),
            ],
        ),
        ("feature-cache", [("feedrank", "RowsFromStore", OURS, 9_999)]),  # few
        ("feature-cache", []),
        ("flat-scores", [("feedrank", "ScoreSpread", OURS, 0.2)]),
        ("model-unavailable", []),
        ("flat-scores", []),
    ],
)
def test_an_alarm_stays_quiet(alarm: str, samples: list[Sample]) -> None:
    assert _state(alarm, *samples) == "OK"


def test_two_bad_minutes_do_not_page() -> None:
    bad: list[Sample] = [("AWS/ApiGateway", "Count", API, 100), ("AWS/ApiGateway", "5xx", API, 50)]
    assert _state("server-errors", *bad, minutes=2) == "OK"
    assert _state("server-errors", *bad, minutes=3) == "ALARM"
