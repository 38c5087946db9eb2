"""The stream's function on moto: what comes again, what is refused, and what others do meanwhile.
`tests/long/test_fuzz_stream.py` compares its rows with what training computes."""

import json
import threading
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

import streamed
from feedmodel.demo.counts import ItemCounts, UserCounts
from feedops.features.rows import WrittenRow
from feedops.features.table import FeatureTable
from feedstream import handler, store
from stack.iam import ACCOUNT, ID, REGION, allowed, policies

SHOWN: dict[str, Any] = {"event": "impression", "user_id": 7, "item_id": 8, "time": 1_764_000_000}
CLICKED = {**SHOWN, "event": "click", "dwell_ms": 12_000}
CREATED = {"event": "created", "item_id": 8, "time": 1_763_000_000}


@pytest.fixture
def dynamodb(aws: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(store, "PAUSE_S", 0.0)
    return streamed.create_tables()


def _sent(*events: dict[str, Any]) -> list[dict[str, str]]:
    return streamed.records([{"event_id": f"e{at}", **each} for at, each in enumerate(events)])


def _counts(client: Any) -> tuple[UserCounts, ItemCounts]:
    rows = streamed.items_of(client, "rows")
    return (
        UserCounts.from_text(rows["u#7"]["n"]["S"]),
        ItemCounts.from_text(rows["i#8"]["n"]["S"]),
    )


def test_an_event_counts_in_its_users_row_and_in_its_items(dynamodb: Any) -> None:
    assert streamed.stream().take(_sent(SHOWN, CLICKED, CREATED)) == []
    user, item = _counts(dynamodb)
    assert (user.interactions, user.clicks, user.dwell_ms, user.days) == (1, 1, 12_000, 1)
    assert item == ItemCounts(1, 1, 12_000, 1_763_000_000.0)
    times = {key: float(row["t"]["N"]) for key, row in streamed.items_of(dynamodb, "rows").items()}
    assert times == {"u#7": 1_764_000_000, "i#8": 1_764_000_000}


def test_an_event_that_comes_again_counts_once(dynamodb: Any) -> None:
    stream, shown = streamed.stream(), {"event_id": "once", **SHOWN}
    for sent in ([shown, shown], [shown], [shown, {**shown, "time": 1_764_100_000}]):
        assert stream.take(streamed.records(sent)) == []
    assert [counts.interactions for counts in _counts(dynamodb)] == [1, 1]


def test_a_late_event_counts_and_sets_no_time_back(dynamodb: Any) -> None:
    stream = streamed.stream()
    assert stream.take(_sent(SHOWN)) == []
    late = {"event_id": "late", **SHOWN, "time": 1_763_500_000}
    assert stream.take(streamed.records([late])) == []
    user, _ = _counts(dynamodb)
    assert (user.interactions, user.days) == (2, 2)
    times = [float(row["t"]["N"]) for row in streamed.items_of(dynamodb, "rows").values()]
    assert times == [1_764_000_000, 1_764_000_000]


def test_a_creation_that_comes_late_or_twice_is_the_earliest(dynamodb: Any) -> None:
    later = {**CREATED, "time": 1_763_000_001}
    assert streamed.stream().take(_sent(SHOWN, later, CREATED, later)) == []
    assert _counts(dynamodb)[1].created_s == 1_763_000_000.0


def test_a_message_that_is_no_event_keeps_no_other_from_counting(dynamodb: Any) -> None:
    failed = streamed.stream().take(
        streamed.records(["{", {"event_id": "a", **SHOWN}, {"event_id": "b", **SHOWN, "time": 9e9}])
    )
    assert failed == ["m0", "m2"]
    assert [counts.interactions for counts in _counts(dynamodb)] == [1, 1]


def test_a_row_without_counts_is_left_and_keeps_no_other_event_from_counting(
    dynamodb: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = {"k": {"S": "u#9"}, "v": {"B": b"row"}, "t": {"N": "1"}}
    dynamodb.put_item(TableName="rows", Item=loaded)
    assert streamed.stream().take(_sent(SHOWN, {**SHOWN, "user_id": 9}, CLICKED)) == ["m1"]
    assert streamed.items_of(dynamodb, "rows")["u#9"] == loaded
    assert [counts.clicks for counts in _counts(dynamodb)] == [1, 1]
    assert _counts(dynamodb)[1].interactions == 1  # the refused one is in no row
    assert "needs a table of its own" in caplog.text


def test_pairs_of_another_layout_are_left(dynamodb: Any) -> None:
    stream = streamed.stream()
    assert stream.take(_sent(SHOWN)) == []
    dynamodb.update_item(
        TableName="rows",
        Key={"k": {"S": "u#7"}},
        UpdateExpression="SET p = :p",
        ExpressionAttributeValues={":p": {"B": b"\x00" * 16}},
    )
    assert stream.take(streamed.records([{"event_id": "n", **SHOWN}])) == ["m0"]
    assert _counts(dynamodb)[0].interactions == 1


@pytest.mark.usefixtures("aws_server")
def test_a_load_leaves_the_rows_of_the_stream() -> None:
    client = streamed.create_tables()
    assert streamed.stream().take(_sent(SHOWN)) == []
    before = streamed.items_of(client, "rows")
    table = FeatureTable("dynamodb://rows")
    newer_s = SHOWN["time"] + 1.0
    written = [table.write(WrittenRow(key, b"row"), newer_s, None) for key in ("u#7", "u#6")]
    assert written == [False, True]
    assert streamed.items_of(client, "rows")["u#7"] == before["u#7"]


class Interrupted:
    """A client before whose first transactions somebody else does something."""

    def __init__(self, client: Any, *before: Any) -> None:
        self._client = client
        self._before = [*before]
        self.batch_get_item = client.batch_get_item

    def transact_write_items(self, **request: Any) -> Any:
        if self._before:
            self._before.pop(0)()
        return self._client.transact_write_items(**request)


def test_a_row_that_another_changes_meanwhile_is_read_again(dynamodb: Any) -> None:
    other = {"event_id": "other", **SHOWN}
    client = Interrupted(
        boto3.client("dynamodb"), lambda: streamed.stream().take(streamed.records([other]))
    )
    assert streamed.stream(client).take(_sent(SHOWN, CLICKED)) == []
    assert [counts.interactions for counts in _counts(dynamodb)] == [2, 2]


def test_an_event_that_another_counts_meanwhile_counts_once(dynamodb: Any) -> None:
    client = Interrupted(
        boto3.client("dynamodb"), lambda: streamed.stream().take(_sent(SHOWN, CLICKED))
    )
    assert streamed.stream(client).take(_sent(SHOWN, CLICKED)) == []
    assert [counts.interactions for counts in _counts(dynamodb)] == [1, 1]


def test_a_transaction_whose_answer_is_lost_counts_once(dynamodb: Any) -> None:
    class Lossy(Interrupted):
        def transact_write_items(self, **request: Any) -> Any:
            super().transact_write_items(**request)
            raise ClientError({"Error": {"Code": "InternalServerError"}}, "TransactWriteItems")

    assert streamed.stream(Lossy(boto3.client("dynamodb"))).take(_sent(SHOWN)) == ["m0"]
    assert streamed.stream().take(_sent(SHOWN)) == []
    assert [counts.interactions for counts in _counts(dynamodb)] == [1, 1]


def test_events_come_again_while_a_row_never_rests(dynamodb: Any) -> None:
    def change(number: int) -> None:
        other = {"event_id": f"other{number}", **SHOWN}
        assert streamed.stream().take(streamed.records([other])) == []

    busy = [lambda at=at: change(at) for at in range(store.TRIES)]
    client = Interrupted(boto3.client("dynamodb"), *busy)
    assert streamed.stream(client).take(_sent(SHOWN, CLICKED)) == ["m0", "m1"]
    assert [counts.clicks for counts in _counts(dynamodb)] == [0, 0]


class Serialized:
    """DynamoDB's transactions are serializable; moto's may run into each other."""

    lock = threading.Lock()

    def __init__(self, client: Any) -> None:
        self._client = client
        self.batch_get_item = client.batch_get_item

    def transact_write_items(self, **request: Any) -> Any:
        with self.lock:
            return self._client.transact_write_items(**request)


def test_two_containers_at_once_count_all(dynamodb: Any) -> None:
    failed: list[str] = []

    def take(worker: int) -> None:
        stream = streamed.stream(Serialized(boto3.client("dynamodb")))
        for at in range(10):
            mine = {"event_id": f"{worker}-{at}", **SHOWN}
            both = {"event_id": f"both-{at}", **CLICKED}
            failed.extend(stream.take(streamed.records([mine, both])))

    threads = [threading.Thread(target=take, args=[worker]) for worker in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [(c.interactions, c.clicks) for c in _counts(dynamodb)] == [(20, 10), (20, 10)]


# ---- The function in Lambda ----------------------------------------------------------------------


@pytest.fixture
def deployed(dynamodb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    manifest = tmp_path / "serving" / "manifest.json"
    manifest.parent.mkdir()
    manifest.write_text(json.dumps({"feature_spec": streamed.spec().to_json()}))
    for name, value in {
        "MODEL_URI": str(tmp_path),
        "FEATURES_TABLE": "rows",
        "EVENTS_TABLE": "events",
        "REMEMBER_DAYS": "30",
    }.items():
        monkeypatch.setenv(name, value)
    handler._stream.cache_clear()
    return tmp_path


def test_the_response_names_the_messages_that_failed(deployed: Path, dynamodb: Any) -> None:
    records = streamed.records([{"event_id": "a", **SHOWN}, "no event"])
    response = handler.handler({"Records": records}, None)
    assert response == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert handler.handler({"Records": records[:1]}, None) == {"batchItemFailures": []}
    assert [counts.interactions for counts in _counts(dynamodb)] == [1, 1]


def test_a_manifest_with_another_digest_is_refused(deployed: Path) -> None:
    wrong = deployed / f"sha256-{'ab' * 32}"
    (deployed / "serving").rename(deployed / "s")
    wrong.mkdir()
    (deployed / "s").rename(wrong / "serving")
    with pytest.raises(ValueError, match="another SHA-256"):
        handler.read_spec(f"{wrong}/")


def test_the_role_may_do_what_the_function_calls_and_nothing_else() -> None:
    """TransactWriteItems of puts needs PutItem, and no right of its own name:
    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis-iam.html"""
    digest = "ab" * 32
    role = policies(
        "infra/streaming/template.yaml",
        "StreamRole",
        ModelUri=f"s3://bundles/feed/sha256-{digest}/",
        FeaturesTable=f"feedrank-{ID}-features",
    )
    dynamodb, sqs = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table", f"arn:aws:sqs:{REGION}:{ACCOUNT}"
    prefix = f"arn:aws:s3:::bundles/feed/sha256-{digest}/serving"
    needed = {
        ("s3:GetObject", f"{prefix}/manifest.json"),
        *(
            (action, f"{dynamodb}/{table}")
            for action in ("dynamodb:BatchGetItem", "dynamodb:PutItem")
            for table in (f"feedrank-{ID}-features", "EventIds-9zYx8W")
        ),
        *(
            (f"sqs:{action}", f"{sqs}:EventQueue-9zYx8W")
            for action in ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")
        ),
    }
    other = {
        ("s3:GetObject", f"{prefix}/model.onnx"),
        ("dynamodb:DeleteItem", f"{dynamodb}/feedrank-{ID}-features"),
        ("dynamodb:Scan", f"{dynamodb}/feedrank-{ID}-features"),
        ("dynamodb:PutItem", f"{dynamodb}/payroll"),
        ("sqs:SendMessage", f"{sqs}:EventQueue-9zYx8W"),
        ("sqs:ReceiveMessage", f"{sqs}:orders"),
    }
    assert {one for one in needed | other if allowed(role, *one)} == needed
