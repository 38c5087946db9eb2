"""What is wrong gets a problem response, which never repeats the request."""

import asyncio
import json
from collections.abc import Iterator, MutableMapping
from fractions import Fraction
from typing import Any

import pytest
from httpx2 import Response
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

import clients
import fakes
import hostile
from clients import REQUEST, TITLES, problem
from feedrank.errors import ScoringError


@pytest.fixture(scope="module")
def client() -> TestClient:
    return clients.client(fakes.model())


@pytest.mark.parametrize("name", hostile.INVALID)
def test_an_invalid_body_is_422_and_never_repeated(client: TestClient, name: str) -> None:
    response = client.post("/predict", content=hostile.INVALID[name])
    detail = problem(response, 422)["detail"]
    assert "SECRET" not in response.text
    assert detail != TITLES[422]


@pytest.mark.parametrize("name", hostile.TOO_LARGE)
def test_a_body_over_the_cap_is_413(client: TestClient, name: str) -> None:
    response = client.post("/predict", content=hostile.TOO_LARGE[name])
    assert problem(response, 413)["detail"] == TITLES[413]


def test_the_cap_is_the_settings() -> None:
    body = json.dumps(REQUEST).encode()
    exact, below = (
        clients.client(fakes.model(), MAX_BODY_BYTES=str(len(body) - n)) for n in (0, 1)
    )
    assert exact.post("/predict", content=body).status_code == 200
    problem(below.post("/predict", content=body), 413)


def test_the_rest_of_a_body_over_the_cap_is_not_waited_for() -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 1_000:
            sent += 1
            yield b"x" * 1_024

    assert clients.client(fakes.model()).post("/predict", content=endless()).status_code == 413


def test_a_body_that_is_cut_off_is_422(printed: fakes.LogLines) -> None:
    messages = iter(
        [
            {"type": "http.request", "body": b'{"user_id": 1', "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(dict(message))

    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [],
             "query_string": b""}  # fmt: skip
    asyncio.run(fakes.app(fakes.model())(scope, receive, send))
    assert sent[0]["status"] == 422
    lines = [(line["level"], line.get("error")) for line in printed()]
    assert ("INFO", "InvalidRequestError") in lines
    assert "ERROR" not in {level for level, _ in lines}


def test_the_problems_are_told_by_field(client: TestClient) -> None:
    wrong = {"user_id": -1, "item_ids": [1, "x", 3, None]}
    assert problem(client.post("/predict", json=wrong), 422)["detail"] == (
        "this model's ids are whole numbers; "
        "user_id: Input should be greater than or equal to 0; "
        "item_ids.1: Input should be a valid integer; "
        "item_ids.3: Input should be a valid integer"
    )


def test_of_many_problems_the_first_five_are_told_and_the_rest_counted(client: TestClient) -> None:
    wrong = {"user_id": 1, "item_ids": [True] * 60}
    detail = problem(client.post("/predict", json=wrong), 422)["detail"]
    assert detail.count("Input should be a valid integer") == 5
    assert detail.endswith("; and 55 more")


@pytest.mark.parametrize("value", ["warm", "nan", "1e400", "", "SECRET"])
def test_a_number_in_the_context_that_is_none_is_422(client: TestClient, value: str) -> None:
    request = REQUEST | {"context": {"temp": value}}
    detail = problem(client.post("/predict", json=request), 422)["detail"]
    assert detail in {
        "context.temp must be a number",
        "context.temp must be a finite 32-bit number",
    }


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("4376.0", 4376),
        ("1e3", 1_000),
        ("1E+3", 1_000),
        ("1500e-2", 15),
        ("-0.0", 0),
        ("9007199254740993.0", 9_007_199_254_740_993),
        ("9.223372036854775807e18", 2**63 - 1),
        ("0." + "0" * 400 + "7e401", 7),
    ],
)
def test_a_whole_number_may_be_written_in_any_way(
    client: TestClient, written: str, number: int
) -> None:
    body = f'{{"user_id": {written}, "item_ids": [3, {written}]}}'
    response = client.post("/predict", content=body).json()
    assert response["user_id"] == number
    assert sorted(p["item_id"] for p in response["predictions"]) == sorted([3, number])


_DIGITS = st.text("0123456789", max_size=25)


@given(st.sampled_from(["", "-"]), st.integers(0, 2**64), _DIGITS, st.integers(-30, 30))
def test_a_number_is_an_id_where_json_schema_says_so(
    client: TestClient, sign: str, whole: int, fraction: str, exponent: int
) -> None:
    written = f"{sign}{whole}{'.' * bool(fraction)}{fraction}e{exponent}"
    exact = Fraction(written)
    is_id = exact.denominator == 1 and 0 <= exact < 2**63
    response = client.post("/predict", content=f'{{"user_id": {written}, "item_ids": [1]}}')
    assert response.status_code == (200 if is_id else 422)
    if is_id:
        assert response.json()["user_id"] == exact


