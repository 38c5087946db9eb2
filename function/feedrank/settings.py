"""Every environment variable that the function reads: no other module reads the environment.

A test compares the README's table with the fields of `Settings`.
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
from feedrank.domain import DEFAULT_MAX_ITEMS, MAX_ITEMS
from feedrank.errors import SettingsError

FUNCTION_NAME = "AWS_LAMBDA_FUNCTION_NAME"
FUNCTION_MEMORY_MB = "AWS_LAMBDA_FUNCTION_MEMORY_SIZE"
INIT_TYPE = "AWS_LAMBDA_INITIALIZATION_TYPE"
TRACE = "_X_AMZN_TRACE_ID"
RUNTIME_API = "AWS_LAMBDA_RUNTIME_API"
MIN_KEY_LENGTH = 32  # characters; as hex they are 128 bits
MAX_TIME_S = 900.0  # Lambda's
MAX_EVENT_BYTES = 6 * 1_024 * 1_024  # Lambda's
MAX_RETRY_S = 300.0
MAX_THREADS = 64
MAX_CACHE_MB = 8_192
MAX_AGE_S = 10 * 366 * 86_400.0
MAX_NAME_BYTES = 255  # of most file systems
LOAD_WITHIN_INIT_S = 8.0  # of Lambda's ten seconds; the rest is for the fallback
MIN_COMMON_PREFIX = 4  # letters
MIN_SIMILARITY = 0.88  # `difflib`'s ratio, 1 for the same name
_ACCESS_POINT = r"arn:aws[a-z-]*:s3:[a-z0-9-]+:\d{12}:accesspoint:[a-z0-9-]{3,63}"
_S3_URI = re.compile(rf"s3://([A-Za-z0-9._-]{{3,255}}|{_ACCESS_POINT})(/.*)?")  # botocore's rule
_TABLES = r"dynamodb://[A-Za-z0-9_.-]{3,255}|feast://[A-Za-z0-9_.-]{1,250}"
_VALKEY = r"valkeys?://[A-Za-z0-9.-]+(:\d{1,5})?(/\d*)?(\?prefix=[!-~]+)?"
_FEATURES_URI = rf"snapshot|(users:)?({_TABLES}|{_VALKEY})"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_BASE_PATH = re.compile(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+)*")  # RFC 3986's pchar
_SECRET = re.compile(
    r"(arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:)?[A-Za-z0-9/_+=.@-]{1,512}"
)


def _plain(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must have no control character, and no space at either end")
    return text


def _bundle_uri(text: str) -> str:
    if _SCHEME.match(text) and not _S3_URI.fullmatch(text):
        raise ValueError("must be s3://bucket/prefix/ or a directory")
    return _plain(text)


def _base_path(text: str) -> str:
    if not _BASE_PATH.fullmatch(text):
        raise ValueError("must be /name or /name/name, of letters, digits and -._~!$&'()*+,;=:@")
    return text


def _secret(text: str) -> str:
    if text and not _SECRET.fullmatch(text):
        raise ValueError("must be the name or ARN of a secret in Secrets Manager")
    return text


def _directory(path: Path) -> Path:
    if any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in path.parts):
        raise ValueError(f"must have no name of more than {MAX_NAME_BYTES} bytes")
    _plain(str(path))
    return path


Directory = Annotated[Path, AfterValidator(_directory)]
# What CloudWatch accepts as a dimension's value and as a namespace.
ServiceName = Annotated[str, Field(pattern="^[!-~]([ -~]*[!-~])?$", max_length=250)]
Namespace = Annotated[str, Field(pattern="^[0-9A-Za-z._/#-][0-9A-Za-z._/#: -]*$", max_length=255)]


class Settings(BaseModel):
    """A field's variable is its name in capitals, unless it has an alias. An empty variable counts
    as unset: templates pass one for each parameter without a value."""

    model_config = ConfigDict(
        frozen=True, alias_generator=str.upper, protected_namespaces=(), hide_input_in_errors=True
    )

    model_uri: Annotated[str, AfterValidator(_bundle_uri)] = Field(
        min_length=1,
        max_length=1_100,  # S3: a key has up to 1,024 bytes
        description="The bundle: `s3://bucket/prefix/` or a directory such as `/opt/model`",
    )
    model_digest: str = Field(
        default="",
        pattern="^([0-9a-f]{64})?$",
        description="SHA-256 of the bundle's manifest; a bundle with another one is refused",
    )
    model_engine: Literal["onnx", "torch"] = Field(
        default="onnx", description="Engine: ONNX Runtime, or PyTorch (container images only)"
    )
    model_fallback: Literal["none", "layer"] = Field(
        default="none",
        description="`layer`: while `MODEL_URI` can't be served, serve `MODEL_LAYER_DIR`, degraded",
    )
    model_layer_dir: Directory = Field(
        default=Path("/opt/model"), description="Directory of the model layer's bundle"
    )
    model_cache_dir: Directory = Field(
        default=Path("/tmp/feedrank"),  # noqa: S108 the one writable directory in Lambda
        description="Directory for the copy of a bundle that Lambda doesn't mount",
    )
    model_load_seconds: float = Field(
        default=8.0,
        gt=0,
        le=MAX_TIME_S,
        description="Maximum time that init waits for the bundle; then the fallback serves, or 503",
    )
    model_retry_seconds: float = Field(
        default=5.0,
        gt=0,
        le=MAX_RETRY_S,
        description="Pause before a refused bundle is tried again; doubles up to 5 minutes",
    )
    features_uri: str = Field(
        default="snapshot",
        pattern=f"^({_FEATURES_URI})$",
        description="Where features come from: `snapshot` is the bundle's; `dynamodb://table` has "
        "the rows of users and items, `feast://project` a Feast store in DynamoDB, "
        "`valkey://host:port/database?prefix=text` (or `valkeys://`, TLS) Valkey or Redis; with "
        "`users:` before it, those of users alone",
    )
    features_password: SecretStr | None = Field(
        default=None,
        max_length=512,
        description="Password of Valkey; where others can read the environment, use "
        "`FEATURES_SECRET`",
    )
    features_secret: Annotated[str, AfterValidator(_secret)] = Field(
        default="",
        max_length=2_048,
        description="Name or ARN of the secret in AWS Secrets Manager with that password, as text "
        'or as `{"username": ..., "password": ...}`; read at init',
    )
    features_timeout_ms: int = Field(
        default=30,
        gt=0,
        le=1_000 * MAX_TIME_S,
        description="Time that a request waits for that store; then other rows stand in, degraded",
    )
    features_cache_mb: int = Field(
        default=32,
        gt=0,
        le=MAX_CACHE_MB,
        description="Memory for rows of items that were read from that store",
    )
    features_cache_s: float = Field(
        default=60.0,
        ge=0,
        le=MAX_AGE_S,
        description="Time for which such a row is not read again",
    )
    max_feature_age_s: float = Field(
        default=0.0,
        ge=0,
        le=MAX_AGE_S,
        description="Age of a row beyond which another stands in for it; `0`: any age",
    )
    order_without_features: Literal["model", "caller"] = Field(
        default="model",
        description="Order of the items where defaults stand for all rows: `caller` keeps the "
        "request's, and says so in `degraded`",
    )
    engine_threads: int = Field(
        default=0,
        ge=0,
        le=MAX_THREADS,
        description="Scoring threads; `0`: one per 1,769 MB of function memory",
    )
    engine_device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="`cuda`: an NVIDIA GPU, and no model without one; `auto`: with PyTorch a GPU "
        "where there is one, else the CPU",
    )
    request_timeout_ms: int = Field(
        default=2_000,
        gt=0,
        le=1_000 * MAX_TIME_S,
        description="Time budget of a request; past it the response is a 504",
    )
    max_items: int = Field(
        default=DEFAULT_MAX_ITEMS,
        gt=0,
        le=MAX_ITEMS,
        description="Most items of a request; past it the response is a 422",
    )
    max_body_bytes: int = Field(
        default=65_536,
        gt=0,
        le=MAX_EVENT_BYTES,
        description="Maximum size of a request body; past it the response is a 413",
    )
    base_path: Annotated[str, AfterValidator(_base_path)] = Field(
        default="",
        max_length=255,
        description="Path in front of the routes: a stage or a domain's mapping, such as `/prod`",
    )
    api_auth: Literal["none", "iam", "jwt"] = Field(
        default="none", description="How API Gateway authenticates callers, for `/openapi.json`"
    )
    sagemaker: Literal["on", "off"] = Field(
        default="off",
        description="`on`: the routes that SageMaker calls, `GET /ping` and `POST /invocations`",
    )
    context_check: Literal["strict", "warn"] = Field(
        default="strict",
        description="A context key or value that the model doesn't read: `strict` responds with "
        "422, `warn` ranks and lists it in `warnings`",
    )
    extensions: str = Field(
        default="",
        pattern=r"^([A-Za-z_]\w*(\.[A-Za-z_]\w*)*)?$",
        max_length=255,
        description="Module with the team's own parts, such as `extensions` for "
        "`function/extensions.py`",
    )
    decision_log_dir: Directory | None = Field(
        default=None,
        description="Directory that decision records are also appended to, one JSONL file a day",
    )
    decision_stream: str = Field(
        default="",
        pattern="^[0-9A-Za-z._-]*$",
        max_length=64,
        description="Firehose stream that decision records are sent to instead of the log",
    )
    record_ids: Literal["plain", "hashed"] = Field(
        default="plain",
        description="`hashed`: decision records hold a keyed hash of the user's id (`user_hash`) "
        "in its place",
    )
    record_outputs: Literal["explained", "always"] = Field(
        default="explained",
        description="`always`: decision records hold the outputs that a score is made of for every "
        "request, not only where it says `explain`",
    )
    record_id_key: SecretStr | None = Field(
        default=None,
        description="Key of those hashes, at least 32 characters; where others can read the "
        "environment, use `RECORD_ID_KEY_SECRET`",
    )
    record_id_key_secret: Annotated[str, AfterValidator(_secret)] = Field(
        default="",
        max_length=2_048,
        validate_default=True,
        description="Name or ARN of the secret in AWS Secrets Manager that holds the key; read at "
        "init, with SnapStart when a version is published",
    )
    tracing: Literal["on", "off"] = Field(
        default="off", description="`on`: X-Ray segments by Powertools' Tracer"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", alias="POWERTOOLS_LOG_LEVEL", description="Minimum log level"
    )
    service_name: ServiceName = Field(
        default="feedrank",
        alias="POWERTOOLS_SERVICE_NAME",
        description="`service` of every log line, metric and trace",
    )
    metrics_namespace: Namespace = Field(
        default="feedrank",
        alias="POWERTOOLS_METRICS_NAMESPACE",
        description="CloudWatch namespace of the metrics",
    )

    @field_validator("features_password")
    @classmethod
    def _is_plain(cls, password: SecretStr) -> SecretStr:
        _plain(password.get_secret_value())
        return password

    @field_validator("record_id_key")
    @classmethod
    def _is_long_enough(cls, key: SecretStr) -> SecretStr:
        if len(key.get_secret_value().strip()) < MIN_KEY_LENGTH:
            raise ValueError(f"must have at least {MIN_KEY_LENGTH} characters")
        return key

    @field_validator("record_id_key_secret")
    @classmethod
    def _is_the_one_key(cls, secret: str, info: ValidationInfo) -> str:
        before = info.data  # lacks the fields that are wrong themselves
        if {"record_ids", "record_id_key"} <= before.keys():
            keys = bool(secret) + bool(before["record_id_key"])
            if keys != (before["record_ids"] == "hashed"):
                raise ValueError("RECORD_IDS=hashed needs this or RECORD_ID_KEY, plain neither")
        return secret

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Raises SettingsError that names every variable that is missing or wrong, including those
        that libraries read by themselves."""
        wrong = libraries.refused(environment)
        try:
            settings = cls.model_validate({k: v for k, v in environment.items() if v})
        except ValidationError as error:
            raise _refusal([*map(_problem, error.errors()), *wrong]) from None
        if wrong:
            raise _refusal(wrong)
        return settings

    def check_places(self) -> None:
        """Raises SettingsError that names each variable whose directory or package is missing."""
        wrong = []
        if self.model_fallback == "layer" and not self.model_layer_dir.is_dir():
            wrong.append("MODEL_FALLBACK: layer needs a directory, which MODEL_LAYER_DIR isn't")
        needs_copy = self.model_uri.startswith("s3://") and self.model_fallback == "none"
        if needs_copy and not _is_writable(self.model_cache_dir, 0o700):  # else the layer serves
            wrong.append("MODEL_CACHE_DIR: must be a directory that is writable or can be made")
        if self.decision_log_dir and not _is_writable(self.decision_log_dir):
            wrong.append("DECISION_LOG_DIR: must be a directory that is writable or can be made")
        if self.model_engine == "torch" and not find_spec("torch"):
            wrong.append("MODEL_ENGINE: torch is not installed; use the image that has it")
        if self.tracing == "on" and not find_spec("aws_xray_sdk"):
            wrong.append("TRACING: on needs the package aws-xray-sdk, which is not installed")
        if wrong:
            raise _refusal(wrong)

    def doubts(self, environment: Mapping[str, str] = os.environ) -> list[str]:
        """Warnings about settings that are valid and rarely intended."""
        on_demand = environment.get(INIT_TYPE) == "on-demand"
        slow = on_demand and self.model_load_seconds > LOAD_WITHIN_INIT_S
        late = "MODEL_LOAD_SECONDS: Lambda ends an init after 10 s, and begins it again"
        return [late] * slow + [
            f"{name}: no setting has this name; {known} is one"
            for name, known in _misspelt(environment).items()
        ]


