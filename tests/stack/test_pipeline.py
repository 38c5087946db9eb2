"""A decision record from end to end: the function's line, CloudWatch Logs, Firehose, S3, Athena.

Logs, Firehose and S3 are moto's, over HTTP; `firehose.py` adds what moto lacks; DuckDB replaces
Athena, with the columns and queries of the template.
"""

import gzip
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

import fakes
from feedops.stack.template import load, resolved
from feedrank.decisions.log import DecisionLog
from feedrank.decisions.record_ids import UserHash
from feedrank.domain import Ranking, RowSources
from feedrank.telemetry.logging import configure
from feedrank.telemetry.metrics import log_request, request_metrics
from stack.athena import Athena
from stack.firehose import delivered, filtered, matches
from stack.iam import ID

DATA = Path(__file__).parents[2] / "infra" / "data.yaml"
LOG_GROUP = "/aws/lambda/feedrank"
PARAMETERS = {
    "Name": "feedrank",
    "Id": ID,
    "FunctionLogGroupName": LOG_GROUP,
}
BUCKET = "decisionsbucket"
ROLE = "arn:aws:iam::123456789012:role/firehose"
LARGEST_ID = 2**63 - 1
TODAY = datetime.now(UTC).date()  # read once, as midnight may pass during a test
IN_ORDER = "SELECT * EXCLUDE (day, model) FROM decisions ORDER BY request_id"


def _resources(mode: str = "logs", ids: str = "number") -> dict[str, Any]:
    parts = resolved(load(DATA), {**PARAMETERS, "DecisionDelivery": mode, "IdType": ids})
    return {
        name: part["Properties"]
        for name, part in parts["Resources"].items()
        if "Properties" in part
    }


def _at(days_ago: int, clock: str) -> str:
    return f"{TODAY - timedelta(days=days_ago)}T{clock}.123Z"


def _decisions() -> list[Ranking]:
    """Two days, two models, and every kind of content: the largest ids, any text, one item and a
    hundred, a degraded response, unknown ids."""
    hundred = np.linspace(0.999999, 0.000001, 100).round(6)
    odd = {"Device": "mobile", "device": 'quote " and \\ and \u2028', "line": "a\nb", "": "ü\t"}
    return [
        fakes.ranking(timestamp=_at(1, "23:59:59"), request_id="a"),
        fakes.ranking(
            query=fakes.query(LARGEST_ID, (LARGEST_ID,)),
            call=fakes.call()._replace(
                request_id="b", correlation_id="JKJaXmPLvHcESHA=", trace_id="1-67891233-abc"
            ),
            timestamp=_at(0, "00:00:00"),
            scores=[0.5],
            order=[0],
            degraded=("model:layer", "features:snapshot"),
            stages=("diversity", "no ads at night"),
            unknown={"user": True, "items": [LARGEST_ID]},
            context=odd,
            context_dropped=2,
        ),
        fakes.ranking(
            query=fakes.query(0, range(100)),
            timestamp=_at(0, "00:00:01"),
            request_id="c",
            model_version="feed_ranker-4",
            scores=hundred.tolist(),
            order=np.argsort(-hundred, kind="stable").tolist(),
            context={"device": "desktop", "city": None},
            row_sources=RowSources("sccobdu", "mhdwo--", 1, 90.0),
        ),
        fakes.ranking(
            query=fakes.query(7, (1, 2, 3)),
            call=fakes.call()._replace(request_id="d", correlation_id="feedrank-canary"),
            timestamp=_at(0, "00:00:02"),
            context={"feedrank-canary": "a text of the caller"},
        ),
    ]


def _records() -> list[dict[str, Any]]:
    return [fakes.recorded(ranking) for ranking in _decisions()]


