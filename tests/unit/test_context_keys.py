"""What a bundle reads of the context is listed, and anything else is refused or named."""

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import demo
import fakes
import fullspec
from feedrank.domain import Query
from feedrank.features import expressions as context
from feedrank.features.context_keys import ContextKeys
from feedrank.features.spec_reader import parse_spec
from feedrank.features.vocabulary import vocabulary_of
from feedrank.telemetry.metrics import request_metrics

SPEC: dict[str, Any] = {
    "inputs": [
        {
            "name": "features",
            "features": [
                {"name": "likes", "source": "user", "default": 0.25},
                {"name": "price", "source": "item", "default": 0.5},
                {"name": "seen", "source": "pair"},
                {"name": "hour", "source": "context", "expression": "hour"},
                {"name": "mobile", "source": "context", "expression": "equals(device, mobile)"},
                {"name": "tablet", "source": "context", "expression": "equals(device, tablet)"},
                {"name": "paris", "source": "context", "expression": 'equals(city, "Paris, TX")'},
                {"name": "temp", "source": "context", "expression": "number(temp)"},
            ],
        }
    ],
    "context": {"device": ["tv", "mobile"], "city": ["Oslo"], "app": ["web"]},
}
UNKNOWN_KEY = "context: unknown key; this model reads device, city, app, temp, timestamp"
WRONG_DEVICE = "context.device: must be one of mobile, tablet, tv"
REQUEST: dict[str, Any] = {"user_id": 1, "item_ids": [10, 30, 20]}


def _client(**env: str) -> TestClient:
    return TestClient(fakes.app(fakes.model(**SPEC), **env), raise_server_exceptions=False)


def _post(client: TestClient, context: dict[str, str]) -> tuple[int, dict[str, Any]]:
    response = client.post("/predict", json=REQUEST | {"context": context})
    return response.status_code, response.json()


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"device": "mobile"},
        {"device": "tv", "city": "Paris, TX", "app": "web", "temp": "-2.5e3"},
        {"timestamp": "2026-11-22T12:00:00Z", "city": "Oslo"},
    ],
)
def test_context_that_the_model_reads_is_accepted(context: dict[str, str]) -> None:
    status, body = _post(_client(), context)
    assert status == 200
    assert "warnings" not in body


@pytest.mark.parametrize(
    ("context", "problems"),
    [
        ({"devise": "mobile"}, [UNKNOWN_KEY]),
        ({"": "mobile", "SECRET": "x"}, [UNKNOWN_KEY]),
        ({"device": "Mobile"}, [WRONG_DEVICE]),
        ({"device": ""}, [WRONG_DEVICE]),
        ({"city": "Paris", "app": "web"}, ["context.city: must be one of Paris, TX, Oslo"]),
        ({"devise": "x", "device": "iphone"}, [UNKNOWN_KEY, WRONG_DEVICE]),
    ],
)
def test_anything_else_is_refused_by_name_or_with_a_warning(
    context: dict[str, str], problems: list[str]
) -> None:
    status, body = _post(_client(), context)
    assert (status, body["detail"]) == (422, "; ".join(problems))
    status, body = _post(_client(CONTEXT_CHECK="warn"), context)
    assert (status, body["warnings"]) == (200, problems)
    assert [p["item_id"] for p in body["predictions"]] == [30, 20, 10]


PRIVATE = "ada@example.com"


def _recorded(context: dict[str, str], **env: str) -> dict[str, Any]:
    """What the decision record of a request with this context holds of it."""
    sink = fakes.MemorySink()
    app = fakes.app(fakes.model(**SPEC), sink, **env)
    response = TestClient(app).post("/predict", json=REQUEST | {"context": context})
    assert response.status_code == 200
    ((line, _),) = sink.lines
    assert PRIVATE not in line.decode()
    record = json.loads(line)
    return {"context": record["context"], "context_dropped": record["context_dropped"]}


