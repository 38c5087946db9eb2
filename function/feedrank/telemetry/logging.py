"""Powertools' logger, with the ids of the request that is being served in each line."""

from collections.abc import Mapping
from contextvars import ContextVar
from logging import LogRecord
from typing import Any

from aws_lambda_powertools import Logger, Metrics

from feedrank.settings import Settings
from feedrank.telemetry.output import LogStream

# What Powertools would read of the environment by itself, `configure` sets.
logger = Logger("feedrank", "INFO", sampling_rate=0, stream=LogStream())  # type: ignore[arg-type]
metrics = Metrics()
request_ids: ContextVar[Mapping[str, Any] | None] = ContextVar("request_ids", default=None)


def _with_request_ids(record: LogRecord) -> bool:
    """Read where a line is written, since few requests write one: Powertools' own way of keeping
    keys costs each request more."""
    vars(record).update(request_ids.get() or {})
    return True


logger.addFilter(_with_request_ids)


def configure(settings: Settings) -> None:
    """Make Powertools say what the settings say."""
    logger.setLevel(settings.log_level)
    logger.append_keys(service=settings.service_name)
    metrics.service = settings.service_name
    metrics.namespace = settings.metrics_namespace
