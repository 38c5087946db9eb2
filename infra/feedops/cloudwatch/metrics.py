"""Metrics as CloudWatch would have them, from the logs of local environments.

The function's EMF lines are what it sends in AWS too. Of a service's own metrics there are those
that another line of the log truly says: `STAND_INS` names them.
"""

import ast
import json
import operator
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedops.errors import OperationError
from feedops.local.emulator_log import reports

Array = NDArray[np.float64]
Key = tuple[str, str, frozenset[tuple[str, str]]]  # namespace, name, dimensions
Points = dict[Key, list[tuple[float, float]]]  # (Unix time in seconds, value)

STAND_INS = {
    "AWS/ApiGateway": "request lines",
    "AWS/Logs": "line lengths",
}
EVENT_OVERHEAD_BYTES = 26  # what CloudWatch Logs adds to the price of each event
CLIENT_ERROR = 400
SERVER_ERROR = 500
_EMULATOR_TIME = re.compile(r"(\d\d \w{3} \d{4} [\d:]+,\d{3}) \[")
_SEARCH = re.compile(r"SEARCH\('\{([^}]*)\}([^']*)', '(\w+)', \d+\)")
_TERM = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Line:
    """What a graph draws: a value for each period, NaN where there is none."""

    label: str
    values: Array
    color: str | None = None
    right: bool = False
    visible: bool = True


def read(logs: Iterable[Path], *, api_id: str, log_group: str, filters_namespace: str) -> Points:
    """All metrics in these logs, one file an environment."""
    points: Points = defaultdict(list)
    api = frozenset({("ApiId", api_id)})
    group = frozenset({("LogGroupName", log_group)})
    billed: Key = (filters_namespace, "BilledDuration", frozenset())
    for path in logs:
        clock = _Clock()
        for report in reports(_observed(path, clock, points, api, group)):
            billed_ms = ceil(report.duration_ms + (report.init_ms or 0.0))
            points[billed].append((clock.now_s, billed_ms))
    return points


@dataclass(slots=True)
class _Clock:
    """The time of the latest line that had one."""

    now_s: float = 0.0


def _observed(
    path: Path,
    clock: _Clock,
    points: Points,
    api: frozenset[tuple[str, str]],
    group: frozenset[tuple[str, str]],
) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if time := _EMULATOR_TIME.match(line):
                clock.now_s = datetime.strptime(time[1], "%d %b %Y %H:%M:%S,%f").timestamp()  # noqa: DTZ007 the emulator writes local time
            elif line.startswith("{") and line.endswith("}\n"):  # one that was killed ends midway
                try:
                    _read_json(json.loads(line), clock, points, api)
                except (KeyError, TypeError, ValueError) as error:
                    raise OperationError(
                        f"{path}: no log of a local environment: {line[:60].rstrip()}"
                    ) from error
                size = len(line.encode()) + EVENT_OVERHEAD_BYTES
                points["AWS/Logs", "IncomingBytes", group].append((clock.now_s, size))
            yield line


def _read_json(
    line: dict[str, Any], clock: _Clock, points: Points, api: frozenset[tuple[str, str]]
) -> None:
    if "_aws" in line:
        clock.now_s = line["_aws"]["Timestamp"] / 1_000
        for block in line["_aws"]["CloudWatchMetrics"]:
            for names in block["Dimensions"]:
                dimensions = frozenset((name, line[name]) for name in names)
                for metric in block["Metrics"]:
                    key = (block["Namespace"], metric["Name"], dimensions)
                    values = line[metric["Name"]]  # EMF allows one value or a list
                    listed = values if isinstance(values, list) else [values]
                    points[key].extend((clock.now_s, value) for value in listed)
    if line.get("message") == "request":
        at, status = clock.now_s, line["status"]
        points["AWS/ApiGateway", "Count", api].append((at, 1))
        points["AWS/ApiGateway", "4xx", api].append((at, CLIENT_ERROR <= status < SERVER_ERROR))
        points["AWS/ApiGateway", "5xx", api].append((at, status >= SERVER_ERROR))
        points["AWS/ApiGateway", "Latency", api].append((at, line["latency_ms"]))


