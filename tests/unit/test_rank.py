"""`feedrank rank`: the request that it makes, and how it shows the response."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from rich.console import Console
from typer.testing import CliRunner

from feedops.cli.main import app
from feedops.display import print_ranking
from feedops.errors import OperationError
from feedops.local.rank import RankRequest, rank_at, signing_scope
from scripted import Answer, Scripted, Sent, scripted

RANKING = {
    "user_id": "ann",
    "predictions": [
        {"item_id": "[b]", "score": 0.75, "rank": 1, "outputs": {"click": 0.5, "like": None}},
        {"item_id": "i", "score": 0.25, "rank": 2, "outputs": {"click": 0.25, "like": 0.125}},
    ],
    "unknown": {"user": True, "items": ["i"]},
    "warnings": ["context.device: no feature reads it"],
    "model_version": "shop-1",
    "latency_ms": 0.5,
    "degraded": ["fallback"],
}


@pytest.mark.parametrize(
    ("request_", "spec", "body"),
    [
        (RankRequest("7", "3, 1,2"), {}, {"user_id": 7, "item_ids": [3, 1, 2]}),
        (RankRequest("7", "3,a b"), {"ids": "text"}, {"user_id": "7", "item_ids": ["3", "a b"]}),
        (
            RankRequest("7", "3,1", ("device=tv", "query=a=b"), ("price=1.5,null", "kind=x,true")),
            {},
            {
                "user_id": 7,
                "item_ids": [3, 1],
                "context": {"device": "tv", "query": "a=b"},
                "features": {"price": [1.5, None], "kind": ["x", True]},
            },
        ),
        (
            RankRequest("7", "3", explain=True),
            {},
            {"user_id": 7, "item_ids": [3], "explain": True},
        ),
    ],
)
def test_a_command_line_becomes_a_request(
    request_: RankRequest, spec: dict[str, Any], body: dict[str, Any]
) -> None:
    assert json.loads(request_.body(spec)) == body


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (RankRequest("ann", "3"), "'ann': this model's ids are whole numbers"),
        (RankRequest("1", "3,"), "'': this model's ids are whole numbers"),
        (RankRequest("1", "3", ("device",)), "--context 'device': must be NAME=VALUE"),
        (RankRequest("1", "3", (), ("=1",)), "--feature '=1': must be NAME=VALUE"),
    ],
)
def test_a_request_that_cannot_be_made_is_refused(request_: RankRequest, message: str) -> None:
    with pytest.raises(OperationError) as caught:
        request_.body({})
    assert str(caught.value) == message


def test_the_table_shows_outputs_and_what_is_unknown_and_degraded() -> None:
    console = Console(width=80, record=True)
    print_ranking(console, RANKING)
    lines = [line.split() for line in console.export_text().splitlines()]
    assert lines[0] == ["Items", "for", "user", "ann", "(unknown)"]
    assert [" ".join(line).strip("│ ") for line in lines if line and line[0] == "│"] == [
        "1 │ [b] │ 0.75 │ 0.5 │ none",
        "2 │ i │ 0.25 │ 0.25 │ 0.125 │ unknown",
    ]
    assert lines[-3:] == [
        ["context.device:", "no", "feature", "reads", "it"],
        ["degraded:", "fallback"],
        ["shop-1,", "0.50", "ms", "in", "the", "function"],
    ]


@contextmanager
def served(status: int = 200) -> Iterator[Scripted]:
    """A server that responds to /predict with this status."""

    def respond(sent: Sent) -> Answer:
        if sent.method == "GET":
            return Answer(body=b'{"feature_spec": {"ids": "text"}}')
        body = RANKING if status == 200 else {"title": "no"}
        return Answer(status, json.dumps(body).encode())

    with scripted() as server:
        server.respond = respond
        yield server


def test_a_request_to_a_url_has_the_callers_headers_and_the_models_kind_of_ids() -> None:
    with served() as server:
        response = rank_at(
            f"{server.url}/v1/", RankRequest("7", "1"), {"authorization": "t"}, sign=False
        )
    assert response == RANKING
    assert [
        (method, path, headers["authorization"]) for method, path, headers, *_ in server.requests
    ] == [
        ("GET", "/v1/model", "t"),
        ("POST", "/v1/predict", "t"),
    ]
    assert server.requests[1].headers["content-type"] == "application/json"
    assert json.loads(server.requests[1].body) == {"user_id": "7", "item_ids": ["1"]}


def test_a_signed_request_has_the_signature_of_what_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[1])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    with served() as server:
        rank_at(server.url, RankRequest("7", "1"), {}, sign=True)
    for request in server.requests:
        signed = {"X-Amz-Date": request.headers["x-amz-date"]}
        if request.body:
            signed["content-type"] = request.headers["content-type"]
        again = AWSRequest(request.method, server.url + request.path, signed, request.body)
        again.context["timestamp"] = request.headers["x-amz-date"]
        auth = SigV4Auth(Credentials(*keys), "execute-api", "eu-west-1")
        signature = auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again)
        assert request.headers["authorization"].endswith(f"Signature={signature}")
        assert "/eu-west-1/execute-api/aws4_request" in request.headers["authorization"]


@pytest.mark.parametrize(
    ("host", "scope"),
    [
        ("a1.execute-api.eu-west-1.amazonaws.com", ("execute-api", "eu-west-1")),
        ("a1.execute-api.cn-north-1.amazonaws.com.cn", ("execute-api", "cn-north-1")),
        ("x2.lambda-url.us-east-2.on.aws", ("lambda", "us-east-2")),
        ("rank.example.com", ("execute-api", "")),
        ("localhost", ("execute-api", "")),
    ],
)
def test_a_signature_is_for_the_service_and_region_of_the_host(
    host: str, scope: tuple[str, str]
) -> None:
    assert signing_scope(host) == scope


def test_a_servers_refusal_is_shown() -> None:
    with served(403) as server:
        url = server.url
        result = CliRunner().invoke(app, ["rank", "--user", "7", "--items", "1", "--url", url])
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"{url}/predict responds with status 403",
        '{"title": "no"}',
    ]


@pytest.mark.parametrize(
    "options",
    [("--sign",), ("--header", "a=b"), ("--url", "http://h", "--bundle", "b")],
)
def test_options_of_the_other_way_are_refused(options: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["rank", "--user", "7", "--items", "1", *options])
    assert result.exit_code == 2


@pytest.mark.parametrize("url", ["ftp://h", "127.0.0.1:8000", "http://127.0.0.1:9"])
def test_a_url_without_a_server_gives_one_line(url: str) -> None:
    result = CliRunner().invoke(app, ["rank", "--user", "7", "--items", "1", "--url", url])
    assert result.exit_code == 1
    assert url in result.stderr
    assert "Traceback" not in result.stderr