@pytest.mark.parametrize("number", [1, 3])
def test_an_unknown_field_is_told_which_there_are(client: TestClient, number: int) -> None:
    request = REQUEST | {f"contxt{i}": {} for i in range(number)}
    detail = problem(client.post("/predict", json=request), 422)["detail"]
    assert (
        detail
        == "body: unknown field; the fields are user_id, item_ids, context, features, explain"
    )


_marker = st.text("qzxj", min_size=12, max_size=40).map(lambda text: f"~{text}~")
_path = st.sampled_from(
    [
        ("user_id",),
        ("item_ids",),
        ("item_ids", 0),
        ("item_ids", 2),
        ("context",),
        ("context", "device"),
        ("context", "timestamp"),
        ("context", "temp"),
    ]
)


@given(_marker, _path, st.sampled_from(["value", "key", "list", "key of an object"]))
def test_a_text_anywhere_in_the_json_never_comes_back(
    client: TestClient, marker: str, path: tuple[Any, ...], how: str
) -> None:
    body: Any = {"user_id": 1, "item_ids": [1, 2, 3], "context": {"device": "mobile"}}
    place = body
    for key in path[:-1]:
        place = place[key]
    if how == "key":
        (place if isinstance(place, dict) else body)[marker] = 1
    else:
        place[path[-1]] = {"value": marker, "list": [marker], "key of an object": {marker: marker}}[
            how
        ]
    _never_repeated(client.post("/predict", json=body), marker)


@given(_marker, st.integers(0, 200), st.binary(max_size=3))
def test_a_text_anywhere_in_the_bytes_never_comes_back(
    client: TestClient, marker: str, at: int, around: bytes
) -> None:
    body = b'{"user_id": 1, "item_ids": [1, 2, 3], "context": {"device": "mobile"}}'
    spliced = body[:at] + around + marker.encode() + around + body[at:]
    _never_repeated(client.post("/predict", content=spliced), marker)


def _never_repeated(response: Response, marker: str) -> None:
    assert marker not in response.text
    assert marker not in str(response.headers)
    assert response.status_code in {200, 422}
    if response.status_code == 422:
        problem(response, 422)


@given(st.binary(max_size=200))
def test_any_bytes_at_all_get_a_problem(client: TestClient, body: bytes) -> None:
    problem(client.post("/predict", content=body), 422)


@pytest.mark.parametrize(
    "path",
    ["/SECRET", "/predict/", "/health/", "/predict/SECRET", "/Predict", "/docs/SECRET",
     "/redoc", "/predictions", "/..%2fpredict", "/\u00e9SECRET", "/favicon.ico"],
)  # fmt: skip
def test_another_path_is_404_and_never_repeated(client: TestClient, path: str) -> None:
    response = client.get(path, params={"q": "SECRET"}, follow_redirects=False)
    assert problem(response, 404)["detail"] == "Not Found"
    assert "SECRET" not in response.text + str(response.headers)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/predict", "POST"),
        ("PUT", "/predict", "POST"),
        ("DELETE", "/predict", "POST"),
        ("POST", "/health", "GET"),
        ("POST", "/metrics", "GET"),
        ("PATCH", "/model", "GET"),
        ("POST", "/", "GET"),
        ("POST", "/docs", "GET"),
    ],
)
def test_another_method_is_405_and_says_which_are_allowed(
    client: TestClient, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path)
    problem(response, 405)
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize(
    "error", [ScoringError("SECRET"), ZeroDivisionError("SECRET"), OSError(5, "SECRET")]
)
def test_an_unforeseen_error_is_500_and_its_text_stays_in_the_log(
    printed: fakes.LogLines, error: Exception
) -> None:
    response = clients.client(fakes.model(fakes.RaisingEngine(error))).post(
        "/predict", json=REQUEST
    )
    assert problem(response, 500)["detail"] == TITLES[500]
    assert "SECRET" not in response.text + str(response.headers)
    assert printed()[-1]["error"] == type(error).__name__


def test_an_unforeseen_error_is_logged_with_its_traceback(log: fakes.LogLines) -> None:
    client = clients.client(fakes.model(fakes.RaisingEngine(ZeroDivisionError("by zero"))))
    request_id = client.post("/predict", json=REQUEST).json()["request_id"]
    line = next(line for line in log() if line["message"] == "request failed")
    assert (line["level"], line["request_id"]) == ("ERROR", request_id)
    assert "ZeroDivisionError: by zero" in line["exception"]


def test_without_a_model_the_answer_is_503_and_when_to_ask_again() -> None:
    client = clients.client(None)
    for response in (client.post("/predict", json=REQUEST), client.get("/model")):
        assert problem(response, 503)["detail"] == TITLES[503]
        assert response.headers["retry-after"] == "5"
        assert "SECRET" not in response.text


def test_a_request_past_its_time_is_504() -> None:
    class SlowStore(fakes.FakeStore):
        waits = True

        async def fetch(self, query: Any, deadline_s: float) -> Any:
            import asyncio

            await asyncio.Event().wait()

    client = clients.client(fakes.model(store=SlowStore()), REQUEST_TIMEOUT_MS="10")
    problem(client.post("/predict", json=REQUEST), 504)
