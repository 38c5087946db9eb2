"""MLflow's webhook of a promoted model: starts the build that releases it.

MLflow signs `<delivery id>.<timestamp>.<body>` with HMAC-SHA256. A delivery that is older than four
minutes is refused, and CodeBuild takes each delivery's id as a token once in five minutes, so that
a recorded request starts nothing. The body only says that a model was promoted: which one the build
releases is in its own settings.
"""

import base64
import hashlib
import hmac
import json
import logging
import os
import time
import uuid
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import boto3

MAX_AGE_S = 240  # CodeBuild remembers a token for 300
MAX_AHEAD_S = 30  # of MLflow's clock
MAX_BYTES = 16_384
SECRET_AGE_S = 300  # a new secret is read after that
PROMOTION = ("model_version_alias", "created")  # MLflow's event where an alias is set
ACCEPTED, IGNORED, REFUSED = 202, 204, 401

log = logging.getLogger()
log.setLevel(logging.INFO)


class RefusedError(Exception):
    """Why a request isn't MLflow's, or not a new one. For the log: the caller learns nothing."""


def handler(event: dict[str, Any], _context: object) -> dict[str, int]:
    """Lambda's entry point, for a function URL. MLflow repeats what an error ends, a 502."""
    try:
        delivery, body = verified(event, time.time())
    except RefusedError as error:
        log.warning("refused: %s", error)
        return {"statusCode": REFUSED}
    if not is_promotion(body):
        log.info("ignored delivery %s: no promotion of this model", delivery)
        return {"statusCode": IGNORED}
    build = boto3.client("codebuild").start_build(
        projectName=os.environ["PROJECT"], idempotencyToken=delivery
    )
    log.info("delivery %s started build %s", delivery, build["build"]["id"])
    return {"statusCode": ACCEPTED}


def verified(event: Mapping[str, Any], now_s: float) -> tuple[str, bytes]:
    """The delivery's id and the body. Raises RefusedError."""
    headers = {name.lower(): value for name, value in event.get("headers", {}).items()}
    delivery, timestamp, signature = (
        headers.get(f"x-mlflow-{name}", "") for name in ("delivery-id", "timestamp", "signature")
    )
    body = _body(event)
    if not timestamp.isdecimal() or len(body) > MAX_BYTES:
        raise RefusedError("no timestamp, or too long")
    if not -MAX_AHEAD_S <= now_s - int(timestamp) <= MAX_AGE_S:
        raise RefusedError("the timestamp is too old, or ahead of time")
    secret = _secret(int(now_s // SECRET_AGE_S))
    signed = f"{delivery}.{timestamp}.".encode() + body
    expected = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest())
    if not hmac.compare_digest(b"v1," + expected, signature.encode()):
        raise RefusedError("the signature is another")
    return str(uuid.UUID(delivery)), body


def _body(event: Mapping[str, Any]) -> bytes:
    body: str = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:
        raise RefusedError("the body is no base64") from error


@lru_cache(maxsize=1)
def _secret(_period: int) -> bytes:
    """Read once in a period."""
    client = boto3.client("secretsmanager")
    value: str = client.get_secret_value(SecretId=os.environ["SIGNATURE_ARN"])["SecretString"]
    return value.encode()


def is_promotion(body: bytes) -> bool:
    """Whether MLflow has given the alias of this model to a version."""
    message = json.loads(body)
    data = message["data"]
    return (message["entity"], message["action"]) == PROMOTION and (
        (data["name"], data["alias"]) == (os.environ["MODEL_NAME"], os.environ["MODEL_ALIAS"])
    )
