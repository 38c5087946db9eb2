"""Invocations and the function's output, read from the emulator's log."""

from feedops.local.emulator_log import Report, printed_by_function, reports

STAMP = "23 Nov 2026 00:12:00,891 [INFO] (rapid)"
MEMORY = "Memory Size: 1769 MB\tMax Memory Used: 1769 MB\t"
FIRST = f"""\
{STAMP} INIT START(type: on-demand, phase: init)
START RequestId: first Version: $LATEST
model loaded
{STAMP} INIT RTDONE(status: success)
{STAMP} INIT REPORT(durationMs: 94.122000)
{STAMP} INVOKE START(requestId: first)
{STAMP} INVOKE RTDONE(status: success, produced bytes: 0, duration: 1.050000ms)
END RequestId: first
REPORT RequestId: first\tInit Duration: 0 ms\tDuration: 95.00 ms\tBilled Duration: 96 ms\t{MEMORY}
""".splitlines()
WARM = f"""\
START RequestId: second Version: $LATEST
{STAMP} INVOKE START(requestId: second)
predicted
{STAMP} INVOKE RTDONE(status: success, produced bytes: 0, duration: 0.900000ms)
END RequestId: second
REPORT RequestId: second\tDuration: 1.13 ms\tBilled Duration: 2 ms\t{MEMORY}
""".splitlines()
TIMED_OUT = f"""\
START RequestId: third Version: $LATEST
23 Nov 2026 00:12:04,048 [WARNING] (rapid) Reset initiated: Timeout
END RequestId: third
REPORT RequestId: third\tDuration: 3000.00 ms\tBilled Duration: 3000 ms\t{MEMORY}
""".splitlines()


def test_each_invocation_has_its_duration_and_the_first_its_init() -> None:
    assert list(reports(FIRST + WARM + TIMED_OUT)) == [
        Report("first", 1.05, 94.122),
        Report("second", 0.9),
        Report("third", 3_000.0),
    ]


def test_an_invocation_that_killed_its_runtime_has_no_report() -> None:
    assert list(reports(WARM[:3])) == []


def test_the_functions_output_is_the_rest_of_the_log() -> None:
    assert printed_by_function(FIRST + WARM + TIMED_OUT) == [
        "model loaded",
        "predicted",
    ]


def test_unknown_memory_use_is_omitted() -> None:
    line = Report("third", 3_000.0).line(memory_mb=1_769, used_mb=None)
    assert line.endswith("\tMemory Size: 1769 MB")


def test_a_report_line_is_lambdas_own() -> None:
    assert Report("first", 1.05, 94.122).line(memory_mb=1_769, used_mb=91) == (
        "REPORT RequestId: first\tDuration: 1.05 ms\tBilled Duration: 96 ms"
        "\tMemory Size: 1769 MB\tMax Memory Used: 91 MB\tInit Duration: 94.12 ms"
    )
