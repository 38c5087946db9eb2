"""All measurements: functions that yield rows, and add plain data to the run's details."""

from collections.abc import Callable, Iterator, Mapping

from feedbench.bench import Bench
from feedbench.measures import cold_start, engines, front, memory, parity, servers, size, warm
from feedbench.results import Row

MEASURES: Mapping[str, Callable[[Bench], Iterator[Row]]] = {
    "cold start": cold_start.measure,
    "imports": cold_start.measure_imports,
    "warm": warm.measure,
    "servers": servers.measure,
    "engines": engines.measure,
    "load": front.measure,
    "size": size.measure,
    "parity": parity.measure,
    "memory": memory.measure,
}
