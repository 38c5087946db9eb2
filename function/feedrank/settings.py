"""Every environment variable that the function reads, in one place.

The README's table is made of these fields, and a test holds the two together.
"""

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from feedrank import libraries
from feedrank.errors import SettingsError

LEAST_KEY = 32  # characters of a key; as hex they are 128 bits
LONGEST_TIME_S = 900.0  # Lambda's
LARGEST_EVENT_BYTES = 6 * 1_024 * 1_024  # Lambda's
LONGEST_RETRY_S = 300.0
MOST_THREADS = 64
LONGEST_NAME = 255  # bytes, as a file system has it
LOAD_WITHIN_INIT_S = 8.0  # of Lambda's ten seconds; the fallback has the rest
LEAST_ALIKE, ALIKE = 4, 0.88  # letters in front; `difflib`'s ratio, 1 for the same name
_ACCESS_POINT = r"arn:aws[a-z-]*:s3:[a-z0-9-]+:\d{12}:accesspoint:[a-z0-9-]{3,63}"
_S3_URI = re.compile(rf"s3://([A-Za-z0-9._-]{{3,255}}|{_ACCESS_POINT})(/.*)?")  # as botocore has it
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_BASE_PATH = re.compile(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)*")


def _plain(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must have no control character, and no space at either end")
    return text


def _bundle_uri(text: str) -> str:
    if _SCHEME.match(text) and not _S3_URI.fullmatch(text):
        raise ValueError("must be s3://bucket/prefix/, or a folder")
    return _plain(text)


def _base_path(text: str) -> str:
    if not _BASE_PATH.fullmatch(text):
        raise ValueError("must be /name or /name/name, of letters, digits and . _ ~ -")
    return text


def _folder(path: Path) -> Path:
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
        raise ValueError(f"must have no name of more than {LONGEST_NAME} bytes")
    _plain(str(path))
    return path


Folder = Annotated[Path, AfterValidator(_folder)]
# What CloudWatch takes as a dimension's value and as a namespace.
ServiceName = Annotated[str, Field(pattern="^[!-~]([ -~]*[!-~])?$", max_length=250)]
Namespace = Annotated[str, Field(pattern="^[0-9A-Za-z._/#-][0-9A-Za-z._/#: -]*$", max_length=255)]


class Settings(BaseModel):
    """A field's variable is its name in capitals, unless it has an alias. An empty variable counts
    as one that is not set: templates pass those for parameters without a value."""

    model_config = ConfigDict(
        frozen=True, alias_generator=str.upper, protected_namespaces=(), hide_input_in_errors=True
    )

    model_uri: Annotated[str, AfterValidator(_bundle_uri)] = Field(
        min_length=1,
        max_length=1_100,  # S3: a key has up to 1,024 bytes
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
    model_layer_dir: Folder = Field(
        default=Path("/opt/model"), description="Where the model layer puts its bundle"
    )
    model_cache_dir: Folder = Field(
        default=Path("/tmp/feedrank"),  # noqa: S108 the one writable folder in Lambda
        description="Where a bundle is copied to, unless Lambda mounts it; the files have no name",
    )
    model_load_seconds: float = Field(
        default=8.0,
        gt=0,
        le=LONGEST_TIME_S,
        description="Longest that init waits for the bundle; then the fallback serves, or 503",
    )
    model_retry_seconds: float = Field(
        default=5.0,
        gt=0,
        le=LONGEST_RETRY_S,
        description="Pause before a refused bundle is tried again; doubles up to five minutes",
    )
    engine_threads: int = Field(
        default=0,
        ge=0,
        le=MOST_THREADS,
        description="Threads that score; `0`: one per 1,769 MB of function memory",
    )
    request_timeout_ms: int = Field(
        default=2_000,
        gt=0,
        le=1_000 * LONGEST_TIME_S,
        description="Time budget of a request; past it the answer is 504",
    )
    max_body_bytes: int = Field(
        default=65_536,
        gt=0,
        le=LARGEST_EVENT_BYTES,
        description="Largest request body; past it the answer is 413",
    )
    base_path: Annotated[str, AfterValidator(_base_path)] = Field(
        default="",
        max_length=255,
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
    decision_log_dir: Folder | None = Field(
        default=None, description="Also keep decision records here, one JSONL file a day"
    )
    decision_stream: str = Field(
        default="",
        pattern="^[0-9A-Za-z._-]*$",
        max_length=64,
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
    record_id_key_secret: Annotated[str, AfterValidator(_plain)] = Field(
        default="",
        max_length=2_048,
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
    service_name: ServiceName = Field(
        default="feedrank",
        alias="POWERTOOLS_SERVICE_NAME",
        description="`service` in every log line, metric and trace",
    )
    metrics_namespace: Namespace = Field(
        default="feedrank",
        alias="POWERTOOLS_METRICS_NAMESPACE",
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
        """Raises SettingsError that names every variable which is missing or wrong, those among
        them that libraries read by themselves."""
        wrong = libraries.refused(environment)
        try:
            settings = cls.model_validate({k: v for k, v in environment.items() if v})
        except ValidationError as error:
            raise _refusal([*map(_told, error.errors()), *wrong]) from None
        if wrong:
            raise _refusal(wrong)
        return settings

    def check_places(self) -> None:
        """Raises SettingsError that names each variable whose folder or package isn't there."""
        wrong = []
        if self.model_fallback == "layer" and not self.model_layer_dir.is_dir():
            wrong.append("MODEL_FALLBACK: layer needs a folder, which MODEL_LAYER_DIR isn't")
        alone = self.model_uri.startswith("s3://") and self.model_fallback == "none"
        if alone and not _is_writable(self.model_cache_dir, 0o700):  # else the layer serves
            wrong.append("MODEL_CACHE_DIR: must be a folder that can be written, or made")
        if self.decision_log_dir and not _is_writable(self.decision_log_dir):
            wrong.append("DECISION_LOG_DIR: must be a folder that can be written, or made")
        if self.model_engine == "torch" and not find_spec("torch"):
            wrong.append("MODEL_ENGINE: torch is not installed; images that have it can choose it")
        if self.tracing == "on" and not find_spec("aws_xray_sdk"):
            wrong.append("TRACING: on needs the package aws-xray-sdk, which is not installed")
        if wrong:
            raise _refusal(wrong)

    def doubts(self, environment: Mapping[str, str]) -> list[str]:
        """What may be meant, and rarely is."""
        on_demand = environment.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "on-demand"
        slow = on_demand and self.model_load_seconds > LOAD_WITHIN_INIT_S
        late = "MODEL_LOAD_SECONDS: Lambda ends an init after 10 s, and begins it again"
        return [late] * slow + [
            f"{name}: no setting has this name; {known} is one"
            for name, known in _misspelt(environment).items()
        ]


def _misspelt(environment: Mapping[str, str]) -> dict[str, str]:
    """By variable, the setting whose name it nearly has, and begins as."""
    known = [str(field.alias) for field in Settings.model_fields.values()]
    starts = {name[:LEAST_ALIKE] for name in known}
    others = environment.keys() - known - libraries.PATTERNS.keys()
    unknown = sorted(name for name in others if name[:LEAST_ALIKE] in starts)
    if not unknown:
        return {}
    from difflib import get_close_matches

    nearest = {name: get_close_matches(name, known, 1, ALIKE) for name in unknown}
    return {name: names[0] for name, names in nearest.items() if names}


def _told(problem: ErrorDetails) -> str:
    name = str(problem["loc"][0]).upper()  # a default that is wrong is named by its field
    field = next(f for f in Settings.model_fields.values() if f.alias == name)
    return f"{name}: {problem['msg'].removeprefix('Value error, ')}. {field.description}"


def _is_writable(folder: Path, mode: int = 0o777) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=mode)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _refusal(wrong: list[str]) -> SettingsError:
    return SettingsError("\n  ".join(["wrong environment variables:", *wrong]))
