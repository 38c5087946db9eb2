import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedops.workspace import FUNCTION
from feedrank.errors import SettingsError
from feedrank.settings import Settings

WRONG = {
    "MODEL_DIGEST": "not-hex",
    "MODEL_ENGINE": "tensorflow",
    "MODEL_FALLBACK": "maybe",
    "MODEL_RETRY_SECONDS": "soon",
    "ENGINE_THREADS": "-1",
    "REQUEST_TIMEOUT_MS": "0",
    "MAX_BODY_BYTES": "64k",
    "BASE_PATH": "unslashed",
    "CONTEXT_CHECK": "lax",
    "TRACING": "yes",
    "POWERTOOLS_LOG_LEVEL": "LOUD",
}


def test_only_the_settings_read_the_environment() -> None:
    """The package itself sets ONNX Runtime's switch."""
    modules = {
        path.relative_to(FUNCTION).as_posix()
        for path in FUNCTION.rglob("*.py")
        if re.search(r"\b(environb?|getenvb?|putenv)\b", path.read_text())
    }
    assert modules == {"feedrank/__init__.py", "feedrank/settings.py"}


def test_a_model_uri_alone_gives_the_documented_defaults() -> None:
    settings = Settings.from_environment({"MODEL_URI": "s3://models/feed/", "PATH": "/bin"})
    assert settings.model_dump() == {
        "model_uri": "s3://models/feed/",
        "model_digest": "",
        "model_engine": "onnx",
        "model_fallback": "none",
        "model_layer_dir": Path("/opt/model"),
        "model_cache_dir": Path("/tmp/feedrank"),
        "model_load_seconds": 8.0,
        "model_retry_seconds": 5.0,
        "features_uri": "snapshot",
        "features_password": None,
        "features_secret": "",
        "features_timeout_ms": 30,
        "features_cache_mb": 32,
        "features_cache_s": 60.0,
        "max_feature_age_s": 0.0,
        "order_without_features": "model",
        "engine_threads": 0,
        "engine_device": "auto",
        "request_timeout_ms": 2_000,
        "max_items": 100,
        "max_body_bytes": 65_536,
        "base_path": "",
        "api_auth": "none",
        "sagemaker": "off",
        "context_check": "strict",
        "record_outputs": "explained",
        "extensions": "",
        "decision_log_dir": None,
        "decision_stream": "",
        "record_ids": "plain",
        "record_id_key": None,
        "record_id_key_secret": "",
        "tracing": "off",
        "log_level": "INFO",
        "service_name": "feedrank",
        "metrics_namespace": "feedrank",
    }


def test_one_error_names_all_wrong_variables() -> None:
    with pytest.raises(SettingsError) as error:
        Settings.from_environment(WRONG)
    names = [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]]
    assert sorted(names) == sorted([*WRONG, "MODEL_URI"])


def test_no_message_repeats_a_wrong_value() -> None:
    with pytest.raises(SettingsError) as error:
        Settings.from_environment(WRONG)
    assert [value for value in WRONG.values() if len(value) > 2 and value in str(error.value)] == []


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-5"])
def test_a_pause_must_be_a_positive_finite_number(value: str) -> None:
    with pytest.raises(SettingsError, match="MODEL_RETRY_SECONDS"):
        Settings.from_environment({"MODEL_URI": "/opt/model", "MODEL_RETRY_SECONDS": value})


@pytest.mark.parametrize("name", [*WRONG, "DECISION_LOG_DIR", "POWERTOOLS_SERVICE_NAME"])
def test_an_empty_variable_counts_as_unset(name: str) -> None:
    environment = {"MODEL_URI": "/opt/model"}
    settings = Settings.from_environment(environment)
    assert Settings.from_environment(environment | {name: ""}) == settings


def test_an_empty_model_uri_counts_as_missing() -> None:
    with pytest.raises(SettingsError, match="MODEL_URI: Field required"):
        Settings.from_environment({"MODEL_URI": ""})


@pytest.mark.parametrize("path", ["", "/prod", "/v1/feed", "/a:b@c", "/-._~!$&'()*+,;="])
def test_a_base_path_starts_with_a_slash_and_ends_without_one(path: str) -> None:
    assert Settings.from_environment({"MODEL_URI": "/m", "BASE_PATH": path}).base_path == path


@pytest.mark.parametrize("path", ["/", "/prod/", "//prod", "prod"])
def test_another_base_path_is_refused(path: str) -> None:
    with pytest.raises(SettingsError, match="BASE_PATH"):
        Settings.from_environment({"MODEL_URI": "/m", "BASE_PATH": path})


@given(st.text(string.printable, min_size=12).filter(str.strip))
def test_no_message_repeats_a_text_in_a_numbers_place(value: str) -> None:
    environment = {"MODEL_URI": "/m", "ENGINE_THREADS": f"<{value}>"}
    with pytest.raises(SettingsError) as error:
        Settings.from_environment(environment)
    assert f"<{value}>" not in str(error.value)


ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:feedrank/ids-AbCdEf"


@pytest.mark.parametrize(
    "secret", ["feedrank/record-ids", "a_+=.@-", ARN, ARN.replace("aws", "aws-cn")]
)
def test_a_secret_is_named_by_its_name_or_arn(secret: str) -> None:
    hashed = {"MODEL_URI": "/m", "RECORD_IDS": "hashed"}
    settings = Settings.from_environment(hashed | {"RECORD_ID_KEY_SECRET": secret})
    assert settings.record_id_key_secret == secret


@pytest.mark.parametrize(
    "secret",
    ["a b", "a:b", "a!b", "arn:aws:s3:::bucket/a", ARN.partition(":secret:")[0], ARN + "?"],
)
def test_another_secret_is_refused(secret: str) -> None:
    hashed = {"MODEL_URI": "/m", "RECORD_IDS": "hashed"}
    with pytest.raises(SettingsError, match="RECORD_ID_KEY_SECRET: must be the name or ARN"):
        Settings.from_environment(hashed | {"RECORD_ID_KEY_SECRET": secret})
