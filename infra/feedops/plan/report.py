"""A plan in words, as tables and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from feedops.display import print_whole
from feedops.plan import prices
from feedops.plan.kept_ready import most_ready
from feedops.plan.measured import BASELINE
from feedops.plan.plan import Plan
from feedops.plan.prices import assumption
from feedops.plan.quotas import Need
from feedops.plan.ways import ENVIRONMENTS, Way

KB_IN_MB = 1_000.0
LEAST_SHOWN_SHARE = 0.005
HEADINGS = (
    *("at peak", "cold starts/day", "429/day", "p99 ms", "worst min."),
    *("compute USD", "month USD"),
)


def print_plan(plan: Plan, console: Console) -> None:
    for line in introduction(plan):
        print_whole(console, line)
    console.print(_ways(plan))
    print_whole(console, bill_line(plan.choice))
    console.print(_needs(plan))
    print_whole(console, f"Take: {plan.choice.name}. In samconfig.toml:")
    print_whole(console, overrides(plan))
    for line in remarks(plan):
        print_whole(console, line)


def introduction(plan: Plan) -> Iterator[str]:
    workload, measured = plan.workload, plan.workload.measured
    traffic, shown = workload.traffic, measured.service.percentiles_ms
    peak = "" if traffic.name == "constant" else ", at the busiest time"
    yield (
        f"{traffic.peak_per_s:,g} requests/s{peak} ({traffic.name}), "
        f"{traffic.requests * workload.per_day / 1e6:,.0f} million a day"
    )
    percentiles = ", ".join(f"p{p:g} {shown[p]:.1f}" for p in (50, 95, 99) if p in shown)
    yield (
        f"Durations {percentiles} ms, init {measured.init_ms:.0f} ms, "
        f"{measured.memory_mb:,.0f} MB, {measured.server_per_s:,.0f} requests/s of a uvicorn worker"
    )
    yield f"Measured: {measured.source}"


def _ways(plan: Plan) -> Table:
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column(no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for way in plan.ways:
        table.add_row(_name(way), *_cells(way), style="bold" if way is plan.choice else "")
    return table


def _name(way: Way) -> str:
    return way.name if way.unit == ENVIRONMENTS else f"{way.name}, {way.unit}"


def _cells(way: Way) -> tuple[str, ...]:
    return (
        f"{way.capacity:,}",
        number(way.cold_starts) if way.unit == ENVIRONMENTS else "-",
        number(way.throttled) if way.unit == ENVIRONMENTS else "-",
        milliseconds(way.p99_ms),
        milliseconds(way.worst_minute_p99_ms),
        f"{way.compute_usd:,.0f}",
        f"{way.usd:,.0f}",
    )


def number(value: float) -> str:
    """An expected number: below 10 with a decimal, since 0.4 is not none."""
    return f"{value:.1f}" if 0.05 <= value < 10.0 else f"{value:,.0f}"  # noqa: PLR2004


def milliseconds(value: float) -> str:
    return f"{value:.1f}" if value < 100.0 else f"{value:,.0f}"  # noqa: PLR2004


def bill_line(way: Way) -> str:
    """The larger parts of a month, the largest first."""
    parts = sorted({**way.compute, **way.around}.items(), key=lambda part: -part[1])
    large = [f"{name} {usd:,.0f}" for name, usd in parts if usd >= LEAST_SHOWN_SHARE * way.usd]
    return f"{way.name}, USD a month: {', '.join(large)}."


def _needs(plan: Plan) -> Table:
    table = Table("quota", box=SIMPLE, pad_edge=False)
    for heading in ("default", "needed", ""):
        table.add_column(heading, justify="right")
    for need in plan.needs:
        table.add_row(need.what, f"{need.quota:,g}", f"{need.need:,g}", advice(need))
    return table


def advice(need: Need) -> str:
    if not need.is_short:
        return "enough"
    return f"raise ({need.code})" if need.code else "raise"


def overrides(plan: Plan) -> str:
    pairs = ", ".join(f'"{name}={value}"' for name, value in plan.parameters.items())
    return f"parameter_overrides = [{pairs}]"


def remarks(plan: Plan) -> Iterator[str]:
    workload = plan.workload
    if workload.measured.source.startswith(BASELINE.name):
        yield "Durations are the local front's under load, client included; --log takes your own."
    megabytes = workload.traffic.peak_per_s * assumption("function_log_kb") / KB_IN_MB
    yield (
        f"Log of the function: {megabytes:,.1f} MB/s at the peak; AWS publishes no limit for it. "
        "Times are without the network."
    )
    if spilled := next((way.spilled for way in plan.ways if way.spilled), 0.0):
        yield f"Provisioned: {number(spilled)} requests a day spill over."
    if most_ready(workload) < 1:
        unreserved = prices.quota("lambda_unreserved")
        yield (
            f"Provisioned: none; {unreserved:.0f} of the account's concurrency stay unreserved, "
            f"and it has {workload.concurrency:,}."
        )
    if workload.gpu_per_s == 0.0:
        yield "GPU: counted with what its CPUs serve; --gpu-per-s takes your measurement."
    yield (
        f"List prices of {prices.DATA['region']}, {prices.DATA['date']}; not confirmed: "
        f"{', '.join(prices.unconfirmed())}."
    )


def as_json(plan: Plan) -> dict[str, Any]:
    workload = plan.workload
    return {
        "traffic": {
            "name": workload.traffic.name,
            "peak_per_s": workload.traffic.peak_per_s,
            "requests_per_day": workload.traffic.requests * workload.per_day,
        },
        "measured": asdict(workload.measured),
        "ways": [
            {**asdict(way), "compute_usd": way.compute_usd, "usd": way.usd} for way in plan.ways
        ],
        "choice": plan.choice.name,
        "quotas": [{**asdict(need), "is_short": need.is_short} for need in plan.needs],
        "parameters": dict(plan.parameters),
        "prices": {"region": prices.DATA["region"], "date": str(prices.DATA["date"])},
    }
