"""Every environment variable that the function reads, in one place.

The README's table is made of these fields, and a test holds the two together.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feedrank.errors import SettingsError


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

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Raises SettingsError that names every variable which is missing or wrong."""
        try:
            return cls.model_validate({k: v for k, v in environment.items() if v})
        except ValidationError as error:
            wrong = [f"  {problem['loc'][0]}: {problem['msg']}" for problem in error.errors()]
            raise SettingsError("\n".join(["wrong environment variables:", *wrong])) from None
