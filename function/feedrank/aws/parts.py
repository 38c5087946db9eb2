"""The parts of a large object, fetched by several threads and hashed in order meanwhile."""

import os
from collections.abc import Callable
from concurrent.futures import Future
from hashlib import sha256
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import perf_counter
from typing import NamedTuple

from feedrank.aws.errors import UnreachableError

PART_BYTES = 8 << 20  # a part takes S3 a tenth of a second
MAX_THREADS = 8
HASHED_BYTES = 1 << 20  # at once
MAX_WAIT_S = 3_600.0
THREADS = "part of an object"


class Part(NamedTuple):
    begin: int
    end: int  # exclusive


def fetch_parts(fetch: Callable[[Part], None], file: int, size: int, deadline_s: float) -> str:
    """The SHA-256 of the `size` bytes that `fetch` has written to `file`, part by part.

    Raises what `fetch` raises, and UnreachableError past `deadline_s`. No thread writes any more
    when it returns or raises.
    """
    parts = [Part(n, min(n + PART_BYTES, size)) for n in range(0, size, PART_BYTES)]
    fetched: list[Future[None]] = [Future() for _ in parts]
    todo: SimpleQueue[int] = SimpleQueue()
    for number in range(len(parts)):
        todo.put(number)
    is_over = Event()

    def work() -> None:
        while not is_over.is_set():
            try:
                number = todo.get_nowait()
            except Empty:
                return
            try:
                fetch(parts[number])
            except BaseException as error:
                fetched[number].set_exception(error)
                return
            fetched[number].set_result(None)

    threads = [
        Thread(target=work, name=THREADS, daemon=True) for _ in range(min(MAX_THREADS, len(parts)))
    ]
    for thread in threads:
        thread.start()
    digest = sha256()
    try:
        for part, future in zip(parts, fetched, strict=True):
            _wait(future, deadline_s)
            for begin in range(part.begin, part.end, HASHED_BYTES):
                digest.update(os.pread(file, min(HASHED_BYTES, part.end - begin), begin))
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    return digest.hexdigest()


def _wait(future: Future[None], deadline_s: float) -> None:
    try:
        future.result(min(max(0.0, deadline_s - perf_counter()), MAX_WAIT_S))
    except TimeoutError as error:
        raise UnreachableError("no time is left") from error
