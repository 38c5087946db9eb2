"""From results on disk to a verdict against the baseline, a report and the README's block."""

from pathlib import Path
from typing import Literal

import pytest

from feedbench.cli import README
from feedbench.report import markdown, plots
from feedbench.results import BARS, FLOOR, OURS, Results, Row, got_worse, row
from feedops.errors import OperationError
from feedops.plan.measured import BASELINE
from feedops.plan.readme import into_readme
from feedops.stack import budget

Better = Literal["lower", "higher"]

SPREAD = {"low": 1.0, "high": 3.0, "value": 2.0}
DETAILS = {
    "cold_start": {
        "deployed_ms": {"handler": {"p50": 240.0}, "imports": {"p50": 200.0}},
        "waterfall_ms": {
            "interpreter": 20.0,
            "import numpy": 90.0,
            "import small": 1.0,
            "settings": 0.5,
            "ONNX session": 9.0,
            "first request": 2.0,
        },
    },
    "init_ms": {"10 MB": {"directory": 600, "S3": 700}, "300 MB": {"directory": 900, "S3": None}},
    "warm_us": {
        name: {"p50": 500.0, "curve": [400.0, 500.0, 900.0]}
        for name in ("handler, 100 items", "session.run, 100 items")
    },
    "warm_stages_us": {
        items: {"engine": us, "all else": 40.0} for items, us in (("5", 47.0), ("100", 350.0))
    },
    "warm_parts_us": {
        items: {"the handler": us, "session.run": us / 2}
        for items, us in (("5", 60.0), ("100", 9e3))
    },
    "servers": {
        "generator": "wrk",
        "connections": 8,
        "versions": {"torch": "2.13.0"},
        "requests_per_s": {
            name: {"5": SPREAD, "50": SPREAD} for name in (OURS, FLOOR, "torch + FastAPI")
        },
    },
    "size_bytes": {"onnxruntime": 40_000_000, "tiny": 1_000, "function": 2_000_000},
}


# Every row that a report has had since the first one.
KEYS = [
    "cold start / imports",
    "cold start / torch",
    "warm, 100 items / session.run",
    "warm, 100 items, p99 / p50",
    "warm, 5 items / minimum",
    *(f"server, {items} items" for items in (5, 50, 100)),
    *(f"server on ONNX, {items} items" for items in (5, 50, 100)),
    *(f"engine, {items} items" for items in (5, 50, 100)),
    "load",
    "load errors",
    "size",
    "parity",
    "memory",
    "memory growth",
]


# Rows that the stored run may not have yet.
NEW_KEYS = [
    "rich model",
    "whole numbers",
    "text ids",
    *(f"start from S3, {get_ms} ms a GET" for get_ms in (0, 20)),
    "features from DynamoDB",
    "features from the cache",
]


def results(*rows: Row) -> Results:
    return Results(
        date="2026-11-22T12:00:00+00:00",
        effort="quick",
        machine={"cpu": "A CPU", "cores": 2, "memory_gb": 24.0},
        versions={"onnxruntime": "1.32.0"},
        setup={
            "target": "built artifact",
            "python": "3.13.0",
            "bundle": "feed_ranker-2 (deep_mlp)",
            "cores": "nothing is pinned",
        },
        rows=rows,
        notes=("skipped: BentoML",),
        details=DETAILS,
    )


def warm(value: float, spread: float = 0.01, *, better: Better = "lower", bar: float = 2.0) -> Row:
    low, high = value * (1 - spread), value * (1 + spread)
    what = {"key": "warm", "what": "Warm handler", "better": better}
    return Row.model_validate({**what, "value": value, "low": low, "high": high, "bar": bar})


def test_a_row_has_the_plans_bar_and_text_for_its_size() -> None:
    measured = row("engine, 50 items", 1.6, "fast")

    assert (measured.bar, measured.better, measured.unit) == (1.5, "higher", "x")
    assert measured.what.endswith("the same handler on torch, 50 items")
    assert (measured.low, measured.high, measured.note) == (1.6, 1.6, "fast")
    assert row("size", 1.0).bar * 1e6 == budget.BAR_BYTES
    assert set(BARS) == {*KEYS, *NEW_KEYS}


@pytest.mark.parametrize(
    ("better", "value", "is_met"),
    [("lower", 2.0, True), ("lower", 2.1, False), ("higher", 2.0, True), ("higher", 1.9, False)],
)
def test_a_bar_is_met_from_its_own_side(better: Better, value: float, *, is_met: bool) -> None:
    assert warm(value, better=better).is_met is is_met


def test_results_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "bench" / "results.json"
    results(warm(1.5)).write(path)

    assert Results.read(path) == results(warm(1.5))


@pytest.mark.parametrize("text", [None, "{", "[]", '{"format": 0}', '{"format": 1, "rows": []}'])
def test_what_holds_no_results_is_refused_with_the_command_that_makes_them(
    tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)

    with pytest.raises(OperationError, match="holds no results"):
        Results.read(path)