class Chart:
    """Statistics of points, period by period, and the metric math over them."""

    def __init__(self, points: Points, start_s: float, periods: int, period_s: float) -> None:
        self._points = points
        self._start_s = start_s
        self._periods = periods
        self.period_s = period_s

    @property
    def times_s(self) -> Array:
        return self._start_s + self.period_s * np.arange(self._periods, dtype=np.float64)

    def lines(self, metrics: Sequence[Sequence[Any]]) -> list[Line]:
        """Of a widget's `metrics`; what has no points is NaN all over."""
        found: list[Line] = []
        by_id: dict[str, Array] = {}
        for metric in metrics:
            options = metric[-1]
            if "expression" in options:
                made = self._expressed(options["expression"], options.get("label", ""), by_id)
            else:
                namespace, name, *dimensions = metric[:-1]
                key = (
                    namespace,
                    name,
                    frozenset(zip(dimensions[::2], dimensions[1::2], strict=True)),
                )
                made = [(options.get("label", name), self.statistic(key, options["stat"]))]
            if "id" in options:
                by_id[options["id"]] = made[-1][1]
            found += [
                Line(
                    label,
                    values,
                    options.get("color") if len(made) == 1 else None,
                    right=options.get("yAxis") == "right",
                    visible=options.get("visible", True),
                )
                for label, values in made
            ]
        return found

    def statistic(self, key: Key, stat: str) -> Array:
        """Sum, Average, Minimum, Maximum, SampleCount or a percentile such as p99."""
        values = np.full(self._periods, np.nan)
        points = np.array(self._points.get(key, ())).reshape(-1, 2)
        places = ((points[:, 0] - self._start_s) // self.period_s).astype(int)
        for place in np.unique(places[(places >= 0) & (places < self._periods)]):
            values[place] = _STATISTICS[stat[0]](points[places == place, 1], stat)
        return values

    def calculated(self, expression: str, by_id: Mapping[str, Array]) -> Array:
        """Metric math. Raises ValueError for what it doesn't know."""
        text = expression.replace(" AND ", " and ").replace(" OR ", " or ")
        with np.errstate(divide="ignore", invalid="ignore"):
            value = self._evaluated(ast.parse(text, mode="eval").body, by_id)
        return np.broadcast_to(np.asarray(value, float), (self._periods,))

    def _expressed(
        self, expression: str, label: str, by_id: Mapping[str, Array]
    ) -> list[tuple[str, Array]]:
        if search := _SEARCH.fullmatch(expression):
            return self._searched(*search.groups(), label=label) or [
                (label, np.full(self._periods, np.nan))
            ]
        return [(label, self.calculated(expression, by_id))]

    def _searched(
        self, schema: str, terms: str, stat: str, *, label: str
    ) -> list[tuple[str, Array]]:
        namespace, *names = schema.split(",")
        wanted = set(_TERM.findall(terms))
        return [
            (label or " ".join(sorted(v for _, v in key[2] - wanted)), self.statistic(key, stat))
            for key in sorted(self._points, key=str)
            if key[0] == namespace
            and {name for name, _ in key[2]} == set(names)
            and wanted <= key[2] | {("MetricName", key[1])}
        ]

    def _evaluated(self, node: ast.expr, by_id: Mapping[str, Array]) -> Any:  # noqa: ANN401, PLR0911 one line each
        def value(part: ast.expr) -> Any:  # noqa: ANN401
            return self._evaluated(part, by_id)

        match node:
            case ast.Constant(value=float() | int() as number):
                return number
            case ast.Name(id=name):
                return by_id[name]
            case ast.List(elts=parts):
                return [value(part) for part in parts]
            case ast.BinOp(left, op, right):
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.Compare(left, [op], [right]):
                return _OPERATORS[type(op)](value(left), value(right))
            case ast.BoolOp(ast.And(), parts):
                return np.logical_and.reduce([value(part) for part in parts])
            case ast.Call(ast.Name(id="PERIOD")):
                return self.period_s
            case ast.Call(ast.Name(id=name), arguments):
                return _FUNCTIONS[name](*map(value, arguments))
        raise ValueError(f"metric math has {ast.unparse(node)!r}, which is not known here")


_STATISTICS: Mapping[str, Callable[[Array, str], float]] = {
    "S": lambda v, stat: float(len(v) if stat == "SampleCount" else v.sum()),
    "A": lambda v, _: float(v.mean()),
    "M": lambda v, stat: float(v.max() if stat == "Maximum" else v.min()),
    "p": lambda v, stat: float(np.percentile(v, float(stat[1:]))),
}
_OPERATORS: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: np.divide,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "FILL": lambda values, fill: np.where(np.isnan(values), fill, values),
    "IF": np.where,
    "MAX": np.fmax.reduce,
}
