"""The pages beside the code name files, rooms and links that exist."""

import re
from pathlib import Path

import pytest

from contract.test_imports import ROOMS
from feedrank.bundle import layout
from feedrank.extensions import KINDS

PROJECT = Path(__file__).parents[2]
ARCHITECTURE = PROJECT / "function" / "ARCHITECTURE.md"
EXTENDING = PROJECT / "function" / "EXTENDING.md"
CONTRIBUTING = PROJECT / "infra" / "CONTRIBUTING.md"
SECURITY = PROJECT / "infra" / "SECURITY.md"
EXAMPLES = PROJECT / "tests" / "examples"
IMAGES = PROJECT / "infra" / "images" / "README.md"
SPEC = PROJECT / "layers" / "model" / "SPEC.md"
STREAMING = PROJECT / "infra" / "streaming" / "README.md"
PAGES = (ARCHITECTURE, EXTENDING, CONTRIBUTING, SECURITY, IMAGES, SPEC, STREAMING)
PATH = re.compile(r"`((?:function|layers|infra|tests|events|\.ci)/[\w./-]*|template\.yaml)`")
LINK = re.compile(r"\]\((?!https?://)([^)#]+)?(?:#([\w-]+))?\)")
QUESTIONS = 5
A_TEAMS_OWN = "function/extensions.py"  # absent here


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_path_on_a_page_exists(page: Path) -> None:
    paths = set(PATH.findall(page.read_text())) - {A_TEAMS_OWN}
    assert {path for path in paths if not (PROJECT / path).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_on_a_page_leads_somewhere(page: Path) -> None:
    for path, anchor in LINK.findall(page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in _anchors(target), anchor


def test_each_of_the_five_questions_is_answered_with_a_path() -> None:
    section = ARCHITECTURE.read_text().partition("## Five questions")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == QUESTIONS
    assert [row for row in rows if not PATH.search(row)] == []


def test_the_drawing_has_every_room_in_the_order_of_imports() -> None:
    drawing = ARCHITECTURE.read_text().partition("```text\n")[2].partition("```")[0]
    package, rooms = "", []
    for indent, name in re.findall(r"^(  |      │   |          )(\w+)  ", drawing, re.MULTILINE):
        if indent == "  ":
            package = name
        else:
            rooms.append(name if name == "handler" else f"{package}.{name}")
    assert rooms == [room for room in ROOMS if "." in room or room == "handler"]


def test_the_table_of_a_bundles_files_is_the_layout() -> None:
    files = re.findall(r"^\| `(serving/[\w.]+)`", ARCHITECTURE.read_text(), re.MULTILINE)
    constants = vars(layout).values()
    written = {name for name in constants if isinstance(name, str) and name.startswith("serving/")}
    assert set(files) == written


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_readme_leads_to_every_page(page: Path) -> None:
    assert f"({page.relative_to(PROJECT)})" in (PROJECT / "README.md").read_text()


def test_the_page_on_extensions_quotes_every_example_as_it_is() -> None:
    quotes = re.findall(
        r"^<!-- tests/examples/(\w+\.py) -->\n```python\n(.*?)^```$",
        EXTENDING.read_text(),
        re.MULTILINE | re.DOTALL,
    )
    assert dict(quotes) == {path.name: path.read_text() for path in EXAMPLES.glob("*.py")}


def test_the_page_on_extensions_has_every_name_that_the_module_may_set() -> None:
    rows = re.findall(r"^\| `([A-Z]+)` \|", EXTENDING.read_text(), re.MULTILINE)
    assert set(rows) == {*KINDS, "EXPRESSIONS"}
