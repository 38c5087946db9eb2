"""Reads of a store that a request waits for: side by side, within a budget, and none while the
store is down."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from feedrank.errors import reason_of
from feedrank.telemetry.logging import logger
from feedrank.threads import TIMED_OUT, Breaker, DaemonThreads, Work, wait_for

MAX_READS = 128  # at once, each in a thread
PROBE_S = 2.0  # for the first connections, while init goes on
PROBED = -1  # no id
DAMAGED = b"?"  # no row and no list of pairs is so short
BUSY = f"{MAX_READS} reads are under way"


# An id's key: its number, or the text where the store has that.
Key = Any


class StoredRow(NamedTuple):
    """A row as a store has it, not yet checked: what the store's layout unpacks, the time of its
    newest event in Unix seconds, and the packed pairs of a user, empty for none."""

    row: Any
    time_s: float
    pairs: bytes = b""


def user_key(user: int) -> str:
    return f"u#{user}"


def item_key(item: int) -> str:
    return f"i#{item}"


class RowReader(Protocol):
    """Reads a store, and waits for it. Safe for threads."""

    max_keys: int  # of one `read_items`

    def connect(self) -> None:
        """From now on with new connections."""

    def read_user(self, user: Key, deadline_s: float) -> StoredRow | None:
        """None where the store has no such user. `deadline_s` is in `perf_counter()` seconds."""

    def read_items(
        self, items: Sequence[Key], deadline_s: float, found: dict[Key, StoredRow | None]
    ) -> None:
        """Puts each answer into `found` as it comes. Raises where some don't."""


class Answers:
    """What a request's reads have brought so far. Late ones may still add to it."""

    def __init__(self) -> None:
        self.user: tuple[StoredRow | None, ...] = ()  # one, or none yet
        self.items: dict[Key, StoredRow | None] = {}


class StoreReads:
    """Use it from one thread: the event loop's, or the request's on Lambda."""

    def __init__(
        self,
        reader: RowReader,
        budget_s: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        reads_items: bool,
    ) -> None:
        self._reader = reader
        self._budget_s = budget_s
        self._clock = clock
        self._reads_items = reads_items
        self.connect()

    def connect(self) -> None:
        """At init and after a restore. Opens connections before a request needs them: the first
        takes longer than a request may wait."""
        reader = self._reader
        reader.connect()
        # Of each kind: popular items may be throttled while users are not.
        self._of_users, self._of_items = Breaker(self._clock), Breaker(self._clock)
        self._threads = DaemonThreads(MAX_READS, type(reader).__name__)
        deadline_s = perf_counter() + PROBE_S
        probes: list[Callable[[], object]] = [partial(reader.read_user, PROBED, deadline_s)]
        if self._reads_items:
            probes.append(partial(reader.read_items, [PROBED], deadline_s, {}))
        with suppress(OSError):  # without a thread the first request connects
            for probe in probes:
                self._threads.submit(partial(_probe, probe))

    async def read(self, user: Key, items: Sequence[Key], deadline_s: float) -> Answers:
        """What comes within the budget, and within half of the time that the request has left: it
        has to be scored, too. `items` are different ones."""
        answers, now_s = Answers(), perf_counter()
        half_s = (deadline_s - now_s) / 2
        is_short = half_s < self._budget_s  # then the store is not to blame
        until_s = now_s + min(self._budget_s, half_s)
        begun: list[tuple[Breaker, list[Work]]] = []
        if items and half_s > 0 and self._of_items.admits():
            begun.append((self._of_items, self._read_items(items, until_s, answers)))
        if user is not None and half_s > 0 and self._of_users.admits():
            begun.append((self._of_users, [self._read_user(user, until_s, answers)]))
        if begun:
            reads = [read for _, of_kind in begun for read in of_kind]
            await wait_for(reads, until_s, is_alone=not _has_event_loop())
        failed: dict[Breaker, bool] = {}
        for breaker, of_kind in begun:
            reasons = [reason for reason in map(_reason, of_kind) if reason]
            failed[breaker] = bool(reasons)
            if reasons:
                logger.warning("feature store failed", reason=reasons[0])
        if not (is_short and any(failed.values())):
            self._count(failed, took_all=perf_counter() >= until_s)
        return answers

    def _count(self, failed: Mapping[Breaker, bool], *, took_all: bool) -> None:
        """A store that takes all of the budget has failed for what was not asked of it, too: else
        it would cost the budget again once items are missing."""
        hangs = took_all and any(failed.values())
        for breaker in (self._of_users, self._of_items):
            if breaker in failed or hangs:
                breaker.count(failed=failed.get(breaker, True))

    def _read_items(self, items: Sequence[Key], until_s: float, answers: Answers) -> list[Work]:
        size = self._reader.max_keys
        parts = [items[start : start + size] for start in range(0, len(items), size)]
        return [
            self._begin(partial(self._reader.read_items, part, until_s, answers.items))
            for part in parts
        ]

    def _read_user(self, user: Key, until_s: float, answers: Answers) -> Work:
        def read() -> None:
            answers.user = (self._reader.read_user(user, until_s),)

        return self._begin(read)

    def _begin(self, read: Callable[[], object]) -> Work:
        try:
            return self._threads.submit(partial(_reason_of_failure, read))
        except OSError as error:  # there is no thread for it
            failed = Work()
            failed.set_result(str(error))
            return failed


def _reason_of_failure(read: Callable[[], object]) -> str | None:
    try:
        read()
    except Exception as error:
        return reason_of(error)
    return None


def _probe(read: Callable[[], object]) -> None:
    if reason := _reason_of_failure(read):
        logger.warning("feature store can't be reached", reason=reason)


def _reason(read: Work) -> str | None:
    if read.cancelled():
        return BUSY
    return read.result() if read.done() else TIMED_OUT


def _has_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
