"""Responses of the function, compared without what differs from one request to the next."""

import json
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

TIMEOUT_S = 120
OF_ITS_TIME = {"latency_ms", "timestamp", "request_id"}


class Answer(NamedTuple):
    status: int
    content_type: str
    body: Any  # of JSON its value, without the parts that are of its time

    @classmethod
    def of(cls, result: dict[str, Any]) -> "Answer":
        """Of a function's response, in any format of an event."""
        several = {name: values[0] for name, values in result.get("multiValueHeaders", {}).items()}
        headers = {
            name.lower(): value for name, value in (result.get("headers") or several).items()
        }
        return cls.of_text(result["statusCode"], headers["content-type"], result["body"])

    @classmethod
    def of_text(cls, status: int, content_type: str, text: str) -> "Answer":
        body = json.loads(text) if "json" in content_type else text
        if isinstance(body, dict):
            body = {key: value for key, value in body.items() if key not in OF_ITS_TIME}
        return cls(status, content_type, body)


def asked(url: str, body: str | None = None) -> Answer:
    """By HTTP, an error's response too."""
    content = None if body is None else body.encode()
    request = Request(url, content, {"content-type": "application/json"} if body else {})
    try:
        response = urlopen(request, timeout=TIMEOUT_S)
    except HTTPError as error:
        response = error
    with response:
        text = response.read().decode()
        return Answer.of_text(response.status, response.headers["content-type"], text)
