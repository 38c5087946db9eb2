"""Generated requests, with and without the service's own OpenAPI document.

Schemathesis draws valid and invalid requests from the document and compares each response with it:
status, content type, headers and schema; no 5xx, no invalid request accepted, no valid one refused.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.client import HTTPConnection
from itertools import cycle, islice
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation, BaseSchema
from starlette.types import Message, Scope

import fakes
import hostile
from feedrank.http.observer import Observer
from feedrank.http.problems import PROBLEM_JSON
from long import wire
from long.conftest import CASES, GENEROUS, PATIENT, Count, Fuzz, lines_of, printing
from long.predictions import WITH_EVERYTHING, damaged
from long.served import on_the_local_lambda, under_uvicorn

SPEC: dict[str, Any] = {
    "inputs": [
        {
            "name": "features",
            "features": [
                *fakes.SMALL_SPEC["inputs"][0]["features"],
                {"name": "mobile", "source": "context", "expression": "equals(device, mobile)"},
            ],
        }
    ],
    "context": {"device": ["tv"]},
}
WITHOUT_PARAMETERS = ["/health", "/live", "/ready", "/metrics", "/model", "/"]
ON_THE_WIRE = max(CASES // 10, 10)
LONGEST_ERROR_BYTES = 1_024
STATUSES = {200, 400, 404, 405, 413, 422}
OF_THE_SERVER = {400, 417}  # not HTTP; an `Expect` that can't be met

RawResponse = tuple[int, dict[str, str], bytes]
RawRequest = tuple[str, str, dict[str, str], dict[str, str], bytes]
hostile_bodies = (
    wire.bodies | st.sampled_from(list(hostile.INVALID.values())) | damaged(WITH_EVERYTHING)
)
requests_of_any_kind: st.SearchStrategy[RawRequest] = st.tuples(
    st.just("POST") | st.sampled_from(wire.METHODS), st.just("/predict") | wire.paths,
    wire.queries, wire.headers, hostile_bodies,
)  # fmt: skip


# Each of these once got a wrong response.
REGRESSIONS: tuple[RawRequest, ...] = (
    ("GET", "/predict", {}, {"expect": wire.SECRET}, b""),  # the front echoed it
    ("GET", "/predict", {}, {"expect": f"{wire.SECRET}\x80"}, b""),  # and returned 500
)


@pytest.fixture(scope="module", params=["a small model", "everything"])
def app(request: pytest.FixtureRequest) -> Iterator[Observer]:
    if request.param == "a small model":
        yield fakes.app(fakes.model(**SPEC), **PATIENT)
        return
    bundle = request.getfixturevalue("everything_bundle")
    with fakes.container(MODEL_URI=str(bundle), **GENEROUS) as handler:
        yield handler.app()


@pytest.fixture(scope="module")
def in_process(app: Observer) -> BaseSchema:
    _, _, document = asyncio.run(call(app, ("GET", "/openapi.json", {}, {}, b"")))
    schema = with_formats(json.loads(document))
    schema.app = app
    return schema


def with_formats(document: dict[str, Any]) -> BaseSchema:
    """The document, with formats that it only describes in words (a time, a number) in a form that
    the generator reads."""
    request = document["components"]["schemas"]["PredictRequest"]
    context = request["properties"]["context"]["properties"]
    context["timestamp"]["format"] = "date-time"
    if "temp" in context:
        context["temp"]["pattern"] = r"^-?[0-9]{1,9}(\.[0-9]{1,9})?$"
    schema: BaseSchema = schemathesis.openapi.from_dict(document)
    return schema


def predictions(schema: BaseSchema, mode: GenerationMode) -> st.SearchStrategy[Case]:
    """Valid ones have as many candidate features as items, which no JSON Schema can say."""
    cases = schema["/predict"]["POST"].as_strategy(generation_mode=mode)
    return cases.map(with_features_of_each_item) if mode is GenerationMode.POSITIVE else cases


def with_features_of_each_item(case: Case) -> Case:
    size = len(case.body["item_ids"])
    for name, cells in case.body.get("features", {}).items():
        case.body["features"][name] = [*islice(cycle(cells or [None]), size)]
    return case


def ignored_parts(operation: APIOperation) -> st.SearchStrategy[Case]:
    """For an operation without parameters: a query and headers, which it should ignore."""
    return st.builds(operation.Case, query=wire.queries, headers=wire.headers)


@pytest.mark.parametrize("mode", GenerationMode, ids=[mode.value for mode in GenerationMode])
def test_a_prediction_is_as_documented(
    in_process: BaseSchema, fuzz: Fuzz, count: Count, mode: GenerationMode
) -> None:
    def check(case: Case) -> None:
        with printing():
            response = case.call()
        case.validate_response(response)
        count(response.status_code)

    fuzz(check, predictions(in_process, mode))


def test_every_operation_is_tested(in_process: BaseSchema) -> None:
    paths = {operation.ok().path for operation in in_process.get_all_operations()}
    assert paths == {"/predict", *WITHOUT_PARAMETERS}


@pytest.mark.parametrize("path", WITHOUT_PARAMETERS)
def test_an_operation_without_parameters_is_as_documented(
    in_process: BaseSchema, fuzz: Fuzz, count: Count, path: str
) -> None:
    def check(case: Case) -> None:
        with printing():
            response = case.call()
        case.validate_response(response)
        assert response.status_code == 200
        count(response.status_code)

    fuzz(check, ignored_parts(in_process[path]["GET"]))


def test_no_request_is_echoed_in_an_error_or_in_the_log(
    app: Observer, fuzz: Fuzz, count: Count
) -> None:
    def check(case: RawRequest) -> None:
        with printing() as output:
            status, headers, body = asyncio.run(call(app, case))
        check_response(status, headers, body)
        for line in lines_of(output):
            assert wire.SECRET not in line
            assert "record" in json.loads(line) or json.loads(line)["status"] == status
        count(status)

    fuzz(check, requests_of_any_kind)


async def call(app: Observer, request: RawRequest) -> RawResponse:
    """Calls the app as a server does."""
    method, path, query, headers, body = request
    messages: list[Message] = []
    scope: Scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "",
        "query_string": urlencode(query).encode(),
        "headers": [(k.encode(), v.encode("latin-1")) for k, v in headers.items()],
        "client": ("192.0.2.1", 40_000), "server": ("testserver", 80),
    }  # fmt: skip

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        messages.append(dict(message))

    await app(scope, receive, send)
    start, *parts = messages
    response_headers = {
        k.decode("latin-1").lower(): v.decode("latin-1") for k, v in start["headers"]
    }
    return start["status"], response_headers, b"".join(part.get("body", b"") for part in parts)


def check_response(status: int, headers: Mapping[str, str], body: bytes) -> None:
    assert status in STATUSES
    assert headers["x-request-id"]
    assert wire.SECRET not in str(headers)
    assert wire.SECRET.encode() not in body
    if status != HTTPStatus.OK and body:  # HEAD has none
        assert headers["content-type"] == PROBLEM_JSON
        assert json.loads(body)["status"] == status
        assert len(body) <= LONGEST_ERROR_BYTES


# A sample of the same over HTTP


@pytest.fixture(
    scope="module",
    params=[
        (under_uvicorn, "demo_bundle"),
        (on_the_local_lambda, "demo_bundle"),
        (on_the_local_lambda, "everything_bundle"),
    ],
    ids=lambda param: f"{param[0].__name__}, {param[1]}",
)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    serve, bundle = request.param
    directory = tmp_path_factory.mktemp("served")
    with serve(request.getfixturevalue(bundle), directory, **GENEROUS) as server_url:
        yield server_url


@pytest.mark.parametrize("mode", GenerationMode, ids=[mode.value for mode in GenerationMode])
def test_over_http_a_prediction_is_as_documented(
    url: str, fuzz: Fuzz, count: Count, mode: GenerationMode
) -> None:
    document = httpx2.get(f"{url}/openapi.json").json()
    with requests.Session() as session:

        def check(case: Case) -> None:
            response = case.call(base_url=url, session=session)
            case.validate_response(response)
            count(response.status_code)

        fuzz(check, predictions(with_formats(document), mode), cases=ON_THE_WIRE)


def test_over_http_no_request_is_echoed_in_an_error(url: str, fuzz: Fuzz, count: Count) -> None:
    connection = HTTPConnection(url.removeprefix("http://"), timeout=60)

    def check(case: RawRequest) -> None:
        method, path, query, headers, content = case
        target = f"{quote(path)}?{urlencode(query)}"
        connection.request(method, target, content, {**headers, "connection": "close"})
        response = connection.getresponse()
        response_headers = {name.lower(): value for name, value in response.getheaders()}
        body = response.read()
        if "x-request-id" not in response_headers:
            assert response.status in OF_THE_SERVER
            if "apigw-requestid" in response_headers:  # else aiohttp's parser refused it
                assert wire.SECRET.encode() not in body
            count(f"{response.status} of the server itself")
        else:
            check_response(response.status, response_headers, body)
            count(response.status)

    fuzz(check, requests_of_any_kind, REGRESSIONS, ON_THE_WIRE)
