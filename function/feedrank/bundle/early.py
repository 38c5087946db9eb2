"""A bundle that is fetched while the process still imports its libraries."""

from collections.abc import Callable

from feedrank.bundle.fetch import Bundle, in_thread


class EarlyFetch:
    """Begins a fetch in a thread when it is made. The first call waits for that, each later one
    fetches anew."""

    def __init__(self, fetch: Callable[[], Bundle]) -> None:
        self._fetch = fetch
        self._early = [in_thread(fetch)]

    def __call__(self) -> Bundle:
        """Raises what `fetch` raises."""
        try:
            return self._early.pop().result()
        except IndexError:
            return self._fetch()
