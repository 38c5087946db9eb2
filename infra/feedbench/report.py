"""Results as Markdown: a report, and the shorter block that the README shows."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from feedbench import plots
from feedbench.results import FLOOR, Results, Row
from feedops.errors import OperationError

FOLDER = Path(__file__).with_name("report")
REPORT = "README.md"
BEGIN = "<!-- performance: made by `feedrank bench --readme` -->"
END = "<!-- performance: end -->"
HOW = (
    "A ratio is the median over rounds; in each round the two were measured next to each other. "
    "In brackets: the 95 % bootstrap interval."
)
BySize = Mapping[str, Mapping[str, float]]  # by number of items, then by name
CAPTIONS = {
    "cold_start": "Cold start by stage",
    "request": "A warm request by stage",
    "latency": "Latency distributions",
    "throughput": "Throughput against other servers",
    "size": "Size by dependency",
}


def write(results: Results, folder: Path) -> Path:
    """The report and its pictures."""
    pictures = plots.draw(results, folder)
    path = folder / REPORT
    path.write_text(markdown(results, {name: each.name for name, each in pictures.items()}))
    return path


def markdown(results: Results, pictures: Mapping[str, str]) -> str:
    sections = [
        "# Performance",
        provenance(results),
        table(results.rows),
        HOW,
        *(f"- {note}" for note in results.notes),
        *_pictures(pictures),
        *_cold_start(results.details.get("cold_start"), results.details.get("imports")),
        *_request(results.details.get("warm_stages_us"), results.details.get("warm_parts_us")),
        *_servers(results.details.get("servers")),
        *_front(results.details.get("front")),
    ]
    return "\n\n".join(sections) + "\n"


def readme_block(results: Results, pictures: Mapping[str, str]) -> str:
    missed = [row for row in results.rows if not row.is_met]
    verdict = (
        f"{len(results.rows) - len(missed)} of {len(results.rows)} bars are met."
        if missed
        else "Every bar is met."
    )
    parts = [BEGIN, table(results.rows), f"{verdict} {provenance(results)}"]
    return "\n\n".join([*parts, *_pictures(pictures), END])


def into_readme(readme: str, block: str) -> str:
    """The README with this block in the old one's place. Raises OperationError without a place."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise OperationError(f"README.md lacks the lines {BEGIN} and {END}")
    return before + block + after


def provenance(results: Results) -> str:
    machine, setup, versions = results.machine, results.setup, results.versions
    named = ", ".join(
        f"{name} {versions[name]}"
        for name in ("onnxruntime", "torch", "fastapi", "mangum", "mlflow")
        if name in versions
    )
    return (
        f"Measured {results.date[:10]} ({results.effort} run) on {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['memory_gb']:.0f} GB; cold starts and warm handler: "
        f"{setup['target']}, Python {setup['python']}; model {setup['bundle']}; {named}; "
        f"{setup['cores']}."
    )


def table(rows: Iterable[Row]) -> str:
    lines = ["| | measured | bar | |", "|---|---|---|---|"]
    for row in rows:
        met = "met" if row.is_met else "**missed**"
        note = f"<br><sub>{row.note}</sub>" if row.note else ""
        lines.append(f"| {row.what}{note} | {measured(row)} | {_bar(row)} | {met} |")
    return "\n".join(lines)


def measured(row: Row) -> str:
    unit = f" {row.unit}" if row.unit else ""
    spread = f" [{_number(row.low)}, {_number(row.high)}]" if row.low < row.high else ""
    return f"{_number(row.value)}{unit}{spread}"


def _bar(row: Row) -> str:
    limit = "at most" if row.better == "lower" else "at least"
    return f"{limit} {_number(row.bar)}{f' {row.unit}' if row.unit else ''}"


def _number(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) < 0.001:  # noqa: PLR2004
        return f"{value:.1e}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:,.0f}"  # noqa: PLR2004


def _pictures(pictures: Mapping[str, str]) -> list[str]:
    return [f"![{CAPTIONS[name]}]({path})" for name, path in pictures.items()]


def _cold_start(found: Mapping[str, Any] | None, imports: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return []
    inits = found["emulator_init_ms"]
    lines = ["| stage of a cold start | ms |", "|---|---|"]
    lines += [f"| {name} | {ms:.1f} |" for name, ms in found["waterfall_ms"].items()]
    parts = ["## Cold start", "\n".join(lines)]
    if inits:
        middle = sorted(inits)[len(inits) // 2]
        parts.append(f"INIT REPORT of the emulator: {middle:.0f} ms (median of {len(inits)}).")
    if imports:
        alone = ["| package, alone in a fresh interpreter | ms |", "|---|---|"]
        alone += [f"| {name} | {ms:.0f} |" for name, ms in imports["alone_ms"].items()]
        parts.append("\n".join(alone))
    return parts


def _request(stages: BySize | None, parts: BySize | None) -> list[str]:
    if not stages or not parts:
        return []
    whole = {size: {**us, "the whole": sum(us.values())} for size, us in stages.items()}
    return [
        "## A warm request",
        _by_size("stage of a warm request, µs", whole),
        "Each by itself, in blocks by turns; the handler here without a stopwatch inside:",
        _by_size("p50, µs", parts),
    ]


def _by_size(title: str, found: BySize) -> str:
    lines = [
        f"| {title} | " + " | ".join(f"{items} items" for items in found) + " |",
        "|---" * (len(found) + 1) + "|",
    ]
    for name in next(iter(found.values())):
        numbers = " | ".join(f"{each[name]:,.0f}" for each in found.values())
        lines.append(f"| {name} | {numbers} |")
    return "\n".join(lines)


def _servers(found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return []
    rates = found["requests_per_s"]
    sizes = next(iter(rates.values()))
    by_size = {size: {name: each[size]["value"] for name, each in rates.items()} for size in sizes}
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    how = (
        f"Driven by {found['generator']} over {found['connections']} connections, all servers with "
        f"one worker in one environment ({versions}), by turns. The rivals get their features from "
        "feedrank's own code and write no decision record, log line or metric, which feedrank does "
        f"for each request. *{FLOOR}* does only that, of the parts that feedrank is built of, with "
        "features and ranking made beforehand. MLflow's server takes a matrix instead of ids, and "
        "gives back scores without ids: less work than the others have."
    )
    return ["## Servers", _by_size("requests/s", by_size), how]


def _front(found: Mapping[str, Any] | None) -> list[str]:
    if not found:
        return []
    cost = found["cost_ms"]
    how = (
        f"One request at a time takes {cost['environment']:.2f} ms by an environment alone and "
        f"{cost['front']:.2f} ms through the front before it; the front before nothing, with the "
        f"client, takes {cost['front alone']:.2f} ms."
    )
    return ["## The local HTTP front", how]
