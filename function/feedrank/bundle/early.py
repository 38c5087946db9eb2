"""A bundle that is fetched while the process still imports its libraries."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread

from feedrank.bundle.fetch import Bundle


class EarlyFetch:
    """Begins a fetch in a thread when it is made. The first call waits for that, each later one
    fetches anew."""

    def __init__(self, fetch: Callable[[], Bundle]) -> None:
        self._fetch = fetch
        self._early: list[Future[Bundle]] = [Future()]
        Thread(
            target=self._fulfil, args=tuple(self._early), name="early fetch", daemon=True
        ).start()

    def __call__(self) -> Bundle:
        """Raises what `fetch` raises."""
        try:
            return self._early.pop().result()
        except IndexError:
            return self._fetch()

    def _fulfil(self, early: Future[Bundle]) -> None:
        try:
            early.set_result(self._fetch())
        except BaseException as error:  # noqa: BLE001 raised by the first call
            early.set_exception(error)
