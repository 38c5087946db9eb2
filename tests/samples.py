"""AWS's own sample events, as `sam local generate-event` has them."""

import json
import re
from pathlib import Path
from typing import Any

import samcli

FOLDER = Path(samcli.__file__).parent / "lib/generated_sample_events/events"
PLACEHOLDER = re.compile(r"\{\{\{?\s*(\w+)\s*\}?\}\}")
HTTP_API, REST_API, ALB = "apigateway/HttpApi", "apigateway/AwsProxy", "alb/ALBRequest"
SCHEDULED = "cloudwatch/ScheduledEvent"


def sample(name: str, **values: str) -> Any:
    """Each placeholder that has no value here is `1`."""
    text = (FOLDER / f"{name}.json").read_text()
    return json.loads(PLACEHOLDER.sub(lambda at: values.get(at[1], "1"), text))


def names() -> list[str]:
    return sorted(f"{path.parent.name}/{path.stem}" for path in FOLDER.glob("*/*.json"))