def load_settings() -> Settings:
    """The process's settings. Unsets the empty variables that libraries would refuse.

    Raises SettingsError.
    """
    for name in libraries.empty(os.environ):
        del os.environ[name]
    settings = Settings.from_environment(os.environ)
    settings.check_places()
    return settings


def is_lambda() -> bool:
    return bool(os.environ.get(FUNCTION_NAME))


def function_memory_mb() -> int:
    """0 outside Lambda."""
    return int(os.environ.get(FUNCTION_MEMORY_MB, "0"))


def aws_variables() -> Mapping[str, str]:
    """The environment, for the AWS_* variables and those of proxies. SnapStart may change some of
    them later."""
    return os.environ


def init_type() -> str:
    """`on-demand`, `provisioned-concurrency`, `snap-start` or `lambda-managed-instances`; `none`
    outside Lambda."""
    return os.environ.get(INIT_TYPE, "none")


def lambda_trace() -> str | None:
    """X-Ray's header of the current invocation: Lambda's runtime sets it anew for each."""
    return os.environ.get(TRACE)


def runtime_api() -> str:
    """Host and port of Lambda's runtime API. Raises KeyError outside Lambda."""
    return os.environ[RUNTIME_API]


def _misspelt(environment: Mapping[str, str]) -> dict[str, str]:
    """Similar settings by variable: most of the letters and the first four are the same."""
    known = [str(field.alias) for field in Settings.model_fields.values()]
    prefixes = {name[:MIN_COMMON_PREFIX] for name in known}
    others = environment.keys() - known - libraries.PATTERNS.keys()
    unknown = sorted(name for name in others if name[:MIN_COMMON_PREFIX] in prefixes)
    if not unknown:
        return {}
    from difflib import get_close_matches

    nearest = {name: get_close_matches(name, known, 1, MIN_SIMILARITY) for name in unknown}
    return {name: names[0] for name, names in nearest.items() if names}


def _problem(problem: ErrorDetails) -> str:
    name = str(problem["loc"][0]).upper()  # a default that is wrong is named by its field
    field = next(f for f in Settings.model_fields.values() if f.alias == name)
    return f"{name}: {problem['msg'].removeprefix('Value error, ')}. {field.description}"


def _is_writable(directory: Path, mode: int = 0o777) -> bool:
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=mode)
    except OSError:
        return False
    return os.access(directory, os.W_OK | os.X_OK)


def _refusal(wrong: list[str]) -> SettingsError:
    return SettingsError("\n  ".join(["wrong environment variables:", *wrong]))
