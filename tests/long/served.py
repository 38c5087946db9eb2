"""Serves the app at a URL until the context exits."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from feedops.local.background import front_server
from uvicorns import uvicorn


@contextlib.contextmanager
def under_uvicorn(bundle: Path, _scratch: Path, **env: str) -> Iterator[str]:
    with uvicorn(bundle, **env) as server:
        yield server.url


@contextlib.contextmanager
def on_the_local_lambda(bundle: Path, scratch: Path, **env: str) -> Iterator[str]:
    """The HTTP front with the real emulator and runtime client behind it."""
    with front_server(scratch, bundle, environments=1, longest_wait_s=60.0, **env) as url:
        yield url
