"""Where decision records go beside, or instead of, standard output."""

from typing import NamedTuple, Protocol

from feedrank.settings import Settings


class DecisionRecord(NamedTuple):
    """One decision record as sinks get it."""

    line: bytes  # JSON in UTF-8, newline included
    day: str  # of its timestamp, in UTC, such as 2026-11-22
    deadline_s: float  # of its request, in `time.perf_counter()` seconds


class DecisionSink(Protocol):
    """Takes decision records. Subclass it for the defaults of what you don't define.

    A request waits for its record's write, up to its deadline and 1.2 s at most; then the record is
    spilled, though the write may still succeed: `request_id` shows that both are one. A sink that
    fails three times in a row is skipped for five seconds.
    """

    replaces_output: bool = False
    """Whether standard output has only the records that were spilled. Where all sinks say False it
    has every record."""

    max_writes: int = 16
    """Writes at once, each in a thread of its own."""

    min_write_s: float = 0.02
    """With less time left no write is begun, and the record is spilled."""

    def write(self, record: DecisionRecord) -> None:
        """Returns when the sink is responsible for the record.

        Raises OSError, whose text is logged, or any other error, whose type and line are: the
        record is spilled to standard output, and counted in `DecisionsSpilled`. A container may be
        frozen as soon as it has responded, so a producer with a buffer has to flush it.
        """

    def connect(self) -> None:
        """Called after a SnapStart restore: connections that init made are dead."""
        return


def sinks_of(settings: Settings) -> list[DecisionSink]:
    """Those that settings name. Raises SettingsError where the AWS_* variables make no client."""
    sinks: list[DecisionSink] = []
    if settings.decision_stream:
        from feedrank.decisions.sinks.firehose import connected

        sinks.append(connected(settings.decision_stream))
    if settings.decision_log_dir:
        from feedrank.decisions.sinks.files import DailyFiles

        sinks.append(DailyFiles(settings.decision_log_dir))
    return sinks
