"""Statistics of metrics by period, and CloudWatch's metric math over them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feedops.cloudwatch.points import Key, Points

Array = NDArray[np.float64]

_SEARCH = re.compile(r"SEARCH\('\{([^}]*)\}([^']*)', '(\w+)', \d+\)")
_TERM = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a graph. `values` has one value per period, NaN where there is none."""

    label: str
    values: Array
    options: Mapping[str, Any]  # the widget's, such as color and yAxis
    namespace: str  # empty for an expression

    @property
    def is_empty(self) -> bool:
        return bool(np.isnan(self.values).all())

    @property
    def is_only_in_aws(self) -> bool:
        """The platform writes the metric, or a metric filter does from lines of the platform."""
        return self.is_empty and "/" in self.namespace


def key_of(metric: Sequence[str]) -> Key:
    """Of a widget's [namespace, name, dimension name, dimension value, ...]."""
    namespace, name, *dimensions = metric
    return namespace, name, frozenset(zip(dimensions[::2], dimensions[1::2], strict=True))


class Chart:
    """Data points over a time, in periods."""

    def __init__(self, points: Points, start_s: float, periods: int, period_s: float) -> None:
        self._points = points
        self._periods = periods
        self.period_s = period_s
        self.times_s: Array = start_s + period_s * np.arange(periods, dtype=np.float64)

    def lines(self, metrics: Sequence[Sequence[Any]]) -> list[Line]:
        """Of a widget's `metrics`: one line each, and one per metric that a SEARCH finds."""
        lines: list[Line] = []
        by_id: dict[str, Array] = {}
        for *metric, options in metrics:
            label = options.get("label", metric[1] if metric else "")
            if metric:
                series = [(label, self.statistic(key_of(metric), options["stat"]))]
            elif search := _SEARCH.fullmatch(options["expression"]):
                series = self._search(*search.groups(), label=label)
            else:
                series = [(label, self.calculated(options["expression"], by_id))]
            namespace = metric[0] if metric else ""
            lines += [Line(label, values, options, namespace) for label, values in series]
            by_id[options.get("id", "")] = lines[-1].values
        return lines

    def _search(self, schema: str, terms: str, stat: str, *, label: str) -> list[tuple[str, Array]]:
        namespace, *names = schema.split(",")
        values = set(_TERM.findall(terms))
        series = [
            (label or " ".join(sorted(v for _, v in key[2] - values)), self.statistic(key, stat))
            for key in sorted(self._points, key=str)
            if key[0] == namespace
            and {name for name, _ in key[2]} == set(names)
            and values <= key[2] | {("MetricName", key[1])}
        ]
        return series or [(label, np.full(self._periods, np.nan))]

    def statistic(self, key: Key, stat: str) -> Array:
        """Sum, Average, Minimum, Maximum, SampleCount or a percentile such as p99."""
        points = np.array(self._points.get(key, ())).reshape(-1, 2)
        periods = (points[:, 0] - self.times_s[0]) // self.period_s
        samples = pd.Series(points[:, 1]).groupby(periods)
        values = (
            samples.quantile(float(stat[1:]) / 100)
            if stat.startswith("p")
            else samples.agg(_STATISTICS[stat])
        )
        return values.reindex(range(self._periods)).to_numpy(np.float64)

    def calculated(self, expression: str, by_id: Mapping[str, Array]) -> Array:
        """The value of metric math. Raises ValueError for what is not implemented here."""
        functions = {
            "FILL": lambda values, fill: np.where(np.isnan(values), fill, values),
            "IF": np.where,
            "MAX": np.fmax.reduce,
            "PERIOD": lambda _: self.period_s,
        }
        text = expression.replace(" AND ", " and ").replace(" OR ", " or ")
        names = {**functions, **by_id}
        try:
            with np.errstate(divide="ignore", invalid="ignore"):
                result = pd.eval(text, engine="python", local_dict=names, global_dict={})
        except (NotImplementedError, SyntaxError, TypeError) as error:
            raise ValueError(f"metric math that is not known here: {expression}") from error
        return np.broadcast_to(np.asarray(result, float), (self._periods,))


_STATISTICS = {
    "Sum": "sum", "Average": "mean", "Minimum": "min", "Maximum": "max", "SampleCount": "count"
}  # fmt: skip
