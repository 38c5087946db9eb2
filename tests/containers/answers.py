"""Responses of the function, compared without what differs from one request to the next."""

import json
from typing import Any, NamedTuple

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
