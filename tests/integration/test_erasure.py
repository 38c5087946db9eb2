"""A user's records are erased from all that Firehose and the function wrote; all others stay."""

import base64
import fcntl
import gzip
import json
import threading
from pathlib import Path
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner

import fakes
from feedops.cli.main import app
from feedops.decisions import stored_records
from feedrank.decisions.record_ids import UserHash
from feedrank.decisions.sinks import DecisionRecord
from feedrank.decisions.sinks.files import DailyFiles

BUCKET = "decisions"
DAY = "decisions/day=2026-11-22/model=feed_ranker-3/"
KEY = "0123456789abcdef" * 2


def _record(user_id: int, number: int, key: str = "") -> bytes:
    """A line as the function writes it; each user's items have the other users' numbers."""
    query = fakes.query(user_id, (42, 420, 7))
    record = fakes.recorded(fakes.ranking(query=query, request_id=f"r{number}"))
    if key:
        record |= {"user_id": None, "user_hash": UserHash(key)(user_id)}
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


OTHERS = b"".join(_record(user, number) for number, user in enumerate((7, 420, 4_200, 142)))
USERS = _record(42, 10) + _record(42, 11)


def _undelivered(raw: bytes) -> bytes:
    row = {
        "attemptsMade": 4,
        "arrivalTimestamp": 1_763_812_800_000,
        "errorCode": "DynamicPartitioning.MetadataExtractionFailed",
        "errorMessage": "partitionKeys values must not be null or empty",
        "attemptEndingTimestamp": 1_763_812_900_000,
        "rawData": base64.b64encode(raw).decode(),
    }
    return json.dumps(row).encode() + b"\n"


def _envelope(*messages: bytes) -> bytes:
    """As CloudWatch Logs sends it."""
    events = [
        {"id": str(number), "timestamp": 1, "message": message.decode().strip()}
        for number, message in enumerate(messages)
    ]
    content = {"messageType": "DATA_MESSAGE", "logGroup": "/aws/lambda/x", "logEvents": events}
    return gzip.compress(json.dumps(content).encode())


@pytest.fixture
def s3(aws: None) -> Any:
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    return client


@pytest.fixture(params=["versions", "no versions"])
def bucket(s3: Any, request: pytest.FixtureRequest) -> Any:
    if request.param == "versions":
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    return s3


def _put(s3: Any, key: str, lines: bytes, **more: str) -> None:
    s3.put_object(Bucket=BUCKET, Key=key, Body=gzip.compress(lines), **more)


def _erase(*options: str, source: str = f"s3://{BUCKET}/", code: int = 0) -> str:
    result = CliRunner().invoke(
        app, ["decisions", "erase", "--user", "42", "--from", source, *options]
    )
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def _stored(s3: Any) -> list[tuple[str, bytes]]:
    """Every version of every object, unpacked."""
    listed = s3.list_object_versions(Bucket=BUCKET).get("Versions", [])
    bodies = [
        s3.get_object(Bucket=BUCKET, Key=each["Key"], VersionId=each["VersionId"])["Body"].read()
        for each in listed
    ]
    return [
        (each["Key"], gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body)
        for each, body in zip(listed, bodies, strict=True)
    ]


