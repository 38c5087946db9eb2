"""`feedrank tail`: the function's lines, from CloudWatch Logs (moto, over HTTP) and from files."""

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner, Result

import clients
import fakes
from feedops.cli.main import app
from feedops.release import tail as tail_module
from feedops.release.lines import Filter, parse, shown

GROUP = "/aws/lambda/feedrank-dev"
NOW = datetime.now(UTC)
RECENT = ["--since", "40"]  # minutes, since this module was imported a while ago


def _iso(minutes_ago: float) -> str:
    moment = NOW - timedelta(minutes=minutes_ago)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _request(request_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "level": "INFO",
        "message": "request",
        "timestamp": _iso(0),
        "request_id": request_id,
        "route": "/predict",
        "status": 200,
        "latency_ms": 3.14,
        **fields,
    }


def _decision(**fields: Any) -> dict[str, Any]:
    return fakes.recorded(fakes.ranking(timestamp=_iso(0), **fields))


LINES = [
    _request("a", items=5, cold_start=True),
    _decision(),
    _request("b", status=422, error="InvalidRequestError"),
    _request("c", status=503, latency_ms=900.0, error="ModelUnavailableError", reason="no bundle"),
    {"level": "WARNING", "message": "a sink is slow", "timestamp": _iso(0)},
    {"level": "INFO", "message": "init", "timestamp": _iso(0)},
    {"time": _iso(0), "type": "platform.report", "record": {"requestId": "d", "status": "timeout"}},
    {"time": _iso(0), "type": "platform.report", "record": {"requestId": "a", "status": "success"}},
    _request("old", timestamp=_iso(60)),
]


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data" / "logs" / "port-8000" / "environment-1.log"
    path.parent.mkdir(parents=True)
    path.write_text("25 Nov 2026 10:00:00,123 [INFO] (rapid) no line of the function\n")
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in LINES)
    return path


def _tail(*options: str) -> Result:
    return CliRunner().invoke(app, ["tail", "--no-follow", *RECENT, *options])


def _ids(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.output.splitlines()]
    return [str(line.get("request_id") or line.get("message") or line["type"]) for line in lines]


def test_requests_decisions_and_errors_are_shown_readably(logs: Path) -> None:
    clock = _iso(0)[11:23]
    shown_lines = _tail("--local").output.splitlines()
    assert [line.removeprefix(clock).strip() for line in shown_lines] == [
        "200 /predict, 3.1 ms, 5 items, request a, cold start",
        shown(LINES[1]).removeprefix(clock).strip(),
        "422 /predict, 3.1 ms, request b, InvalidRequestError",
        "503 /predict, 900.0 ms, request c, ModelUnavailableError: no bundle",
        "WARNING a sink is slow",
        "Lambda: timeout, request d",
    ]


def test_a_decision_shows_the_best_items_by_rank() -> None:
    query = fakes.query(7, range(10, 18))
    scores = [0.1, 0.9, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    order = sorted(range(8), key=lambda at: -scores[at])
    line = _decision(query=query, scores=scores, order=order)
    text = shown(line)
    assert "user 7: 11 (0.9), 17 (0.7), 16 (0.6), 15 (0.5), 14 (0.4) and 3 more; " in text


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--kind", "requests"], ["a", "b", "c"]),
        (["--kind", "errors"], ["c", "a sink is slow", "platform.report"]),
        (["--status", "5xx"], ["c"]),
        (["--status", "422"], ["b"]),
        (["--slower-than", "100"], ["c"]),
        (["--request-id", "b"], ["b"]),
        (["--kind", "requests", "--since", "120"], ["a", "b", "c", "old"]),
    ],
)
def test_lines_are_filtered(logs: Path, options: list[str], ids: list[str]) -> None:
    assert _ids(_tail("--local", "--json", *options)) == ids


def test_a_user_is_found_in_decisions_alone(logs: Path) -> None:
    user = str(LINES[1]["user_id"])
    assert _ids(_tail("--local", "--json", "--user", user)) == [LINES[1]["request_id"]]
    assert _ids(_tail("--local", "--json", "--user", user + "0")) == []


def test_a_hashed_user_is_found_by_the_hash() -> None:
    line = {"record": LINES[1]["record"], "user_hash": "ab12", "user_id": None}
    assert Filter(user="ab12").accepts(line)
    assert not Filter(user="None").accepts(line)


@pytest.mark.parametrize("status", ["4", "600", "ok", "5XX", "42x"])
def test_what_is_no_status_is_refused(status: str) -> None:
    result = _tail("--local", "--status", status)
    assert result.exit_code == 2
    assert f"--status {status}: give one such as 422, or 5xx" in re.sub(r"\s+", " ", result.output)


def test_the_lines_of_a_stack_come_from_its_log_group(
    aws_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    _put(LINES[:-1])
    assert _ids(_tail("--stack", "feedrank-dev", "--json", "--kind", "requests")) == ["a", "b", "c"]
    missing = _tail("--stack", "feedrank-prod")
    assert missing.exit_code == 1
    assert "there is no log group /aws/lambda/feedrank-prod in us-east-1" in missing.output


def _put(lines: list[dict[str, Any]]) -> None:
    logs = boto3.client("logs")
    logs.create_log_group(logGroupName=GROUP)
    logs.create_log_stream(logGroupName=GROUP, logStreamName="s")
    now_ms = int(time.time() * 1_000)
    events = [{"timestamp": now_ms, "message": json.dumps(line)} for line in lines]
    logs.put_log_events(logGroupName=GROUP, logStreamName="s", logEvents=events)


def test_every_line_is_shown_once_while_it_follows(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that is half written is shown when it is whole; Ctrl-C ends it."""

    def pauses() -> Iterator[None]:
        whole = json.dumps(_request("e"))
        _append(logs, whole[:20])
        yield
        _append(logs, whole[20:] + "\n")
        yield
        raise KeyboardInterrupt

    steps = pauses()
    monkeypatch.setattr(tail_module.time, "sleep", lambda _: next(steps))
    result = CliRunner().invoke(app, ["tail", "--local", "--json", "--kind", "requests", *RECENT])
    assert _ids(result) == ["a", "b", "c", "e"]


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_without_logs_the_command_that_makes_some_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "feedrank serve" in _tail("--local").output


@pytest.mark.parametrize("options", [[], ["--local", "--stack", "a"]])
def test_one_place_has_to_be_named(options: list[str]) -> None:
    result = _tail(*options)
    assert result.exit_code == 2
    assert "give either --stack or --local" in result.output


def test_the_functions_own_lines_are_read(printed: fakes.LogLines) -> None:
    """What the service writes for a real request and a failed one."""
    client = clients.client(fakes.model())
    client.post("/predict", json={"user_id": 1, "item_ids": [1, 2]})
    client.post("/predict", json={"user_id": "x"})
    lines = [line for line in printed() if Filter().accepts(line)]
    kinds = [("decision" if "record" in line else line["status"]) for line in lines]
    assert kinds == ["decision", 200, 422]
    assert all(shown(line) for line in lines)


def test_what_is_no_json_object_is_no_line() -> None:
    assert [parse(text) for text in ("START RequestId: 1", "[1]", "{", "")] == [None] * 4
