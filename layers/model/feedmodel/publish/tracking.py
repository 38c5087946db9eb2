"""Where MLflow keeps its runs. Imports no MLflow: the command line reads this at every start."""

import os
import re
import socket
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from feedmodel.errors import TrackingError

TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
DEFAULT_TRACKING_URI = "sqlite:///data/mlflow/mlflow.db"
CONNECT_TIMEOUT_S = 5.0
SQLITE_URI = re.compile(r"sqlite(?:\+\w+)?://(?:/([^?]*))?(?:\?.*)?")
SQLITE_HEADER = b"SQLite format 3\0"
DEFAULT_PORTS = {"http": 80, "https": 443}


def tracking_uri(option: str | None = None) -> str:
    """The given URI, else the environment's, else a database in data/.

    Raises TrackingError for a server that accepts no connection (MLflow itself would try for
    minutes), and for a file that is no SQLite database.
    """
    uri = option or os.environ.get(TRACKING_VARIABLE) or DEFAULT_TRACKING_URI
    database = sqlite_database(uri)
    if database and database.exists() and not _is_sqlite(database):
        raise TrackingError(
            f"{database} is no SQLite database: choose another by --tracking-uri or "
            f"{TRACKING_VARIABLE}"
        )
    try:
        address = urlsplit(uri)
    except ValueError as error:
        raise TrackingError(
            f"--tracking-uri or {TRACKING_VARIABLE} is no address: {error}"
        ) from error
    if address.scheme in DEFAULT_PORTS and not _has_proxy(address.scheme, address.hostname or ""):
        _connect(address)
    return uri


def sqlite_database(uri: str) -> Path | None:
    """The file of a SQLite store, None for another store. Raises TrackingError for a SQLite URI
    without a file."""
    match = SQLITE_URI.fullmatch(uri)
    if match and not match[1]:
        raise TrackingError(f"{uri} names no database file; one is sqlite:///data/mlflow.db")
    return Path(match[1]) if match else None


def reason_of(error: Exception, tracking_uri: str) -> str:
    """One line, without the password that a tracking URI may carry."""
    reason = " ".join(str(error).split())
    password = urlsplit(tracking_uri).password
    return reason.replace(password, "***") if password else reason


def without_secret(uri: str) -> str:
    """A tracking URI may carry a password before the @."""
    scheme, separator, rest = uri.partition("://")
    return scheme + separator + rest.rpartition("@")[2]


def _connect(address: SplitResult) -> None:
    try:
        port = address.port or DEFAULT_PORTS[address.scheme]
        socket.create_connection((address.hostname or "", port), CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:  # ValueError: the port is not a number
        host = address.netloc.rpartition("@")[2]  # without a password
        raise TrackingError(
            f"MLflow can't be reached at {host}: {error}; start its "
            f"server, or choose another by --tracking-uri or {TRACKING_VARIABLE}"
        ) from error


def _is_sqlite(file: Path) -> bool:
    """An empty file counts: MLflow creates its tables in it."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(len(SQLITE_HEADER)) in (b"", SQLITE_HEADER)


def _has_proxy(scheme: str, host: str) -> bool:
    return scheme in getproxies() and not proxy_bypass(host)
