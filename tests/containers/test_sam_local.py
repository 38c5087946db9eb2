"""SAM's own commands, in containers, compared with the local Lambda runtime of `feedrank invoke`.

The base image is the one that is here by AWS's name and tag, or is pulled.
"""

import json
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from containers.answers import TIMEOUT_S, Answer, asked
from containers.sam import Handle, Sam
from feedops.local.gateway import example_event
from feedops.workspace import EVENTS
from feedrank.http.routes import ROUTES

EVENT_FILES = sorted(EVENTS.glob("*.json"))
INVOCATIONS = "/2015-03-31/functions/Function/invocations"
ASKED = {"user_id": 123, "item_ids": [5, 12, 41, 64, 199]}
# What a client sends to /predict: a ranking, and what is refused.
BODIES = {
    "a ranking": json.dumps(ASKED),
    "a negative id": json.dumps(ASKED | {"user_id": -1}),
    "no JSON": '{"user_id": 123,',
    "too many items": json.dumps(ASKED | {"item_ids": [*range(101)]}),
    "an unknown context": json.dumps(ASKED | {"context": {"moon": "full"}}),
}
# Their values are of a container; the keys are compared.
OF_A_CONTAINER = {"/health", "/metrics"}
PATHS = [route.path for route in ROUTES if route.method == "GET" and not route.is_probe]


@pytest.fixture(scope="module")
def sam(checkout: Path) -> Sam:
    return Sam(checkout)


@pytest.fixture(scope="module")
def api(sam: Sam) -> Iterator[str]:
    """`sam local start-api`, with containers of every function from the start."""
    with sam.serving("start-api", "--warm-containers", "EAGER") as url:
        yield url


@pytest.mark.parametrize("event", EVENT_FILES, ids=lambda path: path.stem)
def test_an_event_is_answered_as_by_the_local_lambda(sam: Sam, event: Path, handle: Handle) -> None:
    answer, expected = Answer.of(sam.invoke(event)), Answer.of(handle(event.read_bytes()))
    if f"/{event.stem}" in OF_A_CONTAINER:
        assert answer.status == HTTPStatus.OK
        assert answer.body.keys() == expected.body.keys()
    else:
        assert answer == expected


def test_start_lambda_answers_events_as_the_local_lambda_does(sam: Sam, handle: Handle) -> None:
    with sam.serving("start-lambda") as url:
        for name in ("predict", "malformed_json"):
            event = (EVENTS / f"{name}.json").read_bytes()
            with urlopen(Request(url + INVOCATIONS, event), timeout=TIMEOUT_S) as response:
                answer = Answer.of(json.loads(response.read()))
            assert answer == Answer.of(handle(event))


@pytest.mark.parametrize("path", PATHS)
def test_start_api_answers_a_route_as_the_local_lambda_does(
    api: str, path: str, handle: Handle
) -> None:
    answer, expected = asked(api + path), Answer.of(handle(example_event("GET", path)))
    assert answer.status == HTTPStatus.OK
    if path in OF_A_CONTAINER:
        assert answer.body.keys() == expected.body.keys()
    else:
        assert answer == expected


@pytest.mark.parametrize("name", BODIES)
def test_start_api_ranks_and_refuses_as_the_local_lambda_does(
    api: str, name: str, handle: Handle
) -> None:
    event = example_event("POST", "/predict", BODIES[name].encode())
    answer = asked(f"{api}/predict", BODIES[name])
    assert answer == Answer.of(handle(event))
    assert answer.status == (HTTPStatus.OK if name == "a ranking" else 422)


def test_start_api_ranks_as_it_is_typed(sam: Sam, handle: Handle) -> None:
    """With a container for the request."""
    body = BODIES["a ranking"]
    with sam.serving("start-api") as url:
        answer = asked(f"{url}/predict", body)
    assert answer == Answer.of(handle(example_event("POST", "/predict", body.encode())))


def test_start_api_serves_no_other_route(api: str) -> None:
    """With REST's answer instead of a 404 by an HTTP API: SAM knows one for both."""
    for path in ("/live", "/predictions"):
        assert asked(api + path).status == HTTPStatus.FORBIDDEN
    assert asked(f"{api}/health", "{}").status == HTTPStatus.FORBIDDEN
