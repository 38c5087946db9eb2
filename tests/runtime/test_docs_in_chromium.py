"""The docs page as a reader has it: drawn, tried and broken in a real browser.

Without one, `tests/unit/test_docs_page.py` checks what the file itself shows.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

import pytest

import chromium
from chromium import Browser, Page
from feedrank.domain import MAX_ID
from feedrank.http.endpoints import DOCS_PAGE
from uvicorns import Server, uvicorn

pytestmark = pytest.mark.substituted_by("tests/unit/test_docs_page.py")

PREDICT = "document.getElementById('operation-predict')"
BODY = "document.getElementById('operation-predict-body')"
STATUS = f"{PREDICT}.querySelector('.try > .row[role=status] .tag')"
FIELDS = f"[...{PREDICT}.querySelectorAll('table.fields tbody th code')].map(e => e.textContent)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = chromium.executable()
    if not program:
        pytest.skip(f"no browser to open the docs page in: none of {', '.join(chromium.NAMES)}")
    with chromium.started(program, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = Page(browser)
    yield page
    page.close()


@pytest.fixture(scope="module")
def server(browser: Browser, demo_bundle: Path) -> Iterator[Server]:
    with uvicorn(demo_bundle) as server:
        yield server


@pytest.fixture
def docs(page: Page, server: Server) -> Page:
    """The page, drawn."""
    page.open(f"{server.url}/docs")
    page.wait_for(PREDICT)
    return page


@contextmanager
def files(directory: Path) -> Iterator[str]:
    """The address of a server that has these files and no more."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def static(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A directory with the page alone, and its address."""
    shutil.copy(DOCS_PAGE, tmp_path / "docs.html")
    with files(tmp_path) as url:
        yield tmp_path, f"{url}/docs.html"


def document(server: Server) -> dict[str, Any]:
    with urlopen(f"{server.url}/openapi.json") as response:
        read: dict[str, Any] = json.load(response)
    return read


def predict(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    request = Request(
        f"{server.url}/predict",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urlopen(request) as response:
        ranking: dict[str, Any] = json.load(response)
    return ranking


def fill_in(page: Page, text: str) -> None:
    """As typed: the page hears of it."""
    page.evaluate(f"{BODY}.value = {json.dumps(text)}; {BODY}.dispatchEvent(new Event('input'))")


def send(page: Page) -> str:
    """Presses the button of /predict, and waits for the status that is shown."""
    page.evaluate(f"{PREDICT}.querySelector('button.go').click()")
    text: str = page.wait_for(f"{STATUS}?.textContent")
    return text


def test_every_operation_of_the_document_is_drawn(docs: Page, server: Server) -> None:
    titles = docs.evaluate(
        "[...document.querySelectorAll('section.operation .title')]"
        ".map(e => [e.querySelector('.tag').textContent, e.querySelector('code').textContent])"
    )
    assert titles == [
        [method.upper(), path]
        for path, operations in document(server)["paths"].items()
        for method in operations
    ]
    assert docs.evaluate("document.title") == "feedrank · API reference"


def test_the_page_asks_for_itself_and_the_document_and_breaks_none_of_its_own_rules(
    docs: Page, server: Server
) -> None:
    fetched = [url for url in docs.requested() if not url.startswith("data:")]
    assert fetched == [f"{server.url}/docs", f"{server.url}/openapi.json"]
    assert docs.complaints() == []


def test_the_context_fields_are_those_of_the_bundle(docs: Page, server: Server) -> None:
    schema = document(server)["components"]["schemas"]["PredictRequest"]
    keys = [f"context.{name}" for name in schema["properties"]["context"]["properties"]]
    assert "context.device" in keys
    assert [name for name in docs.evaluate(FIELDS) if name.startswith("context.")] == keys


def test_all_that_a_model_reads_is_shown_and_every_example_is_ranked(
    page: Page, everything_bundle: Path
) -> None:
    """Of one with text ids, candidate features, texts and lists in its context, and two outputs."""
    with uvicorn(everything_bundle, MAX_ITEMS="500") as server:
        page.open(f"{server.url}/docs")
        page.wait_for(PREDICT)
        rows = page.evaluate(
            f"[...{PREDICT}.querySelector('table.fields tbody').rows]"
            ".map(row => [...row.cells].map(cell => cell.innerText))"
        )
        fields = {row[0].split()[0]: " ".join(row[1:]) for row in rows}
        assert "1 … 128 characters" in fields["user_id"]
        assert "1 … 500 items" in fields["item_ids"]
        assert fields["features.retrieval_score"].startswith("list of number or null")
        assert fields["features.source"].startswith("list of string or integer or null")
        assert fields["features.clip"].startswith("list of list of number or null or null")
        assert "of a list the last 2 count" in fields["features.clip"]
        assert "… 3.4 · 10³⁸" in fields["features.clip"]
        assert "divided by commas; the last 3 count" in fields["context.recent"]
        assert {"context.device", "context.temp", "context.timestamp", "explain"} <= fields.keys()
        tabs = f"[...{PREDICT}.querySelectorAll('[role=tab]')]"
        labels = page.evaluate(f"{tabs}.map(tab => tab.textContent)")
        assert len(labels) == 4
        for at in range(len(labels)):
            page.evaluate(f"{tabs}[{at}].click()")
            assert send(page) == "200 OK"
            page.evaluate(f"{STATUS}.remove()")
        response = page.evaluate(f"{PREDICT}.querySelector('.answer pre').textContent")
        assert json.loads(response)["predictions"][0]["outputs"].keys() == {"click", "dwell"}
        shares = page.evaluate(
            f"[...{PREDICT}.querySelectorAll('.bar i')]"
            ".map(bar => parseFloat(bar.style.getPropertyValue('--share')))"
        )
        assert shares == sorted(shares, reverse=True)
        assert all(0 <= share <= 100 for share in shares)
        assert page.complaints() == []


def test_without_a_model_the_page_names_no_context_field(page: Page) -> None:
    with uvicorn("/nowhere") as server:
        page.open(f"{server.url}/docs")
        page.wait_for(PREDICT)
        fields = page.evaluate(FIELDS)
        assert send(page) == "503 Service Unavailable"
    assert "context" in fields
    assert [name for name in fields if name.startswith("context.")] == []


def test_what_is_sent_from_the_page_is_ranked_and_shown(docs: Page, server: Server) -> None:
    request = json.loads(docs.evaluate(f"{BODY}.value"))
    assert send(docs) == "200 OK"
    text = docs.evaluate(
        f"[...{PREDICT}.querySelectorAll('.ranking li')].map(row => "
        "[row.querySelector('.rank').textContent, row.querySelector('code').textContent])"
    )
    ranked = predict(server, request)["predictions"]
    assert text == [[str(each["rank"]), str(each["item_id"])] for each in ranked]
    assert len(text) == len(request["item_ids"])


def test_the_largest_id_comes_back_to_the_digit(docs: Page) -> None:
    fill_in(docs, f'{{"user_id": 1, "item_ids": [{MAX_ID}]}}')
    assert send(docs) == "200 OK"
    assert docs.evaluate(f"{PREDICT}.querySelector('.ranking li code').textContent") == str(MAX_ID)


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ('{"user_id": -1, "item_ids": [1]}', ""),
        ('{"user_id": 1', "Not valid JSON; it is sent as it is."),
    ],
    ids=["wrong-field", "no-json"],
)
def test_an_error_is_shown_with_its_detail(docs: Page, body: str, hint: str) -> None:
    fill_in(docs, body)
    assert docs.evaluate("document.getElementById('operation-predict-hint').textContent") == hint
    assert send(docs).startswith("422")
    assert docs.evaluate(f"{STATUS}.className") == "tag warned"
    problem = json.loads(docs.evaluate(f"{PREDICT}.querySelector('.answer pre').textContent"))
    assert problem["status"] == 422
    assert docs.evaluate(f"{PREDICT}.querySelector('.answer p').textContent") == problem["detail"]


