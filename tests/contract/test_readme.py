"""The README agrees with the code; a new user reads it first."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from feedbench.measures.servers import ONNX_FASTAPI
from feedbench.report.markdown import provenance, table
from feedbench.results import Results
from feedops.plan.measured import BASELINE
from feedops.plan.readme import with_example
from feedrank.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def block(name: str) -> str:
    match = re.search(f"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", README, re.DOTALL)
    assert match, f"README.md has no block {name!r}"
    return match[1]


def settings_table() -> str:
    """The README's table, generated from the fields of `Settings`."""
    rows = ["| variable | default | what it does |", "| --- | --- | --- |"]
    for field in Settings.model_fields.values():
        default = "required" if field.is_required() else shown(field.default)
        rows.append(f"| `{field.alias}` | {default} | {field.description} |")
    return "\n".join(rows)


def shown(default: Any) -> str:
    assert default is not PydanticUndefined
    return f"`{default}`" if default not in {"", None} else ""


def test_the_settings_table_agrees_with_the_settings() -> None:
    assert block("settings") == settings_table()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z-]+)", README))))
def test_every_make_target_in_the_readme_exists(target: str) -> None:
    assert re.search(f"^{target}:.*##", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?://|#)([^)#]+)", README))))
def test_every_linked_file_exists(link: str) -> None:
    assert (ROOT / link).exists()


def test_the_plan_for_10_000_requests_a_second_is_what_the_command_prints() -> None:
    """`feedrank bench --readme` writes it anew."""
    assert with_example(README) == README


def test_every_figure_of_performance_is_that_of_the_committed_run() -> None:
    committed = Results.read(BASELINE)
    assert table(committed.rows) in README
    assert provenance(committed) in README


def test_a_faster_server_in_the_chart_has_rows_of_its_own() -> None:
    committed = Results.read(BASELINE)
    charted = committed.details["servers"]["requests_per_s"]
    stated = {row.key: row.value for row in committed.rows}
    for items in (5, 50, 100):
        ours, theirs = (charted[name][str(items)]["value"] for name in ("feedrank", ONNX_FASTAPI))
        assert stated[f"server on ONNX, {items} items"] == pytest.approx(ours / theirs, rel=0.1)