@pytest.mark.parametrize(
    ("now", "is_worse"),
    [
        (warm(1.80), True),
        (warm(1.60), False),  # under the tolerance
        (warm(1.80, spread=0.3), False),  # the intervals touch
        (warm(1.20), False),
    ],
)
def test_only_what_is_slower_by_more_than_noise_got_worse(now: Row, *, is_worse: bool) -> None:
    worse = list(got_worse(results(now), results(warm(1.5))))

    assert worse == (["got worse: warm: 1.5 -> 1.8 x, 1.20 times as bad"] if is_worse else [])


def test_a_higher_throughput_is_better_and_a_lower_one_is_worse() -> None:
    before = results(warm(2.0, better="higher"))

    assert list(got_worse(results(warm(2.5, better="higher")), before)) == []
    assert list(got_worse(results(warm(1.5, better="higher")), before)) == [
        "got worse: warm: 2 -> 1.5 x, 1.33 times as bad"
    ]


def test_milliseconds_of_another_machine_are_not_compared() -> None:
    slow, fast = (warm(ms).model_copy(update={"portable": False}) for ms in (90.0, 1.0))

    assert list(got_worse(results(slow), results(fast))) == []


def test_a_row_that_the_baseline_lacks_is_not_compared() -> None:
    assert list(got_worse(results(warm(1.0)), results())) == []


def test_the_table_says_what_was_measured_against_which_bar() -> None:
    table = markdown.table([warm(1.5, 0.1), warm(2.5, 0.1), warm(1.0, 0.1, better="higher")])

    assert table.splitlines()[2:] == [
        "| Warm handler | 1.50 x [1.35, 1.65] | at most 2.00 x | met |",
        "| Warm handler | 2.50 x [2.25, 2.75] | at most 2.00 x | **missed** |",
        "| Warm handler | 1.00 x [0.90, 1.10] | at least 2.00 x | **missed** |",
    ]


def test_a_report_is_made_of_the_results_alone_with_small_pictures(tmp_path: Path) -> None:
    text = markdown.write(results(warm(1.5)), tmp_path).read_text()

    pictures = {path.name: path.stat().st_size for path in tmp_path.glob("*.png")}
    assert set(pictures) == {
        "cold_start.png",
        "request.png",
        "latency.png",
        "throughput.png",
        "size.png",
    }
    assert max(pictures.values()) < 150_000
    assert all(f"]({name})" in text for name in pictures)
    for line in (
        "A CPU, 2 cores",
        "skipped: BentoML",
        "| init by size of the bundle, ms | 10 MB | 300 MB |",
        "| S3 | 700 | - |",
        "| torch + FastAPI | 2 | 2 |",
        "| engine | 47 | 350 |",
        "| the whole | 87 | 390 |",
        "| session.run | 30 | 4,500 |",
    ):
        assert line in text


def test_the_stored_runs_report_has_a_line_for_every_row_beside_its_bar(tmp_path: Path) -> None:
    stored = Results.read(BASELINE)

    lines = markdown.write(stored, tmp_path).read_text().splitlines()

    assert [row.key for row in stored.rows if row.key in KEYS] == KEYS
    table = lines[lines.index("| | measured | bar | |") + 2 :][: len(stored.rows)]
    for line, promise in zip(table, stored.rows, strict=True):
        cells = promise.what, markdown.measured(promise), markdown.bar(promise), promise.note
        assert all(text in line for text in cells)
        assert line.endswith("| met |" if promise.is_met else "| **missed** |")
    assert markdown.readme_block(stored, "infra/feedbench/report/") in README.read_text()


def test_a_report_of_a_part_of_the_measurements_has_no_more_pictures(tmp_path: Path) -> None:
    details = {"size_bytes": DETAILS["size_bytes"]}
    part = results(warm(1.5)).model_copy(update={"details": details})

    markdown.write(part, tmp_path)

    assert [path.name for path in tmp_path.glob("*.png")] == ["size.png"]


def test_the_readme_gets_its_block_in_the_old_ones_place() -> None:
    block = markdown.readme_block(results(warm(1.5)), "report/")
    readme = f"# feedrank\n\n{markdown.BEGIN}\nold\n{markdown.END}\n\nMore.\n"

    written = into_readme(readme, block)

    assert written == f"# feedrank\n\n{block}\n\nMore.\n"
    assert into_readme(written, block) == written
    assert "Every bar is met." in block
    assert "![Size by dependency](report/size.png)" in block


def test_a_readme_without_the_place_for_it_is_left_alone() -> None:
    with pytest.raises(OperationError, match="lacks the lines"):
        into_readme("# feedrank\n", "block")


def test_small_parts_of_a_cold_start_share_a_bar_and_nothing_is_lost() -> None:
    stages = DETAILS["cold_start"]["waterfall_ms"]
    assert isinstance(stages, dict)

    bars = plots.grouped(stages)

    assert list(bars) == [
        *("interpreter", "import numpy", "ONNX session", "other imports", "other stages"),
    ]
    assert sum(bars.values()) == pytest.approx(sum(stages.values()))
