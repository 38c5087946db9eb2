"""What every container that starts from one snapshot must have of its own.

Lambda snapshots a container after its init, and starts the others from that. What init made is in
all of them: the loaded model, which is wanted, but also the state of random generators, open
connections, the event loop and the time that the container thinks it started. Request ids come
from Lambda or from the operating system, and need nothing.
"""

import asyncio
import gc
import random
import sys
from time import perf_counter

from feedrank.decisions.log import DecisionLog
from feedrank.model.inference import watchdog
from feedrank.model.slot import ModelSlot
from feedrank.telemetry.container import ContainerStats
from feedrank.telemetry.metrics import count_init

RESTORED = "snap-start-restore"  # as an init type


def register(slot: ModelSlot, stats: ContainerStats, decision_log: DecisionLog) -> None:
    """Have Lambda's runtime call what is below."""
    from snapshot_restore_py import register_after_restore, register_before_snapshot

    register_before_snapshot(before_snapshot, slot)
    register_after_restore(after_restore, stats, decision_log)


def before_snapshot(slot: ModelSlot) -> None:
    """Raises ModelUnavailableError, and then no version is published: every container that it would
    ever have would start without its model."""
    slot.load_or_raise()
    gc.collect()


def after_restore(stats: ContainerStats, decision_log: DecisionLog) -> None:
    started_s = perf_counter()
    random.seed()
    if legacy := sys.modules.get("numpy.random"):
        legacy.seed()
    if tls := sys.modules.get("ssl"):
        tls.RAND_add(random.SystemRandom().randbytes(32), 0.0)  # its generator is the process's own
    watchdog.wake()  # it sleeps by the clock of before the snapshot
    asyncio.get_event_loop().close()
    asyncio.set_event_loop(asyncio.new_event_loop())
    decision_log.restart()
    stats.restart()
    count_init(RESTORED, 1_000 * (perf_counter() - started_s))
