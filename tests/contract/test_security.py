"""Every defence that infra/SECURITY.md describes has a test that exists."""

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "infra" / "SECURITY.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ")][2:]


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`([\w/]+\.py)`", PAGE))
    assert len(named) > 15
    tests = PROJECT / "tests"
    assert {name for name in named if not (tests / name).is_file()} == set()
    assert {name for name in named if "def test_" not in (tests / name).read_text()} == set()


def test_every_defence_names_its_test() -> None:
    assert len(ROWS) > 8
    assert [row for row in ROWS if not re.search(r"\| `\w+/test_\w+\.py`[^|]*\|$", row)] == []


def test_the_readme_links_the_page() -> None:
    assert "(infra/SECURITY.md)" in (PROJECT / "README.md").read_text()
