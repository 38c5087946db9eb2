"""The page behind /docs: one small file that asks nobody else for anything."""

import re
from base64 import b64encode
from hashlib import sha256

import pytest

from feedrank.http.endpoints import DOCS_PAGE

LARGEST_BYTES = 32 * 1_024
PAGE = DOCS_PAGE.read_text(encoding="utf-8")


def policy() -> dict[str, str]:
    match = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', PAGE)
    assert match
    return dict(part.strip().split(" ", 1) for part in match[1].split(";"))


def digest(tag: str) -> str:
    """What a browser compares: the SHA-256 of the text between the tags."""
    (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def test_the_page_is_small() -> None:
    assert len(DOCS_PAGE.read_bytes()) <= LARGEST_BYTES


def test_the_page_names_no_other_host() -> None:
    namespace = "xmlns='http://www.w3.org/2000/svg'"  # a name, which nobody fetches
    assert re.findall(r"(?:[a-z]+:)?//[\w.-]+\.[a-z]+\S*", PAGE.replace(namespace, "")) == []


def test_whatever_the_page_loads_lies_beside_it_or_in_it() -> None:
    sources = re.findall(r"""(?:src|href)=["']([^"']*)""", PAGE)
    assert {source.split(",")[0] for source in sources} == {
        "#content",
        "data:image/svg+xml",
        "openapi.json",
    }


def test_the_policy_lets_in_the_pages_own_style_and_script_alone() -> None:
    assert policy() == {
        "default-src": "'none'",
        "connect-src": "'self'",
        "img-src": "data:",
        "style-src": digest("style"),
        "script-src": digest("script"),
        "base-uri": "'none'",
        "form-action": "'none'",
    }


@pytest.mark.parametrize(
    "way_in",
    ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "eval("],
)
def test_the_documents_text_never_becomes_markup(way_in: str) -> None:
    assert way_in not in PAGE


def test_nothing_inline_that_the_policy_would_refuse() -> None:
    markup = re.sub(r"<(style|script)>.*?</\1>", "", PAGE, flags=re.DOTALL)
    assert re.findall(r"\s(?:on[a-z]+|style)=", markup) == []