@pytest.mark.parametrize("check", ["strict", "warn"])
def test_a_record_has_the_context_that_the_model_reads_as_it_was_sent(check: str) -> None:
    context = {"device": "tv", "city": "Paris, TX", "temp": "-2.5e3", "timestamp": "2026-11-22"}
    assert _recorded(context, CONTEXT_CHECK=check) == {"context": context, "context_dropped": 0}
    assert _recorded({}, CONTEXT_CHECK=check) == {"context": {}, "context_dropped": 0}


@pytest.mark.parametrize(
    ("context", "record", "dropped"),
    [
        ({"email": PRIVATE, PRIVATE: "1"}, {}, 2),
        ({"device": PRIVATE, "app": "web"}, {"device": None, "app": "web"}, 1),
        ({"device": f"mobile {PRIVATE}", "city": "Oslo", "ip": "192.0.2.1"},
         {"device": None, "city": "Oslo"}, 2),
    ],
)  # fmt: skip
def test_a_record_has_no_text_that_the_model_does_not_list(
    context: dict[str, str], record: dict[str, str | None], dropped: int
) -> None:
    assert _recorded(context, CONTEXT_CHECK="warn") == {
        "context": record,
        "context_dropped": dropped,
    }


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        ("temp", "0." + "491701234567" * 4),
        ("temp", " " * 41 + "1"),
        ("timestamp", "2026-11-22T12:00:00." + "491701234567" * 4),
    ],
)
def test_a_number_or_a_time_carries_nothing_in_its_last_digits(key: str, sent: str) -> None:
    assert _recorded({key: sent}) == {"context": {key: None}, "context_dropped": 1}


def test_a_value_that_is_not_recorded_reads_as_the_one_that_was_sent() -> None:
    """Else rows made of records would differ from the rows that were scored."""
    keys = ContextKeys(parse_spec(SPEC))
    sent = {"device": PRIVATE, "city": "Oslo"}
    record, _ = keys.recorded(sent)
    for expression in ("equals(device, mobile)", 'equals(city, "Paris, TX")'):
        compute = context.parse(expression).compute
        assert compute(record, 0.0) == compute(sent, 0.0)


def test_warnings_are_counted() -> None:
    measured = request_metrics(1.0, 200, fakes.ranking(warnings=(UNKNOWN_KEY, WRONG_DEVICE)))
    assert measured["ContextWarnings"] == 2
    assert "ContextWarnings" not in request_metrics(1.0, 200, fakes.ranking())


def test_a_long_list_of_values_keeps_an_error_small() -> None:
    spec = SPEC | {"context": {"city": [f"city number {n}" for n in range(1_000)]}}
    client = TestClient(fakes.app(fakes.model(**spec)))
    response = client.post("/predict", json=REQUEST | {"context": {"city": "Berlin"}})
    assert response.status_code == 422
    assert response.json()["detail"].endswith("city number 8 and 991 more, see /model")
    assert len(response.content) <= 1_024


def test_a_value_that_is_not_a_text_names_its_key_if_the_model_reads_it() -> None:
    body = REQUEST | {"context": {"device": 5, "SECRET": 6}}
    detail = _client().post("/predict", json=body).json()["detail"]
    assert detail == (
        "context.device: Input should be a valid string; context: Input should be a valid string"
    )


def test_the_model_card_lists_keys_and_values() -> None:
    assert _client().get("/model").json()["context"] == {
        "device": {"type": "text", "values": ["mobile", "tablet", "tv"]},
        "city": {"type": "text", "values": ["Paris, TX", "Oslo"]},
        "app": {"type": "text", "values": ["web"]},
        "temp": {"type": "number"},
        "timestamp": {"type": "time"},
    }


@pytest.mark.parametrize(("check", "more"), [("strict", False), ("warn", {"type": "string"})])
def test_the_document_describes_the_context_of_the_model_that_serves(check: str, more: Any) -> None:
    document = _client(CONTEXT_CHECK=check).get("/openapi.json").json()
    context = document["components"]["schemas"]["PredictRequest"]["properties"]["context"]
    assert context["additionalProperties"] == more
    assert context["properties"]["device"] == {
        "type": "string",
        "enum": ["mobile", "tablet", "tv"],
    }
    assert context["properties"].keys() == {"device", "city", "app", "temp", "timestamp"}


