"""A start fetches its bundle while it imports its libraries."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from fakes import HANDLER
from feedrank.bundle.early import EarlyFetch
from feedrank.bundle.fetch import Bundle, fetch_bundle
from feedrank.bundle.layout import GOLDEN
from feedrank.errors import BundleError

START = """
import sys
from feedrank.bundle import early

class Noting(early.EarlyFetch):
    def __init__(self, fetch):
        print(sorted(heavy & sys.modules.keys()), file=sys.stderr)
        super().__init__(fetch)

heavy = {"aws_lambda_powertools", "fastapi", "mangum", "onnxruntime"}
early.EarlyFetch = Noting
import handler
print(sorted(heavy & sys.modules.keys()), handler.slot.ready is not None, file=sys.stderr)
"""


def _fetches(bundle: Path, cache: Path, *errors: Exception) -> Callable[[], Bundle]:
    left = list(errors)

    def fetch() -> Bundle:
        if left:
            raise left.pop(0)
        return fetch_bundle(str(bundle), "", cache, [GOLDEN])

    return fetch


def test_a_fetch_has_begun_before_anyone_waits_for_it() -> None:
    begun, go_on = Event(), Event()

    def fetch() -> Bundle:
        begun.set()
        assert go_on.wait(30)
        raise BundleError("as the thread says")

    early = EarlyFetch(fetch)
    assert begun.wait(30)
    go_on.set()
    with pytest.raises(BundleError, match="as the thread says"):
        early()


def test_the_first_call_gets_the_early_bundle_and_others_a_new_one(
    demo_bundle: Path, tmp_path: Path
) -> None:
    calls = 0
    fetch = _fetches(demo_bundle, tmp_path)

    def counting() -> Bundle:
        nonlocal calls
        calls += 1
        return fetch()

    early = EarlyFetch(counting)
    bundles = [early(), early(), early()]
    assert calls == len({id(bundle) for bundle in bundles}) == 3
    contents = {bytes(bundle.files[GOLDEN]) for bundle in bundles}
    assert contents == {(demo_bundle / GOLDEN).read_bytes()}


def test_after_an_early_fetch_that_failed_the_next_one_counts(
    demo_bundle: Path, tmp_path: Path
) -> None:
    early = EarlyFetch(_fetches(demo_bundle, tmp_path, BundleError("S3 is down")))
    with pytest.raises(BundleError, match="S3 is down"):
        early()
    assert early().manifest.model_version == "feed_ranker-1"


def test_a_start_fetches_before_it_imports_what_takes_long(demo_bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", START],
        cwd=HANDLER.parent,
        env={"MODEL_URI": str(demo_bundle)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines() == [
        "[]",
        "['aws_lambda_powertools', 'fastapi', 'mangum', 'onnxruntime'] True",
    ]
