"""Where CI runs (`CI` is set), a test that would be skipped fails, and says what it lacks.

A test marked `substituted_by("tests/...")` may be skipped there too: the named tests check the same
thing in a lesser form, with nothing that CI could lack.
"""

import os
from collections.abc import Iterator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]  # what pluggy sends
    is_skip = report.skipped and not hasattr(report, "wasxfail")
    if is_skip and os.environ.get("CI") and not item.get_closest_marker("substituted_by"):
        *_, reason = report.longrepr if isinstance(report.longrepr, tuple) else (report.longrepr,)
        report.outcome = "failed"
        report.longrepr = f"CI skips nothing. {reason}"
    return report  # type: ignore[return-value]
