"""Powertools' logger, with the ids of the current request in each line."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from logging import LogRecord
from typing import Any

from aws_lambda_powertools import Logger

from feedrank.settings import Settings
from feedrank.telemetry.output import LogStream


@dataclass(slots=True)
class Service:
    """How lines and metrics name this service. `configure` sets it."""

    name: str = "feedrank"
    namespace: str = "feedrank"


# The arguments and `configure` replace what Powertools would read from the environment by itself.
logger = Logger("feedrank", "INFO", sampling_rate=0, stream=LogStream())  # type: ignore[arg-type]
logger.remove_keys(["sampling_rate"])
service = Service()
request_ids: ContextVar[Mapping[str, Any] | None] = ContextVar("request_ids", default=None)


def _add_request_ids(record: LogRecord) -> bool:
    """When a line is written, since few requests write one: Powertools' own way of keeping keys
    costs each request more."""
    vars(record).update(request_ids.get() or {})
    return True


logger.addFilter(_add_request_ids)


def configure(settings: Settings) -> None:
    logger.setLevel(settings.log_level)
    logger.append_keys(service=settings.service_name)
    service.name = settings.service_name
    service.namespace = settings.metrics_namespace