def test_a_server_that_is_gone_is_said_to_be(page: Page, demo_bundle: Path) -> None:
    with uvicorn(demo_bundle) as server:
        page.open(f"{server.url}/docs")
        page.wait_for(PREDICT)
    assert send(page) == "No response"
    assert page.evaluate(f"{PREDICT}.querySelector('button.go').disabled") is False


def test_a_document_that_is_not_there_is_said_and_tried_again(
    page: Page, static: tuple[Path, str], server: Server
) -> None:
    directory, url = static
    page.open(url)
    alert = page.wait_for("document.querySelector('[role=alert]')?.textContent")
    assert "the server responded with 404" in alert
    (directory / "openapi.json").write_text(json.dumps(document(server)))
    page.evaluate("document.querySelector('[role=alert] button').click()")
    page.wait_for(PREDICT)


def with_text(value: Any, text: str) -> Any:
    """A document whose every prose is `text`."""
    if isinstance(value, dict):
        prose = {"description", "summary", "title", "example", "detail"}
        return {
            key: text if key in prose and isinstance(part, str) else with_text(part, text)
            for key, part in value.items()
        }
    return [with_text(part, text) for part in value] if isinstance(value, list) else value


def test_markup_in_the_document_stays_text(
    page: Page, static: tuple[Path, str], server: Server
) -> None:
    directory, url = static
    markup = "<img src=x onerror='window.ran = 1'><script>window.ran = 1</script>"
    (directory / "openapi.json").write_text(json.dumps(with_text(document(server), markup)))
    page.open(url)
    page.wait_for(PREDICT)
    assert markup in page.evaluate("document.body.textContent")
    assert page.evaluate("document.querySelectorAll('img, #content script').length") == 0
    assert page.evaluate("window.ran") is None


SCRIPT = """
const tag = document.createElement("script");
tag.textContent = "window.ran = 1";
document.head.append(tag);
"""
HANDLER = """
document.body.setAttribute("onclick", "window.ran = 1");
document.body.click();
"""
OTHER_HOST = "await fetch('http://127.0.0.2:9/').catch(() => 0);"


@pytest.mark.parametrize(
    "breach", [SCRIPT, HANDLER, OTHER_HOST], ids=["script", "handler", "other-host"]
)
def test_the_pages_policy_is_in_force(docs: Page, breach: str) -> None:
    docs.evaluate(f"(async () => {{ {breach} }})()")
    complaints = docs.complaints()
    assert complaints
    assert all("Content Security Policy" in complaint for complaint in complaints)
    assert docs.evaluate("window.ran") is None


@pytest.mark.parametrize("width", [1_000, 1_153, 1_440])
def test_the_form_covers_no_description(docs: Page, width: int) -> None:
    docs.resize(width, 800)
    overlap = """
        (([fields, form]) => fields.right > form.left && fields.bottom > form.top
            && fields.top < form.bottom
        )([".fields", ".try"].map((selector) => document
            .querySelector(`.operation ${selector}`).getBoundingClientRect()))
    """
    assert docs.evaluate(overlap) is False


@pytest.mark.parametrize("width", [360, 768, 1_440])
def test_nothing_is_wider_than_the_screen(docs: Page, width: int) -> None:
    docs.resize(width, 800)
    assert docs.evaluate("document.documentElement.scrollWidth") <= width
