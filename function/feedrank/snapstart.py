"""What each container that is restored from a SnapStart snapshot must renew.

Lambda takes a snapshot of a container after its init, and starts others from that. All of them
share what init created: the loaded model, which is wanted, but also the state of random generators,
open connections, the event loop and the start time. Request ids come from Lambda or from the
operating system, so they need nothing.
"""

import asyncio
import gc
import random
import sys
from time import perf_counter

from feedrank.decisions.log import DecisionLog
from feedrank.http.lambda_adapter import Adapter
from feedrank.model.inference import watchdog
from feedrank.model.slot import ModelSlot
from feedrank.telemetry.container import ContainerStats
from feedrank.telemetry.metrics import count_init

RESTORED = "snap-start-restore"  # as an init type


def register(
    slot: ModelSlot, stats: ContainerStats, decision_log: DecisionLog, adapter: Adapter
) -> None:
    """Registers the hooks below with Lambda's runtime."""
    from snapshot_restore_py import register_after_restore, register_before_snapshot

    register_before_snapshot(before_snapshot, slot, adapter)
    register_after_restore(after_restore, slot, stats, decision_log, adapter)


def before_snapshot(slot: ModelSlot, adapter: Adapter) -> None:
    """Raises ModelUnavailableError, and then no version is published: each of its containers would
    start without the model."""
    slot.load_or_raise()
    adapter.stop()
    gc.collect()


def after_restore(
    slot: ModelSlot, stats: ContainerStats, decision_log: DecisionLog, adapter: Adapter
) -> None:
    started_s = perf_counter()
    random.seed()
    if legacy := sys.modules.get("numpy.random"):
        legacy.seed()
    if tls := sys.modules.get("ssl"):
        tls.RAND_add(random.SystemRandom().randbytes(32), 0.0)  # its generator is the process's own
    watchdog.wake()  # it sleeps by the clock of before the snapshot
    asyncio.get_event_loop().close()
    asyncio.set_event_loop(asyncio.new_event_loop())
    slot.reconnect()
    decision_log.restart()
    stats.restart()
    adapter.restart()
    count_init(RESTORED, 1_000 * (perf_counter() - started_s))