@pytest.fixture
def log_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The function's log: its lines for these requests, and some others."""
    configure(fakes.settings())
    log = DecisionLog()
    for ranking in _decisions():
        fakes.record(log, ranking)
        log_request({"status": 200}, request_metrics(1.5, 200, ranking))
    output = capsys.readouterr().out.removesuffix("\n")
    lines = output.split("\n")  # splitlines would also split at U+2028
    return [*lines, '{"level":"INFO","message":"model loaded"}', "START RequestId: 1", "no { JSON"]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Aws:
    """The template's pipeline on moto, with the template's names and properties."""

    def __init__(self, endpoint: str, mode: str) -> None:
        def client(service: str) -> Any:
            return boto3.client(
                service,
                endpoint_url=endpoint,
                region_name="us-east-1",
                aws_access_key_id="testing",
                aws_secret_access_key="testing",
            )

        self.s3, self.logs, self.firehose = map(client, ("s3", "logs", "firehose"))
        resources = _resources(mode)
        self.s3.create_bucket(Bucket=BUCKET)
        self.streams = {
            name: resources[name] for name in ("LogsStream", "DirectStream") if name in resources
        }
        self.arns = {name: self._create(stream) for name, stream in self.streams.items()}
        self.filter = resources["DecisionsFilter"]

    def _create(self, stream: dict[str, Any]) -> str:
        destination = stream["ExtendedS3DestinationConfiguration"]
        plain = {k: v for k, v in destination.items() if k != "FileExtension"}  # unknown to moto
        response = self.firehose.create_delivery_stream(
            DeliveryStreamName=stream["DeliveryStreamName"],
            DeliveryStreamType=stream["DeliveryStreamType"],
            ExtendedS3DestinationConfiguration={**plain, "RoleARN": ROLE},
        )
        return str(response["DeliveryStreamARN"])

    def log(self, lines: list[str]) -> None:
        """Writes to the function's log group, which the template's filter subscribes to."""
        self.logs.create_log_group(logGroupName=LOG_GROUP)
        self.logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName="one")
        self.logs.put_subscription_filter(
            logGroupName=self.filter["LogGroupName"],
            filterName=self.filter["FilterName"],
            filterPattern=self.filter["FilterPattern"],
            destinationArn=self.arns["LogsStream"],
            roleArn=ROLE,
        )
        now_ms = int(datetime.now(UTC).timestamp() * 1_000)
        events = [{"timestamp": now_ms, "message": line} for line in lines]
        self.logs.put_log_events(logGroupName=LOG_GROUP, logStreamName="one", logEvents=events)

    def stored(self) -> list[bytes]:
        """The bodies that moto's Firehose has stored, unprocessed."""
        listed = self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return [self.s3.get_object(Bucket=BUCKET, Key=o["Key"])["Body"].read() for o in listed]

    def deliver(self, stream: dict[str, Any], records: list[bytes]) -> list[str]:
        """Put the objects that the stream's processors produce from the records to S3."""
        objects = delivered(stream, records)
        for key, body in objects.items():
            self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        return sorted(objects)

    def download(self, keys: list[str], directory: Path) -> None:
        for key in keys:
            (directory / key).parent.mkdir(parents=True, exist_ok=True)
            (directory / key).write_bytes(self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def close(self) -> None:
        for entry in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            self.s3.delete_object(Bucket=BUCKET, Key=entry["Key"])
        self.s3.delete_bucket(Bucket=BUCKET)
        for stream in self.streams.values():
            self.firehose.delete_delivery_stream(DeliveryStreamName=stream["DeliveryStreamName"])
        if self.logs.describe_log_groups()["logGroups"]:
            self.logs.delete_log_group(logGroupName=LOG_GROUP)


@pytest.fixture
def aws(endpoint: str, request: pytest.FixtureRequest) -> Iterator[Aws]:
    aws = Aws(endpoint, getattr(request, "param", "logs"))
    yield aws
    aws.close()


def _athena(objects: Path, ids: str = "number") -> Athena:
    return Athena(_resources(ids=ids)["DecisionsTable"]["TableInput"], objects / "decisions")


@pytest.fixture
def athena(aws: Aws, log_lines: list[str], tmp_path: Path) -> Athena:
    aws.log(log_lines)
    (envelope,) = aws.stored()
    selected = filtered(envelope, aws.filter["FilterPattern"])
    assert selected is not None
    aws.download(aws.deliver(aws.streams["LogsStream"], [selected]), tmp_path)
    return _athena(tmp_path)


def test_a_decision_read_back_equals_the_one_that_was_written(
    athena: Athena,
) -> None:
    assert athena.rows(IN_ORDER) == _records()


def test_records_are_stored_by_day_and_model_version(aws: Aws, log_lines: list[str]) -> None:
    aws.log(log_lines)
    (envelope,) = aws.stored()
    selected = filtered(envelope, aws.filter["FilterPattern"])
    assert selected is not None
    yesterday, today = _at(1, "")[:10], _at(0, "")[:10]
    assert aws.deliver(aws.streams["LogsStream"], [selected]) == [
        f"decisions/day={yesterday}/model=feed_ranker-3/feedrank-{ID}-decisions-logs-1.jsonl.gz",
        f"decisions/day={today}/model=feed_ranker-3/feedrank-{ID}-decisions-logs-1.jsonl.gz",
        f"decisions/day={today}/model=feed_ranker-4/feedrank-{ID}-decisions-logs-1.jsonl.gz",
    ]


def test_only_decisions_are_forwarded(log_lines: list[str]) -> None:
    pattern = _resources()["DecisionsFilter"]["FilterPattern"]
    forwarded = [json.loads(line) for line in log_lines if matches(pattern, line)]
    assert (len(log_lines), forwarded) == (11, _records())


def test_a_platform_report_is_not_a_decision() -> None:
    report = {"type": "platform.report", "record": {"requestId": "a", "metrics": {}}}
    assert not matches(_resources()["DecisionsFilter"]["FilterPattern"], json.dumps(report))


def test_a_record_without_its_keys_goes_to_the_error_prefix() -> None:
    stream = _resources("direct")["DirectStream"]
    (key,) = delivered(stream, [b'{"record": "decision", "timestamp": null}\n'])
    assert key.startswith("errors/metadata-extraction-failed/")


@pytest.mark.parametrize("aws", ["direct"], indirect=True)
def test_records_sent_by_the_function_give_the_same_rows(aws: Aws, tmp_path: Path) -> None:
    lines = [json.dumps(record).encode() + b"\n" for record in _records()]
    name = aws.streams["DirectStream"]["DeliveryStreamName"]
    batches = [
        lines[0],
        b"".join(lines[1:]),
    ]  # one line per Firehose record, or several: both are allowed
    aws.firehose.put_record_batch(
        DeliveryStreamName=name, Records=[{"Data": batch} for batch in batches]
    )
    (batch,) = aws.stored()  # moto joins a batch
    aws.download(aws.deliver(aws.streams["DirectStream"], [batch]), tmp_path)
    assert _athena(tmp_path).rows(IN_ORDER) == _records()


@pytest.mark.parametrize("aws", ["direct"], indirect=True)
def test_plain_and_hashed_ids_fit_in_one_table(aws: Aws, tmp_path: Path) -> None:
    """As happens when `RecordIds` is changed."""
    sink, user_hash = fakes.MemorySink(), UserHash("0123456789abcdef" * 2)
    for log in (DecisionLog([sink]), DecisionLog([sink], user_hash=user_hash)):
        query = fakes.query(LARGEST_ID)
        fakes.record(log, fakes.ranking(query=query, timestamp=_at(0, "01:00:00")))
    keys = aws.deliver(aws.streams["DirectStream"], [line for line, _ in sink.lines])
    aws.download(keys, tmp_path)
    rows = _athena(tmp_path).rows(_resources()["TrainingRowsQuery"]["QueryString"])
    assert {(row["user_id"], row["user_hash"]) for row in rows} == {
        (LARGEST_ID, None),
        (None, user_hash(LARGEST_ID)),
    }


@pytest.mark.parametrize("aws", ["direct"], indirect=True)
def test_tables_of_text_ids_read_every_id_and_also_records_of_numbers(
    aws: Aws, tmp_path: Path
) -> None:
    """As happens when a model of text ids replaces one of numbers."""
    user, items = 'Zoë "\U0001f3ac"', ["0017", "a,b", "1e3"]
    query = fakes.query(user, items)  # type: ignore[arg-type]
    texts = fakes.ranking(
        query=query, timestamp=_at(1, "01:00:00"), unknown={"user": True, "items": ["1e3"]}
    )
    numbers = fakes.ranking(query=fakes.query(LARGEST_ID, (7, 8, 9)), timestamp=_at(1, "02:00:00"))
    lines = [fakes.recorded(ranking) for ranking in (texts, numbers)]
    records = [json.dumps(line).encode() + b"\n" for line in lines]
    aws.download(aws.deliver(aws.streams["DirectStream"], records), tmp_path)
    athena = _athena(tmp_path, "text")
    first, second = athena.rows("SELECT * FROM decisions ORDER BY timestamp")
    assert (first["user_id"], first["item_ids"]) == (user, items)
    assert first["unknown"] == {"user": True, "items": ["1e3"]}
    assert (second["user_id"], second["item_ids"]) == (str(LARGEST_ID), ["7", "8", "9"])
    for resource in _resources(ids="text").values():
        if "QueryString" in resource and "map_keys" not in resource["QueryString"]:
            assert athena.rows(resource["QueryString"]) != []
    rows = athena.rows(_resources(ids="text")["TrainingRowsQuery"]["QueryString"])
    assert [row["item_id"] for row in rows] == [*items, "7", "8", "9"]


def test_an_object_is_gzipped_json_lines() -> None:
    stream = _resources("direct")["DirectStream"]
    lines = [json.dumps(record).encode() + b"\n" for record in _records()]
    (body,) = delivered(stream, lines[:1]).values()
    assert gzip.decompress(body) == lines[0]


# ---- The tables compared with the record and the stream ------------------------------------------


@pytest.mark.parametrize("ids", ["number", "text"])
def test_the_type_of_an_id_is_the_same_in_every_column(ids: str) -> None:
    columns = _resources(ids=ids)["DecisionsTable"]["TableInput"]["StorageDescriptor"]["Columns"]
    types = {column["Name"]: column["Type"] for column in columns}
    kind = {"number": "bigint", "text": "string"}[ids]
    assert types["user_id"] == kind
    assert types["item_ids"] == f"array<{kind}>"
    assert types["unknown"] == f"struct<user:boolean,items:array<{kind}>>"


@pytest.mark.parametrize("table", ["DecisionsTable", "DecisionsByModelTable"])
def test_the_tables_columns_are_the_records_fields(table: str) -> None:
    columns = _resources()[table]["TableInput"]["StorageDescriptor"]["Columns"]
    assert [column["Name"] for column in columns] == list(_records()[0])


@pytest.mark.parametrize("ids", ["number", "text"])
def test_both_tables_have_the_same_columns(ids: str) -> None:
    one, other = (
        _resources(ids=ids)[table]["TableInput"]["StorageDescriptor"]["Columns"]
        for table in ("DecisionsTable", "DecisionsByModelTable")
    )
    assert one == other


@pytest.mark.parametrize(
    ("table", "keys"), [("DecisionsTable", ["day"]), ("DecisionsByModelTable", ["day", "model"])]
)
def test_a_projected_prefix_is_one_that_the_stream_writes(table: str, keys: list[str]) -> None:
    resources = _resources()
    described = resources[table]["TableInput"]
    prefix = resources["LogsStream"]["ExtendedS3DestinationConfiguration"]["Prefix"]
    prefixes = re.sub(r"!\{partitionKeyFromQuery:(\w+)\}", r"${\1}", prefix)
    template = described["Parameters"]["storage.location.template"]
    assert [key["Name"] for key in described["PartitionKeys"]] == keys
    assert {f"projection.{key}.type" for key in keys} <= set(described["Parameters"])
    assert f"s3://{BUCKET}/{prefixes}".startswith(template)
    assert re.findall(r"\$\{(\w+)\}", template) == keys


def test_both_streams_write_the_same_layout() -> None:
    resources = _resources("direct")
    one, other = (
        resources[name]["ExtendedS3DestinationConfiguration"]
        for name in ("LogsStream", "DirectStream")
    )
    different = {key for key in one if one[key] != other[key]}
    assert different == {"ProcessingConfiguration", "CloudWatchLoggingOptions"}


# ---- The saved queries ---------------------------------------------------------------------------


def _query(athena: Athena, query: str) -> list[dict[str, Any]]:
    return athena.rows(_resources()[query]["QueryString"])


def test_score_drift_is_by_day_and_model(athena: Athena) -> None:
    yesterday, today = _at(1, "")[:10], _at(0, "")[:10]
    assert _query(athena, "ScoreDriftQuery") == [
        {
            "day": yesterday, "model_version": "feed_ranker-3", "items": 3,
            "mean_score": 0.02, "spread": 0.01, "lowest": 0.01, "highest": 0.03,
        },
        {
            "day": today, "model_version": "feed_ranker-3", "items": 1,
            "mean_score": 0.5, "spread": None, "lowest": 0.5, "highest": 0.5,
        },
        {
            "day": today, "model_version": "feed_ranker-4", "items": 100,
            "mean_score": 0.5, "spread": 0.293, "lowest": 0.000001, "highest": 0.999999,
        },
    ]  # fmt: skip


def test_degraded_responses_are_counted_by_day(athena: Athena) -> None:
    rows = _query(athena, "DegradedQuery")
    assert [(row["decisions"], row["degraded"], row["mean_items"]) for row in rows] == [
        (1, 0, 3.0),
        (1, 1, 1.0),
        (1, 0, 100.0),
    ]


def test_the_top_context_keeps_the_case_of_keys(athena: Athena) -> None:
    rows = _query(athena, "TopContextQuery")
    assert {(row["key"], row["value"]) for row in rows} >= {
        ("Device", "mobile"),
        ("device", "desktop"),
        ("line", "a\nb"),
    }
    assert {row["first_seen"] for row in rows} == {_at(0, "")[:10]}


def test_there_is_one_training_row_per_item_without_degraded_responses(
    athena: Athena,
) -> None:
    rows = _query(athena, "TrainingRowsQuery")
    wide = {record["request_id"]: record for record in _records() if record["request_id"] in "ac"}
    expected = [
        {
            "day": record["timestamp"][:10],
            "timestamp": record["timestamp"],
            "request_id": record["request_id"],
            "model_version": record["model_version"],
            "user_id": record["user_id"],
            "user_hash": record["user_hash"],
            "item_id": item_id,
            "place": place + 1,
            "score": record["scores"][place],
            "rank": record["ranks"][place],
            "context": record["context"],
        }
        for record in wide.values()
        for place, item_id in enumerate(record["item_ids"])
    ]
    assert rows == expected


@pytest.mark.parametrize(
    "query", [name for name, resource in _resources().items() if "QueryString" in resource]
)
def test_a_releases_own_requests_are_excluded_from_every_query(query: str, athena: Athena) -> None:
    """And only those: a caller's context can't hide a request, nor can a missing id."""
    sql = _resources()[query]["QueryString"]
    with_them = athena.rows(sql)
    kept = "CREATE TABLE kept AS SELECT * FROM decisions WHERE request_id <> 'd'"
    without = athena.rows(kept, sql.replace("FROM decisions", "FROM kept"))
    assert with_them == without != []
    callers = """CREATE TABLE callers AS SELECT * REPLACE ('x' AS correlation_id)
        FROM decisions"""
    assert athena.rows(callers, sql.replace("FROM decisions", "FROM callers")) != without
