"""AWS's own sample events, as `sam local generate-event` has them."""

import json
import re
from pathlib import Path
from typing import Any

import samcli

DIRECTORY = Path(samcli.__file__).parent / "lib/generated_sample_events/events"
PLACEHOLDER = re.compile(r"\{\{\{?\s*(\w+)\s*\}?\}\}")
HTTP_API, REST_API, ALB = "apigateway/HttpApi", "apigateway/AwsProxy", "alb/ALBRequest"
SCHEDULED = "cloudwatch/ScheduledEvent"


def sample(name: str, **values: str) -> Any:
    """The event, with `1` for each placeholder that has no value here."""
    text = (DIRECTORY / f"{name}.json").read_text()
    return json.loads(PLACEHOLDER.sub(lambda match: values.get(match[1], "1"), text))


def names() -> list[str]:
    return sorted(f"{path.parent.name}/{path.stem}" for path in DIRECTORY.glob("*/*.json"))