def test_only_the_users_records_are_erased_and_all_others_stay_byte_for_byte(bucket: Any) -> None:
    _put(bucket, DAY + "a.jsonl.gz", USERS[: len(USERS) // 2] + OTHERS + _record(42, 12))
    _put(bucket, DAY + "b.jsonl.gz", OTHERS, ContentType="application/x-ndjson")
    _put(bucket, DAY + "c.jsonl.gz", USERS)
    untouched = bucket.head_object(Bucket=BUCKET, Key=DAY + "b.jsonl.gz")["LastModified"]
    output = _erase()
    assert "read 3 objects" in output
    assert "records 4 of this user's" in output
    assert "changed 2 objects and versions" in output
    assert "left 0 of this user's records" in output
    assert sorted(_stored(bucket)) == [
        (DAY + "a.jsonl.gz", OTHERS),
        (DAY + "b.jsonl.gz", OTHERS),
        (DAY + "c.jsonl.gz", b""),
    ]
    assert bucket.head_object(Bucket=BUCKET, Key=DAY + "b.jsonl.gz")["LastModified"] == untouched
    again = _erase()
    assert "records 0 of this user's" in again
    assert "changed 0 objects and versions" in again


def test_a_dry_run_counts_and_changes_nothing(bucket: Any) -> None:
    _put(bucket, DAY + "a.jsonl.gz", USERS + OTHERS)
    output = _erase("--dry-run")
    assert "records 2 of this user's" in output
    assert "changed" not in output
    assert _stored(bucket) == [(DAY + "a.jsonl.gz", USERS + OTHERS)]


def test_no_earlier_version_keeps_the_records(s3: Any) -> None:
    """They would stay readable in a versioned bucket for a week."""
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    for lines in (USERS + OTHERS, OTHERS, USERS, OTHERS + USERS):
        _put(s3, DAY + "a.jsonl.gz", lines)
    _put(s3, DAY + "gone.jsonl.gz", USERS)
    s3.delete_object(Bucket=BUCKET, Key=DAY + "gone.jsonl.gz")
    assert "4 earlier versions" in _erase()
    assert _stored(s3) == [(DAY + "a.jsonl.gz", OTHERS), (DAY + "a.jsonl.gz", OTHERS)]


def test_hashed_records_are_found_by_every_given_key(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = "f" * 32, KEY
    _put(s3, DAY + "a.jsonl.gz", _record(42, 1, old) + _record(7, 2, new) + _record(42, 3, new))
    assert "records 0 of" in _erase()
    monkeypatch.setenv("OLD_KEY", old)
    monkeypatch.setenv("NEW_KEY", new + "\n")
    assert "records 2 of" in _erase("--key-env", "OLD_KEY", "--key-env", "NEW_KEY")
    assert _stored(s3) == [(DAY + "a.jsonl.gz", _record(7, 2, new))]
    assert "--key-env MISSING" in _erase("--key-env", "MISSING", code=1)


def test_records_that_firehose_could_not_deliver_are_erased_too(s3: Any) -> None:
    one, several = OTHERS.splitlines(keepends=True)[:2]
    errors = "errors/metadata-extraction-failed/2026-11-22/"
    s3.put_object(
        Bucket=BUCKET,
        Key=errors + "a",
        Body=_undelivered(USERS)
        + _undelivered(one)
        + _undelivered(one + USERS)
        + _undelivered(_envelope(several, *USERS.splitlines(keepends=True)))
        + _undelivered(_envelope(USERS[: len(USERS) // 2])),
    )
    assert "records 7 of" in _erase()
    ((_, body),) = _stored(s3)
    raws = [base64.b64decode(json.loads(line)["rawData"]) for line in body.splitlines()]
    assert raws[:2] == [one, one]
    (event,) = json.loads(gzip.decompress(raws[2]))["logEvents"]
    assert (len(raws), event["message"]) == (3, several.decode().strip())


def test_an_unreadable_object_is_named_and_the_others_are_erased(s3: Any) -> None:
    _put(s3, DAY + "a.jsonl.gz", USERS + OTHERS)
    _put(s3, DAY + "archived.jsonl.gz", USERS, StorageClass="GLACIER")
    s3.put_object(Bucket=BUCKET, Key=DAY + "cut.jsonl.gz", Body=gzip.compress(USERS)[:-9])
    s3.put_object(Bucket=BUCKET, Key=DAY + "1.csv", Body=b'"user_id"\n"42"\n')
    s3.put_object(Bucket=BUCKET, Key="athena-results/1.csv", Body=b'"user_id"\n"42"\n')
    output = _erase(code=1)
    assert "not done: 0 records are left, 3 objects were not read" in output
    assert f"s3://{BUCKET}/{DAY}archived.jsonl.gz is in an archive; restore it first" in output
    assert f"s3://{BUCKET}/{DAY}cut.jsonl.gz is damaged" in output
    assert f"s3://{BUCKET}/{DAY}1.csv holds no JSON lines" in output
    read = s3.get_object(Bucket=BUCKET, Key=DAY + "a.jsonl.gz")["Body"].read()
    assert gzip.decompress(read) == OTHERS


def test_an_object_that_another_program_writes_during_the_erasure_is_not_overwritten(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(s3, DAY + "a.jsonl.gz", USERS + OTHERS)
    get = stored_records.S3Records._get
    newer = USERS + OTHERS + _record(7, 20)

    def get_before_another_write(
        self: stored_records.S3Records, key: str, version: str
    ) -> dict[str, Any]:
        stored = get(self, key, version)
        _put(s3, key, newer)
        return stored

    monkeypatch.setattr(stored_records.S3Records, "_get", get_before_another_write)
    output = _erase(code=1)
    assert "was written by another program during the erasure" in output
    assert "2 records are left" in output
    monkeypatch.undo()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert "left 0 of" in _erase()
    assert _stored(s3) == [(DAY + "a.jsonl.gz", OTHERS + _record(7, 20))]


def test_an_interrupted_erasure_can_be_repeated(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted between the write of a new version and the deletion of the one before."""
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    _put(s3, DAY + "a.jsonl.gz", USERS + OTHERS)
    _put(s3, DAY + "a.jsonl.gz", OTHERS)
    assert "records 2 of" in _erase()
    assert _stored(s3) == [(DAY + "a.jsonl.gz", OTHERS)]


def test_it_prints_what_it_can_not_reach(s3: Any) -> None:
    logs = boto3.client("logs")
    for name, days in (("feedrank-prod", 30), ("feedrank-dev", None), ("other", 1)):
        logs.create_log_group(logGroupName=f"/aws/lambda/{name}")
        if days:
            logs.put_retention_policy(logGroupName=f"/aws/lambda/{name}", retentionInDays=days)
    output = _erase()
    assert "log group /aws/lambda/feedrank-prod: its lines expire after 30 days" in output
    assert "log group /aws/lambda/feedrank-dev: its lines never expire" in output
    assert "/aws/lambda/other" not in output
    for place in ("records that Firehose still has", "Athena's results", "the feature tables"):
        assert f"not reached: {place}" in output


@pytest.mark.parametrize("user", ["", "None", "042", " 42", "-42", "4²", "42 7"])
def test_an_invalid_user_id_erases_nothing(user: str, s3: Any) -> None:
    """Every line holds the empty one, and undelivered records have no user."""
    _put(s3, DAY + "a.jsonl.gz", USERS + _undelivered(OTHERS) + b"\n")
    before = _stored(s3)
    command = ["decisions", "erase", "--user", user, "--from", f"s3://{BUCKET}/"]
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, _stored(s3)) == (1, before)
    assert "must be a user's id, a whole number" in result.output


def _text_record(user_id: str, number: int) -> bytes:
    query = fakes.query(user_id, ["ann", "42"])  # type: ignore[arg-type]
    record = fakes.recorded(fakes.ranking(query=query, request_id=f"r{number}"))
    return json.dumps(record, separators=(",", ":"), ensure_ascii=bool(number % 2)).encode() + b"\n"


@pytest.mark.parametrize(
    "user", ["ann", "42", "null", "zoë \U0001f3ac", 'a"b\\c', " ", "-", "None", ".*", "e" * 128]
)
def test_only_the_records_of_a_text_id_are_erased(user: str, tmp_path: Path) -> None:
    """However its text is escaped, and whatever it would mean elsewhere in a record."""
    others = b"".join(
        _text_record(other, number) + _record(42, number)
        for number, other in enumerate(("anne", "ann-2", "0", "zoë", "a", "b"))
    )
    hashed = _record(7, 5, KEY)  # its user_id is null
    halves = b'{"user_id":"ann-2","item_ids":["ann","42\n{"user_hash":null,"user_id":null,"i\n'
    file = tmp_path / "predictions_2026-11-22.jsonl"
    rest = others + hashed + halves + _undelivered(others)
    file.write_bytes(_text_record(user, 1) + rest + _text_record(user, 2))
    command = ["decisions", "erase", f"--user={user}", "--ids", "text", "--from", str(tmp_path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "2 of this user's" in result.output
    assert file.read_bytes() == rest


def test_half_a_record_of_a_text_id_is_erased(tmp_path: Path) -> None:
    file = tmp_path / "predictions_2026-11-22.jsonl"
    file.write_bytes(b'{"record":"decision","user_id":"ann","item_\n' + OTHERS)
    command = ["decisions", "erase", "--user", "ann", "--ids", "text", "--from", str(tmp_path)]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert file.read_bytes() == OTHERS


def test_hashed_records_of_a_text_id_are_found_by_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", KEY)
    file = tmp_path / "predictions_2026-11-22.jsonl"
    record = json.loads(_text_record("zoë", 1))
    record |= {"user_id": None, "user_hash": UserHash(KEY)("zoë")}
    file.write_bytes(json.dumps(record).encode() + b"\n" + OTHERS)
    command = ["decisions", "erase", "--user", "zoë", "--ids", "text", "--from", str(tmp_path)]
    assert CliRunner().invoke(app, [*command, "--key-env", "KEY"]).exit_code == 0
    assert file.read_bytes() == OTHERS


@pytest.mark.parametrize("user", ["", "x" * 129])
def test_a_text_that_is_no_id_erases_nothing(user: str, tmp_path: Path) -> None:
    command = ["decisions", "erase", f"--user={user}", "--ids", "text", "--from", str(tmp_path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "a text id has 1 to 128 characters" in result.output


@pytest.mark.parametrize("line", [b'{"rawData":null}', b'{"rawData":"eyJsb2dFdmVudHMiOlt7fV19"}'])
def test_a_damaged_error_record_is_named(line: bytes, s3: Any) -> None:
    _put(s3, "errors/a.gz", line + b"\n")
    assert "errors/a.gz is damaged" in _erase(code=1)


@pytest.mark.parametrize(
    ("source", "text"),
    [("s3://missing/", "NoSuchBucket"), ("nowhere", "must be s3://bucket/prefix/ or a directory")],
)
def test_an_invalid_source_is_refused(source: str, text: str, s3: Any) -> None:
    assert text in _erase(source=source, code=1)


# ---- Files of DECISION_LOG_DIR -------------------------------------------------------------------


def test_the_users_records_are_erased_from_daily_files(tmp_path: Path) -> None:
    file = tmp_path / "predictions_2026-11-22.jsonl"
    half = b'{"record":"decision","user_id":42,"item_'
    file.write_bytes(USERS + OTHERS + half + b"\n" + OTHERS)
    file.chmod(0o640)
    output = _erase(source=str(tmp_path))
    assert "records 3 of" in output
    assert "left 0 of" in output
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (OTHERS + OTHERS, 0o640)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_record_that_waits_for_the_lock_is_appended_to_the_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "predictions_2026-11-22.jsonl"
    file.write_bytes(USERS + OTHERS)
    monkeypatch.setattr("feedrank.decisions.sinks.files.LOCK_TRIES", 10_000)
    waits, lock = threading.Event(), fcntl.flock

    def lock_and_signal(opened: Any, kind: int) -> None:
        waits.set()
        lock(opened, kind)

    with file.open("rb") as lock_file:
        lock(lock_file, fcntl.LOCK_EX)
        monkeypatch.setattr("feedrank.decisions.sinks.files.fcntl.flock", lock_and_signal)
        writer = threading.Thread(
            target=DailyFiles(tmp_path).write,
            args=(DecisionRecord(_record(7, 30), "2026-11-22", 0.0),),
        )
        writer.start()
        assert waits.wait(30)
        replacement = tmp_path / "new"
        replacement.write_bytes(OTHERS)
        replacement.replace(file)  # as an erasure does, which has the lock
    writer.join(30)
    assert file.read_bytes() == OTHERS + _record(7, 30)


def test_half_a_line_of_another_user_stays(tmp_path: Path) -> None:
    file = tmp_path / "predictions_2026-11-22.jsonl"
    lines = b'{"user_id":9,"item_ids":[42],"scores":[0.42,\n' + OTHERS
    file.write_bytes(lines)
    _erase(source=str(tmp_path))
    assert file.read_bytes() == lines


def test_an_erasure_that_waited_for_another_reads_the_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "predictions_2026-11-22.jsonl"
    file.write_bytes(USERS + OTHERS)
    lock, waits = fcntl.flock, threading.Event()

    def lock_after_another(opened: Any, kind: int) -> None:
        if not waits.is_set():
            waits.set()
            replacement = tmp_path / "new"
            replacement.write_bytes(USERS + _record(7, 30))
            replacement.replace(file)
        lock(opened, kind)

    monkeypatch.setattr("feedops.decisions.stored_records.fcntl.flock", lock_after_another)
    _erase(source=str(tmp_path))
    assert file.read_bytes() == _record(7, 30)
