"""Metric data points from the logs of local Lambda environments.

The function's EMF lines are the ones that it also writes in AWS. Of AWS's own metrics there are
those that other lines of the log show: `STAND_INS` names them.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from feedops.errors import OperationError
from feedops.local.emulator_log import reports

Key = tuple[str, str, frozenset[tuple[str, str]]]  # namespace, name, dimensions
Points = dict[Key, list[tuple[float, float]]]  # (Unix time in seconds, value)

STAND_INS = {"AWS/ApiGateway": "request lines", "AWS/Logs": "line lengths"}
EVENT_OVERHEAD_BYTES = 26  # CloudWatch Logs bills them for each line
_EMULATOR_TIME = re.compile(r"(\d\d \w{3} \d{4} [\d:]+,\d{3}) \[")


def read(logs: Iterable[Path], *, api_id: str, log_group: str, filters_namespace: str) -> Points:
    """All metrics in these logs, one per environment. Raises OperationError for another file."""
    points: Points = defaultdict(list)
    billed: Key = (filters_namespace, "BilledDuration", frozenset())
    for path in logs:
        log = _Log(path, points, {("ApiId", api_id)}, {("LogGroupName", log_group)})
        points[billed] += [(log.now_s, report.billed_ms) for report in reports(log.lines())]
    return points


class _Log:
    """Adds a log's points to `points` as its lines are read."""

    def __init__(
        self, path: Path, points: Points, api: set[tuple[str, str]], group: set[tuple[str, str]]
    ) -> None:
        self.now_s = 0.0  # the time of the latest line that has one
        self._path = path
        self._points = points
        self._api = frozenset(api)
        self._group = frozenset(group)

    def lines(self) -> Iterator[str]:
        with self._path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if time := _EMULATOR_TIME.match(line):
                    moment = datetime.strptime(time[1], "%d %b %Y %H:%M:%S,%f").astimezone()
                    self.now_s = moment.timestamp()
                elif line.startswith("{") and line.endswith("}\n"):  # else it was cut off
                    self._add(line)
                yield line

    def _add(self, line: str) -> None:
        try:
            fields: dict[str, Any] = json.loads(line)
            if "_aws" in fields:
                self._add_emf(fields)
            if fields.get("message") == "request":
                self._add_request(fields["status"], fields["latency_ms"])
        except (KeyError, TypeError, ValueError) as error:
            start = line[:60].rstrip()
            raise OperationError(f"{self._path}: no log of a local environment: {start}") from error
        size = len(line.encode()) + EVENT_OVERHEAD_BYTES
        self._points["AWS/Logs", "IncomingBytes", self._group].append((self.now_s, size))

    def _add_emf(self, fields: dict[str, Any]) -> None:
        self.now_s = fields["_aws"]["Timestamp"] / 1_000
        for block in fields["_aws"]["CloudWatchMetrics"]:
            for names in block["Dimensions"]:
                dimensions = frozenset((name, fields[name]) for name in names)
                for metric in block["Metrics"]:
                    value = fields[metric["Name"]]  # EMF allows one value or a list
                    values = value if isinstance(value, list) else [value]
                    key = (block["Namespace"], metric["Name"], dimensions)
                    self._points[key] += [(self.now_s, value) for value in values]

    def _add_request(self, status: int, latency_ms: float) -> None:
        values = {
            "Count": 1,
            "4xx": HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR,
            "5xx": status >= HTTPStatus.INTERNAL_SERVER_ERROR,
            "Latency": latency_ms,
        }
        for name, value in values.items():
            self._points["AWS/ApiGateway", name, self._api].append((self.now_s, value))
