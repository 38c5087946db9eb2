"""Every environment variable that the function reads, in one place.

The README's table is made of these fields, and a test holds the two together.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from feedrank.errors import SettingsError

LEAST_KEY = 32  # characters of a key; as hex they are 128 bits


class Settings(BaseModel):
    """A field's variable is its name in capitals, unless it has an alias. An empty variable counts
    as one that is not set: templates pass those for parameters without a value."""

    model_config = ConfigDict(
        frozen=True, alias_generator=str.upper, protected_namespaces=(), hide_input_in_errors=True
    )

    model_uri: str = Field(
        min_length=1,
        description="The bundle: `s3://bucket/prefix/` or a folder such as `/opt/model`",
    )
    model_digest: str = Field(
        default="",
        pattern="^([0-9a-f]{64})?$",
        description="SHA-256 of the bundle's manifest; anything else found there is refused",
    )
    model_engine: Literal["onnx", "torch"] = Field(
        default="onnx", description="What scores: ONNX Runtime, or PyTorch (container images only)"
    )
    model_fallback: Literal["none", "layer"] = Field(
        default="none",
        description="`layer`: while `MODEL_URI` can't be served, serve `MODEL_LAYER_DIR`, degraded",
    )
    model_layer_dir: Path = Field(
        default=Path("/opt/model"), description="Where the model layer puts its bundle"
    )
    model_cache_dir: Path = Field(
        default=Path("/tmp/feedrank"),  # noqa: S108 the one writable folder in Lambda
        description="Where a bundle is copied to, unless Lambda mounts it; the files have no name",
    )
    model_load_seconds: float = Field(
        default=8.0,
        gt=0,
        allow_inf_nan=False,
        description="Longest that init waits for the bundle; then the fallback serves, or 503",
    )
    model_retry_seconds: float = Field(
        default=5.0,
        gt=0,
        allow_inf_nan=False,
        description="Pause before a refused bundle is tried again; doubles up to five minutes",
    )
    engine_threads: int = Field(
        default=0, ge=0, description="Threads that score; `0`: one per 1,769 MB of function memory"
    )
    request_timeout_ms: int = Field(
        default=2_000, gt=0, description="Time budget of a request; past it the answer is 504"
    )
    max_body_bytes: int = Field(
        default=65_536, gt=0, description="Largest request body; past it the answer is 413"
    )
    base_path: str = Field(
        default="",
        pattern="^(/[^/]+)*$",
        description="Path before the routes: a stage or a mapped domain, such as `/prod`",
    )
    api_auth: Literal["none", "iam", "jwt"] = Field(
        default="none", description="How API Gateway knows callers, for `/openapi.json` to say"
    )
    context_check: Literal["strict", "warn"] = Field(
        default="strict",
        description="A context key or value that the model doesn't read: `strict` answers 422, "
        "`warn` ranks and names it in `warnings`",
    )
    decision_log_dir: Path | None = Field(
        default=None, description="Also keep decision records here, one JSONL file a day"
    )
    decision_stream: str = Field(
        default="",
        description="Firehose stream that decision records are sent to, instead of the log",
    )
    record_ids: Literal["plain", "hashed"] = Field(
        default="plain",
        description="`hashed`: decision records have a keyed hash of the user's id (`user_hash`) "
        "in its place",
    )
    record_id_key: SecretStr | None = Field(
        default=None,
        description="The key of those hashes, 32 characters or more; where the environment is "
        "no secret, name a secret instead",
    )
    record_id_key_secret: str = Field(
        default="",
        validate_default=True,
        description="The secret in AWS Secrets Manager that is the key, by name or ARN; read at "
        "init",
    )
    tracing: Literal["on", "off"] = Field(
        default="off", description="`on`: X-Ray segments by Powertools' Tracer"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", alias="POWERTOOLS_LOG_LEVEL", description="Least level that is logged"
    )
    service_name: str = Field(
        default="feedrank",
        alias="POWERTOOLS_SERVICE_NAME",
        min_length=1,
        description="`service` in every log line, metric and trace",
    )
    metrics_namespace: str = Field(
        default="feedrank",
        alias="POWERTOOLS_METRICS_NAMESPACE",
        min_length=1,
        description="CloudWatch namespace of the metrics",
    )

    @field_validator("record_id_key")
    @classmethod
    def _is_long_enough(cls, key: SecretStr) -> SecretStr:
        if len(key.get_secret_value().strip()) < LEAST_KEY:
            raise ValueError(f"must have at least {LEAST_KEY} characters")
        return key

    @field_validator("record_id_key_secret")
    @classmethod
    def _is_the_one_key(cls, secret: str, info: ValidationInfo) -> str:
        before = info.data  # what is wrong isn't there
        if {"record_ids", "record_id_key"} <= before.keys():
            keys = bool(secret) + bool(before["record_id_key"])
            if keys != (before["record_ids"] == "hashed"):
                raise ValueError("RECORD_IDS=hashed needs this or RECORD_ID_KEY, plain neither")
        return secret

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Raises SettingsError that names every variable which is missing or wrong."""
        try:
            return cls.model_validate({k: v for k, v in environment.items() if v})
        except ValidationError as error:
            wrong = [
                f"  {str(problem['loc'][0]).upper()}: {problem['msg']}"
                for problem in error.errors()
            ]
            raise SettingsError("\n".join(["wrong environment variables:", *wrong])) from None