LISTS = {
    "inputs": [{"name": "x", "type": "int64", "features": [
        {"name": "d", "source": "context", "expression": "text(device)", "vocabulary": "v"},
        {"name": "r", "source": "context", "expression": "list(recent)", "size": 2,
         "vocabulary": "v"},
        {"name": "p", "source": "item"}]}],
    "vocabularies": {"v": 3},
}  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "record", "dropped"),
    [
        ({"device": "a"}, {"device": "a"}, 0),
        ({"device": "SECRET"}, {"device": None}, 1),
        ({"device": ""}, {"device": None}, 1),
        ({"recent": "a, b"}, {"recent": "a,b"}, 0),
        ({"recent": "SECRET,a,b"}, {"recent": "a,b"}, 0),  # the model reads the last two
        ({"recent": "b,SECRET,a"}, {"recent": "\ufffd,a"}, 1),
        ({"recent": "b,a,SECRET"}, {"recent": "a,\ufffd"}, 1),
        ({"recent": "SECRET"}, {"recent": None}, 1),
        ({"recent": " , "}, {"recent": ""}, 0),
        ({"recent": "a", "SECRET": "x", "device": "c"}, {"recent": "a", "device": "c"}, 1),
    ],
)
def test_of_texts_and_lists_a_record_has_what_the_vocabulary_has(
    sent: dict[str, str], record: dict[str, str | None], dropped: int
) -> None:
    keys = ContextKeys(parse_spec(LISTS), {"v": vocabulary_of(["a", "b", "c"])})
    assert keys.recorded(sent) == (record, dropped)


def test_any_text_is_a_value_of_a_key_of_text_and_other_keys_are_named() -> None:
    keys = ContextKeys(parse_spec(LISTS), {"v": vocabulary_of(["a", "b", "c"])})
    assert keys.problems({"device": "SECRET", "recent": "x,SECRET", "timestamp": "now"}) == []
    assert keys.problems({"SECRET": "a", "device": "a"}) == [
        "context: unknown key; this model reads device, recent, timestamp"
    ]
    assert keys.described() == {
        "device": {"type": "text"}, "recent": {"type": "list"}, "timestamp": {"type": "time"}
    }  # fmt: skip
    assert keys.schema()["recent"]["description"] == "Texts, divided by commas; the last 2 count"


@pytest.mark.parametrize(("check", "status"), [("strict", 422), ("warn", 200)])
def test_a_model_of_texts_and_lists_is_strict_or_warns(
    tmp_path: Path, check: str, status: int
) -> None:
    client = TestClient(fakes.app(fullspec.model(tmp_path), CONTEXT_CHECK=check))
    context = {"device": "any", "recent": "x,SECRET", "SECRET": "a"}
    request = {"user_id": "SECRET", "item_ids": ["i", "new"], "context": context}
    response = client.post("/predict", json=request)
    assert response.status_code == status
    says = ["context: unknown key; this model reads recent, device, timestamp"]
    if status == 422:
        assert response.json()["detail"] == says[0]
    else:
        assert response.json()["warnings"] == says
        assert response.json()["unknown"] == {"user": True, "items": ["new"]}


def test_without_a_model_the_document_leaves_the_keys_open() -> None:
    document = TestClient(fakes.app(None)).get("/openapi.json").json()
    context = document["components"]["schemas"]["PredictRequest"]["properties"]["context"]
    assert context["additionalProperties"] == {"type": "string"}


def test_the_demo_takes_its_three_devices() -> None:
    keys = ContextKeys(parse_spec(demo.demo_spec()))
    assert keys.values == {"device": ("mobile", "desktop", "tablet")}
    assert keys.problems({"device": "desktop"}) == []
    assert keys.problems({"device": "Desktop"}) == [
        "context.device: must be one of mobile, desktop, tablet"
    ]


def test_a_model_without_context_features_takes_a_time_alone() -> None:
    query: Query = fakes.query(1, (10,), device="mobile")
    features = [{"name": "price", "source": "item"}]
    keys = ContextKeys(parse_spec({"inputs": [{"name": "x", "features": features}]}))
    assert keys.problems(query.context) == ["context: unknown key; this model reads timestamp"]
